//! `open` and its like, `close`, and what a device refuses: `read`, `write`; `fstat`.

use core::ffi::{CStr, c_char, c_int, c_void};
use libc::{AT_FDCWD, O_CREAT, mode_t, size_t, ssize_t};
use ringway::OpenError;
use ringway::raw;
use ringway_abi::{Errno, NETMAP_DEVICE_NAME};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::path::{Component, Path, PathBuf};

use crate::errno;
use crate::table::{self, DESC, HIDDEN, Inside};
use crate::{fail, real};

/// Whether a path, that the kernel has read, names netmap's device.
///
/// # Safety
/// A string that ends with NUL.
unsafe fn is_device(dir: c_int, path: *const c_char) -> bool {
    // SAFETY: as the caller promises.
    let path = unsafe { CStr::from_ptr(path) }.to_bytes();
    if path == NETMAP_DEVICE_NAME.as_bytes() {
        return true;
    }
    if !path.ends_with(b"/netmap") && path != b"netmap" {
        return false;
    }
    // Written in another way, or from a folder.
    let _inside = Inside::enter();
    let path = Path::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(path));
    let base = if path.is_absolute() {
        Ok(PathBuf::new())
    } else if dir == AT_FDCWD {
        std::env::current_dir()
    } else {
        std::fs::read_link(format!("/proc/self/fd/{dir}"))
    };
    let Ok(base) = base else { return false };
    let mut plain = PathBuf::new();
    for part in base.join(path).components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain == Path::new(NETMAP_DEVICE_NAME)
}

/// open, in all its forms. The kernel is asked first, so that a path is looked at only when it is known to be a string.
///
/// # Safety
/// As openat(2).
unsafe fn open_at(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    if flags & O_CREAT != 0 && !table::is_inside() {
        // It must not come to be as a plain file.
        let mut start = [0; NETMAP_DEVICE_NAME.len() + 1];
        let safe = crate::user::read_bytes(path as u64, &mut start).is_ok();
        if safe
            && start[..NETMAP_DEVICE_NAME.len()] == *NETMAP_DEVICE_NAME.as_bytes()
            && start.ends_with(&[0])
        {
            return open_device(flags);
        }
    }
    // SAFETY: as the caller promises.
    let fd = unsafe { real::openat(dir, path, flags, mode) };
    // SAFETY: the kernel has read it.
    if fd >= 0 && !table::is_inside() && unsafe { is_device(dir, path) } {
        return instead_of_file(fd, flags);
    }
    if fd < 0 {
        let error = errno::get();
        // The last two: of a device file whose broker is gone.
        if matches!(
            error,
            Errno::ENOENT
                | Errno::EACCES
                | Errno::ENXIO
                | Errno::ENODEV
                | Errno::ECONNABORTED
                | Errno::ENOTCONN
        ) && !table::is_inside()
            // SAFETY: the kernel has read it, by these errors.
            && unsafe { is_device(dir, path) }
        {
            return open_device(flags);
        }
        errno::set(error);
    }
    fd
}

/// A device file has been opened, that of a broker or netmap's own. If it is a broker's, a descriptor of the library takes its place, with which
/// calls are faster; where that cannot be had, the file serves. So too if it is a plain file, which somebody made there by mistake.
#[cold]
fn instead_of_file(fd: c_int, flags: c_int) -> c_int {
    let error = errno::get();
    let _inside = Inside::enter();
    let file = table::borrow(fd);
    if ringway_os::sys::is_fuse_file(file) || ringway_os::sys::is_plain_file(file) {
        table::prepare();
        match raw::open() {
            Ok(new) if real::dup3(new.as_raw_fd(), fd, flags & libc::O_CLOEXEC) >= 0 => table::add(fd),
            Ok(_) => {}
            Err(e) => complain(&e),
        }
    }
    errno::set(error);
    fd
}

/// Opens netmap's device. Source: abi.md 1.
fn open_device(flags: c_int) -> c_int {
    if flags & libc::O_DIRECTORY != 0 {
        return fail(Errno(libc::ENOTDIR));
    }
    if flags & O_CREAT != 0 && flags & libc::O_EXCL != 0 {
        return fail(Errno::EEXIST);
    }
    let _inside = Inside::enter();
    table::prepare();
    let fd = match raw::open() {
        Ok(fd) => fd,
        Err(e) => {
            complain(&e);
            // Without a broker there is no device.
            return fail(if matches!(e, OpenError::NoBroker(_)) { Errno::ENOENT } else { e.errno() });
        }
    };
    if flags & libc::O_CLOEXEC == 0 {
        // SAFETY: touches no memory.
        unsafe { real::fcntl(fd.as_raw_fd(), libc::F_SETFD, core::ptr::null_mut()) };
    }
    let fd = fd.into_raw_fd();
    table::add(fd);
    fd
}

