//! Everything that can be said about a port before it is open.

use crate::embedded::Netmap;
use crate::error::OpenError;
use crate::port::Port;
use ringway_abi::{
    Errno, NR_ACCEPT_VNET_HDR, NR_DO_RX_POLL, NR_EXCLUSIVE, NR_NO_TX_POLL, NR_REG_ALL_NIC, NR_REG_NIC_SW,
    NR_REG_NULL, NR_REG_ONE_NIC, NR_REG_ONE_SW, NR_REG_SW, NR_RX_RINGS_ONLY, NR_TX_RINGS_ONLY, NicMode,
    ParseOptions, PortSpec, nmreq_opt_offsets,
};
use ringway_core::control::ReqOption;

/// A port to open. Starts from its name; what the methods say goes before what the name says.
///
/// ```
/// # let netmap = ringway::Netmap::embedded();
/// let port = netmap.builder("vale0:a").tx_slots(256).rx_slots(4096).extra_buffers(64).open()?;
/// assert_eq!(port.geometry().rx_slots, 4096);
/// # Ok::<(), ringway::OpenError>(())
/// ```
///
/// Source: `struct nmreq_register` of `sys/net/netmap.h`; names as in libnetmap (`netmap:` or `vale`, then mode and options).
#[derive(Clone, Debug)]
#[must_use = "nothing happens before open()"]
pub struct PortBuilder {
    netmap: Netmap,
    name: String,
    shared: bool,
    tx_rings: Option<u16>,
    rx_rings: Option<u16>,
    host_rings: Option<u16>,
    tx_slots: Option<u32>,
    rx_slots: Option<u32>,
    mode: Option<(u32, u16)>,
    mem_id: Option<u16>,
    extra_bufs: u32,
    flags: u64,
    nic_mode: Option<NicMode>,
    offset: Option<u64>,
    max_offset: Option<u64>,
    min_gap: u64,
}

impl PortBuilder {
    pub(crate) fn new(netmap: Netmap, name: &str) -> Self {
        PortBuilder {
            netmap,
            name: name.to_owned(),
            shared: false,
            tx_rings: None,
            rx_rings: None,
            host_rings: None,
            tx_slots: None,
            rx_slots: None,
            mode: None,
            mem_id: None,
            extra_bufs: 0,
            flags: 0,
            nic_mode: None,
            offset: None,
            max_offset: None,
            min_gap: 0,
        }
    }

    /// TX rings wanted, if the port is made by this open. Interfaces have what they have.
    pub fn tx_rings(mut self, rings: u16) -> Self {
        self.tx_rings = Some(rings);
        self
    }

    /// RX rings wanted, as [`PortBuilder::tx_rings`].
    pub fn rx_rings(mut self, rings: u16) -> Self {
        self.rx_rings = Some(rings);
        self
    }

    /// TX and RX rings wanted.
    pub fn rings(self, rings: u16) -> Self {
        self.tx_rings(rings).rx_rings(rings)
    }

    /// Slots wanted in each TX ring, if the port is made by this open; 0: as many as such a port has by default. One slot always stays
    /// with the engine.
    pub fn tx_slots(mut self, slots: u32) -> Self {
        self.tx_slots = Some(slots);
        self
    }

    /// Slots wanted in each RX ring, as [`PortBuilder::tx_slots`].
    pub fn rx_slots(mut self, slots: u32) -> Self {
        self.rx_slots = Some(slots);
        self
    }

    /// Slots wanted in each ring.
    pub fn slots(self, slots: u32) -> Self {
        self.tx_slots(slots).rx_slots(slots)
    }

    /// Pairs of host rings wanted, on an interface.
    pub fn num_host_rings(mut self, rings: u16) -> Self {
        self.host_rings = Some(rings);
        self
    }

    /// Binds all rings but host rings: the default (`NR_REG_ALL_NIC`).
    pub fn all_rings(mut self) -> Self {
        self.mode = Some((NR_REG_ALL_NIC, 0));
        self
    }

    /// Binds ring `ring` of each direction only (`NR_REG_ONE_NIC`; `-ring` in a name).
    pub fn ring(mut self, ring: u16) -> Self {
        self.mode = Some((NR_REG_ONE_NIC, ring));
        self
    }

    /// Binds host rings only (`NR_REG_SW`; `^` in a name).
    pub fn host_rings(mut self) -> Self {
        self.mode = Some((NR_REG_SW, 0));
        self
    }

    /// Binds one pair of host rings only (`NR_REG_ONE_SW`; `^ring` in a name).
    pub fn host_ring(mut self, ring: u16) -> Self {
        self.mode = Some((NR_REG_ONE_SW, ring));
        self
    }

    /// Binds all rings and host rings (`NR_REG_NIC_SW`; `*` in a name).
    pub fn all_and_host_rings(mut self) -> Self {
        self.mode = Some((NR_REG_NIC_SW, 0));
        self
    }

    /// A null port: it moves nothing, and holds the region [`PortBuilder::mem_id`] (`NR_REG_NULL`).
    pub fn null(mut self) -> Self {
        self.mode = Some((NR_REG_NULL, 0));
        self
    }

