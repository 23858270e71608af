//! `ringway gen A B`: sends on A, receives on B, in two processes, and tells what became of every packet.
//!
//! The parent starts a receiver and a sender (this program again, with `--role`), which report on their standard output, a JSON
//! object a line. The receiver first announces itself with one frame, so that a switch knows where it is.

mod child;
mod embedded;
mod receiver;
mod report;
mod sender;

use crate::{Failure, no_thread, print};
use report::{Final, Message, Summary};
use ringway_apps::addr::Mac;
use ringway_apps::capture::{LINK_ETHERNET, Reader};
use ringway_apps::interrupt::handle_control_c;
use ringway_apps::traffic::FrameSpec;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Where the receiver says that it is.
const RECEIVER_MAC: Mac = Mac([0x02, 0, 0, 0, 0, 0x0b]);
/// Where the sender says that it is.
const SENDER_MAC: Mac = Mac([0x02, 0, 0, 0, 0, 0x0a]);
/// Where a time stamp lies in a frame: after Ethernet, IPv4 and UDP headers.
const STAMP_OFS: usize = 42;
/// The smallest frame that holds one.
const STAMPED_BYTES: usize = STAMP_OFS + 8;
/// How long the receiver may still be busy after the sender has ended.
const DRAIN: Duration = Duration::from_millis(500);
/// Between two reports of a child.
const TICK: Duration = Duration::from_millis(100);

/// What a child is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Role {
    Tx,
    Rx,
}

/// Send on one port, receive on another, and tell what arrived.
#[derive(Clone, Debug, clap::Args)]
pub struct GenArgs {
    /// Port to send on: vale0:a, netmap:x{1, netmap:eth0 ...
    a: String,
    /// Port to receive on
    b: String,
    /// Bytes of a frame, without checksum
    #[arg(long, default_value_t = 60, conflicts_with = "pcap", value_parser = clap::value_parser!(u16).range(42..=32768))]
    size: u16,
    /// Seconds to send
    #[arg(long, default_value_t = 5.0, value_parser = positive)]
    duration: f64,
    /// Packets per second (default: as many as possible)
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// Frames that differ in address and port
    #[arg(long, default_value_t = 1, conflicts_with = "pcap", value_parser = clap::value_parser!(u32).range(1..=65536))]
    flows: u32,
    /// Threads (and rings) on each side
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    threads: u16,
    /// Packets handed over at a time, at most
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch: u32,
    /// Slots of each ring (default: as many as such a port has)
    #[arg(long, default_value_t = 0, hide_default_value = true, value_parser = clap::value_parser!(u32).range(0..=16384))]
    slots: u32,
    /// Write every payload when sending, read it when receiving
    #[arg(long)]
    touch: bool,
    /// Measure the time from send to receive (writes a stamp into every frame)
    #[arg(long)]
    latency: bool,
    /// Send the frames of a capture file (pcap or pcapng), over and over
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Both ports and the engine in one thread of this process
    #[arg(long)]
    embedded: bool,
    /// The result as JSON
    #[arg(long)]
    json: bool,
    #[arg(long, hide = true)]
    role: Option<Role>,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if x > 0.0 && x.is_finite() => Ok(x),
        _ => Err("must be a number above 0".into()),
    }
}

/// From a packet in a quarter of an hour to one in a picosecond.
fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if (0.001..=1e12).contains(&x) => Ok(x),
        _ => Err("must be a number from 0.001 to 1e12".into()),
    }
}

impl GenArgs {
    /// The frames to send.
    fn frames(&self) -> Result<Vec<Vec<u8>>, Failure> {
        let frames = self.all_frames()?;
        if self.latency && frames.iter().any(|f| f.len() < STAMPED_BYTES) {
            return Err(Failure::new(format!("--latency needs frames of {STAMPED_BYTES} bytes or more")));
        }
        Ok(frames)
    }

    fn all_frames(&self) -> Result<Vec<Vec<u8>>, Failure> {
        if let Some(path) = &self.pcap {
            let file =
                std::fs::File::open(path).map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
            let mut out = vec![];
            for frame in Reader::new(BufReader::new(file))
                .map_err(|e| Failure::new(format!("{}: {e}", path.display())))?
            {
                let frame = frame.map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
                if frame.link_type != LINK_ETHERNET {
                    return Err(Failure::new(format!("{}: not frames of Ethernet", path.display())));
                }
                out.push(frame.data);
            }
            if out.is_empty() {
                return Err(Failure::new(format!("{}: no frames", path.display())));
            }
            return Ok(out);
        }
        let spec = FrameSpec {
            size: self.size.into(),
            flows: self.flows,
            src_mac: SENDER_MAC,
            dst_mac: RECEIVER_MAC,
            ..FrameSpec::default()
        };
        Ok(spec.build()?.iter().map(|f| f.bytes().to_vec()).collect())
    }
}

/// Runs the command.
pub fn run(args: &GenArgs) -> Result<(), Failure> {
    if args.role.is_some() {
        // Control-C in a terminal reaches us too, but who ends us is our parent.
        signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::default())?;
    }
    match args.role {
        Some(Role::Tx) => return sender::run(args),
        Some(Role::Rx) => return receiver::run(args),
        None => {}
    }
    let summary = if args.embedded { embedded::run(args)? } else { parent(args)? };
    let text =
        if args.json { format!("{}\n", serde_json::to_string_pretty(&summary)?) } else { summary.table() };
    print(&text)?;
    if summary.received == 0 {
        return Err(Failure::nothing("nothing was received"));
    }
    Ok(())
}

