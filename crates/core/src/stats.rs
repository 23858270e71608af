//! Counters of a ring: every packet, and every drop with its reason.
//!
//! They are written under the sync lock by whoever syncs the ring (one writer at a time). For a switch port
//! `packets + extra_copies = delivered + the sum of all drops`, and what was delivered to a receive ring is
//! what its owner received, plus what it still holds, plus what it held when it was closed.

use ringway_os::state::RingState;

/// What is counted, besides drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Stat {
    /// TX: packets taken from the ring. RX: packets received.
    Packets = 0,
    /// Their bytes.
    Bytes = 1,
    /// TX on a switch: copies that reached a receive ring.
    Delivered = 2,
    /// TX on a switch: copies beyond the first of each packet (floods, segmentation).
    ExtraCopies = 3,
    /// Syncs that ran.
    Syncs = 4,
    /// Syncs that found illegal `head` or `cur`.
    BadRing = 6,
    /// Doorbells rung.
    Rings = 7,
    /// Packets that a process killed or stopped inside a sync left undone, as far as known.
    Repaired = 8,
}

/// Why a packet (on a switch: a copy of it) was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Drop {
    /// Fewer than 14 bytes in the first slot, after the virtio-net header if the port has one.
    Short = 12,
    /// The slot's length is above the buffer size, or its buffer index is out of range.
    BadSlot = 13,
    /// More than 64 slots.
    TooManySlots = 14,
    /// The destination is the port that it came from.
    ToSelf = 15,
    /// No other port on the switch, or the port sits on none.
    NoReceiver = 16,
    /// The destination's receive ring was full.
    ReceiverFull = 17,
    /// Another sender held the destination for longer than the bound (it was stopped, or died).
    ReceiverBusy = 18,
    /// The destination has not bound that ring, or it left meanwhile.
    ReceiverGone = 19,
    /// The destination's virtio-net header has another length, and what ours asks for cannot be done.
    BadHeader = 20,
    /// An indirect payload could not be read.
    Indirect = 21,
    /// The batch of a process that was killed inside a sync.
    Interrupted = 22,
    /// The interface did not take it.
    Device = 23,
}

impl Drop {
    /// All reasons.
    pub const ALL: [Drop; 12] = [
        Drop::Short,
        Drop::BadSlot,
        Drop::TooManySlots,
        Drop::ToSelf,
        Drop::NoReceiver,
        Drop::ReceiverFull,
        Drop::ReceiverBusy,
        Drop::ReceiverGone,
        Drop::BadHeader,
        Drop::Indirect,
        Drop::Interrupted,
        Drop::Device,
    ];

    /// The name in listings and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Drop::Short => "short",
            Drop::BadSlot => "bad_slot",
            Drop::TooManySlots => "too_many_slots",
            Drop::ToSelf => "to_self",
            Drop::NoReceiver => "no_receiver",
            Drop::ReceiverFull => "receiver_full",
            Drop::ReceiverBusy => "receiver_busy",
            Drop::ReceiverGone => "receiver_gone",
            Drop::BadHeader => "bad_header",
            Drop::Indirect => "indirect",
            Drop::Interrupted => "interrupted",
            Drop::Device => "device",
        }
    }
}

/// Adds to a counter. Only the holder of the ring's sync lock may.
#[inline]
pub fn add(state: &RingState, stat: Stat, n: u64) {
    state.counters[stat as usize].add(n);
}

/// The low half of a counter: what a journal notes of it.
#[inline]
#[must_use]
pub fn low(state: &RingState, stat: Stat) -> u32 {
    state.counters[stat as usize].get() as u32
}

/// Counts dropped packets. Only the holder of the ring's sync lock may.
#[inline]
pub(crate) fn drop_packets(state: &RingState, reason: Drop, n: u64) {
    if n > 0 {
        state.counters[reason as usize].add(n);
    }
}

/// Counters of one ring, or the sum of several, as plain numbers, since the rings were made. On a switch port
/// `packets + extra_copies = delivered + all_drops()`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// TX: packets taken from the ring. RX: packets received. ([`Stat::Packets`])
    pub packets: u64,
    /// Their bytes. ([`Stat::Bytes`])
    pub bytes: u64,
    /// TX on a switch: copies that reached a receive ring. ([`Stat::Delivered`])
    pub delivered: u64,
    /// TX on a switch: copies beyond the first of each packet. ([`Stat::ExtraCopies`])
    pub extra_copies: u64,
    /// Syncs that ran. ([`Stat::Syncs`])
    pub syncs: u64,
    /// Syncs that found illegal `head` or `cur`. ([`Stat::BadRing`])
    pub bad_rings: u64,
    /// Doorbells rung: sleepers woken. ([`Stat::Rings`])
    pub rings: u64,
    /// Packets (on a switch: copies) that went nowhere, by reason, in the order of [`Drop::ALL`].
    pub drops: [u64; Drop::ALL.len()],
}

impl Counters {
    /// Reads the counters of a ring. Counters of a running ring may belong to different moments.
    #[must_use]
    pub fn read(state: &RingState) -> Self {
        let get = |stat: Stat| state.counters[stat as usize].get();
        Counters {
            packets: get(Stat::Packets),
            bytes: get(Stat::Bytes),
            delivered: get(Stat::Delivered),
            extra_copies: get(Stat::ExtraCopies),
            syncs: get(Stat::Syncs),
            bad_rings: get(Stat::BadRing),
            rings: get(Stat::Rings),
            drops: Drop::ALL.map(|d| state.counters[d as usize].get()),
        }
    }

    /// Adds those of another ring.
    pub fn merge(&mut self, other: &Counters) {
        for (a, b) in [
            (&mut self.packets, other.packets),
            (&mut self.bytes, other.bytes),
            (&mut self.delivered, other.delivered),
            (&mut self.extra_copies, other.extra_copies),
            (&mut self.syncs, other.syncs),
            (&mut self.bad_rings, other.bad_rings),
            (&mut self.rings, other.rings),
        ] {
            *a = a.wrapping_add(b);
        }
        for (a, b) in self.drops.iter_mut().zip(other.drops) {
            *a = a.wrapping_add(b);
        }
    }

    /// Adds packets that somebody else dropped.
    pub(crate) fn add_drops(&mut self, reason: Drop, n: u64) {
        if let Some(i) = Drop::ALL.iter().position(|d| *d == reason) {
            self.drops[i] = self.drops[i].wrapping_add(n);
        }
    }

    /// Packets dropped for one reason.
    #[must_use]
    pub fn dropped(&self, reason: Drop) -> u64 {
        Drop::ALL.iter().position(|d| *d == reason).map_or(0, |i| self.drops[i])
    }

    /// Packets dropped for whatever reason. Who owns the ring may have scribbled over its counters: the sum wraps.
    #[must_use]
    pub fn all_drops(&self) -> u64 {
        self.drops.iter().fold(0, |sum, n| sum.wrapping_add(*n))
    }

    /// Reasons with their counts, without those that never happened.
    pub fn drops_by_name(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Drop::ALL.iter().zip(self.drops).filter(|(_, n)| *n > 0).map(|(d, n)| (d.name(), n))
    }
}
