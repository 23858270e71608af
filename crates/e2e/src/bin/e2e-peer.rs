//! The other process of a test: opens a port, says `ready`, does one thing, and says what came of it.
//!
//! `e2e-peer ROLE PORT [ARG]`. Standard input closed: stop.
#![forbid(unsafe_code)]

use ringway::{Interest, Port, SyncError};
use ringway_e2e::role::{Outcome, end, say};
use std::io::Read;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

static STOP: AtomicBool = AtomicBool::new(false);

fn frame(seq: u64, src: u8) -> [u8; 60] {
    let mut f = [0; 60];
    f[..6].copy_from_slice(&[0xff; 6]);
    f[6..12].copy_from_slice(&[2, 0, 0, 0, 0, src]);
    f[14..22].copy_from_slice(&seq.to_ne_bytes());
    f
}

/// Sends numbered frames until told to stop, or until `count` are sent. Says how many.
fn tx(port: &mut Port, count: u64, batch: u32) -> Result<u64, SyncError> {
    let mut seq = 0;
    while seq < count && !STOP.load(Ordering::Relaxed) {
        let mut ring = port.tx(0);
        let left = (count - seq).min(u64::from(batch)) as u32;
        let sent = ring.fill(left, |slot| {
            slot.payload().copy_from(&frame(seq, 0x0a));
            slot.set(60, 0);
            seq += 1;
            true
        });
        ring.sync()?;
        drop(ring);
        if sent == 0 {
            port.wait(Interest::TX, Some(Duration::from_millis(20)))?;
        }
    }
    Ok(seq)
}

/// Receives until told to stop, or until `count` have come. Says how many came, and how often a number was not the next.
fn rx(port: &mut Port, count: u64) -> Result<(u64, u64), SyncError> {
    let (mut packets, mut jumps, mut next) = (0, 0, None);
    while packets < count && !STOP.load(Ordering::Relaxed) {
        if !port.wait(Interest::RX, Some(Duration::from_millis(20)))?.rx {
            continue;
        }
        port.rx(0).drain(u32::MAX, |slot| {
            let seq = slot.payload().load_u64(14).unwrap_or(0);
            jumps += u64::from(next.is_some_and(|n| n != seq));
            next = Some(seq + 1);
            packets += 1;
            true
        });
    }
    Ok((packets, jumps))
}

/// Sends one packet on `a`, syncs, and looks at once whether the next sync on `b` finds it; `count` times. Returns the failures.
fn synchrony(a: &str, b: &str, count: u64) -> Outcome<u64> {
    let (mut a, mut b) = (Port::open(a)?, Port::open(b)?);
    let mut missed = 0;
    for seq in 0..count {
        let mut tx = a.tx(0);
        while !tx.send(&frame(seq, 0x0a)) {
            tx.sync()?; // A pipe's room comes back with a sync.
        }
        tx.sync()?;
        drop(tx);
        let mut rx = b.rx(0);
        rx.sync()?;
        let mut found = false;
        rx.drain(u32::MAX, |slot| {
            found |= slot.payload().load_u64(14) == Some(seq);
            true
        });
        missed += u64::from(!found);
    }
    Ok(missed)
}

/// Opens and closes a port until told to stop, reading a few times in between. Says how often, what came, and how often a number was
/// not the next although nothing was skipped.
fn churn(name: &str) -> Outcome<(u64, u64, u64)> {
    let (mut opens, mut packets, mut jumps) = (0, 0, 0);
    while !STOP.load(Ordering::Relaxed) {
        let mut port = Port::builder(name).shared().open()?;
        opens += 1;
        let (mut next, mut odd) = (None, 0);
        for _ in 0..opens % 8 {
            port.rxsync()?;
            port.rx(0).drain(u32::MAX, |slot| {
                let seq = slot.payload().load_u64(14).unwrap_or(0);
                odd += u64::from(next.is_some_and(|n| n != seq));
                next = Some(seq + 1);
                packets += 1;
                true
            });
        }
        port.rxsync()?;
        if port.counters().rx.all_drops() == 0 {
            jumps += odd;
        }
    }
    Ok((opens, packets, jumps))
}

fn stop_when_input_ends() {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0; 1]);
        STOP.store(true, Ordering::Relaxed);
    });
}

fn run() -> Outcome {
    let args: Vec<String> = std::env::args().collect();
    let [_, role, name, rest @ ..] = &args[..] else { return Err("ROLE PORT".into()) };
    let number = rest.first().and_then(|n| n.parse().ok()).unwrap_or(u64::MAX);
    if role == "open-time" {
        let began = Instant::now();
        let port = Port::open(name)?;
        say(&began.elapsed().as_nanos().to_string());
        drop(port);
        return Ok(());
    }
    if role == "synchrony" {
        let missed = synchrony(name, &rest[0], rest[1].parse()?)?;
        say(&missed.to_string());
        return Ok(());
    }
    if role == "churn" {
        say("ready");
        stop_when_input_ends();
        let (opens, packets, jumps) = churn(name)?;
        say(&format!("{opens} {packets} {jumps}"));
        return Ok(());
    }
    let mut port = Port::builder(name).shared().open()?;
    say("ready");
    stop_when_input_ends();
    match role.as_str() {
        "tx" => {
            let sent = tx(&mut port, number, 64)?;
            let c = port.counters().tx;
            say(&format!("{sent} {} {} {}", c.delivered, c.all_drops(), c.extra_copies));
        }
        "rx" => {
            let (packets, jumps) = rx(&mut port, number)?;
            say(&format!("{packets} {jumps}"));
        }
        // As rx, and what found no room.
        "monitor" => {
            let (packets, jumps) = rx(&mut port, number)?;
            say(&format!("{packets} {jumps} {}", port.counters().rx.all_drops()));
        }
        // Never syncs.
        "mute" => {
            while !STOP.load(Ordering::Relaxed) {
                std::thread::park_timeout(Duration::from_millis(5));
            }
            let c = port.counters().rx;
            say(&format!("{} {}", c.packets, c.all_drops()));
        }
        // Sleeps until something comes, or for ten seconds. Says whether, and how many milliseconds.
        "wait" => {
            let began = Instant::now();
            let ready = port.wait(Interest::RX, Some(Duration::from_secs(10)))?;
            say(&format!("{} {}", u8::from(ready.rx), began.elapsed().as_millis()));
        }
        // Sends back whatever comes.
        "echo" => {
            while !STOP.load(Ordering::Relaxed) {
                if port.wait(Interest::RX, Some(Duration::from_millis(20)))?.rx {
                    let mut frames = vec![];
                    port.rx(0).drain(u32::MAX, |slot| {
                        frames.push(slot.payload().to_vec());
                        true
                    });
                    let mut ring = port.tx(0);
                    for f in frames {
                        ring.send(&f);
                    }
                    ring.sync()?;
                }
            }
        }
        "hold" => {
            while !STOP.load(Ordering::Relaxed) {
                std::thread::park_timeout(Duration::from_millis(5));
                port.rxsync()?;
            }
        }
        other => return Err(format!("no role {other}").into()),
    }
    Ok(())
}

fn main() -> ExitCode {
    end(run())
}
