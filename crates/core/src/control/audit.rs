//! Who owns each buffer of a region: the invariant that every buffer has exactly one owner, counted.
//!
//! An owner is the pool, a place in a ring, or a list of extra buffers. In a ring each slot owns the buffer of the side that has the
//! slot now: the same slot of a pipe's two ends counts once, a slot that the kernel has counts by what is in the kernel's rings.
//! The count is exact while nobody syncs or exchanges buffers; a process that is stopped, or dead, at whatever instruction of a sync is no
//! harm.
//!
//! Source: semantics.md 11, 12, 21; docs/DESIGN.md 5.

use super::jobs::RingKey;
use super::{Asker, Jobs, Kind, PortId, RegionEntry, RegionId, Registry};
use crate::kring::{RingHandle, distance, forward, next};
use crate::layout::Dir;
use crate::pool::BufSet;
use ringway_abi::FIRST_BUF_IDX;
use ringway_os::ring::SlotWord;
use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;

/// Where the buffers of a region are. `free + in_rings + in_lists + held + lost = bufs + twice`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegionAudit {
    /// Id of the region.
    pub mem_id: u16,
    /// Its user.
    pub owner: u32,
    /// Its buffers, without the two that are never given out.
    pub bufs: u32,
    /// Of these: in the pool.
    pub free: u32,
    /// Places in rings that own one.
    pub in_rings: u32,
    /// On lists of extra buffers.
    pub in_lists: u32,
    /// In no place to be seen, but granted as extra buffers to programs that live.
    pub held: u32,
    /// Owners too many: a buffer with three owners counts 2.
    pub twice: u32,
    /// Without an owner: a program was killed that had it in its hands; or, on an interface, on its way through the kernel.
    /// They come back with the region.
    pub lost: u32,
    /// Places in rings that name no buffer, or a free one.
    pub bad: u32,
}

impl RegionAudit {
    /// True if every buffer has exactly one owner, as far as can be seen.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        (self.twice, self.lost, self.bad) == (0, 0, 0)
    }
}

/// More owners than there can be: what they name is no buffer, or a free one.
const NO_BUF: u32 = u32::MAX;

/// Which place it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Ring,
    List,
}

impl Registry {
    /// Where the buffers of all regions are that the asker may see. `jobs`: the rings that a worker serves, whose
    /// positions only it knows.
    #[must_use]
    pub fn audit(&self, who: Asker, jobs: Option<&Jobs>) -> Vec<RegionAudit> {
        let seen = self.regions.iter().filter(|(_, r)| who.may(r.owner));
        seen.map(|(id, entry)| self.audit_region(*id, entry, jobs)).collect()
    }

    fn audit_region(&self, id: RegionId, entry: &RegionEntry, jobs: Option<&Jobs>) -> RegionAudit {
        let region = &entry.region;
        let total = region.layout.bufs.objtotal;
        let mut owned = BufSet::new(total);
        let mut a = RegionAudit {
            mem_id: entry.mem_id,
            owner: entry.owner,
            bufs: total.saturating_sub(FIRST_BUF_IDX),
            free: region.free_bufs(),
            ..RegionAudit::default()
        };
        self.each_owned(id, jobs, &mut |idx, at| {
            if idx < FIRST_BUF_IDX || !region.is_buf_taken(idx) {
                a.bad += 1;
                return;
            }
            *(if at == At::Ring { &mut a.in_rings } else { &mut a.in_lists }) += 1;
            a.twice += u32::from(!owned.insert(idx));
        });
        let missing = a.bufs - a.free - (a.in_rings + a.in_lists - a.twice);
        let granted: u32 = self.bindings_of(id).map(|b| b.extra_bufs).sum();
        a.held = missing.min(granted.saturating_sub(a.in_lists));
        a.lost = missing - a.held;
        a
    }

    fn bindings_of(&self, region: RegionId) -> impl Iterator<Item = &super::Binding> {
        self.bindings.values().filter(move |b| self.ports.get(&b.port).is_some_and(|p| p.region == region))
    }

    /// The buffers of a region that some place of a living port owns. Where it is not known which of two sides does, both do.
    pub(super) fn owned_bufs(&self, id: RegionId) -> BufSet {
        let total = self.regions.get(&id).map_or(0, |r| r.region.layout.bufs.objtotal);
        let mut owned = BufSet::new(total);
        self.each_owned(id, None, &mut |idx, _| {
            owned.insert(idx);
        });
        owned
    }

