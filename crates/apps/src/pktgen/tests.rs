//! Whole runs against rings in memory, in a time that only the runs themselves move.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use super::device::{Events, NS_BUF_CHANGED, NS_INDIRECT, NS_MOREFRAG, NS_REPORT, OpenError, Ring};
use super::memory::MemRing;
use super::*;
use crate::units::SharedBytes;

const SLOTS: u32 = 64;
const BUF: usize = 2048;

/// Time goes on when somebody waits. The main thread waits for the workers, not for time, so that only they
/// move it.
#[derive(Clone, Debug)]
struct TestClock(Arc<AtomicU64>);

impl TestClock {
    fn new() -> TestClock {
        TestClock(Arc::new(AtomicU64::new(5_000_000_000)))
    }
}

impl Clock for TestClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::SeqCst))
    }
    fn wall(&self) -> Duration {
        self.now()
    }
    fn sleep(&self, time: Duration) {
        self.0.fetch_add(time.as_nanos() as u64, Ordering::SeqCst);
    }
    fn pause(&self) {
        self.sleep(Duration::from_micros(1));
    }
    fn wait(&self, latch: &Latch, _: Duration) -> bool {
        latch.wait(None)
    }
}

/// Data and flags of a slot.
type Packet = (Vec<u8>, u16);

/// What a receive poll finds.
#[derive(Clone, Debug)]
enum Arrival {
    /// Packets, all in receive ring 0.
    Packets(Vec<Packet>),
    /// Silence, for as long as the poll waits.
    Silence,
    /// An event alone.
    Event(Events),
    /// A poll that fails.
    Error(i32),
}

/// A port whose wire is a script and a record.
#[derive(Clone, Debug)]
struct SimPort {
    clock: TestClock,
    cancel: Arc<AtomicBool>,
    arrivals: VecDeque<Arrival>,
    /// What happens at the end of the script: control-C, after this many more polls.
    patience: usize,
    /// Sent slots come back: the wire is a loop.
    echo: bool,
    sent: Arc<Mutex<Vec<Packet>>>,
    tx: Vec<MemRing>,
    rx: Vec<MemRing>,
    hwcur: Vec<u32>,
    header: u32,
    tx_polls: usize,
}

use std::sync::Mutex;

impl SimPort {
    /// The service's side of a transmit ring: takes [hwcur, head).
    fn transmit(&mut self) {
        for (ring, hwcur) in self.tx.iter_mut().zip(&mut self.hwcur) {
            while *hwcur != ring.head() {
                let slot = ring.slot(*hwcur);
                let mut data = vec![0; slot.len.into()];
                ring.read(*hwcur, 0, &mut data);
                if slot.flags & NS_INDIRECT != 0 {
                    assert_ne!(ring.ptr(*hwcur), 0);
                }
                assert_eq!(slot.flags & NS_BUF_CHANGED, 0);
                self.sent.lock().unwrap().push((data.clone(), slot.flags));
                if self.echo {
                    self.arrivals.push_back(Arrival::Packets(vec![(data, 0)]));
                }
                ring.set_slot(*hwcur, slot.len, slot.flags & !NS_REPORT);
                *hwcur = ring.next(*hwcur);
            }
            ring.complete();
        }
    }

    /// The service's side of receive ring 0.
    fn deliver(&mut self, packets: &[Packet]) {
        let ring = &mut self.rx[0];
        for (data, flags) in packets {
            let tail = ring.tail();
            let next = ring.next(tail);
            assert_ne!(next, ring.head(), "script overflows the ring");
            ring.write(tail, 0, data);
            ring.set_slot(tail, data.len() as u16, *flags);
            ring.set_tail(next);
        }
    }
}

impl Device for SimPort {
    type TxRing<'a> = &'a mut MemRing;
    type RxRing<'a> = &'a mut MemRing;

