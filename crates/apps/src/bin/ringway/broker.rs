//! `ringway broker run|status|audit|stop`.

use crate::{Failure, print, shown};
use clap::Subcommand;
use ringway::Broker;
use ringwayd::listing::{Audit, Status};
use ringwayd::start::{self, RunArgs};

/// What to do with brokers.
#[derive(Debug, Subcommand)]
pub enum BrokerCommand {
    /// Serve until nobody needs it (the same as the program ringwayd)
    Run(RunArgs),
    /// Tell which brokers answer; the first is the one that programs use
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Tell who owns the buffers of each region, and which processes hold locks: exact while nobody syncs
    Audit {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// End the broker that programs use; whoever has ports open gets errors
    Stop,
}

/// Runs the command.
pub fn run(command: &BrokerCommand) -> Result<(), Failure> {
    match command {
        BrokerCommand::Run(args) => {
            start::init_log();
            start::run(args, &["broker", "run"]).map_err(|e| {
                start::say_failed(&e);
                Failure::new(e)
            })
        }
        BrokerCommand::Status { json } => status(*json),
        BrokerCommand::Audit { json } => audit(*json),
        BrokerCommand::Stop => {
            let broker = Broker::find()?.ok_or_else(|| Failure::nothing("no broker answers"))?;
            broker.stop()?;
            print(&format!("broker at {} ends\n", broker.socket().display()))
        }
    }
}

fn audit(json: bool) -> Result<(), Failure> {
    let broker = Broker::find()?.ok_or_else(|| Failure::nothing("no broker answers"))?;
    let audit: Audit = serde_json::from_slice(&broker.audit_json()?)?;
    if json {
        return print(&format!("{}\n", serde_json::to_string_pretty(&audit)?));
    }
    for r in &audit.regions {
        print(&format!(
            "region {} of user {}: {} buffers: {} in rings, {} on lists, {} held by programs, {} free; {} twice, {} lost, {} bad\n",
            r.mem_id, r.owner, r.bufs, r.in_rings, r.in_lists, r.held, r.free, r.twice, r.lost, r.bad
        ))?;
    }
    for l in &audit.locks {
        print(&format!(
            "{} {} ring {}: process {} holds the {} lock\n",
            shown(&l.port),
            l.dir,
            l.ring,
            l.pid,
            l.kind
        ))?;
    }
    Ok(())
}

fn status(json: bool) -> Result<(), Failure> {
    let mut all = vec![];
    for broker in Broker::all() {
        let status: Status = serde_json::from_slice(&broker.status_json()?)?;
        all.push(status);
    }
    if json {
        return print(&format!("{}\n", serde_json::to_string_pretty(&all)?));
    }
    if all.is_empty() {
        return Err(Failure::nothing("no broker answers; the first program that opens a port starts one"));
    }
    for (i, s) in all.iter().enumerate() {
        let used = if i == 0 { " (programs use this one)" } else { "" };
        print(&format!(
            "{}{used}\n  version {}, process {}, user {}, up {} s, {:.3} s of CPU\n  \
             {} descriptors, {} bound; {} processes, {} ports; {} files to be closed; {} locks of dead processes broken\n  \
             device file: {}\n",
            s.socket,
            s.version,
            s.pid,
            s.uid,
            s.uptime_s,
            s.cpu_ns as f64 / 1e9,
            s.sessions,
            s.bindings,
            s.attachments,
            s.ports,
            s.closing,
            s.locks_broken,
            s.device
        ))?;
    }
    Ok(())
}
