//! Monitors of network interfaces, through the real broker: what they see is what passed, and rings that change hands under traffic
//! lose and double nothing. Source: semantics.md 22.
#![forbid(unsafe_code)]

use ringway::{Broker, Errno, Interest, NS_MOREFRAG, NS_TXMON, Netmap, OpenError, Port, SyncError};
use ringway_e2e::ns::Pair;
use ringway_e2e::requests::{attach, detach};
use ringway_e2e::udp::exchange;
use ringway_e2e::{Peer, TestBroker, copy_program, eventually, root_or_skip};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One test at a time.
static LOCK: Mutex<()> = Mutex::new(());

const PEER: &str = env!("CARGO_BIN_EXE_e2e-peer");

fn start(test: &str, queues: u32) -> Option<(MutexGuard<'static, ()>, Pair, TestBroker)> {
    let guard = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    if !root_or_skip(test) {
        return None;
    }
    Some((guard, Pair::new(test, queues)?, TestBroker::start("")))
}

fn lease(broker: &TestBroker, name: &str) -> String {
    let ports = broker.ports();
    let found = ports.as_array().unwrap().iter().find(|p| p["name"] == name);
    found.unwrap_or_else(|| panic!("{name}: {ports}"))["lease"].as_str().unwrap().to_owned()
}

/// Every buffer has one owner, once nothing is on its way any more.
fn every_buffer_has_one_owner(broker: &TestBroker) {
    let mut audit = broker.audit();
    eventually("no buffer is on its way", || {
        audit = broker.audit();
        audit["regions"].as_array().unwrap().iter().all(|r| r["lost"] == 0)
    });
    for region in audit["regions"].as_array().unwrap() {
        assert_eq!((&region["twice"], &region["bad"]), (&0.into(), &0.into()), "{audit}");
    }
}

/// Numbered frames of an experimental protocol: the host takes no notice of them.
fn frame(seq: u64, len: usize) -> Vec<u8> {
    let mut f = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 9], &[0x88, 0xb5], &seq.to_ne_bytes()].concat();
    f.resize(len.max(60), seq as u8);
    f
}

fn number(bytes: &[u8]) -> Option<u64> {
    let is_ours = bytes.len() >= 60 && bytes[12..14] == [0x88, 0xb5];
    is_ours.then(|| u64::from_ne_bytes(bytes[14..22].try_into().unwrap()))
}

/// What a monitor has now: the frame's bytes, and whether it says that it was sent.
fn look(port: &mut Port) -> Vec<(Vec<u8>, bool)> {
    let mut out = vec![];
    for i in 0..port.rx_rings() {
        let mut rx = port.rx(i);
        rx.sync().unwrap();
        rx.drain(u32::MAX, |slot| {
            let bytes = slot.payload().to_vec();
            if number(&bytes).is_some() {
                out.push((bytes, slot.flags() & NS_TXMON != 0));
            }
            true
        });
        rx.sync().unwrap();
    }
    out
}

/// Sends frames, as many at a time as no ring can lose, and looks at each that arrives. `seq` is the next number.
fn stream(from: &mut Port, to: &mut Port, seq: &mut u64, bursts: u64) {
    for _ in 0..bursts {
        let first = *seq;
        for i in first..first + 64 {
            let end = Instant::now() + Duration::from_secs(5);
            while !from.tx(0).send(&frame(i, 60 + (i as usize * 37) % 1400)) {
                from.txsync().unwrap();
                assert!(Instant::now() < end, "no room for {i}");
            }
        }
        from.txsync().unwrap();
        let end = Instant::now() + Duration::from_secs(5);
        while *seq < first + 64 {
            assert!(Instant::now() < end, "frame {seq} is missing");
            to.wait(Interest::RX, Some(Duration::from_millis(100))).unwrap();
            for i in 0..to.rx_rings() {
                to.rx(i).drain(u32::MAX, |slot| {
                    let bytes = slot.payload().to_vec();
                    if let Some(n) = number(&bytes) {
                        assert_eq!(n, *seq, "lost, doubled, or out of order");
                        assert_eq!(bytes, frame(n, 60 + (n as usize * 37) % 1400));
                        *seq += 1;
                    }
                    true
                });
            }
        }
    }
}

