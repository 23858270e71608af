//! Who owns each buffer.

use crate::kring::{RingHandle, distance, forward, next};
use crate::layout::Dir;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

/// Who owns each buffer of a region.
#[derive(Debug, Default)]
pub struct Owners(BTreeMap<u32, (&'static str, usize)>);

impl Owners {
    fn add(&mut self, buf: u32, who: &'static str, slot: usize) {
        if let Some((other, k)) = self.0.insert(buf, (who, slot)) {
            panic!("buffer {buf} belongs to {who} (slot {slot}) and to {other} (slot {k})");
        }
    }

    /// A ring of its own: a NIC's, a switch port's. Free slots of a receive ring are as the senders see them.
    pub fn ring(&mut self, ring: &RingHandle) {
        let n = ring.num_slots();
        let state = &ring.shared.state;
        let (from, to) = (state.owner.hwcur.load(), state.sync.rtail.load(Relaxed));
        for k in 0..n {
            let of_client = ring.dir == Dir::Tx || distance(n, from, k) < distance(n, from, to);
            let buf = if of_client {
                ring.ring.slots[k as usize].load().buf_idx()
            } else {
                ring.shared.mirror[k as usize].load(Relaxed)
            };
            let who = match (ring.dir, of_client) {
                (Dir::Tx, _) => "a TX ring",
                (Dir::Rx, true) => "the client of an RX ring",
                (Dir::Rx, false) => "the senders to an RX ring",
            };
            self.add(buf, who, k as usize);
        }
    }

    /// A TX ring of a pipe end and the RX ring of the other end: only the slot of who owns it counts.
    ///
    /// ```text
    ///     rtail+1     rx.hwcur      rx.rtail      tx.hwcur     rtail+1
    ///        | on the way back | receiver | on the way | sender   |
    /// ```
    pub fn pipe(&mut self, tx: &RingHandle, rx: &RingHandle) {
        let n = tx.num_slots();
        let base = next(n, tx.shared.state.sync.rtail.load(Relaxed));
        let at = |cursor: u32| distance(n, base, cursor);
        let back = at(rx.shared.state.owner.hwcur.load());
        let receiver = at(rx.shared.state.sync.rtail.load(Relaxed));
        let forth = at(tx.shared.state.owner.hwcur.load());
        assert!(back <= receiver && receiver <= forth, "cursors of a pipe: {back} {receiver} {forth}");
        for i in 0..n {
            let k = forward(n, base, i) as usize;
            let known = |r: &RingHandle| r.shared.known[2 * k].load(Relaxed) as u32;
            let (buf, side) = if i < back {
                (known(rx), "a pipe, on the way back")
            } else if i < receiver {
                (rx.ring.slots[k].load().buf_idx(), "a pipe's receiver")
            } else if i < forth {
                (known(tx), "a pipe, on the way")
            } else {
                (tx.ring.slots[k].load().buf_idx(), "a pipe's sender")
            };
            self.add(buf, side, k);
        }
    }

    /// Buffers in no slot.
    pub fn extra(&mut self, bufs: &[u32]) {
        bufs.iter().enumerate().for_each(|(i, b)| self.add(*b, "extra buffers", i));
    }

    /// Checks that these, and no others, have owners.
    pub fn check(&self, given: impl IntoIterator<Item = u32>) {
        let given: Vec<u32> = given.into_iter().collect();
        let owned: Vec<u32> = self.0.keys().copied().collect();
        assert_eq!(owned, given, "every buffer has one owner");
    }
}
