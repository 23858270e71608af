//! Where brokers are found: the same answer for clients that look and for brokers that begin.

use std::env;
use std::path::{Path, PathBuf};

/// Names the socket, and nothing else is tried.
pub const SOCKET_VAR: &str = "RINGWAY_SOCKET";
/// The system's broker, or one that root started on demand.
pub const SYSTEM_SOCKET: &str = "/run/ringway/sock";

/// Where one may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Path of the socket.
    pub socket: PathBuf,
    /// One may be started there if none answers.
    pub startable: bool,
    /// The folder must be made with mode 0700 and belong to us.
    pub private: bool,
}

/// The places where user `uid` looks, in order.
#[must_use]
pub fn places(uid: u32) -> Vec<Place> {
    // Who has gained rights makes no folders where his caller says.
    let trusted = !ringway_os::sys::has_gained_rights();
    if let Some(path) = env::var_os(SOCKET_VAR).filter(|v| trusted && !v.is_empty()) {
        return vec![named(Path::new(&path))];
    }
    let mut out = vec![Place { socket: SYSTEM_SOCKET.into(), startable: uid == 0, private: false }];
    if uid == 0 {
        return out;
    }
    let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    out.push(match runtime.filter(|d| is_runtime_dir(d, uid)) {
        Some(dir) => Place { socket: dir.join("ringway/sock"), startable: true, private: false },
        None => {
            let dir = Path::new("/tmp").join(format!("ringway-{uid}"));
            Place { socket: dir.join("sock"), startable: true, private: true }
        }
    });
    out
}

/// True if `dir` is what the variable promises: a folder of the user himself. After `su` it may be another user's.
///
/// Source: XDG Base Directory Specification: "The directory MUST be owned by the user".
fn is_runtime_dir(dir: &Path, uid: u32) -> bool {
    use std::os::unix::fs::MetadataExt;
    dir.is_absolute() && std::fs::metadata(dir).is_ok_and(|m| m.is_dir() && m.uid() == uid)
}

/// The one place of somebody who names the socket: nothing else is tried, and a broker is started there if none answers.
#[must_use]
pub fn named(socket: &Path) -> Place {
    Place { socket: socket.to_owned(), startable: true, private: false }
}

/// Name of the lock file beside a socket.
#[must_use]
pub fn lock_path(socket: &Path) -> PathBuf {
    socket.with_extension("lock")
}

/// Makes the folder of a socket. A private one must be ours, mode 0700, and no link.
///
/// # Errors
/// What mkdir answers; PermissionDenied if a private folder is somebody else's.
pub fn make_folder(place: &Place, uid: u32) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    let Some(dir) = place.socket.parent() else { return Ok(()) };
    let mode = if place.private { 0o700 } else { 0o755 };
    match std::fs::DirBuilder::new().mode(mode).create(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    check_folder(place, uid)?;
    let meta = std::fs::symlink_metadata(dir)?;
    if !meta.is_dir() || (place.private && meta.mode() & 0o777 != 0o700) {
        let text = format!("{} must be a folder with mode 0700", dir.display());
        return Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, text));
    }
    Ok(())
}

/// Before connecting: a private folder must be ours, else anybody could have put a socket there.
///
/// # Errors
/// PermissionDenied if it is somebody else's; NotFound if there is none.
pub fn check_folder(place: &Place, uid: u32) -> std::io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let Some(dir) = place.socket.parent().filter(|_| place.private) else { return Ok(()) };
    let meta = std::fs::symlink_metadata(dir)?;
    if meta.uid() != uid || !meta.is_dir() {
        let text = format!("{} belongs to another user: remove it, or set {SOCKET_VAR}", dir.display());
        return Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_runtime_folder_of_another_user_is_not_ours() {
        let dir = env::temp_dir().join(format!("ringway-place-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let uid = std::fs::metadata(&dir).unwrap().uid();
        assert!(is_runtime_dir(&dir, uid) && !is_runtime_dir(&dir, uid + 1));
        assert!(!is_runtime_dir(Path::new("."), uid) && !is_runtime_dir(&dir.join("none"), uid));
        std::fs::remove_dir(&dir).unwrap();
    }
}
