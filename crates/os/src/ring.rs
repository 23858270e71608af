//! netmap's ring as it lies in shared memory: every field an atomic.
//!
//! Source: `sys/net/netmap.h`, `struct netmap_ring`, `struct netmap_slot`, `struct netmap_if`; offsets in
//! `ringway_abi`, against which they are asserted here.

use crate::mem::Shared;
use crate::sync::Ordering;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, AtomicU64};
use ringway_abi::ring::{netmap_if, netmap_ring, netmap_slot};

#[cfg(target_endian = "big")]
compile_error!("SlotWord packs its fields in little-endian order");

/// The first eight bytes of a slot in one word: they cannot tear, nor change between check and use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotWord(pub u64);

impl SlotWord {
    /// Packs the three fields.
    #[inline]
    #[must_use]
    pub const fn new(buf_idx: u32, len: u16, flags: u16) -> Self {
        SlotWord(buf_idx as u64 | (len as u64) << 32 | (flags as u64) << 48)
    }

    /// Index of the buffer.
    #[inline]
    #[must_use]
    pub const fn buf_idx(self) -> u32 {
        self.0 as u32
    }

    /// True if the slot has no bytes.
    #[inline]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Length in bytes.
    #[inline]
    #[must_use]
    pub const fn len(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// `NS_*` flags.
    #[inline]
    #[must_use]
    pub const fn flags(self) -> u16 {
        (self.0 >> 48) as u16
    }

    /// Length and flags in one word: length in the low half.
    #[inline]
    #[must_use]
    pub const fn len_flags(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The slot for `buf_idx` with length and flags as [`SlotWord::len_flags`] gives them.
    #[inline]
    #[must_use]
    pub const fn from_len_flags(buf_idx: u32, len_flags: u32) -> Self {
        SlotWord(buf_idx as u64 | (len_flags as u64) << 32)
    }
}

/// A slot. Written by whoever owns it: the client in `[head, tail)`, the engine elsewhere.
#[repr(C)]
#[derive(Debug)]
pub struct Slot {
    word: AtomicU64,
    ptr: AtomicU64,
}

// SAFETY: two atomics, no padding.
unsafe impl Shared for Slot {}

impl Slot {
    /// Index, length and flags, in one load.
    #[inline]
    pub fn load(&self) -> SlotWord {
        SlotWord(self.word.load(Ordering::Relaxed))
    }

    /// Stores index, length and flags at once.
    #[inline]
    pub fn store(&self, word: SlotWord) {
        self.word.store(word.0, Ordering::Relaxed);
    }

    /// The `ptr` field: a user address (NS_INDIRECT) or an offset.
    #[inline]
    pub fn ptr(&self) -> u64 {
        self.ptr.load(Ordering::Relaxed)
    }

    /// Stores the `ptr` field.
    #[inline]
    pub fn set_ptr(&self, ptr: u64) {
        self.ptr.store(ptr, Ordering::Relaxed);
    }
}

/// The header of a ring; its slots follow at byte 256.
#[repr(C)]
#[derive(Debug)]
pub struct RingHeader {
    /// From this header to buffer 0, in bytes (engine writes, once).
    pub buf_ofs: AtomicU64,
    /// Slots in the ring (engine writes, once).
    pub num_slots: AtomicU32,
    /// Bytes in a buffer (engine writes, once).
    pub nr_buf_size: AtomicU32,
    /// Ring number in the low half, direction (1: TX) in the high half (engine writes, once).
    pub ringid_dir: AtomicU32,
    /// First slot owned by the client (client writes).
    pub head: AtomicU32,
    /// Wake-up point (client writes).
    pub cur: AtomicU32,
    /// First slot owned by the engine (engine writes).
    pub tail: AtomicU32,
    /// `NR_*` (client writes).
    pub flags: AtomicU32,
    _pad: AtomicU32,
    /// Seconds of the last receive sync (engine writes).
    pub ts_sec: AtomicU64,
    /// Microseconds of it.
    pub ts_usec: AtomicU64,
    /// Bits of a slot's `ptr` that are an offset (engine writes, once).
    pub offset_mask: AtomicU64,
    /// Alignment that the adapter wants of offsets (engine writes, once).
    pub buf_align: AtomicU64,
    _pad2: [AtomicU64; 7],
    /// For the applications; never touched by the engine.
    sem: [AtomicU64; 16],
}

// SAFETY: atomics only; the two pads are atomics as well.
unsafe impl Shared for RingHeader {}

/// Bytes from a ring's header to its first slot.
pub const RING_HEADER_BYTES: usize = size_of::<RingHeader>();

const _: () = {
    assert!(
        size_of::<RingHeader>() == size_of::<netmap_ring>() && size_of::<Slot>() == size_of::<netmap_slot>()
    );
    assert!(offset_of!(RingHeader, num_slots) == offset_of!(netmap_ring, num_slots));
    assert!(offset_of!(RingHeader, ringid_dir) == offset_of!(netmap_ring, ringid));
    assert!(offset_of!(RingHeader, head) == offset_of!(netmap_ring, head));
    assert!(offset_of!(RingHeader, cur) == offset_of!(netmap_ring, cur));
    assert!(offset_of!(RingHeader, tail) == offset_of!(netmap_ring, tail));
    assert!(offset_of!(RingHeader, flags) == offset_of!(netmap_ring, flags));
    assert!(offset_of!(RingHeader, ts_sec) == offset_of!(netmap_ring, ts));
    assert!(offset_of!(RingHeader, offset_mask) == offset_of!(netmap_ring, offset_mask));
    assert!(offset_of!(RingHeader, buf_align) == offset_of!(netmap_ring, buf_align));
    assert!(offset_of!(RingHeader, sem) == offset_of!(netmap_ring, sem));
    assert!(size_of::<IfHeader>() == size_of::<netmap_if>());
    assert!(offset_of!(IfHeader, ni_bufs_head) == offset_of!(netmap_if, ni_bufs_head));
    assert!(offset_of!(IfHeader, ni_host_rx_rings) == offset_of!(netmap_if, ni_host_rx_rings));
};

/// The header of an interface record; ring offsets (64 bits each) follow.
#[repr(C)]
#[derive(Debug)]
pub struct IfHeader {
    /// Port name, 15 characters and NUL (engine writes, once).
    pub ni_name: [AtomicU32; 4],
    /// 0 (engine writes, once).
    pub ni_version: AtomicU32,
    /// `NI_*` (engine writes, once).
    pub ni_flags: AtomicU32,
    /// Hardware TX rings (engine writes, once).
    pub ni_tx_rings: AtomicU32,
    /// Hardware RX rings (engine writes, once).
    pub ni_rx_rings: AtomicU32,
    /// First extra buffer (client and engine write).
    pub ni_bufs_head: AtomicU32,
    /// Host TX rings, at least 1 (engine writes, once).
    pub ni_host_tx_rings: AtomicU32,
    /// Host RX rings, at least 1 (engine writes, once).
    pub ni_host_rx_rings: AtomicU32,
    _spare: [AtomicU32; 3],
}

// SAFETY: atomics only.
unsafe impl Shared for IfHeader {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_word_is_the_slots_first_eight_bytes() {
        let word = SlotWord::new(0x0403_0201, 0x0605, 0x0807);
        assert_eq!(word.0.to_ne_bytes(), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!((word.buf_idx(), word.len(), word.flags()), (0x0403_0201, 0x0605, 0x0807));
        assert_eq!(SlotWord::from_len_flags(word.buf_idx(), word.len_flags()), word);
    }
}
