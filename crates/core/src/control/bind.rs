//! Binding: rings of a port to a descriptor, and back.

use super::audit::{pipe_buffers, ring_buffers};
use super::options::apply_csb;
use super::{Asker, Binding, BindingId, ControlError, Kind, PortId, RegionId, Registry, ReqOption};
use crate::kring::RingHandle;
use crate::layout::{Dir, RingShared};
use crate::lease::{BoundRings, Grant, GrantKind, PeerGrant};
use crate::offsets::Offsets;
use crate::pool::Exhausted;
use crate::sync_loop::LoopWord;
use ringway_abi::{
    Errno, NR_ACCEPT_VNET_HDR, NR_EXCLUSIVE, NR_REG_ALL_NIC, NR_REG_NIC_SW, NR_REG_NULL, NR_REG_ONE_NIC,
    NR_REG_ONE_SW, NR_REG_SW, NR_RX_RINGS_ONLY, NR_TX_RINGS_ONLY, nmreq_register,
};
use std::collections::BTreeSet;
use std::ops::Range;

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

impl Registry {
    /// REGISTER: finds or makes the port, and binds the rings that the request selects.
    ///
    /// # Errors
    /// As abi.md 9.1.
    pub fn register(
        &mut self,
        who: Asker,
        name: &str,
        req: &nmreq_register,
    ) -> Result<BindingId, ControlError> {
        self.register_with(who, name, req, &mut [])
    }

    pub(super) fn bind(
        &mut self,
        who: Asker,
        id: PortId,
        req: &nmreq_register,
        options: &mut [ReqOption],
    ) -> Result<BindingId, ControlError> {
        self.check_not_wrapped(id)?;
        let port = self.port(id)?;
        if port.hdr_len != 0 && req.nr_flags & NR_ACCEPT_VNET_HDR == 0 {
            let text = format!(
                "{}: frames there begin with a virtio-net header; ask with NR_ACCEPT_VNET_HDR",
                port.name
            );
            return Err(ControlError::new(Errno::EIO, text));
        }
        let selected = select(port.geometry.tx_rings, port.geometry.rx_rings, req);
        let is_nic = matches!(port.kind, Kind::Nic(_));
        let (tx, rx) = selected.map_err(|e| match e {
            SelectError::Host if is_nic => {
                let text = format!("{}: host rings are not there yet", port.name);
                ControlError::new(Errno::EOPNOTSUPP, text)
            }
            other => other.on(&port.name),
        })?;
        if let Some(p) = port.persistent.as_ref().filter(|_| port.bindings == 0 && !rx.is_empty()) {
            p.check_mtu(self.region_of(port)?.region.layout.bufs.objsize)?;
        }
        let exclusive = req.nr_flags & NR_EXCLUSIVE != 0;
        let wanted = |dir: Dir| if dir == Dir::Tx { (&port.tx, &tx) } else { (&port.rx, &rx) };
        for dir in [Dir::Rx, Dir::Tx] {
            let (rings, range) = wanted(dir);
            let conflict = range.clone().find(|i| {
                rings.get(usize::from(*i)).is_some_and(|r| r.exclusive || (exclusive && r.users > 0))
            });
            if let Some(i) = conflict {
                let text =
                    format!("{}: {dir:?} ring {i} is bound by somebody who shares it with nobody", port.name);
                let alone =
                    format!("{}: {dir:?} ring {i} is in use, so it cannot be had exclusively", port.name);
                let held = rings[usize::from(i)].exclusive;
                return Err(ControlError::new(Errno::EBUSY, if held { text } else { alone }));
            }
        }
        let geometry = port.geometry;
        let mut taken = vec![];
        let wanted = rx.clone().map(|i| (Dir::Rx, i)).chain(tx.clone().map(|i| (Dir::Tx, i)));
        let got = wanted.map(|(dir, i)| self.take_ring(id, dir, i, exclusive)).try_for_each(|ring| {
            taken.push(ring?);
            Ok(())
        });
        let got = got.and_then(|()| self.apply_offsets(id, &taken, options));
        let got = got.and_then(|()| if is_nic { self.open_queues(id, &tx, &rx) } else { Ok(()) });
        if let Err(e) = got {
            let bufs: Vec<u32> = taken.iter().flat_map(|t| self.give_ring(id, t.dir, t.index)).collect();
            if let Some(region) = self.ports.get(&id).map(|p| p.region) {
                self.give_bufs(region, &bufs);
            }
            return Err(e);
        }
        let offsets = |registry: &Registry, dir: Dir, n: u16, range: &Range<u16>| -> Vec<u64> {
            let Ok(port) = registry.port(id) else { return vec![] };
            let rings = if dir == Dir::Tx { &port.tx } else { &port.rx };
            (0..n)
                .map(|i| if range.contains(&i) { rings[usize::from(i)].offset.unwrap_or(0) } else { 0 })
                .collect()
        };
        let tx_ofs = offsets(self, Dir::Tx, geometry.tx_rings, &tx);
        let rx_ofs = offsets(self, Dir::Rx, geometry.rx_rings, &rx);
        let port = self.ports.get_mut(&id).ok_or_else(gone)?;
        let (name, region_id) = (port.full_name().to_owned(), port.region);
        port.bindings += 1;
        let region = &mut self.regions.get_mut(&region_id).ok_or_else(gone)?.region;
        let made = region.make_if(&name, &tx_ofs, &rx_ofs);
        let checked = made.as_ref().map_or(Ok(()), |ofs| {
            let csb = apply_csb(tx.len() + rx.len(), exclusive, options);
            csb.inspect_err(|_| region.drop_if(*ofs))
        });
        let if_ofs = match (made, checked) {
            (Ok(ofs), Ok(())) => ofs,
            (made, checked) => {
                if let Some(port) = self.ports.get_mut(&id) {
                    port.bindings -= 1;
                }
                self.give_rings(id, [(Dir::Rx, rx), (Dir::Tx, tx)]);
                return Err(match made {
                    Err(e) => self.exhausted(e, region_id),
                    Ok(_) => checked.err().unwrap_or_else(gone),
                });
            }
        };
        let extra_bufs = region.take_extra(if_ofs, req.nr_extra_bufs);
        let binding = BindingId(self.fresh_id());
        let nr_flags = super::monitors::told_flags(req.nr_flags);
        let entry = Binding { port: id, uid: who.uid, tx, rx, exclusive, if_ofs, extra_bufs, nr_flags };
        self.bindings.insert(binding, entry);
        Ok(binding)
    }

