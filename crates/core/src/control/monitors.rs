//! Monitors: made by every open, one for each; what they watch, and until when.
//!
//! A monitor keeps its parent's object, not its netmap mode: when the last descriptor of the parent goes, the monitor's syncs fail for
//! good. Which rings the broker's worker serves because of monitors is decided here; how, in `brokered`.
//!
//! Source: semantics.md 22, abi.md 9.1.

use super::bind::select;
use super::jobs::{Jobs, RingKey};
use super::{Asker, ControlError, Kind, PortEntry, PortId, RegionId, Registry};
use crate::adapter::monitor::{Seen, Sink, Span, Watchers, copy_slots};
use crate::layout::{Dir, Geometry, RegionWish, RingShared};
use ringway_abi::{Errno, NR_MONITOR_RX, NR_MONITOR_TX, NR_ZCOPY_MON, nmreq_register};
use std::sync::atomic::Ordering::Relaxed;

/// Slots of a monitor's rings.
const MAX_SLOTS: u32 = 4096;
/// Any of these makes a request one for a monitor.
pub(super) const MONITOR_FLAGS: u64 = NR_MONITOR_TX | NR_MONITOR_RX | NR_ZCOPY_MON;

/// What a monitor watches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    pub parent: PortId,
    tx: bool,
    rx: bool,
    pub zcopy: bool,
    /// The parent has been in netmap mode ever since.
    pub alive: bool,
}

impl Watch {
    fn has(&self, dir: Dir) -> bool {
        if dir == Dir::Tx { self.tx } else { self.rx }
    }
}

/// The flags of a request as they are told back: zero-copy means both directions.
pub(super) fn told_flags(nr_flags: u64) -> u64 {
    if nr_flags & NR_ZCOPY_MON != 0 { nr_flags | NR_MONITOR_TX | NR_MONITOR_RX } else { nr_flags }
}

impl Registry {
    /// A new monitor of the port that the rest of the request names.
    pub(super) fn make_monitor(
        &mut self,
        who: Asker,
        name: &str,
        req: &nmreq_register,
        create: bool,
    ) -> Result<PortId, ControlError> {
        let plain = nmreq_register { nr_flags: req.nr_flags & !MONITOR_FLAGS, ..*req };
        let parent = self.look_up(who, name, &plain, create)?;
        let made = self.monitor_of(who, parent, req);
        if made.is_err() {
            self.drop_if_unused(parent);
        }
        made
    }

    fn monitor_of(
        &mut self,
        who: Asker,
        parent: PortId,
        req: &nmreq_register,
    ) -> Result<PortId, ControlError> {
        self.check_owner(who, parent)?;
        let port = self.port(parent)?;
        if port.bindings == 0 {
            let text = format!("{}: nobody has the port open, so there is nothing to monitor", port.name);
            return Err(ControlError::new(Errno::EINVAL, text));
        }
        select(port.geometry.tx_rings, port.geometry.rx_rings, req).map_err(|e| e.on(&port.name))?;
        let slots = |asked: u32, default: u32| if asked == 0 { default } else { asked.clamp(2, MAX_SLOTS) };
        let geometry = Geometry {
            tx_rings: 1,
            rx_rings: port.geometry.tx_rings.max(port.geometry.rx_rings),
            tx_slots: slots(req.nr_tx_slots, port.geometry.tx_slots),
            rx_slots: slots(req.nr_rx_slots, port.geometry.rx_slots),
        };
        let flags = told_flags(req.nr_flags);
        let zcopy = flags & NR_ZCOPY_MON != 0;
        let (tx, rx) = (flags & NR_MONITOR_TX != 0, flags & NR_MONITOR_RX != 0);
        let watch = Watch { parent, tx, rx, zcopy, alive: true };
        let letters = [("z", zcopy), ("r", rx), ("t", tx)];
        let letters: String = letters.iter().filter(|(_, on)| *on).map(|(l, _)| *l).collect();
        let name = format!("{}/{letters}#{}", port.name, port.next_monitor);
        let region = if zcopy { port.region } else { self.copy_region(who, &geometry)? };
        let id = PortId(self.fresh_id());
        if let Err(e) = self.insert_port(who, id, &name, region, geometry, false, Kind::Monitor(watch)) {
            self.discard_unused_region(region);
            return Err(e);
        }
        if let Some(port) = self.ports.get_mut(&parent) {
            port.monitors += 1;
            port.next_monitor += 1;
        }
        Ok(id)
    }

    fn copy_region(&mut self, who: Asker, geometry: &Geometry) -> Result<RegionId, ControlError> {
        let wish = RegionWish::for_port(&self.tunables.private_region(), geometry, 0, 0);
        self.make_private_region(who.uid, &wish)
    }

    /// A monitor's last descriptor is gone.
    pub(super) fn monitor_left(&mut self, parent: PortId) {
        if let Some(port) = self.ports.get_mut(&parent) {
            port.monitors -= 1;
        }
        self.drop_if_unused(parent);
    }

