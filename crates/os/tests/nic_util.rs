//! What the tests of network interfaces share: a namespace of their own for each, and commands in it.
#![allow(dead_code, reason = "not every test needs all of this")]

use std::process::Command;
use std::time::{Duration, Instant};

use ringway_os::link::Link;

/// Runs a test in a thread with a new network namespace, which vanishes with it. Prints SKIP if that is not
/// permitted.
pub fn in_namespace(test: &str, body: impl FnOnce() + Send) {
    std::thread::scope(|s| {
        let helper = s.spawn(move || {
            // SAFETY: a new network namespace for this thread only; no memory or file is concerned.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                println!("SKIP {test}: no network namespace: {}", std::io::Error::last_os_error());
                return;
            }
            // No neighbour discovery among the frames that are counted.
            let _ = std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
            let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
            body();
        });
        if let Err(panic) = helper.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Runs a command in the namespace of the calling thread.
pub fn sh(command: &str) {
    let mut words = command.split_whitespace();
    let out =
        Command::new(words.next().unwrap()).args(words).output().unwrap_or_else(|e| panic!("{command}: {e}"));
    assert!(out.status.success(), "{command}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Makes a veth pair with so many queues each way, and sets it up. Gives the indexes.
pub fn veth(a: &str, b: &str, queues: u32) -> (u32, u32) {
    sh(&format!(
        "ip link add {a} numrxqueues {queues} numtxqueues {queues} type veth peer name {b} numrxqueues {queues} numtxqueues {queues}"
    ));
    for name in [a, b] {
        sh(&format!("ip link set {name} up"));
    }
    (Link::by_name(a).unwrap().ifindex, Link::by_name(b).unwrap().ifindex)
}

/// Waits until `done`, or fails after two seconds.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(2);
    while !done() {
        assert!(Instant::now() < end, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// An Ethernet frame with a body that depends on `seed`; of a type that no host cares for.
pub fn frame(seed: u32, len: usize) -> Vec<u8> {
    let mut f = vec![0xff; 6];
    f.extend([2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    f.extend(seed.to_be_bytes());
    while f.len() < len {
        let n = f.len() as u32;
        f.push((n.wrapping_mul(31) ^ seed.wrapping_mul(0x9e37)) as u8);
    }
    f
}
