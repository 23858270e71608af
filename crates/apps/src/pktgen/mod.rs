//! pkt-gen: generates, receives, echoes and checks packets, with the command line and the output of netmap's.
//!
//! Owns the whole program but the way to ports, which comes in as a [`Backend`] (module
//! [`device`]), and the process's surroundings, which come in as a [`Host`]. So the tests run every function
//! against rings in memory and in a time of their own.
//!
//! Where it differs from netmap's program, on purpose: numbers that are none are refused; control-C is
//! noticed within a tenth of a second; a run that is over ends at once, not with the next report;
//! `-n` is divided over threads without loss; `-H` sets the length it names; `null` works.

use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::addr::Mac;
use crate::dline;
use crate::units::{DLog, Output};

pub mod clock;

pub mod device;

pub mod memory;

pub mod service;

pub mod options;

pub mod config;

pub mod worker;

mod tx;

mod rx;

mod seq;

mod pingpong;

pub mod report;

use clock::{Clock, Latch};
use config::{Config, Direction, EXIT_USAGE, Function, mask};
use device::{Backend, Device, OpenRequest, PortInfo};
use report::{Reporter, summary};
use worker::{Counters, Failed, Worker};

/// Exit status when not all threads can be opened.
const EXIT_THREADS: u8 = 1;
/// How often the main thread looks for control-C.
const LOOK: Duration = Duration::from_millis(50);

/// Surroundings of the program.
#[derive(Clone, Copy, Debug)]
pub struct Host<'a> {
    /// stdout.
    pub out: &'a Output,
    /// stderr.
    pub log: &'a DLog,
    /// Time.
    pub clock: &'a dyn Clock,
    /// Set on control-C.
    pub cancel: &'a AtomicBool,
    /// CPUs of the machine.
    pub cpus: usize,
}

/// Runs the program on the command line `args` (the first is its name). Gives the exit status.
pub fn run<B: Backend>(args: impl IntoIterator<Item = OsString>, backend: &B, host: Host<'_>) -> u8 {
    let log = host.log;
    let given = match options::split(args) {
        Ok(given) => given,
        Err(bad) => {
            dline!(log, "main", "bad option {} {}", bad.option, bad.why);
            log.raw(format_args!("{}", options::usage()));
            return EXIT_USAGE;
        }
    };
    let config = match config::read(&given, host.cpus, log) {
        Ok(config) => config,
        Err(status) => return status,
    };
    let result = if config.ifname == "null" {
        let null = memory::NullBackend { clock: host.clock };
        Program::new(&config, host).run(&null)
    } else {
        Program::new(&config, host).run(backend)
    };
    result.err().unwrap_or(0)
}

/// One run, from the open port to the summary.
struct Program<'a> {
    config: &'a Config,
    log: &'a DLog,
    clock: &'a dyn Clock,
    cancel: &'a AtomicBool,
    out: &'a Output,
}

/// What the port says that frames depend on.
#[derive(Clone, Copy)]
struct Link {
    src_mac: Mac,
    vnet_bytes: usize,
    main_fd: i32,
}

