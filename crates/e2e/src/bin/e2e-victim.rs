//! A process to be killed or stopped, and one that survives others: works on ports until told otherwise, line by line on its standard input.
//!
//! * `duplex PORT ME PEERS BATCH BYTES PACE_US`: sends to host ME's peers (numbers with commas, or `-`), receives what comes.
//!   `pause`, `go`; `mark`, then `gap`: the longest time between successful deliveries, and the longest txsync, since
//!   `mark`, told at the next delivery (ns); `syncs`: the longest txsync since `mark`, told at once. When the broker is gone it says so;
//!   then `drop` closes the port, `open` opens it again.
//! * `keep PORT...`: has ports open, and does not touch them.
//! * `swap MEM_ID A B`: exchanges buffers between two ports of one region.
//! * `half MEM_ID A B HOW`: stops in the middle of an exchange: `twice`, or `garbage`.
//!
//! Standard input closed: end.
#![forbid(unsafe_code)]

use ringway::{Interest, Port, SyncError};
use ringway_abi::{NR_REG_ALL_NIC, nmreq_register};
use ringway_core::layout::RingView;
use ringway_core::lease::Grant;
use ringway_e2e::raw;
use ringway_e2e::role::{Outcome, end, say};
use ringway_os::ring::SlotWord;
use ringway_os::sock::Conn;
use ringway_os::sys::monotonic_nanos;
use std::io::BufRead;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;

/// The lines of standard input.
fn commands() -> Receiver<String> {
    let (tx, rx) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let _ = tx.send(line);
        }
    });
    rx
}

struct Duplex {
    me: u8,
    peers: Vec<u8>,
    batch: u32,
    bytes: usize,
    pace: Duration,
    seq: u64,
    /// When something was last delivered, and how often something was.
    last: u64,
    delivered: u64,
    longest_gap: u64,
    longest_sync: u64,
}

impl Duplex {
    fn frame(&self, dst: u8) -> Vec<u8> {
        let mut f = vec![0; self.bytes];
        f[..6].copy_from_slice(&if dst == 0xff { [0xff; 6] } else { [2, 0, 0, 0, 0, dst] });
        f[6..12].copy_from_slice(&[2, 0, 0, 0, 0, self.me]);
        f
    }

    /// Everybody learns where we are.
    fn hello(&mut self, port: &mut Port) -> Result<(), SyncError> {
        port.tx(0).send(&self.frame(0xff));
        port.txsync()
    }

    fn round(&mut self, port: &mut Port) -> Result<(), SyncError> {
        if !self.peers.is_empty() {
            let dst = self.peers[self.seq as usize % self.peers.len()];
            self.seq += 1;
            let frame = self.frame(dst);
            let mut tx = port.tx(0);
            tx.fill(self.batch, |slot| {
                slot.payload().copy_from(&frame);
                slot.set(frame.len() as u16, 0);
                true
            });
            let began = monotonic_nanos();
            tx.sync()?;
            let ended = monotonic_nanos();
            drop(tx);
            self.longest_sync = self.longest_sync.max(ended - began);
            let c = port.counters().tx;
            // A pipe delivers all that it takes.
            let delivered = if c.delivered == 0 { c.packets } else { c.delivered };
            if delivered != self.delivered {
                self.delivered = delivered;
                self.longest_gap = self.longest_gap.max(ended - self.last);
                self.last = ended;
            }
        }
        if self.peers.is_empty() {
            port.wait(Interest::RX, Some(Duration::from_millis(2)))?;
        }
        let mut rx = port.rx(0);
        rx.sync()?;
        rx.drain(u32::MAX, |_| true);
        drop(rx);
        if !self.pace.is_zero() {
            ringway_os::sys::sleep(self.pace);
        }
        Ok(())
    }

