//! A netmap descriptor as programs use it: duplicated, forked, passed over sockets, inherited, shared by threads and by users.

use e2e::ns::Ns;
use e2e::{Peer, TempDir, TestBroker, root_or_skip};
use ringway_e2e as e2e;
use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const PEER: &str = env!("CARGO_BIN_EXE_e2e-peer");
const DESCRIPTOR: &str = env!("CARGO_BIN_EXE_e2e-descriptor");
const LONG: Duration = Duration::from_secs(20);
/// Both ends of a pipe, and two ports of a switch.
const PAIRS: [[&str; 2]; 2] = [["netmap:x{1", "netmap:x}1"], ["vale0:a", "vale0:b"]];

/// A broker, and a folder in which every user can make sockets.
struct Scene {
    broker: TestBroker,
    meet: TempDir,
}

impl Scene {
    fn new(config: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let (broker, meet) = (TestBroker::start(config), TempDir::new());
        std::fs::set_permissions(meet.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        Scene { broker, meet }
    }

    /// Where two processes meet.
    fn at(&self, name: &str) -> String {
        self.meet.path().join(name).display().to_string()
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut c = self.broker.command_at(Path::new(program));
        c.args(args);
        c
    }

    /// A process of our own user.
    fn start(&self, args: &[&str]) -> Peer {
        Peer::start(self.command(DESCRIPTOR, args)).expect(args[0])
    }

    /// A sender or receiver with a port of its own.
    fn peer(&self, args: &[&str]) -> Peer {
        Peer::start(self.command(PEER, args)).expect(args[0])
    }

    /// The same as user `uid`, from a copy of the program that everybody can run.
    fn command_as(&self, uid: u32, program: &str, args: &[&str]) -> Command {
        let copy: PathBuf = self.meet.path().join(Path::new(program).file_name().unwrap());
        if !copy.exists() {
            ringway_e2e::copy_program(Path::new(program), &copy);
        }
        let mut c = self.command(&copy.display().to_string(), args);
        c.uid(uid).gid(uid);
        c
    }

    fn start_as(&self, uid: u32, args: &[&str]) -> Peer {
        Peer::start(self.command_as(uid, DESCRIPTOR, args)).expect(args[0])
    }

    fn peer_as(&self, uid: u32, args: &[&str]) -> Peer {
        Peer::start(self.command_as(uid, PEER, args)).expect(args[0])
    }

    /// Runs a role that does all by itself.
    fn run(&self, args: &[&str]) -> Vec<u64> {
        numbers(self.command(DESCRIPTOR, args))
    }

    fn ports(&self) -> Vec<serde_json::Value> {
        self.broker.json(&["ports", "--interval", "0"]).as_array().expect("a list").clone()
    }

    fn lease(&self, name: &str) -> String {
        let ports = self.ports();
        let port = ports.iter().find(|p| p["name"] == name.trim_start_matches("netmap:"));
        port.map_or_else(String::new, |p| p["lease"].as_str().unwrap().to_owned())
    }

    fn await_lease(&self, name: &str, lease: &str) {
        let deadline = Instant::now() + LONG;
        while self.lease(name) != lease {
            assert!(Instant::now() < deadline, "{name} is {}, not {lease}", self.lease(name));
        }
    }

    fn signal_broker(&self, signal: Signal) {
        let pid = Pid::from_raw(self.broker.pid() as i32).expect("a process");
        kill_process(pid, signal).expect("it lives");
    }

    /// No port is left, and each name can be had exclusively at once.
    fn assert_free(&self, names: &[&str]) {
        for name in names {
            let out = self.command(PEER, &["open-time", name]).output().unwrap();
            assert!(out.status.success(), "{name}: {}", String::from_utf8_lossy(&out.stdout));
        }
        assert!(self.ports().is_empty(), "{:?}", self.ports());
    }
}

fn numbers(mut command: Command) -> Vec<u64> {
    let out = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&out.stdout).trim().to_owned();
    said.split(' ').map(|n| n.parse().unwrap_or_else(|_| panic!("it said {said:?}"))).collect()
}

