//! The C library's own functions behind the doors, and plain system calls where those do as well.
//!
//! Functions that a thread may be cancelled in are the C library's own, found by `dlsym` at their first use. While one is being looked for, and
//! where there is none (a static program), the system call is made directly: `dlsym` may itself open and map.

use core::ffi::{CStr, c_char, c_int, c_long, c_uint, c_void};
use core::mem::MaybeUninit;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use libc::{
    epoll_event, fd_set, mode_t, msghdr, off_t, pollfd, sigset_t, size_t, ssize_t, timespec, timeval,
};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

static SEARCHING: AtomicBool = AtomicBool::new(false);

/// The address of the next `name` behind ours; null if it cannot be had now.
#[cold]
fn search(cell: &AtomicPtr<c_void>, name: &CStr) -> *mut c_void {
    if SEARCHING.swap(true, Ordering::Acquire) {
        return null_mut();
    }
    let errno = crate::errno::get();
    // SAFETY: the name ends with NUL.
    let at = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    crate::errno::set(errno);
    SEARCHING.store(false, Ordering::Release);
    cell.store(at, Ordering::Release);
    at
}

/// Defines functions that call the C library's of the same name, or else make a system call.
macro_rules! real {
    ($($(#[$doc:meta])* $symbol:literal $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty, $call:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// As the C library's function.
        #[inline]
        pub unsafe fn $name($($arg: $ty),*) -> $ret {
            static AT: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
            let mut at = AT.load(Ordering::Acquire);
            if at.is_null() {
                at = search(&AT, $symbol);
            }
            if at.is_null() {
                // SAFETY: as the caller promises.
                #[allow(unused_unsafe, reason = "not all of these calls are unsafe")]
                return unsafe { $call } as $ret;
            }
            // SAFETY: the C library's function of this name has this type.
            let f: unsafe extern "C" fn($($ty),*) -> $ret = unsafe { core::mem::transmute(at) };
            // SAFETY: as the caller promises.
            unsafe { f($($arg),*) }
        }
    )*};
}

/// Bytes of the kernel's set of signals.
const KERNEL_SIGSET_BYTES: usize = 8;

real! {
    /// openat(2).
    c"openat" openat(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int,
        libc::syscall(libc::SYS_openat, dir, path, flags, mode);
    /// close(2).
    c"close" close(fd: c_int) -> c_int, libc::syscall(libc::SYS_close, fd);
    /// fcntl(2).
    c"fcntl" fcntl(fd: c_int, cmd: c_int, arg: *mut c_void) -> c_int, libc::syscall(libc::SYS_fcntl, fd, cmd, arg);
    /// read(2).
    c"read" read(fd: c_int, buf: *mut c_void, n: size_t) -> ssize_t, libc::syscall(libc::SYS_read, fd, buf, n);
    /// write(2).
    c"write" write(fd: c_int, buf: *const c_void, n: size_t) -> ssize_t, libc::syscall(libc::SYS_write, fd, buf, n);
    /// readv(2).
    c"readv" readv(fd: c_int, iov: *const libc::iovec, n: c_int) -> ssize_t, libc::syscall(libc::SYS_readv, fd, iov, n);
    /// writev(2).
    c"writev" writev(fd: c_int, iov: *const libc::iovec, n: c_int) -> ssize_t, libc::syscall(libc::SYS_writev, fd, iov, n);
    /// poll(2).
    c"poll" poll(fds: *mut pollfd, n: libc::nfds_t, timeout: c_int) -> c_int, {
        let t = timespec { tv_sec: (timeout / 1000).into(), tv_nsec: c_long::from(timeout % 1000) * 1_000_000 };
        let t = if timeout < 0 { core::ptr::null() } else { &raw const t };
        libc::syscall(libc::SYS_ppoll, fds, n, t, null_mut::<c_void>(), KERNEL_SIGSET_BYTES)
    };
    /// ppoll(2).
    c"ppoll" ppoll(fds: *mut pollfd, n: libc::nfds_t, timeout: *const timespec, mask: *const sigset_t) -> c_int, {
        let mut copy = timeout.as_ref().copied();
        let t = copy.as_mut().map_or(null_mut(), core::ptr::from_mut);
        libc::syscall(libc::SYS_ppoll, fds, n, t, mask, KERNEL_SIGSET_BYTES)
    };
    /// select(2).
    c"select" select(n: c_int, r: *mut fd_set, w: *mut fd_set, e: *mut fd_set, timeout: *mut timeval) -> c_int,
        libc::syscall(libc::SYS_select, n, r, w, e, timeout);
    /// pselect(2).
    c"pselect" pselect(n: c_int, r: *mut fd_set, w: *mut fd_set, e: *mut fd_set, timeout: *const timespec, mask: *const sigset_t) -> c_int, {
        let mut copy = timeout.as_ref().copied();
        let t = copy.as_mut().map_or(null_mut(), core::ptr::from_mut);
        let set = [mask as usize, KERNEL_SIGSET_BYTES];
        libc::syscall(libc::SYS_pselect6, n, r, w, e, t, set.as_ptr())
    };
    /// epoll_wait(2).
    c"epoll_wait" epoll_wait(ep: c_int, events: *mut epoll_event, max: c_int, timeout: c_int) -> c_int,
        libc::syscall(libc::SYS_epoll_pwait, ep, events, max, timeout, null_mut::<c_void>(), KERNEL_SIGSET_BYTES);
    /// epoll_pwait(2).
    c"epoll_pwait" epoll_pwait(ep: c_int, events: *mut epoll_event, max: c_int, timeout: c_int, mask: *const sigset_t) -> c_int,
        libc::syscall(libc::SYS_epoll_pwait, ep, events, max, timeout, mask, KERNEL_SIGSET_BYTES);
    /// epoll_pwait2(2).
    c"epoll_pwait2" epoll_pwait2(ep: c_int, events: *mut epoll_event, max: c_int, timeout: *const timespec, mask: *const sigset_t) -> c_int,
        libc::syscall(libc::SYS_epoll_pwait2, ep, events, max, timeout, mask, KERNEL_SIGSET_BYTES);
    /// send(2).
    c"send" send(fd: c_int, buf: *const c_void, n: size_t, flags: c_int) -> ssize_t,
        libc::syscall(libc::SYS_sendto, fd, buf, n, flags, null_mut::<c_void>(), 0);
    /// sendto(2).
    c"sendto" sendto(fd: c_int, buf: *const c_void, n: size_t, flags: c_int, to: *const libc::sockaddr, len: libc::socklen_t) -> ssize_t,
        libc::syscall(libc::SYS_sendto, fd, buf, n, flags, to, len);
    /// sendmsg(2).
    c"sendmsg" sendmsg(fd: c_int, msg: *const msghdr, flags: c_int) -> ssize_t, libc::syscall(libc::SYS_sendmsg, fd, msg, flags);
    /// sendmmsg(2).
    c"sendmmsg" sendmmsg(fd: c_int, msgs: *mut libc::mmsghdr, n: c_uint, flags: c_int) -> c_int,
        libc::syscall(libc::SYS_sendmmsg, fd, msgs, n, flags);
    /// recv(2).
    c"recv" recv(fd: c_int, buf: *mut c_void, n: size_t, flags: c_int) -> ssize_t,
        libc::syscall(libc::SYS_recvfrom, fd, buf, n, flags, null_mut::<c_void>(), null_mut::<c_void>());
    /// shutdown(2).
    c"shutdown" shutdown(fd: c_int, how: c_int) -> c_int, libc::syscall(libc::SYS_shutdown, fd, how);
    /// recvmsg(2).
    c"recvmsg" recvmsg(fd: c_int, msg: *mut msghdr, flags: c_int) -> ssize_t, libc::syscall(libc::SYS_recvmsg, fd, msg, flags);
    /// recvmmsg(2).
    c"recvmmsg" recvmmsg(fd: c_int, msgs: *mut libc::mmsghdr, n: c_uint, flags: c_int, timeout: *mut timespec) -> c_int,
        libc::syscall(libc::SYS_recvmmsg, fd, msgs, n, flags, timeout);
    /// fstat(3): a structure of the C library's.
    c"fstat" fstat(fd: c_int, out: *mut libc::stat) -> c_int, libc::syscall(libc::SYS_fstat, fd, out);
    /// fopen(3).
    c"fopen" fopen(path: *const c_char, mode: *const c_char) -> *mut libc::FILE, {
        let _ = (path, mode);
        crate::errno::set(ringway_abi::Errno::EAGAIN);
        0 as c_int
    };
}

/// ioctl(2).
///
/// # Safety
/// As the system call.
#[inline]
pub unsafe fn ioctl(fd: c_int, request: libc::c_ulong, arg: *mut c_void) -> c_int {
    // SAFETY: as the caller promises.
    unsafe { libc::syscall(libc::SYS_ioctl, fd, request, arg) as c_int }
}

/// mmap(2).
///
/// # Safety
/// As the system call.
#[inline]
pub unsafe fn mmap(
    addr: *mut c_void,
    len: size_t,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    ofs: off_t,
) -> *mut c_void {
    // SAFETY: as the caller promises.
    unsafe { libc::syscall(libc::SYS_mmap, addr, len, prot, flags, fd, ofs) as usize as *mut c_void }
}

/// munmap(2).
///
/// # Safety
/// As the system call.
#[inline]
pub unsafe fn munmap(addr: *mut c_void, len: size_t) -> c_int {
    // SAFETY: as the caller promises.
    unsafe { libc::syscall(libc::SYS_munmap, addr, len) as c_int }
}

/// mremap(2).
///
/// # Safety
/// As the system call.
#[inline]
pub unsafe fn mremap(
    addr: *mut c_void,
    old: size_t,
    new: size_t,
    flags: c_int,
    to: *mut c_void,
) -> *mut c_void {
    // SAFETY: as the caller promises.
    unsafe { libc::syscall(libc::SYS_mremap, addr, old, new, flags, to) as usize as *mut c_void }
}

/// ppoll(2), where a thread is not cancelled: the library's own waits. `timeout` is written.
///
/// # Safety
/// As the system call.
pub unsafe fn own_ppoll(fds: &mut [pollfd], timeout: Option<&mut timespec>, mask: *const sigset_t) -> c_int {
    let t = timeout.map_or(null_mut(), core::ptr::from_mut);
    // SAFETY: as the caller promises.
    unsafe {
        libc::syscall(libc::SYS_ppoll, fds.as_mut_ptr(), fds.len(), t, mask, KERNEL_SIGSET_BYTES) as c_int
    }
}

/// epoll_wait(2) without waiting, where a thread is not cancelled.
pub fn own_epoll_look(ep: c_int, out: &mut [epoll_event]) -> c_int {
    let none = null_mut::<c_void>();
    // SAFETY: the slice is valid; no time, no mask.
    unsafe {
        libc::syscall(libc::SYS_epoll_pwait, ep, out.as_mut_ptr(), out.len(), 0, none, KERNEL_SIGSET_BYTES)
            as c_int
    }
}

/// close(2), where a thread is not cancelled.
pub fn own_close(fd: c_int) -> c_int {
    // SAFETY: touches no memory.
    unsafe { libc::syscall(libc::SYS_close, fd) as c_int }
}

/// dup(2).
#[inline]
pub fn dup(fd: c_int) -> c_int {
    // SAFETY: touches no memory.
    unsafe { libc::syscall(libc::SYS_dup, fd) as c_int }
}

/// dup3(2).
#[inline]
pub fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int {
    // SAFETY: touches no memory.
    unsafe { libc::syscall(libc::SYS_dup3, old, new, flags) as c_int }
}

/// close_range(2).
#[inline]
pub fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    // SAFETY: touches no memory.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) as c_int }
}

/// epoll_ctl(2).
///
/// # Safety
/// As the system call.
#[inline]
pub unsafe fn epoll_ctl(ep: c_int, op: c_int, fd: c_int, event: *mut epoll_event) -> c_int {
    // SAFETY: as the caller promises.
    unsafe { libc::syscall(libc::SYS_epoll_ctl, ep, op, fd, event) as c_int }
}

/// The file that this library was loaded from: the program's own, if it is linked into that.
pub fn own_file() -> Option<PathBuf> {
    let mut info = MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: an address of this library, and a structure to be filled in; zeroes are valid for it.
    let (found, info) = unsafe {
        (libc::dladdr((own_file as fn() -> _ as *const ()).cast(), info.as_mut_ptr()), info.assume_init())
    };
    if found == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the dynamic linker's, for as long as the library is loaded.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(name.to_bytes())))
}
