//! A bridge that copies nothing: buffers change places between two ports of one region.
//!
//! `cargo run -p ringway --example forward -- netmap:x{1 netmap:x{2` (the other ends of the pipes are `netmap:x}1` and `netmap:x}2`).
//! It needs a broker: `cargo build` makes one that it finds.

use ringway::{Interest, Port};
use std::time::Duration;

/// What `from` received goes out of `to`. False if there was nothing.
fn forward(from: &mut Port, to: &mut Port) -> Result<bool, Box<dyn std::error::Error>> {
    if from.rx(0).is_empty() {
        return Ok(false);
    }
    // A full pipe has room when its reader has given slots back; a switch always has.
    if to.wait(Interest::TX, Some(Duration::from_millis(1)))?.tx {
        to.tx(0).forward(&mut from.rx(0), u32::MAX)?;
        to.txsync()?;
        from.rxsync()?;
    }
    Ok(true)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut names = std::env::args().skip(1);
    let (left, right) =
        (names.next().unwrap_or("netmap:x{1".into()), names.next().unwrap_or("netmap:x{2".into()));
    let mut left = Port::open(&left)?;
    let mut right = Port::builder(&right).share_memory_with(&left).open()?;
    println!("bridging {} and {}", left.name(), right.name());
    loop {
        let there = forward(&mut left, &mut right)?;
        let back = forward(&mut right, &mut left)?;
        if !there && !back {
            // Two ports cannot be slept on at once by `wait`; see `Port::arm` for that.
            left.wait(Interest::RX, Some(Duration::from_millis(1)))?;
            right.wait(Interest::RX, Some(Duration::ZERO))?;
        }
    }
}
