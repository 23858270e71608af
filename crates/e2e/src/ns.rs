//! Network namespaces for tests, and veth pairs between them. Nothing here touches interfaces of the namespace that the test began in.

use ringway_os::link::{new_netns, with_netns};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Command;

/// A network namespace of this test alone, gone when dropped.
#[derive(Debug)]
pub struct Ns {
    fd: OwnedFd,
}

impl Ns {
    /// A new one, with loopback up and without IPv6 (no neighbour discovery among frames that are counted).
    /// None, said loudly, if that is not permitted.
    ///
    /// # Panics
    /// If a command fails in it.
    pub fn new(test: &str) -> Option<Ns> {
        let fd = match new_netns() {
            Ok(fd) => fd,
            Err(e) => {
                println!("SKIP {test}: no network namespace: {e}");
                return None;
            }
        };
        let ns = Ns { fd };
        ns.run(|| {
            let _ = std::fs::write("/proc/thread-self/sys/net/ipv6/conf/all/disable_ipv6", "1");
            let _ = std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
            let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
        });
        ns.sh("ip link set lo up");
        Some(ns)
    }

    /// Runs `work` in a thread in it.
    ///
    /// # Panics
    /// If it cannot be entered, or `work` panics.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        with_netns(self.fd.as_fd(), work).expect("the namespace is ours")
    }

    /// Runs a command in it and returns what it prints.
    ///
    /// # Panics
    /// If it fails.
    pub fn sh(&self, command: &str) -> String {
        let (ok, text) = self.try_sh(command);
        assert!(ok, "{command}: {text}");
        text
    }

    /// As [`Ns::sh`]; false if the command fails.
    ///
    /// # Panics
    /// If there is no such command.
    pub fn try_sh(&self, command: &str) -> (bool, String) {
        let out = self.run(|| Command::new("sh").args(["-c", command]).output()).expect("sh runs");
        let text = [out.stdout, out.stderr].concat();
        (out.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    /// How other processes name it: a path to its file.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd())
    }
}

/// Two namespaces, `a` with interface `va` (10.77.0.1), `b` with `vb` (10.77.0.2), a veth pair.
#[derive(Debug)]
pub struct Pair {
    /// Has `va`.
    pub a: Ns,
    /// Has `vb`.
    pub b: Ns,
}

/// Address of `va`.
pub const MAC_A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
/// Address of `vb`.
pub const MAC_B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];

impl Pair {
    /// A pair with so many queues in each direction. Each side knows the other's address, so nobody asks.
    ///
    /// # Panics
    /// If a command fails.
    pub fn new(test: &str, queues: u32) -> Option<Pair> {
        let (a, b) = (Ns::new(test)?, Ns::new(test)?);
        let q = format!("numtxqueues {queues} numrxqueues {queues}");
        a.sh(&format!("ip link add va {q} type veth peer name vb {q}"));
        a.sh(&format!("ip link set vb netns {}", b.path()));
        a.sh("ip link set va address 02:00:00:00:00:0a; ip addr add 10.77.0.1/24 dev va; ip link set va up");
        b.sh("ip link set vb address 02:00:00:00:00:0b; ip addr add 10.77.0.2/24 dev vb; ip link set vb up");
        a.sh("ip neigh add 10.77.0.2 lladdr 02:00:00:00:00:0b dev va nud permanent");
        b.sh("ip neigh add 10.77.0.1 lladdr 02:00:00:00:00:0a dev vb nud permanent");
        Some(Pair { a, b })
    }

    /// XDP programs on `va`, as `ip link` shows them; empty if none.
    ///
    /// # Panics
    /// If it is gone.
    pub fn xdp_on_a(&self) -> String {
        let text = self.a.sh("ip -d link show va");
        text.lines().filter(|l| l.contains("xdp")).map(str::trim).collect::<Vec<_>>().join("; ")
    }
}
