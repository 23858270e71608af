//! Files of ports that are gone, and that their users may still hold.
//!
//! Closing an eventfd or a socket takes the lock of each epoll that watches it, and a client can watch what it was lent with an epoll
//! whose lock it keeps: by waiting into memory that never comes (userfaultfd, FUSE). So the registry closes none of them. Its keeper
//! does, where nobody but that user waits. Memfds cannot be watched.

use super::Registry;
use ringway_os::event::{Doorbell, PrivateBell};
use std::os::fd::OwnedFd;
use std::sync::Arc;

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

    /// Files of ports that went since the last call. To be taken after every change, once no job uses them any more.
    pub fn take_retired(&mut self) -> Vec<Retired> {
        std::mem::take(&mut self.retired)
    }
}
