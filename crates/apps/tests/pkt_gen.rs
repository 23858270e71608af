//! pkt-gen as it is used: real processes, on switch ports and pipes of a broker of their own.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Far more than anything here takes.
const LIMIT: Duration = Duration::from_secs(60);

/// A broker of one test, in a folder of its own.
struct Broker {
    dir: PathBuf,
    child: Child,
    /// Kept open: the broker may speak.
    _stdout: BufReader<ChildStdout>,
}

impl Broker {
    fn start() -> Broker {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ringway-pktgen-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).unwrap();
        let config = dir.join("config.toml");
        fs::write(&config, "").unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_ringway"))
            .args(["broker", "run", "--stay", "--socket"])
            .arg(dir.join("sock"))
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let broker = Broker { dir, child, _stdout: stdout };
        assert_eq!(line.trim(), "ready");
        broker
    }

    /// Starts pkt-gen with the words of `line`.
    fn pkt_gen(&self, line: &str) -> PktGen {
        let mut child = Command::new(env!("CARGO_BIN_EXE_pkt-gen"))
            .args(line.split_whitespace())
            .env("RINGWAY_SOCKET", self.dir.join("sock"))
            .env("RINGWAYD", "/nonexistent")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (to_lines, lines) = channel();
        std::thread::spawn(move || {
            for text in BufReader::new(stderr).lines().map_while(Result::ok) {
                if to_lines.send(text).is_err() {
                    break;
                }
            }
        });
        let (to_out, out) = channel();
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stdout.read_to_string(&mut text);
            let _ = to_out.send(text);
        });
        PktGen {
            line: line.to_owned(),
            child,
            lines,
            seen: Vec::new(),
            out,
            deadline: Instant::now() + LIMIT,
        }
    }

    /// Starts a receiver, or whoever answers, and waits until its port is open.
    fn opened(&self, line: &str) -> PktGen {
        let mut program = self.pkt_gen(line);
        program.wait_for("Ready...");
        program
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A running pkt-gen; killed when dropped.
struct PktGen {
    line: String,
    child: Child,
    lines: Receiver<String>,
    /// Lines of stderr so far; D-lines without time, function and line number.
    seen: Vec<String>,
    out: Receiver<String>,
    deadline: Instant,
}

impl PktGen {
    /// The next line of stderr; `None` when it is closed.
    fn next_line(&mut self) -> Option<String> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match self.lines.recv_timeout(left) {
            Ok(line) => {
                let text = d_line(&line).unwrap_or(&line).to_owned();
                self.seen.push(text.clone());
                Some(text)
            }
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => None,
            Err(_) => panic!("pkt-gen {} takes too long; it said {:#?}", self.line, self.seen),
        }
    }

    /// Waits for a D-line of this pattern.
    fn wait_for(&mut self, pattern: &str) {
        while let Some(line) = self.next_line() {
            if fits(&line, pattern) {
                return;
            }
        }
        panic!("pkt-gen {} never said {pattern:?}, but {:#?}", self.line, self.seen);
    }

    fn interrupt(&self) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(pid, Signal::INT).unwrap();
    }

    /// Waits for its end.
    fn finish(mut self) -> Finished {
        while self.next_line().is_some() {}
        let left = self.deadline.saturating_duration_since(Instant::now());
        let out = self.out.recv_timeout(left).expect("stdout is closed by the end");
        // Both ends are closed: it has ended, or is about to.
        let status = self.child.wait().unwrap();
        let seen = std::mem::take(&mut self.seen);
        Finished { line: self.line.clone(), code: status.code(), out, seen }
    }
}

impl Drop for PktGen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The text of a D-line: `SSS.UUUUUU function [line] text`.
fn d_line(line: &str) -> Option<&str> {
    let (head, text) = line.split_once("] ")?;
    head.split_once(' ')?.0.parse::<f64>().is_ok().then_some(text)
}

/// What a pkt-gen left behind.
struct Finished {
    line: String,
    /// `None` after a signal.
    code: Option<i32>,
    out: String,
    seen: Vec<String>,
}

impl Finished {
    fn assert_code(&self, code: i32) {
        assert_eq!(self.code, Some(code), "pkt-gen {}: {}{:#?}", self.line, self.out, self.seen);
    }

    fn assert_prints(&self, pattern: &str) {
        let found = self.out.lines().any(|line| fits(line, pattern));
        assert!(found, "pkt-gen {}: no line {pattern:?} in\n{}", self.line, self.out);
    }

    fn assert_says(&self, pattern: &str) {
        let found = self.seen.iter().any(|line| fits(line, pattern));
        assert!(found, "pkt-gen {}: no line {pattern:?} in {:#?}", self.line, self.seen);
    }

    fn assert_never_says(&self, text: &str) {
        let found = self.seen.iter().find(|line| line.contains(text));
        assert_eq!(found, None, "pkt-gen {}", self.line);
    }

    /// Packets of the summary.
    fn packets(&self) -> u64 {
        let mut words = self.out.lines().filter_map(|line| {
            let rest = line.strip_prefix("Sent ").or_else(|| line.strip_prefix("Received "))?;
            rest.split(' ').next()?.parse().ok()
        });
        words.next().unwrap_or_else(|| panic!("pkt-gen {}: no summary in {}", self.line, self.out))
    }
}