    fn exhausted(&self, e: Exhausted, region: RegionId) -> ControlError {
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

    pub(super) fn ring_use(&self, id: PortId, dir: Dir, i: u16) -> Option<&super::RingUse> {
        let port = self.ports.get(&id)?;
        if dir == Dir::Tx { &port.tx } else { &port.rx }.get(usize::from(i))
    }

    pub(super) fn ring_use_mut(&mut self, id: PortId, dir: Dir, i: u16) -> Option<&mut super::RingUse> {
        let port = self.ports.get_mut(&id)?;
        if dir == Dir::Tx { &mut port.tx } else { &mut port.rx }.get_mut(usize::from(i))
    }

    /// One more user of a ring; the first makes it.
    fn take_ring(&mut self, id: PortId, dir: Dir, i: u16, exclusive: bool) -> Result<Taken, ControlError> {
        let port = self.port(id)?;
        let ring = if dir == Dir::Tx { &port.tx } else { &port.rx }[usize::from(i)].clone();
        let taken = Taken { dir, index: i, is_first: ring.users == 0, is_new: ring.offset.is_none() };
        if ring.offset.is_none() {
            match port.kind {
                Kind::Pipe { peer, .. } => self.make_pipe_pair(id, peer, dir, i)?,
                _ => self.make_ring(id, dir, i)?,
            }
        }
        let port = self.ports.get_mut(&id).ok_or_else(gone)?;
        let ring = &mut if dir == Dir::Tx { &mut port.tx } else { &mut port.rx }[usize::from(i)];
        ring.users += 1;
        ring.exclusive = exclusive;
        let Some(shared) = RingShared::new(&port.state.map, &port.geometry, dir, i) else { return Ok(taken) };
        if dir == Dir::Rx {
            shared.state.senders.bound.store(1, std::sync::atomic::Ordering::Release);
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
        let ring = if dir == Dir::Tx { &mut port.tx } else { &mut port.rx };
        ring[usize::from(i)].offset = Some(ofs);
        ring[usize::from(i)].epoch += 1;
        ring[usize::from(i)].offsets = Offsets::default();
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
                let rings = if far == Dir::Tx { &mut entry.tx } else { &mut entry.rx };
                rings[usize::from(i)].offset = Some(ofs);
                rings[usize::from(i)].offsets = Offsets::default();
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
        let rings = if dir == Dir::Tx { &port.tx } else { &port.rx };
        let ofs = rings.get(usize::from(i))?.offset?;
        let shared = RingShared::new(&port.state.map, &port.geometry, dir, i)?;
        let ring = self.regions.get(&port.region)?.region.ring(ofs, shared.num_slots)?;
        Some(RingHandle { ring, shared, dir })
    }

    /// One user less of each of these rings; buffers of those that go return to the region.
    fn give_rings(&mut self, id: PortId, rings: [(Dir, Range<u16>); 2]) {
        let Some(region) = self.ports.get(&id).map(|p| p.region) else { return };
        let bufs = self.take_rings_away(id, rings);
        self.give_bufs(region, &bufs);
    }

    fn take_rings_away(&mut self, id: PortId, rings: [(Dir, Range<u16>); 2]) -> Vec<u32> {
        let mut bufs = vec![];
        for (dir, range) in rings {
            range.for_each(|i| bufs.extend(self.give_ring(id, dir, i)));
        }
        bufs
    }

    /// One user less of a ring; the last takes it away, except on a pipe, which lives as a whole. Returns the buffers
    /// that it had.
    fn give_ring(&mut self, id: PortId, dir: Dir, i: u16) -> Vec<u32> {
        let Some(port) = self.ports.get_mut(&id) else { return vec![] };
        let is_pipe = matches!(port.kind, Kind::Pipe { .. });
        let is_nic = matches!(port.kind, Kind::Nic(_));
        let rings = if dir == Dir::Tx { &mut port.tx } else { &mut port.rx };
        let Some(ring) = rings.get_mut(usize::from(i)) else { return vec![] };
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
            shared.state.senders.bound.store(0, std::sync::atomic::Ordering::Release);
        }
        if is_nic { self.close_nic_ring(id, dir, i) } else { self.free_ring(id, dir, i) }
    }

    /// Takes a ring away. Returns the buffers that it had.
    fn free_ring(&mut self, id: PortId, dir: Dir, i: u16) -> Vec<u32> {
        let Some(handle) = self.handle(id, dir, i) else { return vec![] };
        let Some(port) = self.ports.get_mut(&id) else { return vec![] };
        let rings = if dir == Dir::Tx { &mut port.tx } else { &mut port.rx };
        let Some(ofs) = rings[usize::from(i)].offset.take() else { return vec![] };
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
                    let rings = if dir == Dir::Tx { &mut port.tx } else { &mut port.rx };
                    if let Some(ofs) = rings[usize::from(i)].offset.take()
                        && let Some(entry) = self.regions.get_mut(&port.region)
                    {
                        entry.region.drop_ring(ofs);
                    }
                }
            }
        }
        self.give_bufs(region, &bufs);
    }

    /// The last copy of a descriptor is closed, or its last process dead.
    pub fn unbind(&mut self, id: BindingId) {
        let Some(binding) = self.bindings.remove(&id) else { return };
        self.drop_guests(id);
        let Some(port) = self.ports.get_mut(&binding.port) else { return };
        port.bindings -= 1;
        let is_last = port.bindings == 0 && port.monitors > 0;
        let region = port.region;
        let mut bufs = vec![];
        if let Some(entry) = self.regions.get_mut(&region) {
            bufs = entry.region.take_list(binding.if_ofs);
            entry.region.drop_if(binding.if_ofs);
        }
        if is_last {
            self.stop_monitors_of(binding.port);
        }
        bufs.extend(self.take_rings_away(binding.port, [(Dir::Rx, binding.rx), (Dir::Tx, binding.tx)]));
        self.give_bufs(region, &bufs);
        self.mend_pipe_end(binding.port);
        self.drop_if_unused(binding.port);
    }

    /// What a binding hands out.
    ///
    /// # Errors
    /// ENXIO if there is no such binding.
    pub fn grant(&self, id: BindingId) -> Result<Grant, ControlError> {
        let binding = self.bindings.get(&id).ok_or_else(gone)?;
        let port = self.port(binding.port)?;
        let entry = self.region_of(port)?;
        let bound = |rings: &[super::RingUse], range: &Range<u16>| BoundRings {
            first: range.start,
            offsets: range.clone().map(|i| rings[usize::from(i)].offset.unwrap_or(0)).collect(),
        };
        let kind = match &port.kind {
            Kind::Null => GrantKind::Null,
            Kind::Monitor(_) => GrantKind::Monitor,
            Kind::Nic(nic) => {
                let queues: BTreeSet<u16> = binding.tx.clone().chain(binding.rx.clone()).collect();
                GrantKind::Nic(nic.grant(queues.into_iter()).ok_or_else(gone)?)
            }
            Kind::Vale { index, generation, page, .. } => {
                GrantKind::Vale { index: *index, generation: *generation, page: page.clone() }
            }
            Kind::Pipe { peer, .. } => {
                let peer = self.port(*peer)?;
                GrantKind::Pipe {
                    peer_state: peer.state.clone(),
                    peer_rx_bell: peer.rx_bell.clone(),
                    peer_tx_bell: peer.tx_bell.clone(),
                }
            }
        };
        Ok(Grant {
            name: port.full_name().to_owned(),
            kind,
            geometry: port.geometry,
            tx: bound(&port.tx, &binding.tx),
            rx: bound(&port.rx, &binding.rx),
            mem_id: entry.mem_id,
            layout: entry.region.layout,
            if_ofs: binding.if_ofs,
            extra_bufs: binding.extra_bufs,
            nr_flags: binding.nr_flags,
            region: entry.region.shm.clone(),
            state: port.state.clone(),
            rx_bell: port.rx_bell.clone(),
            tx_bell: port.tx_bell.clone(),
            notice: port.notice.lent().clone(),
            worker_bell: port.worker_bell.clone(),
        })
    }

    /// The member at `index` of the switch that the binding's port sits on, for its senders.
    ///
    /// # Errors
    /// ENXIO if there is none; EACCES if it belongs to another user, or to the broker itself.
    pub fn peer_grant(&self, id: BindingId, index: u8) -> Result<PeerGrant, ControlError> {
        let binding = self.bindings.get(&id).ok_or_else(gone)?;
        let Kind::Vale { switch: Some(switch), .. } = self.port(binding.port)?.kind else {
            return Err(ControlError::new(Errno::ENXIO, "the port sits on no switch"));
        };
        let switch = self.switches.get(switch).and_then(Option::as_ref).ok_or_else(gone)?;
        let peer = self.port(*switch.ports.get(&index).ok_or_else(gone)?)?;
        let Kind::Vale { generation, .. } = peer.kind else { return Err(gone()) };
        if peer.owner != binding.uid {
            return Err(ControlError::new(Errno::EACCES, "that port belongs to another user"));
        }
        if peer.wraps().is_some() {
            // While it is there, its switch is brokered: nobody needs its memory.
            return Err(ControlError::new(Errno::EACCES, "that port belongs to the broker"));
        }
        let entry = self.region_of(peer)?;
        Ok(PeerGrant {
            index,
            generation,
            geometry: peer.geometry,
            layout: entry.region.layout,
            region: entry.region.shm.clone(),
            state: peer.state.clone(),
            rx_bell: peer.rx_bell.clone(),
        })
    }
}

