//! The system calls of this library, all of them.
//!
//! They go through the C library's own names (`open`, `ioctl`, `mmap`, `munmap`, `close`, `lseek`), as those
//! of a program would: whoever stands before these names serves both.

use core::ffi::{CStr, c_int, c_void};
use ringway_abi::{NETMAP_DEVICE_NAME, NIOCCTRL, nmreq_header};
use std::ffi::CString;

use crate::errno::{Failure, strerror};

/// The device, closed when dropped. `errno` stays as it is then.
#[derive(Debug)]
pub struct Fd(c_int);

impl Fd {
    /// Gives it away, open.
    pub fn into_raw(self) -> c_int {
        let fd = self.0;
        core::mem::forget(self);
        fd
    }

    /// Sends a request. `Err`: `errno` says why.
    ///
    /// # Safety
    /// What the header points to is valid, and not used by anybody else during the call (C contract 1, 4).
    pub unsafe fn request(&self, hdr: *mut nmreq_header) -> Result<(), ()> {
        // SAFETY: the request's argument is a header; as the caller promises.
        match unsafe { libc::ioctl(self.0, NIOCCTRL.into(), hdr) } {
            0.. => Ok(()),
            _ => Err(()),
        }
    }

    /// Bytes of a file. `Err`: `errno` says why.
    pub fn len_bytes(&self) -> Result<usize, ()> {
        // SAFETY: touches no memory.
        let end = unsafe { libc::lseek(self.0, 0, libc::SEEK_END) };
        usize::try_from(end).map_err(|_| ())
    }

    /// Maps all of it, shared. `Err`: `errno` says why.
    pub fn map(&self, len_bytes: usize) -> Result<*mut c_void, ()> {
        map(self.0, len_bytes)
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        close(self.0);
    }
}

/// Opens a path for reading and writing. `Err`: `errno` says why.
pub fn open(path: &CStr) -> Result<Fd, ()> {
    // SAFETY: the path ends with NUL.
    match unsafe { libc::open(path.as_ptr(), libc::O_RDWR) } {
        fd @ 0.. => Ok(Fd(fd)),
        _ => Err(()),
    }
}

/// Opens netmap's device. `Err`: `errno` says why.
pub fn open_device() -> Result<Fd, ()> {
    open(&CString::new(NETMAP_DEVICE_NAME).unwrap_or_default())
}

/// Closes a descriptor of the C program. `errno` stays as it is.
pub fn close(fd: c_int) {
    let errno = crate::errno::get();
    // SAFETY: touches no memory. C contract 1: the descriptor is the port's own.
    unsafe { libc::close(fd) };
    crate::errno::set(errno);
}

/// Maps `len_bytes` of a descriptor, shared. `Err`: `errno` says why.
pub fn map(fd: c_int, len_bytes: usize) -> Result<*mut c_void, ()> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping where the kernel likes touches nothing that is there.
    let mem = unsafe { libc::mmap(core::ptr::null_mut(), len_bytes, access, libc::MAP_SHARED, fd, 0) };
    if mem == libc::MAP_FAILED { Err(()) } else { Ok(mem) }
}

/// Gives a mapping back. `errno` stays as it is.
///
/// # Safety
/// It came from [`map`] with this length, and nobody uses it any more.
pub unsafe fn unmap(mem: *mut c_void, len_bytes: usize) {
    let errno = crate::errno::get();
    // SAFETY: as the caller promises.
    unsafe { libc::munmap(mem, len_bytes) };
    crate::errno::set(errno);
}

/// The device cannot be opened: in the words of `nmreq_get_mem_id`, or of `nmport_register`.
pub fn no_device(before: &str) -> Failure {
    let errno = crate::errno::get();
    Failure::new(errno, format!("{before}{NETMAP_DEVICE_NAME}: {}", strerror(errno)))
}