/// True if `line` has the words of `pattern`, where `*` is any number; units may have a prefix (`Kpps` for `pps`).
fn fits(line: &str, pattern: &str) -> bool {
    let is_number = |word: &str| word.starts_with("0x") || word.parse::<f64>().is_ok();
    let same = |word: &str, wanted: &str| {
        let has_unit = wanted == "pkts" || wanted.starts_with("pps") || wanted.starts_with("bps");
        word == wanted
            || (wanted == "*" && is_number(word))
            || (wanted == "(*" && word.strip_prefix('(').is_some_and(is_number))
            || (has_unit && word.strip_prefix(['K', 'M', 'G', 'T']) == Some(wanted))
    };
    let words: Vec<_> = line.split_whitespace().collect();
    let wanted: Vec<_> = pattern.split_whitespace().collect();
    words.len() == wanted.len() && words.iter().zip(wanted).all(|(word, wanted)| same(word, wanted))
}

const INTERVAL: &str = "* pps (* pkts * bps in * usec) * avg_batch * min_space";
const SPEED: &str = "Speed: * pps Bandwidth: * bps (raw * bps). Average batch: * pkts";

#[test]
fn patterns_fit_numbers_and_units() {
    assert!(fits("14.880 Mpps (1.000 pkts 7.142 Gbps in 1000 usec) 5.00 avg_batch 9 min_space", INTERVAL));
    assert!(!fits("14.880 Mpps (1.000 pkts 7.142 Gbps in x usec) 5.00 avg_batch 9 min_space", INTERVAL));
    assert!(fits("Speed: 1.0 Kpps Bandwidth: 2 bps (raw 3 Mbps). Average batch: 4 pkts", SPEED));
}

#[test]
fn packets_cross_a_switch() {
    let broker = Broker::start();
    let rx = broker.opened("-i vale0:b -f rx -n 1000");
    // Not more than the receiving ring holds: a switch drops what does not fit.
    let tx = broker.pkt_gen("-i vale0:a -f tx -n 1000 -l 100").finish();
    tx.assert_code(0);
    tx.assert_prints("Sending on vale0:a: * queues, * threads and * cpus.");
    tx.assert_prints("10.0.0.1 -> 10.1.0.1 (00:00:00:00:00:00 -> ff:ff:ff:ff:ff:ff)");
    tx.assert_prints("Sent 1000 packets 100000 bytes * events 100 bytes each in * seconds.");
    tx.assert_prints(SPEED);
    tx.assert_says("Sending 512 packets every 0.000000000 s");
    tx.assert_says(INTERVAL);
    let rx = rx.finish();
    rx.assert_code(0);
    rx.assert_prints("Receiving from vale0:b: * queues, * threads and * cpus.");
    rx.assert_prints("Received 1000 packets 100000 bytes * events 100 bytes each in * seconds.");
    rx.assert_prints(SPEED);
    rx.assert_says(INTERVAL);
}

#[test]
fn a_pipe_loses_nothing() {
    let broker = Broker::start();
    let rx = broker.opened("-i netmap:x}1 -f rx -w 0 -n 300000");
    let tx = broker.pkt_gen("-i netmap:x{1 -f tx -w 0 -n 300000").finish();
    tx.assert_code(0);
    tx.assert_prints("Sent 300000 packets 18000000 bytes * events 60 bytes each in * seconds.");
    let rx = rx.finish();
    rx.assert_code(0);
    rx.assert_prints("Received 300000 packets 18000000 bytes * events 60 bytes each in * seconds.");
}

#[test]
fn every_slot_carries_the_frame_from_the_first_lap_on() {
    let broker = Broker::start();
    let rx = broker.opened("-i netmap:x}1 -f rx -w 0 -n 100 -X");
    // More laps than one around rings of 32 slots, and not a multiple of them.
    let tx = broker.pkt_gen("-i netmap:x{1@conf:slots=32 -f tx -w 0 -n 100 -b 7").finish();
    tx.assert_code(0);
    let rx = rx.finish();
    rx.assert_code(0);
    // The Ethernet header and the start of the IPv4 header.
    let good = "0: ff ff ff ff ff ff 00 00 00 00 00 00 08 00 45 10";
    assert_eq!(rx.out.lines().filter(|line| line.trim_start().starts_with(good)).count(), 100, "{}", rx.out);
}

#[test]
fn a_sender_needs_no_receiver() {
    let broker = Broker::start();
    let tx = broker.pkt_gen("-i vale0:a -f tx -n 100000").finish();
    tx.assert_code(0);
    assert_eq!(tx.packets(), 100_000);
}