    fn each_owned(&self, region: RegionId, jobs: Option<&Jobs>, f: &mut dyn FnMut(u32, At)) {
        let Some(entry) = self.regions.get(&region) else { return };
        for (id, port) in self.ports.iter().filter(|(_, p)| p.region == region) {
            match &port.kind {
                Kind::Null => {}
                Kind::Vale { .. } | Kind::Monitor(_) => {
                    let in_place = matches!(port.kind, Kind::Monitor(_));
                    for (dir, rings) in [(Dir::Tx, &port.tx), (Dir::Rx, &port.rx)] {
                        let handles =
                            (0..rings.len()).filter_map(|i| self.live_ring(jobs, *id, dir, i as u16));
                        handles.for_each(|h| ring_buffers(&h, in_place).for_each(|idx| f(idx, At::Ring)));
                    }
                }
                Kind::Pipe { peer, .. } => {
                    let brokered = self.is_brokered(*id);
                    for i in 0..port.geometry.tx_rings {
                        let bufs = self.pipe_pair(*id, *peer, i, brokered, jobs);
                        bufs.into_iter().for_each(|idx| f(idx, At::Ring));
                    }
                }
                Kind::Nic(nic) => {
                    let open = (0..port.geometry.tx_rings.max(port.geometry.rx_rings))
                        .filter(|i| nic.queue(*i).is_some());
                    for i in open {
                        self.collect_queue(*id, i, jobs).into_iter().for_each(|idx| f(idx, At::Ring));
                    }
                }
            }
        }
        for binding in self.bindings_of(region) {
            let list = entry.region.list_extra(binding.if_ofs);
            list.into_iter().for_each(|idx| f(idx, At::List));
        }
    }

    /// A ring with the state that is in force. Without the jobs, as it was when these were settled.
    pub(super) fn live_ring(&self, jobs: Option<&Jobs>, id: PortId, dir: Dir, i: u16) -> Option<RingHandle> {
        let epoch = self.ring_use(id, dir, i)?.epoch;
        let key = RingKey { port: id, is_tx: dir == Dir::Tx, index: i, epoch };
        jobs.and_then(|j| j.held(&key).cloned()).or_else(|| self.handle(id, dir, i))
    }

    /// Buffers of TX ring `i` of one end of a pipe and the ring that it meets.
    fn pipe_pair(&self, id: PortId, peer: PortId, i: u16, brokered: bool, jobs: Option<&Jobs>) -> Vec<u32> {
        let Some((tx, rx)) = self.handle(id, Dir::Tx, i).zip(self.handle(peer, Dir::Rx, i)) else {
            return vec![];
        };
        let indexes = |tx, rx| pipe_buffers(tx, rx).into_iter().map(|(_, idx)| idx).collect();
        // Without the jobs, as they were when these were settled, before the change under way.
        if !brokered || jobs.is_none() {
            return indexes(&tx, &rx);
        }
        let held = |port, dir, public: &RingHandle| {
            let jobs = jobs?;
            let late = jobs.is_late(port, dir, i).then(|| public.clone());
            late.or_else(|| jobs.held_ring(port, dir, i).cloned())
        };
        match held(id, Dir::Tx, &tx).zip(held(peer, Dir::Rx, &rx)) {
            Some((tx, rx)) => indexes(&tx, &rx),
            // The positions are not known here.
            None => [&tx, &rx].iter().flat_map(|r| r.ring.slots.iter()).map(|s| s.load().buf_idx()).collect(),
        }
    }

    /// Nobody has this end of a pipe bound any more, but the pipe lives. A program that died while it exchanged buffers between pipes may
    /// have left one in two of its slots: one of them gets a fresh buffer.
    pub(super) fn mend_pipe_end(&mut self, id: PortId) {
        let Some(port) = self.ports.get(&id) else { return };
        let Kind::Pipe { peer, .. } = port.kind else { return };
        // Whoever serves the ends of several users checks every index himself.
        if port.bindings > 0 || self.is_brokered(id) {
            return;
        }
        let region = port.region;
        let Some(entry) = self.regions.get(&region) else { return };
        let mut owners: HashMap<u32, u32> = HashMap::new();
        let mut seen = BufSet::new(entry.region.layout.bufs.objtotal);
        self.each_owned(region, None, &mut |idx, _| {
            let is_buf = idx >= FIRST_BUF_IDX && entry.region.is_buf_taken(idx);
            if !is_buf {
                owners.insert(idx, NO_BUF);
            } else if !seen.insert(idx) {
                *owners.entry(idx).or_insert(1) += 1;
            }
        });
        if owners.is_empty() {
            return;
        }
        for (dir, n) in [(Dir::Tx, port.geometry.tx_rings), (Dir::Rx, port.geometry.rx_rings)] {
            for i in 0..n {
                self.mend_pipe_ring(region, (id, peer), dir, i, &mut owners);
            }
        }
    }