#[test]
fn a_forked_child_and_its_parent_go_on_in_turn() {
    let scene = Scene::new("");
    for [a, b] in PAIRS {
        assert_eq!(scene.run(&["fork-in-turn", a, b]), [0], "{a}");
        scene.assert_free(&[a, b]);
    }
}

#[test]
fn a_forked_child_takes_no_wake_up_of_its_parent() {
    let scene = Scene::new("");
    for [a, b] in PAIRS {
        assert_eq!(scene.run(&["fork-waits", a, b]), [0], "{a}");
    }
}

#[test]
fn a_child_goes_on_when_its_parent_is_killed() {
    let scene = Scene::new("");
    let mut family = scene.start(&["orphan", "netmap:x{1", "1000"]);
    family.kill();
    assert_eq!(scene.ports().len(), 3, "the pipe and what it stands on: {:?}", scene.ports());
    assert_eq!(scene.peer(&["tx", "netmap:x}1", "1000"]).result()[0], 1000);
    assert_eq!(family.result(), [1000, 0, 0, 999]);
}

#[test]
fn a_parent_goes_on_whenever_its_child_is_killed() {
    let scene = Scene::new("");
    let other = scene.peer(&["rx", "vale0:b"]);
    assert_eq!(scene.run(&["fork-kills", "vale0:a"]), [0]);
    assert!(other.finish()[0] > 0);
}

#[test]
fn a_name_is_free_exactly_when_the_last_copy_is_closed() {
    let scene = Scene::new("");
    for name in ["vale0:a", "netmap:x{1"] {
        assert_eq!(scene.run(&["close", name]), [0], "{name}");
        scene.assert_free(&[name]);
    }
}

#[test]
fn any_fd_may_be_asked_whether_it_is_a_descriptor() {
    assert_eq!(Scene::new("").run(&["recognise"]), [0]);
}

#[test]
fn a_receiver_goes_on_when_the_sender_of_the_descriptor_is_gone() {
    let scene = Scene::new("");
    for [a, b] in PAIRS {
        let at = scene.at(&a[a.len() - 1..]);
        let taker = scene.start(&["take", &at, "rx", "900"]);
        let mut giver = scene.start(&["give", b, &at, "hold", "0"]);
        giver.kill();
        assert_eq!(scene.peer(&["tx", a, "900"]).result()[0], 900);
        assert_eq!(taker.result(), [900, 0, 0, 899], "{a}");
        scene.assert_free(&[a, b]);
    }
}

#[test]
fn a_descriptor_goes_through_a_chain_of_three_and_each_goes_on() {
    let scene = Scene::new("");
    let at = ["one", "two", "three"].map(|n| scene.at(n));
    let last = scene.start(&["take", &at[2], "rx", "300"]);
    let middle = scene.start(&["relay", &at[1], &at[2], "200"]);
    let first = scene.start(&["relay", &at[0], &at[1], "100"]);
    drop(scene.start(&["give", "netmap:x{1", &at[0], "hold", "0"]));
    assert_eq!(scene.peer(&["tx", "netmap:x}1", "600"]).result()[0], 600);
    assert_eq!(first.result(), [100, 0, 0, 99]);
    assert_eq!(middle.result(), [200, 0, 100, 299]);
    assert_eq!(last.result(), [300, 0, 300, 599]);
    scene.assert_free(&["netmap:x{1"]);
}

#[test]
fn a_server_of_descriptors_serves_programs_that_open_nothing() {
    let scene = Scene::new("");
    let at = scene.at("server");
    let server = scene.start(&["serve", &at, "4"]);
    let client = |name: &str, what: &str| scene.start(&["client", &at, name, what, "5000"]);
    let (rx, quiet) = (client("x{1", "rx"), client("vale0:q", "hold"));
    let (tx, other) = (client("x}1", "tx"), client("vale0:r", "tx"));
    assert_eq!(rx.result(), [5000, 0, 0, 4999]);
    assert_eq!(tx.result()[0], 5000);
    assert_eq!(other.result()[0], 5000);
    assert_eq!((quiet.finish(), server.finish()), (vec![0], vec![0]));
    scene.assert_free(&["netmap:x{1", "vale0:q"]);
}

