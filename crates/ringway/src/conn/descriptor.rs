//! What a descriptor has bound: opened here, or handed to us by another process.

use super::{ANSWER_TIMEOUT, Broker, Memory, TRIES, while_queue_busy};
use crate::attach::Attachment;
use crate::error::OpenError;
use ringway_abi::wire::{self, Kind};
use ringway_abi::{Errno, NicMode, nmreq_register};
use ringway_core::control::ReqOption;
use ringway_core::handover::{grant_in, peer_in};
use ringway_core::lease::{BindingKey, Grant, GrantKind, PeerGrant};
use ringway_os::sys::hung_up;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;
use zerocopy::IntoBytes;

/// How long a peer's memory may take, inside a sync.
const PEER_TIMEOUT: Duration = Duration::from_millis(100);

/// A bound descriptor.
#[derive(Debug)]
pub(crate) struct Session {
    broker: Broker,
    attachment: Arc<Attachment>,
    /// Of another user's port: the attachment under which the broker counts us as its guest.
    guest: Option<AtomicU32>,
    /// Opens the memory of peers to us, and to our forked children, whoever we are by then.
    key: BindingKey,
    /// A file whose number tells the region of the port.
    pub pin: Option<File>,
}

/// What a process that was handed a descriptor takes part in.
pub(crate) enum Membership {
    /// The fd is something else.
    Foreign,
    /// A descriptor that has bound nothing.
    Unbound,
    /// A port.
    Bound(Session, Box<Grant>),
}

impl Session {
    /// Opens a descriptor with the broker whose socket is `at` (None: the first that answers) and binds it.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(
        at: Option<&Path>,
        name: &str,
        req: &nmreq_register,
        mode: NicMode,
        options: &mut [ReqOption],
        memory: Option<&Memory>,
    ) -> Result<(Session, Grant), OpenError> {
        let mut cut = 0;
        loop {
            match Self::register(Broker::connect_at(at)?, name, req, mode, options, memory) {
                Err(OpenError::CutOff) if cut < TRIES => cut += 1,
                other => return other.map(|(session, grant, _)| (session, grant)),
            }
        }
    }

    /// Binds the descriptor that `broker` is.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn register(
        broker: Broker,
        name: &str,
        req: &nmreq_register,
        mode: NicMode,
        options: &mut [ReqOption],
        memory: Option<&Memory>,
    ) -> Result<(Session, Grant, nmreq_register), OpenError> {
        let attachment = broker.attachment()?;
        let (grant, req) = while_queue_busy(|| broker.ask_register(name, req, mode, options, memory))?;
        Ok((Session { broker, attachment, guest: None, key: grant.key, pin: None }, grant, req))
    }

    /// Takes part in what a descriptor has bound that somebody handed us.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn join(fd: OwnedFd) -> Result<Membership, OpenError> {
        let Some(broker) = Broker::behind(fd)? else { return Ok(Membership::Foreign) };
        let attachment = broker.attachment()?;
        let answer = match broker.ask(Kind::Join, &[], &[], ANSWER_TIMEOUT) {
            Err(OpenError::Refused { errno: Errno::ENXIO, .. }) => return Ok(Membership::Unbound),
            other => other?,
        };
        let grant = grant_in(&answer.body, answer.fds)
            .map_err(|e| OpenError::refused(Errno::ENOMEM, e.to_string()))?;
        let is_guest = matches!(grant.kind, GrantKind::Guest(_));
        let guest = is_guest.then(|| AtomicU32::new(attachment.number()));
        Ok(Membership::Bound(
            Session { broker, attachment, guest, key: grant.key, pin: None },
            Box::new(grant),
        ))
    }

    /// The number under which this process holds locks. None: the broker is gone.
    #[inline]
    pub fn attachment(&self) -> Option<u32> {
        let number = match self.attachment.number() {
            0 => self.attachment.renew(|| self.broker.attach()).ok()?,
            number => number,
        };
        match &self.guest {
            Some(known) if known.load(Relaxed) != number => self.join_again(known, number),
            _ => Some(number),
        }
    }

    /// A forked child is a guest of its own.
    #[cold]
    fn join_again(&self, known: &AtomicU32, number: u32) -> Option<u32> {
        self.broker.ask(Kind::Join, &[], &[], ANSWER_TIMEOUT).ok()?;
        known.store(number, Relaxed);
        Some(number)
    }

    /// As [`Session::attachment`], but 0 if the process would have to attach first.
    pub fn present_attachment(&self) -> u32 {
        self.attachment.number()
    }

    /// True while the broker lives.
    pub fn is_alive(&self) -> bool {
        !hung_up(&[self.broker.conn.as_fd()])[0]
    }

    /// Hangs up when the broker dies.
    pub fn hangup_fd(&self) -> BorrowedFd<'_> {
        self.broker.conn.as_fd()
    }

    /// The memory of the port at `index` of the switch.
    pub fn ask_peer(&self, index: u8) -> Option<PeerGrant> {
        let ask = wire::PeerAsk { index: index.into(), key: self.key.0 };
        let answer = self.broker.ask(Kind::Peer, ask.as_bytes(), &[], PEER_TIMEOUT).ok()?;
        peer_in(&answer.body, answer.fds).ok()
    }
}