fn numbers(from: u64, to: u64, is_tx: bool) -> Vec<(Vec<u8>, bool)> {
    (from..to).map(|i| (frame(i, 60 + (i as usize * 37) % 1400), is_tx)).collect()
}

/// A program on each end of a veth pair, and copy monitors of one of them.
#[test]
fn copy_monitors_see_what_passes_byte_for_byte() {
    const TEST: &str = "copy_monitors_see_what_passes_byte_for_byte";
    for (mode, queues) in [("copy", 1), ("generic", 1), ("packet", 1), ("copy", 2)] {
        let Some((_guard, pair, broker)) = start(TEST, queues) else { return };
        let netmap = broker.netmap();
        let own = format!("netmap:va@mode={mode}");
        let open = |name: &str| pair.a.run(|| netmap.open(name).unwrap_or_else(|e| panic!("{name}: {e}")));
        let mut a = open(&own);
        let mut b = pair.b.run(|| netmap.open(&format!("netmap:vb@mode={mode}")).unwrap());
        let mut seq = 0;
        stream(&mut a, &mut b, &mut seq, 3);
        stream(&mut b, &mut a, &mut seq, 3);
        let (mut t, mut r, mut rt) = (open("netmap:va/t"), open("netmap:va/r"), open("netmap:va/rt"));
        assert_eq!((t.name(), r.name(), rt.name()), ("va/t#0", "va/r#1", "va/rt#2"));
        assert_eq!(t.rx_rings(), queues as usize);
        assert_eq!((lease(&broker, "va"), lease(&broker, "vb")), ("brokered".into(), "direct".into()));
        for _ in 0..10 {
            let (first, before) = (seq, a.rx(0).timestamp());
            stream(&mut a, &mut b, &mut seq, 2);
            let middle = seq;
            stream(&mut b, &mut a, &mut seq, 2);
            assert!(a.rx(0).timestamp() > before, "rings are stamped whoever serves them");
            let sent = numbers(first, middle, true);
            let came = numbers(middle, seq, false);
            assert_eq!((look(&mut t), look(&mut r)), (sent.clone(), came.clone()), "{mode}");
            assert_eq!(look(&mut rt), [sent, came].concat(), "{mode}");
        }
        // What arrives is seen although the program looks at nothing.
        let first = seq;
        (0..20)
            .for_each(|i| assert!(b.tx(0).send(&frame(first + i, 60 + ((first + i) as usize * 37) % 1400))));
        b.txsync().unwrap();
        let mut seen = vec![];
        eventually("unread frames are seen", || {
            seen.extend(look(&mut r));
            seen.len() == 20
        });
        assert_eq!(seen, numbers(first, first + 20, false));
        drop((t, r, rt));
        eventually("the interface is direct again", || lease(&broker, "va") == "direct");
        while seq < first + 20 {
            assert!(a.wait(Interest::RX, Some(Duration::from_secs(1))).unwrap().rx, "{mode}: {seq}");
            a.rx(0).drain(u32::MAX, |slot| {
                if let Some(n) = number(&slot.payload().to_vec()) {
                    assert_eq!(n, seq);
                    seq += 1;
                }
                true
            });
        }
        stream(&mut a, &mut b, &mut seq, 3);
        stream(&mut b, &mut a, &mut seq, 3);
        drop(b);
        a.rxsync().unwrap();
        every_buffer_has_one_owner(&broker);
    }
}

