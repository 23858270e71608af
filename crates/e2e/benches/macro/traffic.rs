//! Sending, receiving and waiting as a program does it, through `ringway::Port`.

use crate::cases::{Case, Waiting};
use ringway::{Interest, Port, RxRing, SyncError, TxRing};
use ringway_os::sys::{wait_readable, yield_now};
use std::os::fd::AsFd;
use std::time::Duration;

/// Nobody waits longer: the slices go on.
const PATIENCE: Duration = Duration::from_millis(10);
/// A sender whose ring is full waits for room for its batch, but never for more slots than this.
const ROOM: u32 = 256;

/// Address `i` of the sender (0) or the receiver (1), in memory order.
pub fn mac(side: u8, i: u32) -> u64 {
    0x02 | u64::from(side) << 8 | u64::from(i.swap_bytes()) << 16
}

/// The two words in which a frame's addresses and type (one for experiments, RFC 5342) lie.
pub fn header(dst: u64, src: u64) -> (u64, u64) {
    (dst | src << 48, src >> 16 | 0xb588 << 32)
}

/// One port's sender.
pub struct Sender {
    len: u16,
    batch: u32,
    touch: bool,
    posts: bool,
    macs: (u32, u32),
    next: (u32, u32),
    /// Slots still to be filled before they hold frames; later they are sent again as they are.
    unfilled: u32,
    pair: u32,
}

impl Sender {
    /// For the case; with several pairs of ports, for pair number `pair`.
    pub fn new(case: &Case, port: &mut Port, pair: u32) -> Self {
        Sender {
            len: case.len,
            batch: case.batch,
            touch: case.touch,
            posts: case.link == crate::cases::Link::BrokeredPost,
            macs: case.macs,
            next: (0, 0),
            // More than once around: buffers may come back in another order, and the receiver has a ring too.
            unfilled: 4 * port.tx(0).num_slots(),
            pair,
        }
    }

    /// Fills slots and hands them over, without a sync.
    fn fill(&mut self, tx: &mut TxRing<'_>) -> u32 {
        let len = self.len;
        if self.macs != (0, 0) || self.touch || self.unfilled > 0 {
            let whole = self.touch || self.unfilled > 0;
            let (mut d, mut s) = self.next;
            let (dsts, srcs) = self.macs;
            let pair = self.pair;
            let sent = tx.fill(self.batch, |slot| {
                let payload = slot.payload();
                let words = header(mac(1, pair + d), mac(0, pair + s));
                payload.store_u64(0, words.0);
                payload.store_u64(8, words.1);
                if whole {
                    for ofs in (16..usize::from(len)).step_by(8) {
                        payload.store_u64(ofs, words.0);
                    }
                }
                d = if d + 1 >= dsts { 0 } else { d + 1 };
                s = if s + 1 >= srcs { 0 } else { s + 1 };
                slot.set(len, 0);
                true
            });
            self.next = (d, s);
            self.unfilled = self.unfilled.saturating_sub(sent);
            return sent;
        }
        tx.fill(self.batch, |slot| {
            slot.set_len(len);
            true
        })
    }

    /// True once every buffer has been sent.
    pub fn is_warm(&self) -> bool {
        self.unfilled == 0
    }

    /// Slots without which nothing is sent.
    pub fn room(&self) -> u32 {
        self.batch.min(ROOM)
    }

    /// Sends a batch if there is room for it. Returns how many.
    pub fn send(&mut self, port: &mut Port) -> Result<u32, SyncError> {
        let mut tx = port.tx(0);
        if tx.space() < self.room() {
            return Ok(0);
        }
        let sent = self.fill(&mut tx);
        if self.posts {
            tx.post()?;
        } else {
            tx.sync()?;
        }
        Ok(sent)
    }
}

/// Takes everything that is there; reads it if the case says so. Returns packets and something to be used.
pub fn take(case: &Case, rx: &mut RxRing<'_>) -> (u64, u64) {
    let (mut packets, mut sum) = (0, 0u64);
    let touch = case.touch;
    rx.drain(u32::MAX, |slot| {
        packets += 1;
        sum = sum.wrapping_add(u64::from(slot.len()));
        if touch {
            let payload = slot.payload();
            for ofs in (0..payload.len()).step_by(8) {
                sum = sum.wrapping_add(payload.load_u64(ofs).unwrap_or(0));
            }
        }
        true
    });
    (packets, sum)
}

/// Waits, in the way of the case, until a port has packets, or `room` free slots. May come back too early.
pub fn wait(waiting: Waiting, port: &mut Port, interest: Interest, room: u32) -> Result<(), SyncError> {
    match waiting {
        Waiting::Port if interest == Interest::TX => drop(port.wait_for(interest, room, PATIENCE)?),
        Waiting::Port => drop(port.wait(interest, Some(PATIENCE))?),
        Waiting::Sleep => {
            if interest == Interest::TX {
                port.tx(0).want(room - 1);
            }
            if !port.arm(interest)? {
                wait_readable(port.as_fd(), PATIENCE)?;
            }
        }
        Waiting::Spin | Waiting::Yield => {
            if interest == Interest::TX {
                port.txsync()?;
            } else {
                port.rxsync()?;
            }
            if waiting == Waiting::Yield { yield_now() } else { std::hint::spin_loop() }
        }
    }
    Ok(())
}

/// Sends one frame from each of the receiver's addresses, so that a switch knows where they are.
pub fn announce(port: &mut Port, addresses: std::ops::Range<u32>) -> Result<(), SyncError> {
    for i in addresses {
        let (first, second) = header(0xffff_ffff_ffff, mac(1, i));
        let mut frame = [0; 60];
        frame[..8].copy_from_slice(&first.to_ne_bytes());
        frame[8..16].copy_from_slice(&second.to_ne_bytes());
        let mut tx = port.tx(0);
        while !tx.send(&frame) {
            tx.sync()?;
        }
        tx.sync()?;
    }
    Ok(())
}
