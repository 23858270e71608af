//! The device file: `/dev/netmap` for programs that make raw system calls (static ones, Go), which no library can serve.
//!
//! A helper process, started by the broker from the same program, mounts a FUSE file system with one file and serves it. It is a
//! client of the broker that speaks for its callers: owners, rights and limits are theirs. It alone may read and write other
//! processes' memory; the broker gives that right up.
//!
//! **Mapping.** What `mmap` shows must be known when a file is opened (FUSE pass-through), before REGISTER says which region it will
//! be. So with a device file the broker keeps all regions of a user in one file, each at its own offset, and the helper adds that offset
//! to `nr_offset` and `nr_memsize`: whoever maps `nr_memsize` bytes from 0 finds everything where the answers say. A user sees only
//! his own regions: one uid is one trust domain. The file's inode is another for each user, since all opens of an inode share
//! what they map; so the mount is a folder, and the path of the device a symbolic link to the file in it.
//!
//! **Nobody stalls others.** Each open descriptor has a thread; the one that takes requests from the kernel never waits. Callers' memory is
//! touched in further threads, on which the descriptor's waits a second at most (`memory`).
//!
//! Source: Linux kernel documents filesystems/fuse/fuse-passthrough, fuse-io.

mod descriptor;
mod fuse;
mod helper;
mod memory;
mod nested;

pub use helper::serve_if_asked;

use crate::config::DeviceConfig;
use ringway_os::proc;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The variable in which the helper finds its [`Task`], as JSON.
const TASK_VAR: &str = "RINGWAY_DEVICE";
/// What it says when the file is there.
const READY: &str = "ready";
/// The same, in a mount namespace of the broker's own.
const READY_PRIVATE: &str = "ready, private";
/// How long it may take to begin, and to end.
const HELPER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may take to be dead when it was killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(1);
/// The file in the mounted folder.
const FILE_NAME: &str = "netmap";

/// What the helper is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Task {
    /// Folder to mount on.
    mount: PathBuf,
    /// Where the link to the file goes.
    path: PathBuf,
    owner: u32,
    group: u32,
    mode: u16,
    /// Open descriptors of one user, at most.
    descriptors: usize,
}

#[derive(Debug)]
struct Helper {
    child: Child,
    /// It ends when this is closed; and we notice when it ends.
    channel: UnixStream,
    mount: PathBuf,
    path: PathBuf,
    /// Only processes in the broker's mount namespace see the file.
    private: bool,
}

/// The device file as the broker knows it.
#[derive(Debug)]
pub struct Device {
    helper: Option<Helper>,
    /// Why there is none.
    off: String,
}

impl Device {
    /// Starts the helper if the configuration asks for a device file. Where that cannot work, the reason is kept and logged.
    pub fn start(config: Option<&DeviceConfig>, socket: &Path) -> Self {
        let Some(config) = config else {
            return Device { helper: None, off: "not configured ([device])".into() };
        };
        match start_helper(config, socket) {
            Ok(helper) => {
                tracing::info!("device file {}", helper.path.display());
                if helper.private {
                    tracing::warn!(
                        "the broker has a mount namespace of its own: others do not see {}",
                        helper.path.display()
                    );
                }
                Device { helper: Some(helper), off: String::new() }
            }
            Err(off) => {
                tracing::warn!("no device file {}: {off}", config.path.display());
                Device { helper: None, off }
            }
        }
    }

    /// True while the file is there.
    pub fn is_on(&self) -> bool {
        self.helper.is_some()
    }

    /// True if process `pid` is the helper: it may speak for others.
    pub fn is_helper(&self, pid: u32) -> bool {
        self.helper.as_ref().is_some_and(|h| h.child.id() == pid)
    }

