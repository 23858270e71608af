//! Interfaces: found in a network namespace, reached in the best way that works, queue by queue.
//!
//! `NicDevice` is the side of whoever has the privileges (the broker): it binds sockets, attaches the XDP program with the
//! first queue that receives, and detaches it with the last. It knows nothing of ports. [`NicGrant`] is what a client gets:
//! sockets, which it maps itself.
//!
//! Source: semantics.md 24, abi.md 9.1; kernel document networking/af_xdp.

use ringway_abi::NicMode;
use ringway_os::link::with_netns;
use ringway_os::xdp::RingSizes;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

mod device;
mod path;

pub(crate) use device::NicDevice;
pub use path::NicPath;

/// Queues of an interface, at most: what the grant of all of them can carry.
pub const MAX_QUEUES: u32 = 48;

/// Where a request comes from, and what it says about interfaces.
#[derive(Clone, Debug, Default)]
pub struct NicRequest {
    /// The namespace in which names are looked up. None: that of the calling thread.
    pub netns: Option<Arc<OwnedFd>>,
    /// Identity of that namespace (its inode); 0 if there is only one.
    pub netns_id: u64,
    /// How to reach the interface.
    pub mode: NicMode,
}

impl NicRequest {
    /// Runs `work` in the namespace.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN, if it is another namespace than the thread's.
    pub(crate) fn in_netns<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        match &self.netns {
            Some(netns) => with_netns(netns.as_fd(), work),
            None => Ok(work()),
        }
    }
}

/// A bound queue, as granted.
#[derive(Clone, Debug)]
pub struct NicQueue {
    /// Its number, and that of the rings over it.
    pub index: u16,
    /// Its socket.
    pub socket: Arc<OwnedFd>,
    /// Entries of the kernel's rings (AF_XDP).
    pub sizes: RingSizes,
}

/// An interface, as granted.
#[derive(Clone, Debug)]
pub struct NicGrant {
    /// How it is reached.
    pub path: NicPath,
    /// Index of the interface in its namespace.
    pub ifindex: u32,
    /// Frames may lie in several slots (NS_MOREFRAG).
    pub multi_slot: bool,
    /// Queues of the bound rings.
    pub queues: Vec<NicQueue>,
}