impl<'a> Program<'a> {
    fn new(config: &'a Config, host: Host<'a>) -> Program<'a> {
        let Host { out, log, clock, cancel, .. } = host;
        Program { config, log, clock, cancel, out }
    }

    fn run<B: Backend>(&self, backend: &B) -> Result<(), u8> {
        let config = self.config;
        let request = self.request();
        let mut first = backend.open(&request).map_err(|error| {
            self.log.raw(format_args!("{error}\n"));
            dline!(self.log, "main", "aborting");
            self.log.raw(format_args!("{}", options::usage()));
            EXIT_USAGE
        })?;
        let info = first.info();
        if config.geometry.is_some() {
            let PortInfo { tx_rings, tx_slots, rx_rings, rx_slots, .. } = info;
            dline!(self.log, "main", "txr {tx_rings} txd {tx_slots} rxr {rx_rings} rxd {rx_slots}");
        }
        if let Some(path) = info.path.filter(|_| config.verbose) {
            dline!(self.log, "main", "{} is reached by {path}", config.ifname);
        }
        let vnet_bytes = self.header(&mut first)?;
        let queues = match config.function.direction() {
            Direction::Receiver => info.rx_rings + info.host_rx_rings,
            Direction::Sender | Direction::Other => info.tx_rings + info.host_tx_rings,
        };
        if config.threads < 1 || config.threads > queues {
            // Opening the threads is going to fail.
            dline!(self.log, "main", "bad nthreads {}, have {queues} queues", config.threads);
        }
        self.check_mtu(backend)?;
        let (src_mac, src_text) = self.source_mac(backend);
        self.banner(queues, &src_text);

        let link = Link { src_mac, vnet_bytes, main_fd: first.fd() };
        let devices = self.open_threads(backend, &request, first, queues)?;
        dline!(self.log, "main", "Wait {} secs for phy reset", config.wait_secs);
        self.pause(Duration::from_secs(config.wait_secs));
        dline!(self.log, "main", "Ready...");
        let counters = self.work(devices, link);
        if let Some(text) = summary(config, &counters) {
            self.out.print(&text);
        }
        Ok(())
    }

    fn request(&self) -> OpenRequest {
        let [tx_slots, rx_slots, tx_rings, rx_rings] = self.config.geometry.unwrap_or_default();
        OpenRequest {
            name: self.config.ifname.clone(),
            tx_slots,
            rx_slots,
            tx_rings,
            rx_rings,
            one_ring: self.config.threads > 1,
            rx_only: false,
        }
    }

    /// Agrees with the port on the virtio-net header: what `-H` says, else what the port says.
    fn header<D: Device>(&self, device: &mut D) -> Result<usize, u8> {
        let wanted = self.config.vnet_bytes;
        if wanted > 0 {
            if let Err(error) = device.set_header_len(wanted) {
                dline!(self.log, "main", "Unable to set virtio-net header length {wanted}: {error}");
            }
            return Ok(wanted as usize);
        }
        match device.header_len() {
            Ok(0) => Ok(0),
            Ok(bytes @ (10 | 12)) => {
                dline!(self.log, "main", "Port requires virtio-net header, length = {bytes}");
                Ok(bytes as usize)
            }
            Ok(bytes) => {
                dline!(self.log, "main", "bad virtio-net-header length {bytes}");
                Err(EXIT_USAGE)
            }
            Err(error) => {
                dline!(self.log, "main", "Unable to get virtio-net header length: {error}");
                Ok(0)
            }
        }
    }

    /// Senders on an interface keep to its MTU.
    fn check_mtu<B: Backend>(&self, backend: &B) -> Result<(), u8> {
        let config = self.config;
        let Some(ifname) = interface_of(&config.ifname) else { return Ok(()) };
        if config.function.direction() != Direction::Sender || config.ifname.contains(['{', '}']) {
            return Ok(());
        }
        match backend.mtu(ifname) {
            Ok(mtu) if config.size > mtu as usize => {
                dline!(self.log, "main", "pkt_size ({}) must be <= mtu ({mtu})", config.size);
                Err(EXIT_USAGE)
            }
            Ok(_) => Ok(()),
            Err(error) => {
                dline!(self.log, "get_if_mtu", "ioctl(SIOCGIFMTU) failed: {error}");
                Ok(())
            }
        }
    }

    fn source_mac<B: Backend>(&self, backend: &B) -> (Mac, String) {
        self.config.src_mac.clone().unwrap_or_else(|| {
            let mac = interface_of(&self.config.ifname).and_then(|ifname| backend.mac(ifname));
            let mac = mac.unwrap_or_default();
            (mac, mac.to_string())
        })
    }

    /// What is going to happen: on stdout, then the D-lines on special options and rate.
    fn banner(&self, queues: u32, src_mac: &str) {
        let config = self.config;
        let sender = config.function.direction() == Direction::Sender;
        let verb = match config.function.direction() {
            Direction::Sender => "Sending on",
            Direction::Receiver => "Receiving from",
            Direction::Other => "Working on",
        };
        let (name, threads, cpus) = (&config.ifname, config.threads, config.cpus);
        let mut text = format!("{verb} {name}: {queues} queues, {threads} threads and {cpus} cpus.\n");
        if sender {
            let (src, dst, dst_mac) = (&config.src.1, &config.dst.1, &config.dst_mac.1);
            text.push_str(&format!("{src} -> {dst} ({src_mac} -> {dst_mac})\n"));
        }
        self.out.print(&text);

        if config.options != 0 {
            let names = [
                (mask::PREFETCH, " prefetch"),
                (mask::ACCESS, " access"),
                (mask::MEMCPY, " memcpy"),
                (mask::INDIRECT, " indirect"),
                (mask::COPY, " copy"),
                (mask::RUBBISH, " rubbish "),
            ];
            let names: String =
                names.iter().filter(|(bit, _)| config.has(*bit)).map(|(_, name)| *name).collect();
            dline!(self.log, "main", "--- SPECIAL OPTIONS:{names}\n");
        }
        if sender {
            let (burst, secs, nanos) = (config.burst, config.period.as_secs(), config.period.subsec_nanos());
            dline!(self.log, "main", "Sending {burst} packets every  {secs}.{nanos:09} s");
        }
        if config.verbose {
            dline!(self.log, "main", "packet size {} frags {}", config.size, config.frags);
        }
    }

    /// One device a thread; the first is open already.
    fn open_threads<B: Backend>(
        &self,
        backend: &B,
        request: &OpenRequest,
        first: B::Device,
        queues: u32,
    ) -> Result<Vec<B::Device>, u8> {
        let config = self.config;
        let rx_only = config.function.direction() == Direction::Receiver;
        let request = OpenRequest { rx_only, ..request.clone() };
        if config.threads < 1 || config.threads > queues {
            dline!(self.log, "start_threads", "Unable to open {}: no such queue", config.ifname);
            return Err(EXIT_THREADS);
        }
        let mut clones = Vec::new();
        for ring in 1..config.threads {
            clones.push(backend.open_ring(&first, &request, ring).map_err(|error| {
                dline!(self.log, "start_threads", "Unable to open {}: {error}", config.ifname);
                EXIT_THREADS
            })?);
        }
        clones.insert(0, first);
        Ok(clones)
    }

    /// Sleeps; control-C ends it.
    fn pause(&self, time: Duration) {
        let end = self.clock.now() + time;
        while let Some(left) = end.checked_sub(self.clock.now()).filter(|left| !left.is_zero()) {
            if self.cancel.load(Ordering::Relaxed) {
                break;
            }
            self.clock.sleep(left.min(LOOK));
        }
    }

    /// Runs the threads and reports on them, until all have ended.
    fn work<D: Device>(&self, devices: Vec<D>, link: Link) -> Vec<Counters> {
        let counters: Vec<Counters> = devices.iter().map(|_| Counters::default()).collect();
        let latch = Latch::new(devices.len());
        let reporter = Reporter::new(self.config, self.clock.now());
        std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for (id, mut device) in devices.into_iter().enumerate() {
                let worker = self.worker(id, &counters[id], link);
                let latch = &latch;
                let thread = std::thread::Builder::new().spawn_scoped(scope, move || {
                    // Also when the body panics: the reporter would wait for ever.
                    let _done = CountDown(latch);
                    body(&worker, &mut device)
                });
                if let Err(error) = &thread {
                    dline!(self.log, "start_threads", "Unable to create thread {id}: {error}");
                    latch.count_down();
                }
                threads.push(thread);
            }
            self.report(reporter, &counters, &latch);
            for (id, thread) in threads.into_iter().enumerate() {
                if !matches!(thread.map(|thread| thread.join()), Ok(Ok(Ok(())))) {
                    dline!(self.log, "main_thread", "ouch, thread {id} exited with error");
                }
            }
        });
        counters
    }

    fn worker<'w>(&'w self, id: usize, counters: &'w Counters, link: Link) -> Worker<'w> {
        Worker {
            config: self.config,
            id,
            share: self.config.share(id),
            src_mac: link.src_mac,
            vnet_bytes: link.vnet_bytes,
            main_fd: link.main_fd,
            counters,
            cancel: self.cancel,
            log: self.log,
            clock: self.clock,
            out: self.out,
        }
    }

    /// A line each interval; when all threads have ended, a last one for what moved since.
    fn report(&self, mut reporter: Reporter<'_>, counters: &[Counters], latch: &Latch) {
        let (mut told, mut reported) = (false, false);
        let mut next = self.clock.now() + self.config.interval;
        loop {
            let left = next.saturating_sub(self.clock.now());
            let done = self.clock.wait(latch, left.min(LOOK));
            if !told && self.cancel.load(Ordering::Relaxed) {
                told = true;
                dline!(self.log, "sigint_h", "received control-C on thread {}", tx::thread_name());
            }
            let now = self.clock.now();
            // The rate of a very short rest would mislead, unless it is all there is.
            let rest = done && (!reported || next.saturating_sub(now) < self.config.interval / 2);
            if now >= next || (rest && reporter.has_news(counters)) {
                reported = true;
                dline!(self.log, "main_thread", "{}", reporter.line(now, counters));
                next = now + self.config.interval;
            }
            if done {
                return;
            }
        }
    }
}

