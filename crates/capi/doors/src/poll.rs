//! `poll` and `ppoll`.

use core::ffi::c_int;
use libc::{nfds_t, pollfd, sigset_t, size_t, timespec};
use ringway_abi::Errno;
use std::time::Duration;

use crate::table::{self, DESC, Inside};
use crate::wait::{Member, in_slices, wait};
use crate::{fail, real};

/// True if the program asks about a netmap descriptor.
///
/// # Safety
/// `fds` points to `n` structures, if this process has any descriptor.
#[inline]
unsafe fn concerns(fds: *const pollfd, n: nfds_t) -> bool {
    // SAFETY: as the caller promises.
    table::any()
        && (0..n as usize).any(|i| table::kind(unsafe { (*fds.add(i)).fd }) == DESC)
        && !table::is_inside()
}

/// poll over netmap descriptors and others.
#[inline(never)]
fn mixed(fds: &mut [pollfd], timeout: Option<Duration>, mask: *const sigset_t) -> c_int {
    let _inside = Inside::enter();
    let mut members = Vec::new();
    let mut places = Vec::new();
    let mut others = Vec::new();
    for (i, at) in fds.iter_mut().enumerate() {
        at.revents = 0;
        match table::desc(at.fd) {
            Some(desc) => {
                desc.note();
                members.push(Member { fd: at.fd, desc, events: at.events, since: None });
                places.push(i);
            }
            None if at.fd >= 0 => others.push(*at),
            None => {}
        }
    }
    let mut revents = vec![0; members.len()];
    match wait(&members, &mut revents, &mut others, timeout, mask) {
        Ok(n) => {
            for (place, found) in places.iter().zip(revents) {
                fds[*place].revents = found;
            }
            let mut others = others.iter();
            for (i, at) in fds.iter_mut().enumerate() {
                if at.fd >= 0
                    && places.binary_search(&i).is_err()
                    && let Some(other) = others.next()
                {
                    at.revents = other.revents;
                }
            }
            n as c_int
        }
        Err(e) => fail(e),
    }
}

/// poll on one netmap descriptor and nothing else, without memory of its own.
#[inline(never)]
fn alone(at: &mut pollfd, timeout: Option<Duration>) -> c_int {
    let Some(_inside) = Inside::enter_first() else {
        // SAFETY: one structure.
        return unsafe {
            real::poll(at, 1, timeout.map_or(-1, |t| t.as_millis().try_into().unwrap_or(c_int::MAX)))
        };
    };
    let Some(desc) = table::desc(at.fd) else {
        return mixed(core::slice::from_mut(at), timeout, core::ptr::null());
    };
    desc.note();
    let Some(bound) = desc.bound(at.fd) else {
        at.revents = libc::POLLERR;
        return 1;
    };
    at.revents = bound.look_at(at.events);
    if at.revents != 0 || timeout == Some(Duration::ZERO) {
        return (at.revents != 0).into();
    }
    // There is time to make sure.
    if !desc.is_at(at.fd) {
        drop(table::take(at.fd));
        return mixed(core::slice::from_mut(at), timeout, core::ptr::null());
    }
    let found = bound.poll(at.events, timeout);
    match found {
        Ok(found) => {
            at.revents = found;
            (found != 0).into()
        }
        Err(e) => fail(e),
    }
}

/// # Safety
/// As poll(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn poll(fds: *mut pollfd, n: nfds_t, timeout: c_int) -> c_int {
    // SAFETY: as the caller promises.
    if !unsafe { concerns(fds, n) } {
        // SAFETY: as the caller promises.
        return unsafe { real::poll(fds, n, timeout) };
    }
    let timeout = u64::try_from(timeout).ok().map(Duration::from_millis);
    // SAFETY: as the caller promises.
    let fds = unsafe { core::slice::from_raw_parts_mut(fds, n as usize) };
    in_slices(timeout, |timeout, _| match &mut *fds {
        [one] => alone(one, timeout),
        fds => mixed(fds, timeout, core::ptr::null()),
    })
}

/// A time as `timespec` says it; None: for ever.
///
/// # Safety
/// Null, or valid.
pub unsafe fn time(t: *const timespec) -> Result<Option<Duration>, Errno> {
    // SAFETY: as the caller promises.
    let Some(t) = (unsafe { t.as_ref() }) else { return Ok(None) };
    let secs = u64::try_from(t.tv_sec).map_err(|_| Errno::EINVAL)?;
    let nanos = u32::try_from(t.tv_nsec).ok().filter(|n| *n < 1_000_000_000).ok_or(Errno::EINVAL)?;
    Ok(Some(Duration::new(secs, nanos)))
}

/// # Safety
/// As ppoll(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn ppoll(
    fds: *mut pollfd,
    n: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: as the caller promises.
    unsafe {
        if !concerns(fds, n) {
            return real::ppoll(fds, n, timeout, mask);
        }
        match time(timeout) {
            Ok(timeout) => {
                let fds = core::slice::from_raw_parts_mut(fds, n as usize);
                in_slices(timeout, |timeout, _| mixed(fds, timeout, mask))
            }
            Err(e) => fail(e),
        }
    }
}

fn check_room(n: nfds_t, room: size_t) {
    if room / size_of::<pollfd>() < n as usize {
        eprintln!("*** buffer overflow detected ***: terminated");
        std::process::abort();
    }
}

/// The fortified poll. Source: LSB, __poll_chk.
///
/// # Safety
/// As poll(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn __poll_chk(
    fds: *mut pollfd,
    n: nfds_t,
    timeout: c_int,
    room: size_t,
) -> c_int {
    check_room(n, room);
    // SAFETY: as the caller promises.
    unsafe { poll(fds, n, timeout) }
}

/// The fortified ppoll.
///
/// # Safety
/// As ppoll(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn __ppoll_chk(
    fds: *mut pollfd,
    n: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
    room: size_t,
) -> c_int {
    check_room(n, room);
    // SAFETY: as the caller promises.
    unsafe { ppoll(fds, n, timeout, mask) }
}
