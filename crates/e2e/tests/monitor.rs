//! Monitors between processes, through the real broker. Source: semantics.md 22.

use ringway_e2e::{Peer, TestBroker, eventually, root_or_skip};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const PEER: &str = env!("CARGO_BIN_EXE_e2e-peer");

fn peer(broker: &TestBroker, args: &[&str]) -> Command {
    let mut c = broker.command_at(Path::new(PEER));
    c.args(args);
    c
}

fn start(broker: &TestBroker, args: &[&str]) -> Peer {
    Peer::start(peer(broker, args)).unwrap_or_else(|e| panic!("{args:?}: {e}"))
}

/// The program of the tests, where user `uid` can run it.
fn peer_of(broker: &TestBroker, uid: u32, args: &[&str]) -> Command {
    let copy = broker.dir.path().join("e2e-peer");
    if !copy.exists() {
        ringway_e2e::copy_program(Path::new(PEER), &copy);
    }
    let mut c = broker.command_at(&copy);
    c.args(args).uid(uid).gid(uid);
    c
}

fn ports(broker: &TestBroker) -> Vec<serde_json::Value> {
    broker.json(&["ports", "--interval", "0"]).as_array().expect("a list").clone()
}

fn find(broker: &TestBroker, name: &str) -> Option<serde_json::Value> {
    ports(broker).into_iter().find(|p| p["name"] == name)
}

const COUNT: u64 = 200_000;

/// Both directions of watching, copy and zero-copy, on a pipe and a switch: what was seen and what was skipped is what passed, and
/// the ends lose nothing by it.
#[test]
fn what_monitors_see_and_skip_is_what_passed() {
    let broker = TestBroker::start("");
    for [tx, rx] in [["netmap:x{1", "netmap:x}1"], ["vale0:a", "vale0:b"]] {
        for watch in ["rt", "z"] {
            let receiver = start(&broker, &["rx", rx]);
            // The sender's port must be open before it is watched; it sends when asked.
            let holder = start(&broker, &["mute", tx]);
            let of_tx = start(&broker, &["monitor", &format!("{tx}/{watch}")]);
            let of_rx = start(&broker, &["monitor", &format!("{rx}/{watch}")]);
            let own = tx.trim_start_matches("netmap:");
            assert_eq!(find(&broker, own).expect("the port")["lease"], "brokered");
            let sent = start(&broker, &["tx", tx, &COUNT.to_string()]).result();
            assert_eq!(sent[0], COUNT);
            let arrived = if tx.starts_with("vale") { sent[1] } else { COUNT };
            let counted = |letters: &str, name: &str, count: u64| {
                let name = format!("{}/{letters}#0", name.trim_start_matches("netmap:"));
                eventually(&format!("{name} has counted {count}"), || {
                    let port = find(&broker, &name).expect("the monitor");
                    let drops = port["rx"]["drops"]
                        .as_object()
                        .map_or(0, |d| d.values().map(|v| v.as_u64().expect("a number")).sum());
                    port["rx"]["packets"].as_u64().expect("a number") + drops >= count
                });
            };
            eventually("all have arrived", || {
                find(&broker, rx.trim_start_matches("netmap:")).expect("the port")["rx"]["packets"] == arrived
            });
            // On a pipe a zero-copy monitor of the sender sees what the sender's next sync takes back.
            let last = if watch == "z" && !tx.starts_with("vale") { COUNT - 1024 } else { COUNT };
            let letters = if watch == "z" { "zrt" } else { "rt" };
            counted(letters, tx, last);
            counted(letters, rx, arrived.saturating_sub(if watch == "z" { 1024 } else { 0 }));
            for (monitor, most, is_tx) in [(of_tx, COUNT, true), (of_rx, arrived, false)] {
                let seen = monitor.finish();
                let [packets, jumps, skipped] = seen[..] else { panic!("{seen:?}") };
                assert!(packets > 0 && packets + skipped <= most, "{tx} {watch}: {seen:?} of {most}");
                // Numbers jump only where the monitor had no room, or (at the receiver) where the switch dropped; and what comes
                // back to a pipe's sender after another monitor took the buffers at the receiver are other buffers.
                let others = watch == "z" && is_tx && tx.starts_with("netmap");
                if skipped == 0 && arrived == COUNT && !others {
                    assert_eq!(jumps, 0, "{tx} {watch}");
                }
            }
            let got = receiver.finish();
            assert_eq!(got[0], arrived);
            assert!(!tx.starts_with("netmap") || got[1] == 0, "a pipe lost or doubled something");
            holder.finish();
            eventually("all is gone", || ports(&broker).is_empty());
        }
    }
}

