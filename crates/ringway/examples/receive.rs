//! Receives from a port until nothing came for five seconds: `cargo run -p ringway --example receive -- vale0:b`.
//! It needs a broker: `cargo build` makes one that it finds.

use ringway::{Interest, Port};
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name = std::env::args().nth(1).unwrap_or("vale0:b".into());
    let mut port = Port::open(&name)?;
    let (mut packets, mut bytes) = (0u64, 0u64);
    let mut shown = Instant::now();
    while port.wait(Interest::RX, Some(Duration::from_secs(5)))?.rx {
        for i in 0..port.rx_rings() {
            port.rx(i).drain(u32::MAX, |slot| {
                // Payload that others may write is never a slice: read fields, or copy.
                if packets == 0 {
                    println!("first packet: {:02x?}", slot.payload().to_vec());
                }
                packets += u64::from(!slot.has_more());
                bytes += u64::from(slot.len());
                true
            });
        }
        if shown.elapsed() > Duration::from_secs(1) {
            println!("{packets} packets, {bytes} bytes");
            shown = Instant::now();
        }
    }
    println!("{packets} packets, {bytes} bytes");
    Ok(())
}
