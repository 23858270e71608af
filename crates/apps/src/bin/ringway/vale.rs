//! `ringway vale`: what joins a switch besides the ports that programs open there: interfaces, and persistent ports.

use crate::{Failure, print};
use clap::{Args, Subcommand, ValueEnum};
use ringway::Broker;
use ringway_abi::{
    NETMAP_API, NETMAP_POLLING_MODE_MULTI_CPU, NETMAP_POLLING_MODE_SINGLE_CPU, NETMAP_REQ_VALE_ATTACH,
    NETMAP_REQ_VALE_DELIF, NETMAP_REQ_VALE_DETACH, NETMAP_REQ_VALE_NEWIF, NETMAP_REQ_VALE_POLLING_DISABLE,
    NETMAP_REQ_VALE_POLLING_ENABLE, NR_REG_ALL_NIC, c_name_field, nmreq_header, nmreq_vale_attach,
    nmreq_vale_detach, nmreq_vale_newif, nmreq_vale_polling,
};
use zerocopy::IntoBytes;

/// Interfaces and persistent ports on a switch.
#[derive(Debug, Subcommand)]
pub enum ValeCommand {
    /// Put an interface, or a persistent port, on a switch
    Attach(AttachArgs),
    /// Take it off again
    Detach(NameArgs),
    /// Have threads look after an attached interface without sleeping
    Poll(PollArgs),
    /// End that
    Unpoll(NameArgs),
    /// Make a persistent port
    Create(CreateArgs),
    /// Delete a persistent port
    Delete(CreateArgs),
}

#[derive(Debug, Args)]
pub struct NameArgs {
    /// Place on the switch, such as vale0:eth0
    #[arg(value_name = "SWITCH:NAME")]
    name: String,
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Name of the port, such as v0
    name: String,
}

#[derive(Debug, Args)]
pub struct AttachArgs {
    /// Place on the switch, such as vale0:eth0
    #[arg(value_name = "SWITCH:NAME")]
    name: String,
    /// Memory region to use (default: one of its own)
    #[arg(long, value_name = "ID", default_value_t = 0)]
    mem_id: u16,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    /// One processor looks after all rings
    Single,
    /// Each processor looks after the ring of its number
    Multi,
}

#[derive(Debug, Args)]
pub struct PollArgs {
    /// Place on the switch, such as vale0:eth0
    #[arg(value_name = "SWITCH:NAME")]
    name: String,
    /// Who looks after which ring
    #[arg(long, value_enum, default_value_t = Mode::Single)]
    mode: Mode,
    /// First processor
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    cpu: u32,
    /// How many processors
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    count: u32,
}

fn ask(name: &str, nr_reqtype: u16, body: &mut [u8]) -> Result<(), Failure> {
    let nr_name = c_name_field(name).ok_or_else(|| Failure::new(format!("the name {name} is too long")))?;
    let mut header = nmreq_header { nr_version: NETMAP_API, nr_reqtype, nr_name, ..Default::default() };
    Ok(Broker::connect()?.control(&mut header, body)?)
}

/// Runs the command.
pub fn run(command: &ValeCommand) -> Result<(), Failure> {
    match command {
        ValeCommand::Attach(args) => {
            let mut body = nmreq_vale_attach::default();
            (body.reg.nr_mode, body.reg.nr_mem_id) = (NR_REG_ALL_NIC, args.mem_id);
            ask(&args.name, NETMAP_REQ_VALE_ATTACH, body.as_mut_bytes())?;
            print(&format!("{} is port {}\n", args.name, body.port_index))
        }
        ValeCommand::Detach(args) => {
            let mut body = nmreq_vale_detach::default();
            ask(&args.name, NETMAP_REQ_VALE_DETACH, body.as_mut_bytes())
        }
        ValeCommand::Poll(args) => {
            let nr_mode = match args.mode {
                Mode::Single => NETMAP_POLLING_MODE_SINGLE_CPU,
                Mode::Multi => NETMAP_POLLING_MODE_MULTI_CPU,
            };
            let mut body = nmreq_vale_polling {
                nr_mode,
                nr_first_cpu_id: args.cpu,
                nr_num_polling_cpus: args.count,
                ..Default::default()
            };
            ask(&args.name, NETMAP_REQ_VALE_POLLING_ENABLE, body.as_mut_bytes())
        }
        ValeCommand::Unpoll(args) => {
            let mut body = nmreq_vale_polling::default();
            ask(&args.name, NETMAP_REQ_VALE_POLLING_DISABLE, body.as_mut_bytes())
        }
        ValeCommand::Create(args) => {
            ask(&args.name, NETMAP_REQ_VALE_NEWIF, nmreq_vale_newif::default().as_mut_bytes())
        }
        ValeCommand::Delete(args) => ask(&args.name, NETMAP_REQ_VALE_DELIF, &mut []),
    }
}
