//! Questions: PORT_INFO_GET, POOLS_INFO_GET, VALE_LIST, PORT_HDR_SET and GET, and the listing of everything.

use super::{Asker, BindingId, ControlError, Kind, PortEntry, PortId, Registry};
use crate::layout::{Dir, RingShared};
use crate::stats::Counters;
use crate::vale::{mac_table, set_header};
use ringway_abi::{
    Errno, NM_BDG_NOPORT, NR_REG_ALL_NIC, is_vale_name, nmreq_pools_info, nmreq_port_info_get,
    nmreq_register, nmreq_vale_list,
};
use std::sync::atomic::Ordering::Relaxed;

/// One ring in a listing.
#[derive(Clone, Debug)]
pub struct RingInfo {
    /// Direction.
    pub dir: Dir,
    /// Index.
    pub index: u16,
    /// Descriptors that have it bound.
    pub users: u32,
    /// Its counters.
    pub counters: Counters,
    /// RX of a switch port: slots that hold packets not yet synced.
    pub waiting: u32,
}

/// One descriptor in a listing.
#[derive(Clone, Debug)]
pub struct HolderInfo {
    /// Its binding.
    pub binding: BindingId,
    /// User id of whoever opened it.
    pub uid: u32,
    /// Rings bound, in words for people.
    pub rings: String,
}

/// One port in a listing.
#[derive(Clone, Debug)]
pub struct PortInfo {
    /// Full name, without `netmap:`.
    pub name: String,
    /// `vale`, `persistent`, `parent` (made by a pipe for itself), `attached` (stands for an interface on a switch), `pipe`, `null`,
    /// `nic`, `monitor`.
    pub kind: &'static str,
    /// User id of its owner.
    pub owner: u32,
    /// The asker may see more than the name.
    pub visible: bool,
    /// Who runs its syncs: `direct` its users, `brokered` a worker of the broker.
    pub lease: &'static str,
    /// How an interface is reached; empty for other ports.
    pub mode: &'static str,
    /// The port that a monitor watches; empty for other ports.
    pub watches: String,
    /// Index on its switch.
    pub index: Option<u8>,
    /// Id of its region.
    pub mem_id: u16,
    /// Slots in each TX ring, and in each RX ring.
    pub slots: (u32, u32),
    /// Addresses that the switch has learned on it.
    pub macs: usize,
    /// Rings.
    pub rings: Vec<RingInfo>,
    /// Descriptors.
    pub holders: Vec<HolderInfo>,
}

impl Registry {
    /// PORT_INFO_GET. An empty name asks for a region only.
    ///
    /// # Errors
    /// As REGISTER's lookup; EINVAL for an unknown region.
    pub fn port_info_get(
        &mut self,
        who: Asker,
        name: &str,
        body: &mut nmreq_port_info_get,
    ) -> Result<(), ControlError> {
        if name.is_empty() {
            let mem_id = if body.nr_mem_id == 0 { 1 } else { body.nr_mem_id };
            let (id, memsize) = match self.find_region(who, mem_id) {
                Ok(r) => (mem_id, self.regions[&r].region.layout.memsize),
                // Everybody has a region 1, also before it is made.
                Err(_) if mem_id == 1 => (1, self.global_memsize()?),
                Err(e) => return Err(e),
            };
            body.nr_memsize = memsize;
            body.nr_mem_id = id;
            return Ok(());
        }
        let id = self.look_up(who, name, &hints(body), true)?;
        let port = self.port(id)?;
        let (memsize, mem_id) = self.region_of(port).map(|r| (r.region.layout.memsize, r.mem_id))?;
        let g = port.geometry;
        *body = nmreq_port_info_get {
            nr_memsize: memsize,
            nr_tx_slots: g.tx_slots,
            nr_rx_slots: g.rx_slots,
            nr_tx_rings: g.tx_rings,
            nr_rx_rings: g.rx_rings,
            nr_host_tx_rings: 0,
            nr_host_rx_rings: 0,
            nr_mem_id: mem_id,
            ..*body
        };
        self.drop_if_unused(id);
        Ok(())
    }

    fn global_memsize(&self) -> Result<u64, ControlError> {
        self.tunables
            .global_region()
            .lay_out(false)
            .map(|l| l.memsize)
            .map_err(|e| ControlError::new(Errno::EINVAL, format!("tunable {} is out of range", e.name)))
    }

