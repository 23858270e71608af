//! A descriptor that a privileged process keeps for somebody else: the helper of the broker that serves the device file.

use super::check_binds_nothing;
use crate::bound::Bound;
use crate::conn::{Broker, Session};
use crate::error::OpenError;
use ringway_abi::{Errno, NicMode, nmreq_header, nmreq_register};
use ringway_core::control::ReqOption;
use std::os::fd::OwnedFd;

/// A descriptor that is opened and used in another user's name: limits, owners and rights are his. Needs CAP_SETUID, and a broker of
/// root.
///
/// Unlike an fd of [`open`](super::open) it stays with this process: others cannot take part in it.
#[derive(Debug)]
pub struct Agent {
    /// None once bound: the binding has it.
    broker: Option<Broker>,
    uid: u32,
}

impl Agent {
    /// A descriptor of user `uid`, bound to nothing. The network interfaces that it can open are those of the calling thread's network
    /// namespace. No broker is started for it.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(uid: u32) -> Result<Self, OpenError> {
        let mut broker =
            Broker::find()?.ok_or_else(|| OpenError::NoBroker("no broker answers".to_owned()))?;
        broker.speak_for(uid);
        Ok(Agent { broker: Some(broker), uid })
    }

    fn broker(&self) -> Result<&Broker, OpenError> {
        self.broker.as_ref().ok_or_else(|| OpenError::refused(Errno::EBUSY, "the descriptor is bound"))
    }

    /// The file in which all the user's regions lie.
    ///
    /// # Errors
    /// EPERM unless the broker has started us for that; EOPNOTSUPP if each region has a file of its own.
    pub fn user_memory(&self) -> Result<OwnedFd, OpenError> {
        self.broker()?.user_memory()
    }

    /// Serves one NIOCCTRL request other than REGISTER, with options. A bound descriptor serves it too.
    ///
    /// # Errors
    /// As [`control`](super::control).
    pub fn control_with(
        &self,
        header: &mut nmreq_header,
        body: &mut [u8],
        options: &mut [ReqOption],
    ) -> Result<(), OpenError> {
        check_binds_nothing(header)?;
        match &self.broker {
            Some(broker) => broker.control_with(header, body, options),
            None => Self::open(self.uid)?.control_with(header, body, options),
        }
    }

    /// REGISTER, as [`register_with`](super::register_with). If it is refused, the descriptor can be used on.
    ///
    /// # Errors
    /// As netmap's request; EBUSY if it is bound.
    pub fn register_with(
        &mut self,
        name: &str,
        req: &nmreq_register,
        options: &mut [ReqOption],
    ) -> Result<(nmreq_register, Bound), OpenError> {
        self.broker()?;
        let Some(broker) = self.broker.take() else {
            return Err(OpenError::refused(Errno::EBUSY, "the descriptor is bound"));
        };
        match Session::register(broker, name, req, NicMode::default(), options, None) {
            Ok((session, grant, out)) => Ok((out, Bound::of_session(session, grant)?)),
            Err(e) => {
                self.broker = Self::open(self.uid)?.broker;
                Err(e)
            }
        }
    }

    /// After what was bound has been dropped again: unbound, as it was.
    ///
    /// # Errors
    /// As [`Agent::open`].
    pub fn reopen(&mut self) -> Result<(), OpenError> {
        self.broker = Self::open(self.uid)?.broker;
        Ok(())
    }
}