    fn mend_pipe_ring(
        &mut self,
        region: RegionId,
        (id, peer): (PortId, PortId),
        dir: Dir,
        i: u16,
        owners: &mut HashMap<u32, u32>,
    ) {
        let (tx_end, rx_end) = if dir == Dir::Tx { (id, peer) } else { (peer, id) };
        let Some((tx, rx)) = self.handle(tx_end, Dir::Tx, i).zip(self.handle(rx_end, Dir::Rx, i)) else {
            return;
        };
        let Some(entry) = self.regions.get_mut(&region) else { return };
        let mine = if dir == Dir::Tx { Side::Sender } else { Side::Receiver };
        let ring = if dir == Dir::Tx { &tx } else { &rx };
        for (k, (side, idx)) in pipe_buffers(&tx, &rx).into_iter().enumerate() {
            let Some(count) = owners.get_mut(&idx).filter(|n| side == mine && **n > 1) else { continue };
            if *count != NO_BUF {
                *count -= 1;
            }
            let (slot, fresh) = (&ring.ring.slots[k], entry.region.take_buf().unwrap_or(0));
            slot.store(SlotWord::new(fresh, slot.load().len(), slot.load().flags()));
        }
    }
}

/// The buffers of a ring whose slots keep them: a switch port's, or a monitor's. The free slots of a switch port's receive ring are
/// as the senders see them; those of a monitor (`in_place`) are filled in place.
pub(super) fn ring_buffers(ring: &RingHandle, in_place: bool) -> impl Iterator<Item = u32> + '_ {
    let n = ring.num_slots();
    let state = &ring.shared.state;
    let check = |v: u32| if v < n { v } else { 0 };
    let (from, to) = (check(state.owner.hwcur.load()), check(state.sync.rtail.load(Relaxed)));
    (0..n).map(move |k| {
        let of_client = in_place || ring.dir == Dir::Tx || distance(n, from, k) < distance(n, from, to);
        if of_client {
            ring.ring.slots[k as usize].load().buf_idx()
        } else {
            ring.shared.mirror[k as usize].load(Relaxed)
        }
    })
}

/// Who has a slot of a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Sender,
    Receiver,
    /// Published by one, and not taken over by the other yet.
    Between,
}

/// The owner and the buffer of each slot of a pair of pipe rings.
///
/// ```text
///     rtail+1     rx.hwcur      rx.rtail      tx.hwcur     rtail+1
///        | on the way back | receiver | on the way | sender   |
/// ```
pub(super) fn pipe_buffers(tx: &RingHandle, rx: &RingHandle) -> Vec<(Side, u32)> {
    let n = tx.num_slots();
    let check = |v: u32| if v < n { v } else { 0 };
    let base = next(n, check(tx.shared.state.sync.rtail.load(Relaxed)));
    let at = |cursor: u32| distance(n, base, check(cursor));
    let back = at(rx.shared.state.owner.hwcur.load());
    let receiver = at(rx.shared.state.sync.rtail.load(Relaxed));
    let forth = at(tx.shared.state.owner.hwcur.load());
    let mut out = vec![(Side::Sender, 0); n as usize];
    for i in 0..n {
        let k = forward(n, base, i) as usize;
        let known = |r: &RingHandle| r.shared.known[2 * k].load(Relaxed) as u32;
        let slot = |r: &RingHandle| r.ring.slots[k].load().buf_idx();
        out[k] = if i < back {
            (Side::Between, known(rx))
        } else if i < receiver {
            (Side::Receiver, slot(rx))
        } else if i < forth {
            (Side::Between, known(tx))
        } else {
            (Side::Sender, slot(tx))
        };
    }
    out
}

#[cfg(test)]
mod tests;
