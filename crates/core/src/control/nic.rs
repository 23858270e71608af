//! Interfaces as ports: who may open them, their rings over queues, what becomes of them when the interface changes.
//!
//! Source: semantics.md 8, 11, 24; abi.md 9.1.

use super::{Asker, ControlError, Jobs, Kind, PortId, RegionId, Registry};
use crate::adapter::xdp::{held_buffers, note_fresh};
use crate::layout::{Dir, Geometry};
use crate::nic::{NicDevice, NicPath, NicRequest};
use ringway_abi::{Errno, nmreq_register};
use ringway_os::link::{Link, LinkChange, LinkMonitor};
use ringway_os::ring::RING_HEADER_BYTES;
use ringway_os::xdp::XskRings;
use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering::Relaxed;

/// Who may open interfaces. Root always may.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum InterfaceUsers {
    /// Whoever asks.
    #[default]
    All,
    /// These users.
    Some(BTreeSet<u32>),
}

impl InterfaceUsers {
    pub(super) fn permits(&self, who: Asker) -> bool {
        match self {
            InterfaceUsers::All => true,
            InterfaceUsers::Some(users) => who.uid == 0 || users.contains(&who.uid),
        }
    }
}

/// What a name of an interface stands for.
enum Found {
    /// A port.
    Port(PortId),
    /// An interface that nobody has open.
    Link(Box<Link>),
    Nothing,
}

/// Smallest ring size that a device is believed to mean.
const MIN_TOLD_SLOTS: u32 = 3;

impl Registry {
    /// From now on requests are as if they came from there, until this is called again.
    pub fn ask_from(&mut self, request: NicRequest) {
        self.nic_request = request;
    }

    /// The interface called `name` in the asker's namespace: its port, found or made. None: there is no such interface.
    pub(super) fn look_up_nic(
        &mut self,
        who: Asker,
        name: &str,
        req: &nmreq_register,
        create: bool,
    ) -> Result<Option<PortId>, ControlError> {
        match self.find_nic(who, name)? {
            Found::Port(id) => Ok(Some(id)),
            Found::Link(link) if create => {
                let region = match req.nr_mem_id {
                    0 => self.global_region(who.uid)?,
                    id => self.find_region(who, id)?,
                };
                self.make_nic(who, &link, region).map(Some)
            }
            Found::Link(_) | Found::Nothing => Ok(None),
        }
    }

    /// As `look_up_nic`, for an interface that is to join a switch: unless a region is named, one of its own is made, with room for
    /// what stands for it there.
    pub(super) fn nic_for_switch(
        &mut self,
        who: Asker,
        name: &str,
        reg: &nmreq_register,
    ) -> Result<Option<PortId>, ControlError> {
        let link = match self.find_nic(who, name)? {
            Found::Port(id) => return Ok(Some(id)),
            Found::Link(link) => link,
            Found::Nothing => return Ok(None),
        };
        let region = if reg.nr_mem_id == 0 {
            let device = NicDevice::new(&self.nic_request, &link, self.tunables.admode);
            let most = most_slots(self.tunables.global_region().rings.objsize);
            let geometry = nic_geometry(&link, most, self.tunables.generic_ringsize, device.is_packet())?;
            self.make_private_region(who.uid, &self.wrapper_region_wish(&geometry))?
        } else {
            self.find_region(who, reg.nr_mem_id)?
        };
        self.make_nic(who, &link, region).map(Some)
    }

    /// The interface called `name` in the asker's namespace, if the asker may open it.
    fn find_nic(&self, who: Asker, name: &str) -> Result<Found, ControlError> {
        let request = &self.nic_request;
        let link = match NicDevice::find(request, name) {
            Ok(link) => link,
            Err(e) if matches!(e.raw_os_error(), Some(ENODEV | EINVAL)) => return Ok(Found::Nothing),
            Err(e) => {
                let text = format!("cannot look for interface {name}: {e}");
                let permission = e.kind() == io::ErrorKind::PermissionDenied;
                let hint = if permission {
                    "; the broker needs CAP_SYS_ADMIN to enter the client's network namespace"
                } else {
                    ""
                };
                let errno =
                    if permission { Errno::EPERM } else { Errno(e.raw_os_error().unwrap_or(Errno::EIO.0)) };
                return Err(ControlError::new(errno, text + hint));
            }
        };
        if !self.interface_users.permits(who) {
            let text = format!(
                "interface {name}: user {} may not open interfaces; the broker's configuration names who may ([interfaces] users)",
                who.uid
            );
            return Err(ControlError::new(Errno::EACCES, text));
        }
        let key = nic_key(request.netns_id, link.ifindex);
        if let Some(id) = self.names.get(&key).copied() {
            self.check_owner(who, id)?;
            if let Kind::Nic(nic) = &self.port(id)?.kind
                && !nic.serves(request.mode)
            {
                let how = nic.path().map_or("another way", NicPath::name);
                let text = format!("{name} is open already, by {how}; that cannot be changed while it is");
                return Err(ControlError::new(Errno::EBUSY, text));
            }
            return Ok(Found::Port(id));
        }
        Ok(Found::Link(Box::new(link)))
    }

