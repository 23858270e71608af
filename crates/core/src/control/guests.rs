//! Guests: processes of other users who were handed a descriptor.
//!
//! A guest gets the port's region and the state of its rings, and nothing that others could be hurt with: no memory of a peer, no
//! switch page, no socket of an interface, no bell that somebody else rings or reads. While it is there the broker serves the rings
//! (`super::brokered`). It leaves when its attachment ends, or with the binding.

use super::bind::gone;
use super::regions::no_memory;
use super::{BindingId, ControlError, Kind, PortId, Registry};
use crate::lease::{BindingKey, Grant, GrantKind, GuestOf};
use ringway_abi::Errno;
use ringway_os::event::{Doorbell, LentBell};
use std::sync::Arc;

/// One process of another user that takes part in a binding.
#[derive(Debug)]
pub(super) struct Guest {
    pub binding: BindingId,
    pub attachment: u32,
}

/// What the guests of one user have, as long as the binding lives: a forked child goes on with those of its parent.
#[derive(Debug)]
pub(super) struct GuestBells {
    /// They watch this for packets, room and changes.
    notice: Arc<LentBell>,
    /// They ring this for the worker.
    worker: Arc<Doorbell>,
    /// In place of the bells that the owner's processes ring for each other.
    silent: Arc<Doorbell>,
}

impl Registry {
    /// The user that bound it.
    #[must_use]
    pub fn binding_uid(&self, id: BindingId) -> Option<u32> {
        self.bindings.get(&id).map(|b| b.uid)
    }

    /// Takes in a process of another user than the binding's. Its jobs must be brought up to date before it gets its grant
    /// ([`Registry::guest_grant`]).
    ///
    /// # Errors
    /// EACCES if all regions of the binding's user lie in one file; ENXIO if there is no such binding.
    pub fn add_guest(&mut self, id: BindingId, attachment: u32, uid: u32) -> Result<(), ControlError> {
        self.guest_of(id)?;
        if !self.guest_bells.contains_key(&(id, uid)) {
            let port = self.port(self.bindings.get(&id).ok_or_else(gone)?.port)?;
            let bells = || -> std::io::Result<_> {
                let (notice, worker) = (port.notice.lend_apart()?, Doorbell::new()?);
                let (notice, worker, silent) =
                    (Arc::new(notice), Arc::new(worker), Arc::new(Doorbell::new()?));
                Ok(GuestBells { notice, worker, silent })
            };
            let bells = bells().map_err(|e| no_memory(&format!("a guest of {}", port.name), &e))?;
            self.guest_bells.insert((id, uid), bells);
        }
        if !self.guests.iter().any(|g| g.binding == id && g.attachment == attachment) {
            self.guests.push(Guest { binding: id, attachment });
        }
        Ok(())
    }

    /// What the binding's port is to a guest.
    fn guest_of(&self, id: BindingId) -> Result<Option<GuestOf>, ControlError> {
        let binding = self.bindings.get(&id).ok_or_else(gone)?;
        let port = self.port(binding.port)?;
        if self.one_file_per_user {
            let text = format!(
                "{}: bound by user {}, all of whose regions lie in one file, since this broker has a device file: no other user can take part",
                port.name, binding.uid
            );
            return Err(ControlError::new(Errno::EACCES, text));
        }
        Ok(match port.kind {
            Kind::Vale { .. } => Some(GuestOf::Switch),
            Kind::Pipe { .. } | Kind::Nic(_) | Kind::Monitor(_) => Some(GuestOf::Other),
            Kind::Null => None,
        })
    }

    /// The ports that guests take part in.
    pub(super) fn guested_ports(&self) -> Vec<PortId> {
        self.guests.iter().filter_map(|g| Some(self.bindings.get(&g.binding)?.port)).collect()
    }

    /// What guests of user `uid` get.
    ///
    /// # Errors
    /// ENXIO unless one was taken in.
    pub fn guest_grant(&self, id: BindingId, uid: u32) -> Result<Grant, ControlError> {
        let bells = self.guest_bells.get(&(id, uid)).ok_or_else(gone)?;
        let kind = self.guest_of(id)?.map_or(GrantKind::Null, GrantKind::Guest);
        Ok(Grant {
            kind,
            key: BindingKey::NONE,
            rx_bell: bells.silent.clone(),
            tx_bell: bells.silent.clone(),
            notice: bells.notice.clone(),
            worker_bell: bells.worker.clone(),
            ..self.grant(id)?
        })
    }

    /// The binding ends, and with it all that take part in it.
    pub(super) fn drop_guests(&mut self, id: BindingId) {
        self.guests.retain(|g| g.binding != id);
        self.guest_bells.retain(|(binding, _), _| *binding != id);
    }

    /// An attachment has ended. True if it was some port's guest: the jobs must be brought up to date.
    pub fn guest_left(&mut self, attachment: u32) -> bool {
        let before = self.guests.len();
        self.guests.retain(|g| g.attachment != attachment);
        self.guests.len() != before
    }

    /// What guests ring for the worker.
    pub fn guest_bells(&self) -> impl Iterator<Item = &Arc<Doorbell>> {
        self.guest_bells.values().map(|bells| &bells.worker)
    }
}
