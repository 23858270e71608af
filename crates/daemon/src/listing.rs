//! What there is, as data: ports and the broker itself. The same structures in the broker's JSON and in the programs that show it.

use ringway_core::control::{BindingId, HeldLock, LockKind, PortInfo, RegionAudit};
use ringway_core::layout::Dir;
use ringway_core::stats::Counters;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Counters of a direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Packets taken from TX rings, or received.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Syncs.
    pub syncs: u64,
    /// TX on a switch: copies that reached a receive ring.
    #[serde(default)]
    pub delivered: u64,
    /// TX on a switch: copies beyond the first of each packet. `packets + extra_copies = delivered +` all drops.
    #[serde(default)]
    pub extra_copies: u64,
    /// Dropped, by reason.
    pub drops: BTreeMap<String, u64>,
}

impl From<&Counters> for Traffic {
    fn from(c: &Counters) -> Self {
        let drops = c.drops_by_name().map(|(n, v)| (n.to_owned(), v)).collect();
        Traffic {
            packets: c.packets,
            bytes: c.bytes,
            syncs: c.syncs,
            delivered: c.delivered,
            extra_copies: c.extra_copies,
            drops,
        }
    }
}

/// A descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Process that opened it.
    pub pid: u32,
    /// User.
    pub uid: u32,
    /// Rings bound.
    pub rings: String,
}

/// One ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ring {
    /// `tx` or `rx`.
    pub dir: String,
    /// Index.
    pub index: u16,
    /// Descriptors that have it bound.
    pub users: u32,
    /// Packets that wait to be received.
    pub waiting: u32,
    /// Counters.
    #[serde(flatten)]
    pub traffic: Traffic,
}

/// One port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Name.
    pub name: String,
    /// `vale`, `persistent`, `parent` (made by a pipe for itself), `attached` (stands for an interface on a switch), `pipe`, `null`,
    /// `nic`, `monitor`.
    pub kind: String,
    /// Who runs its syncs.
    pub lease: String,
    /// How an interface is reached (`xdp native copy`, `af_packet` ...); empty for other ports.
    #[serde(default)]
    pub mode: String,
    /// The port that a monitor watches; empty for other ports.
    #[serde(default)]
    pub watches: String,
    /// Owner's user number.
    pub owner: u32,
    /// False: it belongs to somebody else, and only the name is shown.
    pub visible: bool,
    /// Index on its switch.
    pub index: Option<u8>,
    /// Region.
    pub mem_id: u16,
    /// Slots of TX and RX rings.
    pub slots: (u32, u32),
    /// Addresses learned on it.
    pub macs: usize,
    /// Sum over TX rings.
    pub tx: Traffic,
    /// Sum over RX rings.
    pub rx: Traffic,
    /// Rings.
    pub rings: Vec<Ring>,
    /// Descriptors.
    pub holders: Vec<Holder>,
}

/// The broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// Process.
    pub pid: u32,
    /// User.
    pub uid: u32,
    /// Socket.
    pub socket: String,
    /// Seconds since it began.
    pub uptime_s: u64,
    /// Connections.
    pub sessions: usize,
    /// Bound descriptors.
    pub bindings: usize,
    /// Processes attached.
    pub attachments: usize,
    /// Files that clients sent or were lent, and that wait to be closed.
    pub closing: usize,
    /// Ports.
    pub ports: usize,
    /// Locks of dead processes broken since it began.
    pub locks_broken: u64,
    /// The device file: its path, or why there is none.
    #[serde(default)]
    pub device: String,
    /// CPU time that it has used, in nanoseconds.
    pub cpu_ns: u64,
}

/// Where the buffers of a region are. `free + in_rings + in_lists + held + lost = bufs + twice`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionBuffers {
    /// Id of the region.
    pub mem_id: u16,
    /// Its user.
    pub owner: u32,
    /// Buffers.
    pub bufs: u32,
    /// In the pool.
    pub free: u32,
    /// In rings.
    pub in_rings: u32,
    /// On lists of extra buffers.
    pub in_lists: u32,
    /// In the hands of programs, which were granted as many extra buffers.
    pub held: u32,
    /// Owners too many.
    pub twice: u32,
    /// Without an owner until the region goes; on an interface also those on their way through the kernel.
    pub lost: u32,
    /// Places in rings that name no buffer, or a free one.
    pub bad: u32,
}

/// A lock that a process holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// Name of the port.
    pub port: String,
    /// `tx` or `rx`.
    pub dir: String,
    /// Index of the ring.
    pub ring: u16,
    /// `sync`, `senders` or `post`.
    pub kind: String,
    /// The holder's process; 0 if it is gone.
    pub pid: u32,
}

/// The invariants of a broker, looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// Every region that the asker may see.
    pub regions: Vec<RegionBuffers>,
    /// Locks held at this moment.
    pub locks: Vec<Lock>,
}

/// What an audit found, for people and scripts.
#[must_use]
pub fn audit(regions: &[RegionAudit], locks: &[HeldLock], pid_of: impl Fn(u32) -> u32) -> Audit {
    let region = |r: &RegionAudit| RegionBuffers {
        mem_id: r.mem_id,
        owner: r.owner,
        bufs: r.bufs,
        free: r.free,
        in_rings: r.in_rings,
        in_lists: r.in_lists,
        held: r.held,
        twice: r.twice,
        lost: r.lost,
        bad: r.bad,
    };
    let lock = |l: &HeldLock| Lock {
        port: l.port.clone(),
        dir: dir_name(l.dir),
        ring: l.ring,
        kind: match l.kind {
            LockKind::Sync => "sync",
            LockKind::Senders => "senders",
            LockKind::Post => "post",
        }
        .to_owned(),
        pid: pid_of(l.holder),
    };
    Audit { regions: regions.iter().map(region).collect(), locks: locks.iter().map(lock).collect() }
}

fn dir_name(dir: Dir) -> String {
    if dir == Dir::Tx { "tx" } else { "rx" }.to_owned()
}

/// A port for people and scripts.
#[must_use]
pub fn port(info: &PortInfo, pid_of: impl Fn(BindingId) -> u32) -> Port {
    let sum = |dir: Dir| {
        let mut total = Counters::default();
        info.rings.iter().filter(|r| r.dir == dir).for_each(|r| total.merge(&r.counters));
        Traffic::from(&total)
    };
    Port {
        name: info.name.clone(),
        kind: info.kind.to_owned(),
        lease: info.lease.to_owned(),
        mode: info.mode.to_owned(),
        watches: info.watches.clone(),
        owner: info.owner,
        visible: info.visible,
        index: info.index,
        mem_id: info.mem_id,
        slots: info.slots,
        macs: info.macs,
        tx: sum(Dir::Tx),
        rx: sum(Dir::Rx),
        rings: info
            .rings
            .iter()
            .map(|r| Ring {
                dir: dir_name(r.dir),
                index: r.index,
                users: r.users,
                waiting: r.waiting,
                traffic: Traffic::from(&r.counters),
            })
            .collect(),
        holders: info
            .holders
            .iter()
            .map(|h| Holder { pid: pid_of(h.binding), uid: h.uid, rings: h.rings.clone() })
            .collect(),
    }
}
