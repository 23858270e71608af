//! `dup`, `dup2`, `dup3`, `fcntl`, `close_range`, `closefrom`.

use core::ffi::{c_int, c_uint, c_void};
use ringway_abi::Errno;

use crate::errno;
use crate::table::{self, HIDDEN, Inside, OTHER};
use crate::{fail, real};

/// The copy at `new` is what `old` is. Drops what was there.
fn copied(old: c_int, new: c_int) {
    if (table::kind(old) == OTHER && table::kind(new) == OTHER) || table::is_inside() || table::is_lent() {
        return;
    }
    let error = errno::get();
    let _inside = Inside::enter();
    let gone = match table::get(old) {
        Some(entry) => table::put(new, entry),
        None => table::take(new),
    };
    drop(gone);
    errno::set(error);
}

/// True if the number is one that the program does not have.
fn is_hidden(fd: c_int) -> bool {
    table::kind(fd) == HIDDEN && !table::is_inside()
}

/// dup(2).
#[unsafe(no_mangle)]
pub extern "C" fn dup(fd: c_int) -> c_int {
    if is_hidden(fd) {
        return fail(Errno::EBADF);
    }
    let new = real::dup(fd);
    if new >= 0 {
        copied(fd, new);
    }
    new
}

fn dup_onto(old: c_int, new: c_int, flags: c_int) -> c_int {
    if is_hidden(old) {
        return fail(Errno::EBADF);
    }
    if is_hidden(new) {
        // The library lives there. Source: dup(2), the error of a number that is just being taken.
        return fail(Errno::EBUSY);
    }
    let done = real::dup3(old, new, flags);
    if done >= 0 {
        copied(old, new);
    }
    done
}

/// dup2(2).
#[unsafe(no_mangle)]
pub extern "C" fn dup2(old: c_int, new: c_int) -> c_int {
    if old == new {
        // SAFETY: touches no memory.
        let there = !is_hidden(old) && unsafe { real::fcntl(old, libc::F_GETFD, core::ptr::null_mut()) } >= 0;
        return if there { new } else { fail(Errno::EBADF) };
    }
    dup_onto(old, new, 0)
}

/// dup3(2).
#[unsafe(no_mangle)]
pub extern "C" fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int {
    dup_onto(old, new, flags)
}

/// # Safety
/// As fcntl(2).
unsafe fn control(fd: c_int, cmd: c_int, arg: *mut c_void) -> c_int {
    if is_hidden(fd) {
        return fail(Errno::EBADF);
    }
    // SAFETY: as the caller promises.
    let done = unsafe { real::fcntl(fd, cmd, arg) };
    if done >= 0 && matches!(cmd, libc::F_DUPFD | libc::F_DUPFD_CLOEXEC) {
        copied(fd, done);
    }
    done
}

/// # Safety
/// As fcntl(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fcntl(fd: c_int, cmd: c_int, arg: *mut c_void) -> c_int {
    // SAFETY: as the caller promises.
    unsafe { control(fd, cmd, arg) }
}

/// # Safety
/// As fcntl(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fcntl64(fd: c_int, cmd: c_int, arg: *mut c_void) -> c_int {
    // SAFETY: as the caller promises.
    unsafe { control(fd, cmd, arg) }
}

/// close_range(2), around what the library keeps.
#[unsafe(no_mangle)]
pub extern "C" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    let closes = flags as c_uint & libc::CLOSE_RANGE_CLOEXEC == 0;
    if !closes || first > last || table::is_inside() {
        // What the library keeps is close-on-exec already.
        return real::close_range(first, last, flags);
    }
    let _inside = Inside::enter();
    let gone: Vec<_> = if table::is_lent() {
        vec![]
    } else {
        table::numbers(first, last).into_iter().map(table::take).collect()
    };
    let mut done = 0;
    let mut from = first;
    for kept in table::hidden(first, last) {
        if kept > from {
            done = real::close_range(from, kept - 1, flags);
        }
        from = kept + 1;
    }
    if done == 0 && from <= last {
        done = real::close_range(from, last, flags);
    }
    let error = errno::get();
    drop(gone);
    errno::set(error);
    done
}

/// closefrom(3).
#[unsafe(no_mangle)]
pub extern "C" fn closefrom(first: c_int) {
    let first = c_uint::try_from(first).unwrap_or(0);
    if close_range(first, c_uint::MAX, 0) < 0 {
        // A kernel without it.
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: fills in the structure that is lent.
        unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
        for fd in first..limit.rlim_cur.min(1 << 20) as c_uint {
            crate::files::close(fd as c_int);
        }
    }
}