/// Counts the latch down when its thread leaves.
struct CountDown<'a>(&'a Latch);

impl Drop for CountDown<'_> {
    fn drop(&mut self) {
        self.0.count_down();
    }
}

/// Runs the function of a thread.
fn body<D: Device>(worker: &Worker<'_>, device: &mut D) -> Result<(), Failed> {
    if let Some(cpu) = worker.config.affinity {
        let cpu = (cpu + worker.id) % worker.config.cpus.max(1);
        let mut set = rustix::thread::CpuSet::new();
        if cpu < rustix::thread::CpuSet::MAX_CPU {
            set.set(cpu);
        }
        if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
            dline!(worker.log, "setaffinity", "Unable to set affinity: {error}");
        }
    }
    let result = match worker.config.function {
        Function::Tx => tx::sender_body(worker, device),
        Function::Rx => rx::receiver_body(worker, device),
        Function::Ping => pingpong::ping_body(worker, device),
        Function::Pong => pingpong::pong_body(worker, device),
        Function::TxSeq => seq::txseq_body(worker, device),
        Function::RxSeq => seq::rxseq_body(worker, device),
    };
    let started = worker.counters.start_ns.load(Ordering::Relaxed) > 0;
    if result.is_err() && started {
        worker.end(Duration::ZERO);
    }
    result
}

/// The network interface that a port name means, if it can mean one: `netmap:eth0-3/R@conf` is `eth0`.
fn interface_of(port: &str) -> Option<&str> {
    let name = port.strip_prefix("netmap:")?;
    let name = name.split(['*', '^', '{', '}', '@', '/']).next()?;
    // A ring number stands behind the last dash; other dashes belong to the name.
    match name.rsplit_once('-') {
        Some((base, ring)) if ring.bytes().all(|b| b.is_ascii_digit()) => Some(base),
        _ => Some(name.trim_end_matches('+')),
    }
}

#[cfg(test)]
mod tests;
