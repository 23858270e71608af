//! Ports: found by name, made when their kind is made on first use, gone with their last user.

use super::monitors::MONITOR_FLAGS;
use super::nic::nic_key;
use super::persistent::Persistent;
use super::regions::no_memory;
use super::retired::GivenBack;
use super::wrapped::Wrap;
use super::{Asker, ControlError, Kind, PortEntry, PortId, RegionId, Registry, RingUse};
use crate::layout::{Dir, Geometry, RegionWish, state_memfd_bytes};
use crate::pool::Shm;
use crate::vale::DEFAULT_MFS_BYTES;
use ringway_abi::{
    Errno, NR_REG_ALL_NIC, NR_REG_NULL, NR_REG_ONE_NIC, NR_REG_PIPE_MASTER, NR_REG_PIPE_SLAVE, PipeRole,
    is_vale_name, nmreq_register, split_pipe, split_vale,
};
use ringway_os::event::{Doorbell, PrivateBell};
use ringway_os::ring::RING_HEADER_BYTES;
use std::sync::Arc;

/// Rings of a switch port, per direction.
const VALE_MAX_RINGS: u16 = 16;
/// Slots of a ring of a switch port or pipe.
const MAX_SLOTS: u32 = 4096;
/// Slots when nothing is asked.
const DEFAULT_SLOTS: u32 = 1024;
/// Rings of a pipe, per direction.
const PIPE_MAX_RINGS: u16 = 256;
/// Pipes on one parent.
const MAX_PIPES: u32 = 64;
/// Pipes that a private region has room for.
const PRIVATE_PIPES: u32 = 2;
/// Extra buffers of a new switch port.
const MAX_EXTRA_BUFS: u32 = 524_288;
/// Bytes of an interface name, its NUL included.
pub(super) const IFNAMSIZ: usize = 16;

impl PortEntry {
    /// Somebody has it bound, or something stands on it.
    fn is_used(&self) -> bool {
        self.bindings > 0 || self.pipes > 0 || self.monitors > 0
    }
}

impl Registry {
    /// The port that a request names. With `create`, ports that are made on first use are made.
    ///
    /// # Errors
    /// As abi.md 9.1 lists for the lookup.
    pub(super) fn look_up(
        &mut self,
        who: Asker,
        name: &str,
        req: &nmreq_register,
        create: bool,
    ) -> Result<PortId, ControlError> {
        if req.nr_mem_id != 0 {
            self.find_region(who, req.nr_mem_id)?;
        }
        if matches!(req.nr_mode, NR_REG_PIPE_MASTER | NR_REG_PIPE_SLAVE) {
            let text =
                "modes PIPE_MASTER and PIPE_SLAVE belong to the old API; name the pipe as port{id or port}id";
            return Err(ControlError::new(Errno::EINVAL, text));
        }
        if req.nr_mode == NR_REG_NULL {
            return self.make_null(who, name, req);
        }
        if req.nr_flags & MONITOR_FLAGS != 0 {
            return self.make_monitor(who, name, req, create);
        }
        if let Some((parent, role, id)) = split_pipe(name) {
            return self.look_up_pipe(who, name, (parent, role, id), req, create);
        }
        if !is_vale_name(name)
            && let Some(id) = self.persistent_link(name)
        {
            self.check_owner(who, id)?;
            return Ok(id);
        }
        if !is_vale_name(name)
            && let Some(id) = self.look_up_nic(who, name, req, create)?
        {
            return Ok(id);
        }
        if let Some(id) = self.names.get(name).copied() {
            self.check_owner(who, id)?;
            return Ok(id);
        }
        if is_vale_name(name) {
            if !create {
                return Err(ControlError::new(Errno::ENXIO, format!("there is no port {name}")));
            }
            return self.make_vale(who, name, req);
        }
        Err(ControlError::new(Errno::ENXIO, format!("there is no interface {name}")))
    }

    pub(super) fn check_owner(&self, who: Asker, id: PortId) -> Result<(), ControlError> {
        let port = self.port(id)?;
        if who.may(port.owner) {
            return Ok(());
        }
        let text = format!("port {} belongs to another user; only its owner and root may open it", port.name);
        Err(ControlError::new(Errno::EACCES, text))
    }

