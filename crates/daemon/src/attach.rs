//! Attachments: one per process and broker. Its number is what the process writes into the locks that it holds; when it ends, its
//! locks are broken and the rings behind them repaired.

use crate::closer::Foreign;
use ringway_core::control::Registry;
use ringway_core::kring::{BROKER, REPAIR};
use ringway_core::layout::RingShared;
use ringway_core::vale::{repair_receiver, repair_sender};
use std::collections::HashMap;
use std::os::fd::OwnedFd;

/// A process that may hold locks.
#[derive(Debug)]
pub struct Attachment {
    /// Hangs up when the process is gone, or has called exec.
    pub channel: Foreign,
    /// Readable when the process is dead; a channel kept open by a child does not hide that.
    pub pidfd: OwnedFd,
    /// Process.
    pub pid: u32,
    /// User.
    pub uid: u32,
}

/// All of them. Numbers are never used again.
#[derive(Debug)]
pub struct Attachments {
    living: HashMap<u32, Attachment>,
    next: u32,
}

impl Default for Attachments {
    fn default() -> Self {
        Attachments { living: HashMap::new(), next: BROKER + 1 }
    }
}

impl Attachments {
    /// Takes one in; returns its number.
    pub fn add(&mut self, attachment: Attachment) -> u32 {
        let number = self.next;
        self.next += 1;
        self.living.insert(number, attachment);
        number
    }

    /// The one of that number.
    pub fn get(&self, number: u32) -> Option<&Attachment> {
        self.living.get(&number)
    }

    /// Those of `pid`, except `keep`: an older life of the same process, before exec.
    pub fn others_of(&self, pid: u32, keep: u32) -> Vec<u32> {
        self.living.iter().filter(|(n, a)| a.pid == pid && **n != keep).map(|(n, _)| *n).collect()
    }

    /// How many a user has.
    pub fn count_of(&self, uid: u32) -> usize {
        self.living.values().filter(|a| a.uid == uid).count()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.living.len()
    }

    /// Ends one, if it was alive.
    pub fn remove(&mut self, number: u32) -> Option<Attachment> {
        self.living.remove(&number)
    }

    /// Breaks every lock whose holder is no living attachment, and repairs what was behind it. Returns how many.
    pub fn break_locks(&self, registry: &Registry) -> usize {
        let dead = |holder: u32| !matches!(holder, 0 | BROKER | REPAIR) && !self.living.contains_key(&holder);
        let rings: Vec<(u32, RingShared)> = registry.ring_states().collect();
        let mut broken = 0;
        for (_, ring) in &rings {
            let state = &*ring.state;
            let poster = state.post.lock.holder();
            if dead(poster) && state.post.lock.steal(poster, REPAIR) {
                state.post.lock.unlock(REPAIR);
                broken += 1;
            }
            let holder = state.sync.lock.holder();
            if dead(holder) && state.sync.lock.steal(holder, REPAIR) {
                let far = registry.journal_target(ring);
                repair_sender(state, ring.num_slots, far.as_ref().map(|f| &*f.state));
                state.sync.lock.unlock(REPAIR);
                broken += 1;
            }
        }
        for (_, ring) in &rings {
            let state = &*ring.state;
            let holder = state.senders.lock.holder();
            if dead(holder) && state.senders.lock.steal(holder, REPAIR) {
                repair_receiver(state, ring.num_slots);
                state.senders.lock.unlock(REPAIR);
                broken += 1;
            }
        }
        broken
    }
}