    fn make_nic(&mut self, who: Asker, link: &Link, region: RegionId) -> Result<PortId, ControlError> {
        let device = NicDevice::new(&self.nic_request, link, self.tunables.admode);
        let key = nic_key(self.nic_request.netns_id, link.ifindex);
        let rings = self.regions.get(&region).map(|r| most_slots(r.region.layout.rings.objsize));
        let made = self
            .watch_netns(&device)
            .and_then(|()| rings.ok_or_else(|| ControlError::new(Errno::ENXIO, "the region is gone")))
            .and_then(|most| nic_geometry(link, most, self.tunables.generic_ringsize, device.is_packet()))
            .and_then(|geometry| self.insert_nic(who, &key, region, geometry, device));
        if made.is_err() {
            self.discard_unused_region(region);
            self.drop_unused_monitors();
        }
        made
    }

    fn insert_nic(
        &mut self,
        who: Asker,
        key: &str,
        region: RegionId,
        geometry: Geometry,
        device: NicDevice,
    ) -> Result<PortId, ControlError> {
        let id = PortId(self.fresh_id());
        let name = device.name.clone();
        self.insert_port(who, id, &name, region, geometry, false, Kind::Nic(Box::new(device)))?;
        self.names.insert(key.to_owned(), id);
        Ok(id)
    }

    /// Opens the queues of rings that were just bound. Nothing is left open that was not before, if it fails.
    pub(super) fn open_queues(
        &mut self,
        id: PortId,
        tx: &Range<u16>,
        rx: &Range<u16>,
    ) -> Result<(), ControlError> {
        let queues: BTreeSet<u16> = tx.clone().chain(rx.clone()).collect();
        for index in queues {
            let port = self.ports.get_mut(&id).ok_or_else(gone)?;
            let region = &self.regions.get(&port.region).ok_or_else(gone)?.region;
            let slots = (port.geometry.tx_slots, port.geometry.rx_slots);
            let Kind::Nic(nic) = &mut port.kind else { return Ok(()) };
            if nic.gone {
                return Err(ControlError::new(Errno::ENXIO, format!("interface {} is gone", nic.name)));
            }
            nic.open_queue(index, region, slots)?;
            if rx.contains(&index) {
                self.start_receiving(id, index)?;
            }
        }
        Ok(())
    }

    /// Gives the queue of an open RX ring the ring's buffers, if it does not have them, and its frames.
    fn start_receiving(&mut self, id: PortId, index: u16) -> Result<(), ControlError> {
        let handle = self.handle(id, Dir::Rx, index).ok_or_else(gone)?;
        let layout = self.region_of(self.port(id)?)?.region.layout;
        let port = self.ports.get_mut(&id).ok_or_else(gone)?;
        let Kind::Nic(nic) = &mut port.kind else { return Ok(()) };
        let filled = &mut port.rx[usize::from(index)].filled;
        if let (false, Some(path), Some((socket, sizes))) = (*filled, nic.path(), nic.queue(index))
            && path != NicPath::Packet
        {
            let fail = |e: &dyn std::fmt::Display| {
                ControlError::new(
                    Errno::ENOMEM,
                    format!("{}: cannot give buffers to the kernel: {e}", nic.name),
                )
            };
            let umem = path.umem(&layout).map_err(|e| fail(&e))?;
            let mut rings = XskRings::map(socket.as_fd(), &sizes).map_err(|e| fail(&e))?;
            let addrs = handle.ring.slots.iter().filter_map(|s| umem.fill_addr(handle.valid_buf(s.load())));
            let n = rings.fill.push(addrs);
            note_fresh(&handle, n);
            *filled = true;
        }
        nic.start_receiving(index)
    }

