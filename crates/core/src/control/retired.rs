//! Files of ports that are gone, and that their users may still hold.
//!
//! Closing an eventfd or a socket takes the lock of each epoll that watches it, and a client can watch what it was lent with an epoll
//! whose lock it keeps: by waiting into memory that never comes (userfaultfd, FUSE). So the registry closes none of them. Its keeper
//! does, where nobody but that user waits. Memfds cannot be watched, but giving their pages back takes the lock that a `write` of such
//! memory keeps.

use super::Registry;
use ringway_os::event::{Doorbell, PrivateBell};
use ringway_os::mem::Memfd;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Release};

/// Files that one user was lent. Dropping it closes them, which may take as long as that user likes.
#[derive(Debug)]
#[must_use = "dropping it may wait for its user"]
pub struct Retired {
    /// The user.
    pub owner: u32,
    _files: Files,
}

#[derive(Debug)]
enum Files {
    Bells { _doorbells: [Arc<Doorbell>; 3], _notice: Arc<PrivateBell> },
    Socket { _socket: Arc<OwnedFd> },
    Memory { _pages: GivenBack },
}

/// Pages that are given back when it is dropped. A client may keep its map; the pages need not stay.
#[derive(Debug)]
pub(super) struct GivenBack {
    memfd: Arc<Memfd>,
    /// Parts of it.
    parts: Vec<Range<usize>>,
    done: Option<Arc<AtomicBool>>,
}

impl GivenBack {
    /// Parts of a memfd. `done` becomes true afterwards.
    pub fn new(memfd: Arc<Memfd>, parts: Vec<Range<usize>>, done: Option<Arc<AtomicBool>>) -> Self {
        GivenBack { memfd, parts, done }
    }

    /// All of it.
    pub fn whole(memfd: Arc<Memfd>) -> Self {
        let all = 0..memfd.len_bytes();
        Self::new(memfd, vec![all], None)
    }
}

impl Drop for GivenBack {
    fn drop(&mut self) {
        for part in &self.parts {
            let _ = self.memfd.discard_part(part.clone());
        }
        if let Some(done) = &self.done {
            // Pairs with the Acquire of whoever makes new use of them.
            done.store(true, Release);
        }
    }
}

impl Registry {
    pub(super) fn retire_bells(
        &mut self,
        owner: u32,
        doorbells: [Arc<Doorbell>; 3],
        notice: Arc<PrivateBell>,
    ) {
        self.retired.push(Retired { owner, _files: Files::Bells { _doorbells: doorbells, _notice: notice } });
    }

    pub(super) fn retire_socket(&mut self, owner: u32, socket: Arc<OwnedFd>) {
        self.retired.push(Retired { owner, _files: Files::Socket { _socket: socket } });
    }

    pub(super) fn retire_memory(&mut self, owner: u32, pages: GivenBack) {
        self.retired.push(Retired { owner, _files: Files::Memory { _pages: pages } });
    }

    /// Files of ports that went since the last call. To be taken after every change, once no job uses them any more.
    pub fn take_retired(&mut self) -> Vec<Retired> {
        std::mem::take(&mut self.retired)
    }
}