    /// Others may bind the same rings. Without this a port opens exclusively, so that no buffer has two owners; rings of a
    /// shared port take no part in swaps.
    pub fn shared(mut self) -> Self {
        self.shared = true;
        self
    }

    /// Binds no RX ring.
    pub fn tx_only(mut self) -> Self {
        self.flags |= NR_TX_RINGS_ONLY;
        self
    }

    /// Binds no TX ring.
    pub fn rx_only(mut self) -> Self {
        self.flags |= NR_RX_RINGS_ONLY;
        self
    }

    /// Region to use, if the port is made by this open. [`Port::mem_id`] tells whether it was.
    pub fn mem_id(mut self, mem_id: u16) -> Self {
        self.mem_id = Some(mem_id);
        self
    }

    /// Uses the region of an open port, so that buffers can be swapped between the two.
    pub fn share_memory_with(self, port: &Port) -> Self {
        self.mem_id(port.mem_id())
    }

    /// Buffers wanted that lie in no slot, see [`Port::take_extra`]. Fewer may be granted.
    pub fn extra_buffers(mut self, buffers: u32) -> Self {
        self.extra_bufs = buffers;
        self
    }

    /// Takes virtio-net headers before the frames if the port has them; such a port refuses who does not.
    pub fn accept_vnet_hdr(mut self) -> Self {
        self.flags |= NR_ACCEPT_VNET_HDR;
        self
    }

    /// Waiting for packets does not send what is pending.
    pub fn no_tx_poll(mut self) -> Self {
        self.flags |= NR_NO_TX_POLL;
        self
    }

    /// Waiting for room also receives.
    pub fn do_rx_poll(mut self) -> Self {
        self.flags |= NR_DO_RX_POLL;
        self
    }

    /// How to reach an interface. Without this, the best that works.
    pub fn nic_mode(mut self, mode: NicMode) -> Self {
        self.nic_mode = Some(mode);
        self
    }

    /// Packets begin `initial` bytes into their buffers, unless a slot says otherwise
    /// ([`TxSlot::set_offset`](crate::TxSlot::set_offset)): room for headers to be put before them without copying. `@offset=` in a name
    /// says the same.
    pub fn offset(mut self, initial: u64) -> Self {
        self.offset = Some(initial);
        self
    }

    /// With [`PortBuilder::offset`]: the largest offset that slots will say. Without this, the initial one.
    pub fn max_offset(mut self, max: u64) -> Self {
        self.max_offset = Some(max);
        self
    }

    /// With [`PortBuilder::offset`]: an interface receives up to so many bytes behind an offset, and no more.
    pub fn min_gap(mut self, bytes: u64) -> Self {
        self.min_gap = bytes;
        self
    }

    /// Opens it.
    ///
    /// # Errors
    /// [`OpenError`]: EINVAL for a name that cannot be read, ENXIO for an unknown interface, EBUSY if a ring is in use, EACCES
    /// for another user's port, ENOMEM if the region is too small, and the like.
    pub fn open(self) -> Result<Port, OpenError> {
        let mut allowed = ParseOptions::new();
        allowed.enable("offset");
        let mut spec = PortSpec::parse_with(&self.name, &allowed)?;
        let conf = &mut spec.conf;
        conf.tx_rings = self.tx_rings.unwrap_or(conf.tx_rings);
        conf.rx_rings = self.rx_rings.unwrap_or(conf.rx_rings);
        conf.tx_slots = self.tx_slots.unwrap_or(conf.tx_slots);
        conf.rx_slots = self.rx_slots.unwrap_or(conf.rx_slots);
        if let Some(rings) = self.host_rings {
            (conf.host_tx_rings, conf.host_rx_rings) = (rings, rings);
        }
        if let Some((mode, ring)) = self.mode {
            (spec.nr_mode, spec.nr_ringid) = (mode, ring);
        }
        spec.nr_mem_id = self.mem_id.unwrap_or(spec.nr_mem_id);
        spec.nic_mode = self.nic_mode.or(spec.nic_mode);
        if spec.nic_mode.is_some() && (spec.name.starts_with("vale") || spec.name.contains(['{', '}'])) {
            let text =
                format!("{}: a mode is for interfaces; nothing else is reached in several ways", spec.name);
            return Err(OpenError::refused(Errno::EINVAL, text));
        }
        spec.nr_flags |= self.flags;
        if !self.shared {
            spec.nr_flags |= NR_EXCLUSIVE;
        }
        let mut req = spec.register();
        req.nr_extra_bufs = self.extra_bufs;
        let said = spec.offset.unwrap_or_default();
        let initial = self.offset.unwrap_or(said.initial);
        let wanted = spec.offset.is_some() || self.offset.is_some() || self.max_offset.is_some();
        let mut options: Vec<ReqOption> = wanted
            .then(|| {
                ReqOption::offsets(&nmreq_opt_offsets {
                    nro_initial_offset: initial,
                    nro_max_offset: self.max_offset.unwrap_or(initial),
                    nro_offset_bits: said.bits,
                    nro_min_gap: self.min_gap,
                    ..Default::default()
                })
            })
            .into_iter()
            .collect();
        let (backend, grant) = self.netmap.register(&spec, &req, &mut options)?;
        Port::new(self.netmap, backend, grant)
    }
}
