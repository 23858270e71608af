//! Frames carried from a ring that receives to one that sends, by whoever has both: an interface on a switch is two ports of one
//! region, its own and one on the switch, that the broker has bound, and a pump in each direction for each pair of their rings.
//!
//! ```text
//!   netmap:eth0  RX i  -- pump -->  TX i  vale0:eth0      in place: the two slots exchange their buffers;
//!                TX i  <-- pump --  RX i                  the switch itself makes the one copy
//! ```
//!
//! What finds no room stays where it is: behind a full interface the switch port fills up, and the switch drops, and counts.
//!
//! Source: semantics.md 18 to 20; `sys/dev/netmap/netmap_bdg.c`, `netmap_bwrap_intr_notify()`.

use crate::adapter::RingDriver;
use crate::control::{has_news, tell_counters};
use crate::kring::{BROKER, RingHandle, distance, next};
use crate::layout::RingShared;
use ringway_abi::ring::NS_MOREFRAG;
use ringway_os::event::Doorbell;
use ringway_os::ring::SlotWord;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Slots that one run carries at most: others of the same thread have their turn.
const BATCH_SLOTS: u32 = 256;

/// A ring that nobody but the broker uses.
pub(crate) struct OwnRing {
    /// The ring with the broker's private state. The accepted head there is how far we have come.
    pub handle: RingHandle,
    /// Where listings look.
    pub public: RingShared,
    pub driver: Box<dyn RingDriver>,
}

impl OwnRing {
    /// One sync, with `head` as ours.
    fn sync(&mut self, head: u32) {
        let mut kring = self.handle.load(BROKER);
        (kring.rhead, kring.rcur) = (head, head);
        // Frames that a driver did not take stay; the next sync tries again.
        let _ = self.driver.sync(&mut kring);
        kring.rtail = kring.hwtail;
        self.handle.save(&kring);
    }

    /// Takes in what is there, if anything is, and gives back what we are done with.
    fn look(&mut self) {
        let kring = self.handle.load(BROKER);
        let head = kring.rhead;
        if head != kring.hwcur || has_news(&self.handle, &*self.driver) {
            self.sync(head);
        }
    }

    /// The slots that are ours, from the head on.
    fn window(&self) -> (u32, u32) {
        let kring = self.handle.load(BROKER);
        (kring.rhead, kring.rtail)
    }

    /// We have come as far as `head`.
    fn set_head(&self, head: u32) {
        self.handle.shared.state.sync.rhead.store(head, Relaxed);
    }
}

/// Carries frames one way.
pub struct Pump {
    pub(crate) from: OwnRing,
    pub(crate) to: OwnRing,
    /// The processor whose polling thread runs it; None: whoever runs jobs.
    pub(crate) cpu: Option<u32>,
    /// Readable when the interface has frames.
    pub(crate) socket: Option<Arc<OwnedFd>>,
    /// Rung by senders of other threads, if we sleep.
    pub(crate) bell: Arc<Doorbell>,
    /// Somebody watches what is received, and takes it from the slots when these are released: frames are copied.
    pub(crate) copies: bool,
}

impl fmt::Debug for Pump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pump(cpu {:?})", self.cpu)
    }
}

impl Pump {
    /// The processor whose polling thread is to run it.
    #[must_use]
    pub fn cpu(&self) -> Option<u32> {
        self.cpu
    }

    /// What becomes readable when the interface that it carries from has frames.
    #[must_use]
    pub fn device(&self) -> Option<&Arc<OwnedFd>> {
        self.socket.as_ref()
    }

    /// Rung when the switch port that it carries from has got frames, after [`Pump::announce_sleep`].
    #[must_use]
    pub fn bell(&self) -> &Arc<Doorbell> {
        &self.bell
    }

    /// Before its thread sleeps. True if there is something to carry after all.
    #[must_use]
    pub fn announce_sleep(&self) -> bool {
        let handle = &self.from.handle;
        handle.shared.state.sleep.owner.announce(1);
        has_news(handle, &*self.from.driver)
    }

    /// True if frames wait for the far side to take them: nobody will say when it does.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        let ((at, end), to) = (self.from.window(), self.to.handle.load(BROKER));
        let free = distance(self.to.handle.num_slots(), to.rhead, to.rtail);
        at != end || free + 1 < self.to.handle.num_slots()
    }

    /// Carries what there is, up to a batch. True if it was anything.
    pub fn run(&mut self) -> bool {
        self.from.look();
        let (first, end) = self.from.window();
        let (to_first, mut to_end) = self.to.window();
        let (n, to_n) = (self.from.handle.num_slots(), self.to.handle.num_slots());
        if distance(to_n, to_first, to_end) + 1 < to_n {
            // Takes back what has been sent, and has the rest sent.
            self.to.sync(to_first);
            to_end = self.to.window().1;
        }
        let count = distance(n, first, end).min(distance(to_n, to_first, to_end)).min(BATCH_SLOTS);
        if count == 0 {
            return false;
        }
        let (mut at, mut to) = (first, to_first);
        for _ in 0..count {
            self.carry(at, to);
            (at, to) = (next(n, at), next(to_n, to));
        }
        self.from.set_head(at);
        self.to.sync(to);
        tell_counters(&self.from.handle.shared, &self.from.public);
        tell_counters(&self.to.handle.shared, &self.to.public);
        true
    }

    /// One slot. Where one of them names no buffer (others of the region may write there), an empty one, which the sending side
    /// drops and counts.
    fn carry(&self, at: u32, to: u32) {
        let (from, into) = (&self.from.handle, &self.to.handle);
        let (Some(theirs), Some(ours)) = (from.ring.slots.get(at as usize), into.ring.slots.get(to as usize))
        else {
            return;
        };
        let (full, free) = (theirs.load(), ours.load());
        let flags = full.flags() & NS_MOREFRAG;
        let len = full.len().min(u16::try_from(from.ring.bufs.buf_size()).unwrap_or(u16::MAX));
        let bufs = &from.ring.bufs;
        let valid = from.valid_buf(full) != 0 && into.valid_buf(free) != 0;
        if valid && !self.copies {
            ours.store(SlotWord::new(full.buf_idx(), len, flags));
            theirs.store(SlotWord::new(free.buf_idx(), 0, 0));
            return;
        }
        let copied = valid && bufs.copy_frame(full.buf_idx(), bufs, free.buf_idx(), usize::from(len));
        ours.store(SlotWord::new(free.buf_idx(), if copied { len } else { 0 }, flags));
    }
}
