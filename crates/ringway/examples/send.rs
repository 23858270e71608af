//! Sends small packets to a port for a second, in batches: `cargo run -p ringway --example send -- vale0:a`.
//! It needs a broker: `cargo build` makes one that it finds.

use ringway::{Interest, Port};
use std::time::{Duration, Instant};

/// To everybody, from a locally administered address, with a type for experiments.
const FRAME: [u8; 60] = {
    let mut frame = [0; 60];
    let mut i = 0;
    while i < 6 {
        frame[i] = 0xff;
        i += 1;
    }
    frame[6] = 2;
    frame[12] = 0x88;
    frame[13] = 0xb5;
    frame
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name = std::env::args().nth(1).unwrap_or("vale0:a".into());
    let mut port = Port::open(&name)?;
    let start = Instant::now();
    let mut sent = 0u64;
    while start.elapsed() < Duration::from_secs(1) {
        // On a pipe this waits for the reader, on a switch there is always room.
        if !port.wait(Interest::TX, Some(Duration::from_millis(100)))?.tx {
            continue;
        }
        let mut tx = port.tx(0);
        sent += u64::from(tx.fill(256, |slot| {
            slot.payload().copy_from(&FRAME);
            slot.set(60, 0);
            true
        }));
        tx.sync()?;
    }
    let drops: Vec<_> = port.counters().tx.drops_by_name().collect();
    println!("{name}: sent {sent} packets in {:?}, dropped {drops:?}", start.elapsed());
    Ok(())
}
