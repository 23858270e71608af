//! What the options mean: reads them in the order given, checks them, and says so in D-lines.

use std::fs::File;
use std::io::BufReader;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use super::options::{Given, usage};
use crate::addr::{IpRange, Mac};
use crate::capture;
use crate::dline;
use crate::traffic::{Frame, Headers, MAX_SIZE, MIN_SIZE, Payload, Rng, Stepper};
use crate::units::DLog;

/// Exit status when the command line or the port is no good (netmap's -1).
pub const EXIT_USAGE: u8 = 255;

/// Longest port name, in bytes.
const MAX_NAME: usize = 504;
/// Framing and CRC of an Ethernet packet, in bits: what `-B` adds.
const FRAMING_BITS: u64 = 24 * 8;
const MAX_FRAGS: u64 = 63;

/// Bits of `-o`.
pub mod mask {
    /// Prefetch the buffer. Accepted; today's processors do it by themselves.
    pub const PREFETCH: u32 = 1;
    /// Read a byte of the buffer.
    pub const ACCESS: u32 = 2;
    /// Copy the frame for every packet.
    pub const COPY: u32 = 4;
    /// The same, with another routine in netmap.
    pub const MEMCPY: u32 = 8;
    /// `NS_INDIRECT`.
    pub const INDIRECT: u32 = 32;
    /// Show payloads.
    pub const DUMP: u32 = 64;
    /// Leave buffers as they are.
    pub const RUBBISH: u32 = 256;
    /// Random source.
    pub const RANDOM_SRC: u32 = 512;
    /// Random destination.
    pub const RANDOM_DST: u32 = 1024;
    /// Mean and deviation of the rates.
    pub const STATS: u32 = 2048;
    /// Correct headers with random sizes.
    pub const UPDATE_CSUM: u32 = 4096;
}

/// What to do with the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// Send.
    Tx,
    /// Receive and count.
    Rx,
    /// Send and time the echoes.
    Ping,
    /// Echo.
    Pong,
    /// Send numbered packets.
    TxSeq,
    /// Check the numbers.
    RxSeq,
}

/// What a function mainly does with packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It sends.
    Sender,
    /// It receives.
    Receiver,
    /// Both.
    Other,
}

impl Function {
    const TABLE: [(&'static str, Function); 6] = [
        ("rx", Function::Rx),
        ("tx", Function::Tx),
        ("ping", Function::Ping),
        ("pong", Function::Pong),
        ("txseq", Function::TxSeq),
        ("rxseq", Function::RxSeq),
    ];

    /// Its direction.
    pub fn direction(self) -> Direction {
        match self {
            Function::Tx | Function::TxSeq => Direction::Sender,
            Function::Rx | Function::RxSeq => Direction::Receiver,
            Function::Ping | Function::Pong => Direction::Other,
        }
    }

    fn default_burst(self) -> u32 {
        if self.direction() == Direction::Other { 1 } else { 512 }
    }
}

/// A checked command line.
#[derive(Clone, Debug)]
pub struct Config {
    /// Port, with its prefix.
    pub ifname: String,
    /// What to do.
    pub function: Function,
    /// Packets over all threads; 0: no end.
    pub npackets: u64,
    /// Frame bytes without CRC.
    pub size: usize,
    /// Smallest size of a random range, if there is one.
    pub min_size: Option<usize>,
    /// Most packets per ring and round.
    pub burst: u32,
    /// IPv6 frames.
    pub ipv6: bool,
    /// Source range, and as it was given.
    pub src: (IpRange, String),
    /// Destination range, and as it was given.
    pub dst: (IpRange, String),
    /// Source MAC and its text; `None`: that of the interface.
    pub src_mac: Option<(Mac, String)>,
    /// Destination MAC and its text.
    pub dst_mac: (Mac, String),
    /// CPU of the first thread.
    pub affinity: Option<usize>,
    /// CPUs to spread over, at least 1.
    pub cpus: usize,
    /// Threads.
    pub threads: u32,
    /// Between reports.
    pub interval: Duration,
    /// Before the start.
    pub wait_secs: u64,
    /// Receivers stop after a second of silence.
    pub exit_if_idle: bool,
    /// Packets per second of a thread; 0: no limit.
    pub rate: u64,
    /// Time of one burst at that rate.
    pub period: Duration,
    /// Bits of [`mask`].
    pub options: u32,
    /// Length of the virtio-net header that was asked for, 0: none was.
    pub vnet_bytes: u32,
    /// Frame from a capture file.
    pub packet: Option<Vec<u8>>,
    /// Numbers without prefixes.
    pub plain: bool,
    /// Bits to add per packet in bandwidths.
    pub framing_bits: u64,
    /// Slots per packet.
    pub frags: u32,
    /// Largest fragment, if limited.
    pub max_frag: Option<usize>,
    /// tx slots, rx slots, tx rings, rx rings of `-C`.
    pub geometry: Option<[u32; 4]>,
    /// Say more.
    pub verbose: bool,
}

impl Config {
    /// True if one of the bits is set in the options.
    pub fn has(&self, bits: u32) -> bool {
        self.options & bits != 0
    }

