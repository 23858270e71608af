//! Switches: made by their first port, gone with the last.

use super::regions::no_memory;
use super::{Asker, ControlError, PortId, Registry, Switch};
use crate::pool::Shm;
use crate::vale::{seat_port, unseat_port};
use ringway_abi::Errno;
use ringway_os::mem::SharedRef;
use ringway_os::state::SwitchPage;
use std::collections::BTreeMap;

/// Indexes of a switch; making a port needs two free ones.
const MAX_PORTS: usize = 254;

/// The typed view of a switch's page.
pub(super) fn view(page: &Shm) -> Result<SharedRef<SwitchPage>, ControlError> {
    SharedRef::new(&page.map, 0)
        .ok_or_else(|| ControlError::new(Errno::ENOMEM, "the switch page is too small"))
}

/// A page for a new switch.
pub(super) fn make_page() -> Result<Shm, ControlError> {
    Shm::create("ringway-switch", size_of::<SwitchPage>()).map_err(|e| no_memory("a switch", &e))
}

impl Registry {
    /// The switch called `name`, made if need be. Switches of other users may be joined if they are public.
    pub(super) fn join_switch(&mut self, who: Asker, name: &str) -> Result<usize, ControlError> {
        if let Some(i) = self.switch_index(name) {
            let switch = self.switches[i].as_ref().filter(|s| s.public || who.may(s.owner));
            if switch.is_none() {
                let text = format!(
                    "switch {name} belongs to another user; its owner's broker can declare it public (public_switches)"
                );
                return Err(ControlError::new(Errno::EACCES, text));
            }
            return Ok(i);
        }
        let max = usize::try_from(self.tunables.max_bridges).unwrap_or(0);
        let free = self.switches.iter().position(Option::is_none);
        let i = match free {
            Some(i) => i,
            None if self.switches.len() < max => {
                self.switches.push(None);
                self.switches.len() - 1
            }
            None => {
                let text = format!("all {max} switches are in use; tunable max_bridges raises the limit");
                return Err(ControlError::new(Errno::ENOMEM, text));
            }
        };
        let public = self.public_switches.iter().any(|s| s == name);
        self.switches[i] = Some(Switch {
            name: name.to_owned(),
            owner: who.uid,
            page: make_page()?,
            ports: BTreeMap::new(),
            freed: vec![],
            next_index: 0,
            public,
        });
        Ok(i)
    }

    pub(super) fn switch_index(&self, name: &str) -> Option<usize> {
        self.switches.iter().position(|s| s.as_ref().is_some_and(|s| s.name == name))
    }

    /// Seats a port on switch `i`. Returns its index and generation.
    pub(super) fn seat(&mut self, i: usize, port: PortId) -> Result<(u8, u32, Shm), ControlError> {
        self.next_generation = self.next_generation.wrapping_add(1).max(1);
        let generation = self.next_generation;
        let Some(switch) = self.switches.get_mut(i).and_then(Option::as_mut) else {
            return Err(ControlError::new(Errno::ENXIO, "the switch is gone"));
        };
        if switch.ports.len() + 2 >= MAX_PORTS {
            let text = format!("switch {} is full ({} ports)", switch.name, switch.ports.len());
            return Err(ControlError::new(Errno::ENOMEM, text));
        }
        let index = switch.freed.pop().unwrap_or(switch.next_index);
        switch.next_index = switch.next_index.max(index + 1);
        seat_port(&*view(&switch.page)?, index, generation);
        switch.ports.insert(index, port);
        Ok((index, generation, switch.page.clone()))
    }

    /// A port leaves its switch; the last one takes it away.
    pub(super) fn unseat(&mut self, i: usize, index: u8) {
        let Some(switch) = self.switches.get_mut(i).and_then(Option::as_mut) else { return };
        if let Ok(page) = view(&switch.page) {
            unseat_port(&page, index);
        }
        switch.ports.remove(&index);
        switch.freed.push(index);
        if switch.ports.is_empty() {
            self.discard_empty_switch(i);
        }
    }

    /// Takes a switch away that has no port.
    pub(super) fn discard_empty_switch(&mut self, i: usize) {
        if let Some(slot) = self.switches.get_mut(i)
            && slot.as_ref().is_some_and(|s| s.ports.is_empty())
        {
            *slot = None;
        }
    }
}
