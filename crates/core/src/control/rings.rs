//! Rings of ports: made for their first user, shared by more, taken away with the last.

use super::audit::{pipe_buffers, ring_buffers};
use super::bind::gone;
use super::{ControlError, Kind, PortEntry, PortId, RegionId, Registry, RingUse};
use crate::kring::RingHandle;
use crate::layout::{Dir, RingShared};
use crate::offsets::Offsets;
use crate::pool::Exhausted;
use crate::sync_loop::LoopWord;
use ringway_abi::Errno;
use std::ops::Range;
use std::sync::atomic::Ordering::Release;

/// A ring that a request took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub dir: Dir,
    pub index: u16,
    /// Nobody else has it.
    pub is_first: bool,
    /// It was made for this request.
    pub is_new: bool,
}

impl PortEntry {
    /// Its rings of one direction.
    pub(super) fn rings(&self, dir: Dir) -> &[RingUse] {
        if dir == Dir::Tx { &self.tx } else { &self.rx }
    }

    fn rings_mut(&mut self, dir: Dir) -> &mut [RingUse] {
        if dir == Dir::Tx { &mut self.tx } else { &mut self.rx }
    }
}

impl Registry {
    pub(super) fn ring_use(&self, id: PortId, dir: Dir, i: u16) -> Option<&RingUse> {
        let port = self.ports.get(&id)?;
        port.rings(dir).get(usize::from(i))
    }

    pub(super) fn ring_use_mut(&mut self, id: PortId, dir: Dir, i: u16) -> Option<&mut RingUse> {
        let port = self.ports.get_mut(&id)?;
        port.rings_mut(dir).get_mut(usize::from(i))
    }

    /// One more user of a ring; the first makes it.
    pub(super) fn take_ring(
        &mut self,
        id: PortId,
        dir: Dir,
        i: u16,
        exclusive: bool,
    ) -> Result<Taken, ControlError> {
        let port = self.port(id)?;
        let ring = port.rings(dir)[usize::from(i)].clone();
        let taken = Taken { dir, index: i, is_first: ring.users == 0, is_new: ring.offset.is_none() };
        if ring.offset.is_none() {
            match port.kind {
                Kind::Pipe { peer, .. } => self.make_pipe_pair(id, peer, dir, i)?,
                _ => self.make_ring(id, dir, i)?,
            }
        }
        let port = self.ports.get_mut(&id).ok_or_else(gone)?;
        let ring = &mut port.rings_mut(dir)[usize::from(i)];
        ring.users += 1;
        ring.exclusive = exclusive;
        let Some(shared) = RingShared::new(&port.state.map, &port.geometry, dir, i) else { return Ok(taken) };
        if dir == Dir::Rx {
            shared.state.senders.bound.store(1, Release);
        }
        if taken.is_first {
            LoopWord::of(&shared.state).clear();
        }
        Ok(taken)
    }

    fn make_ring(&mut self, id: PortId, dir: Dir, i: u16) -> Result<(), ControlError> {
        let port = self.ports.get_mut(&id).ok_or_else(gone)?;
        let region_id = port.region;
        let n = port.geometry.slots(dir);
        let region = &mut self.regions.get_mut(&region_id).ok_or_else(gone)?.region;
        let ofs = match region.make_ring(dir, i, n, true) {
            Ok(ofs) => ofs,
            Err(e) => return Err(self.exhausted(e, region_id)),
        };
        let ring = &mut port.rings_mut(dir)[usize::from(i)];
        ring.offset = Some(ofs);
        ring.epoch += 1;
        ring.offsets = Offsets::default();
        let is_nic = matches!(port.kind, Kind::Nic(_));
        if let Some(handle) = self.handle(id, dir, i) {
            handle.reset();
            if is_nic {
                crate::adapter::xdp::note_fresh(&handle, 0);
            }
        }
        Ok(())
    }

    /// The ring of an end and the one that it meets: own first, the other with copies of its slots.
    fn make_pipe_pair(&mut self, id: PortId, peer: PortId, dir: Dir, i: u16) -> Result<(), ControlError> {
        self.make_ring(id, dir, i)?;
        let far = if dir == Dir::Tx { Dir::Rx } else { Dir::Tx };
        let own = self.handle(id, dir, i).ok_or_else(gone)?;
        let entry = self.ports.get_mut(&peer).ok_or_else(gone)?;
        let region_id = entry.region;
        let region = &mut self.regions.get_mut(&region_id).ok_or_else(gone)?.region;
        match region.make_ring(far, i, own.num_slots(), false) {
            Ok(ofs) => {
                let ring = &mut entry.rings_mut(far)[usize::from(i)];
                ring.offset = Some(ofs);
                ring.offsets = Offsets::default();
            }
            Err(e) => {
                let bufs = self.free_ring(id, dir, i);
                self.give_bufs(region_id, &bufs);
                return Err(self.exhausted(e, region_id));
            }
        }
        let other = self.handle(peer, far, i).ok_or_else(gone)?;
        for (a, b) in own.ring.slots.iter().zip(other.ring.slots.iter()) {
            b.store(a.load());
            b.set_ptr(a.ptr());
        }
        other.reset();
        Ok(())
    }

    /// The ring with its state, if it exists.
    pub(super) fn handle(&self, id: PortId, dir: Dir, i: u16) -> Option<RingHandle> {
        let port = self.ports.get(&id)?;
        let ofs = port.rings(dir).get(usize::from(i))?.offset?;
        let shared = RingShared::new(&port.state.map, &port.geometry, dir, i)?;
        let ring = self.regions.get(&port.region)?.region.ring(ofs, shared.num_slots)?;
        Some(RingHandle { ring, shared, dir })
    }

