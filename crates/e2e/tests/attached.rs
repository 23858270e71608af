//! Network interfaces on a switch, through the real broker: veth pairs between namespaces of their own. Source: semantics.md 19,
//! 20; abi.md 9.3, 9.4, 9.9.
#![forbid(unsafe_code)]

use ringway::{Broker, Errno, Interest, OpenError};
use ringway_abi::{NR_REG_ALL_NIC, NR_REG_NIC_SW, NR_REG_ONE_NIC, nmreq_register};
use ringway_e2e::ns::{Ns, Pair};
use ringway_e2e::requests::{attach, attach_as, detach, end_polling, list, poll};
use ringway_e2e::udp::{exchange, udp_frame};
use ringway_e2e::{TestBroker, eventually, root_or_skip};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One test at a time: they look at how long things take.
static LOCK: Mutex<()> = Mutex::new(());

const SINGLE: u32 = ringway_abi::NETMAP_POLLING_MODE_SINGLE_CPU;
const MULTI: u32 = ringway_abi::NETMAP_POLLING_MODE_MULTI_CPU;

fn start(test: &str, queues: u32, config: &str) -> Option<(MutexGuard<'static, ()>, Pair, TestBroker)> {
    let guard = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    if !root_or_skip(test) {
        return None;
    }
    Some((guard, Pair::new(test, queues)?, TestBroker::start(config)))
}

fn errno_of<T>(result: Result<T, OpenError>) -> Errno {
    match result {
        Ok(_) => panic!("it was not refused"),
        Err(e) => e.errno(),
    }
}

fn find(broker: &TestBroker, name: &str) -> serde_json::Value {
    let ports = broker.ports();
    let found = ports.as_array().unwrap().iter().find(|p| p["name"] == name);
    found.unwrap_or_else(|| panic!("{name}: {ports}")).clone()
}

fn no_buffer_is_lost(broker: &TestBroker) {
    let audit = broker.audit();
    for region in audit["regions"].as_array().unwrap() {
        assert_eq!((&region["twice"], &region["bad"]), (&0.into(), &0.into()), "{audit}");
    }
}

/// Another veth pair: `vc` beside `va`, `vd` with 10.77.0.1 in a namespace of its own. Nobody knows addresses beforehand.
fn add_host(test: &str, pair: &Pair) -> Option<Ns> {
    let far = Ns::new(test)?;
    let links = "ip addr flush dev va; ip link add vc type veth peer name vd";
    pair.a.sh(&format!("{links}; ip link set vd netns {}", far.path()));
    pair.a.sh("ip link set vc up");
    far.sh("ip addr add 10.77.0.1/24 dev vd; ip link set vd up; ethtool -K vd tx off");
    pair.b.sh("ethtool -K vb tx off; ip neigh flush all; ip neigh del 10.77.0.1 dev vb || true");
    Some(far)
}

fn hosts_hear_each_other(pair: &Pair, far: &Ns, bytes: usize) {
    let ping = pair.b.try_sh("ping -c 5 -i 0.05 -W 2 10.77.0.1");
    assert!(ping.0, "{}", ping.1);
    let mut x = 1u32;
    let mut next = || {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (x >> 24) as u8
    };
    let data: Vec<u8> = (0..bytes).map(|_| next()).collect();
    for (from, to, address) in [(&pair.b, far, "10.77.0.1:80"), (far, &pair.b, "10.77.0.2:80")] {
        let listener = to.run(|| TcpListener::bind(address).unwrap());
        let got = std::thread::scope(|s| {
            let reader = s.spawn(move || {
                let mut out = vec![];
                listener.accept().unwrap().0.read_to_end(&mut out).unwrap();
                out
            });
            let begin = Instant::now();
            from.run(|| TcpStream::connect(address).unwrap().write_all(&data).unwrap());
            let got = reader.join().unwrap();
            println!("{bytes} bytes of TCP to {address} in {:?}", begin.elapsed());
            got
        });
        assert!(got == data, "{} of {} bytes, or others", got.len(), data.len());
    }
}

