//! `ringway tune [NAME [VALUE]]`: the broker's parameters, by netmap's names.

use crate::{Failure, print};
use ringway::Broker;

/// Show or set parameters.
#[derive(Debug, clap::Args)]
pub struct TuneArgs {
    /// Parameter (default: all)
    name: Option<String>,
    /// New value
    #[arg(allow_negative_numbers = true)]
    value: Option<i32>,
}

/// Runs the command.
pub fn run(args: &TuneArgs) -> Result<(), Failure> {
    let broker = Broker::connect()?;
    for (name, value, live) in broker.tune(args.name.as_deref().unwrap_or(""), args.value)? {
        let note = if live { "" } else { "  (set in the broker's file)" };
        print(&format!("{name} = {value}{note}\n"))?;
    }
    Ok(())
}
