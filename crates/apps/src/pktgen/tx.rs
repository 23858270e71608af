//! Function `tx`: sends as fast as the ring takes it, or at a given rate.
//!
//! How a slot gets its data is decided once, before the loop ([`Fill`]); the common case, slots that were
//! filled in an earlier round, touches nothing but the slot's own word.

use std::time::Duration;

use super::config::mask;
use super::device::{Device, Events, NS_BUF_CHANGED, NS_INDIRECT, NS_MOREFRAG, NS_REPORT, Ring};
use super::worker::{Failed, Worker};
use crate::traffic::{Frame, Rng, Stepper};
use crate::{dline, rdline};

const POLL_TIMEOUT: Duration = Duration::from_millis(2000);

/// How a slot gets its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fill {
    /// Not at all.
    Rubbish,
    /// By pointer to the frame.
    Indirect,
    /// By a copy for each packet.
    Copy,
    /// By a copy in the first lap around the ring, and when the slot's buffer is another one; it keeps the frame.
    Once,
}

/// How packets are split over slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frags {
    count: u32,
    bytes: usize,
}

impl Frags {
    /// Splits `len` bytes into `wanted` fragments of equal size, or into more if they would exceed `max`.
    fn new(len: usize, wanted: u32, max: usize) -> Frags {
        let count = (wanted as usize).min(len);
        let bytes = len / count;
        // The last one also has what the division left over.
        if len - bytes * (count - 1) > max {
            Frags { count: len.div_ceil(max) as u32, bytes: max }
        } else {
            Frags { count: count as u32, bytes }
        }
    }

    /// First byte and number of bytes of fragment `i`; the last one has what is left. `None` behind the end, which
    /// comes early when a packet of random size needs fewer fragments.
    fn part(&self, i: u32, len: usize) -> Option<(usize, usize, bool)> {
        let start = i as usize * self.bytes;
        let rest = len.checked_sub(start).filter(|rest| *rest > 0 || i == 0)?;
        let last = i + 1 >= self.count || rest <= self.bytes;
        Some((start, if last { rest } else { self.bytes }, last))
    }
}

/// The sending half: frame, steps and the way into slots.
#[derive(Debug)]
pub(super) struct Sender<'a, 'w> {
    worker: &'a Worker<'w>,
    frame: Frame,
    stepper: Stepper,
    fill: Fill,
    frags: Frags,
    /// Sizes of packets, when random: the smallest, and how many there are.
    sizes: Option<(usize, u32)>,
    rng: Rng,
    /// Slots of each ring that were never filled. The first lap fills them: what they hold is somebody else's.
    unfilled: Vec<u32>,
}

/// Packets and bytes of one round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moved {
    pub pkts: u64,
    pub bytes: u64,
}

impl<'a, 'w> Sender<'a, 'w> {
    /// Decides how to send through `rings` rings with buffers of `buf_size` bytes and `num_slots` slots.
    ///
    /// # Errors
    /// [`Failed`] if a packet does not fit into the ring at all.
    pub fn new(
        worker: &'a Worker<'w>,
        rings: usize,
        buf_size: usize,
        num_slots: u32,
    ) -> Result<Sender<'a, 'w>, Failed> {
        let config = worker.config;
        let (frame, stepper) = config.frame(worker.id, worker.src_mac, worker.vnet_bytes);
        let max = config.max_frag.unwrap_or(buf_size).min(buf_size).min(usize::from(u16::MAX));
        let frags = Frags::new(frame.wire_len(), config.frags, max.max(1));
        if frags.count > 1 {
            dline!(worker.log, "sender_body", "frags {} frag_size {}", frags.count, frags.bytes);
        }
        if frags.count >= num_slots {
            let (count, most) = (frags.count, num_slots - 1);
            dline!(worker.log, "sender_body", "a packet needs {count} slots, the ring has {most}");
            return Err(Failed);
        }
        let resized = config.min_size.is_some() && config.has(mask::UPDATE_CSUM);
        let fill = if config.has(mask::RUBBISH) {
            Fill::Rubbish
        } else if config.has(mask::INDIRECT) {
            Fill::Indirect
        } else if config.has(mask::COPY | mask::MEMCPY) || frags.count > 1 || resized {
            Fill::Copy
        } else {
            Fill::Once
        };
        let sizes = config.min_size.map(|min| (min, (config.size - min) as u32));
        let rng = Rng::new(!(worker.id as u64));
        let unfilled = vec![num_slots; rings];
        Ok(Sender { worker, frame, stepper, fill, frags, sizes, rng, unfilled })
    }