    /// Hangs up when the helper is gone.
    pub fn channel(&self) -> Option<BorrowedFd<'_>> {
        self.helper.as_ref().map(|h| h.channel.as_fd())
    }

    /// The helper has ended by itself, or was killed: takes away what it left.
    pub fn lost(&mut self) {
        if let Some(mut helper) = self.helper.take() {
            let status = kill(&mut helper.child);
            clean_up(&helper.mount, &helper.path);
            self.off = format!("its helper ended ({status}); it comes back when the broker is started again");
            tracing::error!("the device file {} is gone: {}", helper.path.display(), self.off);
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.helper {
            Some(helper) if helper.private => {
                write!(f, "{} (in the broker's own mount namespace only)", helper.path.display())
            }
            Some(helper) => write!(f, "{}", helper.path.display()),
            None => write!(f, "off: {}", self.off),
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let Some(Helper { mut child, channel, mount, path, .. }) = self.helper.take() else { return };
        drop(channel);
        let end = Instant::now() + HELPER_TIMEOUT;
        while !matches!(child.try_wait(), Ok(Some(_))) && Instant::now() < end {
            ringway_os::sys::sleep(Duration::from_millis(2));
        }
        kill(&mut child);
        clean_up(&mount, &path);
    }
}

/// Kills the helper, and says how it ended. A thread of it may be where not even that ends it at once: then it is left alone.
fn kill(child: &mut Child) -> String {
    let _ = child.kill();
    let end = Instant::now() + KILL_TIMEOUT;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.to_string(),
            Ok(None) if Instant::now() < end => ringway_os::sys::sleep(Duration::from_millis(2)),
            Ok(None) => return "killed, and still there".into(),
            Err(e) => return e.to_string(),
        }
    }
}

fn start_helper(config: &DeviceConfig, socket: &Path) -> Result<Helper, String> {
    if ringway_os::sys::euid() != 0 || !proc::may_mount() {
        return Err("only a broker of root with CAP_SYS_ADMIN can mount it".into());
    }
    let folder = socket.parent().ok_or("the socket has no folder")?;
    let mount = folder.join("device");
    let (owner, group) = (config.owner_number()?, config.group_number()?);
    let task = Task {
        mount: mount.clone(),
        path: config.path.clone(),
        owner,
        group,
        mode: config.mode_number()?,
        descriptors: config.descriptors,
    };
    let fail = |e: &dyn fmt::Display| format!("cannot start its helper: {e}");
    let exe = std::env::current_exe().map_err(|e| fail(&e))?;
    let (mine, theirs) = UnixStream::pair().map_err(|e| fail(&e))?;
    let text = serde_json::to_string(&task).map_err(|e| fail(&e))?;
    let child = Command::new(exe)
        .env(TASK_VAR, text)
        .env("RINGWAY_SOCKET", socket)
        .env_remove("RINGWAY_DETACH")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        // What a terminal tells the broker is not for the helper: it ends with the broker.
        .process_group(0)
        .spawn()
        .map_err(|e| fail(&e))?;
    let mut helper = Helper { child, channel: mine, mount, path: config.path.clone(), private: false };
    let mut line = String::new();
    let told = helper
        .channel
        .set_read_timeout(Some(HELPER_TIMEOUT))
        .and_then(|()| BufReader::new(&helper.channel).read_line(&mut line));
    match (told, line.trim()) {
        (Ok(_), READY) => Ok(helper),
        (Ok(_), READY_PRIVATE) => Ok(Helper { private: true, ..helper }),
        (told, said) => {
            kill(&mut helper.child);
            clean_up(&helper.mount, &helper.path);
            Err(match (told, said) {
                (Err(e), _) => format!("its helper does not answer: {e}"),
                (_, "") => "its helper ended at once".into(),
                (_, said) => said.to_owned(),
            })
        }
    }
}

/// Takes away mount and link, if they are ours.
fn clean_up(mount: &Path, path: &Path) {
    let target = mount.join(FILE_NAME);
    if std::fs::read_link(path).is_ok_and(|to| to == target) {
        let _ = std::fs::remove_file(path);
    }
    // EINVAL mostly: no mount.
    let _ = proc::detach_mount(mount);
    let _ = std::fs::remove_dir(mount);
}
