//! Network interfaces through the broker: veth pairs between namespaces of their own.
#![forbid(unsafe_code)]

use ringway::{Csb, Errno, Interest, LoopConfig, Netmap, Port, RingEvents, SyncError};
use ringway_e2e::ns::{Ns, Pair};
use ringway_e2e::udp::{exchange, udp_frame, udp_payload};
use ringway_e2e::{TestBroker, root_or_skip};
use ringway_os::bpf::{XdpProgram, XskMap};
use rustix::event::{EventfdFlags, eventfd};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// One test at a time: they look at how long things take.
static LOCK: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn start(test: &str, queues: u32) -> Option<(std::sync::MutexGuard<'static, ()>, Pair, TestBroker)> {
    let guard = LOCK.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !root_or_skip(test) {
        return None;
    }
    let pair = Pair::new(test, queues)?;
    let broker = TestBroker::start("");
    Some((guard, pair, broker))
}

/// The broker sees a closed port a moment later.
fn wait_for_no_program(pair: &Pair) {
    let end = Instant::now() + Duration::from_secs(1);
    while pair.xdp_on_a() != "" {
        assert!(Instant::now() < end, "{}", pair.xdp_on_a());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn errno_of(result: Result<Port, ringway::OpenError>) -> (Errno, String) {
    match result {
        Ok(port) => panic!("{} opened", port.name()),
        Err(e) => (e.errno(), e.to_string()),
    }
}

#[test]
fn datagrams_arrive_whole_both_ways_in_every_mode() {
    let Some((_guard, pair, mut broker)) = start("datagrams_arrive_whole_both_ways_in_every_mode", 1) else {
        return;
    };
    for (name, path) in [
        ("netmap:va", "xdp native copy"),
        ("netmap:va@mode=copy", "xdp native copy"),
        ("netmap:va@mode=generic", "xdp generic"),
        ("netmap:va@mode=packet", "af_packet"),
    ] {
        pair.a.run(|| {
            let start = Instant::now();
            let mut port = broker.netmap().open(name).unwrap();
            println!("{name}: opened in {:?}", start.elapsed());
            assert_eq!(port.nic_path(), Some(path));
            let listed = broker.json(&["ports"]);
            assert_eq!((&listed[0]["name"], &listed[0]["mode"]), (&"va".into(), &path.into()));
            exchange(&pair, &mut port, 300);
            let c = port.counters();
            assert!(c.tx.packets == 300 && c.tx.all_drops() == 0 && c.rx.packets >= 300, "{c:?}");
        });
        wait_for_no_program(&pair);
    }
    let (errno, text) = pair.a.run(|| errno_of(broker.netmap().open("netmap:va@mode=zerocopy")));
    assert_eq!(errno, Errno::EOPNOTSUPP, "{text}");
    let (errno, text) = pair.a.run(|| errno_of(broker.netmap().open("netmap:nosuch")));
    assert_eq!(errno, Errno::ENXIO, "{text}");
    let (errno, text) = pair.a.run(|| errno_of(broker.netmap().open("netmap:va^")));
    assert!(errno == Errno::EOPNOTSUPP && text.contains("host rings"), "{text}");
    broker.restart("[tunables]\nadmode = 2");
    pair.a.run(|| assert_eq!(broker.netmap().open("netmap:va").unwrap().nic_path(), Some("xdp generic")));
    broker.restart("[tunables]\ngeneric_ringsize = 0");
    let (errno, text) = pair.a.run(|| errno_of(broker.netmap().open("netmap:va")));
    assert!(errno == Errno::EINVAL && text.contains("generic_ringsize"), "{text}");
}

#[test]
fn each_frame_is_received_or_counted_as_lost_once() {
    let Some((_guard, pair, broker)) = start("each_frame_is_received_or_counted_as_lost_once", 1) else {
        return;
    };
    // A packet socket has more room than a ring.
    for (name, frames) in
        [("netmap:va", 4000), ("netmap:va@mode=generic", 4000), ("netmap:va@mode=packet", 20_000)]
    {
        pair.a.run(|| {
            // It looks at nothing before all are sent.
            let mut port = broker.netmap().open(name).unwrap();
            pair.b.run(|| {
                let mut from = broker.netmap().open("netmap:vb@mode=copy").unwrap();
                let frame = udp_frame(7000, &[7; 1000]);
                let mut sent = 0;
                while sent < frames {
                    // Few at a time: what the pair itself has no room for nobody counts.
                    sent += (0..32).filter(|_| from.tx(0).send(&frame)).count() as u64;
                    while from.tx(0).pending() > 0 {
                        from.txsync().unwrap();
                    }
                }
            });
            let mut got = 0;
            let end = Instant::now() + Duration::from_secs(20);
            let (mut drops, mut all) = (0, 0);
            while all < frames {
                assert!(Instant::now() < end, "{name}: {got} received, {drops} lost");
                if port.wait(Interest::RX, Some(Duration::from_millis(50))).unwrap().rx {
                    port.rx(0).drain(u32::MAX, |slot| {
                        got += u64::from(slot.len() > 1000);
                        true
                    });
                }
                drops = port.counters().rx.all_drops();
                all = got + drops;
            }
            let listed = broker.json(&["ports"]);
            let rx = &listed.as_array().unwrap().iter().find(|p| p["name"] == "va").unwrap()["rx"];
            let counted: u64 = rx["drops"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
            println!("{name}: {got} received, {drops} lost: {rx}");
            // The hosts speak a few words of their own.
            assert!((frames..frames + 100).contains(&(got + drops)), "{name}: {got} and {drops}");
            assert!((drops..drops + 100).contains(&counted), "{name}: {drops}, listed {rx}");
            assert!(drops > 0, "{name}: the ring has no room for so many");
        });
        wait_for_no_program(&pair);
    }
}

#[test]
fn a_sleeping_receiver_is_woken_by_a_frame() {
    let Some((_guard, pair, broker)) = start("a_sleeping_receiver_is_woken_by_a_frame", 1) else { return };
    for name in ["netmap:va", "netmap:va@mode=packet"] {
        pair.a.run(|| {
            let mut port = broker.netmap().open(name).unwrap();
            while port.wait(Interest::RX, Some(Duration::from_millis(50))).unwrap().rx {
                port.rx(0).drain(u32::MAX, |_| true);
            }
            for i in 0..20 {
                std::thread::scope(|s| {
                    s.spawn(|| {
                        std::thread::sleep(Duration::from_millis(20));
                        let socket = pair.b.run(|| UdpSocket::bind("10.77.0.2:0").unwrap());
                        socket.send_to(b"wake up", "10.77.0.1:9000").unwrap();
                    });
                    let begin = Instant::now();
                    assert!(port.wait(Interest::RX, Some(Duration::from_secs(3))).unwrap().rx, "{name} {i}");
                    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
                    port.rx(0).drain(u32::MAX, |_| true);
                    port.rxsync().unwrap();
                });
            }
            // A full ring of frames to send goes out although its owner only waits for room.
            let frame = udp_frame(7000, &[7; 100]);
            let mut sent = 0;
            while sent < 20_000 {
                while port.tx(0).send(&frame) {
                    sent += 1;
                }
                assert!(
                    port.wait(Interest::TX, Some(Duration::from_secs(2))).unwrap().tx,
                    "{name}: no room, {sent}"
                );
            }
        });
    }
}

#[test]
fn a_sync_loop_that_sleeps_is_woken_by_a_frame() {
    let Some((_guard, pair, broker)) = start("a_sync_loop_that_sleeps_is_woken_by_a_frame", 1) else {
        return;
    };
    pair.a.run(|| {
        let mut port = broker.netmap().open("netmap:va").unwrap();
        let csb = Csb::create(2).unwrap().0;
        port.enter_csb(&csb).unwrap();
        let event = || Some(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        let rings: Vec<_> = (0..2).map(|_| RingEvents { kick: event(), notify: event() }).collect();
        let kick = rings[1].kick.as_ref().unwrap().try_clone().unwrap();
        let config = LoopConfig { events: rings, ..LoopConfig::default() };
        let stopper = port.loop_stopper();
        std::thread::scope(|s| {
            let running = s.spawn(|| port.run_csb_loop(&csb, config));
            let socket = pair.b.run(|| UdpSocket::bind("10.77.0.2:0").unwrap());
            let tail = || csb.kern()[1].positions().1;
            let late = (0..20).find(|_| {
                // Time to fall asleep, and to take what the hosts say of themselves.
                std::thread::sleep(Duration::from_millis(20));
                let before = tail();
                csb.app()[1].publish(before, before);
                rustix::io::write(&kick, &1_u64.to_ne_bytes()).unwrap();
                std::thread::sleep(Duration::from_millis(20));
                let (begin, before) = (Instant::now(), tail());
                socket.send_to(b"wake up", "10.77.0.1:9000").unwrap();
                // The loop itself looks after three seconds.
                while tail() == before && begin.elapsed() < Duration::from_secs(1) {
                    std::thread::yield_now();
                }
                tail() == before
            });
            stopper.stop();
            assert_eq!(running.join().unwrap(), Ok(()));
            assert_eq!(late, None, "a frame that woke nobody");
        });
    });
}

#[test]
fn one_queue_leaves_the_others_to_the_host() {
    let Some((_guard, pair, broker)) = start("one_queue_leaves_the_others_to_the_host", 2) else { return };
    pair.a.run(|| {
        let host = UdpSocket::bind("10.77.0.1:9000").unwrap();
        host.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut port = broker.netmap().open("netmap:va-1").unwrap();
        assert_eq!((port.geometry().rx_rings, port.bound_rings(ringway::Dir::Rx)), (2, 1..2));
        for flow in 0..64 {
            let socket = pair.b.run(|| UdpSocket::bind(("10.77.0.2", 7100 + flow)).unwrap());
            socket.send_to(&flow.to_be_bytes(), "10.77.0.1:9000").unwrap();
        }
        let mut buf = [0; 100];
        let mut to_host = 0;
        while host.recv(&mut buf).is_ok() {
            to_host += 1;
        }
        port.rxsync().unwrap();
        let mut to_us = 0;
        port.rx(0).drain(u32::MAX, |slot| {
            to_us += u32::from(udp_payload(&slot.payload().to_vec(), 9000).is_some());
            true
        });
        assert!(to_host > 0 && to_us > 0 && to_host + to_us == 64, "host {to_host}, ring {to_us}");
        // The other queue can be had by somebody else.
        let other = broker.netmap().open("netmap:va-0").unwrap();
        drop(port);
        assert_ne!(pair.xdp_on_a(), "");
        drop(other);
    });
    wait_for_no_program(&pair);
}

/// Two veth pairs, and a program between them that swaps buffers: the two hosts hear and see each other.
#[test]
fn a_bridge_of_two_interfaces_carries_ping_and_bulk_tcp() {
    const TEST: &str = "a_bridge_of_two_interfaces_carries_ping_and_bulk_tcp";
    let Some((_guard, pair, broker)) = start(TEST, 1) else { return };
    let Some(far) = Ns::new(TEST) else { return };
    pair.a.sh(&format!(
        "ip addr flush dev va; ip link add vc type veth peer name vd; ip link set vd netns {}",
        far.path()
    ));
    pair.a.sh("ip link set vc up");
    far.sh("ip addr add 10.77.0.1/24 dev vd; ip link set vd up; ethtool -K vd tx off");
    pair.b.sh("ethtool -K vb tx off; ip neigh flush all; ip neigh del 10.77.0.1 dev vb || true");
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        let bridge = s.spawn(|| {
            pair.a.run(|| {
                let mut ends = ["netmap:va", "netmap:vc"].map(|n| broker.netmap().open(n).unwrap());
                while !stop.load(Ordering::Relaxed) {
                    for i in 0..2 {
                        let [x, y] = &mut ends;
                        let (from, to) = if i == 0 { (x, y) } else { (y, x) };
                        from.rxsync().unwrap();
                        let (mut rx, mut tx) = (from.rx(0), to.tx(0));
                        let _ = tx.forward(&mut rx, u32::MAX).unwrap();
                        tx.sync().unwrap();
                    }
                    std::thread::yield_now();
                }
                ends.map(|p| p.counters())
            })
        });
        std::thread::sleep(Duration::from_millis(200));
        let ping = pair.b.try_sh("ping -c 5 -i 0.05 -W 2 10.77.0.1");
        let mut data = vec![0u8; 8 << 20];
        let mut x = 1u32;
        for b in &mut data {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *b = (x >> 24) as u8;
        }
        let listener = far.run(|| TcpListener::bind("10.77.0.1:80").unwrap());
        let data = &data;
        let got = s.spawn(move || {
            let mut out = vec![];
            listener.accept().unwrap().0.read_to_end(&mut out).unwrap();
            out
        });
        let begin = Instant::now();
        pair.b.run(|| TcpStream::connect("10.77.0.1:80").unwrap().write_all(data).unwrap());
        let got = got.join().unwrap();
        println!("8 MiB of TCP in {:?}", begin.elapsed());
        stop.store(true, Ordering::Relaxed);
        println!("{:?}", bridge.join().unwrap());
        assert!(ping.0, "{}", ping.1);
        assert!(got == *data, "{} of {} bytes, or others", got.len(), data.len());
    });
}

#[test]
fn an_interface_with_anothers_program_is_refused_and_the_program_named() {
    const TEST: &str = "an_interface_with_anothers_program_is_refused_and_the_program_named";
    let Some((_guard, pair, broker)) = start(TEST, 1) else { return };
    pair.a.run(|| {
        let map = XskMap::create(1).unwrap();
        let program = XdpProgram::redirect(&map).unwrap();
        let ifindex = ringway_os::link::index_of("va").unwrap();
        let link = program.attach(ifindex, ringway_os::link::XdpMode::Generic).unwrap();
        let (errno, text) = errno_of(broker.netmap().open("netmap:va"));
        assert!(errno == Errno::EBUSY && text.contains("ringway_xsk (id "), "{text}");
        drop(link);
        broker.netmap().open("netmap:va").unwrap();
    });
}

#[test]
fn interfaces_of_one_name_in_two_namespaces_are_two_ports() {
    const TEST: &str = "interfaces_of_one_name_in_two_namespaces_are_two_ports";
    let Some((_guard, pair, broker)) = start(TEST, 1) else { return };
    let Some(other) = Pair::new(TEST, 1) else { return };
    let mut first = pair.a.run(|| broker.netmap().open("netmap:va").unwrap());
    let mut second = other.a.run(|| broker.netmap().open("netmap:va").unwrap());
    assert_eq!(broker.json(&["ports"]).as_array().unwrap().len(), 2);
    assert_eq!(first.mem_id(), second.mem_id());
    exchange(&pair, &mut first, 50);
    exchange(&other, &mut second, 50);
}

#[test]
fn an_interface_that_changes_under_a_port_neither_hangs_nor_crashes_it() {
    const TEST: &str = "an_interface_that_changes_under_a_port_neither_hangs_nor_crashes_it";
    let Some((_guard, pair, broker)) = start(TEST, 1) else { return };
    for name in ["netmap:va", "netmap:va@mode=generic", "netmap:va@mode=packet"] {
        pair.a.run(|| {
            let mut port = broker.netmap().open(name).unwrap();
            exchange(&pair, &mut port, 20);
            // Down: nothing moves, nothing fails.
            pair.a.sh("ip link set va down");
            for _ in 0..10 {
                port.tx(0).send(&udp_frame(1, b"nobody hears this"));
                port.txsync().unwrap();
                port.rxsync().unwrap();
                assert!(!port.wait(Interest::RX, Some(Duration::from_millis(5))).unwrap().rx);
            }
            pair.a.sh("ip link set va up; ip neigh replace 10.77.0.2 lladdr 02:00:00:00:00:0b dev va nud permanent");
            std::thread::sleep(Duration::from_millis(300));
            exchange(&pair, &mut port, 20);
            let (_, text) = pair.a.try_sh("ip link set va mtu 1400");
            println!("{name}: MTU {text:?}");
            exchange(&pair, &mut port, 1);
            pair.a.try_sh("ip link set va mtu 1500");
            pair.a.sh("ip link set va name vz 2>/dev/null || { ip link set va down; ip link set va name vz; ip link set vz up; }");
            std::thread::sleep(Duration::from_millis(300));
            exchange(&pair, &mut port, 20);
            assert_eq!(broker.json(&["ports"])[0]["name"], "vz");
            pair.a.sh("ip link set vz down; ip link set vz name va; ip link set va up");
            std::thread::sleep(Duration::from_millis(100));
        });
    }
    // Deleted, while somebody sleeps.
    pair.a.run(|| {
        let mut port = broker.netmap().open("netmap:va").unwrap();
        while port.wait(Interest::RX, Some(Duration::from_millis(50))).unwrap().rx {
            port.rx(0).drain(u32::MAX, |_| true);
        }
        std::thread::scope(|s| {
            s.spawn(|| {
                std::thread::sleep(Duration::from_millis(100));
                pair.a.sh("ip link del va");
            });
            let begin = Instant::now();
            let mut result = port.wait(Interest::RX, Some(Duration::from_secs(5)));
            while matches!(result, Ok(r) if r.is_empty()) && begin.elapsed() < Duration::from_secs(4) {
                result = port.wait(Interest::RX, Some(Duration::from_secs(5)));
            }
            assert!(matches!(result, Err(SyncError::Stopped)), "{result:?}");
            assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
        });
        assert_eq!(port.txsync(), Err(SyncError::Stopped));
        assert_eq!(port.rxsync(), Err(SyncError::Stopped));
        let (errno, _) = errno_of(broker.netmap().open("netmap:va"));
        assert_eq!(errno, Errno::ENXIO);
    });
}

/// Runs `child` below as a process of its own: in namespace `a`, as user `uid`.
fn spawn_child(pair: &Pair, broker: &TestBroker, uid: u32, what: &str) -> Child {
    let program = broker.dir.path().join("nic-test");
    ringway_e2e::copy_program(&std::env::current_exe().unwrap(), &program);
    let mut command = broker.command_at(&program);
    command.args(["--exact", "child", "--nocapture"]).env("NIC_CHILD", what);
    command.uid(uid).gid(uid).stdin(Stdio::piped()).stdout(Stdio::piped());
    pair.a.run(|| command.spawn().unwrap())
}

/// Not a test: what a child process does.
#[test]
fn child() {
    let Some(what) = std::env::var_os("NIC_CHILD") else { return };
    let mut port = match Netmap::broker().open("netmap:va") {
        Ok(port) => port,
        Err(e) => {
            println!("child: {:?} {e}", e.errno());
            return;
        }
    };
    println!("child: open");
    if what == "echo" {
        // Sends every datagram back to where it came from, until none comes for a second.
        let mut echoed = 0;
        while port.wait(Interest::RX, Some(Duration::from_secs(1))).unwrap().rx {
            let mut frames = vec![];
            port.rx(0).drain(u32::MAX, |slot| {
                frames.extend(udp_payload(&slot.payload().to_vec(), 9000).map(<[u8]>::to_vec));
                true
            });
            for payload in frames {
                assert!(port.tx(0).send(&udp_frame(7000, &payload)));
                echoed += 1;
            }
            port.txsync().unwrap();
        }
        println!("child: echoed {echoed}");
    } else {
        // Works until it is killed.
        let frame = udp_frame(7000, &[1; 60]);
        loop {
            while port.tx(0).send(&frame) {}
            let synced = port.txsync().and_then(|()| port.rxsync());
            port.rx(0).drain(u32::MAX, |_| true);
            if let Err(e) = synced {
                println!("child: {e}");
                let _ = std::io::stdin().read(&mut [0]);
                return;
            }
        }
    }
}

fn say(child: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    while !line.contains("child: ") {
        line.clear();
        assert_ne!(child.read_line(&mut line).unwrap(), 0, "the child ended");
    }
    line.split_once("child: ").unwrap().1.trim().to_owned()
}

#[test]
fn an_unprivileged_process_works_without_the_broker() {
    const TEST: &str = "an_unprivileged_process_works_without_the_broker";
    let Some((_guard, pair, mut broker)) = start(TEST, 1) else { return };
    broker.restart("admit = \"all\"");
    let mut refused = spawn_child(&pair, &broker, 65534, "echo");
    let text = say(&mut BufReader::new(refused.stdout.take().unwrap()));
    assert!(text.contains("EACCES") || text.contains("Errno(13)"), "{text}");
    assert!(text.contains("[interfaces]"), "{text}");
    refused.wait().unwrap();
    broker.restart("admit = \"all\"\n[interfaces]\nusers = [65534]");
    let mut child = spawn_child(&pair, &broker, 65534, "echo");
    let mut out = BufReader::new(child.stdout.take().unwrap());
    assert_eq!(say(&mut out), "open");
    let socket = pair.b.run(|| UdpSocket::bind("10.77.0.2:7000").unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let before = broker.cpu_ns();
    let idle = broker.cpu_ns() - before;
    let mut buf = [0; 2000];
    let before = broker.cpu_ns();
    for i in 0..20_000u32 {
        socket.send_to(&i.to_be_bytes(), "10.77.0.1:9000").unwrap();
        let len = socket.recv(&mut buf).unwrap_or_else(|e| panic!("{i}: {e}"));
        assert_eq!(buf[..len], i.to_be_bytes());
    }
    let used = broker.cpu_ns() - before;
    println!("broker: {used} ns of CPU for 20000 echoes, {idle} for the question itself");
    assert!(used < 10 * idle + 2_000_000, "{used} ns, {idle} for nothing");
    assert_eq!(say(&mut out), "echoed 20000");
    child.wait().unwrap();
}

#[test]
fn what_is_killed_leaves_the_interface_as_it_was() {
    const TEST: &str = "what_is_killed_leaves_the_interface_as_it_was";
    let Some((_guard, pair, mut broker)) = start(TEST, 1) else { return };
    let before = pair.a.sh("ip -d link show va");
    let is_as_before = || {
        wait_for_no_program(&pair);
        assert_eq!(pair.a.sh("ip -d link show va"), before);
    };
    for i in 0..10 {
        let mut child = spawn_child(&pair, &broker, 0, "work");
        let mut out = BufReader::new(child.stdout.take().unwrap());
        assert_eq!(say(&mut out), "open", "{i}");
        std::thread::sleep(Duration::from_millis(10 + 7 * i));
        child.kill().unwrap();
        child.wait().unwrap();
        is_as_before();
    }
    // The broker: the next one finds the queue free once the survivor has seen it.
    for i in 0..5 {
        let mut child = spawn_child(&pair, &broker, 0, "work");
        let mut out = BufReader::new(child.stdout.take().unwrap());
        assert_eq!(say(&mut out), "open", "{i}");
        std::thread::sleep(Duration::from_millis(10 + 7 * i));
        broker.kill();
        is_as_before();
        assert!(say(&mut out).contains("broker"), "{i}");
        broker.restart("");
        pair.a.run(|| {
            let mut port = broker.netmap().open("netmap:va").unwrap();
            exchange(&pair, &mut port, 20);
        });
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}

/// Buffers neither leak nor come twice over many openings, while another port keeps the region.
#[test]
fn buffers_return_to_a_region_that_lives_on() {
    const TEST: &str = "buffers_return_to_a_region_that_lives_on";
    let Some((_guard, pair, mut broker)) = start(TEST, 1) else { return };
    let Some(other) = Pair::new(TEST, 1) else { return };
    // Room for two ports, and a little more.
    broker.restart("[tunables]\nbuf_num = 4160");
    let mut keeper = other.a.run(|| broker.netmap().open("netmap:va").unwrap());
    for i in 0..25 {
        let mut port =
            pair.a.run(|| broker.netmap().open("netmap:va").unwrap_or_else(|e| panic!("{i}: {e}")));
        exchange(&pair, &mut port, 100);
        // Some frames stay where they are.
        let socket = pair.b.run(|| UdpSocket::bind("10.77.0.2:0").unwrap());
        for _ in 0..40 {
            socket.send_to(b"left behind", "10.77.0.1:9000").unwrap();
        }
        if i % 2 == 0 {
            port.rxsync().unwrap();
        }
    }
    exchange(&other, &mut keeper, 100);
}
