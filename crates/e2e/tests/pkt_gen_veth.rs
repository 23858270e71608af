//! pkt-gen over a veth pair between two network namespaces: with itself at both ends, and with the host's own stack at one.
#![forbid(unsafe_code)]

use ringway_e2e::ns::{Ns, Pair};
use ringway_e2e::{TestBroker, root_or_skip};
use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::process::{Child, ChildStderr, Stdio};
use std::time::Duration;

const PACKETS: u64 = 800;

/// A pkt-gen in a namespace; killed when dropped.
struct PktGen {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

impl PktGen {
    fn start(broker: &TestBroker, ns: &Ns, line: &str) -> Self {
        let mut command = broker.command("pkt-gen");
        command.args(line.split_whitespace());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = ns.run(|| command.spawn().expect("pkt-gen starts"));
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        PktGen { child, stderr }
    }

    /// Waits until it says so.
    fn wait_for(&mut self, text: &str) {
        let mut all = String::new();
        while !all.contains(text) {
            let read = self.stderr.read_line(&mut all).expect("words");
            assert_ne!(read, 0, "it never said {text:?}: {all}");
        }
    }

    /// What it printed in the end: `Sent N packets ...`, `Received N packets ...`; N.
    fn packets(&mut self) -> u64 {
        let (mut out, mut err) = (String::new(), String::new());
        self.stderr.read_to_string(&mut err).expect("words");
        self.child.stdout.take().expect("piped").read_to_string(&mut out).expect("words");
        let status = self.child.wait().expect("our child");
        let line = out.lines().find(|l| l.starts_with("Sent ") || l.starts_with("Received "));
        let number = line.and_then(|l| l.split(' ').nth(1)?.parse().ok());
        number.unwrap_or_else(|| panic!("{status}: {out}{err}"))
    }
}

impl Drop for PktGen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(test: &str) -> Option<(Pair, TestBroker)> {
    if !root_or_skip(test) {
        return None;
    }
    Some((Pair::new(test, 1)?, TestBroker::start("")))
}

#[test]
fn pkt_gen_sends_over_veth_to_pkt_gen() {
    let Some((pair, broker)) = start("pkt_gen_sends_over_veth_to_pkt_gen") else { return };
    for mode in ["", "@mode=generic", "@mode=packet"] {
        let mut rx = PktGen::start(&broker, &pair.b, &format!("-i netmap:vb{mode} -f rx -w 0 -W"));
        rx.wait_for("Ready...");
        // No more than the rings on the way hold, so that each packet must arrive, however busy the machine.
        let line = format!("-i netmap:va{mode} -f tx -w 0 -n {PACKETS} -R 20000 -D 02:00:00:00:00:0b");
        let sent = PktGen::start(&broker, &pair.a, &line).packets();
        assert_eq!(sent, PACKETS, "{mode}");
        // A second of silence ends it.
        let got = rx.packets();
        assert!((PACKETS..PACKETS + 100).contains(&got), "{mode}: {got}");
    }
}

#[test]
fn what_pkt_gen_sends_arrives_in_an_ordinary_udp_socket() {
    let Some((pair, broker)) = start("what_pkt_gen_sends_arrives_in_an_ordinary_udp_socket") else { return };
    let socket = pair.b.run(|| UdpSocket::bind("10.77.0.2:7000").expect("a socket"));
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket");
    let line = "-i netmap:va -f tx -w 0 -n 500 -R 5000 -l 200 -s 10.77.0.1:4000 -d 10.77.0.2:7000 -S 02:00:00:00:00:0a -D 02:00:00:00:00:0b";
    let mut tx = PktGen::start(&broker, &pair.a, line);
    let mut buf = [0; 2000];
    for i in 0..500 {
        let (len, from) = socket.recv_from(&mut buf).unwrap_or_else(|e| panic!("datagram {i}: {e}"));
        // Without Ethernet, IP and UDP headers.
        assert_eq!((len, from.to_string()), (200 - 42, "10.77.0.1:4000".to_owned()));
    }
    assert_eq!(tx.packets(), 500);
}

#[test]
fn gen_says_which_way_it_goes_and_refuses_what_the_interface_would_drop() {
    let Some((pair, broker)) = start("gen_says_which_way_it_goes_and_refuses_what_the_interface_would_drop")
    else {
        return;
    };
    let run = |size: &str| {
        let mut command = broker.command("ringway");
        command.args(["gen", "netmap:va", "vale0:b", "--duration", "0.2", "--size", size]);
        let out = pair.a.run(|| command.output().expect("ringway runs"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (out.status.code(), text(&out.stdout), text(&out.stderr))
    };
    let (status, out, err) = run("1514");
    assert!(status == Some(1) && out.contains("netmap:va (xdp native copy)"), "{out} {err}");
    let (status, out, err) = run("1515");
    assert!(
        status == Some(2) && out.is_empty() && err.contains("1515 bytes does not fit the MTU of 1500"),
        "{out} {err}"
    );
}