#[test]
fn another_that_syncs_at_the_same_time_costs_nothing() {
    let scene = Scene::new("");
    for [a, b] in PAIRS {
        let at = scene.at(&a[a.len() - 1..]);
        let taker = scene.start(&["take", &at, "rx", "200000"]);
        let giver = scene.start(&["give", b, &at, "sync", "0"]);
        let tx = scene.peer(&["tx", a]);
        let got = taker.result();
        assert_eq!(got[0], 200_000, "{a}");
        if a.starts_with("netmap:") {
            assert_eq!(got[1], 0, "{a}: numbers jumped");
        }
        drop((giver, tx));
        scene.assert_free(&[a, b]);
    }
}

#[test]
fn a_descriptor_is_inherited_through_exec() {
    let scene = Scene::new("");
    for [a, b] in PAIRS {
        let program = scene.start(&["exec", b, "400"]);
        assert_eq!(scene.peer(&["tx", a, "800"]).result()[0], 800);
        assert_eq!(program.result(), [400, 0, 400, 799], "{a}");
        scene.assert_free(&[a, b]);
    }
}

#[test]
fn two_threads_of_one_descriptor_are_woken_each_time() {
    let scene = Scene::new("");
    for [a, b] in [["x{1", "x}1"], ["vale0:a", "vale0:b"]] {
        let shares = scene.run(&["two-threads", a, b, "1000000"]);
        assert_eq!(shares.iter().sum::<u64>(), 999_999, "{a}: all but the last were taken while they ran");
        println!("{a}: the threads took {shares:?}");
    }
}

#[test]
fn a_daemon_forks_twice_and_closes_all_before_it_opens() {
    let scene = Scene::new("");
    let daemon = scene.start(&["daemon", "netmap:x{1", "500"]);
    assert_eq!(scene.peer(&["tx", "netmap:x}1", "500"]).result()[0], 500);
    assert_eq!(daemon.result(), [500, 0, 0, 499]);
}

#[test]
fn another_user_receives_a_pipe_and_nothing_is_lost_on_the_way_there_and_back() {
    if !root_or_skip("another_user_receives_a_pipe_and_nothing_is_lost_on_the_way_there_and_back") {
        return;
    }
    // From one user to another; from a user to root; from root to a user.
    for (owner, guest) in [(1001, 1002), (1001, 0), (0, 1002)] {
        let scene = Scene::new("admit = \"all\"");
        let [a, b] = PAIRS[0];
        let at = scene.at("x");
        let tx = scene.peer_as(owner, &["tx", a, "60000"]);
        let taker = scene.start_as(guest, &["take", &at, "rx", "40000"]);
        let giver = scene.start_as(owner, &["give", b, &at, "rx", "20000"]);
        assert_eq!(taker.result(), [40_000, 0, 0, 39_999]);
        scene.await_lease(b, "direct");
        // Really: it goes on while the broker does nothing at all.
        scene.signal_broker(Signal::STOP);
        let (rest, sent) = (giver.finish(), tx.result()[0]);
        scene.signal_broker(Signal::CONT);
        assert_eq!((rest, sent), (vec![20_000, 0, 40_000, 59_999], 60_000));

        // The guest sends, with the owner's end at rest.
        let rx = scene.peer_as(owner, &["rx", a, "30000"]);
        let taker = scene.start_as(guest, &["take", &scene.at("y"), "tx", "30000"]);
        let giver = scene.start_as(owner, &["give", b, &scene.at("y"), "hold", "0"]);
        assert_eq!((rx.result(), taker.result()[0]), (vec![30_000, 0], 30_000));
        giver.finish();
        scene.assert_free(&[a, b]);
    }
}

