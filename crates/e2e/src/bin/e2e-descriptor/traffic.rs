//! Frames with numbers, sent and received.

use crate::LONG;
use ringway::{Interest, Port};
use ringway_e2e::role::{Outcome, say};

fn frame(seq: u64) -> [u8; 60] {
    let mut f = [0; 60];
    f[..6].copy_from_slice(&[0xff; 6]);
    f[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 0xd]);
    f[14..22].copy_from_slice(&seq.to_ne_bytes());
    f
}

/// Sends frames numbered `from` and on. Waits for room.
pub(crate) fn send(port: &mut Port, from: u64, count: u64) -> Outcome {
    let mut seq = from;
    while seq < from + count {
        let left = (from + count - seq).min(64) as u32;
        let mut ring = port.tx(0);
        ring.fill(left, |slot| {
            slot.payload().copy_from(&frame(seq));
            slot.set(60, 0);
            seq += 1;
            true
        });
        ring.sync()?;
        drop(ring);
        if seq < from + count {
            port.wait(Interest::TX, Some(LONG))?;
        }
    }
    Ok(())
}

/// What came: how many frames, how often a number was not the next, the first and the last number.
#[derive(Debug, Default)]
pub(crate) struct Got {
    count: u64,
    jumps: u64,
    first: Option<u64>,
    last: u64,
}

impl Got {
    pub(crate) fn say(&self) {
        say(&format!("{} {} {} {}", self.count, self.jumps, self.first.unwrap_or(0), self.last));
    }
}

/// Receives exactly `count` frames.
pub(crate) fn receive(port: &mut Port, count: u64) -> Outcome<Got> {
    let mut got = Got::default();
    while got.count < count {
        if !port.wait(Interest::RX, Some(LONG))?.rx {
            return Err(format!("nothing comes after {} of {count}: {got:?}", got.count).into());
        }
        port.rx(0).drain((count - got.count) as u32, |slot| {
            let seq = slot.payload().load_u64(14).unwrap_or(0);
            got.jumps += u64::from(got.first.is_some() && seq != got.last + 1);
            got.first = got.first.or(Some(seq));
            got.last = seq;
            got.count += 1;
            true
        });
    }
    // What is taken is given back, so that the next one finds it so.
    port.rxsync()?;
    Ok(got)
}

pub(crate) fn expect(port: &mut Port, from: u64, count: u64) -> Outcome {
    let got = receive(port, count)?;
    if (got.first, got.jumps) != (Some(from), 0) {
        return Err(format!("wanted {count} frames from {from}, got {got:?}").into());
    }
    Ok(())
}
