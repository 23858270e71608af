//! Persistent switch ports: made by name, there until they are deleted. They join and leave switches in `attach`.
//!
//! Where the asker may, the name is that of a real interface, which the system shows (`ip link`): a TAP device that is not persistent
//! itself, held by its fd, so that it vanishes with whoever keeps the registry, however that ends. No frame goes through
//! it. Elsewhere the name is in the registry alone.
//!
//! A pipe on an unknown name makes such a port for itself, as its parent, which goes with the last that uses it.
//!
//! Source: semantics.md 18 and 21; abi.md 9.3, 9.4, 9.7, 9.8.

use super::nic::nic_key;
use super::ports::{IFNAMSIZ, vale_geometry};
use super::switches::{make_page, view};
use super::{Asker, ControlError, Kind, PortEntry, PortId, Registry};
use crate::nic::NicRequest;
use crate::vale::seat_port;
use ringway_abi::{Errno, is_vale_name, nmreq_register, nmreq_vale_newif};
use ringway_os::link::{Link, index_of};
use ringway_os::tap::Tap;

/// What makes a switch port persistent.
#[derive(Debug)]
pub(super) struct Persistent {
    /// It goes with the last that uses it.
    pub autodelete: bool,
    link: Option<OwnLink>,
    /// Its name on the switch, while it is attached to one.
    pub on_switch: Option<String>,
}

/// The interface of a persistent port.
#[derive(Debug)]
struct OwnLink {
    _tap: Tap,
    ifindex: u32,
    /// Where it was made.
    request: NicRequest,
}

impl OwnLink {
    /// Under which name the registry finds the port by its interface.
    fn key(&self) -> String {
        nic_key(self.request.netns_id, self.ifindex)
    }
}

/// MTU of a port without an interface.
const DEFAULT_MTU: u32 = 1500;
/// The longest frame that a switch port is said to take in one slot. Source: abi.md 9.1, "MTU rule".
const MAX_SLOT_FRAME_BYTES: u32 = 4096;

impl Persistent {
    pub(super) fn link_key(&self) -> Option<String> {
        self.link.as_ref().map(OwnLink::key)
    }

    /// Whether frames of the interface's MTU can be received in buffers of `buf_size` bytes: looked at when the first descriptor binds
    /// RX rings.
    pub(super) fn check_mtu(&self, buf_size: u32) -> Result<(), ControlError> {
        let asked =
            self.link.as_ref().map(|l| l.request.in_netns(|| Link::by_index(l.ifindex)).and_then(|r| r));
        let mtu = asked.and_then(Result::ok).map_or(DEFAULT_MTU, |link| link.mtu);
        // A longer one comes in several slots.
        let needed = mtu.min(MAX_SLOT_FRAME_BYTES);
        if buf_size >= needed {
            return Ok(());
        }
        let text = format!(
            "MTU {mtu} needs buffers of {needed} bytes, these have {buf_size}; raise tunable priv_buf_size"
        );
        Err(refuse(Errno::EINVAL, text))
    }
}

impl PortEntry {
    /// The name in force: that on the switch, if it is attached to one.
    pub(super) fn full_name(&self) -> &str {
        self.persistent.as_ref().and_then(|p| p.on_switch.as_deref()).unwrap_or(&self.name)
    }

    /// True while it stays although nobody has it bound.
    pub(super) fn stays(&self) -> bool {
        self.persistent.as_ref().is_some_and(|p| !p.autodelete || p.on_switch.is_some()) || self.is_wrapped()
    }

    /// What listings call it: `persistent`, `parent`; None for other ports.
    pub(super) fn persistent_kind(&self) -> Option<&'static str> {
        self.persistent.as_ref().map(|p| if p.autodelete { "parent" } else { "persistent" })
    }
}

pub(super) fn refuse(errno: Errno, text: String) -> ControlError {
    ControlError::new(errno, text)
}

/// What the system takes as the name of an interface. Braces are left to pipes; a percent sign would be a pattern.
fn is_link_name(name: &str) -> bool {
    let bad = |c: char| matches!(c, '/' | ':' | '%' | '{' | '}') || c.is_whitespace() || c.is_control();
    !matches!(name, "" | "." | "..") && !name.contains(bad)
}

impl Registry {
    /// VALE_NEWIF: makes a persistent port. What it got is written to `body`.
    ///
    /// # Errors
    /// As abi.md 9.7.
    pub fn vale_newif(
        &mut self,
        who: Asker,
        name: &str,
        body: &mut nmreq_vale_newif,
    ) -> Result<(), ControlError> {
        if is_vale_name(name) || name.len() >= IFNAMSIZ {
            let text = format!("{name}: a persistent port has a name of up to 15 characters, not a switch's");
            return Err(refuse(Errno::EINVAL, text));
        }
        if self.is_interface(name) {
            return Err(refuse(Errno::EEXIST, format!("there is an interface {name} already")));
        }
        if !is_link_name(name) {
            return Err(refuse(Errno::EINVAL, format!("'{name}' cannot be the name of an interface")));
        }
        if body.nr_mem_id != 0 {
            self.find_region(who, body.nr_mem_id)?;
        }
        let link = self.make_link(who, name)?;
        let req = nmreq_register {
            nr_tx_slots: body.nr_tx_slots,
            nr_rx_slots: body.nr_rx_slots,
            nr_tx_rings: body.nr_tx_rings,
            nr_rx_rings: body.nr_rx_rings,
            nr_mem_id: body.nr_mem_id,
            ..Default::default()
        };
        let id = self.make_persistent(who, name, &req, false, link)?;
        let port = self.port(id)?;
        let mem_id = self.region_of(port)?.mem_id;
        let g = port.geometry;
        (body.nr_tx_slots, body.nr_rx_slots) = (g.tx_slots, g.rx_slots);
        (body.nr_tx_rings, body.nr_rx_rings) = (g.tx_rings, g.rx_rings);
        body.nr_mem_id = mem_id;
        Ok(())
    }