#[test]
fn another_user_receives_a_switch_port_and_all_frames_are_accounted_for() {
    if !root_or_skip("another_user_receives_a_switch_port_and_all_frames_are_accounted_for") {
        return;
    }
    let scene = Scene::new("admit = \"all\"");
    let [a, b] = PAIRS[1];
    let taker = scene.start_as(1002, &["take", &scene.at("x"), "rx", "20000"]);
    let giver = scene.start_as(1001, &["give", b, &scene.at("x"), "hold", "0"]);
    scene.await_lease(b, "brokered");
    // The guest sees all that passes, as long as it keeps up: who sends goes on till it has enough.
    let tx = scene.peer_as(1001, &["tx", a]);
    let got = taker.result();
    assert_eq!((got[0], got[3] - got[2] >= 19_999), (20_000, true));
    scene.await_lease(b, "direct");
    let sent = tx.finish();
    assert_eq!(sent[0], sent[1] + sent[2], "sent, delivered, dropped: {sent:?}");

    // It sends, and the owner's other port receives.
    let rx = scene.peer_as(1001, &["rx", a]);
    let taker = scene.start_as(1002, &["take", &scene.at("y"), "tx", "20000"]);
    let second = scene.start_as(1001, &["give", "vale0:c", &scene.at("y"), "hold", "0"]);
    let sent = taker.result();
    assert_eq!(sent[0], 20_000);
    scene.await_lease("vale0:c", "direct");
    assert!(rx.finish()[0] > 0);
    drop((giver, second));
    scene.assert_free(&[a, b]);
}

#[test]
fn a_guests_child_is_a_guest() {
    if !root_or_skip("a_guests_child_is_a_guest") {
        return;
    }
    let scene = Scene::new("admit = \"all\"");
    for [a, b] in PAIRS {
        let at = scene.at(&a[a.len() - 1..]);
        let taker = scene.start_as(1002, &["take-fork", &at, "rx", "3000"]);
        let giver = scene.start_as(1001, &["give", b, &at, "hold", "0"]);
        let tx = scene.peer_as(1001, &["tx", a]);
        assert_eq!(taker.result()[0], 3000, "{a}");
        drop((giver, tx));
        scene.assert_free(&[a, b]);
    }
}

#[test]
fn a_stranger_gets_the_ports_own_memory_and_no_peers() {
    if !root_or_skip("a_stranger_gets_the_ports_own_memory_and_no_peers") {
        return;
    }
    let scene = Scene::new("admit = \"all\"");
    const EACCES: u64 = 13;
    const EPROTO: u64 = 71;
    for (owner, guest) in [(1001, 1002), (1001, 0)] {
        for name in ["vale0:a", "netmap:x{1"] {
            let _ = std::fs::remove_file(scene.at("x"));
            let taker = scene.start_as(guest, &["pry", &scene.at("x")]);
            let _giver = scene.start_as(owner, &["give", name, &scene.at("x"), "hold", "0"]);
            // Region, state, two silent bells, its notice, its bell for the worker.
            assert_eq!(taker.result(), [EPROTO, EACCES, 0, 0, 6, 1, EACCES], "{name}");
        }
    }
    // A process of the same user gets all: the page of the switch as well, and its peers (itself, here).
    let taker = scene.start_as(1001, &["pry", &scene.at("z")]);
    let _giver = scene.start_as(1001, &["give", "vale0:a", &scene.at("z"), "hold", "0"]);
    assert_eq!(taker.result(), [EPROTO, 0, 0, 0, 7, 0, 0]);
}