#[test]
fn zero_copy_monitors_take_the_buffers_of_what_passed() {
    const TEST: &str = "zero_copy_monitors_take_the_buffers_of_what_passed";
    for mode in ["copy", "generic", "packet"] {
        let Some((_guard, pair, broker)) = start(TEST, 1) else { return };
        let netmap = broker.netmap();
        let open = |name: &str| pair.a.run(|| netmap.open(name).unwrap_or_else(|e| panic!("{name}: {e}")));
        let mut a = open(&format!("netmap:va@mode={mode}"));
        let mut b = pair.b.run(|| netmap.open(&format!("netmap:vb@mode={mode}")).unwrap());
        let (mut z, mut chained, mut copy) = (open("netmap:va/z"), open("netmap:va/z"), open("netmap:va/rt"));
        assert_eq!((z.mem_id(), z.name()), (a.mem_id(), "va/zrt#0"));
        let mut seq = 0;
        for _ in 0..10 {
            let first = seq;
            stream(&mut a, &mut b, &mut seq, 2);
            let middle = seq;
            stream(&mut b, &mut a, &mut seq, 2);
            // Seen when the program's next syncs find the slots sent, or release them.
            let wanted = [numbers(first, middle, true), numbers(middle, seq, false)].concat();
            let (mut seen, mut after) = (vec![], vec![]);
            eventually("both of the chain have seen all", || {
                a.txsync().unwrap();
                a.rxsync().unwrap();
                seen.extend(look(&mut z));
                after.extend(look(&mut chained));
                after.len() >= wanted.len()
            });
            let copied = look(&mut copy);
            assert_eq!(copied, wanted, "{mode}");
            seen.sort_by_key(|(bytes, _)| number(bytes));
            after.sort_by_key(|(bytes, _)| number(bytes));
            assert_eq!((&seen, &after), (&wanted, &wanted), "{mode}");
        }
        every_buffer_has_one_owner(&broker);
        drop((z, chained, copy));
        stream(&mut a, &mut b, &mut seq, 3);
        stream(&mut b, &mut a, &mut seq, 3);
        drop(b);
        a.rxsync().unwrap();
        every_buffer_has_one_owner(&broker);
    }
}

/// What a zero-copy monitor has now, slot by slot: bytes, and whether the frame goes on.
fn slots(port: &mut Port) -> Vec<(Vec<u8>, bool)> {
    let mut out = vec![];
    port.rxsync().unwrap();
    port.rx(0).drain(u32::MAX, |slot| {
        assert!(slot.flags() & NS_TXMON != 0, "nothing is received here");
        out.push((slot.payload().to_vec(), slot.flags() & NS_MOREFRAG != 0));
        true
    });
    port.rxsync().unwrap();
    out
}

