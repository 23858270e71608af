//! `recvmsg`: netmap descriptors that arrive. Sending needs no door: a descriptor is a plain fd.

use core::ffi::{c_int, c_uint};
use libc::{msghdr, ssize_t, timespec};

use crate::errno;
use crate::table::{self, Inside};
use crate::{fail, real};
use ringway_abi::Errno;

/// Looks at the fds of a message that has been received.
///
/// # Safety
/// As recvmsg(2) filled it in.
unsafe fn arrived(msg: *const msghdr) {
    if table::is_inside() || table::is_lent() {
        return;
    }
    let error = errno::get();
    let _inside = Inside::enter();
    // SAFETY: the kernel wrote headers and data inside the program's buffer, `msg_controllen` bytes of it.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(msg);
        while let Some(head) = at.as_ref() {
            if head.cmsg_level == libc::SOL_SOCKET && head.cmsg_type == libc::SCM_RIGHTS {
                let bytes = head.cmsg_len.saturating_sub(libc::CMSG_LEN(0) as usize);
                let fds = libc::CMSG_DATA(at).cast::<c_int>();
                for i in 0..bytes / size_of::<c_int>() {
                    table::arrived(fds.add(i).read_unaligned());
                }
            }
            at = libc::CMSG_NXTHDR(msg, at);
        }
    }
    errno::set(error);
}

/// # Safety
/// As recvmsg(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recvmsg(fd: c_int, msg: *mut msghdr, flags: c_int) -> ssize_t {
    if crate::files::is_device_fd(fd) {
        return fail(Errno(libc::ENOTSOCK)) as ssize_t;
    }
    // SAFETY: as the caller promises.
    unsafe {
        let n = real::recvmsg(fd, msg, flags);
        if n >= 0 && (*msg).msg_controllen > 0 {
            arrived(msg);
        }
        n
    }
}

/// # Safety
/// As recvmmsg(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recvmmsg(
    fd: c_int,
    msgs: *mut libc::mmsghdr,
    len: c_uint,
    flags: c_int,
    timeout: *mut timespec,
) -> c_int {
    if crate::files::is_device_fd(fd) {
        return fail(Errno(libc::ENOTSOCK));
    }
    // SAFETY: as the caller promises.
    unsafe {
        let n = real::recvmmsg(fd, msgs, len, flags, timeout);
        for i in 0..usize::try_from(n).unwrap_or(0) {
            let msg = &raw const (*msgs.add(i)).msg_hdr;
            if (*msg).msg_controllen > 0 {
                arrived(msg);
            }
        }
        n
    }
}
