//! Which address of the registered memory (UMEM) belongs to which buffer.
//!
//! The buffers of a region are UMEM frames as they are. On receiving, the kernel leaves 256 bytes before the
//! frame (XDP_PACKET_HEADROOM). With the flag for unaligned chunks it takes any address, so we put *the buffer
//! minus 256* on the fill ring, and the frame lies exactly at the start of the buffer:
//!
//! ```text
//! UMEM address   0            fill_addr(i)      base+i*stride           +stride
//!                |  ...buffer i-1...  |<- headroom ->|<---- frame_len ---->|
//!                                     |<------------ chunk_size ---------->|
//! ```
//!
//! Chunks overlap the tails of the buffers before them; in copy mode the kernel writes nothing but the frame,
//! so this does no harm. A **zero-copy driver** on pages that are not contiguous for the device refuses
//! addresses whose chunk crosses such a page (kernel `xp_check_unaligned`), and may write metadata before the
//! frame: use [`UmemLayout::aligned`] there.
//!
//! The UMEM begins at the page in which buffer 0 begins, not at the start of the region: a holder of the socket
//! can make the kernel write at any address of the UMEM, and rings and control structures are none of its
//! business. Therefore buffers that lie less than the headroom behind that page's start cannot be filled (they
//! can be sent): numbers 0 and 1 at most, which netmap reserves. Only buffers below 683 bytes need more
//! headroom than two of them give: then the UMEM begins a page earlier, if the region has one there.

use std::sync::Arc;

use crate::mem::{Map, page_size};

/// linux/bpf.h
const XDP_PACKET_HEADROOM: u32 = 256;
/// Smallest chunk that the kernel takes (include/net/xdp_sock.h `XDP_UMEM_MIN_CHUNK_SIZE`); the largest is a
/// page, of which there are larger ones than this on some machines: still a good limit.
const MIN_CHUNK: u32 = 2048;
const PAGE: u32 = 4096;
/// Buffers 0 and 1 of a netmap region are never used for packets.
const RESERVED_BUFS: u32 = 2;
/// linux/if_xdp.h: in unaligned mode the upper 16 bits are an offset to add.
const OFFSET_SHIFT: u32 = libc::XSK_UNALIGNED_BUF_OFFSET_SHIFT as u32;
const ADDR_MASK: u64 = libc::XSK_UNALIGNED_BUF_ADDR_MASK;

/// Why buffers cannot be UMEM frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UmemError {
    /// No buffers, or a stride of zero, or one below 64 bytes.
    Empty,
    /// The buffers end at this byte, behind the end of the region.
    TooLong {
        /// Where they would end.
        end: u64,
    },
    /// An aligned layout needs a stride of 2048 or 4096, and buffers that begin at a page.
    NotAligned {
        /// Distance of the buffers, bytes.
        stride: u32,
    },
}

impl UmemError {
    /// EINVAL, always.
    #[must_use]
    pub fn errno(self) -> rustix::io::Errno {
        rustix::io::Errno::INVAL
    }
}

impl std::fmt::Display for UmemError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            UmemError::Empty => f.write_str("no buffers of at least 64 bytes"),
            UmemError::TooLong { end } => {
                write!(f, "buffers would end at byte {end}, behind the end of the region")
            }
            UmemError::NotAligned { stride } => {
                write!(
                    f,
                    "buffers {stride} bytes apart cannot be aligned UMEM chunks (2048 or 4096, from a page on)"
                )
            }
        }
    }
}

impl std::error::Error for UmemError {}

/// Where the buffers of a region lie in the UMEM. Plain numbers: every process that holds the region computes
/// the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UmemLayout {
    /// Byte of the region where the UMEM begins: a multiple of the page size.
    start: u64,
    /// Bytes registered.
    len: u64,
    /// UMEM address of buffer 0.
    base: u64,
    stride: u32,
    num_bufs: u32,
    chunk_size: u32,
    /// From the fill address to the frame, as the kernel leaves it: 256 and more.
    headroom: u32,
    aligned: bool,
}

impl UmemLayout {
    /// Frames at the start of each buffer, unaligned chunks: for copy mode.
    ///
    /// `region_len` bytes of memory hold `num_bufs` buffers, `stride` bytes apart, from byte `buf_ofs` on. Any
    /// stride from 64 on; frames use up to [`UmemLayout::frame_len`] bytes of it.
    ///
    /// # Errors
    /// [`UmemError::Empty`], [`UmemError::TooLong`].
    pub fn unaligned(
        region_len: u64,
        buf_ofs: u64,
        stride: u32,
        num_bufs: u32,
    ) -> Result<UmemLayout, UmemError> {
        if num_bufs == 0 || stride < 64 {
            return Err(UmemError::Empty);
        }
        // A small buffer: the chunk may not be, so the kernel is told to leave more room before the frame. A
        // large one: the chunk ends at a page.
        let frame_len = stride.min(PAGE - XDP_PACKET_HEADROOM);
        let chunk_size = (frame_len + XDP_PACKET_HEADROOM).max(MIN_CHUNK);
        let headroom = chunk_size - frame_len;
        Self::make(region_len, buf_ofs, stride, num_bufs, chunk_size, headroom, false)
    }

