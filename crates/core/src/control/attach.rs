//! Ports that join a switch and leave it by request: persistent ones, interfaces, and a persistent one that is on a switch already.
//!
//! A persistent port joins its first switch itself. All else is wrapped: `wrapped` has that.
//!
//! Source: semantics.md 18 and 19; abi.md 9.3, 9.4.

use super::persistent::refuse;
use super::switches::view;
use super::{Asker, ControlError, Kind, PortEntry, PortId, Registry};
use crate::vale::set_header;
use ringway_abi::{Errno, is_vale_name, nmreq_vale_attach, nmreq_vale_detach, split_vale};

impl Registry {
    /// VALE_ATTACH: a persistent port or an interface joins a switch. Writes its index there.
    ///
    /// # Errors
    /// As abi.md 9.3; EOPNOTSUPP for host rings; EACCES for another user's port or switch, and for an interface that the asker may
    /// not open; EAGAIN if the interface was closed a moment ago.
    pub fn vale_attach(
        &mut self,
        who: Asker,
        full: &str,
        body: &mut nmreq_vale_attach,
    ) -> Result<(), ControlError> {
        if body.reg.nr_mem_id != 0 {
            self.find_region(who, body.reg.nr_mem_id)?;
        }
        if self.names.contains_key(full) && is_vale_name(full) {
            return Err(refuse(Errno::EBUSY, format!("there is a port {full} already")));
        }
        if !is_vale_name(full) {
            return Err(refuse(Errno::EINVAL, format!("{full} is not the name of a switch port")));
        }
        let (switch, name) = split_vale(full).map_err(|e| refuse(e.errno(), format!("{full}: {e}")))?;
        let Some((id, port)) = self.persistent_called(name) else {
            body.port_index = self.attach_interface(who, full, switch, name, &body.reg)?.into();
            return Ok(());
        };
        self.check_owner(who, id)?;
        if port.bindings > 0 && !port.is_wrapped() {
            return Err(refuse(Errno::EBUSY, format!("{name} cannot be attached: somebody has it open")));
        }
        let index = if port.full_name() == port.name {
            self.attach_persistent(who, full, switch, id)?
        } else {
            self.wrap(who, full, switch, id, &body.reg)?
        };
        body.port_index = index.into();
        Ok(())
    }

    /// The persistent port of that name. One that a pipe made for itself steps back behind an interface of its name.
    fn persistent_called(&self, name: &str) -> Option<(PortId, &PortEntry)> {
        let id = self.persistent_link(name).or_else(|| self.names.get(name).copied())?;
        let port = self.ports.get(&id)?;
        let own = port.persistent.as_ref()?;
        let hides = own.autodelete && self.is_system_interface(name);
        (!hides).then_some((id, port))
    }

    /// A persistent port joins its first switch.
    fn attach_persistent(
        &mut self,
        who: Asker,
        full: &str,
        switch: &str,
        id: PortId,
    ) -> Result<u8, ControlError> {
        let port = self.port(id)?;
        let (hdr_len, mfs) = (port.hdr_len, port.mfs);
        let i = self.join_switch(who, switch)?;
        let (index, generation, page) = match self.seat(i, id) {
            Ok(seat) => seat,
            Err(e) => {
                self.discard_empty_switch(i);
                return Err(e);
            }
        };
        set_header(&*view(&page)?, index, hdr_len, mfs);
        if let Some(port) = self.ports.get_mut(&id) {
            port.kind = Kind::Vale { switch: Some(i), index, generation, page };
            if let Some(p) = &mut port.persistent {
                p.on_switch = Some(full.to_owned());
            }
        }
        self.names.insert(full.to_owned(), id);
        Ok(index)
    }

    /// VALE_DETACH: a persistent port or an interface leaves its switch; who has a persistent one open keeps it. Writes the index
    /// that it had.
    ///
    /// # Errors
    /// As abi.md 9.4; EACCES for another user's port.
    pub fn vale_detach(
        &mut self,
        who: Asker,
        full: &str,
        body: &mut nmreq_vale_detach,
    ) -> Result<(), ControlError> {
        if !is_vale_name(full) {
            return Err(refuse(Errno::EINVAL, format!("{full} is not the name of a switch port")));
        }
        let id = self.names.get(full).copied();
        let Some((id, port)) = id.and_then(|id| Some((id, self.ports.get(&id)?))) else {
            return Err(refuse(Errno::ENXIO, format!("there is no switch port {full}")));
        };
        self.check_owner(who, id)?;
        let Kind::Vale { switch: Some(_), index, .. } = port.kind else {
            return Err(refuse(Errno::ENXIO, format!("{full} is on no switch")));
        };
        if port.persistent.is_none() && port.wraps().is_none() {
            let text = format!("{full} goes when the last that has it open closes it");
            return Err(refuse(Errno::EBUSY, text));
        }
        if port.is_polled() {
            return Err(refuse(Errno::EBUSY, format!("{full} is polled; end that first")));
        }
        if let Some(second) = port.wrapped_by().and_then(|id| self.ports.get(&id)) {
            let text = format!("{full} is attached a second time, as {}; detach that first", second.name);
            return Err(refuse(Errno::EBUSY, text));
        }
        let wrapper = port.wraps().is_some();
        self.leave_switch(id, full)?;
        if wrapper {
            self.unwrap(id);
        } else {
            self.drop_if_unused(id);
        }
        body.port_index = index.into();
        Ok(())
    }

    /// A port is on no switch from now on, and not called `full` any more.
    pub(super) fn leave_switch(&mut self, id: PortId, full: &str) -> Result<(), ControlError> {
        let port = self.port(id)?;
        let Kind::Vale { switch: Some(i), index, .. } = port.kind else { return Ok(()) };
        let (hdr_len, mfs) = (port.hdr_len, port.mfs);
        // What may fail comes first.
        let alone = self.seat_alone()?;
        if let Kind::Vale { page, .. } = &alone {
            set_header(&*view(page)?, 0, hdr_len, mfs);
        }
        self.unseat(i, index);
        self.names.remove(full);
        if let Some(port) = self.ports.get_mut(&id) {
            port.kind = alone;
            if let Some(p) = &mut port.persistent {
                p.on_switch = None;
            }
        }
        Ok(())
    }
}