    /// POOLS_INFO_GET.
    ///
    /// # Errors
    /// ENXIO for an empty name; as REGISTER's lookup.
    pub fn pools_info_get(
        &mut self,
        who: Asker,
        name: &str,
        body: &mut nmreq_pools_info,
    ) -> Result<(), ControlError> {
        if name.is_empty() {
            return Err(ControlError::new(Errno::ENXIO, "POOLS_INFO_GET needs the name of a port"));
        }
        let req = nmreq_register { nr_mode: NR_REG_ALL_NIC, nr_mem_id: body.nr_mem_id, ..Default::default() };
        let id = self.look_up(who, name, &req, true)?;
        let entry = self.region_of(self.port(id)?)?;
        let l = entry.region.layout;
        *body = nmreq_pools_info {
            nr_memsize: l.memsize,
            nr_mem_id: entry.mem_id,
            nr_if_pool_offset: l.ifs.offset,
            nr_if_pool_objtotal: l.ifs.objtotal,
            nr_if_pool_objsize: l.ifs.objsize,
            nr_ring_pool_offset: l.rings.offset,
            nr_ring_pool_objtotal: l.rings.objtotal,
            nr_ring_pool_objsize: l.rings.objsize,
            nr_buf_pool_offset: l.bufs.offset,
            nr_buf_pool_objtotal: l.bufs.objtotal,
            nr_buf_pool_objsize: l.bufs.objsize,
            ..*body
        };
        self.drop_if_unused(id);
        Ok(())
    }

    /// VALE_LIST. With an empty name, the next port at or after the position in `body`; returns its name.
    ///
    /// # Errors
    /// EINVAL for a name that is no switch's, ENOENT for an unknown switch and at the end.
    pub fn vale_list(&self, name: &str, body: &mut nmreq_vale_list) -> Result<Option<String>, ControlError> {
        let end = || ControlError::new(Errno::ENOENT, "no more ports");
        if name.is_empty() {
            let mut first_port = body.nr_port_idx;
            for i in usize::from(body.nr_bridge_idx)..self.switches.len() {
                let found = self.switches[i].as_ref().and_then(|s| {
                    let (index, id) = s.ports.range(u8::try_from(first_port).unwrap_or(u8::MAX)..).next()?;
                    Some((*index, self.ports.get(id)?.full_name().to_owned()))
                });
                if let Some((index, name)) = found {
                    body.nr_bridge_idx = i as u16;
                    body.nr_port_idx = index.into();
                    return Ok(Some(name));
                }
                first_port = 0;
            }
            return Err(end());
        }
        if !is_vale_name(name) {
            return Err(ControlError::new(Errno::EINVAL, format!("{name} is not the name of a switch port")));
        }
        let switch_name = name.split(':').next().unwrap_or(name);
        let i = self
            .switch_index(switch_name)
            .ok_or_else(|| ControlError::new(Errno::ENOENT, format!("there is no switch {switch_name}")))?;
        let index = self.names.get(name).and_then(|id| match self.ports.get(id)?.kind {
            Kind::Vale { index, .. } => Some(u32::from(index)),
            _ => None,
        });
        body.nr_bridge_idx = i as u16;
        body.nr_port_idx = index.unwrap_or(NM_BDG_NOPORT);
        Ok(None)
    }

    /// PORT_HDR_SET: the length of the virtio-net header on a switch port's frames, in bytes. If it is not 0, packets that are
    /// segmented for the port may from now on be as long as its buffers.
    ///
    /// # Errors
    /// EINVAL for a length other than 0, 10, 12; ENXIO unless the port exists on a switch; EACCES.
    pub fn port_hdr_set(&mut self, who: Asker, name: &str, hdr_len: u32) -> Result<(), ControlError> {
        if !matches!(hdr_len, 0 | 10 | 12) {
            let text = format!("a virtio-net header has 0, 10 or 12 bytes, not {hdr_len}");
            return Err(ControlError::new(Errno::EINVAL, text));
        }
        let on_switch = |id: &PortId| {
            matches!(self.ports.get(id), Some(PortEntry { kind: Kind::Vale { switch: Some(_), .. }, .. }))
        };
        let id = self.existing(name).filter(on_switch);
        let id =
            id.ok_or_else(|| ControlError::new(Errno::ENXIO, format!("there is no switch port {name}")))?;
        self.check_owner(who, id)?;
        let port = self.port(id)?;
        // The two places of a port on two switches, and frames between them, have one kind of header. An interface has none.
        let other_half = port.wraps().or(port.wrapped_by()).filter(on_switch);
        let buf_size = self.region_of(port)?.region.layout.bufs.objsize;
        for id in [Some(id), other_half].into_iter().flatten() {
            let Some(port) = self.ports.get_mut(&id) else { continue };
            let Kind::Vale { index, page, .. } = &port.kind else { continue };
            port.hdr_len = hdr_len;
            if hdr_len != 0 {
                // Setting 0 does not bring the default back.
                port.mfs = buf_size;
            }
            set_header(&*super::switches::view(page)?, *index, hdr_len, port.mfs);
        }
        Ok(())
    }

    /// PORT_HDR_GET.
    ///
    /// # Errors
    /// ENXIO unless the port exists (ENODEV for a pipe).
    pub fn port_hdr_get(&self, who: Asker, name: &str) -> Result<u32, ControlError> {
        let id = self.existing(name).ok_or_else(|| {
            let no_parent = |parent: &str| is_vale_name(parent) && self.existing(parent).is_none();
            let pipe = ringway_abi::split_pipe(name).is_some_and(|(parent, _, _)| !no_parent(parent));
            let errno = if pipe { Errno::ENODEV } else { Errno::ENXIO };
            ControlError::new(errno, format!("there is no port {name}"))
        })?;
        self.check_owner(who, id)?;
        Ok(self.port(id)?.hdr_len)
    }