#[test]
fn two_hosts_talk_through_a_switch() {
    const TEST: &str = "two_hosts_talk_through_a_switch";
    let Some((_guard, pair, test_broker)) = start(TEST, 1, "") else { return };
    let Some(far) = add_host(TEST, &pair) else { return };
    let before = pair.a.sh("ip -d link show va; ip -d link show vc");
    pair.a.run(|| {
        let broker = Broker::at(&test_broker.socket()).unwrap();
        assert_eq!(attach(&broker, "vale0:va"), Ok(0));
        assert_eq!(attach(&broker, "vale0:vc"), Ok(1));
        assert_eq!(list(&broker), ["vale0:va", "vale0:vc"]);
        assert!(pair.xdp_on_a().contains("xdp"), "{}", pair.xdp_on_a());
    });
    hosts_hear_each_other(&pair, &far, 8 << 20);
    let listed = find(&test_broker, "vale0:va");
    assert_eq!((&listed["kind"], &listed["lease"]), (&"attached".into(), &"brokered".into()));
    assert!(listed["tx"]["packets"].as_u64() > Some(1000) && listed["rx"]["packets"].as_u64() > Some(1000));
    let nic = find(&test_broker, "va");
    assert_eq!((&nic["kind"], &nic["mode"]), (&"nic".into(), &"xdp native copy".into()));
    assert_eq!(nic["holders"][0]["pid"], test_broker.pid());
    // What a host sent came in on the interface, and went into the switch from there, or was dropped for a reason.
    eventually("all is counted", || {
        let (nic, port) = (find(&test_broker, "va"), find(&test_broker, "vale0:va"));
        nic["rx"]["packets"] == port["tx"]["packets"] && nic["tx"]["packets"] == port["rx"]["packets"]
    });
    no_buffer_is_lost(&test_broker);
    pair.a.run(|| {
        let broker = Broker::at(&test_broker.socket()).unwrap();
        assert_eq!(detach(&broker, "vale0:va"), Ok(0));
        assert_eq!(detach(&broker, "vale0:vc"), Ok(1));
        assert_eq!(list(&broker), [""; 0]);
    });
    assert_eq!(pair.a.sh("ip -d link show va; ip -d link show vc"), before);
    assert_eq!(test_broker.ports(), serde_json::json!([]));
}

#[test]
fn a_program_and_a_host_exchange_datagrams_over_a_switch() {
    const TEST: &str = "a_program_and_a_host_exchange_datagrams_over_a_switch";
    for (config, mode, queues) in
        [("", "xdp native copy", 1), ("", "xdp native copy", 3), ("[tunables]\nadmode = 2", "xdp generic", 1)]
    {
        let Some((_guard, pair, test_broker)) = start(TEST, queues, config) else { return };
        pair.a.run(|| {
            let broker = Broker::at(&test_broker.socket()).unwrap();
            let mut early = test_broker.netmap().open("vale0:early").unwrap();
            assert_eq!(attach(&broker, "vale0:va"), Ok(1));
            assert_eq!(find(&test_broker, "va")["mode"], mode);
            assert_eq!(find(&test_broker, "vale0:early")["lease"], "brokered");
            exchange(&pair, &mut early, 500);
            let mut late = test_broker.netmap().open("vale0:late").unwrap();
            // Whoever spoke last has the address.
            late.tx(0).send(&udp_frame(1, b"hello"));
            late.txsync().unwrap();
            exchange(&pair, &mut late, 500);
            let c = late.counters();
            assert_eq!(c.tx.packets + c.tx.extra_copies, c.tx.delivered + c.tx.all_drops());
            no_buffer_is_lost(&test_broker);
            // A frame wakes who sleeps on the switch.
            while early.wait(Interest::RX, Some(Duration::from_millis(20))).unwrap().rx {
                early.rx(0).drain(u32::MAX, |_| true);
            }
            std::thread::scope(|s| {
                s.spawn(|| pair.b.sh("sleep 0.1; ping -c 1 -W 1 10.77.0.1 || true"));
                let begin = Instant::now();
                // The program that spoke last is known to have the address: it hears of it, the other does not.
                assert!(late.wait(Interest::RX, Some(Duration::from_secs(5))).unwrap().rx);
                assert!(begin.elapsed() < Duration::from_secs(2));
            });
            assert_eq!(detach(&broker, "vale0:va"), Ok(1));
            eventually("the switch is direct again", || {
                find(&test_broker, "vale0:early")["lease"] == "direct"
            });
            early.tx(0).send(&[0xff; 60]);
            early.txsync().unwrap();
            assert!(late.wait(Interest::RX, Some(Duration::from_secs(1))).unwrap().rx);
        });
    }
}

