//! Letting go of a socket and its rings while others still hold them.

use super::XskRings;
use super::map::RingMap;
use rustix::event::EventfdFlags;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Weak};

impl XskRings {
    /// What is needed to let go of the rings and of their socket while others hold them.
    #[must_use]
    pub fn hold(&self, socket: &Arc<OwnedFd>) -> XskHold {
        let maps = [&self.fill.0.map, &self.comp.0.map, &self.rx.0.map, &self.tx.0.map];
        XskHold { maps: maps.map(Arc::downgrade), socket: Arc::downgrade(socket) }
    }
}

/// A socket and maps of its rings, which can be let go of from any thread while others work on them: the queue becomes
/// free for somebody else, whoever still holds views here. It keeps nothing alive itself.
#[derive(Debug)]
pub struct XskHold {
    maps: [Weak<RingMap>; 4],
    socket: Weak<OwnedFd>,
}

impl XskHold {
    /// Lets go: rings read as zeros from now on, and the socket's number stands for a file that does nothing.
    ///
    /// # Errors
    /// ENOMEM, EMFILE: some of it is kept.
    pub fn let_go(&self) -> io::Result<()> {
        for map in self.maps.iter().filter_map(Weak::upgrade) {
            map.let_go()?;
        }
        if let Some(socket) = self.socket.upgrade() {
            let nothing = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            // SAFETY: both are open, kept so by their owners. The second number stays theirs, and stays open: it
            // changes its meaning in one step.
            if unsafe { libc::dup3(nothing.as_raw_fd(), socket.as_raw_fd(), libc::O_CLOEXEC) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::map::Ring;
    use super::super::{CompRing, FillRing, RxRing, TxRing};
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn rings_let_go_while_others_look_at_them_read_as_empty() {
        let socket = Arc::new(rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, 0.into()).unwrap());
        let rings = XskRings {
            fill: FillRing(Ring::anonymous(8)),
            comp: CompRing(Ring::anonymous(8)),
            rx: RxRing(Ring::anonymous(8)),
            tx: TxRing(Ring::anonymous(8)),
        };
        let hold = rings.hold(&socket);
        rings.rx.0.publish(5);
        let XskRings { rx, tx, .. } = rings; // Two of the maps are gone already.
        let there = rx.0.producer();
        assert_eq!((rx.available(), there.load(Ordering::Relaxed)), (5, 5));
        let number = socket.as_raw_fd();
        hold.let_go().unwrap();
        assert_eq!((rx.available(), there.load(Ordering::Relaxed), tx.free()), (0, 0, 8));
        let link = std::fs::read_link(format!("/proc/self/fd/{number}")).unwrap();
        assert_eq!(link.to_str(), Some("anon_inode:[eventfd]"));
        drop((rx, tx, socket));
        hold.let_go().unwrap(); // Nothing left: nothing done.
    }
}
