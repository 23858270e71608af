//! Polling of interfaces on a switch: on which processors, and what is refused.
//!
//! Source: semantics.md 20; abi.md 9.9.

use super::persistent::refuse;
use super::wrapped::Wrap;
use super::{Asker, ControlError, PortEntry, PortId, Registry};
use ringway_abi::{
    Errno, NETMAP_POLLING_MODE_MULTI_CPU, NETMAP_POLLING_MODE_SINGLE_CPU, is_vale_name, nmreq_vale_polling,
};

/// Which processor looks after which ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Polling {
    /// One after all.
    Single { cpu: u32 },
    /// Each of these after the ring of its number.
    Multi { first: u32, count: u32 },
}

impl Polling {
    /// The processor that looks after ring `index`.
    pub(super) fn cpu_of(self, index: u16) -> Option<u32> {
        match self {
            Polling::Single { cpu } => Some(cpu),
            Polling::Multi { first, count } => {
                Some(u32::from(index)).filter(|i| *i >= first && i - first < count)
            }
        }
    }

    /// What a request asks for, of a port with `rings` RX rings, on a machine with processors 0 to `cpus - 1`.
    fn asked(body: &nmreq_vale_polling, rings: u16, cpus: u32) -> Result<Self, String> {
        let (first, count) = (body.nr_first_cpu_id, body.nr_num_polling_cpus);
        if count == 0 || count >= cpus {
            return Err(format!("{count} of {cpus} processors cannot poll: at least one, and not all"));
        }
        match body.nr_mode {
            NETMAP_POLLING_MODE_SINGLE_CPU if count != 1 => {
                Err(format!("mode SINGLE_CPU takes one processor, not {count}"))
            }
            NETMAP_POLLING_MODE_SINGLE_CPU if first >= cpus => Err(format!("there is no processor {first}")),
            NETMAP_POLLING_MODE_SINGLE_CPU => Ok(Polling::Single { cpu: first }),
            NETMAP_POLLING_MODE_MULTI_CPU => {
                let last = first.checked_add(count);
                if last.is_none_or(|last| last > u32::from(rings)) {
                    return Err(format!(
                        "processors {first} and on, {count} of them, are not among rings 0 to {}",
                        rings.saturating_sub(1)
                    ));
                }
                if last.is_none_or(|last| last > cpus) {
                    return Err(format!("there are processors 0 to {} only", cpus - 1));
                }
                Ok(Polling::Multi { first, count })
            }
            other => Err(format!("{other} is no mode of polling")),
        }
    }
}

impl PortEntry {
    pub(super) fn is_polled(&self) -> bool {
        matches!(&self.wrap, Wrap::Outer(outer) if outer.polling.is_some())
    }
}

impl Registry {
    /// VALE_POLLING_ENABLE: threads look after the rings of an attached interface from now on, without sleeping. The machine has
    /// processors 0 to `cpus - 1`.
    ///
    /// # Errors
    /// As abi.md 9.9; EACCES for another user's port.
    pub fn vale_polling_enable(
        &mut self,
        who: Asker,
        name: &str,
        body: &nmreq_vale_polling,
        cpus: u32,
    ) -> Result<(), ControlError> {
        let id = self.polled_port(who, name)?;
        let port = self.port(id)?;
        if port.is_polled() {
            return Err(refuse(Errno::EFAULT, format!("{name} is polled already")));
        }
        let polling = Polling::asked(body, port.geometry.rx_rings, cpus)
            .map_err(|text| refuse(Errno::EINVAL, format!("{name}: {text}")))?;
        self.set_polling(id, Some(polling));
        Ok(())
    }

    /// VALE_POLLING_DISABLE.
    ///
    /// # Errors
    /// As abi.md 9.9; EACCES for another user's port.
    pub fn vale_polling_disable(&mut self, who: Asker, name: &str) -> Result<(), ControlError> {
        let id = self.polled_port(who, name)?;
        if !self.port(id)?.is_polled() {
            return Err(refuse(Errno::EFAULT, format!("{name} is not polled")));
        }
        self.set_polling(id, None);
        Ok(())
    }

    fn polled_port(&self, who: Asker, name: &str) -> Result<PortId, ControlError> {
        if !is_vale_name(name) {
            return Err(refuse(Errno::EINVAL, format!("{name} is not the name of a switch port")));
        }
        let id = self.names.get(name).copied();
        let id = id.ok_or_else(|| refuse(Errno::ENXIO, format!("there is no switch port {name}")))?;
        self.check_owner(who, id)?;
        if self.port(id)?.wraps().is_none() {
            let text = format!("{name} is no interface on a switch: there is nothing to poll");
            return Err(refuse(Errno::EOPNOTSUPP, text));
        }
        Ok(id)
    }

    fn set_polling(&mut self, id: PortId, polling: Option<Polling>) {
        if let Some(Wrap::Outer(outer)) = self.ports.get_mut(&id).map(|p| &mut p.wrap) {
            outer.polling = polling;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_processors_and_counts_are_as_the_contract_says() {
        let asked = |nr_mode, nr_first_cpu_id, nr_num_polling_cpus, rings, cpus| {
            let body =
                nmreq_vale_polling { nr_mode, nr_first_cpu_id, nr_num_polling_cpus, ..Default::default() };
            Polling::asked(&body, rings, cpus).ok()
        };
        const SINGLE: u32 = NETMAP_POLLING_MODE_SINGLE_CPU;
        const MULTI: u32 = NETMAP_POLLING_MODE_MULTI_CPU;
        assert_eq!(asked(SINGLE, 1, 1, 1, 2), Some(Polling::Single { cpu: 1 }));
        assert_eq!(asked(SINGLE, 2, 1, 1, 2), None, "no such processor");
        assert_eq!(asked(SINGLE, 0, 2, 4, 4), None, "one only");
        assert_eq!(asked(SINGLE, 0, 0, 1, 2), None, "none");
        assert_eq!(asked(SINGLE, 0, 1, 1, 1), None, "a machine with one processor");
        assert_eq!(asked(MULTI, 1, 2, 4, 4), Some(Polling::Multi { first: 1, count: 2 }));
        assert_eq!(asked(MULTI, 0, 4, 4, 4), None, "all processors");
        assert_eq!(asked(MULTI, 1, 1, 1, 4), None, "no such ring");
        assert_eq!(asked(MULTI, u32::MAX, 1, 1, 4), None);
        assert_eq!(asked(MULTI, 4, 1, 8, 4), None, "no such processor");
        for mode in [0, 3, u32::MAX] {
            assert_eq!(asked(mode, 0, 1, 1, 2), None, "mode {mode}");
        }
        let polling = Polling::Multi { first: 1, count: 2 };
        assert_eq!([0, 1, 2, 3].map(|i| polling.cpu_of(i)), [None, Some(1), Some(2), None]);
        assert_eq!(Polling::Single { cpu: 3 }.cpu_of(7), Some(3));
    }
}