    /// Frames 256 bytes behind the start of each buffer, chunks aligned: for zero-copy drivers. Costs 256 bytes
    /// of each buffer; what receives must know offsets ([`UmemLayout::locate`]).
    ///
    /// # Errors
    /// [`UmemError::NotAligned`] unless `stride` is 2048 or 4096 and `buf_ofs` a multiple of the page size;
    /// [`UmemError::Empty`], [`UmemError::TooLong`].
    pub fn aligned(
        region_len: u64,
        buf_ofs: u64,
        stride: u32,
        num_bufs: u32,
    ) -> Result<UmemLayout, UmemError> {
        if num_bufs == 0 {
            return Err(UmemError::Empty);
        }
        if !(stride == MIN_CHUNK || stride == PAGE) || !buf_ofs.is_multiple_of(u64::from(PAGE)) {
            return Err(UmemError::NotAligned { stride });
        }
        Self::make(region_len, buf_ofs, stride, num_bufs, stride, XDP_PACKET_HEADROOM, true)
    }

    fn make(
        region_len: u64,
        buf_ofs: u64,
        stride: u32,
        num_bufs: u32,
        chunk_size: u32,
        headroom: u32,
        aligned: bool,
    ) -> Result<UmemLayout, UmemError> {
        let end = buf_ofs.saturating_add(u64::from(stride) * u64::from(num_bufs));
        if end > region_len || end >= ADDR_MASK {
            return Err(UmemError::TooLong { end });
        }
        let lead = if aligned { 0 } else { headroom.saturating_sub(RESERVED_BUFS * stride) };
        let start = buf_ofs.saturating_sub(u64::from(lead)) / page_size() as u64 * page_size() as u64;
        let base = buf_ofs - start;
        Ok(UmemLayout { start, len: end - start, base, stride, num_bufs, chunk_size, headroom, aligned })
    }

    /// Number of buffers.
    #[must_use]
    pub fn num_bufs(&self) -> u32 {
        self.num_bufs
    }

    /// Bytes from the start of a buffer to a received frame: 0, or 256 if aligned. A driver may put a frame
    /// elsewhere: [`UmemLayout::locate`] tells.
    #[must_use]
    pub fn rx_offset(&self) -> u32 {
        if self.aligned { self.headroom } else { 0 }
    }

    /// Longest piece of a frame that one buffer receives, in bytes. Longer frames come in several descriptors.
    #[must_use]
    pub fn frame_len(&self) -> u32 {
        self.chunk_size - self.headroom
    }

    /// The chunk size registered, in bytes.
    #[must_use]
    pub fn chunk_size(&self) -> u32 {
        self.chunk_size
    }

    /// What to put on the fill ring for a buffer. `None` if there is no such buffer, or if its headroom would
    /// lie before the UMEM (see the module's head).
    #[inline]
    #[must_use]
    pub fn fill_addr(&self, buf_idx: u32) -> Option<u64> {
        let addr = self.tx_addr(buf_idx)?;
        if self.aligned { Some(addr) } else { addr.checked_sub(u64::from(self.headroom)) }
    }

    /// The address of the start of a buffer, for the transmit ring. An offset within the buffer may be added.
    /// `None` if there is no such buffer.
    #[inline]
    #[must_use]
    pub fn tx_addr(&self, buf_idx: u32) -> Option<u64> {
        (buf_idx < self.num_bufs).then(|| self.base + u64::from(buf_idx) * u64::from(self.stride))
    }

    /// The buffer that a received descriptor or a completion points into; `None` if none, as in rings that
    /// somebody scribbled on.
    #[inline]
    #[must_use]
    pub fn buf_of_addr(&self, addr: u64) -> Option<u32> {
        self.locate(addr).map(|(buf_idx, _)| buf_idx)
    }

    /// The buffer that a received descriptor or a completion points into, and the bytes from its start. Takes
    /// both forms of address: plain, and with the offset in the upper 16 bits (kernel document
    /// networking/af_xdp, XDP_UMEM_UNALIGNED_CHUNK_FLAG).
    #[inline]
    #[must_use]
    pub fn locate(&self, addr: u64) -> Option<(u32, u32)> {
        let flat = (addr & ADDR_MASK) + (addr >> OFFSET_SHIFT);
        let rel = flat.checked_sub(self.base)?;
        let (idx, ofs) = (rel / u64::from(self.stride), rel % u64::from(self.stride));
        (idx < u64::from(self.num_bufs)).then_some((idx as u32, ofs as u32))
    }

