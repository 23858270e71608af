//! What must hold after deaths. A thousand random kills, of senders, receivers, and the broker, most of them inside a
//! lock: afterwards every buffer has one owner, every packet is counted, nothing is left, and the living went on at once.
//!
//! The tests run one after the other: times are measured.

use ringway_e2e::hostile::Random;
use ringway_e2e::ns::Pair;
use ringway_e2e::{Peer, TestBroker, root_or_skip};
use ringway_os::link::Link;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Kills of each test; a thousand in all.
const KILLS_OF_HOLDERS: usize = 300;
const KILLS_OF_ANYBODY: usize = 400;
const KILLS_OF_SWAPPERS: usize = 100;
const KILLS_OF_BROKERS: usize = 200;

/// Besides, where there are interfaces.
const KILLS_ON_INTERFACES: usize = 50;

/// How long a survivor may take on a machine that crawls, before it counts as one that hangs.
const HANGS: Duration = Duration::from_secs(5);

const VICTIM: &str = env!("CARGO_BIN_EXE_e2e-victim");

fn one_at_a_time() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

fn command(broker: &TestBroker, args: &[&str]) -> Command {
    let mut c = broker.command_at(Path::new(VICTIM));
    c.args(args);
    c
}

fn victim(broker: &TestBroker, args: &[&str]) -> Peer {
    Peer::start(command(broker, args)).unwrap_or_else(|e| panic!("{args:?}: {e}"))
}

