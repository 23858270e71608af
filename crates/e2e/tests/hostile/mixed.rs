//! Everything at once.

use crate::memory::fill_bells;
use crate::{HOSTILE, OTHER};
use ringway::{Interest, Port};
use ringway_abi::wire::{self, Kind};
use ringway_core::lease::Grant;
use ringway_e2e::hostile::{Probe, Random, become_user, maps, words};
use ringway_e2e::raw::{answer, ask, register, register_message};
use ringway_e2e::{Peer, TestBroker, root_or_skip};
use ringway_os::event::Doorbell;
use ringway_os::sock::Conn;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Requests, and writes into mapped memory, together.
const OPERATIONS: u64 = 1_000_000;
/// Requests among them, at least.
const REQUESTS: u64 = 40_000;
/// Ports that the hostile client keeps open.
const OPEN: usize = 6;

/// What the hostile client does.
struct Hostile<'a> {
    socket: &'a Path,
    random: Random,
    open: Vec<(Grant, Conn)>,
    requests: u64,
    opened: u64,
    writes: u64,
}

impl Hostile<'_> {
    fn step(&mut self) {
        match self.random.below(16) {
            0..=2 => self.open(),
            3 => self.close(),
            4..=7 => self.scribble(),
            8 => self.post(),
            9 => {
                if let Some((grant, _)) = self.open.last() {
                    fill_bells(grant);
                    let _ = grant.region.memfd.discard();
                    let _ = grant.state.memfd.discard();
                }
            }
            10..=12 => self.nonsense(),
            _ => self.question(),
        }
    }

    /// A legal open: of ports on the public switch, on switches and pipes of its own, or one that others have.
    fn open(&mut self) {
        let names = ["vale0:h0", "vale0:h1", "vale5:a", "vale5:b", "h{1", "h}1", "vale0:h{p", "vale0:wb"];
        let name = names[self.random.below(names.len() as u64) as usize];
        self.requests += 1;
        if let Ok(bound) = register(self.socket, name) {
            assert_ne!(name, "vale0:wb", "another user's port");
            self.opened += 1;
            self.open.push(bound);
        }
        if self.open.len() > OPEN {
            self.close();
        }
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            let i = self.random.below(self.open.len() as u64) as usize;
            self.open.swap_remove(i);
        }
    }

    /// Writes over one of the maps: its head (records, rings, states), which is what others look at.
    fn scribble(&mut self) {
        let Some((grant, _)) = self.open.get(self.random.below(OPEN as u64) as usize) else { return };
        let maps = maps(grant);
        let map = &maps[self.random.below(maps.len() as u64) as usize];
        let words = words(map);
        let len = words.len().min(60_000) as u64;
        let small = self.random.below(2) == 0;
        for _ in 0..200 {
            let value = self.random.next();
            // Small numbers pass more checks than others.
            let value = if small { value & 0x0000_07ff_0000_07ff } else { value };
            words[self.random.below(len) as usize].store(value, Relaxed);
        }
        self.writes += 200;
    }

    /// Legal positions and posts, so that the broker's worker has something to do: frames of whatever lies in the buffers.
    fn post(&mut self) {
        let Some((grant, _)) = self.open.first() else { return };
        use ringway_core::layout::{Dir, RingShared};
        let Some(ring) = RingShared::new(&grant.state.map, &grant.geometry, Dir::Tx, 0) else { return };
        let (post, n) = (&ring.state.post, ring.num_slots);
        post.head.store(self.random.below(u64::from(n)) as u32, Relaxed);
        post.posted.publish(post.posted.load().wrapping_add(1));
        // It may be full, and ours to wait for.
        let flags = rustix::fs::fcntl_getfl(grant.worker_bell.as_fd()).unwrap();
        let _ = rustix::fs::fcntl_setfl(grant.worker_bell.as_fd(), flags | rustix::fs::OFlags::NONBLOCK);
        grant.worker_bell.ring();
        self.writes += 2;
    }

    fn nonsense(&mut self) {
        let mut message = register_message("vale0:h0");
        match self.random.below(4) {
            0 => message.iter_mut().for_each(|b| *b = self.random.0 as u8),
            1 => message.truncate(1 + self.random.below(message.len() as u64) as usize),
            2 => message.resize(60_000, 0xff),
            _ => {
                let at = 8 + self.random.below(message.len() as u64 - 8) as usize;
                message[at] ^= 1 << self.random.below(8);
            }
        }
        let bell = Doorbell::new().unwrap();
        let extra = [bell.as_fd(); 40];
        answer(self.socket, &message, &extra[..self.random.below(41) as usize]);
        self.requests += 1;
    }

    /// Over a connection that has a port, if there is one.
    fn question(&mut self) {
        let kinds = [Kind::Join, Kind::Peer, Kind::List, Kind::Status, Kind::Tune, Kind::Stop, Kind::Reply];
        let kind = kinds[self.random.below(kinds.len() as u64) as usize];
        let body = [self.random.next() as u8 & 3, 0, 0, 0];
        let body = if kind == Kind::Peer { &body[..] } else { &[] };
        let message = wire::message(kind, 0, body);
        match self.open.last() {
            Some((_, conn)) => drop(ask(conn, &message, &[])),
            None => drop(answer(self.socket, &message, &[])),
        }
        self.requests += 1;
    }
}

