//! Binding: rings of a port to a descriptor, and back.

use super::options::apply_csb;
use super::regions::no_memory;
use super::{Asker, Binding, BindingId, ControlError, Kind, PortId, Registry, ReqOption};
use crate::layout::Dir;
use crate::lease::{BindingKey, BoundRings, Grant, GrantKind, PeerGrant};
use ringway_abi::{
    Errno, NR_ACCEPT_VNET_HDR, NR_EXCLUSIVE, NR_REG_ALL_NIC, NR_REG_NIC_SW, NR_REG_NULL, NR_REG_ONE_NIC,
    NR_REG_ONE_SW, NR_REG_SW, NR_RX_RINGS_ONLY, NR_TX_RINGS_ONLY, nmreq_register,
};
use std::collections::BTreeSet;
use std::ops::Range;

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
        let key = fresh_key()?;
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
            let rings = port.rings(dir);
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
        let entry = Binding { port: id, uid: who.uid, key, tx, rx, exclusive, if_ofs, extra_bufs, nr_flags };
        self.bindings.insert(binding, entry);
        Ok(binding)
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
            key: binding.key,
            region: entry.region.shm.clone(),
            state: port.state.clone(),
            rx_bell: port.rx_bell.clone(),
            tx_bell: port.tx_bell.clone(),
            notice: port.notice.lent().clone(),
            worker_bell: port.worker_bell.clone(),
        })
    }

    /// True if that is the key of the binding.
    #[must_use]
    pub fn is_key_of(&self, id: BindingId, key: BindingKey) -> bool {
        key != BindingKey::NONE && self.bindings.get(&id).is_some_and(|b| b.key == key)
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

fn fresh_key() -> Result<BindingKey, ControlError> {
    let number = ringway_os::sys::secret_number().map_err(|e| no_memory("a key", &e))?;
    Ok(BindingKey(number.to_ne_bytes()))
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