    /// Sends up to `limit` packets into `ring`, the `i`th of the device.
    pub fn send<R: Ring>(&mut self, ring: &mut R, i: usize, limit: u32) -> Moved {
        let simple = self.frags.count == 1
            && self.sizes.is_none()
            && !self.worker.config.has(mask::DUMP | mask::ACCESS);
        match self.fill {
            Fill::Once | Fill::Rubbish if simple => self.send_plain(ring, i, limit),
            Fill::Copy if simple => self.send_copies(ring, limit),
            _ => self.send_any(ring, i, limit),
        }
    }

    /// One slot a packet, all of one size, copied each time.
    fn send_copies<R: Ring>(&mut self, ring: &mut R, limit: u32) -> Moved {
        let space = ring.space();
        let pkts = limit.min(space);
        let len = self.frame.wire_len() as u16;
        let mut idx = ring.head();
        for left in (0..pkts).rev() {
            ring.write(idx, 0, self.frame.bytes());
            ring.set_slot(idx, len, if left == 0 { NS_REPORT } else { 0 });
            self.stepper.step(&mut self.frame);
            idx = ring.next(idx);
        }
        ring.set_head(idx);
        ring.set_cur(if limit > space { ring.tail() } else { idx });
        Moved { pkts: pkts.into(), bytes: u64::from(pkts) * u64::from(len) }
    }

    /// One slot a packet, all of one size, buffers filled already.
    fn send_plain<R: Ring>(&mut self, ring: &mut R, i: usize, limit: u32) -> Moved {
        let space = ring.space();
        let pkts = limit.min(space);
        let len = self.frame.wire_len() as u16;
        let mut idx = ring.head();
        let mut last = idx;
        let unfilled = self.unfilled[i].min(pkts);
        self.unfilled[i] -= unfilled;
        for k in 0..pkts {
            let slot = ring.slot(idx);
            if slot.len != len || slot.flags != 0 || k < unfilled {
                self.refill(ring, idx, k < unfilled || slot.flags & NS_BUF_CHANGED != 0);
            }
            last = idx;
            idx = ring.next(idx);
        }
        if pkts > 0 {
            ring.set_slot(last, len, NS_REPORT);
        }
        ring.set_head(idx);
        // Whoever wants more than there is waits for more, not for what is there.
        ring.set_cur(if limit > space { ring.tail() } else { idx });
        Moved { pkts: pkts.into(), bytes: u64::from(pkts) * u64::from(len) }
    }

    #[cold]
    fn refill<R: Ring>(&mut self, ring: &mut R, idx: u32, is_new: bool) {
        if is_new && self.fill == Fill::Once {
            ring.write(idx, 0, self.frame.bytes());
            self.stepper.step(&mut self.frame);
        }
        ring.set_slot(idx, self.frame.wire_len() as u16, 0);
    }

