//! Rings in plain memory, and the device `null` made of them: it swallows what is sent and receives nothing.
//!
//! The only device that needs no service. netmap's pkt-gen crashes on `null`, since it opens nothing and then uses
//! it; here it measures what building frames costs by itself.

use std::io;
use std::time::Duration;

use super::clock::Clock;
use super::device::{Backend, Device, Events, OpenError, OpenRequest, PortInfo, Ring, Slot};
use crate::addr::Mac;

/// Slots of a ring of `null` unless `-C` says otherwise.
const NULL_SLOTS: u32 = 1024;
/// Bytes of a buffer, netmap's own default.
const BUF_BYTES: usize = 2048;
/// Limits for `-C`, so that `null` does not take the machine's memory.
const MAX_SLOTS: u32 = 65536;
const MAX_RINGS: u32 = 256;

/// A ring in private memory.
#[derive(Clone, Debug)]
pub struct MemRing {
    number: u32,
    head: u32,
    cur: u32,
    tail: u32,
    slots: Vec<Slot>,
    ptrs: Vec<u64>,
    bufs: Vec<u8>,
    buf_size: usize,
}

impl MemRing {
    fn new(number: u32, num_slots: u32, buf_size: usize, tail: u32) -> MemRing {
        let len = buf_size.min(0xffff) as u16;
        let slots = (0..num_slots).map(|buf_idx| Slot { buf_idx, len, flags: 0 }).collect();
        MemRing {
            number,
            head: 0,
            cur: 0,
            tail,
            slots,
            ptrs: vec![0; num_slots as usize],
            bufs: vec![0; num_slots as usize * buf_size],
            buf_size,
        }
    }

    /// A transmit ring at its start: all slots but one are free.
    pub fn tx(number: u32, num_slots: u32, buf_size: usize) -> MemRing {
        MemRing::new(number, num_slots, buf_size, num_slots - 1)
    }

    /// A receive ring at its start: empty.
    pub fn rx(number: u32, num_slots: u32, buf_size: usize) -> MemRing {
        MemRing::new(number, num_slots, buf_size, 0)
    }

    /// The service's part: moves the tail.
    pub fn set_tail(&mut self, tail: u32) {
        self.tail = tail;
    }

    /// The service's part for a transmit ring: all that was handed over is done.
    pub fn complete(&mut self) {
        self.tail = if self.head == 0 { self.num_slots() - 1 } else { self.head - 1 };
    }

    /// The slot's `ptr`.
    pub fn ptr(&self, idx: u32) -> u64 {
        self.ptrs[idx as usize]
    }

    fn part(&self, idx: u32, offset: usize, len: usize) -> std::ops::Range<usize> {
        let start = offset.min(self.buf_size);
        let end = offset.saturating_add(len).min(self.buf_size);
        let base = self.slots[idx as usize].buf_idx as usize * self.buf_size;
        base + start..base + end
    }
}

impl Ring for MemRing {
    #[inline]
    fn number(&self) -> u32 {
        self.number
    }
    #[inline]
    fn num_slots(&self) -> u32 {
        self.slots.len() as u32
    }
    #[inline]
    fn buf_size(&self) -> usize {
        self.buf_size
    }
    #[inline]
    fn head(&self) -> u32 {
        self.head
    }
    #[inline]
    fn cur(&self) -> u32 {
        self.cur
    }
    #[inline]
    fn tail(&self) -> u32 {
        self.tail
    }
    #[inline]
    fn set_head(&mut self, head: u32) {
        self.head = head;
    }
    #[inline]
    fn set_cur(&mut self, cur: u32) {
        self.cur = cur;
    }
    #[inline]
    fn slot(&self, idx: u32) -> Slot {
        self.slots[idx as usize]
    }
    #[inline]
    fn set_slot(&mut self, idx: u32, len: u16, flags: u16) {
        let slot = &mut self.slots[idx as usize];
        slot.len = len;
        slot.flags = flags;
    }
    #[inline]
    fn set_ptr(&mut self, idx: u32, ptr: u64) {
        self.ptrs[idx as usize] = ptr;
    }
    #[inline]
    fn write(&mut self, idx: u32, offset: usize, data: &[u8]) {
        let part = self.part(idx, offset, data.len());
        let len = part.len();
        self.bufs[part].copy_from_slice(&data[..len]);
    }
    #[inline]
    fn read(&self, idx: u32, offset: usize, data: &mut [u8]) {
        let part = self.part(idx, offset, data.len());
        let (inside, outside) = data.split_at_mut(part.len());
        inside.copy_from_slice(&self.bufs[part]);
        outside.fill(0);
    }
    fn address(&self) -> usize {
        self.slots.as_ptr().addr()
    }
}

