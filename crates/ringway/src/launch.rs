//! Starting a broker.

use crate::error::OpenError;
use ringway_core::place::{self, Place};
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Installed, whoever asks.
const SYSTEM_PROGRAMS: [&str; 2] = ["/usr/libexec/ringwayd", "/usr/local/libexec/ringwayd"];
const NAMES: [&str; 2] = ["ringwayd", "ringway"];

static LIBRARY: OnceLock<PathBuf> = OnceLock::new();

/// Tells in which file this library is: the broker that was installed with it is preferred to those in PATH. Only the first call counts.
pub fn library_is(file: &Path) {
    // `LD_PRELOAD` may name it from the folder of then.
    let _ = LIBRARY.set(file.canonicalize().unwrap_or_else(|_| file.to_owned()));
}

/// Where the program that runs a broker may be, in order.
fn programs() -> Vec<PathBuf> {
    if ringway_os::sys::has_gained_rights() {
        // Neither the environment nor the program's own place, which may be a link to it, may say what runs with these rights.
        return SYSTEM_PROGRAMS.map(Into::into).to_vec();
    }
    let library = LIBRARY.get().map(PathBuf::as_path);
    programs_for(library)
}

fn programs_for(library: Option<&Path>) -> Vec<PathBuf> {
    let mut out = vec![];
    if let Some(named) = std::env::var_os("RINGWAYD").filter(|v| !v.is_empty()) {
        return vec![named.into()];
    }
    if let Ok(exe) = std::env::current_exe() {
        for dir in exe.ancestors().skip(1).take(2) {
            out.extend(NAMES.map(|n| dir.join(n)));
            out.push(dir.join("libexec/ringwayd"));
        }
    }
    if let Some(library) = library {
        // PREFIX/lib, or a folder in that for the machine's kind.
        out.extend(library.ancestors().nth(1).into_iter().flat_map(|dir| NAMES.map(|n| dir.join(n))));
        out.extend(library.ancestors().skip(2).take(2).map(|dir| dir.join("libexec/ringwayd")));
    }
    out.extend(SYSTEM_PROGRAMS.map(PathBuf::from));
    let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/local/bin:/usr/bin"));
    for dir in std::env::split_paths(&path) {
        out.extend(NAMES.map(|n| dir.join(n)));
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
    // What is preloaded into the program is not for its broker.
    command.env_remove("LD_PRELOAD");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broker_of_the_librarys_prefix_comes_before_the_systems() {
        let place = |library: &str, program: &str| {
            let all = programs_for(Some(Path::new(library)));
            all.iter().position(|p| p == Path::new(program)).unwrap_or(usize::MAX)
        };
        let none = programs_for(None);
        if none.len() == 1 {
            println!("SKIP the_broker_of_the_librarys_prefix_comes_before_the_systems: RINGWAYD names one");
            return;
        }
        for library in ["/opt/x/lib/libnetmap.so", "/opt/x/lib/x86_64-linux-gnu/libnetmap.so"] {
            let own = place(library, "/opt/x/libexec/ringwayd");
            assert!(own < place(library, "/usr/libexec/ringwayd"), "{library}");
        }
        let built = "/src/target/release/libnetmap.so";
        assert!(place(built, "/src/target/release/ringwayd") < place(built, "/usr/libexec/ringwayd"));
        assert!(!none.iter().any(|p| p.starts_with("/opt/x")));
    }
}
