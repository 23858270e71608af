//! `errno`.

use ringway_abi::Errno;

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