    /// Packets that thread `id` is to move, if there is an end. What does not divide evenly goes to
    /// the first threads, so that the total is what was asked for.
    pub fn share(&self, id: usize) -> Option<u64> {
        let threads = u64::from(self.threads.max(1));
        let extra = u64::from((id as u64) < self.npackets % threads);
        (self.npackets > 0).then(|| self.npackets / threads + extra)
    }

    /// The frame of thread `id`, behind `vnet_bytes` of header, and what steps its addresses.
    pub fn frame(&self, id: usize, src_mac: Mac, vnet_bytes: usize) -> (Frame, Stepper) {
        let random = (self.has(mask::RANDOM_SRC), self.has(mask::RANDOM_DST));
        let rng = Rng::new(id as u64);
        let stepper = Stepper::new(&self.src.0, &self.dst.0, random.0, random.1, rng);
        let (src, dst): (SocketAddr, SocketAddr) = stepper.first();
        let frame = match &self.packet {
            Some(data) => Frame::from_bytes(data, vnet_bytes),
            None => {
                let text = if self.has(mask::INDIRECT) { Payload::Indirect } else { Payload::Direct };
                let headers = Headers { src_mac, dst_mac: self.dst_mac.0, src, dst };
                Frame::new(&headers, self.size, vnet_bytes, text)
            }
        };
        (frame, stepper)
    }
}

/// Options as they pile up, before they are checked together.
struct Draft {
    config: Config,
    name: Option<String>,
    size: Option<u64>,
    min_size: Option<u64>,
    burst: u64,
    cpus: u64,
    wait_secs: Option<u64>,
    src_mac: Option<String>,
    dst_mac: String,
    src: Option<String>,
    dst: Option<String>,
    file: Option<String>,
}

/// Prints the usage text; the exit status to go with it.
fn refuse(log: &DLog) -> u8 {
    log.raw(format_args!("{}", usage()));
    EXIT_USAGE
}

/// Reads the options and checks them. `have_cpus` is what the machine has.
///
/// # Errors
/// The exit status, after the lines that say why; 0 when help was asked for.
pub fn read(given: &[Given], have_cpus: usize, log: &DLog) -> Result<Config, u8> {
    let mut draft = Draft::new();
    for option in given {
        draft.apply(option, log)?;
    }
    draft.check(have_cpus, log)
}

/// A number, decimal or with `0x`; anything else is refused (the C program takes it as 0).
fn number<T: TryFrom<u64>>(option: &Given, log: &DLog) -> Result<T, u8> {
    let text = option.value.trim();
    let value = match text.strip_prefix("0x") {
        Some(hex) if !hex.starts_with('+') => u64::from_str_radix(hex, 16).ok(),
        Some(_) => None,
        None => u64::from_str(text).ok(),
    };
    value.and_then(|value| T::try_from(value).ok()).ok_or_else(|| {
        dline!(log, "main", "bad option {} '{}' is not a possible number", option.letter, option.value);
        refuse(log)
    })
}

impl Draft {
    fn new() -> Draft {
        let nowhere = || (IpRange::parse_v4("0.0.0.0").expect("a constant address"), String::new());
        let config = Config {
            ifname: String::new(),
            function: Function::Rx,
            npackets: 0,
            size: 60,
            min_size: None,
            burst: 0,
            ipv6: false,
            src: nowhere(),
            dst: nowhere(),
            src_mac: None,
            dst_mac: (Mac::BROADCAST, String::new()),
            affinity: None,
            cpus: 1,
            threads: 1,
            interval: Duration::from_secs(1),
            wait_secs: 2,
            exit_if_idle: false,
            rate: 0,
            period: Duration::ZERO,
            options: 0,
            vnet_bytes: 0,
            packet: None,
            plain: false,
            framing_bits: 0,
            frags: 1,
            max_frag: None,
            geometry: None,
            verbose: false,
        };
        Draft {
            config,
            name: None,
            size: None,
            min_size: None,
            burst: 0,
            cpus: 1,
            wait_secs: None,
            src_mac: None,
            dst_mac: Mac::BROADCAST.to_string(),
            src: None,
            dst: None,
            file: None,
        }
    }

