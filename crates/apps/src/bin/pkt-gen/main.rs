//! `pkt-gen`: the process around [`ringway_apps::pktgen`].

#![forbid(unsafe_code)]

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ringway::Netmap;
use ringway_apps::interrupt::handle_control_c;
use ringway_apps::pktgen::clock::SystemClock;
use ringway_apps::pktgen::service::Service;
use ringway_apps::pktgen::{Host, run};
use ringway_apps::units::{Output, stderr_log};

fn main() -> ExitCode {
    let cancel = Arc::new(AtomicBool::new(false));
    if let Err(error) = handle_control_c(&cancel) {
        stderr_log().raw(format_args!("cannot handle control-C: {error}\n"));
    }
    let host = Host {
        out: &Output::new(io::stdout()),
        log: stderr_log(),
        clock: &SystemClock::new(),
        cancel: &cancel,
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
    };
    ExitCode::from(run(std::env::args_os(), &Service(Netmap::broker()), host))
}
