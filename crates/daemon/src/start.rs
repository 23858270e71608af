//! Beginning and ending of a broker: one per socket, whoever starts how many at the same instant.

use crate::config::Config;
use crate::device::Device;
use crate::server::Server;
use ringway_core::place::{Place, lock_path, make_folder, places};
use ringway_os::sock::Listener;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a broker is started with.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct RunArgs {
    /// Socket to serve on (default: the first place where clients of this user look for one)
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Go to the background; says "ready" when clients can connect
    #[arg(long)]
    pub background: bool,
    /// Stay although nobody uses it
    #[arg(long)]
    pub stay: bool,
}

/// What the starter reads when clients can connect.
pub const READY: &str = "ready";

/// Runs a broker until it ends. `myself` is how to start this program again as a broker in the background.
///
/// # Errors
/// A line for people.
pub fn run(args: &RunArgs, myself: &[&str]) -> Result<(), String> {
    let uid = ringway_os::sys::euid();
    let place = match &args.socket {
        Some(socket) => Place {
            socket: std::path::absolute(socket).map_err(|e| e.to_string())?,
            startable: true,
            private: false,
        },
        None => places(uid).into_iter().find(|p| p.startable).ok_or("no place for a socket")?,
    };
    if args.background {
        return start_in_background(args, &place, myself);
    }
    let mut config = match args.config.clone().or_else(|| Config::default_path(uid)) {
        Some(path) => Config::read(&path)?,
        None => Config::default(),
    };
    config.stay |= args.stay;
    make_folder(&place, uid)
        .map_err(|e| format!("cannot make the folder of {}: {e}", place.socket.display()))?;
    let Some(_lock) = take_lock(&place.socket)? else {
        return if args.stay {
            Err(format!("a broker serves {} already", place.socket.display()))
        } else {
            // Started on demand by several at once: the other one serves.
            say_ready();
            Ok(())
        };
    };
    ringway_os::sys::raise_limits();
    let listener = bind_socket(&place.socket, &config)
        .map_err(|e| format!("cannot listen on {}: {e}", place.socket.display()))?;
    let (signals, wake) = std::os::unix::net::UnixStream::pair().map_err(|e| e.to_string())?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        let wake = wake.try_clone().map_err(|e| e.to_string())?;
        signal_hook::low_level::pipe::register(signal, wake).map_err(|e| e.to_string())?;
    }
    let device = Device::start(config.device.as_ref(), &place.socket);
    if config.device.is_some() {
        // Other processes' memory is for the helper alone. It is started before: without new privileges (no_new_privs) it has what
        // we had. There is no other thread yet.
        ringway_os::proc::drop_ptrace().map_err(|e| format!("cannot give up a capability: {e}"))?;
    }
    let mut server =
        Server::new(listener, place.socket.clone(), config, device).map_err(|e| e.to_string())?;
    tracing::info!("serving on {}", place.socket.display());
    say_ready();
    server.run(&signals).map_err(|e| format!("broker: {e}"))?;
    tracing::info!("ends");
    Ok(())
}

/// For a broker in the background that failed: its starter reads this instead of "ready".
pub fn say_failed(error: &str) {
    if std::env::var_os("RINGWAY_DETACH").is_some() {
        println!("{error}");
    }
}

fn say_ready() {
    let mut out = io::stdout();
    let _ = writeln!(out, "{READY}");
    let _ = out.flush();
}

/// Starts the same program as a process of its own and returns when it says that it is ready, or what is wrong.
fn start_in_background(args: &RunArgs, place: &Place, myself: &[&str]) -> Result<(), String> {
    let exe = std::env::current_exe().map_err(|e| format!("cannot find myself: {e}"))?;
    let mut command = Command::new(exe);
    command.args(myself).arg("--socket").arg(&place.socket);
    if let Some(config) = &args.config {
        command.arg("--config").arg(std::path::absolute(config).map_err(|e| e.to_string())?);
    }
    if args.stay {
        command.arg("--stay");
    }
    // Its first words go where our caller listens; it closes the rest itself.
    command.stdin(Stdio::null()).stdout(Stdio::inherit()).stderr(Stdio::inherit()).env("RINGWAY_DETACH", "1");
    command.spawn().map_err(|e| format!("cannot start the broker: {e}"))?;
    Ok(())
}

/// For the start of `main`: a broker in the background leaves its starter's session, folder and files.
///
/// # Errors
/// What chdir answers.
pub fn detach_if_asked() -> io::Result<()> {
    if std::env::var_os("RINGWAY_DETACH").is_some() {
        ringway_os::sys::detach_from_starter()?;
    }
    Ok(())
}

/// The lock beside the socket, held all the broker's life. None if another broker has it.
fn take_lock(socket: &Path) -> Result<Option<File>, String> {
    let path = lock_path(socket);
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = file.map_err(|e| format!("cannot open {}: {e}", path.display()))?;
    match ringway_os::sys::try_lock_file(&file) {
        Ok(()) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(format!("cannot lock {}: {e}", path.display())),
    }
}

/// Binds the socket. Only the holder of the lock may call it: what lies there is from a broker that was killed.
pub(crate) fn bind_socket(socket: &Path, config: &Config) -> io::Result<Listener> {
    match std::fs::remove_file(socket) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = Listener::bind(socket)?;
    let others = config.admit != crate::config::Admit::Nobody;
    std::fs::set_permissions(socket, Permissions::from_mode(if others { 0o666 } else { 0o600 }))?;
    Ok(listener)
}

/// Begins logging to standard error: level from `RUST_LOG`, else warnings.
pub fn init_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).try_init();
}