    fn apply(&mut self, option: &Given, log: &DLog) -> Result<(), u8> {
        let value = option.value.as_str();
        let config = &mut self.config;
        match option.letter {
            'h' => {
                log.raw(format_args!("{}", usage()));
                return Err(0);
            }
            'i' if value.len() > MAX_NAME => dline!(log, "main", "ifname too long {value}"),
            'i' => self.name = Some(value.to_owned()),
            'f' => match Function::TABLE.iter().find(|(name, _)| *name == value) {
                Some((_, function)) => config.function = *function,
                // The function named before stays (netmap: with a burst of 0, which never moves anything).
                None => dline!(log, "main", "unrecognised function {value}"),
            },
            'n' => config.npackets = number(option, log)?,
            'l' if self.size.is_some() => self.min_size = Some(number(option, log)?),
            'l' => self.size = Some(number(option, log)?),
            'b' => self.burst = number(option, log)?,
            '4' => config.ipv6 = false,
            '6' => config.ipv6 = true,
            'd' => self.dst = Some(value.to_owned()),
            's' => self.src = Some(value.to_owned()),
            'D' => self.dst_mac = value.to_owned(),
            'S' => self.src_mac = Some(value.to_owned()),
            'a' if value.starts_with('-') => config.affinity = None,
            'a' => config.affinity = Some(number(option, log)?),
            'c' => self.cpus = number(option, log)?,
            'p' => config.threads = number(option, log)?,
            // No report at all would be a busy loop.
            'T' => config.interval = Duration::from_millis(number::<u64>(option, log)?.max(1)),
            'w' => self.wait_secs = Some(number(option, log)?),
            'W' => config.exit_if_idle = true,
            'R' => config.rate = number(option, log)?,
            'X' => config.options |= mask::DUMP,
            'H' => config.vnet_bytes = number(option, log)?,
            'P' => self.file = Some(value.to_owned()),
            'z' => config.options |= mask::RANDOM_SRC,
            'Z' => config.options |= mask::RANDOM_DST,
            'N' => config.plain = true,
            'F' => match number::<u64>(option, log)? {
                frags @ 1..=MAX_FRAGS => config.frags = frags as u32,
                frags => dline!(log, "main", "invalid frags {frags} [1..{MAX_FRAGS}], ignore"),
            },
            'M' => config.max_frag = Some(number::<usize>(option, log)?.max(1)),
            'I' => config.options |= mask::INDIRECT,
            'r' => config.options |= mask::RUBBISH,
            'v' => config.verbose = true,
            'A' => config.options |= mask::STATS,
            'B' => config.framing_bits = FRAMING_BITS,
            'C' => config.geometry = Some(geometry(option, log)?),
            // Several masks add up.
            'o' => config.options |= number::<u32>(option, log)?,
            _ => {}
        }
        Ok(())
    }

    fn check(mut self, have_cpus: usize, log: &DLog) -> Result<Config, u8> {
        let Some(name) = self.name.take() else {
            dline!(log, "main", "missing ifname");
            return Err(refuse(log));
        };
        self.config.ifname = port_name(&name, log)?;
        dline!(log, "main", "interface is {}", self.config.ifname);
        self.config.wait_secs = self.wait_secs.unwrap_or(if name.starts_with("vale") { 0 } else { 2 });

        self.config.burst = u32::try_from(self.burst).unwrap_or(u32::MAX);
        if self.burst == 0 {
            self.config.burst = self.config.function.default_burst();
            dline!(log, "main", "using default burst size: {}", self.config.burst);
        }
        if self.cpus > have_cpus as u64 {
            dline!(log, "main", "{} cpus is too high, have only {have_cpus} cpus", self.cpus);
            return Err(refuse(log));
        }
        self.config.cpus = if self.cpus == 0 { have_cpus } else { self.cpus as usize };
        dline!(log, "main", "running on {} cpus (have {have_cpus})", self.config.cpus);

        self.check_packet(log)?;
        if !matches!(self.config.vnet_bytes, 0 | 10 | 12) {
            dline!(log, "main", "bad virtio-net-header length");
            return Err(refuse(log));
        }
        let config = &mut self.config;
        config.dst_mac = (parse_mac(&self.dst_mac, log)?, self.dst_mac);
        if let Some(text) = self.src_mac {
            config.src_mac = Some((parse_mac(&text, log)?, text));
        }
        let defaults = if config.ipv6 { ("fd00::1", "fd00::2") } else { ("10.0.0.1", "10.1.0.1") };
        config.src = parse_range(self.src.as_deref().unwrap_or(defaults.0), config.ipv6, log)?;
        config.dst = parse_range(self.dst.as_deref().unwrap_or(defaults.1), config.ipv6, log)?;
        if !(config.src.0.is_single() && config.dst.0.is_single()) {
            config.options |= mask::COPY;
        }
        if config.rate > 0 {
            let limit = u32::try_from(config.rate / 300).unwrap_or(u32::MAX);
            config.burst = config.burst.min(limit).max(1);
            config.period = Duration::from_nanos(1_000_000_000 * u64::from(config.burst) / config.rate);
        }
        Ok(self.config)
    }

