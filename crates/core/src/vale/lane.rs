//! The innermost loop of the switch, and what it learns on the way.
//!
//! A [`Lane`] carries plain packets of one slot from one ring to one other. It knows neither locks nor cursors: whoever opened the
//! receiver's ring (`forward`) tells it how many slots there are, and is told where it stopped, at the first packet that needs a closer
//! look. A [`Learner`] puts the source addresses of a sync's packets into the MAC table, for `lists` as well.

use super::Seat;
use super::mac_table::{self, MAC_GROUP, MAC_MASK, Place, is_alive, tag_of};
use ringway_abi::ring::{FIRST_BUF_IDX, NS_INDIRECT, NS_MOREFRAG, NS_NO_LEARN};
use ringway_os::bytes::{BufsView, prefetch_write};
use ringway_os::ring::Slot;
use ringway_os::state::SwitchPage;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

/// Slots ahead whose descriptor and buffer at the receiver are asked for in the cache, for writing.
const FAR_AHEAD: usize = 32;
/// Slots ahead whose own frame is asked for in the cache, for reading.
const SRC_AHEAD: usize = 12;
/// An Ethernet header.
pub(super) const ETH_HEADER_BYTES: u16 = 14;
/// No address: they have 48 bits.
pub(super) const NO_DST: u64 = u64::MAX;
/// Flags of a packet of one slot, in a descriptor.
pub(super) const ONE_SLOT: u32 = 0x0100 << 16;

/// Plain packets from one ring to one other, with all that it looks at in registers.
pub(super) struct Lane<'s> {
    pub src: BufsView<'s>,
    pub far: BufsView<'s>,
    /// Most bytes of a frame beyond an Ethernet header.
    pub max_extra: u32,
    /// The receiver runs on another processor: its buffers are worth asking for in advance.
    pub apart: bool,
    /// An address that goes this way.
    pub last_dst: u64,
    /// What the MAC table says of others that do.
    pub place: u64,
    pub learner: Learner<'s>,
}

impl Lane<'_> {
    /// Forwards packets from the start of `slots` to the start of `desc` and `mirror`, `count` at most, up to the first that needs a closer
    /// look. Beyond `count` the arrays are only looked at ahead. Returns how many packets, and their bytes.
    pub fn forward(
        &mut self,
        slots: &[Slot],
        desc: &[AtomicU32],
        mirror: &[AtomicU32],
        count: u32,
    ) -> (u32, u32) {
        let count = (count as usize).min(slots.len()).min(desc.len()).min(mirror.len());
        let beyond = slots.len().min(desc.len()).min(mirror.len()).saturating_sub(FAR_AHEAD);
        let near = beyond.min(count);
        let (mut done, mut bytes) = (0, 0);
        if near > 0 {
            (done, bytes) = if self.apart {
                self.pass::<FAR_AHEAD, true>(slots, desc, mirror, near)
            } else {
                self.pass::<FAR_AHEAD, false>(slots, desc, mirror, near)
            };
        }
        if done == near && near < count {
            let (d, b) = self.pass::<0, false>(&slots[done..], &desc[done..], &mirror[done..], count - done);
            done += d;
            bytes += b;
        }
        (done as u32, bytes)
    }

    /// As `forward`. Memory is asked for in advance: the far descriptors and buffers of the slot `AHEAD` slots on, which the
    /// arrays must have. No index in here is checked: all slices are cut to one length.
    #[inline(never)]
    fn pass<const AHEAD: usize, const APART: bool>(
        &mut self,
        slots: &[Slot],
        desc: &[AtomicU32],
        mirror: &[AtomicU32],
        count: usize,
    ) -> (usize, u32) {
        let (src, far, max_extra, place) = (self.src, self.far, self.max_extra, self.place);
        // No frame looks like this: `last_w1` holds 32 bits.
        let (mut last_w0, mut last_w1) = (0, u64::MAX);
        let next = AHEAD.min(SRC_AHEAD);
        let (later, slots) = (&slots[next..next + count], &slots[..count]);
        let (far_mirror, mirror) = (&mirror[AHEAD..AHEAD + count], &mirror[..count]);
        let (far_desc, desc) = (&desc[AHEAD..AHEAD + count], &desc[..count]);
        let mut bytes = 0;
        for i in 0..count {
            if AHEAD > 0 {
                src.prefetch_read(later[i].load().buf_idx());
                if APART {
                    far.prefetch_write(far_mirror[i].load(Relaxed));
                }
                prefetch_write(&raw const far_desc[i]);
            }
            let word = slots[i].load();
            let len = u32::from(word.len());
            if word.flags() & (NS_MOREFRAG | NS_INDIRECT) != 0
                || len.wrapping_sub(ETH_HEADER_BYTES.into()) > max_extra
                || word.buf_idx() < FIRST_BUF_IDX
            {
                return (i, bytes);
            }
            let Some((w0, w1)) = src.first_words(word.buf_idx()) else { return (i, bytes) };
            let w1 = u64::from(w1 as u32);
            if w0 != last_w0 || w1 != last_w1 {
                let dst = w0 & MAC_MASK;
                if !mac_table::is_at(self.learner.page, dst, place) && dst != self.last_dst {
                    return (i, bytes);
                }
                (self.last_dst, last_w0, last_w1) = (dst, w0, w1);
                match self.learner.see(w0, w1, word.flags()) {
                    Seen::Before => {}
                    // The same frame may come again in a packet to be learned from.
                    Seen::Not => last_w1 = u64::MAX,
                    Seen::New => {
                        self.last_dst = NO_DST;
                        return (i, bytes);
                    }
                }
            }
            if !src.copy_frame(word.buf_idx(), far, mirror[i].load(Relaxed), len as usize) {
                return (i, bytes);
            }
            desc[i].store(len | ONE_SLOT, Relaxed);
            bytes += len;
        }
        (count, bytes)
    }
}

/// What the MAC table makes of a source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It has it already.
    Before,
    /// It has it now: a destination looked up before may be this very port's now.
    New,
    /// It does not, and is not to learn it.
    Not,
}

/// Learns the source addresses of a sync's packets.
pub(super) struct Learner<'s> {
    page: &'s SwitchPage,
    place: Place,
    last: u64,
}

impl<'s> Learner<'s> {
    pub fn new(seat: &'s Seat) -> Self {
        let place = Place { port: seat.index, tag: tag_of(seat.generation) };
        Learner { page: &seat.page, place, last: u64::MAX }
    }

    /// Takes the first 16 bytes of a frame. The table is compared for the first packet of each sync and whenever the source changes.
    #[inline(always)]
    pub fn see(&mut self, w0: u64, w1: u64, flags: u16) -> Seen {
        let src = w0 >> 48 | (w1 & 0xffff_ffff) << 16;
        if src != self.last {
            if !mac_table::is_at(self.page, src, self.place.bits()) {
                return self.see_new(src, flags);
            }
            self.last = src;
        }
        Seen::Before
    }

    #[cold]
    fn see_new(&mut self, src: u64, flags: u16) -> Seen {
        if src & MAC_GROUP == 0 && flags & NS_NO_LEARN == 0 {
            self.last = src;
            self.learn(src);
            return Seen::New;
        }
        Seen::Not
    }

    #[cold]
    fn learn(&self, src: u64) {
        mac_table::learn(self.page, src, self.place, |p| is_alive(self.page, p));
    }
}