    fn info(&self) -> PortInfo {
        PortInfo { tx_rings: 2, rx_rings: 2, tx_slots: SLOTS, rx_slots: SLOTS, ..PortInfo::default() }
    }
    fn tx_rings(&self) -> usize {
        self.tx.len()
    }
    fn rx_rings(&self) -> usize {
        self.rx.len()
    }
    fn tx_ring(&mut self, i: usize) -> &mut MemRing {
        &mut self.tx[i]
    }
    fn rx_ring(&mut self, i: usize) -> &mut MemRing {
        &mut self.rx[i]
    }
    fn txsync(&mut self) -> io::Result<()> {
        self.transmit();
        Ok(())
    }
    fn rxsync(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn poll(&mut self, want: Events, timeout: Duration) -> io::Result<Events> {
        for ring in self.tx.iter().chain(&self.rx) {
            // cur in [head, tail].
            let ahead = (ring.cur() + SLOTS - ring.head()) % SLOTS;
            assert!(ahead <= ring.space(), "{} {} {}", ring.head(), ring.cur(), ring.tail());
        }
        self.transmit();
        if want.has(Events::OUT) {
            self.clock.sleep(Duration::from_millis(1));
            self.tx_polls += 1;
            if self.tx_polls > self.patience {
                self.cancel.store(true, Ordering::SeqCst);
            }
            return Ok(Events::OUT);
        }
        if self.rx.iter().any(|ring| ring.cur() != ring.tail()) {
            return Ok(Events::IN);
        }
        match self.arrivals.pop_front() {
            Some(Arrival::Packets(packets)) => {
                self.clock.sleep(Duration::from_millis(2));
                self.deliver(&packets);
                return Ok(Events::IN);
            }
            Some(Arrival::Event(events)) => return Ok(events),
            Some(Arrival::Error(errno)) => return Err(io::Error::from_raw_os_error(errno)),
            Some(Arrival::Silence) => {}
            None if self.patience == 0 => self.cancel.store(true, Ordering::SeqCst),
            None => self.patience -= 1,
        }
        self.clock.sleep(timeout);
        Ok(Events::NONE)
    }
    fn header_len(&self) -> io::Result<u32> {
        Ok(self.header)
    }
    fn set_header_len(&mut self, bytes: u32) -> io::Result<()> {
        self.header = bytes;
        Ok(())
    }
    fn fd(&self) -> i32 {
        7
    }
}

/// Opens copies of a [`SimPort`].
struct SimBackend {
    port: SimPort,
    opened: AtomicUsize,
}

impl Backend for SimBackend {
    type Device = SimPort;

    fn open(&self, request: &OpenRequest) -> Result<SimPort, OpenError> {
        if request.name == "netmap:gone" {
            return Err(OpenError("netmap:gone: no such device".into()));
        }
        let mut port = self.port.clone();
        if request.one_ring {
            port.tx.truncate(1);
            port.rx.truncate(1);
        }
        Ok(port)
    }
    fn open_ring(&self, first: &SimPort, request: &OpenRequest, ring: u32) -> Result<SimPort, OpenError> {
        assert!(request.one_ring);
        self.opened.fetch_add(1, Ordering::SeqCst);
        let mut port = first.clone();
        port.tx = vec![MemRing::tx(ring, SLOTS, BUF)];
        port.rx = vec![MemRing::rx(ring, SLOTS, BUF)];
        Ok(port)
    }
    fn mac(&self, ifname: &str) -> Option<Mac> {
        (ifname == "eth0").then_some(Mac([2, 0, 0, 0, 0, 9]))
    }
    fn mtu(&self, ifname: &str) -> io::Result<u32> {
        if ifname == "eth0" { Ok(1500) } else { Err(io::ErrorKind::NotFound.into()) }
    }
}

/// What a run left behind.
struct Outcome {
    status: u8,
    out: String,
    err: String,
    sent: Vec<Packet>,
}

impl Outcome {
    /// Texts of the D-lines, without time and place.
    fn lines(&self) -> Vec<&str> {
        self.err.lines().map(|line| line.split_once("] ").map_or(line, |(_, text)| text)).collect()
    }

