//! Where fds go that a library keeps for itself.
//!
//! A C program expects its own fds at low numbers, and may close all that it does not know. The C library moves what it keeps out of the
//! way; everybody else leaves fds where the kernel puts them.

use std::os::fd::OwnedFd;
use std::sync::OnceLock;

static MOVER: OnceLock<fn(OwnedFd) -> OwnedFd> = OnceLock::new();

/// From now on `mover` chooses the number of each fd that is kept. Only the first call counts.
pub fn move_kept_fds(mover: fn(OwnedFd) -> OwnedFd) {
    let _ = MOVER.set(mover);
}

/// Puts an fd that is about to be kept where it shall be.
#[must_use]
pub fn keep(fd: OwnedFd) -> OwnedFd {
    match MOVER.get() {
        Some(mover) => mover(fd),
        None => fd,
    }
}