    fn existing(&self, name: &str) -> Option<PortId> {
        let netns_id = self.nic_request.netns_id;
        let is_it = |p: &PortEntry| {
            p.name == name && matches!(&p.kind, Kind::Nic(nic) if nic.netns_id() == netns_id && !nic.gone)
        };
        let nic = || self.ports.iter().find(|(_, p)| is_it(p)).map(|(id, _)| *id);
        self.names.get(name).copied().or_else(nic)
    }

    /// Every port, in the order of names. Of others' ports only the name.
    #[must_use]
    pub fn list(&self, who: Asker) -> Vec<PortInfo> {
        let mut out: Vec<PortInfo> = self.ports.keys().map(|id| self.info(who, *id)).collect();
        out.sort_by(|a, b| a.name.cmp(&b.name));
        out
    }

    fn info(&self, who: Asker, id: PortId) -> PortInfo {
        let p = &self.ports[&id];
        let visible = who.may(p.owner);
        let (kind, index) = match &p.kind {
            Kind::Vale { switch, index, .. } => {
                let own = if p.wraps().is_some() { "attached" } else { "vale" };
                (p.persistent_kind().unwrap_or(own), switch.is_some().then_some(*index))
            }
            Kind::Pipe { .. } => ("pipe", None),
            Kind::Null => ("null", None),
            Kind::Monitor(_) => ("monitor", None),
            Kind::Nic(_) => ("nic", None),
        };
        let mut info = PortInfo {
            name: p.full_name().to_owned(),
            kind,
            owner: p.owner,
            visible,
            lease: if self.is_brokered(id) { "brokered" } else { "direct" },
            mode: "",
            watches: String::new(),
            index,
            mem_id: 0,
            slots: (0, 0),
            macs: 0,
            rings: vec![],
            holders: vec![],
        };
        if !visible {
            info.index = None;
            return info;
        }
        if let Kind::Nic(nic) = &p.kind {
            info.mode = nic.path().map_or("not in use", crate::nic::NicPath::name);
        }
        if let Kind::Monitor(watch) = &p.kind {
            info.watches = self.watched_name(watch);
        }
        info.mem_id = self.regions.get(&p.region).map_or(0, |r| r.mem_id);
        info.slots = (p.geometry.tx_slots, p.geometry.rx_slots);
        if let Kind::Vale { page, index, .. } = &p.kind
            && let Ok(page) = super::switches::view(page)
        {
            info.macs = mac_table::count(&page, *index);
        }
        for (dir, rings) in [(Dir::Tx, &p.tx), (Dir::Rx, &p.rx)] {
            for (i, ring) in rings.iter().enumerate() {
                let Some(shared) = RingShared::new(&p.state.map, &p.geometry, dir, i as u16) else {
                    continue;
                };
                let n = shared.num_slots;
                let (told, there) =
                    (shared.state.sync.rtail.load(Relaxed), shared.state.producer.hwtail.load());
                let switch_rx = dir == Dir::Rx
                    && matches!(p.kind, Kind::Vale { .. })
                    && told < n
                    && there < n
                    && !p.is_wrapped();
                let mut counters = Counters::read(&shared.state);
                if let (Kind::Nic(nic), Dir::Rx) = (&p.kind, dir) {
                    nic.add_kernel_drops(i as u16, &mut counters);
                }
                info.rings.push(RingInfo {
                    dir,
                    index: i as u16,
                    users: ring.users,
                    counters,
                    waiting: if switch_rx { crate::kring::distance(n, told, there) } else { 0 },
                });
            }
        }
        for (binding, b) in self.bindings.iter().filter(|(_, b)| b.port == id) {
            let range = |r: &std::ops::Range<u16>| match r.len() {
                0 => "-".to_owned(),
                1 => r.start.to_string(),
                _ => format!("{}-{}", r.start, r.end - 1),
            };
            let only = if b.exclusive { " exclusive" } else { "" };
            let rings = format!("tx {} rx {}{only}", range(&b.tx), range(&b.rx));
            info.holders.push(HolderInfo { binding: *binding, uid: b.uid, rings });
        }
        info
    }
}

fn hints(body: &nmreq_port_info_get) -> nmreq_register {
    nmreq_register {
        nr_mode: NR_REG_ALL_NIC,
        nr_tx_slots: body.nr_tx_slots,
        nr_rx_slots: body.nr_rx_slots,
        nr_tx_rings: body.nr_tx_rings,
        nr_rx_rings: body.nr_rx_rings,
        nr_mem_id: body.nr_mem_id,
        ..Default::default()
    }
}