    fn make_null(&mut self, who: Asker, name: &str, req: &nmreq_register) -> Result<PortId, ControlError> {
        if req.nr_mem_id == 0 {
            return Err(ControlError::new(
                Errno::EINVAL,
                "a null port needs the id of a memory region (@ID)",
            ));
        }
        let region = self.find_region(who, req.nr_mem_id)?;
        let geometry = Geometry {
            tx_rings: req.nr_tx_rings,
            rx_rings: req.nr_rx_rings,
            tx_slots: req.nr_tx_slots,
            rx_slots: req.nr_rx_slots,
        };
        self.check_null(region, &geometry)?;
        self.add_port(who, &format!("null:{name}"), region, geometry, false, |_, _| Ok(Kind::Null))
    }

    /// Counts are taken literally, as far as the region could hold such rings: also of a null port that binds none, since each ring
    /// has its state.
    fn check_null(&self, region: RegionId, g: &Geometry) -> Result<(), ControlError> {
        let Some(pool) = self.regions.get(&region).map(|r| r.region.layout.rings) else { return Ok(()) };
        let rings = u32::from(g.tx_rings) + u32::from(g.rx_rings);
        let slots = pool.objsize.saturating_sub(RING_HEADER_BYTES as u32) / 16;
        let too_long = |dir| g.rings(dir) > 0 && g.slots(dir) > slots;
        if rings > pool.objtotal || too_long(Dir::Tx) || too_long(Dir::Rx) {
            let text =
                format!("a null port of this region has at most {} rings, of {slots} slots", pool.objtotal);
            return Err(ControlError::new(Errno::ENOMEM, text));
        }
        Ok(())
    }

    fn make_vale(&mut self, who: Asker, name: &str, req: &nmreq_register) -> Result<PortId, ControlError> {
        let (switch_name, port_name) =
            split_vale(name).map_err(|e| ControlError::new(e.errno(), format!("{name}: {e}")))?;
        if self.is_interface(port_name) {
            let text = format!("{port_name} is an interface; attach it to switch {switch_name} first");
            return Err(ControlError::new(Errno::EINVAL, text));
        }
        let switch_name = switch_name.to_owned();
        let switch = self.join_switch(who, &switch_name)?;
        let geometry = vale_geometry(req);
        let made = self.vale_region(who, req, &geometry).and_then(|region| {
            let made = self.add_port(who, name, region, geometry, true, |registry, id| {
                let (index, generation, page) = registry.seat(switch, id)?;
                Ok(Kind::Vale { switch: Some(switch), index, generation, page })
            });
            if made.is_err() {
                self.discard_unused_region(region);
            }
            made
        });
        if made.is_err() {
            self.discard_empty_switch(switch);
        }
        made
    }

    pub(super) fn vale_region(
        &mut self,
        who: Asker,
        req: &nmreq_register,
        g: &Geometry,
    ) -> Result<RegionId, ControlError> {
        if req.nr_mem_id != 0 {
            return self.find_region(who, req.nr_mem_id);
        }
        let extra = req.nr_extra_bufs.min(MAX_EXTRA_BUFS);
        let wish = RegionWish::for_port(&self.tunables.private_region(), g, PRIVATE_PIPES, extra);
        self.make_private_region(who.uid, &wish)
    }

