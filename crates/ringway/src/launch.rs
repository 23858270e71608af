//! Starting a broker.

use crate::error::OpenError;
use ringway_core::place::{self, Place};
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Where the program that runs a broker may be, in order.
fn programs() -> Vec<PathBuf> {
    let mut out = vec![];
    if let Some(named) = std::env::var_os("RINGWAYD").filter(|v| !v.is_empty()) {
        return vec![named.into()];
    }
    let names = ["ringwayd", "ringway"];
    if let Ok(exe) = std::env::current_exe() {
        for dir in exe.ancestors().skip(1).take(2) {
            out.extend(names.map(|n| dir.join(n)));
            out.push(dir.join("libexec/ringwayd"));
        }
    }
    out.push("/usr/libexec/ringwayd".into());
    out.push("/usr/local/libexec/ringwayd".into());
    let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/local/bin:/usr/bin"));
    for dir in std::env::split_paths(&path) {
        out.extend(names.map(|n| dir.join(n)));
    }
    out
}

/// Starts a broker at `place` and waits until it says that it is ready.
pub fn start_broker(place: &Place, uid: u32) -> Result<(), OpenError> {
    let all = programs();
    let Some(program) = all.iter().find(|p| p.is_file()) else {
        if let [named] = &all[..] {
            let text = format!("RINGWAYD names {}, which is not there", named.display());
            return Err(OpenError::NoBroker(text));
        }
        let text = "no program `ringwayd` or `ringway` beside this one, in libexec or in PATH: install one, or name it in RINGWAYD";
        return Err(OpenError::NoBroker(text.into()));
    };
    place::make_folder(place, uid).map_err(|e| {
        OpenError::NoBroker(format!("cannot make the folder of {}: {e}", place.socket.display()))
    })?;
    let mut command = Command::new(program);
    if program.file_name().is_some_and(|n| n == "ringway") {
        command.args(["broker", "run"]);
    }
    command.arg("--background").arg("--socket").arg(&place.socket);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let fail = |e: io::Error| OpenError::NoBroker(format!("cannot start {}: {e}", program.display()));
    let mut child = command.spawn().map_err(fail)?;
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        BufReader::new(out).read_line(&mut line).map_err(fail)?;
    }
    child.wait().map_err(fail)?;
    match line.trim() {
        "ready" => Ok(()),
        "" => Err(OpenError::NoBroker(format!("{} ended at once", program.display()))),
        text => Err(OpenError::NoBroker(text.to_owned())),
    }
}
