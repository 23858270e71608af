//! A client that sends nonsense, keeps what it should not, and scribbles over all that it maps: the broker lives, answers
//! others at once, and nobody else loses anything.

use ringway_abi::wire::{self, Kind};
use ringway_abi::{NR_REG_ALL_NIC, nmreq_register};
use ringway_core::lease::{Grant, GrantKind};
use ringway_e2e::raw::{self, answer};
use ringway_e2e::{Peer, TestBroker};
use ringway_os::event::Doorbell;
use ringway_os::mem::{Map, SharedSlice};
use ringway_os::sock::Conn;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const PEER: &str = env!("CARGO_BIN_EXE_e2e-peer");

/// A small generator of numbers, the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn register(socket: &Path, name: &str) -> (Grant, Conn) {
    raw::register(socket, name, &nmreq_register { nr_mode: NR_REG_ALL_NIC, ..Default::default() })
}

fn words(map: &Arc<Map>) -> SharedSlice<AtomicU64> {
    SharedSlice::new(map, 0, map.len_bytes() / 8).unwrap()
}

/// How long a question of somebody else takes, in the middle of `n`.
fn response(broker: &TestBroker, n: usize) -> Duration {
    let ask = wire::message(Kind::Status, 0, &[]);
    let mut times: Vec<Duration> = (0..n)
        .map(|_| {
            let began = Instant::now();
            answer(&broker.socket(), &ask, &[]).expect("an answer");
            began.elapsed()
        })
        .collect();
    times.sort();
    times[n / 2]
}

#[test]
fn nonsense_is_refused_and_costs_others_nothing() {
    let broker = TestBroker::start("");
    let mut random = Random(0x1234_5678_9abc_def1);
    let good = wire::message(Kind::Control, 0, &[0; 200]);
    for round in 0..2000 {
        let mut message = good.clone();
        match round % 5 {
            0 => message.iter_mut().for_each(|b| *b = random.next() as u8),
            1 => message.truncate(random.next() as usize % message.len()),
            2 => message.resize(15_000, 0xff),
            3 => {
                let at = 7 + random.next() as usize % (message.len() - 7);
                message[at] ^= 1 << (random.next() % 8);
            }
            // All kinds but STOP, which we may ask for.
            _ => message[6] = [0, 1, 2, 3, 4, 5, 6, 7, 9, 10][(random.next() % 10) as usize],
        }
        if message.is_empty() {
            continue;
        }
        let bell = Doorbell::new().unwrap();
        let extra = [bell.as_fd(); 5];
        let some = &extra[..random.next() as usize % 6];
        if let Some((bytes, _, _)) = answer(&broker.socket(), &message, some)
            && let Ok((head, kind, _)) = wire::parse(&bytes)
        {
            assert_eq!(kind, Kind::Reply);
            assert!(head.errno >= 0);
        }
    }
    let middle = response(&broker, 51);
    assert!(middle < Duration::from_millis(10), "an answer takes {middle:?}");
    assert_eq!(broker.json(&["broker", "status"])[0]["ports"], 0);
}

#[test]
fn scribbling_over_all_that_is_mapped_harms_the_scribbler_only() {
    let broker = TestBroker::start("");
    // Others: a pipe that must lose nothing while the scribbler is at work.
    let rx = Peer::start(peer(&broker, &["rx", "netmap:x{1", "3000000"])).expect("receiver");
    let tx = Peer::start(peer(&broker, &["tx", "netmap:x}1", "3000000"])).expect("sender");
    let mut random = Random(99);
    for round in 0..12 {
        let name = ["vale3:s", "y{1", "vale3:p}2"][round % 3];
        let (grant, conn) = register(&broker.socket(), name);
        let mut maps = vec![grant.region.map.clone(), grant.state.map.clone()];
        match &grant.kind {
            GrantKind::Vale { page, .. } => maps.push(page.map.clone()),
            GrantKind::Pipe { peer_state, .. } => maps.push(peer_state.map.clone()),
            _ => {}
        }
        for map in &maps {
            let words = words(map);
            // The head of a map (records, rings, states) densely, the buffers here and there.
            for (i, word) in words.iter().enumerate().take(60_000) {
                if !random.next().is_multiple_of(3) || i < 64 {
                    word.store(random.next(), Relaxed);
                }
            }
        }
        // Doorbells filled to the brim.
        for bell in [&grant.rx_bell, &grant.tx_bell, &grant.worker_bell] {
            let _ = rustix::io::write(bell.as_fd(), &(u64::MAX - 1).to_ne_bytes());
            let flags = rustix::fs::fcntl_getfl(bell.as_fd()).unwrap();
            let _ = rustix::fs::fcntl_setfl(bell.as_fd(), flags - rustix::fs::OFlags::NONBLOCK);
        }
        let _ = grant.region.memfd.discard();
        broker.json(&["ports", "--interval", "0"]);
        let middle = response(&broker, 11);
        assert!(middle < Duration::from_millis(10), "round {round}: an answer takes {middle:?}");
        drop((grant, conn));
    }
    assert_eq!(tx.result()[0], 3_000_000);
    assert_eq!(rx.result(), [3_000_000, 0]);
    assert_eq!(broker.json(&["broker", "status"])[0]["ports"], 0);
}

fn peer(broker: &TestBroker, args: &[&str]) -> std::process::Command {
    let mut c = broker.command_at(Path::new(PEER));
    c.args(args);
    c
}