    fn look_up_pipe(
        &mut self,
        who: Asker,
        name: &str,
        (parent, role, id): (&str, PipeRole, &str),
        req: &nmreq_register,
        create: bool,
    ) -> Result<PortId, ControlError> {
        if id.is_empty() || parent.is_empty() {
            let text = format!("{name}: a pipe is named port{}id", role.bracket());
            return Err(ControlError::new(Errno::EINVAL, text));
        }
        if !matches!(req.nr_mode, NR_REG_ALL_NIC | NR_REG_ONE_NIC) {
            return Err(ControlError::new(Errno::EINVAL, format!("{name}: a pipe has no host rings")));
        }
        if let Some(found) = self.names.get(name).copied() {
            self.check_owner(who, found)?;
            return Ok(found);
        }
        // A port with two names has one set of pipes.
        let known = self.names.get(parent).and_then(|p| self.ports.get(p));
        if let Some(p) = known.filter(|p| p.persistent.is_some() && p.name != parent) {
            let (parent, name) = (p.name.clone(), format!("{}{}{id}", p.name, role.bracket()));
            return self.look_up_pipe(who, &name, (&parent, role, id), req, create);
        }
        let attached = if is_vale_name(parent) { None } else { self.wrapped_nic(parent) };
        let parent_id = match attached.or_else(|| self.names.get(parent).copied()) {
            Some(p) => {
                self.check_owner(who, p)?;
                if create {
                    self.check_not_wrapped(p)?;
                }
                p
            }
            None if !create => {
                let errno = if is_vale_name(parent) { Errno::ENXIO } else { Errno::ENODEV };
                return Err(ControlError::new(errno, format!("there is no pipe {name}")));
            }
            None => {
                let wish = nmreq_register { nr_mode: NR_REG_ALL_NIC, nr_flags: 0, ..*req };
                if split_pipe(parent).is_some() || is_vale_name(parent) {
                    self.look_up(who, parent, &wish, true)?
                } else {
                    self.make_autodelete(who, parent, &wish)?
                }
            }
        };
        if !create {
            return Err(ControlError::new(Errno::ENODEV, format!("there is no pipe {name}")));
        }
        let made = self.make_pipe(parent_id, parent, role, id, req);
        if made.is_err() {
            self.drop_if_unused(parent_id);
        }
        made
    }

    fn make_pipe(
        &mut self,
        parent_id: PortId,
        parent: &str,
        role: PipeRole,
        id: &str,
        req: &nmreq_register,
    ) -> Result<PortId, ControlError> {
        let entry = self.port(parent_id)?;
        if entry.pipes >= MAX_PIPES {
            let text = format!("{parent} has {MAX_PIPES} pipes already");
            return Err(ControlError::new(Errno::EINVAL, text));
        }
        let (region, owner) = (entry.region, entry.owner);
        let slots = |asked: u32, default: u32| if asked == 0 { default } else { asked.clamp(2, MAX_SLOTS) };
        let master = Geometry {
            tx_rings: req.nr_tx_rings.clamp(1, PIPE_MAX_RINGS),
            rx_rings: req.nr_rx_rings.clamp(1, PIPE_MAX_RINGS),
            tx_slots: slots(req.nr_tx_slots, entry.geometry.tx_slots),
            rx_slots: slots(req.nr_rx_slots, entry.geometry.rx_slots),
        };
        // A TX ring meets an RX ring: both have the size of the master's.
        let names = [PipeRole::Master, PipeRole::Slave].map(|r| format!("{parent}{}{id}", r.bracket()));
        let keeper = Asker { uid: owner };
        let ends: [PortId; 2] = [PortId(self.fresh_id()), PortId(self.fresh_id())];
        for (i, geometry) in [master, master.swapped()].into_iter().enumerate() {
            let kind = Kind::Pipe { parent: parent_id, peer: ends[1 - i] };
            if let Err(e) = self.insert_port(keeper, ends[i], &names[i], region, geometry, true, kind) {
                if i == 1 {
                    self.remove_port(ends[0]);
                }
                return Err(e);
            }
        }
        if let Some(p) = self.ports.get_mut(&parent_id) {
            p.pipes += 1;
        }
        Ok(ends[usize::from(role == PipeRole::Slave)])
    }

    pub(super) fn add_port(
        &mut self,
        who: Asker,
        name: &str,
        region: RegionId,
        geometry: Geometry,
        named: bool,
        kind: impl FnOnce(&mut Self, PortId) -> Result<Kind, ControlError>,
    ) -> Result<PortId, ControlError> {
        let id = PortId(self.fresh_id());
        let kind = kind(self, id)?;
        self.insert_port(who, id, name, region, geometry, named, kind)?;
        Ok(id)
    }

