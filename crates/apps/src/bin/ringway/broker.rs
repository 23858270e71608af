//! `ringway broker run|status|stop`.

use crate::{Failure, print};
use clap::Subcommand;
use ringway::Broker;
use ringwayd::listing::Status;
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
        BrokerCommand::Stop => {
            let broker = Broker::find()?.ok_or_else(|| Failure::nothing("no broker answers"))?;
            broker.stop()?;
            print(&format!("broker at {} ends\n", broker.socket().display()))
        }
    }
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
             {} descriptors, {} bound; {} processes, {} ports; {} locks of dead processes broken\n  \
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
            s.locks_broken,
            s.device
        ))?;
    }
    Ok(())
}
