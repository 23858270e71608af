//! Processes that take part in what a descriptor has bound: they attach, join, and are told what they may have.

use crate::attach::Attachment;
use crate::closer::Foreign;
use crate::server::Server;
use crate::session::refuse;
use ringway_abi::Errno;
use ringway_core::control::{BindingId, ControlError};
use ringway_core::lease::{BindingKey, Grant};
use ringway_os::sock::Creds;

impl Server {
    pub(crate) fn attach(&mut self, creds: Creds, channel: Option<Foreign>) -> Result<u32, ControlError> {
        let channel = channel.ok_or_else(|| refuse(Errno::EPROTO, "no channel"))?;
        if self.attachments.count_of(creds.uid) >= self.config.limits.attachments {
            let max = self.config.limits.attachments;
            return Err(refuse(
                Errno::EMFILE,
                format!("this user has {max} processes attached (limits.attachments)"),
            ));
        }
        let pidfd = ringway_os::sys::pidfd_open(creds.pid)
            .map_err(|e| refuse(Errno::ENOENT, format!("cannot watch process {}: {e}", creds.pid)))?;
        let number = self.attachments.add(Attachment { channel, pidfd, pid: creds.pid, uid: creds.uid });
        if let Err(e) = self.watch_attachment(number) {
            self.attachments.remove(number);
            return Err(refuse(Errno::EINVAL, format!("cannot watch the channel: {e}")));
        }
        // The same pid again: exec ended its earlier life. (The helper of the device file has one for each user.)
        if !self.device.is_helper(creds.pid) {
            for old in self.attachments.others_of(creds.pid, number) {
                self.end_attachment(old);
            }
        }
        Ok(number)
    }

    fn binding_of(&self, id: u64) -> Result<BindingId, ControlError> {
        let binding = self.sessions.get(&id).and_then(|s| s.binding);
        binding.ok_or_else(|| refuse(Errno::ENXIO, "nothing is bound"))
    }

    /// Whoever holds the connection was given it, so may take part in what it has bound. A process of the user that bound it gets all; one
    /// of another user the port's own memory, and the broker serves the rings from now on.
    pub(crate) fn join(&mut self, id: u64, creds: Creds) -> Result<Grant, ControlError> {
        let binding = self.binding_of(id)?;
        let Some(number) = self.attachments.of(creds) else {
            return Err(refuse(Errno::EPROTO, "a process attaches before it joins"));
        };
        if self.registry.binding_uid(binding) == Some(creds.uid) {
            return self.registry.grant(binding);
        }
        self.registry.add_guest(binding, number, creds.uid)?;
        // Before it can touch anything: the rings are the broker's now.
        self.worker.refresh(&self.registry);
        self.registry.guest_grant(binding, creds.uid)
    }

    /// The session's binding, for a process that is trusted like the one that bound it: it is that user's, or was told the key when it, or
    /// the one that it was forked from, was.
    pub(crate) fn insider_of(
        &self,
        id: u64,
        creds: Creds,
        key: BindingKey,
    ) -> Result<BindingId, ControlError> {
        let binding = self.binding_of(id)?;
        let is_his = self.registry.binding_uid(binding) == Some(creds.uid);
        if is_his || self.registry.is_key_of(binding, key) {
            return Ok(binding);
        }
        Err(refuse(Errno::EACCES, "the descriptor was bound by another user: its peers are not lent to you"))
    }
}
