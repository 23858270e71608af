//! Waking the kernel for the rings of a socket.

use std::io;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

/// What became of waking the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kick {
    /// It ran. In copy mode one call sends up to the transmit budget.
    Done,
    /// It did something, or nothing, and must be called again (EAGAIN, EBUSY, ENOBUFS, EINTR): budget used up,
    /// completion ring or device queue full. Nothing retries by itself.
    Again,
    /// The interface is down (ENETDOWN): nothing moves until it is up. Descriptors stay where they are.
    LinkDown,
}

/// Makes the kernel send what is on the transmit ring. Does not wait.
///
/// # Errors
/// ENXIO: the socket lost its interface (removed, or never bound). Others, as EBADF, mean a fault of the
/// caller.
pub fn kick_tx(fd: impl AsFd) -> io::Result<Kick> {
    outcome(rustix::net::send(fd, &[], SendFlags::DONTWAIT).map(drop))
}

/// Makes the kernel take buffers from the fill ring. Does not wait.
///
/// # Errors
/// As [`kick_tx`].
pub fn kick_rx(fd: impl AsFd) -> io::Result<Kick> {
    let mut none: [u8; 0] = [];
    outcome(rustix::net::recv(fd, &mut none[..], RecvFlags::DONTWAIT).map(drop))
}

fn outcome(result: Result<(), Errno>) -> io::Result<Kick> {
    match result {
        Ok(()) => Ok(Kick::Done),
        Err(Errno::AGAIN | Errno::BUSY | Errno::NOBUFS | Errno::INTR) => Ok(Kick::Again),
        Err(Errno::NETDOWN) => Ok(Kick::LinkDown),
        Err(e) => Err(e.into()),
    }
}
