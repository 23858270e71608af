//! Writing over all that is mapped.

use ringway_core::lease::Grant;
use ringway_e2e::hostile::{Random, latencies, maps, words};
use ringway_e2e::raw::register;
use ringway_e2e::{Peer, TestBroker};
use rustix::fs::OFlags;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::Relaxed;

/// Doorbells filled to the brim, and made blocking.
pub fn fill_bells(grant: &Grant) {
    for bell in [&grant.rx_bell, &grant.tx_bell, &grant.worker_bell] {
        // A second time it is full already: that must not be ours to wait for.
        let flags = rustix::fs::fcntl_getfl(bell.as_fd()).unwrap();
        let _ = rustix::fs::fcntl_setfl(bell.as_fd(), flags | OFlags::NONBLOCK);
        let _ = rustix::io::write(bell.as_fd(), &(u64::MAX - 1).to_ne_bytes());
        let _ = rustix::fs::fcntl_setfl(bell.as_fd(), flags - OFlags::NONBLOCK);
    }
}

#[test]
fn scribbling_over_all_that_is_mapped_harms_the_scribbler_only() {
    let broker = TestBroker::start("");
    // Others: a pipe that must lose nothing while the scribbler is at work.
    let rx = Peer::start(crate::peer(&broker, &["rx", "netmap:x{1", "3000000"])).expect("receiver");
    let tx = Peer::start(crate::peer(&broker, &["tx", "netmap:x}1", "3000000"])).expect("sender");
    let mut random = Random(99);
    for round in 0..12 {
        let name = ["vale3:s", "y{1", "vale3:p}2"][round % 3];
        let (grant, conn) = register(&broker.socket(), name).unwrap();
        for map in maps(&grant) {
            let words = words(&map);
            // The head of a map (records, rings, states) densely, the buffers here and there.
            for (i, word) in words.iter().enumerate().take(60_000) {
                if !random.next().is_multiple_of(3) || i < 64 {
                    word.store(random.next(), Relaxed);
                }
            }
        }
        fill_bells(&grant);
        let _ = grant.region.memfd.discard();
        broker.json(&["ports", "--interval", "0"]);
        latencies(&broker.socket(), 11).check(&format!("round {round}"));
        drop((grant, conn));
    }
    assert_eq!(tx.result()[0], 3_000_000);
    assert_eq!(rx.result(), [3_000_000, 0]);
    assert_eq!(broker.json(&["broker", "status"])[0]["ports"], 0);
}
