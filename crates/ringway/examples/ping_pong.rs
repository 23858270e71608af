//! The way there and back between two threads over a pipe, each sleeping until the other rings.

use ringway::{Interest, Netmap, Port, SyncError};
use std::time::{Duration, Instant};

const ROUNDS: u32 = 20_000;

fn send(port: &mut Port, number: u32) -> Result<(), SyncError> {
    let mut tx = port.tx(0);
    tx.fill(1, |slot| {
        slot.payload().store_u32(14, number);
        slot.set(60, 0);
        true
    });
    tx.sync()
}

fn receive(port: &mut Port) -> Result<u32, SyncError> {
    loop {
        port.wait(Interest::RX, Some(Duration::from_secs(5)))?;
        let mut number = None;
        port.rx(0).drain(1, |slot| {
            number = slot.payload().load_u32(14);
            true
        });
        if let Some(number) = number {
            return Ok(number);
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let netmap = Netmap::embedded();
    let (mut ping, mut pong) = (netmap.open("netmap:x{1")?, netmap.open("netmap:x}1")?);
    let echo = std::thread::spawn(move || -> Result<(), SyncError> {
        for _ in 0..ROUNDS {
            let number = receive(&mut pong)?;
            send(&mut pong, number)?;
        }
        Ok(())
    });
    let start = Instant::now();
    for round in 0..ROUNDS {
        send(&mut ping, round)?;
        assert_eq!(receive(&mut ping)?, round);
    }
    println!("there and back: {:?}", start.elapsed() / ROUNDS);
    echo.join().map_err(|_| "the other thread panicked")??;
    Ok(())
}
