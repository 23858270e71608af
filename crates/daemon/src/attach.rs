//! Attachments: one per process and broker. Its number is what the process writes into the locks that it holds; when it ends, its
//! locks are broken and the rings behind them repaired.

use crate::closer::Foreign;
use ringway_core::control::Registry;
use ringway_core::kring::BROKER;
use ringway_os::sock::Creds;
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};

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

    /// That of `creds`: of its process, as the user that it now is.
    pub fn of(&self, creds: Creds) -> Option<u32> {
        self.living.iter().find(|(_, a)| a.pid == creds.pid && a.uid == creds.uid).map(|(n, _)| *n)
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
        registry.break_locks(|holder| !self.living.contains_key(&holder))
    }

    /// Those whose process is gone, though that has not been served yet.
    pub fn dead(&self) -> Vec<u32> {
        let (numbers, channels): (Vec<u32>, Vec<_>) =
            self.living.iter().filter_map(|(n, a)| Some((*n, a.channel.socket()?.as_fd()))).unzip();
        let gone = ringway_os::sys::hung_up(&channels);
        numbers.into_iter().zip(gone).filter(|(_, gone)| *gone).map(|(n, _)| n).collect()
    }
}
