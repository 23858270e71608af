//! One ring of a sync loop, and one turn on it.

use crate::bound::Pass;
use ringway_core::adapter::SyncFlags;
use ringway_core::kring::{SyncOutcome, prev};
use ringway_core::layout::Dir;
use ringway_core::lease::EndRing;
use ringway_os::csb::{AppEntry, LoopEntry};
use ringway_os::event::Doorbell;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::fence;

/// Rounds on one ring before the others have their turn.
const MAX_ROUNDS: u32 = 64;
/// Syncs of a receive ring in turn that bring nothing, before we leave it.
const MAX_DRY: u32 = 2;

/// First slot of a ring that was not taken in.
pub(super) fn hwcur(ring: &EndRing) -> u32 {
    let state = &ring.handle().shared.state;
    // The broker keeps its own, and takes in all that is posted.
    if ring.handle().is_brokered() { state.sync.rhead.load(Relaxed) } else { state.owner.hwcur.load() }
}

/// Whose turn it is on a ring that was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// The program's: there is nothing more to take, or the ring is bad.
    Program,
    /// The port's: its own notification will tell.
    Port,
    /// Another thread's, for a moment; or there may be more.
    Busy,
}

/// A ring, as the loop has it.
pub(super) struct Line<'a> {
    pub ring: &'a EndRing,
    pub app: &'a AppEntry,
    pub kern: &'a LoopEntry,
    pub notify: Option<Doorbell>,
    pub dir: Dir,
    pub n: u32,
    /// Nobody asks for kicks; all are told.
    pub direct: bool,
    pub is_event: bool,
    pub left: Left,
    /// Head that was last seen, and what was last published.
    pub head: u32,
    pub published: (u32, u32),
}

impl Line<'_> {
    pub fn ask_kick(&self, want: bool) {
        if !self.direct && (self.kern.need_kick.load(Relaxed) != 0) != want {
            self.kern.need_kick.store(want.into(), Relaxed);
        }
    }

    /// Publishes how far the ring is. True if the tail moved.
    pub fn publish(&mut self) -> bool {
        let now = (hwcur(self.ring), self.ring.handle().ring.header.tail.load(Relaxed));
        if now == self.published {
            return false;
        }
        let news = now.1 != self.published.1;
        self.kern.publish(now.0, now.1);
        self.published = now;
        if news && let Some(notify) = &self.notify {
            // Pairs with the program's barrier between asking to be notified and its last look.
            fence(SeqCst);
            if self.direct || self.app.need_kick.load(Relaxed) != 0 {
                notify.ring();
            }
        }
        news
    }

    /// One turn on the ring. True if something moved.
    pub fn turn(&mut self, pass: &Pass<'_>) -> bool {
        self.ask_kick(false);
        let (mut head, mut cur) = self.app.positions();
        let (mut moved, mut dry) = (false, 0);
        for _ in 0..MAX_ROUNDS {
            self.head = head;
            let header = &self.ring.handle().ring.header;
            header.cur.store(cur, Relaxed);
            header.head.store(head, Relaxed);
            let before = self.published;
            match pass.outcome(&mut &*self.ring, SyncFlags::empty()) {
                SyncOutcome::Done => {}
                SyncOutcome::Skipped | SyncOutcome::Brokered => {
                    self.left = Left::Busy;
                    return moved;
                }
                SyncOutcome::BadRing(_)
                | SyncOutcome::NeedPeer(_)
                | SyncOutcome::Stopped
                | SyncOutcome::Failed => {
                    // Until the program puts it right, or asks again.
                    self.left = Left::Program;
                    if self.is_event {
                        self.ask_kick(true);
                    }
                    return moved;
                }
            }
            let news = self.publish();
            moved |= self.published != before;
            let tail = self.published.1;
            let accepted = head;
            (head, cur) = self.app.positions();
            let left = match self.dir {
                Dir::Tx if head == accepted => Some(Left::Program),
                Dir::Tx if tail == accepted => Some(Left::Port),
                Dir::Tx => None,
                // All slots are the program's.
                Dir::Rx if head < self.n && tail == prev(self.n, head) => Some(Left::Program),
                Dir::Rx if tail == accepted => Some(Left::Port),
                Dir::Rx => {
                    dry = if news { 0 } else { dry + 1 };
                    (dry >= MAX_DRY).then_some(Left::Port)
                }
            };
            if let Some(left) = left {
                self.left = left;
                return moved;
            }
        }
        self.left = Left::Busy;
        true
    }

    /// Before the loop sleeps: asks to be kicked, if it is the program's turn.
    pub fn arm(&self) {
        if self.left == Left::Program {
            self.ask_kick(true);
        }
    }

    /// True if the program did something since the last turn, on a ring where it is its turn.
    pub fn has_news(&self) -> bool {
        self.left == Left::Program && self.app.head.load(Relaxed) != self.head
    }
}