/// A child of ours, and what it says.
struct Party {
    name: &'static str,
    child: Child,
    stdin: Option<ChildStdin>,
    said: Receiver<Message>,
}

impl Drop for Party {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Party {
    fn start(name: &'static str, role: &str) -> Result<Self, Failure> {
        let exe = std::env::current_exe()?;
        let mut child = Command::new(exe)
            .args(std::env::args_os().skip(1))
            .args(["--role", role])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| Failure::new(format!("cannot start the {name}: {e}")))?;
        let (tell, said) = channel();
        let out = child.stdout.take().ok_or_else(|| Failure::new("no pipe"))?;
        let reader = std::thread::Builder::new().spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let Ok(message) = serde_json::from_str(&line) else { return };
                if tell.send(message).is_err() {
                    return;
                }
            }
        });
        reader.map_err(|e| no_thread(&e))?;
        let stdin = child.stdin.take();
        Ok(Party { name, child, stdin, said })
    }

    /// The next message; None when the time is over.
    fn hear(&mut self, limit: Duration) -> Result<Option<Message>, Failure> {
        match self.said.recv_timeout(limit) {
            Ok(m) => Ok(Some(m)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(match self.child.wait()?.code() {
                Some(status @ 1..=2) => Failure::told(status as u8),
                _ => Failure::new(format!("the {} was killed", self.name)),
            }),
        }
    }

    fn wait_ready(&mut self) -> Result<(), Failure> {
        match self.hear(Duration::from_secs(30))? {
            Some(Message::Ready) => Ok(()),
            _ => Err(Failure::new(format!("the {} does not get ready", self.name))),
        }
    }

    /// Asks it to stop: closes its standard input.
    fn stop(&mut self) {
        self.stdin = None;
    }
}

/// Set by control-C: the end of the run, with its table.
fn interruptible() -> Result<Arc<AtomicBool>, Failure> {
    let flag = Arc::new(AtomicBool::new(false));
    handle_control_c(&flag)?;
    Ok(flag)
}

fn parent(args: &GenArgs) -> Result<Summary, Failure> {
    args.frames()?; // Mistakes are told once.
    let interrupted = interruptible()?;
    let mut rx = Party::start("receiver", "rx")?;
    rx.wait_ready()?;
    let mut tx = Party::start("sender", "tx")?;
    tx.wait_ready()?;
    let mut live = Live::new(args.json);
    let began = Instant::now();
    let mut sent: Option<Final> = None;
    let (mut tx_now, mut rx_now) = (0, 0);
    let mut quiet_since = None;
    loop {
        while let Some(m) = rx.hear(Duration::from_millis(1))? {
            if let Message::Progress { packets } = m {
                if packets != rx_now {
                    quiet_since = None;
                }
                rx_now = packets;
            }
        }
        match (&sent, tx.hear(TICK / 2)) {
            (None, Ok(Some(Message::Progress { packets }))) => tx_now = packets,
            (None, Ok(Some(Message::Final(end)))) => {
                tx_now = end.packets;
                sent = Some(*end);
                quiet_since = Some(Instant::now());
            }
            (None, Err(e)) => return Err(e),
            _ => {}
        }
        live.show(began.elapsed(), tx_now, rx_now);
        let over = began.elapsed().as_secs_f64() >= args.duration || interrupted.load(Relaxed);
        if sent.is_none() && over {
            tx.stop();
        }
        if let Some(end) = &sent {
            let all_there = rx_now >= end.packets.saturating_sub(end.drops.values().sum());
            let since = *quiet_since.get_or_insert_with(Instant::now);
            if all_there || since.elapsed() > DRAIN {
                break;
            }
        }
    }
    rx.stop();
    let received = loop {
        match rx.hear(Duration::from_secs(10))? {
            Some(Message::Final(end)) => break *end,
            Some(_) => {}
            None => return Err(Failure::new("the receiver does not end")),
        }
    };
    live.end();
    let sent = sent.ok_or_else(|| Failure::new("the sender told nothing"))?;
    Ok(Summary::new(args, &sent, &received))
}

/// The line that is rewritten while traffic runs.
struct Live {
    on: bool,
    last: (Duration, u64, u64),
}

impl Live {
    fn new(json: bool) -> Self {
        Live { on: !json && std::io::stderr().is_terminal(), last: (Duration::ZERO, 0, 0) }
    }

    fn show(&mut self, now: Duration, tx: u64, rx: u64) {
        let (then, old_tx, old_rx) = self.last;
        let seconds = (now - then).as_secs_f64();
        if !self.on || seconds < 0.25 {
            return;
        }
        let rate = |n: u64, old: u64| n.saturating_sub(old) as f64 / seconds / 1e6;
        eprint!(
            "\r{:6.1} s   sent {:8.2} Mpps   received {:8.2} Mpps ",
            now.as_secs_f64(),
            rate(tx, old_tx),
            rate(rx, old_rx)
        );
        let _ = std::io::stderr().flush();
        self.last = (now, tx, rx);
    }

    fn end(&self) {
        if self.on {
            eprint!("\r{:70}\r", "");
        }
    }
}
