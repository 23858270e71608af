//! Interfaces on a switch, and persistent ports on two: a port that the broker itself has bound, and one on the switch that stands for
//! it, in the same memory, with pumps between the two.
//!
//! The rings of the port on the switch are those of the other one with the directions exchanged: what comes in there goes out here.
//! Nobody else may open either, but monitors may watch them.
//!
//! Source: semantics.md 18 and 19; abi.md 9.3.

use super::brokered::Tables;
use super::jobs::{Jobs, RingKey};
use super::persistent::refuse;
use super::polling::Polling;
use super::{Asker, BindingId, ControlError, Kind, PortEntry, PortId, Registry};
use crate::layout::{Dir, Geometry, RegionWish, RingShared};
use crate::pump::{OwnRing, Pump};
use ringway_abi::{Errno, NR_ACCEPT_VNET_HDR, NR_REG_ALL_NIC, NR_REG_NIC_SW, nmreq_register};
use ringway_os::link::index_of;

/// Room in the memory of an attached interface, in pipes: zero-copy monitors take it. All of it is pinned.
const SPARE_PIPES: u32 = 1;

/// What the broker itself has to do with a port.
#[derive(Debug, Default)]
pub(super) enum Wrap {
    /// Nothing.
    #[default]
    No,
    /// It has it bound: `by` stands for it on a switch.
    Inner { by: PortId },
    /// It stands for `inner` on a switch.
    Outer(Outer),
}

#[derive(Debug)]
pub(super) struct Outer {
    inner: PortId,
    bindings: [BindingId; 2],
    pub polling: Option<Polling>,
}

impl PortEntry {
    /// The broker itself has it bound.
    pub(super) fn is_wrapped(&self) -> bool {
        !matches!(self.wrap, Wrap::No)
    }

    /// The port for which it stands on a switch.
    pub(super) fn wraps(&self) -> Option<PortId> {
        if let Wrap::Outer(outer) = &self.wrap { Some(outer.inner) } else { None }
    }

    /// The port that stands for it on a switch.
    pub(super) fn wrapped_by(&self) -> Option<PortId> {
        if let Wrap::Inner { by } = self.wrap { Some(by) } else { None }
    }
}

impl Registry {
    /// An interface joins a switch. Returns its index there.
    pub(super) fn attach_interface(
        &mut self,
        who: Asker,
        full: &str,
        switch: &str,
        name: &str,
        reg: &nmreq_register,
    ) -> Result<u8, ControlError> {
        let Some(id) = self.nic_for_switch(who, name, reg)? else {
            return Err(refuse(Errno::EINVAL, format!("there is no interface {name}")));
        };
        let done = self.wrap(who, full, switch, id, reg);
        if done.is_err() {
            self.drop_if_unused(id);
        }
        done
    }

    /// Puts a port that stands for `inner` on a switch, and binds both. Returns its index there.
    pub(super) fn wrap(
        &mut self,
        who: Asker,
        full: &str,
        switch: &str,
        inner: PortId,
        reg: &nmreq_register,
    ) -> Result<u8, ControlError> {
        let port = self.port(inner)?;
        let name = port.name.clone();
        if let Some(by) = port.wrapped_by().and_then(|id| self.ports.get(&id)) {
            return Err(refuse(Errno::EBUSY, format!("{name} is attached already, as {}", by.name)));
        }
        if port.bindings > 0 {
            return Err(refuse(Errno::EBUSY, format!("{name} cannot be attached: somebody has it open")));
        }
        match reg.nr_mode {
            NR_REG_ALL_NIC if reg.nr_ringid == 0 => {}
            NR_REG_NIC_SW if matches!(port.kind, Kind::Nic(_)) => {
                let text = format!("{name}: host rings are not there yet; attach the interface alone");
                return Err(refuse(Errno::EOPNOTSUPP, text));
            }
            _ => {
                let text = format!("{name} is attached as a whole (mode ALL_NIC, ring 0), or not at all");
                return Err(refuse(Errno::EINVAL, text));
            }
        }
        let (region, geometry) = (port.region, port.geometry.swapped());
        let (hdr_len, mfs) = (port.hdr_len, port.mfs);
        let i = self.join_switch(who, switch)?;
        let made = self.add_port(who, full, region, geometry, true, |registry, id| {
            let (index, generation, page) = registry.seat(i, id)?;
            crate::vale::set_header(&*super::switches::view(&page)?, index, hdr_len, mfs);
            Ok(Kind::Vale { switch: Some(i), index, generation, page })
        });
        let id = match made {
            Ok(id) => id,
            Err(e) => {
                self.discard_empty_switch(i);
                return Err(e);
            }
        };
        if let Some(port) = self.ports.get_mut(&id) {
            (port.hdr_len, port.mfs) = (hdr_len, mfs);
        }
        let req =
            nmreq_register { nr_mode: NR_REG_ALL_NIC, nr_flags: NR_ACCEPT_VNET_HDR, ..Default::default() };
        let bound = self.bind(who, inner, &req, &mut []).and_then(|b| {
            let outer = self.bind(who, id, &req, &mut []);
            if outer.is_err() {
                self.unbind(b);
            }
            Ok([b, outer?])
        });
        let bindings = match bound {
            Ok(bindings) => bindings,
            Err(e) => {
                self.drop_if_unused(id);
                return Err(e);
            }
        };
        if let Some(port) = self.ports.get_mut(&inner) {
            port.wrap = Wrap::Inner { by: id };
        }
        let Some(port) = self.ports.get_mut(&id) else { return Err(super::bind::gone()) };
        port.wrap = Wrap::Outer(Outer { inner, bindings, polling: None });
        let Kind::Vale { index, .. } = port.kind else { return Err(super::bind::gone()) };
        Ok(index)
    }

