//! `select` and `pselect`, by way of poll.

use core::ffi::c_int;
use libc::{
    POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLPRI, POLLRDBAND, POLLRDNORM, POLLWRBAND, POLLWRNORM,
};
use libc::{fd_set, pollfd, sigset_t, timespec, timeval};
use ringway_abi::Errno;
use std::time::Duration;

use crate::table::{self, DESC, Inside};
use crate::wait::{Deadline, Member, in_slices, wait};
use crate::{fail, poll, real};

const WORD_BITS: usize = libc::c_ulong::BITS as usize;

// Source: select(2), "Correspondence between select() and poll() notifications".
const READ: i16 = POLLRDNORM | POLLRDBAND | POLLIN | POLLHUP | POLLERR;
const WRITE: i16 = POLLWRBAND | POLLWRNORM | POLLOUT | POLLERR;

/// A set of the program, as words; it may be longer than `fd_set`. Null: empty.
#[derive(Clone, Copy)]
struct Set(*mut libc::c_ulong);

impl Set {
    /// # Safety
    /// Null, or a set of more than `fd` bits.
    unsafe fn has(self, fd: usize) -> bool {
        // SAFETY: as the caller promises.
        !self.0.is_null() && unsafe { *self.0.add(fd / WORD_BITS) } >> (fd % WORD_BITS) & 1 != 0
    }

    /// # Safety
    /// As [`Set::has`].
    unsafe fn word(self, i: usize) -> libc::c_ulong {
        // SAFETY: as the caller promises.
        if self.0.is_null() { 0 } else { unsafe { *self.0.add(i) } }
    }

    /// # Safety
    /// As [`Set::has`], and nobody else uses it.
    unsafe fn put(self, fd: usize, on: bool) -> c_int {
        if self.0.is_null() {
            return 0;
        }
        let bit = 1 << (fd % WORD_BITS);
        // SAFETY: as the caller promises.
        let word = unsafe { &mut *self.0.add(fd / WORD_BITS) };
        let was = *word & bit != 0;
        if !on {
            *word &= !bit;
        }
        (was && on).into()
    }
}

/// The sets of a call: to read, to write, exceptions.
type Sets = [Set; 3];

/// True if a netmap descriptor is among them.
///
/// # Safety
/// As select(2).
unsafe fn concerns(n: c_int, sets: Sets) -> bool {
    if !table::any() || table::is_inside() {
        return false;
    }
    let n = usize::try_from(n).unwrap_or(0);
    (0..n.div_ceil(WORD_BITS)).any(|i| {
        // SAFETY: as the caller promises.
        let mut word = sets.iter().fold(0, |all, set| all | unsafe { set.word(i) });
        let mut found = false;
        while word != 0 {
            let fd = i * WORD_BITS + word.trailing_zeros() as usize;
            found |= fd < n && table::kind(fd as c_int) == DESC;
            word &= word - 1;
        }
        found
    })
}

/// Unless it `is_last`, the sets stay as they are when the time is over.
///
/// # Safety
/// As select(2).
#[inline(never)]
unsafe fn mixed(
    n: c_int,
    sets: Sets,
    timeout: Option<Duration>,
    mask: *const sigset_t,
    is_last: bool,
) -> c_int {
    let _inside = Inside::enter();
    let n = usize::try_from(n).unwrap_or(0);
    let mut members = Vec::new();
    let mut others = Vec::new();
    for fd in 0..n {
        // SAFETY: as the caller promises.
        let wanted = sets.map(|set| unsafe { set.has(fd) });
        let bits = [POLLIN | POLLRDNORM | POLLRDBAND, POLLOUT | POLLWRNORM | POLLWRBAND, POLLPRI];
        let events = wanted.iter().zip(bits).fold(0, |all, (on, bits)| if *on { all | bits } else { all });
        if events == 0 {
            continue;
        }
        let fd = fd as c_int;
        match table::desc(fd) {
            Some(desc) => {
                desc.note();
                let events = events & (POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM);
                members.push(Member { fd, desc, events, since: None });
            }
            None => others.push(pollfd { fd, events, revents: 0 }),
        }
    }
    let mut revents = vec![0; members.len()];
    match wait(&members, &mut revents, &mut others, timeout, mask) {
        Err(e) => return fail(e),
        Ok(0) if !is_last => return 0,
        Ok(_) => {}
    }
    if others.iter().any(|o| o.revents & POLLNVAL != 0) {
        return fail(Errno::EBADF);
    }
    let mut count = 0;
    let found = members.iter().map(|m| m.fd).zip(revents);
    let found = found.chain(others.iter().map(|o| (o.fd, o.revents)));
    for (fd, revents) in found {
        for (set, bits) in sets.iter().zip([READ, WRITE, POLLPRI]) {
            // SAFETY: as the caller promises.
            count += unsafe { set.put(fd as usize, revents & bits != 0) };
        }
    }
    count
}

/// # Safety
/// As select(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn select(
    n: c_int,
    r: *mut fd_set,
    w: *mut fd_set,
    e: *mut fd_set,
    timeout: *mut timeval,
) -> c_int {
    let sets = [Set(r.cast()), Set(w.cast()), Set(e.cast())];
    // SAFETY: as the caller promises.
    unsafe {
        if !concerns(n, sets) {
            return real::select(n, r, w, e, timeout);
        }
        let time = match timeout.as_ref().map(|t| (u64::try_from(t.tv_sec), u32::try_from(t.tv_usec))) {
            None => None,
            // As Linux: more than a million microseconds are seconds.
            Some((Ok(secs), Ok(micros))) => {
                Some(Duration::from_secs(secs) + Duration::from_micros(micros.into()))
            }
            Some(_) => return fail(Errno::EINVAL),
        };
        let deadline = Deadline::after(time);
        let done = in_slices(time, |time, is_last| mixed(n, sets, time, core::ptr::null(), is_last));
        if let (Some(out), Some(left)) = (timeout.as_mut(), deadline.left()) {
            out.tv_sec = left.as_secs() as libc::time_t;
            out.tv_usec = left.subsec_micros().into();
        }
        done
    }
}

/// # Safety
/// As pselect(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pselect(
    n: c_int,
    r: *mut fd_set,
    w: *mut fd_set,
    e: *mut fd_set,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    let sets = [Set(r.cast()), Set(w.cast()), Set(e.cast())];
    // SAFETY: as the caller promises.
    unsafe {
        if !concerns(n, sets) {
            return real::pselect(n, r, w, e, timeout, mask);
        }
        match poll::time(timeout) {
            Ok(timeout) => in_slices(timeout, |time, is_last| mixed(n, sets, time, mask, is_last)),
            Err(e) => fail(e),
        }
    }
}