/// The device `null`, or one ring pair of it.
#[derive(Debug)]
pub struct NullDevice<'a> {
    info: PortInfo,
    tx: Vec<MemRing>,
    rx: Vec<MemRing>,
    clock: &'a dyn Clock,
}

impl Device for NullDevice<'_> {
    type TxRing<'a>
        = &'a mut MemRing
    where
        Self: 'a;
    type RxRing<'a>
        = &'a mut MemRing
    where
        Self: 'a;

    fn info(&self) -> PortInfo {
        self.info
    }

    fn tx_rings(&self) -> usize {
        self.tx.len()
    }

    fn rx_rings(&self) -> usize {
        self.rx.len()
    }

    fn tx_ring(&mut self, i: usize) -> &mut MemRing {
        &mut self.tx[i]
    }

    fn rx_ring(&mut self, i: usize) -> &mut MemRing {
        &mut self.rx[i]
    }

    fn txsync(&mut self) -> io::Result<()> {
        self.tx.iter_mut().for_each(MemRing::complete);
        Ok(())
    }

    fn rxsync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn poll(&mut self, want: Events, timeout: Duration) -> io::Result<Events> {
        self.txsync()?;
        if want.has(Events::OUT) {
            return Ok(Events::OUT);
        }
        self.clock.sleep(timeout);
        Ok(Events::NONE)
    }

    fn header_len(&self) -> io::Result<u32> {
        Ok(0)
    }

    fn set_header_len(&mut self, _bytes: u32) -> io::Result<()> {
        Ok(())
    }

    fn fd(&self) -> i32 {
        -1
    }
}

/// Opens [`NullDevice`]s.
#[derive(Debug)]
pub struct NullBackend<'a> {
    /// What receivers sleep on.
    pub clock: &'a dyn Clock,
}

impl<'a> NullBackend<'a> {
    fn device(&self, info: PortInfo, rings: std::ops::Range<u32>) -> NullDevice<'a> {
        let tx = rings.clone().filter(|ring| *ring < info.tx_rings);
        let rx = rings.filter(|ring| *ring < info.rx_rings);
        NullDevice {
            info,
            tx: tx.map(|ring| MemRing::tx(ring, info.tx_slots, BUF_BYTES)).collect(),
            rx: rx.map(|ring| MemRing::rx(ring, info.rx_slots, BUF_BYTES)).collect(),
            clock: self.clock,
        }
    }
}

impl<'a> Backend for NullBackend<'a> {
    type Device = NullDevice<'a>;

    fn open(&self, request: &OpenRequest) -> Result<NullDevice<'a>, OpenError> {
        let slots = |wanted| if wanted == 0 { NULL_SLOTS } else { u32::clamp(wanted, 2, MAX_SLOTS) };
        let rings = |wanted: u32| wanted.clamp(1, MAX_RINGS);
        let info = PortInfo {
            tx_rings: rings(request.tx_rings),
            rx_rings: rings(request.rx_rings),
            tx_slots: slots(request.tx_slots),
            rx_slots: slots(request.rx_slots),
            ..PortInfo::default()
        };
        let all = if request.one_ring { 1 } else { info.tx_rings.max(info.rx_rings) };
        Ok(self.device(info, 0..all))
    }

    fn open_ring(
        &self,
        first: &NullDevice<'a>,
        _request: &OpenRequest,
        ring: u32,
    ) -> Result<NullDevice<'a>, OpenError> {
        if ring >= first.info.tx_rings.max(first.info.rx_rings) {
            return Err(OpenError(format!("null: no ring {ring}")));
        }
        Ok(self.device(first.info, ring..ring + 1))
    }

    fn mac(&self, _ifname: &str) -> Option<Mac> {
        None
    }

    fn mtu(&self, _ifname: &str) -> io::Result<u32> {
        Err(io::ErrorKind::NotFound.into())
    }
}
