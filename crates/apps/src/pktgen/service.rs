//! Ports of the service, through the crate `ringway`.
//!
//! Owns what pkt-gen asks of a port when it opens it: shared rings unless the name says `/x`, virtio-net headers
//! accepted, one ring for each of several threads. What names mean is decided by `ringway` itself.
//!
//! Rings are `ringway`'s views: they know their window from one load of the shared cursors, and publish theirs when
//! they are dropped, before the sync or poll that makes it count.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use ringway::{Interest, Netmap, Payload, Port, PortBuilder, RxRing, RxSlot, SyncError, TxRing, TxSlot};
use ringway_abi::{NR_REG_ALL_NIC, NR_REG_NIC_SW, PortSpec};
use ringway_os::link::Link;

use super::device::{Backend, Device, Events, OpenError, OpenRequest, PortInfo, Ring, Slot};
use crate::addr::Mac;

/// Opens ports with the broker of this machine, or in an engine of this process.
#[derive(Clone, Debug)]
pub struct Service(pub Netmap);

/// An open port.
#[derive(Debug)]
pub struct ServiceDevice {
    port: Port,
    /// As it was opened: the virtio-net header is asked for by name.
    name: String,
    info: PortInfo,
    /// Why the last poll answered [`Events::ERR`].
    trouble: Option<SyncError>,
}

/// A transmit ring.
#[derive(Debug)]
pub struct ServiceTx<'a>(TxRing<'a>);

/// A receive ring.
#[derive(Debug)]
pub struct ServiceRx<'a>(RxRing<'a>);

/// Fills `data` from `from`; what lies behind its end reads as zeros.
fn read_or_zeros(from: &Payload<'_>, offset: usize, data: &mut [u8]) {
    let got = from.slice(offset, data.len()).copy_to(data);
    data[got..].fill(0);
}

/// What is the same for both directions, given how to lend the whole buffer of a slot, how to store its length and
/// flags, and what tells the directions apart in dumps.
macro_rules! ring {
    ($ring:ident, $buffer:ident, $set:expr, $dir:expr) => {
        impl Ring for $ring<'_> {
            #[inline]
            fn number(&self) -> u32 {
                self.0.index().into()
            }
            #[inline]
            fn num_slots(&self) -> u32 {
                self.0.num_slots()
            }
            #[inline]
            fn buf_size(&self) -> usize {
                self.0.buf_size()
            }
            #[inline]
            fn head(&self) -> u32 {
                self.0.head()
            }
            #[inline]
            fn cur(&self) -> u32 {
                self.0.cur()
            }
            #[inline]
            fn tail(&self) -> u32 {
                self.0.tail()
            }
            #[inline]
            fn set_head(&mut self, head: u32) {
                let inside = self.0.set_head(head);
                debug_assert!(inside, "head {head} is outside the window of {:?}", self.0);
            }
            #[inline]
            fn set_cur(&mut self, cur: u32) {
                let inside = self.0.set_cur(cur);
                debug_assert!(inside, "cur {cur} is outside the window of {:?}", self.0);
            }
            #[inline]
            fn slot(&self, idx: u32) -> Slot {
                let word = self.0.peek(idx).unwrap_or_default();
                Slot { buf_idx: word.buf_idx(), len: word.len(), flags: word.flags() }
            }
            #[inline]
            fn set_slot(&mut self, idx: u32, len: u16, flags: u16) {
                if let Some(slot) = self.0.slot_at(idx) {
                    $set(&slot, len, flags);
                }
            }
            #[inline]
            fn set_ptr(&mut self, idx: u32, ptr: u64) {
                if let Some(slot) = self.0.slot_at(idx) {
                    slot.set_ptr(ptr);
                }
            }
            #[inline]
            fn write(&mut self, idx: u32, offset: usize, data: &[u8]) {
                if let Some(slot) = self.0.slot_at(idx) {
                    slot.$buffer().slice(offset, data.len()).copy_from(data);
                }
            }
            #[inline]
            fn read(&self, idx: u32, offset: usize, data: &mut [u8]) {
                match self.0.slot_at(idx) {
                    Some(slot) => read_or_zeros(&slot.$buffer(), offset, data),
                    None => data.fill(0),
                }
            }
            fn address(&self) -> usize {
                $dir << 16 | usize::from(self.0.index())
            }
        }
    };
}

ring!(ServiceTx, payload, TxSlot::set, 1);
ring!(ServiceRx, buffer, set_received, 0);

/// Receivers do not usually write slots.
fn set_received(slot: &RxSlot<'_>, len: u16, flags: u16) {
    slot.set_len(len);
    slot.set_flags(flags);
}

impl Device for ServiceDevice {
    type TxRing<'a> = ServiceTx<'a>;
    type RxRing<'a> = ServiceRx<'a>;

    fn info(&self) -> PortInfo {
        self.info
    }

    fn tx_rings(&self) -> usize {
        self.port.tx_rings()
    }

    fn rx_rings(&self) -> usize {
        self.port.rx_rings()
    }