    fn has(&self, line: &str) -> bool {
        self.lines().contains(&line)
    }
}

fn simulate(line: &str, change: impl FnOnce(&mut SimPort)) -> Outcome {
    let clock = TestClock::new();
    let cancel = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(Mutex::new(Vec::new()));
    let mut port = SimPort {
        clock: clock.clone(),
        cancel: Arc::clone(&cancel),
        arrivals: VecDeque::new(),
        patience: 1000,
        echo: false,
        sent: Arc::clone(&sent),
        tx: (0..2).map(|ring| MemRing::tx(ring, SLOTS, BUF)).collect(),
        rx: (0..2).map(|ring| MemRing::rx(ring, SLOTS, BUF)).collect(),
        hwcur: vec![0; 2],
        header: 0,
        tx_polls: 0,
    };
    change(&mut port);
    let backend = SimBackend { port, opened: AtomicUsize::new(0) };
    let (out, err) = (SharedBytes::default(), SharedBytes::default());
    let wall = clock.clone();
    let log = DLog::new(err.clone(), move || wall.now());
    let host = Host { out: &Output::new(out.clone()), log: &log, clock: &clock, cancel: &cancel, cpus: 4 };
    let status = run(line.split_whitespace().map(Into::into), &backend, host);
    let sent = std::mem::take(&mut *sent.lock().unwrap());
    Outcome { status, out: out.text(), err: err.text(), sent }
}

fn packets(count: usize, len: usize) -> Arrival {
    Arrival::Packets(vec![(vec![1; len], 0); count])
}

#[test]
fn tx_prints_its_lines_in_order_and_sends_what_was_asked() {
    let run = simulate("pkt-gen -i eth0 -f tx -n 1000 -w 0", |_| {});
    assert_eq!(run.status, 0);
    assert_eq!(run.sent.len(), 1000);
    // 63 slots in each of two rings and 1 ms a round: 8 rounds, 16 batches.
    assert_eq!(
        run.out,
        "Sending on netmap:eth0: 2 queues, 1 threads and 1 cpus.\n\
         10.0.0.1 -> 10.1.0.1 (02:00:00:00:00:09 -> ff:ff:ff:ff:ff:ff)\n\
         Sent 1000 packets 60000 bytes 16 events 60 bytes each in 0.01 seconds.\n\
         Speed: 125.000 Kpps Bandwidth: 60.000 Mbps (raw 60.000 Mbps). Average batch: 62.50 pkts\n"
    );
    let lines = run.lines();
    assert_eq!(lines[0], "interface is netmap:eth0");
    assert_eq!(
        lines[5..9],
        [
            "Sending 512 packets every  0.000000000 s",
            "Wait 0 secs for phy reset",
            "Ready...",
            "start, fd 7 main_fd 7",
        ]
    );
    assert!(lines[9].starts_with("flush tail "), "{lines:?}");
    assert_eq!(lines[10], "125.000 Kpps (1.000 Kpkts 60.000 Mbps in 8000 usec) 62.50 avg_batch 0 min_space");
    assert_eq!(lines.len(), 11);

    // All frames are the one frame; the last slot of each batch asked for a report.
    let first = &run.sent[0].0;
    assert_eq!(first[..14], [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 9, 8, 0]);
    assert!(run.sent.iter().all(|(data, _)| data == first));
    assert_eq!(run.sent.iter().filter(|(_, flags)| *flags == NS_REPORT).count(), 16);
}

#[test]
fn ranges_step_with_every_packet() {
    let run = simulate("pkt-gen -i x -f tx -n 300 -w 0 -s 10.0.0.1:1-10.0.0.1:7", |_| {});
    let ports: Vec<_> =
        run.sent.iter().map(|(data, _)| u32::from(data[34]) << 8 | u32::from(data[35])).collect();
    assert!(ports.iter().zip((1..=7).cycle()).all(|(got, want)| *got == want), "{ports:?}");
    assert!(run.has("--- SPECIAL OPTIONS: copy"));
    assert!(run.err.contains("SPECIAL OPTIONS: copy\n\n"));
}

#[test]
fn random_addresses_do_not_copy_again() {
    let run = simulate("pkt-gen -i x -f tx -n 1000 -w 0 -z", |_| {});
    let mut kinds: Vec<_> = run.sent.iter().map(|(data, _)| data[26..36].to_vec()).collect();
    kinds.sort();
    kinds.dedup();
    // As many as there are slots in both rings.
    assert_eq!(kinds.len(), 2 * SLOTS as usize);
}

#[test]
fn fragments_and_packets_above_a_buffer() {
    let run = simulate("pkt-gen -i x -f tx -n 40 -w 0 -F 3 -l 100", |_| {});
    assert!(run.has("frags 3 frag_size 33"));
    assert!(run.out.contains("Sent 40 packets 4000 bytes"));
    let lens: Vec<_> = run.sent.iter().map(|(data, flags)| (data.len(), flags & NS_MOREFRAG != 0)).collect();
    assert!(lens.chunks(3).all(|packet| packet == [(33, true), (33, true), (34, false)]), "{lens:?}");

    let run = simulate("pkt-gen -i x -f tx -n 3 -w 0 -l 5000", |_| {});
    let whole: Vec<u8> = run.sent[..3].iter().flat_map(|(data, _)| data.clone()).collect();
    assert_eq!(whole.len(), 5000);
    assert_eq!(whole[16..18], 4986u16.to_be_bytes());
    assert_eq!(run.sent.len(), 9);

    let run = simulate("pkt-gen -i x -f tx -n 3 -w 0 -l 5000 -M 50", |_| {});
    assert!(run.has("a packet needs 100 slots, the ring has 63"));
    assert!(run.has("ouch, thread 0 exited with error"));
    assert_eq!((run.status, run.out.ends_with("Sent nothing.\n")), (0, true));
}

#[test]
fn random_sizes_stay_in_their_range() {
    let run = simulate("pkt-gen -i x -f tx -n 500 -w 0 -l 80 -l 60 -o 4096", |_| {});
    let mut lens: Vec<_> = run.sent.iter().map(|(data, _)| data.len()).collect();
    for (data, _) in &run.sent {
        assert_eq!(usize::from(u16::from_be_bytes([data[16], data[17]])), data.len() - 14);
    }
    lens.sort_unstable();
    lens.dedup();
    assert_eq!(lens, (60..80).collect::<Vec<_>>());
}

#[test]
fn headers_indirect_slots_and_rubbish() {
    let run = simulate("pkt-gen -i x -f tx -n 2 -w 0 -H 12", |_| {});
    assert_eq!((run.sent[0].0.len(), &run.sent[0].0[..12]), (72, &[0; 12][..]));
    let run = simulate("pkt-gen -i x -f tx -n 2 -w 0", |port| port.header = 10);
    assert!(run.has("Port requires virtio-net header, length = 10"));
    assert_eq!(run.sent[0].0.len(), 70);
    let run = simulate("pkt-gen -i x -f tx -n 2 -w 0 -I", |_| {});
    assert!(run.sent.iter().all(|(_, flags)| flags & NS_INDIRECT != 0));
    let run = simulate("pkt-gen -i x -f tx -n 2 -w 0 -r", |_| {});
    assert_eq!(run.sent[1].0, [0; 60]);
}

#[test]
fn rates_start_late_and_keep_their_pace() {
    // 30 packets a millisecond... in bursts of 100, every 3.333 ms.
    let run = simulate("pkt-gen -i x -f tx -n 1000 -w 0 -R 30000", |_| {});
    assert!(run.has("Sending 100 packets every  0.003333333 s"));
    assert!(run.out.contains("Sent 1000 packets"));
    // Ten periods from the first to the last burst.
    let speed = run.out.split("Speed: ").nth(1).unwrap().split(' ').next().unwrap();
    let speed: f64 = speed.parse().unwrap();
    assert!((25.0..31.0).contains(&speed), "{}", run.out);
}

#[test]
fn rx_counts_packets_and_stops_at_the_count() {
    let fragments = Arrival::Packets(vec![(vec![1; 10], NS_MOREFRAG), (vec![1; 20], 0)]);
    let run = simulate("pkt-gen -i vale0:1 -n 12", |port| {
        port.arrivals = [Arrival::Silence, fragments, packets(10, 60), packets(10, 60)].into();
    });
    assert_eq!(run.status, 0);
    assert_eq!(
        run.lines()[5..8],
        ["Wait 0 secs for phy reset", "Ready...", "reading from vale0:1 fd 7 main_fd 7"]
    );
    // A slice of silence is not told, and neither is it the end.
    assert!(run.out.starts_with("Receiving from vale0:1: 2 queues, 1 threads and 1 cpus.\nReceived 12 packets 690 bytes 3 events 57 bytes each in "), "{}", run.out);
}

#[test]
fn rx_stops_after_silence_only_with_w() {
    let script = || [packets(5, 60), Arrival::Silence, packets(5, 100)].into();
    let run = simulate("pkt-gen -i vale0:1 -W", |port| port.arrivals = script());
    assert!(run.out.contains("Received 10 packets 800 bytes 2 events 80 bytes each in "), "{}", run.out);
    assert!(!run.err.contains("control-C"));
    let run = simulate("pkt-gen -i vale0:1", |port| {
        port.arrivals = script();
        port.patience = 40;
    });
    assert!(run.out.contains("Received 10 packets"));
    assert!(run.err.contains("received control-C on thread 0x"));
}

#[test]
fn rx_without_any_packet_waits_for_control_c() {
    let run = simulate("pkt-gen -i vale0:1 -W", |port| port.patience = 35);
    assert!(run.out.ends_with("Received nothing.\n"));
    assert!(run.has("waiting for initial packets, poll returns 0 0"));
}

#[test]
fn rx_reports_bad_polls() {
    for (script, want) in [
        (vec![Arrival::Event(Events::ERR)], "fd error"),
        (vec![packets(1, 60), Arrival::Event(Events::ERR)], "poll err"),
        (vec![Arrival::Error(libc::ENXIO)], "poll() error: No such device or address (os error 6)"),
    ] {
        let run = simulate("pkt-gen -i vale0:1", |port| port.arrivals = script.into());
        assert!(run.has(want), "{}", run.err);
        assert!(run.has("ouch, thread 0 exited with error"));
        assert_eq!(run.status, 0);
    }
}

#[test]
fn dumps_show_slots_and_bytes() {
    let run = simulate("pkt-gen -i vale0:1 -n 1 -X", |port| port.arrivals = [packets(1, 17)].into());
    let lines: Vec<_> = run.out.lines().skip(1).take(3).collect();
    assert!(lines[0].starts_with("ring 0x"));
    assert!(lines[0].ends_with(" cur     0 [buf      0 flags 0x0000 len    17]"), "{}", lines[0]);
    assert_eq!(lines[1], format!("    0: {}................", "01 ".repeat(16)));
    assert_eq!(lines[2], "   16: 01 ");
}

#[test]
fn ping_times_what_comes_back() {
    let run = simulate("pkt-gen -i vale0:1 -f ping -n 5", |port| port.echo = true);
    assert_eq!(run.out, "Working on vale0:1: 2 queues, 1 threads and 1 cpus.\n");
    assert_eq!(run.sent.len(), 5);
    let numbers: Vec<_> = run.sent.iter().map(|(data, _)| data[42..46].to_vec()).collect();
    assert_eq!(numbers, (0u32..5).map(|n| n.to_ne_bytes().to_vec()).collect::<Vec<_>>());
    assert!(run.has("RTT over 5 packets: min 2000000 av 2000000 ns"), "{}", run.err);
}

#[test]
fn ping_reports_each_second_and_its_timeouts() {
    let run = simulate("pkt-gen -i vale0:1 -f ping -n 2", |port| port.patience = 100);
    assert_eq!(run.lines().iter().filter(|line| **line == "poll error on queue 0: timeout").count(), 2);
    assert!(run.has("count 0 RTT: min 0 av 0 ns"));
    assert!(run.has("RTT over 2 packets: min 0 av 0 ns"));
    let run = simulate("pkt-gen -i vale0:1 -f ping -n 600", |port| port.echo = true);
    assert!(run.has("count 500 RTT: min 2000000 av 2000000 ns"), "{}", run.err);
    assert!(run.err.contains("k: 1048576 .. 1048576\n\t   500\n"));
}

#[test]
fn pong_swaps_and_counts() {
    let mut frame: Vec<u8> = (0..60).collect();
    frame[12..14].copy_from_slice(&[8, 0]);
    let run = simulate("pkt-gen -i vale0:1 -f pong -n 2", |port| {
        port.arrivals = [Arrival::Silence, Arrival::Packets(vec![(frame.clone(), 0); 3])].into();
    });
    assert!(run.has("understood ponger 2 but don't know how to do it"));
    assert_eq!(run.sent.len(), 2);
    assert_eq!(run.sent[0].0[..12], [6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5]);
    assert_eq!(run.sent[0].0[26..34], [30, 31, 32, 33, 26, 27, 28, 29]);
    for function in ["ping", "pong", "txseq"] {
        let run = simulate(&format!("pkt-gen -i vale0:1 -f {function} -p 2"), |port| port.patience = 3);
        assert!(run.err.contains(" with 1 thread\n"), "{}", run.err);
    }
}

#[test]
fn txseq_numbers_and_rxseq_checks() {
    let run = simulate("pkt-gen -i vale0:1 -f txseq -F 2 -n 9", |port| port.patience = 5);
    assert!(run.has("Ignoring -n argument"));
    assert!(run.err.contains("received control-C on thread"));
    for (number, (data, flags)) in (0u32..).zip(&run.sent) {
        assert_eq!((data.len(), &data[42..46]), (60, &number.to_be_bytes()[..]));
        assert_eq!(flags & NS_MOREFRAG != 0, number % 2 == 0);
    }
    let sent = run.sent.len();
    assert!(sent > 200 && run.out.contains(&format!("Sent {sent} packets {} bytes", sent * 60)));

    let mut numbered = run.sent[..20].to_vec();
    numbered.iter_mut().for_each(|packet| packet.1 &= NS_MOREFRAG);
    let check = |script: Vec<Packet>| {
        simulate("pkt-gen -i vale0:1 -f rxseq -W -F 2", |port| {
            port.arrivals = [Arrival::Packets(script)].into();
        })
    };
    let good = check(numbered.clone());
    assert!(good.out.contains("Received 20 packets 1200 bytes"), "{}", good.out);
    assert!(!good.err.contains("Sequence") && !good.err.contains("frags"), "{}", good.err);

    let gap = check([&numbered[..4], &numbered[6..]].concat());
    assert!(gap.has("Sequence GAP: exp 4 found 6"));
    let order = check([&numbered[..4], &numbered[..2]].concat());
    assert!(order.has("Sequence OUT OF ORDER: exp 4 found 0"));
    let single: Vec<_> = numbered[..3].iter().map(|(data, _)| (data.clone(), 0)).collect();
    let single = check(single);
    assert!(single.has("Received packets with 1 frags, expected 2, '|60,0|'"), "{}", single.err);
    let small = check(vec![(vec![0; 45], 0)]);
    assert!(small.has("rxseq_body: packet too small (len=45)"));
}

#[test]
fn threads_have_a_ring_each() {
    let run = simulate("pkt-gen -i x -f tx -n 101 -w 0 -p 2", |_| {});
    assert_eq!(run.sent.len(), 101);
    assert!(run.out.contains(": 2 queues, 2 threads and 1 cpus.\n"));
    assert!(run.out.contains("Sent 101 packets 6060 bytes"));
    let run = simulate("pkt-gen -i x -f tx -n 100 -w 0 -p 3", |_| {});
    assert_eq!(run.status, 1);
    assert!(run.has("bad nthreads 3, have 2 queues"));
}

#[test]
fn what_cannot_start_says_why() {
    let run = simulate("pkt-gen -i gone", |_| {});
    assert_eq!(run.status, 255);
    let lines = run.lines();
    let at = lines.iter().position(|line| *line == "netmap:gone: no such device").unwrap();
    assert_eq!(lines[at + 1], "aborting");
    assert!(run.err.contains("Usage: pkt-gen"));

    let run = simulate("pkt-gen -i eth0 -f tx -l 1501 -w 0", |_| {});
    assert_eq!(run.status, 255);
    assert!(run.has("pkt_size (1501) must be <= mtu (1500)"));
    let run = simulate("pkt-gen -i eth0{1 -f tx -l 1501 -w 0 -n 1", |_| {});
    assert_eq!(run.status, 0);

    let run = simulate("pkt-gen -q", |_| {});
    assert_eq!((run.status, run.lines()[0]), (255, "bad option q unknown"));
    let run = simulate("pkt-gen -h", |_| {});
    assert_eq!((run.status, run.out.as_str()), (0, ""));
    assert!(run.err.contains("Usage: pkt-gen"));
    assert_eq!(simulate("pkt-gen", |_| {}).status, 255);
}

#[test]
fn polls_that_fail_do_not_end_a_sender() {
    let run = simulate("pkt-gen -i vale0:1 -f pong -n 1", |port| {
        port.arrivals = [Arrival::Error(libc::EAGAIN), packets(1, 60)].into();
    });
    assert!(run.err.contains("poll error on queue 0: Resource temporarily unavailable"), "{}", run.err);
    assert_eq!(run.sent.len(), 1);
    let run = simulate("pkt-gen -i vale0:1 -f pong -n 1", |port| {
        port.arrivals = [Arrival::Event(Events::ERR | Events::IN)].into();
    });
    assert!(run.has("poll error on 7 ring 0-1"), "{}", run.err);
    assert!(run.has("ouch, thread 0 exited with error"));
}

#[test]
fn null_swallows_everything() {
    let run = simulate("pkt-gen -i null -f tx -n 5000 -w 0 -C 128,128,2 -p 2", |_| {});
    assert_eq!(run.status, 0);
    assert!(run.has("txr 2 txd 128 rxr 2 rxd 128"));
    assert!(run.out.contains("Sent 5000 packets 300000 bytes"));
}

#[test]
fn interfaces_behind_port_names() {
    for (port, want) in [
        ("netmap:eth0", Some("eth0")),
        ("netmap:eth0-3/R@conf:x", Some("eth0")),
        ("netmap:eth0^", Some("eth0")),
        ("netmap:my-if", Some("my-if")),
        ("netmap:my-if-12", Some("my-if")),
        ("netmap:eth0*", Some("eth0")),
        ("vale0:1", None),
    ] {
        assert_eq!(interface_of(port), want);
    }
}