    /// One user less of each of these rings; buffers of those that go return to the region.
    pub(super) fn give_rings(&mut self, id: PortId, rings: [(Dir, Range<u16>); 2]) {
        let Some(region) = self.ports.get(&id).map(|p| p.region) else { return };
        let bufs = self.take_rings_away(id, rings);
        self.give_bufs(region, &bufs);
    }

    pub(super) fn take_rings_away(&mut self, id: PortId, rings: [(Dir, Range<u16>); 2]) -> Vec<u32> {
        let mut bufs = vec![];
        for (dir, range) in rings {
            range.for_each(|i| bufs.extend(self.give_ring(id, dir, i)));
        }
        bufs
    }

    /// One user less of a ring; the last takes it away, except on a pipe, which lives as a whole. Returns the buffers
    /// that it had.
    pub(super) fn give_ring(&mut self, id: PortId, dir: Dir, i: u16) -> Vec<u32> {
        let Some(port) = self.ports.get_mut(&id) else { return vec![] };
        let is_pipe = matches!(port.kind, Kind::Pipe { .. });
        let is_nic = matches!(port.kind, Kind::Nic(_));
        let Some(ring) = port.rings_mut(dir).get_mut(usize::from(i)) else { return vec![] };
        ring.users = ring.users.saturating_sub(1);
        ring.exclusive = false;
        if ring.users > 0 || is_pipe {
            return vec![];
        }
        if dir == Dir::Rx
            && let Some(shared) = RingShared::new(&port.state.map, &port.geometry, dir, i)
        {
            // Senders look under their lock; one that is copying right now writes into a ring that is no more bound, in
            // memory that still exists.
            shared.state.senders.bound.store(0, Release);
        }
        if is_nic { self.close_nic_ring(id, dir, i) } else { self.free_ring(id, dir, i) }
    }

    /// Takes a ring away. Returns the buffers that it had.
    fn free_ring(&mut self, id: PortId, dir: Dir, i: u16) -> Vec<u32> {
        let Some(handle) = self.handle(id, dir, i) else { return vec![] };
        let Some(port) = self.ports.get_mut(&id) else { return vec![] };
        let Some(ofs) = port.rings_mut(dir)[usize::from(i)].offset.take() else { return vec![] };
        let in_place = matches!(port.kind, Kind::Monitor(_));
        if let Some(entry) = self.regions.get_mut(&port.region) {
            entry.region.drop_ring(ofs);
        }
        ring_buffers(&handle, in_place).collect()
    }

    /// Returns buffers of something that is gone to their region. Its program may have died in the middle of an exchange, or was
    /// wrong: what somebody else of the region has, stays his, and what is there twice goes back once. What is nowhere
    /// returns with the region.
    pub(super) fn give_bufs(&mut self, id: RegionId, bufs: &[u32]) {
        if bufs.is_empty() {
            return;
        }
        let others = self.owned_bufs(id);
        let Some(entry) = self.regions.get_mut(&id) else { return };
        for idx in bufs.iter().filter(|idx| !others.contains(**idx)) {
            entry.region.give_buf(*idx);
        }
    }

    /// Takes all rings of a pipe away: of each pair of slots the one that is valid gives its buffer back.
    pub(super) fn free_pipe_rings(&mut self, a: PortId, b: PortId) {
        let Some(region) = self.ports.get(&a).map(|p| p.region) else { return };
        let mut bufs = vec![];
        for (tx_end, rx_end) in [(a, b), (b, a)] {
            let Some(n) = self.ports.get(&tx_end).map(|p| p.geometry.tx_rings) else { continue };
            for i in 0..n {
                let pair = self.handle(tx_end, Dir::Tx, i).zip(self.handle(rx_end, Dir::Rx, i));
                let Some((tx, rx)) = pair else { continue };
                let valid = pipe_buffers(&tx, &rx).into_iter().map(|(_, idx)| idx);
                bufs.extend(valid);
                for (id, dir) in [(tx_end, Dir::Tx), (rx_end, Dir::Rx)] {
                    let Some(port) = self.ports.get_mut(&id) else { continue };
                    if let Some(ofs) = port.rings_mut(dir)[usize::from(i)].offset.take()
                        && let Some(entry) = self.regions.get_mut(&port.region)
                    {
                        entry.region.drop_ring(ofs);
                    }
                }
            }
        }
        self.give_bufs(region, &bufs);
    }

    /// Why an object of a region cannot be had, and what to do.
    pub(super) fn exhausted(&self, e: Exhausted, region: RegionId) -> ControlError {
        let private = self.regions.get(&region).is_some_and(|r| r.region.private);
        let prefix = if private { "priv_" } else { "" };
        let what = match e {
            Exhausted::Interfaces => "interface records left",
            Exhausted::InterfaceSize => "interface records for that many rings",
            Exhausted::Rings => "ring objects left",
            Exhausted::RingSize => "ring objects for that many slots",
            Exhausted::Buffers => "buffers left",
        };
        let is_own = self.regions.get(&region).is_some_and(|r| r.pages.is_some());
        let remedy = if is_own {
            "bring more memory, or ask for other pools in it".to_owned()
        } else {
            format!("raise tunable {prefix}{} (`ringway tune`)", e.tunable())
        };
        let text = format!("the memory region has no {what}; {remedy}");
        ControlError::new(Errno::ENOMEM, text)
    }
}
