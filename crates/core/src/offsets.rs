//! Packets that do not begin at the start of their buffers: the low bits of a slot's `ptr` say where.
//!
//! A ring has offsets once somebody bound it with the OFFSETS option. Its mask and limits lie in the ring's state, so that whoever
//! syncs it, or sends to it, goes by them; a ring without has mask 0, and costs nothing.
//!
//! Source: semantics.md 14, abi.md 9.13.

use ringway_os::state::{RingState, SendersLine};
use std::sync::atomic::Ordering::Relaxed;

/// Both sides of a copy on a switch begin at the same place within so many bytes.
const ALIGN: u32 = 64;

/// How a ring keeps offsets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    /// Bits of `ptr` that hold one; 0: the ring has no offsets.
    pub mask: u64,
    /// The largest one, in bytes. Larger ones in slots count as this.
    pub max: u32,
    /// Bytes that a device may write behind an offset.
    pub gap: u32,
}

impl Offsets {
    /// True if the ring has offsets.
    #[inline]
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.mask != 0
    }

    /// The offset that a slot's `ptr` says, in bytes; 0 on a ring without.
    #[inline]
    #[must_use]
    pub fn of(&self, ptr: u64) -> u32 {
        (ptr & self.mask).min(self.max.into()) as u32
    }

    /// `ptr` with another offset.
    #[inline]
    #[must_use]
    pub fn put(&self, ptr: u64, ofs: u32) -> u64 {
        ptr & !self.mask | u64::from(ofs) & self.mask
    }

    /// What a pipe's receiver has in its slot's `ptr` when `came` arrives: the larger of both offsets.
    #[inline]
    #[must_use]
    pub(crate) fn keep_larger(&self, own: u64, came: u64) -> u64 {
        let ofs = self.of(own);
        if self.of(came) < ofs { self.put(came, ofs) } else { came }
    }

    /// Those of a ring, from its state; `buf_size` limits what is read there.
    #[inline]
    #[must_use]
    pub fn load(state: &RingState, buf_size: u32) -> Self {
        let sync = &state.sync;
        let mask = sync.offset_mask.load(Relaxed);
        if mask == 0 {
            return Offsets::default();
        }
        let max = sync.offset_max.load(Relaxed).min(buf_size);
        Offsets { mask, max, gap: sync.offset_gap.load(Relaxed).min(buf_size - max) }
    }

    /// As [`Offsets::load`], what the senders to a ring go by.
    #[inline]
    #[must_use]
    pub(crate) fn load_senders(line: &SendersLine, buf_size: u32) -> Self {
        let mask = line.offset_mask.load(Relaxed);
        Offsets { mask, max: line.offset_max.load(Relaxed).min(buf_size), gap: 0 }
    }

    /// Puts them into a ring's state, for its syncs. Only the keeper of the registry calls this.
    pub fn store(&self, state: &RingState) {
        state.sync.offset_max.store(self.max, Relaxed);
        state.sync.offset_gap.store(self.gap, Relaxed);
        state.sync.offset_mask.store(self.mask, Relaxed);
    }

    /// The same, for its senders.
    pub(crate) fn store_senders(&self, state: &RingState) {
        state.senders.offset_max.store(self.max, Relaxed);
        state.senders.offset_mask.store(self.mask, Relaxed);
    }
}

/// Where a switch puts a packet whose source begins at `from`, in a buffer of a receiver whose slot says `own`: both begin
/// at the same place within 64 bytes, so that whole lines are copied. It is netmap's rule, although the next line is not always needed:
/// who opens a port must leave room for it.
#[must_use]
pub fn aligned(from: u32, own: u32) -> u32 {
    let next_line = if own % ALIGN < from % ALIGN { ALIGN } else { 0 };
    own / ALIGN * ALIGN + next_line + from % ALIGN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_of_a_copy_are_equally_aligned_near_the_receivers_own_place() {
        for from in 0..300 {
            for own in 0..300 {
                let to = aligned(from, own);
                assert_eq!(to % 64, from % 64);
                // Oracle: the rule in words, with the line of the receiver's place, or the one behind it.
                let line = if own % 64 < from % 64 { own / 64 + 1 } else { own / 64 };
                assert_eq!(to / 64, line, "from {from} own {own} to {to}");
            }
        }
        assert_eq!(
            (aligned(0, 128), aligned(10, 128), aligned(10, 140), aligned(20, 140)),
            (128, 202, 138, 212)
        );
    }

    #[test]
    fn offsets_are_masked_and_cropped() {
        let o = Offsets { mask: 0xfff, max: 100, gap: 0 };
        assert_eq!((o.of(0xabc0_0000_0040), o.of(101), o.of(0xfff), o.of(0x1000)), (64, 100, 100, 0));
        assert_eq!(o.put(0xabc_defa_b123, 0x45), 0xabc_defa_b045);
        assert_eq!((o.keep_larger(50, 20), o.keep_larger(20, 50), o.keep_larger(200, 7)), (50, 50, 100));
        let none = Offsets::default();
        assert_eq!((none.of(u64::MAX), none.put(7, 9), none.keep_larger(9, 7)), (0, 7, 7));
        let all = Offsets { mask: u64::MAX, max: 2000, gap: 0 };
        assert_eq!((all.of(u64::MAX), all.put(77, 9)), (2000, 9));
    }
}
