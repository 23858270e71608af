//! A broker whose starter has small limits (ulimit): it refuses with a reason, rests, and serves again when it can.

use ringway_e2e::TestBroker;
use ringway_os::sock::Conn;
use std::process::Output;
use std::time::{Duration, Instant};

/// A broker started by a shell with these limits.
fn limited(limits: &str) -> TestBroker {
    TestBroker::start_through(&["bash", "-c", &format!("{limits}; exec \"$0\" \"$@\"")], "")
}

fn run(broker: &TestBroker, program: &str, args: &[&str]) -> (bool, String) {
    let Output { status, stdout, stderr } = broker.command(program).args(args).output().unwrap();
    (status.success(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

/// Time on the processor that a process has had.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit_once(") ").unwrap().1;
    let ticks: u64 = after_name.split(' ').skip(11).take(2).map(|n| n.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

#[test]
fn a_broker_without_files_says_so_and_rests_until_there_are_some() {
    let broker = limited("ulimit -n 32");
    let held: Vec<Conn> = (0..40).filter_map(|_| Conn::connect(&broker.socket()).ok()).collect();
    let (ok, said) = run(&broker, "ringway", &["broker", "status"]);
    assert!(!ok && said.contains("too many files"), "{said}");
    let (ok, said) = run(&broker, "pkt-gen", &["-i", "vale0:a", "-f", "tx", "-n", "1"]);
    assert!(!ok && said.contains("too many files"), "{said}");

    let (before, began) = (cpu(broker.pid()), Instant::now());
    ringway_os::sys::sleep(Duration::from_millis(500));
    let (used, time) = (cpu(broker.pid()) - before, began.elapsed());
    assert!(used < time / 5, "busy for {used:?} of {time:?}");

    drop(held);
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let (ok, said) = run(&broker, "pkt-gen", &["-i", "vale0:a", "-f", "tx", "-n", "1"]);
        if ok {
            break;
        }
        assert!(Instant::now() < deadline, "{said}");
    }
}

#[test]
fn a_request_whose_files_do_not_fit_is_told_why() {
    let broker = limited("ulimit -n 32");
    // One connection more each time: sooner or later the connection fits, and what comes with its requests does not.
    let mut held = vec![];
    let mut refusals = vec![];
    while held.len() < 32 {
        let (ok, said) = run(&broker, "pkt-gen", &["-i", "vale0:a", "-f", "tx", "-n", "1"]);
        if !ok {
            let why = said.lines().find(|l| l.starts_with("vale0:a: ")).unwrap_or(&said).to_owned();
            assert!(why.contains("oo many"), "{said}");
            refusals.push(why);
        }
        held.push(Conn::connect(&broker.socket()).unwrap());
    }
    assert!(refusals.len() > 3, "{refusals:?}");
}

#[test]
fn a_small_limit_of_file_sizes_ends_no_broker() {
    let sends = ["-i", "vale0:a", "-f", "tx", "-n", "1"];
    // The soft limit is for whoever started the broker.
    let broker = limited("ulimit -S -f 0");
    let (ok, said) = run(&broker, "pkt-gen", &sends);
    assert!(ok, "{said}");

    let broker = limited("ulimit -H -S -f 0");
    for _ in 0..2 {
        let (ok, said) = run(&broker, "pkt-gen", &sends);
        assert!(!ok && said.contains("File too large"), "{said}");
    }
}
