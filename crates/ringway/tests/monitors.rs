//! Monitors, over the embedded engine: what they see is what passed. Source: semantics.md 22.

use ringway::{Errno, Interest, NS_BUF_CHANGED, NS_TXMON, Netmap, OpenError, Port, SyncError};
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn frame(seq: u64) -> Vec<u8> {
    let mut f = vec![0xff; 60];
    f[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    f[14..22].copy_from_slice(&seq.to_ne_bytes());
    f
}

fn send(port: &mut Port, seq: u64) -> Outcome {
    let mut tx = port.tx(0);
    assert!(tx.send(&frame(seq)), "no room for {seq}");
    Ok(tx.sync()?)
}

/// Number, and whether the monitor says that it was sent.
fn look(port: &mut Port) -> Vec<(u64, bool)> {
    let mut rx = port.rx(0);
    rx.sync().unwrap();
    let mut out = vec![];
    rx.drain(u32::MAX, |slot| {
        out.push((slot.payload().load_u64(14).unwrap(), slot.flags() & NS_TXMON != 0));
        true
    });
    rx.sync().unwrap();
    out
}

#[test]
fn a_copy_monitor_of_a_pipe_sees_what_was_sent_and_what_arrives_unread() -> Outcome {
    let netmap = Netmap::embedded();
    let mut a = netmap.open("netmap:x{1")?;
    let _b = netmap.open("netmap:x}1")?;
    send(&mut a, 0)?;
    let mut sent = netmap.open("netmap:x{1/t")?;
    let mut arrives = netmap.open("netmap:x}1/r")?;
    let mut both = netmap.open("netmap:x{1/rt")?;
    assert_eq!((sent.name(), arrives.name(), both.name()), ("x{1/t#0", "x}1/r#0", "x{1/rt#1"));
    for seq in 1..4 {
        send(&mut a, seq)?;
    }
    // What the ring held before is not seen; on a pipe that is what the parent had taken over, here nothing.
    assert_eq!(look(&mut sent), [(1, true), (2, true), (3, true)]);
    assert_eq!(look(&mut arrives), [(0, false), (1, false), (2, false), (3, false)]);
    assert_eq!(look(&mut both), [(1, true), (2, true), (3, true)]);
    Ok(())
}

#[test]
fn a_copy_monitor_of_a_switch_port_sees_both_ways_and_floods() -> Outcome {
    let netmap = Netmap::embedded();
    let (mut a, mut b) = (netmap.open("vale0:a")?, netmap.open("vale0:b")?);
    let mut c = netmap.open("vale0:c")?;
    send(&mut a, 1)?;
    let mut of_a = netmap.open("vale0:a/rt")?;
    let mut of_b = netmap.open("vale0:b/r")?;
    send(&mut a, 2)?;
    send(&mut b, 3)?;
    assert_eq!(look(&mut of_a), [(2, true), (3, false)]);
    assert_eq!(look(&mut of_b), [(2, false)]);
    // The parents have lost nothing by the rings' changing hands.
    assert_eq!(look(&mut a), [(3, false)]);
    assert_eq!(look(&mut b), [(1, false), (2, false)]);
    drop((of_a, of_b));
    send(&mut a, 4)?;
    assert_eq!(look(&mut c), [(1, false), (2, false), (3, false), (4, false)]);
    assert!(netmap.ports()?.iter().all(|p| p.lease == "direct"));
    Ok(())
}

#[test]
fn a_full_monitor_skips_the_oldest_and_stops_nobody() -> Outcome {
    let netmap = Netmap::embedded();
    let (mut a, mut b) = (netmap.open("netmap:x{1")?, netmap.open("netmap:x}1")?);
    let mut small = netmap.builder("netmap:x{1/t").slots(8).open()?;
    for seq in 0..100 {
        let mut tx = a.tx(0);
        assert!(tx.send(&frame(seq)));
        if seq % 10 == 9 {
            tx.sync()?;
            drop(tx);
            assert_eq!(look(&mut b).len(), 10);
            a.txsync()?;
        }
    }
    // Of the first batch the newest seven; then there was no room.
    assert_eq!(look(&mut small), (3..10).map(|s| (s, true)).collect::<Vec<_>>());
    let rx = small.counters().rx;
    assert_eq!((rx.packets, rx.all_drops()), (7, 93));
    Ok(())
}

#[test]
fn a_zero_copy_monitor_sees_nothing_before_the_reader_releases() -> Outcome {
    let netmap = Netmap::embedded();
    let (mut a, mut b) = (netmap.open("netmap:x{1")?, netmap.open("netmap:x}1")?);
    let mut z = netmap.open("netmap:x}1/z")?;
    assert_eq!((z.name(), z.mem_id()), ("x}1/zrt#0", b.mem_id()));
    send(&mut a, 1)?;
    b.rxsync()?;
    let used = b.rx(0).slot(0).unwrap().buf_idx();
    assert_eq!(look(&mut z), []);
    b.rx(0).release(1);
    assert_eq!(look(&mut z), [], "not before the sync that gives it back");
    b.rxsync()?;
    z.rxsync()?;
    let slot = z.rx(0);
    let slot = slot.slot(0).unwrap();
    assert_eq!((slot.buf_idx(), slot.flags() & (NS_TXMON | NS_BUF_CHANGED)), (used, 0));
    assert_eq!(slot.payload().load_u64(14), Some(1));
    // The sender gets the monitor's buffer instead, and is told.
    let idx = b.rx(0).peek(0).unwrap().buf_idx();
    assert_ne!(idx, used);
    a.txsync()?;
    let back = a.tx(0).peek(0).unwrap();
    assert_eq!((back.buf_idx(), back.flags() & NS_BUF_CHANGED), (idx, NS_BUF_CHANGED));
    Ok(())
}

#[test]
fn zero_copy_monitors_make_a_chain_that_keeps_the_direction() -> Outcome {
    let netmap = Netmap::embedded();
    let (mut a, mut b) = (netmap.open("vale0:a")?, netmap.open("vale0:b")?);
    let mut first = netmap.open("vale0:a/z")?;
    let mut second = netmap.open("vale0:a/z")?;
    let mut copy = netmap.open("vale0:a/rt")?;
    send(&mut a, 1)?;
    send(&mut b, 2)?;
    assert_eq!(look(&mut a), [(2, false)]);
    assert_eq!(look(&mut second), [], "the first has released nothing");
    assert_eq!(look(&mut first), [(1, true), (2, false)]);
    assert_eq!(look(&mut second), [(1, true), (2, false)]);
    assert_eq!(look(&mut copy), [(1, true), (2, false)]);
    assert_eq!(look(&mut b), [(1, false)]);
    Ok(())
}

#[test]
fn opening_errors_are_those_of_the_contract() -> Outcome {
    let netmap = Netmap::embedded();
    for idle in ["vale0:a/t", "netmap:x{1/r", "vale0:a/z"] {
        assert_eq!(netmap.open(idle).unwrap_err().errno(), Errno::EINVAL, "{idle}");
        assert!(netmap.ports()?.is_empty(), "{idle} left something");
    }
    assert_eq!(netmap.open("netmap:nosuch0/t").unwrap_err().errno(), Errno::ENXIO);
    let _a = netmap.builder("vale0:a").rings(2).open()?;
    assert_eq!(netmap.open("vale0:a^/t").unwrap_err().errno(), Errno::EINVAL);
    assert_eq!(netmap.open("vale0:a-2/t").unwrap_err().errno(), Errno::EINVAL);
    let one = netmap.open("vale0:a-1/t")?;
    assert_eq!((one.tx_rings(), one.bound_rings(ringway::Dir::Rx)), (1, 1..2));
    let g = one.geometry();
    assert_eq!((g.tx_rings, g.rx_rings, g.tx_slots, g.rx_slots), (1, 2, 1024, 1024));
    // The same in the listing; a monitor of a monitor would be one of the parent.
    let listed = netmap.ports()?;
    let monitor = listed.iter().find(|p| p.kind == "monitor").unwrap();
    assert_eq!((monitor.name.as_str(), monitor.watches.as_str()), ("vale0:a/t#0", "vale0:a"));
    assert_eq!(netmap.open("vale0:a/t")?.name(), "vale0:a/t#1");
    Ok(())
}

#[test]
fn a_monitor_cannot_send_and_says_so_only_when_asked() -> Outcome {
    let netmap = Netmap::embedded();
    let (mut a, _b) = (netmap.open("netmap:x{1")?, netmap.open("netmap:x}1")?);
    let mut m = netmap.open("netmap:x{1/t")?;
    assert_eq!(m.wait(Interest::TX, Some(Duration::ZERO)), Err(SyncError::Failed));
    assert!(m.tx(0).space() > 0, "the ring looks free");
    assert!(m.wait(Interest::RX, Some(Duration::ZERO))?.is_empty());
    send(&mut a, 1)?;
    assert!(m.wait(Interest::RX, Some(Duration::ZERO))?.rx);
    Ok(())
}

#[test]
fn when_the_parent_goes_what_was_seen_stays_readable_and_syncs_fail() -> Outcome {
    let netmap = Netmap::embedded();
    let mut a = netmap.open("vale0:a")?;
    let _b = netmap.open("vale0:b")?;
    let mut m = netmap.open("vale0:a/t")?;
    send(&mut a, 1)?;
    m.rxsync()?;
    drop(a);
    assert_eq!(m.rxsync(), Err(SyncError::Stopped));
    assert_eq!(m.wait(Interest::RX, Some(Duration::ZERO)), Err(SyncError::Stopped));
    assert_eq!(m.rx(0).slot(0).unwrap().payload().load_u64(14), Some(1));
    // The parent's object stays while the monitor does, and a new life of it is not seen.
    assert!(netmap.ports()?.iter().any(|p| p.name == "vale0:a"));
    let mut a = netmap.open("vale0:a")?;
    send(&mut a, 2)?;
    assert_eq!(m.rxsync(), Err(SyncError::Stopped));
    drop(m);
    let mut m = netmap.open("vale0:a/t")?;
    send(&mut a, 3)?;
    assert_eq!(look(&mut m), [(3, true)]);
    Ok(())
}

/// A generator of numbers (xorshift), the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// A monitor and what it should have been shown.
struct Watched {
    port: Port,
    sent: bool,
    arrived: bool,
    due: VecDeque<(u64, bool)>,
}

/// Random traffic on a pipe or a switch with copy monitors coming and going: each sees what passed since it came, in order; and the
/// parents lose and double nothing.
fn random_copies(names: [&str; 2], seed: u64) -> Outcome {
    let netmap = Netmap::embedded();
    let mut random = Random(seed);
    let slots = 4 + random.below(60) as u32;
    let mut ends = [0, 1].map(|i| netmap.builder(names[i]).slots(slots).open().unwrap());
    let mut next = [0u64; 2];
    let mut due = [VecDeque::new(), VecDeque::new()];
    let mut monitors: Vec<(usize, Watched)> = vec![];
    for _ in 0..400 {
        let i = random.below(2) as usize;
        match random.below(12) {
            0 if monitors.len() < 5 => {
                let (sent, arrived) = [(true, false), (false, true), (true, true)][random.below(3) as usize];
                let flags = format!("{}{}", if arrived { "r" } else { "" }, if sent { "t" } else { "" });
                // Up to date first: what a pipe's end has not taken in would be seen.
                for (end, due) in ends.iter_mut().zip(&mut due) {
                    assert_eq!(look(end), due.drain(..).collect::<Vec<_>>());
                }
                let port = netmap.builder(&format!("{}/{flags}", names[i])).slots(4096).open()?;
                monitors.push((i, Watched { port, sent, arrived, due: VecDeque::new() }));
            }
            1 if !monitors.is_empty() => {
                let at = random.below(monitors.len() as u64) as usize;
                let (_, mut gone) = monitors.swap_remove(at);
                assert_eq!(look(&mut gone.port), gone.due.drain(..).collect::<Vec<_>>(), "seed {seed}");
            }
            2..8 => {
                let mut tx = ends[i].tx(0);
                let room = (u64::from(tx.space())).min(u64::from(slots) - 1 - due[1 - i].len() as u64);
                for _ in 0..random.below(room + 1) {
                    assert!(tx.send(&frame(next[i] * 2 + i as u64)));
                    let seq = next[i] * 2 + i as u64;
                    next[i] += 1;
                    due[1 - i].push_back((seq, false));
                    for (of, m) in &mut monitors {
                        if *of == i && m.sent {
                            m.due.push_back((seq, true));
                        } else if *of == 1 - i && m.arrived {
                            m.due.push_back((seq, false));
                        }
                    }
                }
                tx.sync()?;
            }
            8..10 => {
                assert_eq!(look(&mut ends[i]), due[i].drain(..).collect::<Vec<_>>(), "seed {seed}");
                ends[1 - i].txsync()?;
            }
            _ if !monitors.is_empty() => {
                let at = random.below(monitors.len() as u64) as usize;
                let m = &mut monitors[at].1;
                assert_eq!(look(&mut m.port), m.due.drain(..).collect::<Vec<_>>(), "seed {seed}");
            }
            _ => {}
        }
        // A monitor that is about to run over would skip: that is another test.
        for (_, m) in monitors.iter_mut().filter(|(_, m)| m.due.len() > 3500) {
            assert_eq!(look(&mut m.port), m.due.drain(..).collect::<Vec<_>>(), "seed {seed}");
        }
    }
    Ok(())
}

#[test]
fn random_traffic_is_seen_as_it_passed() -> Outcome {
    for seed in 1..40 {
        random_copies(["netmap:x{1", "netmap:x}1"], seed)?;
        random_copies(["vale0:a", "vale0:b"], seed)?;
    }
    Ok(())
}

/// Every buffer of the given ports, wherever their slots hold it.
fn buffers(ports: &mut [&mut Port]) -> BTreeSet<u32> {
    let mut out = BTreeSet::new();
    for port in ports {
        let (tx, rx) = port.rings();
        for ring in tx {
            out.extend((0..ring.num_slots()).filter_map(|k| Some(ring.peek(k)?.buf_idx())));
        }
        for ring in rx {
            out.extend((0..ring.num_slots()).filter_map(|k| Some(ring.peek(k)?.buf_idx())));
        }
    }
    out
}

/// Buffers of the port's region that nobody has.
fn free_buffers(netmap: &Netmap, port: &Port) -> Result<usize, OpenError> {
    let all = netmap.builder("netmap:all").null().share_memory_with(port).extra_buffers(1 << 20).open()?;
    Ok(all.extra_left())
}

/// Zero-copy monitors on a switch port under random traffic: every buffer of its region keeps one owner, in whatever order all ends
/// read, and the chain shows what passed.
#[test]
fn buffers_change_hands_and_none_is_lost() -> Outcome {
    for seed in 1..12 {
        let netmap = Netmap::embedded();
        let mut random = Random(seed);
        let mut a = netmap.builder("vale0:a").slots(32).open()?;
        let mut b = netmap.builder("vale0:b").slots(32).open()?;
        let free = free_buffers(&netmap, &a)?;
        let mut first = netmap.open("vale0:a/z")?;
        let mut second = netmap.open("vale0:a/z")?;
        let before = buffers(&mut [&mut a, &mut first, &mut second]);
        assert_eq!(before.len(), 32 * 2 * 3);
        let (mut seq, mut seen, mut last) = (0, 0, None);
        for _ in 0..300 {
            match random.below(6) {
                0 | 1 => {
                    send(&mut a, seq)?;
                    seq += 1;
                }
                2 => send(&mut b, u64::MAX)?,
                3 => drop((look(&mut a), look(&mut b))),
                4 => drop(look(&mut first)),
                _ => {
                    for (n, sent) in look(&mut second).into_iter().filter(|(n, _)| *n != u64::MAX) {
                        assert!(sent && last.is_none_or(|l| l < n), "seed {seed}: {n} after {last:?}");
                        last = Some(n);
                        seen += 1;
                    }
                }
            }
            assert_eq!(buffers(&mut [&mut a, &mut first, &mut second]), before, "seed {seed}");
        }
        assert!(seen > 10, "seed {seed}: only {seen} seen");
        drop((first, second));
        assert_eq!(free_buffers(&netmap, &a)?, free);
    }
    Ok(())
}

/// Zero-copy monitors at both ends of a pipe, closed in any order, with packets everywhere: the region gets every buffer back.
#[test]
fn a_pipe_with_monitors_gives_every_buffer_back_in_whatever_order_all_close() -> Outcome {
    for seed in 1..40 {
        let netmap = Netmap::embedded();
        let mut random = Random(seed);
        let parent = netmap.open("vale0:p")?;
        let free = free_buffers(&netmap, &parent)?;
        let mut names = vec!["vale0:p{1", "vale0:p}1"];
        names.extend(["vale0:p{1/z", "vale0:p}1/z", "vale0:p}1/z", "vale0:p{1/rt"]);
        let mut ports: Vec<Option<Port>> =
            names.iter().map(|n| Some(netmap.builder(n).slots(16).open().unwrap())).collect();
        let (mut seq, mut received) = (0, vec![]);
        for _ in 0..1000 {
            let i = random.below(6) as usize;
            let Some(port) = &mut ports[i] else { continue };
            match random.below(4) {
                0 if i == 0 => {
                    let mut tx = port.tx(0);
                    seq += u64::from(tx.send(&frame(seq)));
                    tx.sync()?;
                }
                1 if i == 1 => received.extend(look(port)),
                _ => {
                    // Some only: packets stay in between.
                    let _ = port.rxsync();
                    port.rx(0).release(random.below(3) as u32);
                    let _ = port.txsync();
                }
            }
        }
        while ports.iter().any(Option::is_some) {
            ports[random.below(6) as usize] = None;
        }
        assert!(seq > 10 && !received.is_empty(), "seed {seed}: {seq} sent, {} received", received.len());
        assert_eq!(free_buffers(&netmap, &parent)?, free, "seed {seed}");
    }
    Ok(())
}

/// Zero-copy monitors come and go in a numbered stream, and close with packets in their rings.
#[test]
fn a_stream_goes_on_while_its_buffers_change_hands() -> Outcome {
    for seed in 1..60 {
        let netmap = Netmap::embedded();
        let mut random = Random(seed);
        let mut a = netmap.builder("netmap:x{1").slots(16).open()?;
        let mut b = netmap.builder("netmap:x}1").slots(16).open()?;
        let mut monitors: [Option<Port>; 3] = [None, None, None];
        let (mut sent, mut received) = (0, 0);
        for _ in 0..2000 {
            let m = random.below(3) as usize;
            match random.below(8) {
                0 => {
                    let name = if m == 0 { "netmap:x{1/z" } else { "netmap:x}1/z" };
                    let next = if monitors[m].is_some() { None } else { Some(netmap.open(name)?) };
                    monitors[m] = next;
                }
                1 | 2 => {
                    let mut tx = a.tx(0);
                    for _ in 0..random.below(6) {
                        sent += u64::from(tx.send(&frame(sent)));
                    }
                    tx.sync()?;
                }
                3..6 => {
                    b.rxsync()?;
                    let count = random.below(6) as u32;
                    b.rx(0).drain(count, |slot| {
                        assert_eq!(slot.payload().load_u64(14), Some(received), "seed {seed}");
                        received += 1;
                        true
                    });
                    if random.below(2) == 0 {
                        b.rxsync()?;
                    }
                }
                _ => {
                    if let Some(port) = &mut monitors[m] {
                        port.rxsync()?;
                        port.rx(0).release(random.below(20) as u32);
                    }
                }
            }
        }
        assert!(received > 100, "seed {seed}: only {received}");
    }
    Ok(())
}