#[test]
fn what_may_not_be_is_refused() {
    const TEST: &str = "what_may_not_be_is_refused";
    let Some((_guard, pair, mut test_broker)) = start(TEST, 1, "") else { return };
    pair.a.run(|| {
        let broker = Broker::at(&test_broker.socket()).unwrap();
        let netmap = test_broker.netmap();
        let with = |nr_mode, nr_ringid, nr_mem_id| nmreq_register {
            nr_mode,
            nr_ringid,
            nr_mem_id,
            ..Default::default()
        };
        for (name, reg, errno) in [
            ("vale0:nosuch", with(NR_REG_ALL_NIC, 0, 0), Errno::EINVAL),
            ("vale0:lo", with(NR_REG_ALL_NIC, 0, 0), Errno::EINVAL),
            ("va", with(NR_REG_ALL_NIC, 0, 0), Errno::EINVAL),
            ("vale-0:va", with(NR_REG_ALL_NIC, 0, 0), Errno::ENOMEM),
            ("vale0:va", with(0, 0, 0), Errno::EINVAL),
            ("vale0:va", with(NR_REG_ONE_NIC, 0, 0), Errno::EINVAL),
            ("vale0:va", with(NR_REG_ALL_NIC, 1, 0), Errno::EINVAL),
            ("vale0:va", with(NR_REG_ALL_NIC, 0, 99), Errno::EINVAL),
            ("vale0:va", with(NR_REG_NIC_SW, 0, 0), Errno::EOPNOTSUPP),
        ] {
            assert_eq!(attach_as(&broker, name, reg), Err(errno), "{name} {reg:?}");
            assert_eq!(
                (pair.xdp_on_a(), test_broker.ports()),
                (String::new(), serde_json::json!([])),
                "{name}"
            );
        }
        let open = netmap.open("netmap:va").unwrap();
        assert_eq!(attach(&broker, "vale0:va"), Err(Errno::EBUSY), "somebody has it open");
        drop(open);
        assert_eq!(attach(&broker, "vale0:va"), Ok(0));
        for name in ["netmap:va", "netmap:va-0", "vale0:va", "netmap:va{1", "vale0:va{1"] {
            assert_eq!(errno_of(netmap.open(name)), Errno::EBUSY, "{name}");
        }
        assert_eq!(attach(&broker, "vale0:va"), Err(Errno::EBUSY));
        assert_eq!(attach(&broker, "vale1:va"), Err(Errno::EBUSY), "on another switch");
        assert_eq!(detach(&broker, "vale0:nosuch"), Err(Errno::ENXIO));
        assert_eq!(detach(&broker, "vale1:va"), Err(Errno::ENXIO));
        assert_eq!(detach(&broker, "va"), Err(Errno::EINVAL));
        let mut late = netmap.open("vale0:p").unwrap();
        assert_eq!(detach(&broker, "vale0:p"), Err(Errno::EBUSY));
        exchange(&pair, &mut late, 20);
        assert_eq!(detach(&broker, "vale0:va"), Ok(0));
        // In memory that is there already.
        let reg = with(NR_REG_ALL_NIC, 0, late.mem_id());
        assert_eq!(attach_as(&broker, "vale1:va", reg), Ok(0));
        assert_eq!(find(&test_broker, "va")["mem_id"], late.mem_id());
        assert_eq!(detach(&broker, "vale1:va"), Ok(0));
        netmap.open("netmap:va").unwrap();
    });
    // Who may open interfaces is configuration; limits count what an attachment adds.
    test_broker.restart("admit = \"all\"");
    let args = ["vale", "attach", "vale0:va"];
    let ringway = |test_broker: &TestBroker, uid: u32| {
        use std::os::unix::process::CommandExt;
        let program = test_broker.dir.path().join("ringway");
        if !program.exists() {
            ringway_e2e::copy_program(&ringway_e2e::programs().join("ringway"), &program);
        }
        let mut c = test_broker.command_at(&program);
        c.args(args).uid(uid).gid(uid);
        let out = pair.a.run(|| c.output().unwrap());
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let (code, text) = ringway(&test_broker, 65534);
    assert!(code == Some(2) && text.contains("[interfaces]"), "{code:?} {text}");
    assert_eq!(ringway(&test_broker, 0), (Some(0), String::new()));
    test_broker.restart("[limits]\nports = 0");
    let (code, text) = ringway(&test_broker, 0);
    assert!(code == Some(2) && text.contains("limits.ports"), "{code:?} {text}");
}

#[test]
fn the_interface_is_as_before_whatever_ends_the_attachment() {
    const TEST: &str = "the_interface_is_as_before_whatever_ends_the_attachment";
    let Some((_guard, pair, mut test_broker)) = start(TEST, 2, "") else { return };
    let before = pair.a.sh("ip -d link show va");
    let is_as_before = || {
        eventually("no program on the interface", || pair.xdp_on_a().is_empty());
        assert_eq!(pair.a.sh("ip -d link show va"), before);
    };
    // Killed under traffic, and its successor finds the interface free.
    for round in 0..5 {
        pair.a.run(|| {
            assert_eq!(attach(&Broker::at(&test_broker.socket()).unwrap(), "vale0:va"), Ok(0));
            let mut p = test_broker.netmap().open("vale0:p").unwrap();
            exchange(&pair, &mut p, 40 + round);
        });
        test_broker.kill();
        is_as_before();
        test_broker.restart("");
    }
    pair.a.run(|| {
        let broker = Broker::at(&test_broker.socket()).unwrap();
        for _ in 0..10 {
            assert_eq!(attach(&broker, "vale0:va"), Ok(0));
            assert_eq!(detach(&broker, "vale0:va"), Ok(0));
            is_as_before();
        }
        // Whoever asked may end: the attachment stays.
        assert_eq!(attach(&broker, "vale0:va"), Ok(0));
        drop(broker);
        let mut p = test_broker.netmap().open("vale0:p").unwrap();
        exchange(&pair, &mut p, 50);
        // Down: nothing passes, nothing fails.
        pair.a.sh("ip link set va down");
        for _ in 0..20 {
            p.tx(0).send(&[0xff; 60]);
            p.txsync().unwrap();
            p.rxsync().unwrap();
        }
        pair.a.sh(
            "ip link set va up; ip neigh replace 10.77.0.2 lladdr 02:00:00:00:00:0b dev va nud permanent",
        );
        eventually("frames pass again", || {
            pair.b.try_sh("ping -c 1 -W 1 10.77.0.1");
            p.rxsync().unwrap();
            p.rx(0).drain(u32::MAX, |_| true) > 0
        });
        // What was sent while it was down goes out now, or was dropped and counted.
        exchange(&pair, &mut p, 50);
        pair.a.sh("ip link set va down; ip link set va name vz; ip link set vz up");
        let broker = Broker::at(&test_broker.socket()).unwrap();
        assert_eq!(list(&broker), ["vale0:va", "vale0:p"], "the name on the switch stays");
        eventually("the new name is seen", || broker_has(&test_broker, "vz"));
        assert_eq!(attach(&broker, "vale1:vz"), Err(Errno::EBUSY));
        // Deleted: it leaves the switch, and the name is free.
        pair.a.sh("ip link del vz");
        eventually("it has left the switch", || list(&broker) == ["vale0:p"]);
        assert!(!broker_has(&test_broker, "vz"));
        assert_eq!(detach(&broker, "vale0:va"), Err(Errno::ENXIO));
        p.tx(0).send(&[0xff; 60]);
        p.txsync().unwrap();
        let direct = find(&test_broker, "vale0:p");
        assert_eq!(direct["lease"], "direct");
    });
}

fn broker_has(broker: &TestBroker, name: &str) -> bool {
    broker.ports().as_array().unwrap().iter().any(|p| p["name"] == name)
}

/// Names of the broker's threads that poll, and the processors to which they are bound.
fn polling_threads(broker: &TestBroker) -> Vec<(String, String)> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", broker.pid())).unwrap();
    let mut out = vec![];
    for task in tasks.flatten() {
        let read = |file: &str| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let name = read("comm").trim().to_owned();
        if name.starts_with("poller") {
            let status = read("status");
            let allowed = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:")).unwrap_or("");
            out.push((name, allowed.trim().to_owned()));
        }
    }
    out.sort();
    out
}