/// The broker syncs an interface while another user takes part in it; he gets no socket of it.
#[test]
fn another_user_receives_an_interface_and_its_owner_goes_on_afterwards() {
    let test = "another_user_receives_an_interface_and_its_owner_goes_on_afterwards";
    if !root_or_skip(test) {
        return;
    }
    for mode in ["copy", "packet"] {
        let Some(ns) = Ns::new(test) else { return };
        ns.sh("ip link add va type veth peer name vb; ip link set va up; ip link set vb up");
        ns.run(|| {
            let scene = Scene::new("admit = \"all\"");
            let [va, vb] = ["va", "vb"].map(|name| format!("netmap:{name}@mode={mode}"));
            // The guest receives: in order, and all that its ring had room for.
            let taker = scene.start_as(1002, &["take", &scene.at("x"), "rx", "5000"]);
            let giver = scene.start(&["give", &va, &scene.at("x"), "hold", "0"]);
            scene.await_lease("va", "brokered");
            let tx = scene.peer(&["tx", &vb]);
            let got = taker.result();
            assert!(got[0] == 5000 && got[3] - got[2] >= 4999, "{mode}: {got:?}");
            scene.await_lease("va", "direct");
            tx.finish();
            giver.finish();
            // It sends, while the owner's process holds it.
            let rx = scene.peer(&["rx", &vb]);
            let taker = scene.start_as(1002, &["take", &scene.at("y"), "tx", "3000"]);
            let giver = scene.start(&["give", &va, &scene.at("y"), "hold", "0"]);
            assert_eq!(taker.result()[0], 3000, "{mode}");
            scene.await_lease("va", "direct");
            giver.finish();
            let received = rx.finish()[0];
            assert!(received > 0, "{mode}: {received}");
            // There and back: who gave it away receives the rest himself, and a guest of a guest's child has its part.
            for then in ["take", "take-fork"] {
                let _ = std::fs::remove_file(scene.at("z"));
                let taker = scene.start_as(1002, &[then, &scene.at("z"), "rx", "300"]);
                let giver = scene.start(&["give", &va, &scene.at("z"), "rx", "300"]);
                let tx = scene.peer(&["tx", &vb]);
                assert_eq!((taker.result()[0], giver.finish()[0]), (300, 300), "{mode} {then}");
                tx.finish();
            }
            // A guest that is killed leaves the interface to its owner.
            let _ = std::fs::remove_file(scene.at("z"));
            let mut taker = scene.start_as(1002, &["take", &scene.at("z"), "tx", "1000000000"]);
            let giver = scene.start(&["give", &va, &scene.at("z"), "rx", "300"]);
            scene.await_lease("va", "brokered");
            let tx = scene.peer(&["tx", &vb]);
            taker.kill();
            scene.await_lease("va", "direct");
            assert_eq!(giver.finish()[0], 300, "{mode}");
            tx.finish();
            scene.assert_free(&[&va, &vb]);
        });
    }
}

#[test]
fn another_user_receives_a_monitor() {
    if !root_or_skip("another_user_receives_a_monitor") {
        return;
    }
    let scene = Scene::new("admit = \"all\"");
    for watch in ["vale0:a/t", "vale0:a/z"] {
        let _ = std::fs::remove_file(scene.at("x"));
        let tx = scene.peer_as(1001, &["tx", "vale0:a"]);
        let taker = scene.start_as(1002, &["take", &scene.at("x"), "rx", "2000"]);
        let giver = scene.start_as(1001, &["give", watch, &scene.at("x"), "hold", "0"]);
        assert_eq!(taker.result()[0], 2000, "{watch}");
        drop((giver, tx));
        scene.assert_free(&["vale0:a"]);
    }
}

#[test]
fn a_process_that_drops_its_privileges_still_finds_its_peers() {
    if !root_or_skip("a_process_that_drops_its_privileges_still_finds_its_peers") {
        return;
    }
    let scene = Scene::new("admit = \"all\"");
    let rx = scene.peer(&["rx", "vale0:b"]);
    let sent = scene.start(&["drop-privileges", "vale0:a", "500"]).result();
    assert_eq!(sent, [500, 500, 0], "sent, delivered, dropped");
    assert_eq!(rx.finish(), [500, 0]);
}

#[test]
fn s10_a_child_that_changes_its_user_finds_peers_that_its_parent_never_met() {
    let test = "s10_a_child_that_changes_its_user_finds_peers_that_its_parent_never_met";
    if !root_or_skip(test) {
        return;
    }
    for config in ["admit = \"all\"", "admit = [0]"] {
        let scene = Scene::new(config);
        let sender = scene.start(&["fork-drops-privileges", "vale0:a", "tx", "500"]);
        let receiver = scene.start(&["fork-drops-privileges", "netmap:x}1", "rx", "500"]);
        // Peers that come later than the child. Nobody has become a guest: it does its syncs itself.
        let rx = scene.peer(&["rx", "vale0:b"]);
        scene.await_lease("vale0:a", "direct");
        assert_eq!(sender.finish(), [500, 500, 0], "sent, delivered, dropped");
        assert_eq!(rx.finish(), [500, 0]);
        let tx = scene.peer(&["tx", "netmap:x{1", "500"]);
        scene.await_lease("x}1", "direct");
        assert_eq!(receiver.finish(), [500, 0, 0, 499]);
        tx.finish();
    }
}