    /// The size, or the packet from a file, which brings its own.
    fn check_packet(&mut self, log: &DLog) -> Result<(), u8> {
        let possible = |size: u64| (MIN_SIZE as u64..=MAX_SIZE as u64).contains(&size);
        let mut size = self.size.unwrap_or(60);
        if let Some(path) = self.file.take().filter(|_| self.config.function == Function::Tx) {
            let data = first_packet(&path).map_err(|why| {
                dline!(log, "main", "cannot take a packet from '{path}': {why}");
                EXIT_USAGE
            })?;
            size = data.len() as u64;
            self.config.packet = Some(data);
        }
        if !possible(size) {
            dline!(log, "main", "bad pktsize {size} [{MIN_SIZE}..{MAX_SIZE}]");
            return Err(refuse(log));
        }
        self.config.size = size as usize;
        if let Some(min) = self.min_size {
            if !(MIN_SIZE as u64..=size).contains(&min) {
                dline!(log, "main", "bad pktminsize {min} [{MIN_SIZE}..{size}]");
                return Err(refuse(log));
            }
            // A range of one size is that size (netmap: division by zero).
            self.config.min_size = (min < size).then_some(min as usize);
        }
        Ok(())
    }
}

/// The name to open for the name given.
fn port_name(name: &str, log: &DLog) -> Result<String, u8> {
    if name == "null" || name.starts_with("netmap:") || name.starts_with("vale") {
        return Ok(name.to_owned());
    }
    if name.starts_with("tap") || name.starts_with("pcap:") {
        let what = if name.starts_with("tap") { "tap devices" } else { "libpcap devices" };
        dline!(log, "main", "{name}: {what} are not offered by Ringway; use netmap:NAME or valeX:NAME");
        return Err(EXIT_USAGE);
    }
    Ok(format!("netmap:{name}"))
}

fn parse_mac(text: &str, log: &DLog) -> Result<Mac, u8> {
    text.parse().map_err(|_| {
        dline!(log, "extract_mac", "invalid MAC address '{text}'");
        refuse(log)
    })
}

fn parse_range(text: &str, ipv6: bool, log: &DLog) -> Result<(IpRange, String), u8> {
    let range = if ipv6 { IpRange::parse_v6(text) } else { IpRange::parse_v4(text) };
    let range = range.map_err(|why| {
        dline!(log, "extract_range", "{why} in the range '{text}'");
        refuse(log)
    })?;
    dline!(log, "extract_range", "range is {range}");
    Ok((range, text.to_owned()))
}

fn geometry(option: &Given, log: &DLog) -> Result<[u32; 4], u8> {
    dline!(log, "main", "WARNING: the 'C' option is deprecated, use the '+conf:' libnetmap option instead");
    let mut numbers = Vec::new();
    let mut parts = option.value.splitn(5, ',');
    for part in parts.by_ref().take(4) {
        numbers.push(number(&Given { letter: option.letter, value: part.to_owned() }, log)?);
    }
    if let Some(rest) = parts.next() {
        dline!(log, "main", "ignored config: {rest}");
    }
    let [slots, ref rest @ ..] = numbers[..] else { return Err(refuse(log)) };
    let tx_rings = rest.get(1).copied().unwrap_or(0);
    Ok([slots, rest.first().copied().unwrap_or(slots), tx_rings, rest.get(2).copied().unwrap_or(tx_rings)])
}

fn first_packet(path: &str) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut reader = capture::Reader::new(BufReader::new(file)).map_err(|error| error.to_string())?;
    let frame = reader.next_frame().map_err(|error| error.to_string())?;
    let frame = frame.ok_or("there is none")?;
    if frame.link_type != capture::LINK_ETHERNET {
        return Err(format!("it is not Ethernet but of link type {}", frame.link_type));
    }
    Ok(frame.data)
}

#[cfg(test)]
mod tests;
