//! A sync loop for a guest, as a virtual machine monitor runs one: the guest publishes its positions in a CSB, and never syncs. For
//! comparison, the same with a thread that syncs for itself.
//!
//! `cargo run --release -p ringway --example sync_loop`

use ringway::{Csb, LoopConfig, Netmap, Port};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

const TIME: Duration = Duration::from_millis(500);

/// Receives for a while. Packets per second; `before` is called before each look.
fn receive(port: &mut Port, mut before: impl FnMut()) -> f64 {
    let (start, mut got) = (Instant::now(), 0_u64);
    while start.elapsed() < TIME {
        before();
        port.rxsync().expect("the engine lives");
        got += u64::from(port.rx(0).drain(u32::MAX, |_| true));
    }
    got as f64 / start.elapsed().as_secs_f64()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let names = [["netmap:x{1", "netmap:x}1"], ["vale0:a", "vale0:b"]];
    for [from, to] in names {
        let netmap = Netmap::embedded();
        let (mut a, mut b) = (netmap.open(from)?, netmap.open(to)?);
        let n = a.geometry().tx_slots;
        a.tx(0).fill(n, |slot| {
            slot.payload().copy_from(&[0xff; 60]);
            slot.set(60, 0);
            true
        });
        let stop = AtomicBool::new(false);
        let plain = std::thread::scope(|s| {
            s.spawn(|| {
                while !stop.load(Relaxed) {
                    a.txsync().expect("the engine lives");
                    let mut tx = a.tx(0);
                    let room = tx.tail();
                    tx.set_head(room);
                }
            });
            let rate = receive(&mut b, || ());
            stop.store(true, Relaxed);
            rate
        });
        let (csb, _memfd) = Csb::create(a.tx_rings() + a.rx_rings())?;
        a.enter_csb(&csb)?;
        let stopper = a.loop_stopper();
        let looped = std::thread::scope(|s| {
            s.spawn(|| a.run_csb_loop(&csb, LoopConfig::default()));
            // All slots that are the guest's, as soon as they are.
            let rate = receive(&mut b, || {
                let (_, hwtail) = csb.kern()[0].positions();
                csb.app()[0].publish(hwtail, hwtail);
            });
            stopper.stop();
            rate
        });
        println!("{from}: plain sync {:.1} Mpps, loop {:.1} Mpps", plain / 1e6, looped / 1e6);
    }
    Ok(())
}
