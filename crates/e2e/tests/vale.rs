//! Switches and pipes between processes, through the real broker.

use e2e::{Peer, TestBroker, root_or_skip};
use ringway_e2e as e2e;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const PEER: &str = env!("CARGO_BIN_EXE_e2e-peer");

fn peer(broker: &TestBroker, args: &[&str]) -> Command {
    let mut c = broker.command_at(Path::new(PEER));
    c.args(args);
    c
}

fn as_uid(mut c: Command, uid: u32) -> Command {
    c.uid(uid).gid(uid);
    c
}

/// The program of the tests where every user can run it.
fn shared_peer(broker: &TestBroker, args: &[&str], uid: u32) -> Command {
    let copy = broker.dir.path().join("e2e-peer");
    if !copy.exists() {
        e2e::copy_program(Path::new(PEER), &copy);
    }
    let mut c = broker.command_at(&copy);
    c.args(args);
    as_uid(c, uid)
}

fn port_names(broker: &TestBroker) -> Vec<String> {
    let list = broker.json(&["ports", "--interval", "0"]);
    list.as_array().expect("a list").iter().map(|p| p["name"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn every_packet_is_received_or_counted_on_a_switch_and_none_is_lost_on_a_pipe() {
    let broker = TestBroker::start("");
    for (a, b) in [("vale0:a", "vale0:b"), ("netmap:x{1", "netmap:x}1"), ("vale1:p{q", "vale1:p}q")] {
        let rx = Peer::start(peer(&broker, &["rx", b])).expect("receiver");
        let tx = Peer::start(peer(&broker, &["tx", a, "300000"])).expect("sender");
        let sent = tx.result();
        let [packets, delivered, drops, 0] = sent[..] else { panic!("{sent:?}") };
        assert_eq!(packets, 300_000);
        if a.starts_with("vale0") {
            assert_eq!(delivered + drops, packets);
        }
        // The receiver takes what is there before it looks at its input again.
        let want = if a.starts_with("vale0") { delivered } else { packets };
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let list = broker.json(&["ports", "--interval", "0"]);
            let port = list
                .as_array()
                .unwrap()
                .iter()
                .find(|p| p["name"] == b.trim_start_matches("netmap:"))
                .cloned();
            let got = port.map_or(0, |p| p["rx"]["packets"].as_u64().unwrap());
            if got == want {
                break;
            }
            assert!(Instant::now() < deadline, "{a}: {got} of {want} received");
        }
        let got = rx.finish();
        assert_eq!(got[0], want, "{a}");
        if drops == 0 || !a.starts_with("vale0") {
            assert_eq!(got[1], 0, "{a}: numbers jumped");
        }
        assert!(port_names(&broker).is_empty(), "{a}: {:?}", port_names(&broker));
    }
}

#[test]
fn programs_started_at_once_end_with_one_broker() {
    let dir = e2e::TempDir::new();
    let start = || {
        let mut c = Command::new(PEER);
        c.args(["hold", "vale0:p"]).env("RINGWAY_SOCKET", dir.path().join("sock"));
        c.env("RINGWAYD", e2e::programs().join("ringway"));
        std::thread::spawn(move || Peer::start(c))
    };
    let threads: Vec<_> = (0..6).map(|_| start()).collect();
    let peers: Vec<Peer> = threads.into_iter().map(|t| t.join().unwrap().expect("a holder")).collect();
    let status = Command::new(e2e::programs().join("ringway"))
        .args(["broker", "status", "--json"])
        .env("RINGWAY_SOCKET", dir.path().join("sock"))
        .output()
        .unwrap();
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status[0]["bindings"], 6, "{status}");
    drop(peers);
    let stop = Command::new(e2e::programs().join("ringway"))
        .args(["broker", "stop"])
        .env("RINGWAY_SOCKET", dir.path().join("sock"))
        .status()
        .unwrap();
    assert!(stop.success());
}

#[test]
fn what_a_killed_process_had_is_free_for_the_next() {
    let broker = TestBroker::start("");
    for _ in 0..20 {
        let mut holder = Peer::start(peer(&broker, &["hold", "vale0:a"])).expect("holder");
        assert_eq!(port_names(&broker), ["vale0:a"]);
        holder.kill();
        // Exclusive: fails if anything of the dead one is left.
        let out = peer(&broker, &["open-time", "vale0:a"]).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
        assert!(port_names(&broker).is_empty());
    }
}

#[test]
fn a_killed_broker_leaves_an_error_and_the_next_open_works() {
    let mut broker = TestBroker::start("");
    for role in ["rx", "hold", "tx"] {
        let mut holder = Peer::start(peer(&broker, &[role, "vale0:a"])).expect("holder");
        broker.kill();
        let said = holder.line();
        assert!(said.starts_with("error:"), "{role} said {said:?}");
        broker.restart("");
    }
    let rx = Peer::start(peer(&broker, &["rx", "vale0:b", "1000"])).expect("receiver");
    let tx = Peer::start(peer(&broker, &["tx", "vale0:a", "1000"])).expect("sender");
    assert_eq!(tx.result()[0], 1000);
    assert_eq!(rx.result(), [1000, 0]);
}

#[test]
fn an_unprivileged_process_needs_the_broker_for_nothing_while_it_works() {
    if !root_or_skip("an_unprivileged_process_needs_the_broker_for_nothing_while_it_works") {
        return;
    }
    let broker = TestBroker::start("admit = \"all\"");
    for (a, b) in [("vale0:a", "vale0:b"), ("netmap:x{1", "netmap:x}1")] {
        let rx = Peer::start(shared_peer(&broker, &["rx", b], 65534)).expect("receiver");
        let tx = Peer::start(shared_peer(&broker, &["tx", a], 65534)).expect("sender");
        let before = broker.cpu_ns();
        std::thread::sleep(Duration::from_millis(300));
        let used = broker.cpu_ns() - before;
        let sent = tx.finish()[0];
        assert!(sent > 10_000 && rx.finish()[0] > 0);
        // Two status requests cost well under this; serving 10000 packets would not.
        assert!(used < 30_000_000, "{a}: the broker used {used} ns while {sent} packets were sent");
    }
}

#[test]
fn other_users_see_the_name_and_get_nothing() {
    if !root_or_skip("other_users_see_the_name_and_get_nothing") {
        return;
    }
    let broker = TestBroker::start("admit = \"all\"");
    let _a = Peer::start(shared_peer(&broker, &["hold", "vale0:a"], 1001)).expect("holder");
    let _x = Peer::start(shared_peer(&broker, &["hold", "netmap:x{1"], 1001)).expect("holder");
    for name in ["vale0:a", "vale0:b", "netmap:x}1", "netmap:x{1", "netmap:x{2"] {
        let refused = Peer::start(shared_peer(&broker, &["hold", name], 1002)).expect_err(name);
        assert!(refused.contains("another user"), "{name}: {refused}");
    }
    let refused = Peer::start(shared_peer(&broker, &["hold", "vale1:n@2"], 1002)).expect_err("a memory id");
    assert!(refused.contains("no memory region"), "{refused}");
    // Limits are per user: the other can open as if nothing were there.
    assert!(Peer::start(shared_peer(&broker, &["hold", "vale2:z"], 1002)).is_ok());
}

#[test]
fn nobody_but_the_owner_is_admitted_without_configuration() {
    if !root_or_skip("nobody_but_the_owner_is_admitted_without_configuration") {
        return;
    }
    let broker = TestBroker::start("");
    let refused = Peer::start(shared_peer(&broker, &["hold", "vale0:a"], 1001)).expect_err("not admitted");
    assert!(refused.contains("broker"), "{refused}");
}

#[test]
fn limits_are_refused_with_their_names() {
    let broker = TestBroker::start("[limits]\nports = 2\n");
    let _a = Peer::start(peer(&broker, &["hold", "vale0:a"])).expect("first");
    let _b = Peer::start(peer(&broker, &["hold", "vale0:b"])).expect("second");
    let refused = Peer::start(peer(&broker, &["hold", "vale0:c"])).expect_err("third");
    assert!(refused.contains("limits.ports"), "{refused}");
    let broker = TestBroker::start("[limits]\nsessions = 1\n");
    let _a = Peer::start(peer(&broker, &["hold", "vale0:a"])).expect("first");
    let refused = Peer::start(peer(&broker, &["hold", "vale0:b"])).expect_err("second");
    assert!(refused.contains("limits.sessions"), "{refused}");
}

/// A public switch of two users: its rings change hands when the second comes, and back when it leaves.
#[test]
fn a_public_switch_carries_packets_between_users() {
    if !root_or_skip("a_public_switch_carries_packets_between_users") {
        return;
    }
    let broker = TestBroker::start("admit = \"all\"\npublic_switches = [\"vale0\"]");
    let lease = |broker: &TestBroker| {
        let list = broker.json(&["ports", "--interval", "0"]);
        list[0]["lease"].as_str().unwrap().to_owned()
    };
    let rx = Peer::start(shared_peer(&broker, &["rx", "vale0:b"], 1001)).expect("receiver");
    let own = Peer::start(shared_peer(&broker, &["tx", "vale0:a"], 1001)).expect("sender of the same user");
    assert_eq!(lease(&broker), "direct");
    let tx =
        Peer::start(shared_peer(&broker, &["tx", "vale0:c", "20000"], 1002)).expect("sender of another user");
    let sent = tx.result();
    assert_eq!((sent[0], sent[1] + sent[2]), (20_000, 20_000 + sent[3]));
    let own = own.finish();
    assert_eq!(
        own[0] + own[3],
        own[1] + own[2],
        "of the first sender's packets some were neither delivered nor counted"
    );
    assert_eq!(lease(&broker), "direct");
    assert!(rx.finish()[0] > 0);
}

#[test]
fn a_pipe_between_root_and_a_user_loses_nothing() {
    if !root_or_skip("a_pipe_between_root_and_a_user_loses_nothing") {
        return;
    }
    let broker = TestBroker::start("admit = \"all\"");
    let rx = Peer::start(shared_peer(&broker, &["rx", "netmap:x{1", "50000"], 1001)).expect("receiver");
    let tx = Peer::start(peer(&broker, &["tx", "netmap:x}1", "50000"])).expect("sender");
    assert_eq!(tx.result()[0], 50_000);
    assert_eq!(rx.result(), [50_000, 0]);
}

fn misses(command: Command) -> u64 {
    let mut command = command;
    let out = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&out.stdout).trim().to_owned();
    said.parse().unwrap_or_else(|_| panic!("it said {said:?}"))
}

#[test]
fn what_a_txsync_sent_the_next_rxsync_finds_direct() {
    let broker = TestBroker::start("");
    for (a, b) in [("vale0:a", "vale0:b"), ("netmap:x{1", "netmap:x}1")] {
        assert_eq!(misses(peer(&broker, &["synchrony", a, b, "1000000"])), 0, "{a}");
    }
}

#[test]
fn what_a_txsync_sent_the_next_rxsync_finds_brokered() {
    if !root_or_skip("what_a_txsync_sent_the_next_rxsync_finds_brokered") {
        return;
    }
    let broker = TestBroker::start("admit = \"all\"\npublic_switches = [\"vale0\"]");
    let _other = Peer::start(shared_peer(&broker, &["hold", "vale0:z"], 1002)).expect("another user");
    let both = shared_peer(&broker, &["synchrony", "vale0:a", "vale0:b", "1000000"], 1001);
    assert_eq!(misses(both), 0);
}