/// `e2e-victim duplex`.
fn duplex(broker: &TestBroker, port: &str, me: &str, peers: &str, how: [&str; 3]) -> Peer {
    victim(broker, &["duplex", port, me, peers, how[0], how[1], how[2]])
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// Asserts that every buffer has one owner in every region.
fn assert_owners(broker: &TestBroker, lost: u64, when: &str) -> usize {
    let audit = broker.audit();
    let regions = audit["regions"].as_array().expect("a list");
    for r in regions {
        assert_eq!((number(&r["twice"]), number(&r["bad"])), (0, 0), "{when}: {r}");
        assert!(number(&r["lost"]) <= lost, "{when}: {r}");
    }
    regions.len()
}

fn locks_broken(broker: &TestBroker) -> u64 {
    number(&broker.status()["locks_broken"])
}

fn numbers(peer: &mut Peer, what: &str) -> Vec<u64> {
    let line = peer.line_within(HANGS).unwrap_or_else(|| panic!("{what}: it hangs"));
    line.split(' ').map(|n| n.parse().unwrap_or_else(|_| panic!("{what}: it said {line:?}"))).collect()
}

/// The port's counters when everybody is at rest: packets, copies, delivered, drops of TX; packets and waiting of RX.
fn totals(broker: &TestBroker, on: &str) -> [u64; 6] {
    let mut sum = [0; 6];
    for p in broker.ports().as_array().expect("a list") {
        if !p["name"].as_str().is_some_and(|n| n.starts_with(on)) {
            continue;
        }
        let (tx, rx) = (&p["tx"], &p["rx"]);
        let drops: u64 = tx["drops"].as_object().expect("an object").values().map(number).sum();
        let waiting: u64 = p["rings"].as_array().expect("a list").iter().map(|r| number(&r["waiting"])).sum();
        let counts = [&tx["packets"], &tx["extra_copies"], &tx["delivered"]].map(number);
        assert_eq!(counts[0] + counts[1], counts[2] + drops, "sent + copies = delivered + drops: {p}");
        let all = [counts[0], counts[1], counts[2], drops, number(&rx["packets"]), waiting];
        sum.iter_mut().zip(all).for_each(|(s, n)| *s += n);
    }
    sum
}

/// Asserts that what was delivered on a switch was received, or waits. Nobody syncs.
fn assert_counts(broker: &TestBroker, switch: &str, when: &str) -> [u64; 6] {
    let t = totals(broker, switch);
    assert_eq!(t[2], t[4] + t[5], "{when}: delivered = received + waiting: {t:?}");
    t
}

fn pause(peers: &mut [Peer]) {
    for p in &mut *peers {
        p.tell("pause");
    }
    for p in peers {
        assert_eq!(p.line_within(HANGS).as_deref(), Some("paused"));
    }
}

fn percentile(sorted: &[u64], p: usize) -> u64 {
    sorted[(sorted.len() - 1) * p / 100]
}

/// Two senders, two receivers, and one more sender to both, who dies again and again with a lock in its hands.
#[test]
fn survivors_go_on_within_10_ms_of_the_death_of_one_who_held_a_lock() {
    let _guard = one_at_a_time();
    let broker = TestBroker::start("");
    let _receivers = ["1", "2"].map(|n| duplex(&broker, &format!("vale0:rx{n}"), n, "-", ["1", "60", "0"]));
    let mut senders = [("3", "1"), ("4", "2")]
        .map(|(me, to)| duplex(&broker, &format!("vale0:tx{me}"), me, to, ["4", "60", "200"]));
    let start = || duplex(&broker, "vale0:victim", "9", "1,2", ["128", "1500", "0"]);
    let mut victim = start();
    let mut random = Random(1);
    let (mut gaps, mut others, mut before) = (vec![], 0, locks_broken(&broker));
    let began = Instant::now();
    for kill in 0..KILLS_OF_HOLDERS {
        std::thread::sleep(Duration::from_micros(random.below(3000)));
        senders.iter_mut().for_each(|s| s.tell("mark"));
        std::thread::sleep(Duration::from_micros(1000));
        victim.kill();
        senders.iter_mut().for_each(|s| s.tell("gap"));
        let gap = senders.iter_mut().map(|s| numbers(s, "a sender")[0]).max().unwrap_or(0);
        let broken = locks_broken(&broker);
        // Its own ring's lock, and a receiver's.
        if broken >= before + 2 {
            gaps.push(gap);
        } else {
            others += 1;
        }
        before = broken;
        assert_owners(&broker, 0, &format!("kill {kill}"));
        victim = start();
    }
    gaps.sort_unstable();
    assert!(!gaps.is_empty(), "no kill hit a lock in {KILLS_OF_HOLDERS}");
    let [median, p99, max] = [50, 99, 100].map(|p| percentile(&gaps, p));
    println!(
        "{} of {KILLS_OF_HOLDERS} died with a receiver's lock, {others} without, in {:.1?}; the others' longest gap: median {} us, 99 % {} us, longest {} us",
        gaps.len(),
        began.elapsed(),
        median / 1000,
        p99 / 1000,
        max / 1000
    );
    assert!(median < 10_000_000, "median {median} ns");
    assert!(max < 100_000_000, "longest {max} ns");
}

/// Everybody sends to everybody, through a switch and a pipe, and any of them is killed at any moment. Ports live on, so that
/// every packet can be counted.
#[test]
fn whoever_is_killed_no_packet_is_uncounted_and_no_buffer_without_its_owner() {
    let _guard = one_at_a_time();
    let broker = TestBroker::start("");
    const WHO: [(&str, &str, &str, [&str; 3]); 6] = [
        ("vale0:a", "1", "2", ["64", "600", "0"]),
        ("vale0:b", "2", "1", ["64", "600", "0"]),
        ("vale0:c", "3", "1,2,4", ["16", "60", "0"]),
        ("vale0:d", "4", "2,3,1,255", ["64", "60", "50"]),
        ("netmap:x{1", "5", "6", ["64", "60", "0"]),
        ("netmap:x}1", "6", "5", ["64", "60", "50"]),
    ];
    let ports = WHO.map(|w| w.0);
    let _keeper = victim(&broker, &[&["keep"], &ports[..]].concat());
    let start = |i: usize| duplex(&broker, WHO[i].0, WHO[i].1, WHO[i].2, WHO[i].3);
    let mut peers: Vec<Peer> = (0..WHO.len()).map(start).collect();
    let mut random = Random(2);
    let began = Instant::now();
    let mut last = [0; 6];
    for kill in 0..KILLS_OF_ANYBODY {
        let i = random.below(WHO.len() as u64) as usize;
        let when = format!("kill {kill}, of {}", WHO[i].0);
        std::thread::sleep(Duration::from_micros(random.below(2000)));
        if i >= 4 || random.below(2) == 0 {
            // Stopped at whatever instruction, it is no harm; and nobody moves a buffer of the pipe meanwhile.
            peers[i].freeze();
            if i >= 4 {
                peers[9 - i].freeze();
            }
            assert_owners(&broker, 0, &when);
        }
        peers[i].kill();
        assert_owners(&broker, 0, &when);
        if i >= 4 {
            peers[9 - i].thaw();
        }
        // Of the living one who is not behind the dead goes on.
        let witness = if i == 1 { 2 } else { 0 };
        if i != 0 {
            peers[witness].tell("mark");
            peers[witness].tell("gap");
            numbers(&mut peers[witness], &when);
        }
        peers[i] = start(i);
        if kill % 50 == 49 {
            pause(&mut peers);
            last = assert_counts(&broker, "vale0", &when);
            assert_owners(&broker, 0, &when);
            peers.iter_mut().for_each(|p| p.tell("go"));
        }
    }
    pause(&mut peers);
    let broken = locks_broken(&broker);
    println!(
        "{KILLS_OF_ANYBODY} kills in {:.1?}, {broken} locks broken; sent {} copies {} delivered {} drops {} received {} waiting {}",
        began.elapsed(),
        last[0],
        last[1],
        last[2],
        last[3],
        last[4],
        last[5]
    );
    assert!(broken > 0);
    // What a pipe took it gave, but for what lies in it.
    let ports = broker.ports();
    for (from, to) in [("x{1", "x}1"), ("x}1", "x{1")] {
        let packets = |name: &str, dir: &str| {
            let all = ports.as_array().expect("a list");
            let port = all.iter().find(|p| p["name"] == name).expect("the port");
            number(&port[dir]["packets"])
        };
        let (sent, received) = (packets(from, "tx"), packets(to, "rx"));
        assert!(sent >= received && sent - received < 1024, "{from}: sent {sent}, received {received}");
    }
    drop(peers);
    drop(_keeper);
    assert_eq!(broker.ports(), Value::Array(vec![]));
    assert_eq!(assert_owners(&broker, 0, "the end"), 0, "regions left");
}

/// A region that outlives a program which dies while it exchanges buffers between two of its ports.
#[test]
fn a_program_killed_in_an_exchange_leaves_each_buffer_one_owner() {
    let _guard = one_at_a_time();
    let broker = TestBroker::start("[tunables]\npriv_buf_num = 10000");
    let region = || broker.audit()["regions"][0].clone();
    let mut keeper = victim(&broker, &["keep", "vale0:k"]);
    let clean = region();
    let id = clean["mem_id"].to_string();
    let mut random = Random(3);
    let began = Instant::now();
    let (mut lost, mut caught) = (0, 0);
    for kill in 0..KILLS_OF_SWAPPERS {
        let how = ["half twice", "swap", "swap", "swap", "half garbage", "swap", "swap"][kill % 7];
        let mut peer = match how {
            "swap" => victim(&broker, &["swap", &id, "vale0:a", "vale0:b"]),
            half => victim(&broker, &["half", &id, "vale0:a", "vale0:b", &half[5..]]),
        };
        match how {
            "swap" => std::thread::sleep(Duration::from_micros(random.below(3000))),
            "half twice" => {
                let now = region();
                assert_eq!((number(&now["twice"]), number(&now["lost"])), (1, lost + 1), "{now}");
            }
            _ => assert!(number(&region()["twice"]) > 100 && number(&region()["bad"]) > 100, "{}", region()),
        }
        peer.kill();
        let now = region();
        assert_eq!((number(&now["twice"]), number(&now["bad"])), (0, 0), "kill {kill}: {now}");
        assert_eq!(now["in_rings"], clean["in_rings"], "kill {kill}: the survivor has all that it had");
        if how == "half garbage" {
            // What was overwritten is nowhere. It returns with the region's last user.
            assert!(number(&now["lost"]) > 100, "{now}");
            drop(keeper);
            assert_eq!(broker.audit()["regions"], Value::Array(vec![]));
            keeper = victim(&broker, &["keep", "vale0:k"]);
            assert_eq!(region(), clean, "all buffers are back");
            lost = 0;
        } else {
            // One at most was in its hands.
            let more = number(&now["lost"]) - lost;
            assert!(more <= 1, "kill {kill}: {more} lost");
            caught += u64::from(how == "swap") * more;
            lost += more;
        }
    }
    println!(
        "{KILLS_OF_SWAPPERS} kills in {:.1?}, {caught} caught in the middle of an exchange",
        began.elapsed()
    );
    assert!(caught > 0, "none but those that stopped there");
    drop(keeper);
    assert_eq!(broker.audit()["regions"], Value::Array(vec![]));
}

/// A sender that is stopped with the receiver's lock in its hands delays each sync of the others by the bound, and costs counted drops.
#[test]
fn a_sender_stopped_inside_the_lock_costs_a_bounded_wait_and_counted_drops() {
    let _guard = one_at_a_time();
    const ROUNDS: usize = 30;
    let broker = TestBroker::start("");
    let rx = duplex(&broker, "vale0:b", "1", "-", ["1", "60", "0"]);
    let sender = duplex(&broker, "vale0:s", "2", "1", ["64", "60", "100"]);
    let stopped = duplex(&broker, "vale0:v", "3", "1", ["128", "1500", "0"]);
    let mut peers = [rx, sender, stopped];
    let holds = |pid: u32| {
        let audit = broker.audit();
        let locks = audit["locks"].as_array().expect("a list");
        locks.iter().any(|l| l["kind"] == "senders" && l["port"] == "vale0:b" && l["pid"] == pid)
    };
    let drops = |name: &str, reason: &str| {
        let ports = broker.ports();
        let port = ports.as_array().expect("a list").iter().find(|p| p["name"] == name).cloned();
        port.and_then(|p| p["tx"]["drops"][reason].as_u64()).unwrap_or(0)
    };
    let mut longest = vec![];
    let began = Instant::now();
    let mut tries = 0;
    while longest.len() < ROUNDS {
        tries += 1;
        assert!(tries < 100 * ROUNDS, "it never stops inside the lock");
        std::thread::sleep(Duration::from_micros(200));
        peers[2].freeze();
        if !holds(peers[2].pid()) {
            peers[2].thaw();
            continue;
        }
        let before = drops("vale0:s", "receiver_busy");
        peers[1].tell("mark");
        // Until it has met the lock a few times.
        let deadline = Instant::now() + HANGS;
        while drops("vale0:s", "receiver_busy") < before + 3 * 64 {
            std::thread::sleep(Duration::from_millis(2));
            assert!(Instant::now() < deadline, "the sender hangs behind a stopped one");
        }
        peers[1].tell("syncs");
        longest.push(numbers(&mut peers[1], "the sender")[0]);
        assert!(holds(peers[2].pid()), "a lock of the living is not broken");
        peers[2].thaw();
        peers[1].tell("gap");
        numbers(&mut peers[1], "the sender, when the other goes on");
    }
    pause(&mut peers);
    let t = assert_counts(&broker, "vale0", "the end");
    assert_owners(&broker, 0, "the end");
    longest.sort_unstable();
    let [median, max] = [50, 100].map(|p| percentile(&longest, p) / 1000);
    println!(
        "{ROUNDS} stops inside the lock, of {tries}, in {:.1?}: longest sync of each median {median} us, at worst {max} us; {} busy drops of {} packets",
        began.elapsed(),
        drops("vale0:s", "receiver_busy"),
        t[0]
    );
    assert!(median < 10_000, "median {median} us");
    assert!(max < 100_000, "at worst {max} us");
    // The stopped one lost nothing by it.
    assert_eq!(drops("vale0:v", "interrupted"), 0);
    assert_eq!(locks_broken(&broker), 0);
}

/// A program on an interface is killed at any moment; another works on the same region, with an interface of its own.
#[test]
fn a_program_killed_on_an_interface_takes_no_buffer_of_another() {
    const TEST: &str = "a_program_killed_on_an_interface_takes_no_buffer_of_another";
    let _guard = one_at_a_time();
    if !root_or_skip(TEST) {
        return;
    }
    let (Some(one), Some(other)) = (Pair::new(TEST, 1), Pair::new(TEST, 1)) else { return };
    let broker = TestBroker::start("");
    let start = |pair: &Pair, pace: &str| {
        let c = command(&broker, &["duplex", "netmap:va", "10", "11", "64", "60", pace]);
        pair.a.run(|| Peer::start(c)).unwrap_or_else(|e| panic!("{e}"))
    };
    let mut survivor = start(&other, "100");
    let mut random = Random(5);
    let mut lost = 0;
    let began = Instant::now();
    for kill in 0..KILLS_ON_INTERFACES {
        let mut peer = start(&one, "0");
        std::thread::sleep(Duration::from_micros(random.below(5000)));
        peer.kill();
        survivor.freeze();
        let region = broker.audit()["regions"][0].clone();
        survivor.thaw();
        assert_eq!((number(&region["twice"]), number(&region["bad"])), (0, 0), "kill {kill}: {region}");
        lost = number(&region["lost"]);
        survivor.tell("mark");
        survivor.tell("gap");
        numbers(&mut survivor, "the other program");
    }
    println!(
        "{KILLS_ON_INTERFACES} kills in {:.1?}; {lost} buffers wait for the region's end",
        began.elapsed()
    );
    // What was on its way through the kernel, a batch at each death.
    assert!(lost <= 64 * KILLS_ON_INTERFACES as u64, "{lost}");
    drop(survivor);
    assert_eq!(broker.audit()["regions"], Value::Array(vec![]));
}

/// What a process has of Ringway: names of memfds that it has open or mapped, and sockets that it has mapped (kernel rings).
fn belongings(pid: u32) -> (Vec<String>, BTreeSet<String>) {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("it lives");
    let named = |what: &str| -> Vec<String> {
        let names = maps.lines().filter_map(|l| l.split_whitespace().nth(5));
        names.filter(|n| n.starts_with(what)).map(str::to_owned).collect()
    };
    let mut memfds = named("/memfd:ringway");
    memfds.extend(open_files(pid).into_iter().filter(|f| f.starts_with("/memfd:ringway")));
    (memfds, named("socket:").into_iter().collect())
}

fn open_files(pid: u32) -> Vec<String> {
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives");
    // One that was closed meanwhile is none.
    let links = fds.filter_map(|e| std::fs::read_link(e.ok()?.path()).ok());
    links.map(|l| l.to_string_lossy().into_owned()).collect()
}

/// Processes that know this broker's folder.
fn processes_of(broker: &TestBroker) -> BTreeSet<u32> {
    let dir = broker.dir.path().to_string_lossy().into_owned();
    let all =
        std::fs::read_dir("/proc").expect("proc").filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok());
    all.filter(|pid: &u32| {
        let of = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        [of("cmdline"), of("environ")].iter().any(|text| String::from_utf8_lossy(text).contains(&dir))
    })
    .collect()
}