    /// Everything else: fragments, copies, pointers, random sizes, dumps.
    fn send_any<R: Ring>(&mut self, ring: &mut R, ring_idx: usize, limit: u32) -> Moved {
        let config = self.worker.config;
        let mut moved = Moved::default();
        let mut space = ring.space();
        let mut idx = ring.head();
        let mut last = None;
        while moved.pkts < u64::from(limit) && space >= self.frags.count {
            let size = match self.sizes {
                Some((min, count)) => min + self.rng.below(count) as usize,
                None => self.frame.size(),
            };
            if self.sizes.is_some() && config.has(mask::UPDATE_CSUM) {
                self.frame.set_size(size);
            }
            let len = self.frame.cut(size).len();
            let mut copied = false;
            let mut i = 0;
            while let Some((start, bytes, end)) = self.frags.part(i, len) {
                let more = if end { 0 } else { NS_MOREFRAG };
                let is_new = self.unfilled[ring_idx] > 0;
                copied |= self.put(ring, idx, is_new, &(start..start + bytes), more);
                self.unfilled[ring_idx] -= u32::from(is_new);
                last = Some((idx, bytes, more));
                idx = ring.next(idx);
                space -= 1;
                i += 1;
                if end {
                    break;
                }
            }
            if copied {
                self.stepper.step(&mut self.frame);
            }
            moved.pkts += 1;
            moved.bytes += len as u64;
        }
        if let Some((at, bytes, more)) = last {
            let flags = ring.slot(at).flags | more | NS_REPORT;
            ring.set_slot(at, bytes as u16, flags);
        }
        ring.set_head(idx);
        ring.set_cur(if moved.pkts < u64::from(limit) { ring.tail() } else { idx });
        moved
    }

    /// Puts bytes `part` of the frame into slot `idx`. True if they were copied.
    fn put<R: Ring>(
        &self,
        ring: &mut R,
        idx: u32,
        is_new: bool,
        part: &std::ops::Range<usize>,
        more: u16,
    ) -> bool {
        let config = self.worker.config;
        let changed = is_new || ring.slot(idx).flags & NS_BUF_CHANGED != 0;
        let mut flags = more;
        // Bytes behind the end of a smaller random size are never needed, but do no harm: slots that are
        // filled once must hold the largest size.
        let data = &self.frame.bytes()[part.start..];
        let copied = match self.fill {
            Fill::Rubbish => false,
            Fill::Indirect => {
                ring.set_ptr(idx, data.as_ptr().addr() as u64);
                flags |= NS_INDIRECT;
                false
            }
            Fill::Copy => {
                ring.write(idx, 0, &data[..part.len()]);
                true
            }
            Fill::Once => {
                if changed {
                    ring.write(idx, 0, data);
                }
                changed
            }
        };
        if config.has(mask::ACCESS) {
            let mut byte = [0];
            ring.read(idx, 0, &mut byte);
            std::hint::black_box(byte);
        }
        ring.set_slot(idx, part.len() as u16, flags);
        if config.has(mask::DUMP) {
            self.worker.dump(ring, idx);
        }
        copied
    }
}

/// Pushes what is left and waits until the service has taken it all, or control-C.
pub(super) fn flush<D: Device>(worker: &Worker<'_>, device: &mut D) -> Result<(), Failed> {
    let gone = |error: std::io::Error| {
        dline!(worker.log, "sender_body", "cannot sync: {error}");
        Failed
    };
    let Some(last) = device.tx_rings().checked_sub(1) else { return Ok(()) };
    let ring = device.tx_ring(last);
    let (tail, head) = (ring.tail(), ring.head());
    drop(ring);
    dline!(worker.log, "sender_body", "flush tail {tail} head {head} on thread {}", thread_name());
    device.txsync().map_err(gone)?;
    for i in 0..=last {
        loop {
            let ring = device.tx_ring(i);
            if !ring.is_pending() || worker.cancelled() {
                break;
            }
            let (tail, head, number) = (ring.tail(), ring.head(), ring.number());
            drop(ring);
            rdline!(worker.log, 5, "sender_body", "pending tx tail {tail} head {head} on ring {number}");
            device.txsync().map_err(gone)?;
            worker.clock.sleep(Duration::from_micros(1));
        }
    }
    Ok(())
}

/// The thread as messages name it.
pub(super) fn thread_name() -> String {
    format!("{:#x}", rustix::thread::gettid().as_raw_nonzero())
}

