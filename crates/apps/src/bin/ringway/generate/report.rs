//! What the parties say, and what the user is told.

use super::GenArgs;
use comfy_table::{Table, presets};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;

/// A line of a child.
#[derive(Debug, Serialize, Deserialize)]
pub enum Message {
    /// Its port is open.
    Ready,
    /// Packets so far.
    Progress {
        /// Packets.
        packets: u64,
    },
    /// The end.
    Final(Box<Final>),
}

impl Message {
    /// Says it to the parent. A parent that is gone is noticed by the closed input.
    pub fn say(&self) {
        if let Ok(text) = serde_json::to_string(self) {
            let mut out = std::io::stdout().lock();
            let _ = writeln!(out, "{text}");
            let _ = out.flush();
        }
    }
}

/// What a party did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Final {
    /// Packets sent or received.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Nanoseconds of CPU of the process, from the first packet to the last.
    pub cpu_ns: u64,
    /// Nanoseconds from the first packet to the last.
    pub wall_ns: u64,
    /// Syncs.
    pub syncs: u64,
    /// Dropped, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Nanoseconds from send to receive: name of the percentile and value.
    pub latency_ns: BTreeMap<String, u64>,
    /// How the port's interface is reached, if it has one.
    pub path: Option<String>,
}

/// The whole result.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Port that sent.
    pub from: String,
    /// Port that received.
    pub to: String,
    /// How their interfaces are reached (`xdp native copy` and the like).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_mode: Option<String>,
    /// See `from_mode`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_mode: Option<String>,
    /// Packets sent.
    pub sent: u64,
    /// Packets received.
    pub received: u64,
    /// Lost, by reason; what nobody counted is `unknown`.
    pub lost: BTreeMap<String, u64>,
    /// Millions of packets received per second.
    pub mpps: f64,
    /// Gigabits received per second.
    pub gbps: f64,
    /// Nanoseconds of CPU of the sender per packet sent.
    pub tx_cpu_ns: f64,
    /// Nanoseconds of CPU of the receiver per packet received.
    pub rx_cpu_ns: f64,
    /// Packets per sync that sent.
    pub tx_batch: f64,
    /// Percentiles of the time from send to receive, in nanoseconds.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub latency_ns: BTreeMap<String, u64>,
}

fn per(a: u64, b: u64) -> f64 {
    if b == 0 { 0.0 } else { a as f64 / b as f64 }
}

impl Summary {
    /// Puts the two halves together.
    pub fn new(args: &GenArgs, sent: &Final, received: &Final) -> Self {
        let mut lost = sent.drops.clone();
        for (name, n) in &received.drops {
            *lost.entry(name.clone()).or_default() += n;
        }
        let known: u64 = lost.values().sum();
        let unknown = sent.packets.saturating_sub(received.packets + known);
        if unknown > 0 {
            lost.insert("unknown".into(), unknown);
        }
        Summary {
            from: args.a.clone(),
            to: args.b.clone(),
            from_mode: sent.path.clone(),
            to_mode: received.path.clone(),
            sent: sent.packets,
            received: received.packets,
            lost,
            mpps: per(received.packets, received.wall_ns) * 1e3,
            gbps: per(received.bytes * 8, received.wall_ns),
            tx_cpu_ns: per(sent.cpu_ns, sent.packets),
            rx_cpu_ns: per(received.cpu_ns, received.packets),
            tx_batch: per(sent.packets, sent.syncs),
            latency_ns: received.latency_ns.clone(),
        }
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut t = Table::new();
        t.load_style(presets::NOTHING);
        let mut row = |name: &str, value: String| {
            t.add_row([name.to_owned(), value]);
        };
        let by = |mode: &Option<String>| mode.as_ref().map_or_else(String::new, |m| format!(" ({m})"));
        row("sent", format!("{} packets on {}{}", self.sent, self.from, by(&self.from_mode)));
        row("received", format!("{} packets on {}{}", self.received, self.to, by(&self.to_mode)));
        let total: u64 = self.lost.values().sum();
        let why: Vec<String> = self.lost.iter().map(|(name, n)| format!("{n} {name}")).collect();
        row("lost", if why.is_empty() { "0".into() } else { format!("{total} ({})", why.join(", ")) });
        row("rate", format!("{:.2} Mpps, {:.2} Gb/s", self.mpps, self.gbps));
        let both = self.tx_cpu_ns + self.rx_cpu_ns;
        row(
            "CPU per packet",
            format!("{:.1} ns sending + {:.1} ns receiving = {both:.1} ns", self.tx_cpu_ns, self.rx_cpu_ns),
        );
        row("batch", format!("{:.1} packets per sync", self.tx_batch));
        for (name, ns) in &self.latency_ns {
            row(&format!("latency {name}"), format!("{:.2} us", *ns as f64 / 1e3));
        }
        format!("{t}\n")
    }
}