#[test]
fn polling_threads_carry_what_the_worker_carried() {
    const TEST: &str = "polling_threads_carry_what_the_worker_carried";
    let cpus = ringway_os::sys::online_cpus();
    if cpus < 2 {
        println!("SKIP {TEST}: one processor cannot poll");
        return;
    }
    let Some((_guard, pair, test_broker)) = start(TEST, 2, "") else { return };
    let Some(far) = add_host(TEST, &pair) else { return };
    pair.a.run(|| {
        let broker = Broker::at(&test_broker.socket()).unwrap();
        attach(&broker, "vale0:va").unwrap();
        attach(&broker, "vale0:vc").unwrap();
        let p = test_broker.netmap().open("vale0:p").unwrap();
        for (name, mode, first, count, errno) in [
            ("va", SINGLE, 0, 1, Errno::EINVAL),
            ("vale0:nosuch", SINGLE, 0, 1, Errno::ENXIO),
            ("vale0:p", SINGLE, 0, 1, Errno::EOPNOTSUPP),
            ("vale0:va", 0, 0, 1, Errno::EINVAL),
            ("vale0:va", 3, 0, 1, Errno::EINVAL),
            ("vale0:va", SINGLE, 0, 0, Errno::EINVAL),
            ("vale0:va", SINGLE, 0, cpus, Errno::EINVAL),
            ("vale0:va", SINGLE, cpus, 1, Errno::EINVAL),
            ("vale0:va", MULTI, 2, 1, Errno::EINVAL),
            ("vale0:va", MULTI, u32::MAX, 1, Errno::EINVAL),
        ] {
            assert_eq!(poll(&broker, name, mode, first, count), Err(errno), "{name} {mode} {first} {count}");
        }
        drop(p);
        assert_eq!(end_polling(&broker, "vale0:va"), Err(Errno::EFAULT));
        assert!(polling_threads(&test_broker).is_empty());
        assert_eq!(poll(&broker, "vale0:va", SINGLE, 1, 1), Ok(()));
        assert_eq!(poll(&broker, "vale0:va", SINGLE, 1, 1), Err(Errno::EFAULT));
        assert_eq!(poll(&broker, "vale0:vc", MULTI, 0, 1), Ok(()));
        assert_eq!(detach(&broker, "vale0:va"), Err(Errno::EBUSY));
    });
    eventually("both threads are bound", || {
        let wanted = [("poller 0".into(), "0".into()), ("poller 1".into(), "1".into())];
        polling_threads(&test_broker) == wanted
    });
    hosts_hear_each_other(&pair, &far, 1 << 20);
    no_buffer_is_lost(&test_broker);
    pair.a.run(|| {
        let broker = Broker::at(&test_broker.socket()).unwrap();
        assert_eq!(end_polling(&broker, "vale0:vc"), Ok(()));
        assert_eq!(end_polling(&broker, "vale0:va"), Ok(()));
        assert!(polling_threads(&test_broker).is_empty());
    });
    hosts_hear_each_other(&pair, &far, 1 << 20);
    let before = test_broker.cpu_ns();
    let idle = test_broker.cpu_ns() - before;
    std::thread::sleep(Duration::from_secs(1));
    let used = test_broker.cpu_ns() - before;
    assert!(used < 100_000_000 + 4 * idle, "a broker that does not poll used {used} ns in a second");
    pair.a.run(|| {
        let broker = Broker::at(&test_broker.socket()).unwrap();
        assert_eq!((detach(&broker, "vale0:va"), detach(&broker, "vale0:vc")), (Ok(0), Ok(1)));
    });
}