#[test]
fn threads_share_the_rings_and_the_count() {
    let broker = Broker::start();
    let rx = broker.opened("-i vale0:b -C 1024,1024,2,2 -f rx -n 1001");
    let tx = broker.pkt_gen("-i vale0:a -C 1024,1024,2,2 -p 2 -f tx -n 1001").finish();
    tx.assert_code(0);
    tx.assert_prints("Sending on vale0:a: 2 queues, 2 threads and * cpus.");
    tx.assert_says("txr 2 txd 1024 rxr 2 rxd 1024");
    assert_eq!(tx.packets(), 1001);
    let rx = rx.finish();
    rx.assert_code(0);
    assert_eq!(rx.packets(), 1001);

    let tx = broker.pkt_gen("-i vale0:a -p 3 -C 1024,1024,2,2 -f tx -n 10").finish();
    tx.assert_code(1);
    tx.assert_says("bad nthreads 3, have 2 queues");
}

#[test]
fn ping_measures_round_trips() {
    let broker = Broker::start();
    let pong = broker.opened("-i vale0:b -f pong -n 200");
    let ping = broker.pkt_gen("-i vale0:a -f ping -n 200").finish();
    ping.assert_code(0);
    ping.assert_says("RTT over 200 packets: min * av * ns");
    ping.assert_never_says("timeout");
    pong.finish().assert_code(0);
}

#[test]
fn ping_reports_each_second() {
    let broker = Broker::start();
    let pong = broker.opened("-i netmap:x}1 -f pong -w 0");
    let mut ping = broker.pkt_gen("-i netmap:x{1 -f ping -w 0");
    ping.wait_for("count * RTT: min * av * ns");
    ping.wait_for("k: * .. *");
    ping.interrupt();
    let ping = ping.finish();
    ping.assert_code(0);
    ping.assert_says("RTT over * packets: min * av * ns");
    pong.interrupt();
    pong.finish().assert_code(0);
}

#[test]
fn numbers_cross_a_pipe_without_gaps() {
    let broker = Broker::start();
    let rx = broker.opened("-i netmap:x}1 -f rxseq -W -w 0");
    let mut tx = broker.pkt_gen("-i netmap:x{1 -f txseq -w 0 -T 100 -n 5");
    tx.wait_for("Ignoring -n argument");
    tx.wait_for(INTERVAL);
    tx.interrupt();
    let tx = tx.finish();
    tx.assert_code(0);
    // Silence ends it.
    let rx = rx.finish();
    rx.assert_code(0);
    rx.assert_never_says("GAP");
    rx.assert_never_says("OUT OF ORDER");
    rx.assert_never_says("expected");
    assert_eq!(rx.packets(), tx.packets());
}

#[test]
fn virtio_net_headers_are_agreed_with_the_port() {
    let broker = Broker::start();
    // The second receiver learns from the port what the first one set.
    let setter = broker.opened("-i vale0:b -f rx -H 12");
    let mut learner = broker.pkt_gen("-i vale0:b -f rx");
    learner.wait_for("Port requires virtio-net header, length = 12");
    learner.interrupt();
    learner.finish().assert_code(0);
    let tx = broker.pkt_gen("-i vale0:a -f tx -H 12 -n 100").finish();
    tx.assert_code(0);
    tx.assert_prints("Sent 100 packets 7200 bytes * events 72 bytes each in * seconds.");
    setter.interrupt();
    setter.finish().assert_code(0);
}

#[test]
fn control_c_ends_with_a_summary_even_when_it_comes_twice() {
    let broker = Broker::start();
    let mut tx = broker.pkt_gen("-i vale0:a -f tx -T 50");
    tx.wait_for(INTERVAL);
    // As `timeout -s INT` does.
    tx.interrupt();
    tx.interrupt();
    let tx = tx.finish();
    tx.assert_code(0);
    tx.assert_says("received control-C on thread *");
    assert!(tx.packets() > 0);

    let mut rx = broker.pkt_gen("-i vale0:a -f rx");
    rx.wait_for("Ready...");
    rx.interrupt();
    let rx = rx.finish();
    rx.assert_code(0);
    rx.assert_prints("Received nothing.");
}

#[test]
fn what_cannot_be_opened_is_told_in_a_line() {
    let broker = Broker::start();
    for (line, want) in [
        ("-i vale0:a@nonsense -f tx", "vale0:a@nonsense: unknown option: 'nonsense'"),
        ("-i netmap:no-such-interface -f tx", "netmap:no-such-interface: "),
        ("-i vale0:a-0 -p 2 -f tx", "vale0:a-0: binds only some rings"),
        ("-f nonsense -i vale0:a -n x", "bad option"),
    ] {
        let program = broker.pkt_gen(line).finish();
        program.assert_code(255);
        let whole = program.seen.join("\n");
        assert!(whole.contains(want), "{line}: {whole}");
    }
    let program = broker.opened("-i vale0:a/x -f rx");
    let second = broker.pkt_gen("-i vale0:a -f rx -n 1").finish();
    second.assert_code(255);
    program.interrupt();
    program.finish().assert_code(0);
}

#[test]
fn the_end_of_the_broker_is_an_error() {
    let mut broker = Broker::start();
    let rx = broker.opened("-i vale0:a -f rx");
    broker.child.kill().unwrap();
    let rx = rx.finish();
    rx.assert_says("vale0:a: the broker is gone; open the port again");
    rx.assert_says("fd error");
}