    /// Nobody has the ring bound any more. The queue closes with its last ring. Returns the buffers that it had.
    pub(super) fn close_nic_ring(&mut self, id: PortId, dir: Dir, index: u16) -> Vec<u32> {
        let i = usize::from(index);
        let Some(port) = self.ports.get_mut(&id) else { return vec![] };
        let used = |rings: &[super::RingUse]| rings.get(i).is_some_and(|r| r.users > 0);
        let in_use = used(&port.tx) || used(&port.rx);
        let Kind::Nic(nic) = &mut port.kind else { return vec![] };
        if dir == Dir::Rx {
            nic.stop_receiving(index);
        }
        if in_use {
            return vec![];
        }
        let owned = self.collect_queue(id, index, None);
        let Some(port) = self.ports.get_mut(&id) else { return vec![] };
        let Kind::Nic(nic) = &mut port.kind else { return vec![] };
        let (owner, socket) = (port.owner, nic.close_queue(index));
        let offsets = [port.tx.get_mut(i), port.rx.get_mut(i)].map(|ring| {
            let ring = ring?;
            ring.filled = false;
            ring.offset.take()
        });
        if let Some(entry) = self.regions.get_mut(&port.region) {
            offsets.into_iter().flatten().for_each(|ofs| entry.region.drop_ring(ofs));
        }
        if let Some(socket) = socket {
            self.retire_socket(owner, socket);
        }
        owned
    }

    /// The buffers of a queue: those in the slots that the client has, and those in the kernel's rings. What is on its way through the
    /// kernel right now is missing; it returns with the region.
    pub(super) fn collect_queue(&self, id: PortId, index: u16, jobs: Option<&Jobs>) -> Vec<u32> {
        let handles = [Dir::Tx, Dir::Rx].map(|dir| self.live_ring(jobs, id, dir, index));
        let Some(Kind::Nic(nic)) = self.ports.get(&id).map(|p| &p.kind) else { return vec![] };
        let all = |h: &crate::kring::RingHandle| h.ring.slots.iter().map(|s| s.load().buf_idx()).collect();
        let opened = nic.queue(index).zip(nic.path()).filter(|(_, path)| *path != NicPath::Packet);
        let Some(((socket, sizes), path)) = opened else {
            // A slot keeps its buffer, or none was ever given away.
            return handles.iter().flatten().flat_map(|h| -> Vec<u32> { all(h) }).collect();
        };
        let Ok(entry) = self.ports.get(&id).ok_or_else(gone).and_then(|p| self.region_of(p)) else {
            return vec![];
        };
        let Some((umem, rings)) =
            path.umem(&entry.region.layout).ok().zip(XskRings::map(socket.as_fd(), &sizes).ok())
        else {
            return vec![];
        };
        let mut out = vec![];
        if let Some(tx) = &handles[0] {
            out.extend(held_buffers(tx, (rings.tx.producer_count(), rings.comp.consumer_count())));
            out.extend(rings.tx.unsent().filter_map(|d| umem.buf_of_addr(d.addr)));
            out.extend((0..rings.comp.available()).filter_map(|i| umem.buf_of_addr(rings.comp.get(i))));
        }
        if let Some(rx) = &handles[1] {
            let filled = self.ports.get(&id).is_some_and(|p| p.rx[usize::from(index)].filled);
            if filled {
                out.extend(held_buffers(rx, (rings.fill.producer_count(), rings.rx.consumer_count())));
            } else {
                out.extend::<Vec<u32>>(all(rx));
            }
            out.extend(rings.fill.unread().filter_map(|a| umem.buf_of_fill_addr(a)));
            out.extend((0..rings.rx.available()).filter_map(|i| umem.buf_of_addr(rings.rx.get(i).addr)));
        }
        out
    }

    /// Watches the interfaces of the device's namespace, if nobody does yet.
    fn watch_netns(&mut self, device: &NicDevice) -> Result<(), ControlError> {
        let netns_id = device.netns_id();
        if self.monitors.iter().any(|(id, _)| *id == netns_id) {
            return Ok(());
        }
        let opened = self.nic_request.in_netns(LinkMonitor::open).and_then(|m| m);
        let monitor = opened.map_err(|e| {
            ControlError::new(Errno::ENOMEM, format!("cannot watch interface {}: {e}", device.name))
        })?;
        self.monitors.push((netns_id, monitor));
        Ok(())
    }