/// Rings change hands at full speed, under a numbered stream: nothing is lost, doubled or out of order.
#[test]
fn monitors_that_come_and_go_disturb_nothing() {
    let broker = TestBroker::start("");
    let rx = start(&broker, &["rx", "netmap:x}1", "1000000"]);
    // Both ends stay in netmap mode longer than their monitors.
    let holders = ["netmap:x{1", "netmap:x}1"].map(|end| start(&broker, &["mute", end]));
    let churns: Vec<Peer> = ["netmap:x{1/t", "netmap:x}1/r", "netmap:x}1/z", "netmap:x{1/z"]
        .map(|name| start(&broker, &["churn", name]))
        .into();
    let tx = start(&broker, &["tx", "netmap:x{1", "1000000"]);
    assert_eq!(tx.result()[0], 1_000_000);
    let mut opens = 0;
    for (i, churn) in churns.into_iter().enumerate() {
        let said = churn.finish();
        assert!(said[0] > 10, "monitor {i} was opened {} times only", said[0]);
        opens += said[0];
        // A zero-copy monitor may have another before it in the chain, which skips.
        assert!(i > 1 || said[2] == 0, "monitor {i} missed something: {said:?}");
    }
    assert_eq!(rx.result(), [1_000_000, 0], "after {opens} changes of hands");
    drop(holders);
    eventually("all is gone", || ports(&broker).is_empty());
}

#[test]
fn on_a_switch_every_packet_is_still_received_or_counted() {
    let broker = TestBroker::start("");
    let rx = start(&broker, &["rx", "vale0:b"]);
    let holder = start(&broker, &["mute", "vale0:a@conf:rings=1"]);
    let churns: Vec<Peer> =
        ["vale0:b/r", "vale0:b/z", "vale0:a/rt"].map(|name| start(&broker, &["churn", name])).into();
    let sent = start(&broker, &["tx", "vale0:a", "1000000"]).result();
    let [packets, delivered, drops, copies] = sent[..] else { panic!("{sent:?}") };
    assert_eq!((packets, packets + copies), (1_000_000, delivered + drops));
    eventually("all that was delivered is received", || {
        find(&broker, "vale0:b").expect("the port")["rx"]["packets"] == delivered
    });
    for churn in churns {
        assert!(churn.finish()[0] > 10);
    }
    assert_eq!(rx.finish()[0], delivered);
    holder.finish();
}

/// Stops a process some times, each time for longer than the broker waits for who holds a ring. Its result.
fn stumble(mut peer: Peer) -> Vec<u64> {
    let mut pause_us = 1_000;
    for _ in 0..60 {
        if let Some(line) = peer.line_within(Duration::from_micros(pause_us)) {
            return line.split(' ').map(|n| n.parse().unwrap_or_else(|_| panic!("{line:?}"))).collect();
        }
        peer.freeze();
        std::thread::sleep(Duration::from_millis(40));
        peer.thaw();
        pause_us = 500 + (pause_us * 7 + 331) % 4_000;
    }
    peer.result()
}