    /// Lets go of a port that has left its switch, and of the one for which it stood.
    pub(super) fn unwrap(&mut self, id: PortId) {
        let Some(port) = self.ports.get_mut(&id) else { return };
        let Wrap::Outer(outer) = std::mem::take(&mut port.wrap) else { return };
        if let Some(port) = self.ports.get_mut(&outer.inner) {
            port.wrap = Wrap::No;
        }
        outer.bindings.into_iter().for_each(|b| self.unbind(b));
    }

    /// An interface is gone: so is its place on a switch.
    pub(super) fn unwrap_gone(&mut self, inner: PortId) {
        let by = self.ports.get(&inner).and_then(PortEntry::wrapped_by);
        let Some((id, full)) = by.and_then(|id| Some((id, self.ports.get(&id)?.name.clone()))) else {
            return;
        };
        if self.leave_switch(id, &full).is_ok() {
            self.unwrap(id);
        }
    }

    /// Ports that the broker itself has bound.
    pub(super) fn wrapped_ports(&self) -> Vec<PortId> {
        self.ports.iter().filter(|(_, p)| p.is_wrapped()).map(|(id, _)| *id).collect()
    }

    /// Refuses what the broker itself has bound.
    pub(super) fn check_not_wrapped(&self, id: PortId) -> Result<(), ControlError> {
        let port = self.port(id)?;
        let full = match &port.wrap {
            Wrap::No => return Ok(()),
            Wrap::Inner { by } => self.ports.get(by).map_or("", |p| p.name.as_str()),
            Wrap::Outer(_) => port.name.as_str(),
        };
        let text = format!("{} is attached to a switch, as {full}; detach it first", port.name);
        Err(refuse(Errno::EBUSY, text))
    }

    /// The interface called `name` in the asker's namespace, if it is attached to a switch.
    pub(super) fn wrapped_nic(&self, name: &str) -> Option<PortId> {
        let is_wrapped = |p: &&PortEntry| p.is_wrapped() && matches!(p.kind, Kind::Nic(_));
        self.ports.values().find(is_wrapped)?;
        let ifindex = self.nic_request.in_netns(|| index_of(name)).and_then(|found| found).ok()?;
        let key = super::nic::nic_key(self.nic_request.netns_id, ifindex);
        self.names.get(&key).copied().filter(|id| self.ports.get(id).is_some_and(PortEntry::is_wrapped))
    }

    /// The memory of an interface that nobody but the broker uses: rings and buffers for it and for what stands for it.
    pub(super) fn wrapper_region_wish(&self, g: &Geometry) -> RegionWish {
        let mut floor = self.tunables.private_region();
        // What an interface's buffers are elsewhere, too.
        floor.bufs.objsize = self.tunables.global_region().bufs.objsize;
        let both = Geometry { tx_rings: g.tx_rings * 2, rx_rings: g.rx_rings * 2, ..*g };
        RegionWish::for_port(&floor, &both, SPARE_PIPES, 0)
    }

    /// One pump for each ring of an attached port that receives, and each of one that sends.
    pub(super) fn make_pumps(&self, jobs: &Jobs, tables: &Tables) -> Vec<Pump> {
        let mut out = vec![];
        for (id, port) in &self.ports {
            let Wrap::Outer(Outer { inner, polling, .. }) = &port.wrap else { continue };
            for (from, to) in [(*inner, *id), (*id, *inner)] {
                let rings = self.ports.get(&from).map_or(0, |p| p.geometry.rx_rings);
                let pumps = (0..rings).filter_map(|i| {
                    let cpu = polling.as_ref().and_then(|p| p.cpu_of(i));
                    self.pump(jobs, tables, (from, to), i, cpu)
                });
                out.extend(pumps);
            }
        }
        out
    }

    fn pump(
        &self,
        jobs: &Jobs,
        tables: &Tables,
        (from, to): (PortId, PortId),
        index: u16,
        cpu: Option<u32>,
    ) -> Option<Pump> {
        let source = self.ports.get(&from)?;
        let socket = if let Kind::Nic(nic) = &source.kind { nic.socket(index) } else { None };
        let copies = self.watchers(jobs, from, Dir::Rx, index).zcopy.is_some();
        Some(Pump {
            from: self.own_ring(jobs, tables, from, Dir::Rx, index)?,
            to: self.own_ring(jobs, tables, to, Dir::Tx, index)?,
            cpu,
            socket,
            bell: source.notice.bell().clone(),
            copies,
        })
    }

    fn own_ring(&self, jobs: &Jobs, tables: &Tables, id: PortId, dir: Dir, index: u16) -> Option<OwnRing> {
        let port = self.ports.get(&id)?;
        let epoch = self.ring_use(id, dir, index)?.epoch;
        let key = RingKey { port: id, is_tx: dir == Dir::Tx, index, epoch };
        let public = RingShared::new(&port.state.map, &port.geometry, dir, index)?;
        let driver = self.broker_driver(jobs, &key, tables)?;
        Some(OwnRing { handle: jobs.held(&key)?.clone(), public, driver })
    }
}
