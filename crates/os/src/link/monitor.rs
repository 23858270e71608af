//! News of interfaces.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::net::RecvFlags;

use super::netlink::{Answer, LinkMsg, RouteSocket, Which};

/// linux/rtnetlink.h
const RTMGRP_LINK: u32 = 1;

/// What happened to an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkChange {
    /// It is new in this namespace: made, or moved here. Carries its name.
    Added(String),
    /// Set up by the administrator (`IFF_UP`).
    Up,
    /// Set down by the administrator.
    Down,
    /// The carrier came (`true`) or went, while the interface was up (`IFF_LOWER_UP`).
    Carrier(bool),
    /// It has this name now.
    Renamed(String),
    /// It has this MTU in bytes now.
    MtuChanged(u32),
    /// It is gone from this namespace: deleted, or moved away.
    Deleted,
}

/// One piece of news.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkEvent {
    /// The interface.
    pub ifindex: u32,
    /// What happened.
    pub change: LinkChange,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    name: String,
    mtu: u32,
    up: bool,
    carrier: bool,
}

/// Tells what changes about the interfaces of the namespace in which it was opened.
///
/// The kernel reports states, not changes: the monitor remembers the last state of each interface and reports
/// the difference, so an overrun of its queue costs intermediate steps, never the outcome.
///
/// Poll its fd for reading, then call [`LinkMonitor::events`] once: it empties the queue.
///
/// Source: rtnetlink(7), RTMGRP_LINK.
#[derive(Debug)]
pub struct LinkMonitor {
    socket: RouteSocket,
    known: HashMap<u32, State>,
    /// A dump is needed: the queue overran.
    resync: bool,
}

impl LinkMonitor {
    /// Begins to watch the namespace of the calling thread. Interfaces that exist already give no `Added`.
    ///
    /// # Errors
    /// What socket, bind, send and recv answer: EMFILE, ENOBUFS.
    pub fn open() -> io::Result<LinkMonitor> {
        let socket = RouteSocket::open(RTMGRP_LINK)?;
        let mut monitor = LinkMonitor { socket, known: HashMap::new(), resync: true };
        monitor.events()?;
        Ok(monitor)
    }

    /// All that happened since the last call, in order. Does not wait.
    ///
    /// # Errors
    /// What recv and send answer, but for EAGAIN (no news) and ENOBUFS (the monitor asks anew): EIO, ENOMEM.
    pub fn events(&mut self) -> io::Result<Vec<LinkEvent>> {
        let mut events = Vec::new();
        loop {
            if self.resync {
                self.resynchronise(&mut events)?;
            }
            let known = &mut self.known;
            match self.socket.receive(RecvFlags::DONTWAIT, |answer| {
                if let Answer::Link(msg) = answer {
                    absorb(known, msg, &mut events);
                }
            }) {
                Ok(()) => {}
                Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => return Ok(events),
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => self.resync = true,
                Err(e) => return Err(e),
            }
        }
    }

    /// Asks for all interfaces **on the same socket**, so that answers and older notifications stay in order.
    fn resynchronise(&mut self, events: &mut Vec<LinkEvent>) -> io::Result<()> {
        self.socket.request(Which::All)?;
        let mut seen = Vec::new();
        let mut end: Option<io::Result<()>> = None;
        let mut overrun = false;
        while end.is_none() {
            let known = &mut self.known;
            let got = self.socket.receive(RecvFlags::empty(), |answer| match answer {
                Answer::Link(msg) => {
                    // Older notifications, still queued, prove nothing.
                    if msg.dumped {
                        seen.push(msg.ifindex);
                    }
                    absorb(known, msg, events);
                }
                Answer::Error(errno) => end = Some(Err(errno.into())),
                Answer::Done => end = Some(Ok(())),
            });
            match got {
                // News were lost during the dump. The dump itself goes on with the next recv; then another
                // round is due.
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => overrun = true,
                other => other?,
            }
        }
        end.unwrap_or(Ok(()))?;
        self.known.retain(|&ifindex, _| {
            let alive = seen.contains(&ifindex);
            if !alive {
                events.push(LinkEvent { ifindex, change: LinkChange::Deleted });
            }
            alive
        });
        self.resync = overrun;
        Ok(())
    }
}

impl AsFd for LinkMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Takes in one state, and appends how it differs from the one remembered.
fn absorb(known: &mut HashMap<u32, State>, msg: LinkMsg, events: &mut Vec<LinkEvent>) {
    let ifindex = msg.ifindex;
    let mut tell = |change| events.push(LinkEvent { ifindex, change });
    if msg.removed {
        if known.remove(&ifindex).is_some() {
            tell(LinkChange::Deleted);
        }
        return;
    }
    let flag = |bit: i32| msg.flags & bit as u32 != 0;
    let (up, carrier) = (flag(libc::IFF_UP), flag(libc::IFF_LOWER_UP));
    let new = State { name: msg.name, mtu: msg.mtu, up, carrier };
    let Some(old) = known.insert(ifindex, new.clone()) else {
        return tell(LinkChange::Added(new.name));
    };
    if old.name != new.name {
        tell(LinkChange::Renamed(new.name));
    }
    if old.mtu != new.mtu {
        tell(LinkChange::MtuChanged(new.mtu));
    }
    if old.up != new.up {
        tell(if up { LinkChange::Up } else { LinkChange::Down });
    }
    if up && old.carrier != carrier {
        tell(LinkChange::Carrier(carrier));
    }
}