    #[inline]
    fn tx_ring(&mut self, i: usize) -> ServiceTx<'_> {
        ServiceTx(self.port.tx(i))
    }

    #[inline]
    fn rx_ring(&mut self, i: usize) -> ServiceRx<'_> {
        ServiceRx(self.port.rx(i))
    }

    fn txsync(&mut self) -> io::Result<()> {
        Ok(self.port.txsync()?)
    }

    fn rxsync(&mut self) -> io::Result<()> {
        Ok(self.port.rxsync()?)
    }

    #[inline]
    fn poll(&mut self, want: Events, timeout: Duration) -> io::Result<Events> {
        let interest = match (want.has(Events::IN), want.has(Events::OUT)) {
            (true, true) => Interest::BOTH,
            (true, false) => Interest::RX,
            (false, true) => Interest::TX,
            (false, false) => Interest::default(),
        };
        match self.port.wait(interest, Some(timeout)) {
            Ok(ready) => {
                let found_in = if ready.rx { Events::IN } else { Events::NONE };
                Ok(found_in | if ready.tx { Events::OUT } else { Events::NONE })
            }
            Err(SyncError::Os(errno)) => Err(io::Error::from_raw_os_error(errno.0)),
            Err(error) => {
                self.trouble = Some(error);
                Ok(Events::ERR)
            }
        }
    }

    fn trouble(&self) -> Option<String> {
        self.trouble.map(|error| error.to_string())
    }

    fn header_len(&self) -> io::Result<u32> {
        Ok(self.port.netmap().header_len(&self.name)?)
    }

    fn set_header_len(&mut self, bytes: u32) -> io::Result<()> {
        Ok(self.port.netmap().set_header_len(&self.name, bytes)?)
    }

    fn fd(&self) -> i32 {
        self.port.as_fd().as_raw_fd()
    }
}

impl Service {
    /// Opens what the name says, or only ring `ring` of it.
    fn open_bound(&self, request: &OpenRequest, ring: Option<u32>) -> Result<ServiceDevice, OpenError> {
        let name = &request.name;
        let spec = PortSpec::parse(name).map_err(|error| OpenError(line(name, &error)))?;
        let mut builder = self.builder(request)?;
        if let Some(ring) = ring {
            if !matches!(spec.nr_mode, NR_REG_ALL_NIC | NR_REG_NIC_SW) {
                let text = format!("{name}: binds only some rings, which several threads (-p) cannot divide");
                return Err(OpenError(text));
            }
            builder = builder.ring(narrow(ring, "ring")?);
        }
        let port = builder.open().map_err(|error| OpenError(line(name, &error)))?;
        let info = info(&port);
        Ok(ServiceDevice { port, name: name.clone(), info, trouble: None })
    }

    /// What the command line asks of the port.
    fn builder(&self, request: &OpenRequest) -> Result<PortBuilder, OpenError> {
        let mut builder = self.0.builder(&request.name).shared().accept_vnet_hdr();
        if request.tx_rings > 0 {
            builder = builder.tx_rings(narrow(request.tx_rings, "number of rings")?);
        }
        if request.rx_rings > 0 {
            builder = builder.rx_rings(narrow(request.rx_rings, "number of rings")?);
        }
        if request.tx_slots > 0 {
            builder = builder.tx_slots(request.tx_slots);
        }
        if request.rx_slots > 0 {
            builder = builder.rx_slots(request.rx_slots);
        }
        Ok(if request.rx_only { builder.no_tx_poll() } else { builder })
    }
}

/// The error of a port as one line: behind its name, if it does not begin with that itself.
fn line(name: &str, error: &dyn std::error::Error) -> String {
    let text = error.to_string();
    if text.starts_with(&format!("{name}: ")) { text } else { format!("{name}: {text}") }
}

/// Rings are counted in 16 bits.
fn narrow(number: u32, what: &str) -> Result<u16, OpenError> {
    u16::try_from(number).map_err(|_| OpenError(format!("{what} {number} is too large")))
}

fn info(port: &Port) -> PortInfo {
    let geometry = port.geometry();
    PortInfo {
        tx_rings: geometry.tx_rings.into(),
        rx_rings: geometry.rx_rings.into(),
        // The service has no host rings yet.
        host_tx_rings: 0,
        host_rx_rings: 0,
        tx_slots: geometry.tx_slots,
        rx_slots: geometry.rx_slots,
        path: port.nic_path(),
    }
}

impl Backend for Service {
    type Device = ServiceDevice;

    fn open(&self, request: &OpenRequest) -> Result<ServiceDevice, OpenError> {
        self.open_bound(request, request.one_ring.then_some(0))
    }

    fn open_ring(
        &self,
        _first: &ServiceDevice,
        request: &OpenRequest,
        ring: u32,
    ) -> Result<ServiceDevice, OpenError> {
        self.open_bound(request, Some(ring))
    }

    fn mac(&self, ifname: &str) -> Option<Mac> {
        Link::by_name(ifname).ok()?.mac.map(Mac)
    }

    fn mtu(&self, ifname: &str) -> io::Result<u32> {
        Ok(Link::by_name(ifname)?.mtu)
    }
}