pub(super) fn gone() -> ControlError {
    ControlError::new(Errno::ENXIO, "the port is gone")
}

/// Why rings could not be selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SelectError {
    Mode(u32),
    Host,
    RingId(u16),
}

impl SelectError {
    pub fn on(self, name: &str) -> ControlError {
        let text = match self {
            SelectError::Mode(m) => format!("{name}: {m} is no mode of binding (nr_mode)"),
            SelectError::Host => format!("{name}: the port has no host rings"),
            SelectError::RingId(i) => format!("{name}: there is no ring {i}"),
        };
        ControlError::new(Errno::EINVAL, text)
    }
}

/// Which rings a request binds, of a port without host rings. Source: semantics.md 8.
pub(super) fn select(
    tx_rings: u16,
    rx_rings: u16,
    req: &nmreq_register,
) -> Result<(Range<u16>, Range<u16>), SelectError> {
    let only = req.nr_flags & (NR_TX_RINGS_ONLY | NR_RX_RINGS_ONLY);
    if only == NR_TX_RINGS_ONLY | NR_RX_RINGS_ONLY {
        return Ok((0..0, 0..0));
    }
    let i = req.nr_ringid;
    let (tx, rx) = match req.nr_mode {
        NR_REG_ALL_NIC | NR_REG_NULL => (0..tx_rings, 0..rx_rings),
        NR_REG_SW | NR_REG_NIC_SW | NR_REG_ONE_SW => return Err(SelectError::Host),
        NR_REG_ONE_NIC if i >= tx_rings && i >= rx_rings => return Err(SelectError::RingId(i)),
        NR_REG_ONE_NIC => {
            let one = |n: u16| if i < n { i..i + 1 } else { 0..n.min(1) };
            (one(tx_rings), one(rx_rings))
        }
        other => return Err(SelectError::Mode(other)),
    };
    Ok(match only {
        NR_TX_RINGS_ONLY => (tx, 0..0),
        NR_RX_RINGS_ONLY => (0..0, rx),
        _ => (tx, rx),
    })
}