    /// VALE_DELIF: takes a persistent port away.
    ///
    /// # Errors
    /// As abi.md 9.8; EACCES for another user's.
    pub fn vale_delif(&mut self, who: Asker, name: &str) -> Result<(), ControlError> {
        let id = self.persistent_link(name).or_else(|| self.names.get(name).copied());
        let port = id.and_then(|id| self.ports.get(&id)).filter(|_| !is_vale_name(name));
        let (Some(id), Some(port)) = (id, port) else {
            let errno = if self.is_interface(name) { Errno::EINVAL } else { Errno::ENXIO };
            return Err(refuse(errno, format!("there is no persistent port {name}")));
        };
        if port.persistent.as_ref().is_none_or(|p| p.autodelete) {
            return Err(refuse(Errno::EINVAL, format!("{name} is not a persistent port")));
        }
        self.check_owner(who, id)?;
        let port = self.port(id)?;
        let why = match &port.persistent {
            Some(Persistent { on_switch: Some(full), .. }) => format!("it is attached as {full}"),
            _ if port.bindings > 0 => "somebody has it open".to_owned(),
            _ if port.pipes > 0 => "it has pipes".to_owned(),
            _ => {
                self.remove_port(id);
                return Ok(());
            }
        };
        Err(refuse(Errno::EBUSY, format!("{name} cannot be deleted: {why}")))
    }

    /// True while there are ports that stay although nobody has them open: persistent ones, and interfaces on a switch.
    #[must_use]
    pub fn has_persistent(&self) -> bool {
        self.ports.values().any(PortEntry::stays)
    }

    /// The parent that a pipe on an unknown name makes for itself.
    pub(super) fn make_autodelete(
        &mut self,
        who: Asker,
        name: &str,
        req: &nmreq_register,
    ) -> Result<PortId, ControlError> {
        if name.is_empty() || name.len() >= IFNAMSIZ {
            return Err(refuse(Errno::ENXIO, format!("there is no interface {name}")));
        }
        self.make_persistent(who, name, req, true, None)
    }

    fn make_persistent(
        &mut self,
        who: Asker,
        name: &str,
        req: &nmreq_register,
        autodelete: bool,
        link: Option<OwnLink>,
    ) -> Result<PortId, ControlError> {
        let geometry = vale_geometry(req);
        let region = self.vale_region(who, req, &geometry)?;
        let made = self.add_port(who, name, region, geometry, true, |registry, _| registry.seat_alone());
        let id = match made {
            Ok(id) => id,
            Err(e) => {
                self.discard_unused_region(region);
                return Err(e);
            }
        };
        if let Some(link) = &link {
            self.names.insert(link.key(), id);
        }
        if let Some(port) = self.ports.get_mut(&id) {
            port.persistent = Some(Persistent { autodelete, link, on_switch: None });
        }
        Ok(id)
    }

    /// A place on no switch: what is sent is dropped and counted, nothing comes.
    pub(super) fn seat_alone(&mut self) -> Result<Kind, ControlError> {
        let page = make_page()?;
        self.next_generation = self.next_generation.wrapping_add(1).max(1);
        let generation = self.next_generation;
        seat_port(&*view(&page)?, 0, generation);
        Ok(Kind::Vale { switch: None, index: 0, generation, page })
    }

    /// The interface of a new port, if the asker may have one and the system makes it.
    fn make_link(&self, who: Asker, name: &str) -> Result<Option<OwnLink>, ControlError> {
        if !self.interface_users.permits(who) {
            return Ok(None);
        }
        let request = &self.nic_request;
        let made = request.in_netns(|| {
            let tap = Tap::create(name)?;
            Ok::<_, std::io::Error>((index_of(name)?, tap))
        });
        match made.and_then(|m| m) {
            Ok((ifindex, tap)) => Ok(Some(OwnLink { _tap: tap, ifindex, request: request.clone() })),
            // Somebody else made one meanwhile.
            Err(e) if matches!(e.raw_os_error().map(Errno), Some(Errno::EBUSY | Errno::EEXIST)) => {
                Err(refuse(Errno::EEXIST, format!("there is an interface {name} already")))
            }
            Err(_) => Ok(None),
        }
    }

    /// The persistent port whose interface has that name, in the asker's namespace.
    pub(super) fn persistent_link(&self, name: &str) -> Option<PortId> {
        if !self.ports.values().any(|p| p.persistent.as_ref().is_some_and(|p| p.link.is_some())) {
            return None;
        }
        let ifindex = self.nic_request.in_netns(|| index_of(name)).and_then(|found| found).ok()?;
        let id = self.names.get(&nic_key(self.nic_request.netns_id, ifindex)).copied()?;
        self.ports.get(&id).and_then(|p| p.persistent.as_ref()).map(|_| id)
    }

    /// True if the asker's namespace has an interface of that name, or the registry a port that is as good as one.
    pub(super) fn is_interface(&self, name: &str) -> bool {
        let is_port = |id| self.ports.get(id).is_some_and(|p: &PortEntry| p.persistent.is_some());
        self.names.get(name).is_some_and(is_port) || self.is_system_interface(name)
    }

    /// True if the asker's namespace has an interface of that name.
    pub(super) fn is_system_interface(&self, name: &str) -> bool {
        !name.is_empty() && self.nic_request.in_netns(|| index_of(name)).is_ok_and(|found| found.is_ok())
    }
}
