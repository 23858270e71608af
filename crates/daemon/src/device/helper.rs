//! The helper's own life: mounts, serves, and takes everything away when the broker lets go of it.

use super::fuse::DeviceFs;
use super::{FILE_NAME, READY, READY_PRIVATE, TASK_VAR, Task, clean_up};
use fuser::{Config, MountOption, Session, SessionACL};
use ringway_os::proc;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long an earlier helper may take to end.
const LOCK_TIMEOUT: Duration = Duration::from_secs(3);

/// For the start of `main`: if this process was started as the helper of a device file, serves it, and never returns.
pub fn serve_if_asked() {
    let Ok(text) = std::env::var(TASK_VAR) else { return };
    crate::start::init_log();
    // Our end of the pair: the broker closes the other one to end us, and when it dies.
    let Ok(channel) = io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from) else {
        std::process::exit(2);
    };
    let outcome = serde_json::from_str::<Task>(&text).map_err(|e| e.to_string()).and_then(|task| {
        // Until the end of this process: the helper of a killed broker may be taking its mount away just now.
        let _lock = take_lock(&task)?;
        // What a broker and a helper that were both killed have left.
        clean_up(&task.mount, &task.path);
        let done = serve(&task, &channel);
        clean_up(&task.mount, &task.path);
        done
    });
    if let Err(e) = outcome {
        let _ = writeln!(&channel, "{e}");
        std::process::exit(2);
    }
    // Threads that hang in a caller's memory end with the process.
    std::process::exit(0);
}

fn take_lock(task: &Task) -> Result<File, String> {
    let path = task.mount.with_extension("lock");
    let fail = |e: io::Error| format!("cannot lock {}: {e}", path.display());
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = file.map_err(fail)?;
    let end = Instant::now() + LOCK_TIMEOUT;
    loop {
        match ringway_os::sys::try_lock_file(&file) {
            Ok(()) => return Ok(file),
            Err(e) if Instant::now() >= end => return Err(fail(e)),
            Err(_) => ringway_os::sys::sleep(Duration::from_millis(2)),
        }
    }
}

fn serve(task: &Task, mut channel: &UnixStream) -> Result<(), String> {
    if !proc::may_serve_device() {
        return Err("its helper needs CAP_SYS_ADMIN, CAP_SYS_PTRACE, CAP_SETUID and CAP_DAC_OVERRIDE".into());
    }
    if std::fs::symlink_metadata(&task.path).is_ok() {
        return Err(format!("{} is there already, and not ours", task.path.display()));
    }
    std::fs::create_dir_all(&task.mount).map_err(|e| format!("cannot make {}: {e}", task.mount.display()))?;
    proc::keep_capabilities(proc::DEVICE_CAPABILITIES)
        .map_err(|e| format!("cannot give up capabilities: {e}"))?;
    ringway_os::bytes::forbid_own_memory();
    ringway_os::sys::raise_limits();
    let mut config = Config::default();
    config.acl = SessionACL::All;
    config.mount_options = vec![
        MountOption::FSName("ringway".into()),
        MountOption::DefaultPermissions,
        MountOption::NoSuid,
        MountOption::NoExec,
        MountOption::NoAtime,
    ];
    let fs = DeviceFs::new(task.clone());
    let session = Session::new(fs, &task.mount, &config).map_err(|e| {
        format!("cannot mount a FUSE file system with pass-through (Linux 6.9 or later): {e}")
    })?;
    std::thread::Builder::new()
        .name("fuse".into())
        .spawn(move || session.run())
        .map_err(|e| format!("cannot start a thread: {e}"))?;
    std::os::unix::fs::symlink(task.mount.join(FILE_NAME), &task.path)
        .map_err(|e| format!("cannot make {}: {e}", task.path.display()))?;
    let ready = if proc::mounts_are_private() { READY_PRIVATE } else { READY };
    writeln!(channel, "{ready}").map_err(|e| e.to_string())?;
    // The broker says nothing: this ends when it hangs up.
    let _ = channel.read(&mut [0]);
    Ok(())
}