/// Rings change hands while who has them is stopped, often in the middle of a sync: nothing is lost, doubled, or counted wrongly.
#[test]
fn whoever_is_stopped_loses_nothing_when_rings_change_hands() {
    let broker = TestBroker::start("");
    for (tx, rx, watched) in [
        ("vale0:a", "vale0:b", "vale0:a/t"),
        ("vale0:a", "vale0:b", "vale0:b/r"),
        ("vale0:a", "vale0:b", "vale0:b/z"),
        ("netmap:x{1", "netmap:x}1", "netmap:x{1/t"),
        ("netmap:x{1", "netmap:x}1", "netmap:x}1/z"),
    ] {
        let receiver = start(&broker, &["rx", rx]);
        let holder = start(&broker, &["mute", tx]);
        let churn = start(&broker, &["churn", watched]);
        let sent = stumble(start(&broker, &["tx", tx, "200000"]));
        assert!(churn.finish()[0] > 10, "{watched}");
        assert_eq!(sent[0], 200_000);
        let arrived = if tx.starts_with("vale") {
            assert_eq!(sent[0] + sent[3], sent[1] + sent[2], "{watched}: {sent:?}");
            sent[1]
        } else {
            let counted = find(&broker, "x{1").expect("the port")["tx"]["packets"].clone();
            assert_eq!(counted, sent[0], "{watched}");
            sent[0]
        };
        eventually("all that was delivered is received", || {
            find(&broker, rx.trim_start_matches("netmap:")).expect("the port")["rx"]["packets"] == arrived
        });
        let got = receiver.finish();
        assert_eq!(got[0], arrived, "{watched}");
        assert!(!tx.starts_with("netmap") || got[1] == 0, "{watched}: a pipe lost or doubled something");
        holder.finish();
        eventually("all is gone", || ports(&broker).is_empty());
    }
}

#[test]
fn whoever_is_killed_the_others_go_on() {
    let broker = TestBroker::start("");
    let rx = start(&broker, &["rx", "netmap:x}1", "2000000"]);
    // The ends outlive the stream, which may be over before the last monitor comes.
    let mut holder = start(&broker, &["mute", "netmap:x{1"]);
    let far_holder = start(&broker, &["mute", "netmap:x}1"]);
    let tx = start(&broker, &["tx", "netmap:x{1", "2000000"]);
    for round in 0..40 {
        let names = ["netmap:x{1/rt", "netmap:x}1/z", "netmap:x}1/r"];
        let mut monitor = start(&broker, &["monitor", names[round % 3]]);
        eventually("the monitor sees something", || {
            let seen = |p: &serde_json::Value| p["kind"] == "monitor" && p["rx"]["packets"] != 0;
            // The stream may be over; then there is nothing more to see.
            ports(&broker).iter().any(seen)
                || find(&broker, "x{1").is_none_or(|p| p["tx"]["packets"] == 2_000_000)
        });
        monitor.kill();
    }
    assert_eq!(tx.result()[0], 2_000_000);
    assert_eq!(rx.result(), [2_000_000, 0]);
    // The parent dies: its monitor's syncs fail, and a new one is needed.
    let monitor = start(&broker, &["monitor", "netmap:x{1/t"]);
    holder.kill();
    let mut monitor = monitor;
    let said = monitor.line();
    assert!(said.starts_with("error"), "{said}");
    drop((monitor, far_holder));
    eventually("all is gone", || ports(&broker).is_empty());
}

#[test]
fn a_monitor_that_never_reads_stops_nobody() {
    let broker = TestBroker::start("");
    for [tx, rx] in [["netmap:x{1", "netmap:x}1"], ["vale0:a", "vale0:b"]] {
        let receiver = start(&broker, &["rx", rx]);
        let holder = start(&broker, &["mute", tx]);
        let deaf: Vec<Peer> = ["/rt", "/z"].map(|w| start(&broker, &["mute", &format!("{tx}{w}")])).into();
        let sent = start(&broker, &["tx", tx, &COUNT.to_string()]).result();
        assert_eq!(sent[0], COUNT);
        for (i, monitor) in deaf.into_iter().enumerate() {
            let said = monitor.finish();
            // A ring of 1024 slots holds 1023; of a pipe's last slots a zero-copy monitor hears at the next sync.
            assert_eq!(said[0], 1023, "{tx} {i}");
            assert!(i == 1 || said[0] + said[1] == COUNT, "{tx}: {said:?}");
        }
        let arrived = if tx.starts_with("vale") { sent[1] } else { COUNT };
        eventually("all have arrived", || {
            find(&broker, rx.trim_start_matches("netmap:")).expect("the port")["rx"]["packets"] == arrived
        });
        assert_eq!(receiver.finish()[0], arrived);
        holder.finish();
    }
}