    fn run(&mut self, name: &str, commands: &Receiver<String>) -> Outcome {
        let mut port = Some(Port::builder(name).shared().open()?);
        say("ready");
        let mut waits_for = None;
        if let Some(port) = &mut port {
            self.hello(port)?;
        }
        loop {
            let command = match (&mut port, commands.try_recv()) {
                (_, Err(TryRecvError::Disconnected)) => return Ok(()),
                (_, Ok(command)) => Some(command),
                // Nothing to do: the next command may take its time.
                (None, _) => match commands.recv() {
                    Ok(command) => Some(command),
                    Err(_) => return Ok(()),
                },
                (Some(_), Err(TryRecvError::Empty)) => None,
            };
            match command.as_deref() {
                Some("pause") => {
                    say("paused");
                    if commands.recv().is_err() {
                        return Ok(());
                    }
                }
                Some("mark") => {
                    (self.longest_gap, self.longest_sync) = (0, 0);
                    self.last = monotonic_nanos();
                }
                Some("gap") => waits_for = Some(self.delivered),
                Some("syncs") => say(&self.longest_sync.to_string()),
                Some("drop") => {
                    port = None;
                    say("dropped");
                }
                Some("open") => {
                    let mut opened = Port::builder(name).shared().open()?;
                    say("ready");
                    self.hello(&mut opened)?;
                    port = Some(opened);
                }
                Some(other) => return Err(format!("no command {other}").into()),
                None => {}
            }
            if let Some(open) = &mut port
                && let Err(e) = self.round(open)
            {
                say(&format!("error: {e}"));
                // What is left of the port stays until we are told to drop it.
                match commands.recv().as_deref() {
                    Ok("drop") => {
                        port = None;
                        say("dropped");
                    }
                    Ok(other) => return Err(format!("no command {other} now").into()),
                    Err(_) => return Ok(()),
                }
            }
            if waits_for.is_some_and(|n| n != self.delivered) {
                waits_for = None;
                say(&format!("{} {}", self.longest_gap, self.longest_sync));
            }
        }
    }
}

/// The first TX ring of a port, what was granted, and what keeps it bound.
type Mapped = (RingView, Grant, Conn);

/// Two ports of one region, with the first TX ring of each through the memory that we map.
fn bridge(mem_id: u16, names: [&str; 2]) -> Outcome<[Mapped; 2]> {
    let socket = std::env::var_os("RINGWAY_SOCKET").ok_or("RINGWAY_SOCKET")?;
    let req = nmreq_register { nr_mode: NR_REG_ALL_NIC, nr_mem_id: mem_id, ..Default::default() };
    let [a, b] = names.map(|name| {
        let (g, conn) = raw::register_as(socket.as_ref(), name, &req).expect("it is granted");
        RingView::new(&g.region.map, &g.layout, g.tx.offsets[0], g.geometry.tx_slots).map(|r| (r, g, conn))
    });
    Ok([a.ok_or("no ring")?, b.ok_or("no ring")?])
}

/// Exchanges buffers between the two, slowly enough to be caught at it.
fn exchange(rings: &[Mapped; 2], commands: &Receiver<String>) {
    say("ready");
    let [(a, ..), (b, ..)] = rings;
    while !matches!(commands.try_recv(), Err(TryRecvError::Disconnected)) {
        for (one, other) in a.slots.iter().zip(b.slots.iter()) {
            let (in_one, in_other) = (one.load(), other.load());
            one.store(in_other);
            let until = monotonic_nanos() + 2000;
            while monotonic_nanos() < until {}
            other.store(in_one);
        }
    }
}

/// Stops in the middle of an exchange.
fn half(rings: &[Mapped; 2], how: &str, commands: &Receiver<String>) {
    let [(one, ..), (other, ..)] = rings;
    match how {
        "twice" => other.slots[0].store(one.slots[0].load()),
        // Indexes of buffers that others have, that nobody has, and of none.
        _ => {
            for (k, slot) in one.slots.iter().chain(other.slots.iter()).enumerate() {
                let k = k as u32;
                let idx = if k.is_multiple_of(3) { k.wrapping_mul(0x9e37_79b9) } else { k };
                slot.store(SlotWord::new(idx, 60, 0));
            }
        }
    }
    say("ready");
    let _ = commands.recv();
}

fn run() -> Outcome {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let commands = commands();
    match args[..] {
        ["duplex", port, me, peers, batch, bytes, pace_us] => {
            let peers = peers.split(',').filter(|p| *p != "-").map(str::parse).collect::<Result<_, _>>()?;
            let mut duplex = Duplex {
                me: me.parse()?,
                peers,
                batch: batch.parse()?,
                bytes: bytes.parse()?,
                pace: Duration::from_micros(pace_us.parse()?),
                seq: 0,
                last: monotonic_nanos(),
                delivered: 0,
                longest_gap: 0,
                longest_sync: 0,
            };
            duplex.run(port, &commands)
        }
        ["keep", ref ports @ ..] => {
            let kept: Result<Vec<Port>, _> = ports.iter().map(|p| Port::builder(p).shared().open()).collect();
            let kept = kept?;
            say("ready");
            while commands.recv().is_ok() {}
            drop(kept);
            Ok(())
        }
        ["swap", mem_id, a, b] => {
            exchange(&bridge(mem_id.parse()?, [a, b])?, &commands);
            Ok(())
        }
        ["half", mem_id, a, b, how] => {
            half(&bridge(mem_id.parse()?, [a, b])?, how, &commands);
            Ok(())
        }
        _ => Err("no such role".into()),
    }
}

fn main() -> ExitCode {
    end(run())
}