/// Says why, for who wants to know: with `RINGWAY_VERBOSE` set.
pub fn complain(e: &OpenError) {
    if std::env::var_os("RINGWAY_VERBOSE").is_some() {
        eprintln!("ringway: {e}");
    }
}

macro_rules! open {
    ($($name:ident)*) => {$(
        /// # Safety
        /// As open(2).
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
            // SAFETY: as the caller promises.
            unsafe { open_at(AT_FDCWD, path, flags, mode) }
        }
    )*};
}
open! { open open64 }

macro_rules! creat {
    ($($name:ident)*) => {$(
        /// # Safety
        /// As creat(2).
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(path: *const c_char, mode: mode_t) -> c_int {
            // SAFETY: as the caller promises.
            unsafe { open_at(AT_FDCWD, path, O_CREAT | libc::O_WRONLY | libc::O_TRUNC, mode) }
        }
    )*};
}
creat! { creat creat64 }

macro_rules! openat {
    ($($name:ident)*) => {$(
        /// # Safety
        /// As openat(2).
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
            // SAFETY: as the caller promises.
            unsafe { open_at(dir, path, flags, mode) }
        }
    )*};
}
openat! { openat openat64 }

// The fortified forms have no mode: a flag that needs one ends the program. Source: glibc, open_2.c.

macro_rules! open_2 {
    ($($name:ident)*) => {$(
        /// # Safety
        /// As open(2).
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(path: *const c_char, flags: c_int) -> c_int {
            needs_no_mode(flags);
            // SAFETY: as the caller promises.
            unsafe { open_at(AT_FDCWD, path, flags, 0) }
        }
    )*};
}
open_2! { __open_2 __open64_2 }

macro_rules! openat_2 {
    ($($name:ident)*) => {$(
        /// # Safety
        /// As openat(2).
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(dir: c_int, path: *const c_char, flags: c_int) -> c_int {
            needs_no_mode(flags);
            // SAFETY: as the caller promises.
            unsafe { open_at(dir, path, flags, 0) }
        }
    )*};
}
openat_2! { __openat_2 __openat64_2 }

fn needs_no_mode(flags: c_int) {
    if flags & O_CREAT != 0 || flags & libc::O_TMPFILE == libc::O_TMPFILE {
        eprintln!("*** invalid open call: O_CREAT or O_TMPFILE without mode ***: terminated");
        std::process::abort();
    }
}

/// The C library opens inside itself here, past the doors: a stream on the device is refused with EOPNOTSUPP and a line that says why.
///
/// # Safety
/// As fopen(3).
unsafe fn fopen_any(path: *const c_char, mode: *const c_char) -> *mut libc::FILE {
    // SAFETY: as the caller promises.
    let file = unsafe { real::fopen(path, mode) };
    if file.is_null() && matches!(errno::get(), Errno::ENOENT | Errno::EACCES) && !table::is_inside() {
        let error = errno::get();
        // SAFETY: the kernel has read it.
        if unsafe { is_device(AT_FDCWD, path) } {
            eprintln!("ringway: fopen of {NETMAP_DEVICE_NAME}: a netmap descriptor is no stream; use open");
            errno::set(Errno::EOPNOTSUPP);
        } else {
            errno::set(error);
        }
    }
    file
}

/// # Safety
/// As fopen(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fopen(path: *const c_char, mode: *const c_char) -> *mut libc::FILE {
    // SAFETY: as the caller promises.
    unsafe { fopen_any(path, mode) }
}

/// # Safety
/// As fopen(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fopen64(path: *const c_char, mode: *const c_char) -> *mut libc::FILE {
    // SAFETY: as the caller promises.
    unsafe { fopen_any(path, mode) }
}

/// close(2). The last close of a descriptor unbinds it, unless a map lives.
#[unsafe(no_mangle)]
pub extern "C" fn close(fd: c_int) -> c_int {
    if table::kind(fd) != table::OTHER {
        return close_known(fd);
    }
    // SAFETY: touches no memory.
    unsafe { real::close(fd) }
}

#[cold]
fn close_known(fd: c_int) -> c_int {
    if table::is_inside() {
        table::unhide(fd);
    } else if table::kind(fd) == HIDDEN {
        // The program has no such fd.
        return fail(Errno::EBADF);
    } else if !table::is_lent() {
        let _inside = Inside::enter();
        let entry = table::take(fd);
        let done = real::own_close(fd);
        let error = errno::get();
        drop(entry);
        errno::set(error);
        return done;
    }
    real::own_close(fd)
}

