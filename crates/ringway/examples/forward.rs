//! A bridge that copies nothing: buffers change places between two ports of one region.
//!
//! `cargo run --example forward -- netmap:x{1 netmap:x{2` (the other ends of the pipes are `netmap:x}1` and `netmap:x}2`).

use ringway::{Interest, Port};
use std::time::Duration;

/// What `from` received goes out of `to`.
fn forward(from: &mut Port, to: &mut Port) -> Result<u32, Box<dyn std::error::Error>> {
    let moved = to.tx(0).forward(&mut from.rx(0), u32::MAX)?;
    if moved > 0 {
        to.txsync()?;
        from.rxsync()?;
    }
    Ok(moved)
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
        if there + back == 0 {
            // Two ports cannot be slept on at once by `wait`; see `Port::arm` for that.
            left.wait(Interest::RX, Some(Duration::from_millis(1)))?;
            right.wait(Interest::RX, Some(Duration::ZERO))?;
        }
    }
}