    pub(super) fn drop_unused_monitors(&mut self) {
        let used: BTreeSet<u64> = self
            .ports
            .values()
            .filter_map(|p| if let Kind::Nic(nic) = &p.kind { Some(nic.netns_id()) } else { None })
            .collect();
        self.monitors.retain(|(id, _)| used.contains(id));
    }

    /// What tells of changes of interfaces: one fd per network namespace, with its id. To be polled; then
    /// [`Registry::interface_news`].
    pub fn monitors(&self) -> impl Iterator<Item = (u64, BorrowedFd<'_>)> {
        self.monitors.iter().map(|(id, m)| (*id, m.as_fd()))
    }

    /// Takes in what happened to interfaces of namespace `netns_id`. It may take rings away: the worker is at rest.
    pub fn interface_news(&mut self, netns_id: u64) {
        let Some((_, monitor)) = self.monitors.iter_mut().find(|(id, _)| *id == netns_id) else { return };
        let Ok(events) = monitor.events() else { return };
        for event in events {
            let key = nic_key(netns_id, event.ifindex);
            let Some(port) = self.names.get(&key).and_then(|id| self.ports.get_mut(id)) else { continue };
            let Kind::Nic(nic) = &mut port.kind else { continue };
            match event.change {
                LinkChange::Deleted => {
                    nic.gone = true;
                    let id = self.names.remove(&key);
                    if let Some(id) = id {
                        self.stop_port(id);
                        self.unwrap_gone(id);
                    }
                }
                LinkChange::Renamed(name) => {
                    port.name.clone_from(&name);
                    nic.name = name;
                }
                LinkChange::MtuChanged(mtu) => nic.set_mtu(mtu),
                LinkChange::Added(_) | LinkChange::Up | LinkChange::Down | LinkChange::Carrier(_) => {}
            }
        }
    }

    /// Syncs of the port's rings fail from now on; whoever sleeps hears of it.
    fn stop_port(&self, id: PortId) {
        let Some(port) = self.ports.get(&id) else { return };
        for dir in [Dir::Tx, Dir::Rx] {
            for i in 0..port.geometry.rings(dir) {
                if let Some(ring) = crate::layout::RingShared::new(&port.state.map, &port.geometry, dir, i) {
                    ring.state.sync.stopped.store(1, Relaxed);
                    ring.state.sleep.owner.take_any();
                }
            }
        }
        port.notice.ring();
    }
}

const ENODEV: i32 = Errno::ENODEV.0;
const EINVAL: i32 = Errno::EINVAL.0;

/// Under which an interface's port is found: no name of another port has a slash in front.
pub(super) fn nic_key(netns_id: u64, ifindex: u32) -> String {
    format!("/{netns_id}/{ifindex}")
}

/// Slots that a ring object of so many bytes holds.
fn most_slots(ring_bytes: u32) -> u32 {
    (ring_bytes.saturating_sub(RING_HEADER_BYTES as u32) / 16).max(2)
}

/// Rings as the device has queues, slots as it says, `most` at most.
fn nic_geometry(
    link: &Link,
    most: u32,
    default_slots: i32,
    is_packet: bool,
) -> Result<Geometry, ControlError> {
    let default_slots = u32::try_from(default_slots).unwrap_or(0);
    let slots = |now: u32, max: u32| {
        let told = [now, max].into_iter().find(|n| *n >= MIN_TOLD_SLOTS);
        told.unwrap_or(default_slots)
    };
    let rings = link.rings.unwrap_or_default();
    let (tx, rx) = (slots(rings.tx, rings.tx_max), slots(rings.rx, rings.rx_max));
    if tx < 2 || rx < 2 {
        let text = format!(
            "{} does not tell the size of its rings, and tunable generic_ringsize is {default_slots}",
            link.name
        );
        return Err(ControlError::new(Errno::EINVAL, text));
    }
    let queues = |n: u32| if is_packet { 1 } else { n.clamp(1, crate::nic::MAX_QUEUES) as u16 };
    Ok(Geometry {
        tx_rings: queues(link.num_tx_queues),
        rx_rings: queues(link.num_rx_queues),
        tx_slots: tx.min(most),
        rx_slots: rx.min(most),
    })
}

fn gone() -> ControlError {
    ControlError::new(Errno::ENXIO, "the port is gone")
}
