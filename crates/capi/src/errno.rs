//! `errno`, and failures on their way to it.

use core::ffi::CStr;
use ringway_abi::{Errno, SpecError};

/// What the last call of the C library left behind.
pub fn get() -> Errno {
    // SAFETY: the address of this thread's errno is always valid.
    Errno(unsafe { *libc::__errno_location() })
}

/// Leaves `errno` for the program.
pub fn set(errno: Errno) {
    // SAFETY: the address of this thread's errno is always valid.
    unsafe { *libc::__errno_location() = errno.0 }
}

/// The C library's words for an errno.
pub fn strerror(errno: Errno) -> String {
    let mut buf = [0; 256];
    // SAFETY: the buffer is as long as said; the function ends its text with NUL inside it.
    let text = unsafe {
        libc::strerror_r(errno.0, buf.as_mut_ptr(), buf.len());
        CStr::from_ptr(buf.as_ptr())
    };
    text.to_string_lossy().into_owned()
}

/// Why a function of this library fails.
#[derive(Debug)]
pub struct Failure {
    /// For the program.
    pub errno: Errno,
    /// For its context, without newline; `None` if somebody has spoken already, or nobody shall.
    pub message: Option<Vec<u8>>,
}

impl Failure {
    /// With a message.
    pub fn new(errno: Errno, message: impl Into<Vec<u8>>) -> Self {
        Self { errno, message: Some(message.into()) }
    }

    /// EINVAL with a message.
    pub fn invalid(message: impl Into<Vec<u8>>) -> Self {
        Self::new(Errno::EINVAL, message)
    }

    /// Without a message.
    pub fn silent(errno: Errno) -> Self {
        Self { errno, message: None }
    }

    /// What just failed in the C library: `<what>: <strerror>`.
    pub fn last(what: impl Into<Vec<u8>>) -> Self {
        let errno = get();
        let mut message = what.into();
        message.extend_from_slice(b": ");
        message.extend_from_slice(strerror(errno).as_bytes());
        Self::new(errno, message)
    }
}

impl From<SpecError> for Failure {
    fn from(error: SpecError) -> Self {
        Self::new(error.errno, error.message)
    }
}
