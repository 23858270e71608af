//! The broker as a program of its own; `ringway broker run` is the same.
#![forbid(unsafe_code)]

use clap::Parser;
use ringwayd::start;
use std::process::ExitCode;

/// Ringway's broker: hands out ports, rings and switches; stays out of the data path.
#[derive(Debug, Parser)]
#[command(name = "ringwayd", version)]
struct Args {
    #[command(flatten)]
    run: start::RunArgs,
}

fn main() -> ExitCode {
    ringwayd::device::serve_if_asked();
    if let Err(e) = start::detach_if_asked() {
        eprintln!("ringwayd: cannot leave the starter's folder: {e}");
    }
    let args = Args::parse();
    start::init_log();
    match start::run(&args.run, &[]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("ringwayd: {e}");
            start::say_failed(&e);
            ExitCode::from(2)
        }
    }
}