/// True if this is the program's call on a netmap descriptor.
#[inline]
pub fn is_device_fd(fd: c_int) -> bool {
    table::kind(fd) == DESC && !table::is_inside()
}

macro_rules! refused {
    ($($name:ident($($arg:ident: $ty:ty),*) $real:ident;)*) => {$(
        /// On the device: EINVAL. Source: abi.md 1.
        ///
        /// # Safety
        /// As the C library's function.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(fd: c_int, $($arg: $ty),*) -> ssize_t {
            if is_device_fd(fd) {
                return fail(Errno::EINVAL) as ssize_t;
            }
            // SAFETY: as the caller promises.
            unsafe { real::$real(fd, $($arg),*) }
        }
    )*};
}

refused! {
    read(buf: *mut c_void, n: size_t) read;
    write(buf: *const c_void, n: size_t) write;
    readv(iov: *const libc::iovec, n: c_int) readv;
    writev(iov: *const libc::iovec, n: c_int) writev;
}

macro_rules! no_socket {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $ret:ty;)*) => {$(
        /// On the device: ENOTSOCK. What is behind the number is a socket, but not the program's to talk to.
        ///
        /// # Safety
        /// As the C library's function.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(fd: c_int, $($arg: $ty),*) -> $ret {
            if is_device_fd(fd) {
                return fail(Errno(libc::ENOTSOCK)) as $ret;
            }
            // SAFETY: as the caller promises.
            unsafe { real::$name(fd, $($arg),*) }
        }
    )*};
}

no_socket! {
    send(buf: *const c_void, n: size_t, flags: c_int) -> ssize_t;
    sendto(buf: *const c_void, n: size_t, flags: c_int, to: *const libc::sockaddr, len: libc::socklen_t) -> ssize_t;
    sendmsg(msg: *const libc::msghdr, flags: c_int) -> ssize_t;
    sendmmsg(msgs: *mut libc::mmsghdr, n: core::ffi::c_uint, flags: c_int) -> c_int;
    recv(buf: *mut c_void, n: size_t, flags: c_int) -> ssize_t;
    shutdown(how: c_int) -> c_int;
}

/// The fortified read. Source: LSB, __read_chk.
///
/// # Safety
/// As read(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __read_chk(fd: c_int, buf: *mut c_void, n: size_t, room: size_t) -> ssize_t {
    if n > room {
        eprintln!("*** buffer overflow detected ***: terminated");
        std::process::abort();
    }
    // SAFETY: as the caller promises.
    unsafe { read(fd, buf, n) }
}

/// # Safety
/// As fstat(2).
unsafe fn stat_fd(fd: c_int, out: *mut libc::stat) -> c_int {
    // SAFETY: as the caller promises.
    let done = unsafe { real::fstat(fd, out) };
    if done == 0 && is_device_fd(fd) {
        // SAFETY: the C library has just filled it in.
        let out = unsafe { &mut *out };
        out.st_mode = libc::S_IFCHR | 0o600;
        out.st_rdev = libc::makedev(MISC_MAJOR, NETMAP_MINOR);
        out.st_size = 0;
    }
    done
}

/// Character devices of drivers without a number of their own. Source: Linux, Documentation/admin-guide/devices.txt.
const MISC_MAJOR: u32 = 10;
/// The first of those given out as drivers come.
const NETMAP_MINOR: u32 = 255;

/// # Safety
/// As fstat(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fstat(fd: c_int, out: *mut libc::stat) -> c_int {
    // SAFETY: as the caller promises.
    unsafe { stat_fd(fd, out) }
}

/// # Safety
/// As fstat(2).
#[cfg(target_pointer_width = "64")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fstat64(fd: c_int, out: *mut libc::stat) -> c_int {
    // SAFETY: as the caller promises; both structures are the same.
    unsafe { stat_fd(fd, out) }
}

/// What `fstat` was in older C libraries.
///
/// # Safety
/// As fstat(2).
#[cfg(target_arch = "x86_64")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __fxstat(_version: c_int, fd: c_int, out: *mut libc::stat) -> c_int {
    // SAFETY: as the caller promises; there is one version of the structure.
    unsafe { stat_fd(fd, out) }
}

/// What `fstat64` was in older C libraries.
///
/// # Safety
/// As fstat(2).
#[cfg(target_arch = "x86_64")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __fxstat64(_version: c_int, fd: c_int, out: *mut libc::stat) -> c_int {
    // SAFETY: as the caller promises; there is one version of the structure.
    unsafe { stat_fd(fd, out) }
}
