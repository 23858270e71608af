//! What can go wrong, and the errno that a C program would see.

use ringway_abi::{Errno, SpecError};
use ringway_core::control::ControlError;
use ringway_core::kring::CursorError;
use ringway_core::layout::Dir;
use std::fmt;
use std::io;

/// A port could not be opened. Shown (`Display`) as one line: what failed, why, what to do.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// The name cannot be read; libnetmap's own words.
    Name(SpecError),
    /// The broker, or the embedded engine, refused.
    Refused {
        /// As netmap's request would fail.
        errno: Errno,
        /// What failed, why, what to do.
        message: String,
    },
    /// No broker answers, and none could be started. The text says why, and what to install or to set.
    NoBroker(String),
    /// The broker went away while it was asked. Trying again starts another.
    CutOff,
    /// The system refused something: no file descriptor or memory is left, most likely.
    Io {
        /// What it answered.
        errno: Errno,
        /// What was being done, and why it failed.
        message: String,
    },
}

impl OpenError {
    /// A refusal.
    pub(crate) fn refused(errno: Errno, message: impl Into<String>) -> Self {
        OpenError::Refused { errno, message: message.into() }
    }

    /// The system failed at `what`.
    pub(crate) fn io(what: &str, e: &io::Error) -> Self {
        OpenError::Io {
            errno: Errno(e.raw_os_error().unwrap_or(Errno::EIO.0)),
            message: format!("{what}: {e}"),
        }
    }

    /// The errno that a C program would see: ENXIO for an unknown port, EBUSY for one that cannot be had exclusively, and so
    /// on. Source: abi.md 9.1.
    #[must_use]
    pub fn errno(&self) -> Errno {
        match self {
            OpenError::Name(e) => e.errno(),
            OpenError::Refused { errno, .. } | OpenError::Io { errno, .. } => *errno,
            OpenError::NoBroker(_) | OpenError::CutOff => Errno::ENXIO,
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Name(e) => write!(f, "{e}"),
            OpenError::Refused { message, .. } | OpenError::Io { message, .. } => f.write_str(message),
            OpenError::NoBroker(why) => write!(f, "no broker: {why}"),
            OpenError::CutOff => f.write_str("the broker went away while it was asked; try again"),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OpenError::Name(e) => Some(e),
            _ => None,
        }
    }
}

impl From<SpecError> for OpenError {
    fn from(e: SpecError) -> Self {
        OpenError::Name(e)
    }
}

impl From<ControlError> for OpenError {
    fn from(e: ControlError) -> Self {
        OpenError::Refused { errno: e.errno, message: e.message }
    }
}

/// A sync or a wait failed. What `poll` would report as POLLERR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncError {
    /// `head` or `cur` in shared memory was illegal: another program that shares the ring, or the region, wrote there. Cursors
    /// outside the ring have been put back: the next sync may work.
    BadRing {
        /// Direction.
        dir: Dir,
        /// Ring.
        ring: u16,
        /// Which cursor, and its value.
        cursor: CursorError,
    },
    /// The port's other side is gone for good: its interface was deleted, or the driver unbound.
    Stopped,
    /// The driver failed this time.
    Failed,
    /// The broker is gone. Open the port again: that starts another one.
    BrokerGone,
    /// The system refused what waiting needs (a file descriptor, memory).
    Os(Errno),
}

impl SyncError {
    /// The errno of a C program: EIO (ENXIO for a broker that is gone).
    #[must_use]
    pub fn errno(&self) -> Errno {
        match self {
            SyncError::BrokerGone => Errno::ENXIO,
            SyncError::Os(e) => *e,
            SyncError::BadRing { .. } | SyncError::Stopped | SyncError::Failed => Errno::EIO,
        }
    }
}

impl fmt::Display for SyncError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SyncError::BadRing { dir, ring, cursor } => {
                let (word, value) = match cursor {
                    CursorError::Head(v) => ("head", v),
                    CursorError::Cur(v) => ("cur", v),
                };
                write!(
                    f,
                    "{dir:?} ring {ring}: {word} = {value} is outside the window of its owner; somebody else wrote it"
                )
            }
            SyncError::Stopped => {
                f.write_str("the port's interface, or the port that it monitors, is gone; close the port")
            }
            SyncError::Failed => f.write_str("the port's driver failed; try again"),
            SyncError::BrokerGone => f.write_str("the broker is gone; open the port again"),
            SyncError::Os(e) => write!(f, "cannot wait: {}", io::Error::from_raw_os_error(e.0)),
        }
    }
}

impl std::error::Error for SyncError {}

impl From<io::Error> for SyncError {
    fn from(e: io::Error) -> Self {
        SyncError::Os(Errno(e.raw_os_error().unwrap_or(Errno::EIO.0)))
    }
}

impl From<SyncError> for io::Error {
    fn from(e: SyncError) -> Self {
        io::Error::other(e)
    }
}

impl From<OpenError> for io::Error {
    fn from(e: OpenError) -> Self {
        io::Error::other(e)
    }
}

/// Two buffers could not change places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwapError {
    /// They lie in different regions: open one port with [`share_memory_with`](crate::PortBuilder::share_memory_with) the
    /// other, or copy.
    OtherRegion,
    /// Others may have a ring too ([`Port::is_exclusive`](crate::Port::is_exclusive)), so nobody could tell who owns the buffer.
    Shared,
    /// There is no such slot in the window, or the buffer's port is closed.
    NoSlot,
    /// The packet begins at an offset that the other ring cannot say.
    Offset,
}

impl SwapError {
    /// EINVAL for different regions, for no slot and for an offset, EBUSY for a shared ring.
    #[must_use]
    pub fn errno(&self) -> Errno {
        match self {
            SwapError::OtherRegion | SwapError::NoSlot | SwapError::Offset => Errno::EINVAL,
            SwapError::Shared => Errno::EBUSY,
        }
    }
}

impl fmt::Display for SwapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SwapError::OtherRegion => "the buffers lie in different memory regions; share one, or copy",
            SwapError::Shared => {
                "a ring bound without exclusiveness takes no part in swaps; open the port exclusively"
            }
            SwapError::Offset => {
                "a packet begins further into its buffer than the other ring permits; open both ports with offsets"
            }
            SwapError::NoSlot => "there is no such slot in the ring's window, or the buffer's port is closed",
        })
    }
}

impl std::error::Error for SwapError {}