/// Frames of several slots, and between them some that cannot be sent, which come back before the others.
#[test]
fn s22_zero_copy_monitors_see_which_slots_make_a_frame() {
    const TEST: &str = "s22_zero_copy_monitors_see_which_slots_make_a_frame";
    for mode in ["copy", "generic"] {
        let Some((_guard, pair, broker)) = start(TEST, 1) else { return };
        let netmap = broker.netmap();
        let open = |name: &str| pair.a.run(|| netmap.open(name).unwrap_or_else(|e| panic!("{name}: {e}")));
        let mut a = open(&format!("netmap:va@mode={mode}"));
        let mut b = pair.b.run(|| netmap.open(&format!("netmap:vb@mode={mode}")).unwrap());
        let mut z = open("netmap:va/z");
        let mut seq = 0;
        for round in 0..40u64 {
            // Lengths of the slots of each frame.
            let frames: [&[usize]; 5] = [&[60], &[400, 300, 17], &[13], &[80 + round as usize, 90], &[61]];
            let (mut good, mut bad, mut whole) = (vec![], vec![], vec![]);
            let mut k = 0;
            for lens in frames {
                let bytes = frame(seq, lens.iter().sum::<usize>())[..lens.iter().sum()].to_vec();
                seq += 1;
                let mut rest = &bytes[..];
                for (i, len) in lens.iter().enumerate() {
                    let (part, more) = (&rest[..*len], i + 1 < lens.len());
                    rest = &rest[*len..];
                    let tx = a.tx(0);
                    let slot = tx.slot(k).unwrap();
                    slot.payload().copy_from(part);
                    slot.set(*len as u16, if more { NS_MOREFRAG } else { 0 });
                    k += 1;
                    let seen = if lens[0] < 14 { &mut bad } else { &mut good };
                    seen.push((part.to_vec(), more));
                }
                if bytes.len() > 13 {
                    whole.push(bytes);
                }
            }
            assert_eq!(a.tx(0).advance(k), k);
            let mut seen = vec![];
            eventually("all slots are seen", || {
                a.txsync().unwrap();
                seen.extend(slots(&mut z));
                seen.len() >= good.len() + bad.len()
            });
            seen.sort_by_key(|(bytes, _)| bytes.len() != 13);
            assert_eq!(seen, [bad, good].concat(), "{mode}, round {round}");
            let mut came = vec![];
            eventually("they arrive", || {
                b.rxsync().unwrap();
                b.rx(0).drain(u32::MAX, |slot| {
                    came.push(slot.payload().to_vec());
                    true
                });
                came.len() >= whole.len()
            });
            assert_eq!(came, whole, "{mode}, round {round}");
        }
        drop((z, b));
        a.txsync().unwrap();
        every_buffer_has_one_owner(&broker);
    }
}

/// Rings change hands under a stream both ways.
#[test]
fn monitors_that_come_and_go_disturb_no_stream() {
    const TEST: &str = "monitors_that_come_and_go_disturb_no_stream";
    for mode in ["copy", "packet"] {
        let Some((_guard, pair, broker)) = start(TEST, 1) else { return };
        let netmap = broker.netmap();
        let mut a = pair.a.run(|| netmap.open(&format!("netmap:va@mode={mode}")).unwrap());
        let mut b = pair.b.run(|| netmap.open(&format!("netmap:vb@mode={mode}")).unwrap());
        let stop = AtomicBool::new(false);
        std::thread::scope(|s| {
            let churns: Vec<_> = ["netmap:va/rt", "netmap:va/z", "netmap:va/r"]
                .map(|name| {
                    let (pair, netmap, stop) = (&pair, netmap.clone(), &stop);
                    s.spawn(move || pair.a.run(|| churn(&netmap, name, stop)))
                })
                .into();
            let mut seq = 0;
            for _ in 0..60 {
                stream(&mut a, &mut b, &mut seq, 5);
                stream(&mut b, &mut a, &mut seq, 5);
            }
            stop.store(true, Ordering::Relaxed);
            let opens: Vec<u32> = churns.into_iter().map(|c| c.join().unwrap()).collect();
            println!("{mode}: {seq} frames, monitors were opened {opens:?} times");
            assert!(opens.iter().all(|n| *n > 5), "{opens:?}");
        });
        eventually("it is direct again", || lease(&broker, "va") == "direct");
        let c = a.counters();
        assert_eq!((c.tx.all_drops(), c.rx.all_drops()), (0, 0), "{c:?}");
        drop(b);
        a.rxsync().unwrap();
        every_buffer_has_one_owner(&broker);
    }
}

/// Opens a monitor and closes it, until told to stop. Says how often.
fn churn(netmap: &Netmap, name: &str, stop: &AtomicBool) -> u32 {
    let mut opens = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut monitor = netmap.open(name).unwrap();
        opens += 1;
        for _ in 0..opens % 5 {
            look(&mut monitor);
        }
    }
    opens
}