#[test]
fn a_sleeping_monitor_is_woken_and_an_idle_port_is_refused() {
    let broker = TestBroker::start("");
    for name in ["vale0:a/t", "netmap:x{1/r", "vale0:a/z"] {
        let refused = Peer::start(peer(&broker, &["wait", name])).expect_err(name);
        assert!(refused.contains("nothing to monitor"), "{name}: {refused}");
    }
    for (own, other, watch) in [
        ("vale0:a", "vale0:b", "vale0:a/t"),
        ("vale0:a", "vale0:b", "vale0:b/r"),
        ("vale0:a", "vale0:b", "vale0:a/z"),
        ("netmap:x{1", "netmap:x}1", "netmap:x{1/t"),
        ("netmap:x{1", "netmap:x}1", "netmap:x}1/r"),
    ] {
        let _held = [start(&broker, &["mute", own]), start(&broker, &["mute", other])];
        let sleeper = start(&broker, &["wait", watch]);
        assert_eq!(start(&broker, &["tx", own, "1"]).result()[0], 1);
        let said = sleeper.result();
        assert!(said[0] == 1 && said[1] < 5_000, "{watch}: {said:?}");
    }
    // The receiver of a watched switch port sleeps on a ring that the broker serves.
    let _a = start(&broker, &["mute", "vale0:a"]);
    let sleeper = start(&broker, &["wait", "vale0:b"]);
    let _z = start(&broker, &["mute", "vale0:b/z"]);
    assert_eq!(start(&broker, &["tx", "vale0:a", "1"]).result()[0], 1);
    let said = sleeper.result();
    assert!(said[0] == 1 && said[1] < 5_000, "{said:?}");
}

#[test]
fn only_the_owner_and_root_may_watch() {
    if !root_or_skip("only_the_owner_and_root_may_watch") {
        return;
    }
    let broker = TestBroker::start("admit = \"all\"\npublic_switches = [\"vale0\"]");
    let _a = Peer::start(peer_of(&broker, 1001, &["hold", "vale0:a"])).expect("holder");
    let _x = Peer::start(peer_of(&broker, 1001, &["hold", "netmap:x{1"])).expect("holder");
    let _b =
        Peer::start(peer_of(&broker, 1002, &["hold", "vale0:b"])).expect("a member of the public switch");
    for name in ["vale0:a/rt", "vale0:a/z", "netmap:x{1/t", "netmap:x}1/r"] {
        let refused = Peer::start(peer_of(&broker, 1002, &["mute", name])).expect_err(name);
        assert!(refused.contains("another user"), "{name}: {refused}");
    }
    for name in ["vale0:a/rt", "vale0:a/z", "netmap:x{1/t"] {
        for uid in [1001, 0] {
            let monitor = Peer::start(peer_of(&broker, uid, &["mute", name]));
            assert!(monitor.is_ok(), "{name} by {uid}: {monitor:?}");
        }
    }
    let _m = Peer::start(peer_of(&broker, 1001, &["mute", "vale0:a/rt"])).expect("the owner");
    let listed = ports(&broker).into_iter().find(|p| p["kind"] == "monitor").expect("the monitor");
    assert_eq!(listed["watches"], "vale0:a");
    let limited = TestBroker::start("[limits]\nports = 2\n");
    let _a = start(&limited, &["mute", "vale0:a"]);
    let _m = start(&limited, &["mute", "vale0:a/t"]);
    let refused = Peer::start(peer(&limited, &["mute", "vale0:a/t"])).expect_err("monitors count as ports");
    assert!(refused.contains("limits.ports"), "{refused}");
}