    /// The buffer that an address from the **fill** ring stands for: the inverse of [`UmemLayout::fill_addr`].
    /// For collecting what a socket still holds.
    #[must_use]
    pub fn buf_of_fill_addr(&self, addr: u64) -> Option<u32> {
        let shift = if self.aligned { 0 } else { u64::from(self.headroom) };
        self.buf_of_addr(addr.checked_add(shift)?)
    }
}

/// Memory of a region to register, and where its buffers lie.
#[derive(Debug, Clone)]
pub struct Umem {
    map: Arc<Map>,
    layout: UmemLayout,
}

impl Umem {
    /// Describes the buffers of a mapped region.
    ///
    /// Registering pins the pages: the kernel keeps writing to them until the socket is gone, whether or not
    /// the map still exists. They are seen by everybody as shared memory (invariant I3 of this crate), so the
    /// kernel is one more writer. One region can be registered with any number of sockets.
    ///
    /// # Errors
    /// [`UmemError::TooLong`] if the layout was made for a longer region than this.
    pub fn new(map: &Arc<Map>, layout: UmemLayout) -> Result<Umem, UmemError> {
        let end = layout.start + layout.len;
        if end > map.len_bytes() as u64 {
            return Err(UmemError::TooLong { end });
        }
        Ok(Umem { map: Arc::clone(map), layout })
    }

    /// The layout.
    #[must_use]
    pub fn layout(&self) -> &UmemLayout {
        &self.layout
    }

    /// The argument of XDP_UMEM_REG.
    pub(super) fn registration(&self) -> rustix::net::xdp::XdpUmemReg {
        use rustix::net::xdp::{XdpUmemReg, XdpUmemRegFlags};
        let l = &self.layout;
        XdpUmemReg {
            addr: self.map.as_ptr() as u64 + l.start,
            len: l.len,
            chunk_size: l.chunk_size,
            // The kernel adds XDP_PACKET_HEADROOM to this.
            headroom: l.headroom - XDP_PACKET_HEADROOM,
            flags: if l.aligned {
                XdpUmemRegFlags::empty()
            } else {
                XdpUmemRegFlags::XDP_UMEM_UNALIGNED_CHUNK_FLAG
            },
            tx_metadata_len: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_buffers_are_inverse_for_all_strides() {
        for stride in (64..=9216).step_by(64) {
            for buf_ofs in [0u64, 256, 421_888, 421_888 + 64] {
                let l = UmemLayout::unaligned(buf_ofs + 50 * u64::from(stride), buf_ofs, stride, 50).unwrap();
                assert!((2048..=4096).contains(&l.chunk_size()) && l.headroom >= 256, "{l:?}");
                assert!(l.frame_len() <= stride && l.frame_len() == stride.min(3840));
                for i in 0..50 {
                    let tx = l.tx_addr(i).unwrap();
                    assert_eq!(l.start + tx, buf_ofs + u64::from(i * stride));
                    assert_eq!(l.locate(tx + u64::from(stride) - 1), Some((i, stride - 1)));
                    let Some(fill) = l.fill_addr(i) else {
                        assert!(tx < u64::from(l.headroom) && (i < 2 || buf_ofs < 4096));
                        continue;
                    };
                    // Where the kernel puts the frame, in both notations.
                    assert_eq!(l.locate(fill + u64::from(l.headroom)), Some((i, 0)));
                    assert_eq!(l.locate(fill | u64::from(l.headroom) << 48), Some((i, 0)));
                    assert_eq!(l.buf_of_fill_addr(fill), Some(i));
                    assert!(fill + u64::from(l.chunk_size) <= l.len);
                }
                assert_eq!(
                    (l.tx_addr(50), l.fill_addr(u32::MAX), l.buf_of_addr(u64::MAX)),
                    (None, None, None)
                );
            }
        }
        let l = UmemLayout::unaligned(1 << 20, 0, 2048, 512).unwrap();
        assert_eq!((l.chunk_size(), l.fill_addr(1), l.fill_addr(0)), (2304, Some(1792), None));
    }

    #[test]
    fn aligned_layout_has_frames_256_bytes_in() {
        let l = UmemLayout::aligned(1 << 20, 8192, 2048, 16).unwrap();
        assert_eq!((l.rx_offset(), l.frame_len(), l.fill_addr(3)), (256, 1792, Some(3 * 2048)));
        assert_eq!(l.locate(3 * 2048 + 256), Some((3, 256)));
        assert!(matches!(
            UmemLayout::aligned(1 << 20, 0, 2112, 16),
            Err(UmemError::NotAligned { stride: 2112 })
        ));
        assert!(matches!(UmemLayout::unaligned(4096, 0, 2048, 3), Err(UmemError::TooLong { end: 6144 })));
    }
}