#[test]
fn sleepers_are_woken_while_the_broker_serves_the_interface() {
    const TEST: &str = "sleepers_are_woken_while_the_broker_serves_the_interface";
    let Some((_guard, pair, broker)) = start(TEST, 1) else { return };
    let netmap = broker.netmap();
    for mode in ["copy", "packet"] {
        let mut a = pair.a.run(|| netmap.open(&format!("netmap:va@mode={mode}")).unwrap());
        let mut b = pair.b.run(|| netmap.open(&format!("netmap:vb@mode={mode}")).unwrap());
        let mut monitor = pair.a.run(|| netmap.open("netmap:va/r").unwrap());
        for who in 0..20 {
            let sleeper = if who % 2 == 0 { &mut a } else { &mut monitor };
            while sleeper.wait(Interest::RX, Some(Duration::from_millis(20))).unwrap().rx {
                sleeper.rx(0).drain(u32::MAX, |_| true);
            }
            let begin = Instant::now();
            std::thread::scope(|s| {
                s.spawn(|| {
                    std::thread::sleep(Duration::from_millis(20));
                    b.tx(0).send(&frame(who, 60));
                    b.txsync().unwrap();
                });
                assert!(sleeper.wait(Interest::RX, Some(Duration::from_secs(3))).unwrap().rx, "{mode} {who}");
            });
            assert!(begin.elapsed() < Duration::from_secs(1), "{mode} {who}: {:?}", begin.elapsed());
        }
        // A full ring of frames goes out although its owner only waits for room.
        let mut sent = 0;
        while sent < 5_000 {
            while a.tx(0).send(&frame(sent, 60)) {
                sent += 1;
            }
            assert!(
                a.wait(Interest::TX, Some(Duration::from_secs(2))).unwrap().tx,
                "{mode}: no room, {sent}"
            );
            b.rxsync().unwrap();
            b.rx(0).drain(u32::MAX, |_| true);
        }
    }
}

#[test]
fn whoever_dies_or_stands_still_the_others_go_on() {
    const TEST: &str = "whoever_dies_or_stands_still_the_others_go_on";
    let Some((_guard, pair, broker)) = start(TEST, 1) else { return };
    let netmap = broker.netmap();
    let peer = |role: &str, name: &str| {
        let mut c = broker.command_at(Path::new(PEER));
        c.args([role, name]);
        pair.a.run(|| Peer::start(c).unwrap_or_else(|e| panic!("{role} {name}: {e}")))
    };
    let mut b = pair.b.run(|| netmap.open("netmap:vb").unwrap());
    {
        // Monitors that are killed.
        let mut a = pair.a.run(|| netmap.open("netmap:va").unwrap());
        let mut seq = 0;
        for round in 0..30 {
            let mut monitor = peer("monitor", ["netmap:va/rt", "netmap:va/z", "netmap:va/r"][round % 3]);
            stream(&mut a, &mut b, &mut seq, 2);
            stream(&mut b, &mut a, &mut seq, 2);
            monitor.kill();
            stream(&mut a, &mut b, &mut seq, 1);
            stream(&mut b, &mut a, &mut seq, 1);
        }
        every_buffer_has_one_owner(&broker);
    }
    // The owner is killed under a monitor, which sees no more; the interface is the next one's.
    for round in 0..10 {
        let mut owner = peer("tx", "netmap:va");
        let mut monitor = pair.a.run(|| netmap.open("netmap:va/rt").unwrap());
        if round % 2 == 0 {
            eventually("the monitor sees something", || !look_any(&mut monitor));
        }
        owner.kill();
        eventually("the monitor is told", || matches!(monitor.rxsync(), Err(SyncError::Stopped)));
        let refused = pair.a.run(|| netmap.open("netmap:va/t")).unwrap_err();
        assert!(matches!(refused, OpenError::Refused { errno: Errno::EINVAL, .. }), "{refused}");
        let mut next = pair.a.run(|| netmap.open("netmap:va").unwrap());
        let mut seq = 0;
        b.rxsync().unwrap();
        b.rx(0).drain(u32::MAX, |_| true);
        b.rxsync().unwrap();
        stream(&mut next, &mut b, &mut seq, 2);
        stream(&mut b, &mut next, &mut seq, 2);
    }
    // The owner stands still, perhaps in the middle of a sync, while monitors come and go, and goes on afterwards.
    let mut owner = peer("tx", "netmap:va");
    for _ in 0..20 {
        owner.freeze();
        let began = Instant::now();
        let monitor = pair.a.run(|| netmap.open("netmap:va/t").unwrap());
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        drop(monitor);
        owner.thaw();
        let before = b.counters().rx.packets;
        eventually("it goes on", || {
            b.rxsync().unwrap();
            b.rx(0).drain(u32::MAX, |_| true);
            b.counters().rx.packets > before + 100
        });
    }
    assert!(owner.line_within(Duration::ZERO).is_none(), "it has not failed");
    assert!(owner.finish()[0] > 0);
    drop(b);
    every_buffer_has_one_owner(&broker);
}