    /// The port leaves netmap mode: syncs of its monitors fail from now on.
    pub(super) fn stop_monitors_of(&mut self, parent: PortId) {
        for port in self.ports.values_mut() {
            let Kind::Monitor(watch) = &mut port.kind else { continue };
            if watch.parent != parent {
                continue;
            }
            watch.alive = false;
            for i in 0..port.geometry.rx_rings {
                if let Some(ring) = RingShared::new(&port.state.map, &port.geometry, Dir::Rx, i) {
                    ring.state.sync.stopped.store(1, Relaxed);
                }
            }
        }
    }

    /// Monitors that see something, in the order in which they were opened.
    fn living_monitors(&self) -> Vec<(PortId, &PortEntry, Watch)> {
        let mut out: Vec<_> = self
            .ports
            .iter()
            .filter_map(|(id, port)| match port.kind {
                Kind::Monitor(watch) if watch.alive && port.rx.iter().any(|r| r.offset.is_some()) => {
                    Some((*id, port, watch))
                }
                _ => None,
            })
            .collect();
        out.sort_by_key(|(id, ..)| *id);
        out
    }

    /// Ports that a monitor watches now.
    pub(super) fn watched_ports(&self) -> Vec<PortId> {
        self.living_monitors().into_iter().map(|(_, _, watch)| watch.parent).collect()
    }

    /// Rings of monitors, and receive rings of switch ports from which zero-copy monitors take buffers.
    pub(super) fn monitor_rings(&self) -> Vec<RingKey> {
        let mut out = vec![];
        for (id, port, watch) in self.living_monitors() {
            for (i, ring) in port.rx.iter().enumerate().filter(|(_, r)| r.offset.is_some()) {
                let index = i as u16;
                out.push(RingKey { port: id, is_tx: false, index, epoch: ring.epoch });
                let parent = self.ports.get(&watch.parent).filter(|_| watch.zcopy);
                let Some(PortEntry { kind: Kind::Vale { .. }, rx, .. }) = parent else { continue };
                if let Some(ring) = rx.get(i).filter(|r| r.offset.is_some()) {
                    out.push(RingKey { port: watch.parent, is_tx: false, index, epoch: ring.epoch });
                }
            }
        }
        out
    }

    fn sink(&self, jobs: &Jobs, monitor: PortId, index: u16) -> Option<Sink> {
        let port = self.ports.get(&monitor)?;
        let epoch = port.rx.get(usize::from(index))?.epoch;
        let ring = jobs.held(&RingKey { port: monitor, is_tx: false, index, epoch })?.clone();
        let public = RingShared::new(&port.state.map, &port.geometry, Dir::Rx, index)?;
        Some(Sink { ring, public, bell: port.notice.bell().clone() })
    }

    /// Who watches ring `index` of a port in one direction.
    pub(super) fn watchers(&self, jobs: &Jobs, port: PortId, dir: Dir, index: u16) -> Watchers {
        let mut out = Watchers::default();
        for (id, _, watch) in self.living_monitors() {
            if watch.parent != port || !watch.has(dir) {
                continue;
            }
            match self.sink(jobs, id, index) {
                Some(sink) if !watch.zcopy => out.copies.push(sink),
                Some(sink) if out.zcopy.is_none() => out.zcopy = Some(sink),
                _ => {}
            }
        }
        out
    }

    /// The zero-copy monitor that sees what this one releases from ring `index`.
    pub(super) fn next_in_chain(&self, jobs: &Jobs, monitor: PortId, index: u16) -> Option<Sink> {
        let Kind::Monitor(own) = self.ports.get(&monitor)?.kind else { return None };
        if !own.zcopy {
            return None;
        }
        self.living_monitors()
            .into_iter()
            .filter(|(id, _, watch)| *id > monitor && watch.parent == own.parent && watch.zcopy)
            .find_map(|(id, ..)| self.sink(jobs, id, index))
    }

    /// A copy monitor that has just come sees what the watched end of a pipe has not taken in yet.
    pub(super) fn show_what_waits(&self, jobs: &Jobs, monitor: &RingKey) {
        let Some(Kind::Monitor(watch)) = self.ports.get(&monitor.port).map(|p| &p.kind) else { return };
        let Some(end) = self.ports.get(&watch.parent) else { return };
        let Kind::Pipe { peer, .. } = end.kind else { return };
        if watch.zcopy || !watch.rx {
            return;
        }
        let held = |port, is_tx| {
            let entry = self.ports.get(&port)?;
            let ring = if is_tx { &entry.tx } else { &entry.rx }.get(usize::from(monitor.index))?;
            jobs.held(&RingKey { port, is_tx, index: monitor.index, epoch: ring.epoch })
        };
        let (Some(tx), Some(rx)) = (held(peer, true), held(watch.parent, false)) else { return };
        let Some(sink) = self.sink(jobs, monitor.port, monitor.index) else { return };
        let span = Span { num_slots: tx.num_slots(), from: rx.load(0).rtail, to: tx.load(0).hwcur };
        copy_slots(&sink, tx, span, Seen::Rx);
    }

    /// Name of the port that a monitor watches.
    pub(super) fn watched_name(&self, watch: &Watch) -> String {
        let name = self.ports.get(&watch.parent).map_or("", |p| p.name.as_str());
        if watch.alive { name.to_owned() } else { format!("{name} (closed)") }
    }
}
