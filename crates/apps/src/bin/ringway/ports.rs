//! `ringway ports`: every port, who holds it, what moves and what is lost.

use crate::{Failure, print, shown};
use comfy_table::{Table, presets};
use ringway::Broker;
use ringwayd::listing::{Port, Traffic};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// List every port.
#[derive(Debug, clap::Args)]
pub struct PortsArgs {
    /// As JSON: the broker's counters and the rates
    #[arg(long)]
    json: bool,
    /// Seconds over which rates are taken
    #[arg(long, value_name = "SECONDS", default_value_t = 0.2, value_parser = seconds)]
    interval: f64,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|s| Duration::try_from_secs_f64(*s).is_ok());
    seconds.ok_or_else(|| "must be a number of seconds".into())
}

/// A port with its rates, in packets per second.
#[derive(serde::Serialize)]
struct Line {
    #[serde(flatten)]
    port: Port,
    tx_pps: f64,
    rx_pps: f64,
}

fn ports(broker: &Broker) -> Result<Vec<Port>, Failure> {
    Ok(serde_json::from_slice(&broker.list_json()?)?)
}

/// Runs the command.
pub fn run(args: &PortsArgs) -> Result<(), Failure> {
    let Some(broker) = Broker::find()? else {
        return if args.json { print("[]\n") } else { print("no ports: no broker runs\n") };
    };
    let before: BTreeMap<String, Port> = ports(&broker)?.into_iter().map(|p| (p.name.clone(), p)).collect();
    let began = Instant::now();
    std::thread::sleep(Duration::try_from_secs_f64(args.interval).unwrap_or_default());
    let after = ports(&broker)?;
    let seconds = began.elapsed().as_secs_f64().max(1e-9);
    let rate = |now: &Traffic, old: Option<&Traffic>| {
        old.map_or(0.0, |o| now.packets.saturating_sub(o.packets) as f64 / seconds)
    };
    let lines: Vec<Line> = after
        .into_iter()
        .map(|port| {
            let old = before.get(&port.name);
            let (tx_pps, rx_pps) = (rate(&port.tx, old.map(|o| &o.tx)), rate(&port.rx, old.map(|o| &o.rx)));
            Line { port, tx_pps, rx_pps }
        })
        .collect();
    if args.json {
        return print(&format!("{}\n", serde_json::to_string_pretty(&lines)?));
    }
    if lines.is_empty() {
        return print("no ports\n");
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "port", "kind", "mode", "lease", "rings", "held by", "tx pps", "rx pps", "sent", "received", "drops",
    ]);
    for l in &lines {
        table.add_row(row(l));
    }
    print(&format!("{table}\n"))
}

fn row(l: &Line) -> Vec<String> {
    let p = &l.port;
    if !p.visible {
        let mut cells = vec![shown(&p.name), p.kind.clone(), String::new(), String::new(), String::new()];
        cells.push(format!("user {}", p.owner));
        cells.resize(11, String::new());
        return cells;
    }
    let count = |dir: &str| p.rings.iter().filter(|r| r.dir == dir).count();
    let rings = format!("{}x{} tx, {}x{} rx", count("tx"), p.slots.0, count("rx"), p.slots.1);
    let holders: Vec<String> = p.holders.iter().map(|h| format!("{} ({})", h.pid, h.rings)).collect();
    let mut drops = p.tx.drops.clone();
    for (name, n) in &p.rx.drops {
        *drops.entry(name.clone()).or_default() += n;
    }
    let drops: Vec<String> = drops.iter().map(|(name, n)| format!("{n} {name}")).collect();
    vec![
        shown(&p.name),
        if p.watches.is_empty() { p.kind.clone() } else { format!("{} of {}", p.kind, shown(&p.watches)) },
        p.mode.clone(),
        p.lease.clone(),
        rings,
        if holders.is_empty() { "nobody".into() } else { holders.join("; ") },
        format!("{:.0}", l.tx_pps),
        format!("{:.0}", l.rx_pps),
        p.tx.packets.to_string(),
        p.rx.packets.to_string(),
        if drops.is_empty() { "0".into() } else { drops.join(", ") },
    ]
}
