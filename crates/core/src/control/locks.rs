//! Locks of processes: who holds one, and what becomes of those of the dead.

use super::{Asker, Kind, PortEntry, Registry};
use crate::kring::{BROKER, REPAIR};
use crate::layout::{Dir, RingShared};
use crate::repair::{SyncKind, repair_receiver, repair_sync};
use crate::sync_loop::LoopWord;
use std::sync::atomic::Ordering::Relaxed;

/// What a lock is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// A sync of the ring.
    Sync,
    /// Sending to the receive ring of a switch port.
    Senders,
    /// A post to the broker's worker.
    Post,
}

/// A lock that some process holds at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldLock {
    /// Name of the port.
    pub port: String,
    /// The ring.
    pub dir: Dir,
    /// Its index.
    pub ring: u16,
    /// What for.
    pub kind: LockKind,
    /// The holder's attachment.
    pub holder: u32,
}

/// A ring with what repair must know of it.
struct Found<'r> {
    port: &'r PortEntry,
    dir: Dir,
    index: u16,
    ring: RingShared,
}

impl Found<'_> {
    fn sync_kind(&self) -> SyncKind {
        match (&self.port.kind, self.dir) {
            (Kind::Vale { .. }, Dir::Tx) => SyncKind::SwitchTx,
            (Kind::Pipe { .. }, Dir::Tx) => SyncKind::PipeTx,
            (Kind::Vale { .. }, Dir::Rx) => SyncKind::SwitchRx,
            (Kind::Pipe { .. }, Dir::Rx) => SyncKind::PipeRx,
            (Kind::Null | Kind::Nic(_) | Kind::Monitor(_), _) => SyncKind::Other,
        }
    }
}

impl Registry {
    /// All rings of all ports, bound or not.
    fn all_rings(&self) -> impl Iterator<Item = Found<'_>> {
        self.ports.values().flat_map(|port| {
            let rings = |dir: Dir| (0..port.geometry.rings(dir)).map(move |index| (dir, index));
            rings(Dir::Tx).chain(rings(Dir::Rx)).filter_map(move |(dir, index)| {
                let ring = RingShared::new(&port.state.map, &port.geometry, dir, index)?;
                Some(Found { port, dir, index, ring })
            })
        })
    }

    /// The receive ring that a TX ring's journal names, if that port still exists in that generation.
    fn journal_target(&self, ring: &RingShared) -> Option<RingShared> {
        let journal = &ring.state.journal;
        let (generation, far) = (journal.generation.load(Relaxed), journal.far.load(Relaxed));
        let is_it = |p: &&PortEntry| matches!(p.kind, Kind::Vale { generation: g, .. } if g == generation);
        let port = self.ports.values().find(is_it)?;
        RingShared::new(&port.state.map, &port.geometry, Dir::Rx, (far >> 8) as u16)
    }

    /// Breaks every lock whose holder is dead, and repairs what was behind it; ends sync loops of the dead. Returns how many.
    pub fn break_locks(&self, is_dead: impl Fn(u32) -> bool) -> usize {
        let dead = |holder: u32| !matches!(holder, 0 | BROKER | REPAIR) && is_dead(holder);
        let mut broken = 0;
        // Syncs first: whether one had published in a far ring can be seen as long as that ring's lock is still held.
        for found in self.all_rings() {
            let state = &*found.ring.state;
            let runner = LoopWord::of(state).runner();
            if dead(runner) && LoopWord::of(state).end(runner) {
                broken += 1;
            }
            let poster = state.post.lock.holder();
            if dead(poster) && state.post.lock.steal(poster, REPAIR) {
                state.post.lock.unlock(REPAIR);
                broken += 1;
            }
            let holder = state.sync.lock.holder();
            if dead(holder) && state.sync.lock.steal(holder, REPAIR) {
                let far = self.journal_target(&found.ring);
                repair_sync(found.sync_kind(), &found.ring, far.as_ref().map(|f| &*f.state));
                state.sync.lock.unlock(REPAIR);
                broken += 1;
            }
        }
        for found in self.all_rings() {
            let state = &*found.ring.state;
            let holder = state.senders.lock.holder();
            if dead(holder) && state.senders.lock.steal(holder, REPAIR) {
                repair_receiver(state, found.ring.num_slots);
                state.senders.lock.unlock(REPAIR);
                broken += 1;
            }
        }
        broken
    }

    /// Locks that processes hold at this moment on ports that the asker may see. One that is still held a millisecond later belongs to
    /// a process that is stopped, or starved.
    #[must_use]
    pub fn held_locks(&self, who: Asker) -> Vec<HeldLock> {
        let mut out = vec![];
        for found in self.all_rings().filter(|f| who.may(f.port.owner)) {
            let state = &*found.ring.state;
            for (kind, lock) in [
                (LockKind::Sync, &state.sync.lock),
                (LockKind::Senders, &state.senders.lock),
                (LockKind::Post, &state.post.lock),
            ] {
                let holder = lock.holder();
                if !matches!(holder, 0 | BROKER | REPAIR) {
                    let port = found.port.name.clone();
                    out.push(HeldLock { port, dir: found.dir, ring: found.index, kind, holder });
                }
            }
        }
        out
    }
}
