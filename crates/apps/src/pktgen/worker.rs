//! What all thread bodies share: counters, messages, waiting, dumps.

use std::fmt::Write as _;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::clock::Clock;
use super::config::Config;
use super::device::{Device, Events, Ring};
use crate::addr::Mac;
use crate::units::{DLog, Output};
use crate::{dline, rdline};

/// Value of [`Counters::min_space`] when no ring was looked at.
pub const NO_SPACE_SEEN: u64 = 99_999;
/// A poll is cut into pieces of this length, so that control-C does not wait for it.
const POLL_SLICE: Duration = Duration::from_millis(100);

/// Progress of one thread. Written by it, read by the reporter; each word stands for itself, so `Relaxed`.
#[derive(Debug, Default)]
pub struct Counters {
    /// Packets.
    pub pkts: AtomicU64,
    /// Bytes of them.
    pub bytes: AtomicU64,
    /// Rounds that moved something.
    pub events: AtomicU64,
    /// Smallest number of slots at the service that a receiver saw in this interval. 0 at first, later
    /// reset to [`NO_SPACE_SEEN`] by the reporter.
    pub min_space: AtomicU64,
    /// When the thread started and ended to move packets, in nanoseconds of the clock; 0: not yet.
    pub start_ns: AtomicU64,
    /// See `start_ns`.
    pub end_ns: AtomicU64,
}

/// The thread ended early; why has been printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed;

/// One thread's surroundings.
#[derive(Debug)]
pub struct Worker<'a> {
    /// The checked command line.
    pub config: &'a Config,
    /// Number of the thread.
    pub id: usize,
    /// Its packets, if there is an end.
    pub share: Option<u64>,
    /// Source address of its frames.
    pub src_mac: Mac,
    /// Bytes of virtio-net header before each frame.
    pub vnet_bytes: usize,
    /// Descriptor of the port that was opened first, for messages.
    pub main_fd: i32,
    /// Where its progress goes.
    pub counters: &'a Counters,
    /// Set by control-C.
    pub cancel: &'a AtomicBool,
    /// D-lines.
    pub log: &'a DLog,
    /// Time.
    pub clock: &'a dyn Clock,
    /// stdout, for dumps.
    pub out: &'a Output,
}

impl Worker<'_> {
    /// True after control-C.
    pub fn cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    /// Notes the start; once.
    pub fn start(&self) {
        self.counters.start_ns.store(self.now_ns(), Ordering::Relaxed);
    }

    /// Notes the end, `early` before now.
    pub fn end(&self, early: Duration) {
        let early = early.as_nanos() as u64;
        self.counters.end_ns.store(self.now_ns().saturating_sub(early), Ordering::Relaxed);
    }

    fn now_ns(&self) -> u64 {
        // 0 stands for "not yet".
        (self.clock.now().as_nanos() as u64).max(1)
    }

    /// Publishes the totals so far.
    pub fn progress(&self, pkts: u64, bytes: u64, events: u64) {
        self.counters.pkts.store(pkts, Ordering::Relaxed);
        self.counters.bytes.store(bytes, Ordering::Relaxed);
        self.counters.events.store(events, Ordering::Relaxed);
    }

    /// Polls for at most `timeout`, but ends early, with [`Events::NONE`], after control-C. An
    /// interrupted poll goes on.
    ///
    /// # Errors
    /// Those of the poll.
    pub fn poll<D: Device>(&self, device: &mut D, want: Events, timeout: Duration) -> io::Result<Events> {
        let mut left = timeout;
        loop {
            let slice = left.min(POLL_SLICE);
            match device.poll(want, slice) {
                Ok(Events::NONE) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
            left -= slice;
            if left.is_zero() || self.cancelled() {
                return Ok(Events::NONE);
            }
        }
    }

    /// [`Worker::poll`] for those who go on whatever happens: prints why there is nothing.
    ///
    /// # Errors
    /// [`Failed`] after `POLLERR`.
    pub fn poll_or_say<D: Device>(
        &self,
        device: &mut D,
        want: Events,
        timeout: Duration,
    ) -> Result<Events, Failed> {
        match self.poll(device, want, timeout) {
            Ok(Events::NONE) if self.cancelled() => Ok(Events::NONE),
            Ok(Events::NONE) => {
                dline!(self.log, "poll", "poll error on queue {}: timeout", self.id);
                Ok(Events::NONE)
            }
            Ok(events) if events.has(Events::ERR) => {
                self.say_trouble(device);
                let rings = device.tx_rings() as u32;
                let first = if rings > 0 { device.tx_ring(0).number() } else { 0 };
                let last = first + rings.saturating_sub(1);
                dline!(self.log, "poll", "poll error on {} ring {first}-{last}", device.fd());
                Err(Failed)
            }
            Ok(events) => Ok(events),
            Err(error) => {
                // A lasting error returns at once: neither fill the screen nor eat the processor.
                rdline!(self.log, 5, "poll", "poll error on queue {}: {error}", self.id);
                self.clock.sleep(Duration::from_millis(1));
                Ok(Events::NONE)
            }
        }
    }

    /// Prints why the last poll answered [`Events::ERR`], if the device knows.
    pub fn say_trouble<D: Device>(&self, device: &D) {
        if let Some(trouble) = device.trouble() {
            dline!(self.log, "poll", "{}: {trouble}", self.config.ifname);
        }
    }

    /// Waits for a moment of the clock: sleeps while it is more than a millisecond away, then spins.
    pub fn wait_until(&self, moment: Duration) {
        const SPIN: Duration = Duration::from_millis(1);
        while let Some(left) = moment.checked_sub(self.clock.now()).filter(|left| !left.is_zero()) {
            if self.cancelled() {
                return;
            } else if left > SPIN {
                self.clock.sleep((left - SPIN / 2).min(POLL_SLICE));
            } else {
                self.clock.pause();
            }
        }
    }

    /// When a limited rate starts: at the whole second that is one to two away.
    pub fn rate_start(&self) -> Duration {
        Duration::from_secs(self.clock.now().as_secs() + 2)
    }

    /// Shows the data of slot `idx` on stdout.
    pub fn dump<R: Ring>(&self, ring: &R, idx: u32) {
        let slot = ring.slot(idx);
        let mut data = vec![0; usize::from(slot.len).min(ring.buf_size())];
        ring.read(idx, 0, &mut data);
        let mut text = format!(
            "ring {:#x} cur {idx:5} [buf {:6} flags 0x{:04x} len {:5}]\n",
            ring.address(),
            slot.buf_idx,
            slot.flags,
            slot.len
        );
        hex_rows(&data, &mut text);
        self.out.print(&text);
    }
}

/// Rows of 16 bytes: offset, numbers, characters. A shorter last row has no characters.
fn hex_rows(data: &[u8], text: &mut String) {
    for (row, bytes) in data.chunks(16).enumerate() {
        let _ = write!(text, "{:5}: ", row * 16);
        for byte in bytes {
            let _ = write!(text, "{byte:02x} ");
        }
        if bytes.len() == 16 {
            let shown =
                |byte: &u8| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' };
            text.extend(bytes.iter().map(shown));
        }
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_rows_are_as_in_the_contract() {
        let mut text = String::new();
        hex_rows(b"0123456789abcde\x01xy", &mut text);
        let want = "    0: 30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 01 0123456789abcde.\n   16: 78 79 \n";
        assert_eq!(text, want);
    }
}