/// The body of a `tx` thread.
pub(super) fn sender_body<D: Device>(worker: &Worker<'_>, device: &mut D) -> Result<(), Failed> {
    let config = worker.config;
    dline!(worker.log, "sender_body", "start, fd {} main_fd {}", device.fd(), worker.main_fd);
    if device.tx_rings() == 0 {
        dline!(worker.log, "sender_body", "no transmit ring");
        return Err(Failed);
    }
    let ring = device.tx_ring(0);
    let (buf_size, num_slots) = (ring.buf_size(), ring.num_slots());
    drop(ring);
    let mut sender = Sender::new(worker, device.tx_rings(), buf_size, num_slots)?;

    let mut pace = Pace::new(worker);
    worker.start();
    let (mut pkts, mut bytes, mut events) = (0, 0, 0);
    let left = |pkts: u64| worker.share.map_or(u64::MAX, |share| share - pkts);
    while !worker.cancelled() && left(pkts) > 0 {
        pace.wait(worker);
        if worker.poll_or_say(device, Events::OUT, POLL_TIMEOUT)? == Events::NONE {
            continue;
        }
        for i in 0..device.tx_rings() {
            let limit = left(pkts).min(pace.budget(config.burst).into()) as u32;
            if limit == 0 {
                break;
            }
            let mut ring = device.tx_ring(i);
            if ring.is_empty() {
                continue;
            }
            let moved = sender.send(&mut ring, i, limit);
            pkts += moved.pkts;
            bytes += moved.bytes;
            events += u64::from(moved.pkts > 0);
            pace.spend(moved.pkts);
        }
        worker.progress(pkts, bytes, events);
    }
    flush(worker, device)?;
    worker.end(Duration::ZERO);
    Ok(())
}

/// Keeps a rate: so many packets, a *burst*, in each period.
#[derive(Debug)]
pub(super) struct Pace {
    /// What the period still allows and when the next one starts; `None` without a limit.
    state: Option<(u32, Duration)>,
}

impl Pace {
    /// Starts counting; with a limited rate also waits for the start.
    pub fn new(worker: &Worker<'_>) -> Pace {
        if worker.config.rate == 0 {
            return Pace { state: None };
        }
        let start = worker.rate_start();
        worker.wait_until(start);
        Pace { state: Some((0, start)) }
    }

    /// Waits for the next period if this one is used up.
    pub fn wait(&mut self, worker: &Worker<'_>) {
        if let Some((budget @ 0, next)) = &mut self.state {
            *next += worker.config.period;
            worker.wait_until(*next);
            *budget = worker.config.burst;
        }
    }

    /// How many packets may go now; `burst` without a limit.
    pub fn budget(&self, burst: u32) -> u32 {
        self.state.map_or(burst, |(budget, _)| budget)
    }

    /// Counts packets that went.
    pub fn spend(&mut self, pkts: u64) {
        if let Some((budget, _)) = &mut self.state {
            *budget = budget.saturating_sub(pkts as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_cover_a_packet_exactly() {
        for (wanted, max) in [(1, 2048), (1, 100), (3, 2048), (3, 20), (63, 7), (5, 1)] {
            for len in 16..300 {
                let frags = Frags::new(len, wanted, max);
                let mut at = 0;
                let mut count = 0;
                while let Some((start, bytes, last)) = frags.part(count, len) {
                    assert_eq!(start, at, "{frags:?} of {len}");
                    at += bytes;
                    count += 1;
                    if last {
                        break;
                    }
                }
                assert_eq!(at, len);
                assert!(count <= frags.count);
                assert!((0..count).all(|i| frags.part(i, len).unwrap().1 <= max), "{frags:?} of {len}");
            }
        }
        assert_eq!(Frags::new(3000, 1, 2048), Frags { count: 2, bytes: 2048 });
        assert_eq!(Frags::new(60, 4, 2048), Frags { count: 4, bytes: 15 });
        assert_eq!(Frags::new(60, 63, 2048), Frags { count: 60, bytes: 1 });
    }
}