/// True if the monitor has nothing.
fn look_any(monitor: &mut Port) -> bool {
    monitor.rxsync().unwrap();
    let mut rx = monitor.rx(0);
    rx.drain(u32::MAX, |_| true) == 0
}

#[test]
fn monitors_of_an_attached_interface_see_both_sides() {
    const TEST: &str = "monitors_of_an_attached_interface_see_both_sides";
    for polled in [false, true] {
        let Some((_guard, pair, test_broker)) = start(TEST, 1) else { return };
        let netmap = test_broker.netmap();
        pair.a.run(|| {
            let broker = Broker::at(&test_broker.socket()).unwrap();
            attach(&broker, "vale0:va").unwrap();
            if polled {
                let single = ringway_abi::NETMAP_POLLING_MODE_SINGLE_CPU;
                ringway_e2e::requests::poll(&broker, "vale0:va", single, 0, 1).unwrap();
            }
            let mut p = netmap.open("vale0:p").unwrap();
            let mut own = netmap.open("netmap:va/rt").unwrap();
            let mut other = netmap.open("vale0:va/rt").unwrap();
            let mut zcopy = netmap.open("netmap:va/z").unwrap();
            let mut zcopy_other = netmap.open("vale0:va/z").unwrap();
            let mut b = pair.b.run(|| netmap.open("netmap:vb").unwrap());
            let mut seq = 0;
            for _ in 0..10 {
                let first = seq;
                stream(&mut p, &mut b, &mut seq, 2);
                let middle = seq;
                stream(&mut b, &mut p, &mut seq, 2);
                let out = |is_tx| numbers(first, middle, is_tx);
                let came = |is_tx| numbers(middle, seq, is_tx);
                // By the switch's name the directions are those of a port there: what goes out on the interface is received.
                for (monitor, wanted) in [
                    (&mut own, [out(true), came(false)].concat()),
                    (&mut other, [out(false), came(true)].concat()),
                    (&mut zcopy, [out(true), came(false)].concat()),
                    (&mut zcopy_other, [out(false), came(true)].concat()),
                ] {
                    let mut seen = vec![];
                    eventually("all is seen", || {
                        seen.extend(look(monitor));
                        seen.len() >= wanted.len()
                    });
                    seen.sort_by_key(|(bytes, _)| number(bytes));
                    assert_eq!(seen, wanted, "polled {polled}, {}", monitor.name());
                }
            }
            every_buffer_has_one_owner(&test_broker);
            drop((zcopy, zcopy_other));
            stream(&mut p, &mut b, &mut seq, 2);
            stream(&mut b, &mut p, &mut seq, 2);
            if polled {
                ringway_e2e::requests::end_polling(&broker, "vale0:va").unwrap();
            }
            detach(&broker, "vale0:va").unwrap();
            eventually("monitors are told", || {
                matches!(own.rxsync(), Err(SyncError::Stopped))
                    && matches!(other.rxsync(), Err(SyncError::Stopped))
            });
            let mut a = netmap.open("netmap:va").unwrap();
            drop((own, other, b));
            // The host has its end back when the broker has closed it.
            assert_eq!(test_broker.ports().as_array().unwrap().len(), 2);
            exchange(&pair, &mut a, 50);
        });
    }
}