/// How the interface is set up: what `ip` shows, then what the device says of itself.
fn settings(pair: &Pair) -> [String; 2] {
    let device = pair.a.run(|| format!("{:?}", Link::by_name("va").expect("the interface")));
    let tool = pair.a.sh("if command -v ethtool >/dev/null; then ethtool -k va; ethtool -l va; fi");
    [pair.a.sh("ip -d link show va"), device + &tool]
}

/// The broker is killed at any moment, sometimes together with a client. Who survives gets an error, lets go of devices when he
/// enters the library, and of everything when he closes; the next broker serves all of them at once.
#[test]
fn a_killed_broker_leaves_no_process_no_memory_no_program_and_no_setting() {
    const TEST: &str = "a_killed_broker_leaves_no_process_no_memory_no_program_and_no_setting";
    let _guard = one_at_a_time();
    // Without an interface the rest is tested all the same.
    let pair = if root_or_skip(TEST) { Pair::new(TEST, 2) } else { None };
    let mut broker = TestBroker::start("");
    let how = ["64", "60", "100"];
    let ports =
        [("vale0:a", "1", "2"), ("vale0:b", "2", "1"), ("netmap:x{1", "5", "6"), ("netmap:x}1", "6", "5")];
    let nic = pair.iter().map(|_| ("netmap:va", "10", "11"));
    let who: Vec<_> = ports.into_iter().chain(nic).collect();
    let start = |broker: &TestBroker, i: usize| {
        let (port, me, peers) = who[i];
        let c = command(broker, &["duplex", port, me, peers, how[0], how[1], how[2]]);
        let started = match &pair {
            Some(pair) if port == "netmap:va" => pair.a.run(|| Peer::start(c)),
            _ => Peer::start(c),
        };
        started.unwrap_or_else(|e| panic!("{port}: {e}"))
    };
    let before = pair.as_ref().map(settings);
    let mut peers: Vec<Peer> = (0..who.len()).map(|i| start(&broker, i)).collect();
    let mut random = Random(4);
    let began = Instant::now();
    let mut died_too = 0;
    for kill in 0..KILLS_OF_BROKERS {
        let when = format!("kill {kill}");
        std::thread::sleep(Duration::from_micros(random.below(4000)));
        let with = (random.below(4) == 0).then(|| random.below(who.len() as u64) as usize);
        let devices: Vec<_> = peers.iter().map(|p| belongings(p.pid()).1).collect();
        assert!(pair.is_none() || !devices[4].is_empty(), "{when}: the interface's rings are not mapped");
        match with {
            Some(i) if random.below(2) == 0 => {
                peers[i].kill();
                broker.kill();
            }
            Some(i) => {
                broker.kill();
                peers[i].kill();
            }
            None => broker.kill(),
        }
        died_too += usize::from(with.is_some());
        for (i, peer) in peers.iter_mut().enumerate().filter(|(i, _)| with != Some(*i)) {
            let said = peer.line_within(HANGS).unwrap_or_else(|| panic!("{when}: {} hangs", who[i].0));
            assert!(said.starts_with("error:"), "{when}: {} said {said:?}", who[i].0);
            // He has entered the library: devices are gone, the memory is his until he closes.
            let (memory, sockets) = belongings(peer.pid());
            assert!(!memory.is_empty() && sockets.is_empty(), "{when}: {} has {sockets:?}", who[i].0);
            let open = open_files(peer.pid());
            assert!(!open.iter().any(|f| devices[i].contains(f)), "{when}: {} keeps a socket", who[i].0);
        }
        if let (Some(pair), Some(before)) = (&pair, &before) {
            // The kernel takes the program off a moment after its last owner is gone.
            let deadline = Instant::now() + Duration::from_secs(1);
            while settings(pair) != *before {
                assert!(Instant::now() < deadline, "{when}: {:?} instead of {before:?}", settings(pair));
            }
        }
        for (_, peer) in peers.iter_mut().enumerate().filter(|(i, _)| with != Some(*i)) {
            peer.tell("drop");
            assert_eq!(peer.line_within(HANGS).as_deref(), Some("dropped"), "{when}");
            let (memory, sockets) = belongings(peer.pid());
            assert!(memory.is_empty() && sockets.is_empty(), "{when}: {memory:?} {sockets:?}");
        }
        if kill % 20 == 19 {
            let living = peers.iter().enumerate().filter(|(i, _)| with != Some(*i)).map(|(_, p)| p.pid());
            assert_eq!(processes_of(&broker), living.collect(), "{when}: who is there");
        }
        broker.restart("");
        for (i, peer) in peers.iter_mut().enumerate() {
            if with == Some(i) {
                *peer = start(&broker, i);
                continue;
            }
            peer.tell("open");
            let said = peer.line_within(HANGS).unwrap_or_else(|| panic!("{when}: {} hangs", who[i].0));
            assert_eq!(said, "ready", "{when}: {} opens again", who[i].0);
        }
        // Traffic flows, with one owner for each buffer.
        peers[0].tell("mark");
        peers[0].tell("gap");
        numbers(&mut peers[0], &when);
        peers[2..].iter().for_each(Peer::freeze);
        for r in broker.audit()["regions"].as_array().expect("a list") {
            assert_eq!((number(&r["twice"]), number(&r["bad"])), (0, 0), "{when}: {r}");
            // Frames on their way through the kernel have no owner to be seen.
            assert!(r["lost"] == 0 || r["mem_id"] == 1, "{when}: {r}");
        }
        peers[2..].iter().for_each(Peer::thaw);
    }
    println!(
        "{KILLS_OF_BROKERS} brokers killed in {:.1?}, {died_too} together with a client",
        began.elapsed()
    );
    drop(peers);
    assert_eq!(broker.ports(), Value::Array(vec![]));
    broker.kill();
    assert_eq!(processes_of(&broker), BTreeSet::new());
    if let (Some(pair), Some(before)) = (&pair, before) {
        assert_eq!(settings(pair), before);
    }
}