fn frame(dst: u8, src: u8, seq: u64) -> [u8; 60] {
    let mut f = [0; 60];
    f[..6].copy_from_slice(&[2, 0x77, 0x77, 0x77, 0x77, dst]);
    f[6..12].copy_from_slice(&[2, 0x77, 0x77, 0x77, 0x77, src]);
    f[14..22].copy_from_slice(b"WITNESS!");
    f[22..30].copy_from_slice(&seq.to_ne_bytes());
    f
}

/// Numbers of the frames that are ours, among whatever the hostile client sends.
fn received(port: &mut Port, src: u8) -> Vec<u64> {
    let mut out = vec![];
    port.rx(0).drain(u32::MAX, |slot| {
        let f = slot.payload().to_vec();
        if f.len() == 60 && f[11] == src && f[14..22] == *b"WITNESS!" {
            out.extend(slot.payload().load_u64(22));
        }
        true
    });
    out
}

/// What became of the frames that a witness sent.
#[derive(Debug, Default)]
struct Witness {
    sent: u64,
    received: u64,
    dropped: u64,
    /// Delivered to somebody else: addresses on a public switch are anybody's, and the hostile client sends whatever lies in its buffers.
    strayed: u64,
}

/// Two ports of root on the public switch: what one sends, the other receives, in order, or it is counted as a drop.
fn witness(broker: &TestBroker, open: &Barrier, stop: &AtomicBool) -> Witness {
    let mut a = broker.netmap().open("vale0:wa").unwrap();
    let mut b = broker.netmap().open("vale0:wb").unwrap();
    let (mut sent, mut got, mut strayed) = (0, 0, 0);
    // Known to the switch, so that no frame of ours comes to others, who would send it again.
    a.tx(0).send(&frame(b'b', b'a', 0));
    a.txsync().unwrap();
    open.wait();
    while !stop.load(Relaxed) {
        // Says where it is: the table of addresses is anybody's.
        b.tx(0).send(&frame(b'a', b'b', 0));
        b.txsync().unwrap();
        b.rxsync().unwrap();
        received(&mut b, b'a');
        let (first, before) = (sent, a.counters().tx);
        while sent < first + 32 && a.tx(0).send(&frame(b'b', b'a', sent)) {
            sent += 1;
        }
        let (mut next, mut batch) = (first, 0);
        let end = Instant::now() + Duration::from_millis(500);
        // What a sync has sent is there, or was dropped; while the rings change hands it may take one more.
        while batch + (a.counters().tx.all_drops() - before.all_drops()) < sent - first {
            a.txsync().unwrap();
            a.rxsync().unwrap();
            received(&mut a, b'b');
            b.wait(Interest::RX, Some(Duration::from_millis(1))).unwrap();
            for seq in received(&mut b, b'a') {
                assert!(seq >= next && seq < sent, "{seq} after {next} of {sent}");
                (next, batch) = (seq + 1, batch + 1);
            }
            if Instant::now() > end {
                let now = a.counters().tx;
                assert_eq!(now.packets - before.packets, sent - first, "not sent: {now:?}");
                strayed += sent - first - batch;
                break;
            }
        }
        got += batch;
    }
    Witness { sent, received: got, dropped: a.counters().tx.all_drops(), strayed }
}

#[test]
fn a_million_operations_harm_nobody_else() {
    const TEST: &str = "a_million_operations_harm_nobody_else";
    if !root_or_skip(TEST) {
        return;
    }
    let broker = TestBroker::start("admit = \"all\"\npublic_switches = [\"vale0\"]");
    // Another user, on a pipe that loses nothing.
    let program = broker.dir.path().join("e2e-peer");
    ringway_e2e::copy_program(Path::new(env!("CARGO_BIN_EXE_e2e-peer")), &program);
    let peer = |args: &[&str]| {
        let mut c = broker.command_at(&program);
        c.args(args).uid(OTHER).gid(OTHER);
        Peer::start(c).expect("a peer")
    };
    let pipe = || {
        let rx = peer(&["rx", "netmap:x{1", "500000"]);
        let tx = peer(&["tx", "netmap:x}1", "500000"]);
        assert_eq!(tx.result()[0], 500_000);
        assert_eq!(rx.result(), [500_000, 0]);
    };
    let probe = Probe::start(broker.socket());
    let (open, stop) = (Barrier::new(2), AtomicBool::new(false));
    let began = Instant::now();
    let switch = std::thread::scope(|s| {
        let witness = s.spawn(|| witness(&broker, &open, &stop));
        let pipes = s.spawn(|| {
            let mut times = 0;
            while !stop.load(Relaxed) {
                pipe();
                times += 1;
            }
            times
        });
        let socket = broker.socket();
        open.wait();
        let hostile = s.spawn(move || {
            become_user(HOSTILE);
            let random = Random(4242);
            let mut h = Hostile { socket: &socket, random, open: vec![], requests: 0, opened: 0, writes: 0 };
            while h.requests + h.writes < OPERATIONS || h.requests < REQUESTS {
                h.step();
            }
            (h.requests, h.opened, h.writes)
        });
        let hostile = hostile.join();
        stop.store(true, Relaxed);
        let (requests, opened, writes) = hostile.unwrap();
        println!("{requests} requests ({opened} opens), {writes} writes in {:?}", began.elapsed());
        println!("{} times 500000 packets over another user's pipe", pipes.join().unwrap());
        witness.join().unwrap()
    });
    println!("public switch: {switch:?}");
    assert!(switch.sent > 1000 && switch.received + switch.dropped + switch.strayed >= switch.sent);
    assert!(switch.strayed <= switch.sent / 50);
    probe.finish().check("a million operations");
    assert_eq!(broker.json(&["broker", "status"])[0]["ports"], 0);
}
