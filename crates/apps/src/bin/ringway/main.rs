//! `ringway`: traffic, listings, parameters, and the broker, in one program.
#![forbid(unsafe_code)]

mod broker;
mod generate;
mod pages;
mod ports;
mod run;
mod tune;
mod vale;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// netmap in user space: move packets by the million between programs, over switches, pipes and network interfaces.
#[derive(Debug, Parser)]
#[command(name = "ringway", version, propagate_version = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send on one port, receive on another, and tell what arrived
    Gen(generate::GenArgs),
    /// Run a program that was compiled for netmap
    Run(run::RunArgs),
    /// List every port: who holds it, rings, rates, drops
    Ports(ports::PortsArgs),
    /// Put interfaces and persistent ports on a switch
    #[command(subcommand)]
    Vale(vale::ValeCommand),
    /// Show or set the broker's parameters
    Tune(tune::TuneArgs),
    /// Run, ask or stop the broker
    #[command(subcommand)]
    Broker(broker::BrokerCommand),
    #[command(hide = true)]
    Pages(pages::PagesArgs),
}

/// How a command failed, and with which exit status.
struct Failure {
    text: String,
    status: u8,
}

impl Failure {
    /// An error: status 2.
    fn new(text: impl Into<String>) -> Self {
        Failure { text: text.into(), status: 2 }
    }

    /// It has been told already.
    fn told(status: u8) -> Self {
        Failure { text: String::new(), status }
    }

    /// It ran, and nothing moved: status 1.
    fn nothing(text: impl Into<String>) -> Self {
        Failure { text: text.into(), status: 1 }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(e: E) -> Self {
        Failure::new(e.to_string())
    }
}

/// A name that somebody chose, for a terminal: without characters that would command it.
fn shown(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.into() }).collect()
}

/// Why a thread cannot be had.
fn no_thread(e: &std::io::Error) -> Failure {
    Failure::new(format!("cannot start a thread: {e}"))
}

/// Prints to standard output; a reader that went away is no error.
fn print(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}

fn main() -> ExitCode {
    ringwayd::device::serve_if_asked();
    if let Err(e) = ringwayd::start::detach_if_asked() {
        eprintln!("ringway: cannot leave the starter's folder: {e}");
    }
    let result = match Args::parse().command {
        Command::Gen(args) => generate::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Ports(args) => ports::run(&args),
        Command::Vale(command) => vale::run(&command),
        Command::Tune(args) => tune::run(&args),
        Command::Broker(command) => broker::run(&command),
        Command::Pages(args) => pages::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.text.is_empty() {
                eprintln!("ringway: {}", failure.text);
            }
            ExitCode::from(failure.status)
        }
    }
}