#[test]
fn a_broker_that_is_killed_while_it_serves_an_interface() {
    const TEST: &str = "a_broker_that_is_killed_while_it_serves_an_interface";
    let Some((_guard, pair, mut broker)) = start(TEST, 1) else { return };
    for watch in ["netmap:va/rt", "netmap:va/z"] {
        let netmap = broker.netmap();
        let mut a = pair.a.run(|| netmap.open("netmap:va").unwrap());
        let mut b = pair.b.run(|| netmap.open("netmap:vb").unwrap());
        let mut monitor = pair.a.run(|| netmap.open(watch).unwrap());
        let mut seq = 0;
        stream(&mut a, &mut b, &mut seq, 2);
        broker.kill();
        let began = Instant::now();
        eventually("all hear of it", || {
            [&mut a, &mut b, &mut monitor].iter_mut().all(|p| p.txsync().and_then(|()| p.rxsync()).is_err())
        });
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        broker.restart("");
        // They hold nothing that the next one needs.
        let mut next = pair.a.run(|| broker.netmap().open("netmap:va").unwrap());
        exchange(&pair, &mut next, 20);
    }
}

#[test]
fn an_interface_that_is_deleted_while_it_is_watched() {
    const TEST: &str = "an_interface_that_is_deleted_while_it_is_watched";
    let Some((_guard, pair, broker)) = start(TEST, 1) else { return };
    let netmap = broker.netmap();
    let mut a = pair.a.run(|| netmap.open("netmap:va").unwrap());
    let mut monitors = ["netmap:va/rt", "netmap:va/z"].map(|n| pair.a.run(|| netmap.open(n).unwrap()));
    pair.a.sh("ip link del va");
    eventually("its owner is told", || a.wait(Interest::RX, Some(Duration::ZERO)) == Err(SyncError::Stopped));
    assert_eq!((a.txsync(), a.rxsync()), (Err(SyncError::Stopped), Err(SyncError::Stopped)));
    // Monitors have a parent still, in which nothing moves.
    for monitor in &mut monitors {
        assert!(look(monitor).is_empty());
    }
    drop(a);
    for monitor in &mut monitors {
        eventually("a monitor is told", || monitor.rxsync() == Err(SyncError::Stopped));
    }
    drop(monitors);
    eventually("all is gone", || broker.ports() == serde_json::json!([]));
}

#[test]
fn only_who_may_have_the_interface_may_watch_it() {
    const TEST: &str = "only_who_may_have_the_interface_may_watch_it";
    let Some((_guard, pair, mut broker)) = start(TEST, 2) else { return };
    broker.restart("admit = \"all\"\n[interfaces]\nusers = [1001, 1002]");
    let program = broker.dir.path().join("e2e-peer");
    copy_program(Path::new(PEER), &program);
    let start = |uid: u32, name: &str| {
        let mut c = broker.command_at(&program);
        c.args(["mute", name]).uid(uid).gid(uid);
        pair.a.run(|| Peer::start(c))
    };
    let idle = start(1001, "netmap:va/r").unwrap_err();
    assert!(idle.contains("nothing to monitor"), "{idle}");
    let _owner = start(1001, "netmap:va").unwrap();
    for (uid, why) in [(1002, "another user"), (1003, "[interfaces]")] {
        let refused = start(uid, "netmap:va/rt").unwrap_err();
        assert!(refused.contains(why), "{uid}: {refused}");
    }
    for name in ["netmap:va/rt", "netmap:va-1/z", "netmap:va-1/r"] {
        for uid in [1001, 0] {
            let monitor = start(uid, name);
            assert!(monitor.is_ok(), "{name} by {uid}: {monitor:?}");
        }
    }
    let host = start(1001, "netmap:va^/r").unwrap_err();
    assert!(host.contains("host rings"), "{host}");
}
