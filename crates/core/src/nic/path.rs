//! The ways to reach an interface, and in which order they are tried.

use crate::layout::RegionLayout;
use ringway_abi::NicMode;
use ringway_os::link::Link;
use ringway_os::xdp::{UmemError, UmemLayout};

/// How an interface is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum NicPath {
    /// XDP in the driver, which moves frames itself.
    ZeroCopy = 1,
    /// XDP in the driver, one copy.
    NativeCopy = 2,
    /// XDP in the stack.
    Generic = 3,
    /// Packet socket.
    Packet = 4,
}

impl NicPath {
    /// For people and listings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            NicPath::ZeroCopy => "xdp native zero-copy",
            NicPath::NativeCopy => "xdp native copy",
            NicPath::Generic => "xdp generic",
            NicPath::Packet => "af_packet",
        }
    }

    /// The path of that number.
    #[must_use]
    pub(crate) const fn from_u32(n: u32) -> Option<Self> {
        Some(match n {
            1 => NicPath::ZeroCopy,
            2 => NicPath::NativeCopy,
            3 => NicPath::Generic,
            4 => NicPath::Packet,
            _ => return None,
        })
    }

    /// Where the buffers of a region lie for sockets of this path.
    ///
    /// # Errors
    /// [`UmemError`] if buffers of that size cannot be used so.
    pub fn umem(self, l: &RegionLayout) -> Result<UmemLayout, UmemError> {
        let bufs = &l.bufs;
        match self {
            // A zero-copy driver refuses frames that cross into a page that is not contiguous for the device.
            NicPath::ZeroCopy => UmemLayout::aligned(l.memsize, bufs.offset, bufs.objsize, bufs.objtotal),
            _ => UmemLayout::unaligned(l.memsize, bufs.offset, bufs.objsize, bufs.objtotal),
        }
    }

    /// The ways to try, best first. Adapter modes (tunable `admode`): 0 any, 1 native only, 2 emulated only.
    pub(super) fn plan(mode: NicMode, admode: i32, link: &Link) -> Vec<NicPath> {
        match mode {
            NicMode::Zerocopy => return vec![NicPath::ZeroCopy],
            NicMode::Copy => return vec![NicPath::NativeCopy],
            NicMode::Generic => return vec![NicPath::Generic],
            NicMode::Packet => return vec![NicPath::Packet],
            NicMode::Auto => {}
        }
        let mut plan = vec![];
        if admode != 2 {
            // Software devices never do zero-copy, and each try pins the region.
            if link.kind.is_none() && !link.loopback {
                plan.push(NicPath::ZeroCopy);
            }
            plan.push(NicPath::NativeCopy);
        }
        if admode != 1 {
            plan.extend([NicPath::Generic, NicPath::Packet]);
        }
        plan
    }
}