    #[allow(clippy::too_many_arguments)] // All are parts of one entry.
    pub(super) fn insert_port(
        &mut self,
        who: Asker,
        id: PortId,
        name: &str,
        region: RegionId,
        geometry: Geometry,
        named: bool,
        kind: Kind,
    ) -> Result<(), ControlError> {
        let parts = || -> std::io::Result<_> {
            let state = Shm::create("ringway-state", state_memfd_bytes(&geometry).max(1))?;
            let notice = Arc::new(PrivateBell::new()?);
            let bell = || Ok::<_, std::io::Error>(Arc::new(Doorbell::new()?));
            Ok((state, bell()?, bell()?, notice, bell()?))
        };
        let (state, rx_bell, tx_bell, notice, worker_bell) = match parts() {
            Ok(parts) => parts,
            Err(e) => {
                if let Kind::Vale { switch: Some(i), index, .. } = kind {
                    self.unseat(i, index);
                }
                return Err(no_memory(&format!("port {name}"), &e));
            }
        };
        if let Some(r) = self.regions.get_mut(&region) {
            r.ports += 1;
        }
        let rings = |n: u16| vec![RingUse::default(); usize::from(n)];
        let entry = PortEntry {
            name: name.to_owned(),
            owner: who.uid,
            kind,
            region,
            geometry,
            state,
            tx: rings(geometry.tx_rings),
            rx: rings(geometry.rx_rings),
            bindings: 0,
            pipes: 0,
            monitors: 0,
            next_monitor: 0,
            hdr_len: 0,
            mfs: DEFAULT_MFS_BYTES,
            persistent: None,
            wrap: Wrap::default(),
            rx_bell,
            tx_bell,
            notice,
            worker_bell,
        };
        self.ports.insert(id, entry);
        if named {
            self.names.insert(name.to_owned(), id);
        }
        Ok(())
    }

    /// Takes a port away if nobody has it bound and nothing stands on it; what stood under it, too.
    pub(super) fn drop_if_unused(&mut self, id: PortId) {
        let Some(port) = self.ports.get(&id) else { return };
        if port.is_used() || port.stays() {
            return;
        }
        if let Kind::Monitor(watch) = port.kind {
            self.remove_port(id);
            self.monitor_left(watch.parent);
            return;
        }
        let Kind::Pipe { parent, peer } = port.kind else {
            self.remove_port(id);
            return;
        };
        // Both ends live and die together.
        if self.ports.get(&peer).is_some_and(PortEntry::is_used) {
            return;
        }
        self.free_pipe_rings(id, peer);
        self.remove_port(id);
        self.remove_port(peer);
        if let Some(p) = self.ports.get_mut(&parent) {
            p.pipes -= 1;
        }
        self.drop_if_unused(parent);
    }

    pub(super) fn remove_port(&mut self, id: PortId) {
        let Some(port) = self.ports.remove(&id) else { return };
        let key = match &port.kind {
            Kind::Nic(nic) => nic_key(nic.netns_id(), nic.ifindex),
            _ => port.name.clone(),
        };
        if self.names.get(&key) == Some(&id) {
            self.names.remove(&key);
        }
        if let Some(link) = port.persistent.as_ref().and_then(Persistent::link_key) {
            self.names.remove(&link);
        }
        if matches!(port.kind, Kind::Nic(_)) {
            self.drop_unused_monitors();
        }
        if let Kind::Vale { switch: Some(i), index, .. } = port.kind {
            self.unseat(i, index);
        }
        self.retire_memory(port.owner, GivenBack::whole(port.state.memfd.clone()));
        self.retire_bells(port.owner, [port.rx_bell, port.tx_bell, port.worker_bell], port.notice);
        self.release_region(port.region);
    }
}

/// What a switch port gets of what is asked: silently within the limits.
pub(super) fn vale_geometry(req: &nmreq_register) -> Geometry {
    let rings = |n: u16| if n == 0 { 1 } else { n.min(VALE_MAX_RINGS) };
    // A ring of one slot holds nothing: its one slot separates the owners.
    let slots = |n: u32| if n == 0 { DEFAULT_SLOTS } else { n.clamp(2, MAX_SLOTS) };
    Geometry {
        tx_rings: rings(req.nr_tx_rings),
        rx_rings: rings(req.nr_rx_rings),
        tx_slots: slots(req.nr_tx_slots),
        rx_slots: slots(req.nr_rx_slots),
    }
}
