//! One wait over netmap descriptors and other files: what `poll`, `select` and `epoll_wait` have in common. Source: semantics.md 5.

use core::ffi::c_int;
use core::sync::atomic::Ordering::Relaxed;
use libc::{POLLERR, POLLIN, pollfd, sigset_t, timespec};
use ringway::SyncError;
use ringway::raw::Sleeper;
use ringway_abi::Errno;
use ringway_os::sys::{monotonic_nanos, sleep, yield_now};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Duration;

use crate::errno;
use crate::real;
use crate::table::{self, Desc};

/// Syncs in vain, with the far side saying that it moved, before we give way; and before we sleep a little.
const FUTILE_YIELD: u32 = 4;
const FUTILE_SLEEP: u32 = 256;

/// A netmap descriptor that is waited for.
#[derive(Debug)]
pub struct Member {
    pub fd: c_int,
    pub desc: Arc<Desc>,
    pub events: i16,
    /// Edge-triggered: ready only if something has moved since this mark.
    pub since: Option<u64>,
}

impl Member {
    /// What the program has seen when it is told now.
    pub fn mark(&self) -> u64 {
        let positions = self.desc.known().map_or(0, |b| b.positions(self.events));
        positions.wrapping_add(self.desc.syncs.load(Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// `found`, unless it was told before.
    fn news(&self, found: i16) -> i16 {
        match self.since {
            Some(mark) if found & POLLERR == 0 && mark == self.mark() => 0,
            _ => found,
        }
    }

    /// One evaluation.
    pub fn look(&self) -> i16 {
        match self.desc.bound(self.fd) {
            Some(bound) => self.news(bound.look_at(self.events)),
            None => POLLERR,
        }
    }
}

/// A point in time.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Option<u64>);

impl Deadline {
    /// `timeout` from now; None: never.
    pub fn after(timeout: Option<Duration>) -> Self {
        let nanos = timeout.map(|t| u64::try_from(t.as_nanos()).unwrap_or(u64::MAX));
        Deadline(nanos.map(|n| if n == 0 { 0 } else { monotonic_nanos().saturating_add(n) }))
    }

    /// What is left; None: for ever.
    pub fn left(self) -> Option<Duration> {
        match self.0 {
            None => None,
            Some(0) => Some(Duration::ZERO),
            Some(at) => Some(Duration::from_nanos(at.saturating_sub(monotonic_nanos()))),
        }
    }

    fn is_over(self) -> bool {
        self.left() == Some(Duration::ZERO)
    }
}

/// So long at most a wait is deaf to `pthread_cancel`.
const SLICE: Duration = Duration::from_millis(500);

// It unwinds, past frames of this library: doors whose type allows that, with nothing to drop.
#[cfg(panic = "unwind")]
unsafe extern "C-unwind" {
    fn pthread_testcancel();
}
// Where panics abort (releases) no frame has anything to be done when it is unwound, but calls of the type above get a guard that aborts.
#[cfg(not(panic = "unwind"))]
unsafe extern "C" {
    fn pthread_testcancel();
}

/// Ends the thread if it is to be cancelled.
#[inline]
fn test_cancel() {
    // SAFETY: touches no memory. No frame between here and the program has anything to drop.
    unsafe { pthread_testcancel() };
}

/// Waits with `once`, which is given a part of the time and whether that is the last: a point of cancellation before each, as poll(2) has to be.
/// `once` must not be inlined if it has anything to drop.
#[inline]
pub fn in_slices(timeout: Option<Duration>, mut once: impl FnMut(Option<Duration>, bool) -> c_int) -> c_int {
    if timeout == Some(Duration::ZERO) {
        // The way of those who are busy: only when they find nothing.
        let done = once(timeout, true);
        if done == 0 {
            test_cancel();
        }
        return done;
    }
    let deadline = Deadline::after(timeout);
    let mut left = timeout;
    loop {
        test_cancel();
        let is_last = left.is_some_and(|t| t <= SLICE);
        let done = once(if is_last { left } else { Some(SLICE) }, is_last);
        if done != 0 || is_last {
            return done;
        }
        left = deadline.left();
    }
}

/// Calls ppoll. `mask` null: signals as they are.
fn ppoll(fds: &mut [pollfd], timeout: Option<Duration>, mask: *const sigset_t) -> Result<usize, Errno> {
    let mut spec = timeout.map(|t| timespec {
        tv_sec: libc::time_t::try_from(t.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: t.subsec_nanos().into(),
    });
    // SAFETY: the slice, the time and the mask (the program's, C contract 1) are valid.
    let n = unsafe { real::own_ppoll(fds, spec.as_mut(), mask) };
    usize::try_from(n).map_err(|_| errno::get())
}

/// Waits until a member or another file is ready, or the time is over. `revents` has one place per member, `others` their own. Returns
/// how many are ready.
///
/// # Errors
/// EINTR, also if a number turns out to be another file by now; what ppoll answers.
pub fn wait(
    members: &[Member],
    revents: &mut [i16],
    others: &mut [pollfd],
    timeout: Option<Duration>,
    mask: *const sigset_t,
) -> Result<usize, Errno> {
    let deadline = Deadline::after(timeout);
    let look = |revents: &mut [i16]| {
        members.iter().zip(revents).fold(0, |n, (member, out)| {
            *out = member.look();
            n + usize::from(*out != 0)
        })
    };
    let mut ready = look(revents);
    let at_once = ready > 0 || deadline.is_over();
    if !others.is_empty() && (at_once || mask.is_null()) {
        // With a mask the time must be waited for with it, or a signal could be missed.
        let now = at_once && !mask.is_null();
        ready += ppoll(others, Some(Duration::ZERO), if now { mask } else { core::ptr::null() })?;
    }
    if ready > 0 || at_once {
        return Ok(ready);
    }
    if let Some(stale) = members.iter().find(|m| !m.desc.is_at(m.fd)) {
        // The next call sees what is there now.
        drop(table::take(stale.fd));
        return Err(Errno::EINTR);
    }
    sleep_on(members, revents, others, deadline, mask)
}

fn sleep_on(
    members: &[Member],
    revents: &mut [i16],
    others: &mut [pollfd],
    deadline: Deadline,
    mask: *const sigset_t,
) -> Result<usize, Errno> {
    let mut sleepers: Vec<Sleeper<'_>> = Vec::with_capacity(members.len());
    for (i, member) in members.iter().enumerate() {
        match member.desc.known().map(|b| b.sleeper(member.events)) {
            Some(Ok(sleeper)) => sleepers.push(sleeper),
            Some(Err(SyncError::Os(e))) => return Err(e),
            Some(Err(_)) | None => {
                revents[i] = POLLERR;
                return Ok(1);
            }
        }
    }
    let mut fds: Vec<pollfd> =
        sleepers.iter().map(|s| pollfd { fd: s.as_fd().as_raw_fd(), events: POLLIN, revents: 0 }).collect();
    // Which of them have old wake-ups, in one call.
    ppoll(&mut fds, Some(Duration::ZERO), core::ptr::null())?;
    fds.extend_from_slice(others);
    let mut futile = 0;
    loop {
        let mut ready = 0;
        for (((member, sleeper), fd), out) in
            members.iter().zip(&mut sleepers).zip(&fds).zip(revents.iter_mut())
        {
            *out = member.news(if fd.revents == 0 { sleeper.look_unwoken() } else { sleeper.look() });
            ready += usize::from(*out != 0);
        }
        for (other, seen) in others.iter_mut().zip(&fds[members.len()..]) {
            other.revents = seen.revents;
            ready += usize::from(seen.revents != 0);
        }
        if ready > 0 || deadline.is_over() {
            return Ok(ready);
        }
        let moved = members.iter().zip(&sleepers).fold(false, |moved, (member, sleeper)| {
            moved | if member.since.is_some() { sleeper.announce_more() } else { sleeper.announce() }
        });
        let timeout = if moved {
            futile += 1;
            if futile > FUTILE_SLEEP {
                sleep(Duration::from_micros(50));
            } else if futile > FUTILE_YIELD {
                yield_now();
            }
            // Other files and signals have their turn all the same.
            Some(Duration::ZERO)
        } else {
            futile = 0;
            deadline.left()
        };
        ppoll(&mut fds, timeout, mask)?;
    }
}
