//! Interfaces: found in a network namespace, reached in the best way that works, queue by queue.
//!
//! `NicDevice` is the side of whoever has the privileges (the broker): it binds sockets, attaches the XDP program with the
//! first queue that receives, and detaches it with the last. It knows nothing of ports. [`NicGrant`] is what a client gets:
//! sockets, which it maps itself.
//!
//! Source: semantics.md 24, abi.md 9.1; kernel document networking/af_xdp.

use crate::stats::{Counters, Drop};
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

impl NicPath {
    /// Adds what the kernel dropped before it reached the RX ring over `socket`, since that was opened.
    pub fn add_kernel_drops(self, socket: impl AsFd, counters: &mut Counters) {
        // A socket that cannot tell has dropped nothing that anybody knows of.
        if self == NicPath::Packet {
            counters.add_drops(Drop::ReceiverFull, ringway_os::packet::drops(socket).unwrap_or(0).into());
        } else if let Ok(s) = ringway_os::xdp::statistics(socket) {
            let (full, device) = xsk_drops(&s, self == NicPath::ZeroCopy);
            counters.add_drops(Drop::ReceiverFull, full);
            counters.add_drops(Drop::Device, device);
        }
    }
}

/// Frames that found no room or no free buffer, and frames dropped for other reasons. Where frames are copied, the kernel counts one that
/// found no buffer among those dropped too; where the driver fills buffers it counts its looks at an empty ring, which lose nothing
/// by themselves.
///
/// Source: `__xsk_rcv` and `xsk_generic_rcv` of kernel net/xdp/xsk.c; `xp_alloc` of net/xdp/xsk_buff_pool.c.
fn xsk_drops(s: &ringway_os::xdp::XskStats, zero_copy: bool) -> (u64, u64) {
    let no_buffer = if zero_copy { 0 } else { s.rx_fill_ring_empty_descs.min(s.rx_dropped) };
    (s.rx_ring_full + no_buffer, s.rx_dropped - no_buffer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_os::xdp::XskStats;

    #[test]
    fn no_frame_that_the_kernel_dropped_is_counted_twice() {
        let stats = |dropped, full, empty| XskStats {
            rx_dropped: dropped,
            rx_ring_full: full,
            rx_fill_ring_empty_descs: empty,
            ..XskStats::default()
        };
        assert_eq!(xsk_drops(&stats(7, 0, 7), false), (7, 0));
        assert_eq!(xsk_drops(&stats(7, 2, 5), false), (7, 2));
        assert_eq!(xsk_drops(&stats(3, 2, 5), false), (5, 0));
        assert_eq!(xsk_drops(&stats(3, 2, 500), true), (2, 3));
    }
}
