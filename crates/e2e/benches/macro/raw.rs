//! The least that sends, receives and forwards with AF_XDP: the kernel's rings and nothing else. What ports on interfaces are compared
//! with.

use crate::control::Laps;
use crate::peer::Outcome;
use ringway_os::bpf::{BpfError, XdpLink, XdpProgram, XskMap};
use ringway_os::bytes::Bufs;
use ringway_os::link::index_of;
use ringway_os::mem::{Map, Memfd};
use ringway_os::sys::wait_readable;
use ringway_os::xdp::{
    RingSizes, Umem, UmemLayout, XdpDesc, XskConfig, XskRings, XskSocket, kick_rx, kick_tx,
};
use std::collections::VecDeque;
use std::error::Error;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// As many as a port on a veth interface has.
const SLOTS: u32 = 1024;
const STRIDE: u32 = 2048;
const NUM_BUFS: u32 = 4096;
/// A queue, or an interface, that another program just left stays busy for a moment.
const PATIENCE: Duration = Duration::from_millis(500);
const NAP: Duration = Duration::from_millis(10);

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Buffers that the kernel can fill and send.
pub struct Memory {
    map: Arc<Map>,
    layout: UmemLayout,
}

impl Memory {
    /// With a frame of `len` bytes in each buffer.
    pub fn new(len: u16) -> Fallible<Self> {
        let map = Memfd::create("raw", (STRIDE * NUM_BUFS) as usize)?.map()?;
        let layout = UmemLayout::unaligned(map.len_bytes() as u64, 0, STRIDE, NUM_BUFS)?;
        let bufs = Bufs::new(&map, 0, STRIDE as usize, NUM_BUFS).ok_or("no buffers")?;
        let mut frame = vec![0; usize::from(len)];
        frame[..14].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
        for i in 0..NUM_BUFS {
            bufs.payload(i).ok_or("no buffer")?.copy_from(&frame);
        }
        Ok(Memory { map, layout })
    }

    /// What to put on the fill ring for a buffer in which a frame came.
    fn refill(&self, addr: u64) -> Option<u64> {
        self.layout.fill_addr(self.layout.buf_of_addr(addr)?)
    }

    /// What to put on the TX ring for it.
    fn resend(&self, addr: u64) -> Option<u64> {
        self.layout.tx_addr(self.layout.buf_of_addr(addr)?)
    }
}

/// The queue of an interface. In the order in which it goes: maps first.
pub struct Queue {
    rings: XskRings,
    socket: XskSocket,
    _program: Option<(XdpLink, XdpProgram, XskMap)>,
}

impl Queue {
    /// Of an interface of the current namespace; `receives`: it gets all its frames.
    pub fn open(name: &str, memory: &Memory, receives: bool) -> Fallible<Self> {
        let ifindex = index_of(name)?;
        let umem = Umem::new(&memory.map, memory.layout)?;
        // With frames of several descriptors, as a port: that makes the kernel's work the same.
        let sizes = RingSizes::for_slots(SLOTS, SLOTS);
        let config = XskConfig { multi_buffer: true, ..XskConfig::new(sizes) };
        let socket = XskSocket::bind_retry(ifindex, 0, &umem, &config, PATIENCE)?;
        let mut rings = XskRings::map(socket.as_fd(), &socket.sizes())?;
        let mut program = None;
        if receives {
            rings.fill.push((2..2 + SLOTS).filter_map(|i| memory.layout.fill_addr(i)));
            let map = XskMap::create(1)?;
            let xdp = XdpProgram::redirect(&map)?;
            let link = attach(&xdp, ifindex)?;
            map.insert(0, socket.as_fd())?;
            program = Some((link, xdp, map));
        }
        Ok(Queue { rings, socket, _program: program })
    }

    fn kick_tx(&mut self) -> Fallible<()> {
        if !self.rings.tx.is_idle() && self.rings.tx.needs_wakeup() {
            kick_tx(&self.socket)?;
        }
        Ok(())
    }

    fn kick_rx(&mut self) -> Fallible<()> {
        if self.rings.fill.needs_wakeup() {
            kick_rx(&self.socket)?;
        }
        Ok(())
    }
}

fn attach(program: &XdpProgram, ifindex: u32) -> Fallible<XdpLink> {
    let end = Instant::now() + PATIENCE;
    loop {
        match program.attach_best(ifindex) {
            Err(BpfError::Busy { .. }) if Instant::now() < end => std::thread::sleep(NAP),
            other => return Ok(other?),
        }
    }
}

/// Sends frames, `batch` at a time, until all is over.
pub fn send(queue: &mut Queue, memory: &Memory, len: u16, batch: u32, laps: &mut Laps<'_>) -> Outcome {
    // In turn, as a ring has them; the last one sent would be warm in the cache.
    let mut free: VecDeque<u64> = (2..2 + SLOTS).filter_map(|i| memory.layout.tx_addr(i)).collect();
    let mut sent = 0;
    while !laps.follow(sent, || 0) {
        sent += u64::from(queue.rings.comp.drain(u32::MAX, |addr| free.push_back(addr)));
        let count = batch.min(queue.rings.tx.free()).min(free.len() as u32);
        for (i, addr) in (0..count).zip(free.drain(..count as usize)) {
            queue.rings.tx.put(i, XdpDesc { addr, len: len.into(), options: 0 });
        }
        queue.rings.tx.submit(count);
        queue.kick_tx()?;
    }
    Ok(())
}

/// Receives frames until all is over. `sleeps`: in poll, when there are none; else it looks again at once.
pub fn receive(queue: &mut Queue, memory: &Memory, sleeps: bool, laps: &mut Laps<'_>) -> Outcome {
    let (mut received, mut bytes) = (0, 0u64);
    while !laps.follow(received, || 0) {
        let count = queue.rings.rx.available();
        if count == 0 {
            queue.kick_rx()?;
            pause(queue, sleeps)?;
            continue;
        }
        let Queue { rings, .. } = &mut *queue;
        let (rx, fill) = (&rings.rx, &mut rings.fill);
        fill.push((0..count).filter_map(|i| {
            let desc = rx.get(i);
            bytes += u64::from(desc.len);
            memory.refill(desc.addr)
        }));
        rings.rx.release(count);
        received += u64::from(count);
        queue.kick_rx()?;
    }
    std::hint::black_box(bytes);
    Ok(())
}

/// Sends on `to` what comes on `from`, without copying, until all is over.
pub fn forward(
    from: &mut Queue,
    to: &mut Queue,
    memory: &Memory,
    sleeps: bool,
    laps: &mut Laps<'_>,
) -> Outcome {
    let mut sent = 0;
    while !laps.follow(sent, || 0) {
        let mut done = vec![];
        sent += u64::from(to.rings.comp.drain(u32::MAX, |addr| done.extend(memory.refill(addr))));
        from.rings.fill.push(done);
        let count = from.rings.rx.available().min(to.rings.tx.free());
        for i in 0..count {
            let desc = from.rings.rx.get(i);
            let addr = memory.resend(desc.addr).ok_or("a frame outside of the memory")?;
            to.rings.tx.put(i, XdpDesc { addr, len: desc.len, options: 0 });
        }
        from.rings.rx.release(count);
        to.rings.tx.submit(count);
        to.kick_tx()?;
        from.kick_rx()?;
        if count == 0 {
            pause(from, sleeps)?;
        }
    }
    Ok(())
}

fn pause(queue: &Queue, sleeps: bool) -> Fallible<()> {
    if sleeps {
        wait_readable(queue.socket.as_fd(), NAP)?;
    } else {
        std::hint::spin_loop();
    }
    Ok(())
}
