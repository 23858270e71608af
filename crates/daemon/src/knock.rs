//! Taking in connections: who may have one, and what to do when there are no files left for more.

use crate::server::{LISTENER, NOBODY, SESSION, Server, token};
use crate::session::Session;
use ringway_abi::{Errno, wire};
use ringway_core::control::ControlError;
use ringway_os::event::EventFlags;
use ringway_os::sock::Conn;
use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

/// What a client is told when the broker has reached its limit of open files.
pub(crate) const NO_FILES: &str = "the broker has too many files open: close ports, or start it with a higher limit (ulimit -n, LimitNOFILE=)";
/// How long nobody is let in when there is not even a file to refuse him with.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two lines of the log about that.
const QUIET: Duration = Duration::from_secs(10);

/// State of the listening socket while files are short.
#[derive(Debug)]
pub(crate) struct Door {
    /// Kept open, to be closed for the connection of one who is refused.
    spare: Option<File>,
    /// Not listened on until then.
    closed_until: Option<Instant>,
    told: Option<Instant>,
}

impl Door {
    pub(crate) fn new() -> Self {
        Door { spare: spare(), closed_until: None, told: None }
    }

    /// When [`Server::open_door`] has something to do.
    pub(crate) fn opens_in(&self) -> Option<Duration> {
        self.closed_until.map(|t| t.saturating_duration_since(Instant::now()))
    }
}

fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

/// Whoever sends a request finds this on the connection instead of an answer.
pub(crate) fn refuse_connection(conn: &Conn, refusal: &ControlError) {
    let _ = conn.send(&wire::message(wire::Kind::Reply, refusal.errno.0, refusal.message.as_bytes()), &[]);
}

impl Server {
    pub(crate) fn accept(&mut self) {
        while let Some(listener) = &self.listener {
            let conn = match listener.accept() {
                Ok(conn) => conn,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) => return self.cannot_accept(&e),
            };
            let Ok(peer) = conn.peer() else { continue };
            let uid = if self.device.is_helper(peer.pid) { NOBODY } else { peer.uid };
            let mine = self.sessions.values().filter(|s| s.uid == uid).count();
            let refusal = if uid == NOBODY {
                None
            } else if !self.config.admit.admits(uid, self.own_uid) {
                Some(ControlError::new(Errno::EACCES, "this broker does not admit you (admit)"))
            } else if mine >= self.config.limits.sessions {
                let text = format!("this user has {mine} descriptors open (limits.sessions)");
                Some(ControlError::new(Errno::EMFILE, text))
            } else {
                self.closers.is_full(uid)
            };
            if let Some(refusal) = refusal {
                refuse_connection(&conn, &refusal);
                self.closers.close_conn(uid, conn);
                continue;
            }
            let id = self.next_id;
            self.next_id += 1;
            if let Err(e) = self.epoll.add(&conn, token(id, SESSION), EventFlags::IN) {
                tracing::warn!("cannot watch a connection: {e}");
                self.closers.close_conn(uid, conn);
                continue;
            }
            self.sessions.insert(id, Session { conn, uid, pid: 0, binding: None });
        }
    }

    /// The listener stays readable: who is not taken in would keep us busy. So with the file kept for that each is told why, and without
    /// it nobody is listened to for a while.
    fn cannot_accept(&mut self, error: &io::Error) {
        if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) {
            return;
        }
        if self.door.told.is_none_or(|t| t.elapsed() > QUIET) {
            self.door.told = Some(Instant::now());
            tracing::warn!("cannot accept: {error}");
        }
        let Some(listener) = &self.listener else { return };
        while self.door.spare.take().is_some() {
            if let Ok(conn) = listener.accept() {
                refuse_connection(&conn, &ControlError::new(Errno::ENFILE, NO_FILES));
                let uid = conn.peer().map_or(NOBODY, |p| p.uid);
                self.closers.close_conn(uid, conn);
            } else {
                self.door.spare = spare();
                break;
            }
            self.door.spare = spare();
        }
        let _ = self.epoll.remove(listener);
        self.door.closed_until = Some(Instant::now() + PAUSE);
    }

    /// Listens again, if it is time to.
    pub(crate) fn open_door(&mut self) {
        if self.door.opens_in() != Some(Duration::ZERO) {
            return;
        }
        self.door.closed_until = None;
        self.door.spare = self.door.spare.take().or_else(spare);
        if let Some(listener) = &self.listener
            && let Err(e) = self.epoll.add(listener, token(LISTENER, SESSION), EventFlags::IN)
            && e.kind() != io::ErrorKind::AlreadyExists
        {
            tracing::warn!("cannot listen: {e}");
            self.door.closed_until = Some(Instant::now() + PAUSE);
        }
    }
}
