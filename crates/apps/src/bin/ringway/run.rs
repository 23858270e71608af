//! `ringway run PROGRAM ARGS...`: a program that was compiled for netmap, on Ringway.

use crate::Failure;
use ringway_abi::NETMAP_DEVICE_NAME;
use rustix::fs::{Access, AtFlags, CWD, accessat, getxattr};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Run a program with /dev/netmap served by Ringway.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The library is libnetmap.so beside this program or in ../lib, or what RINGWAY_LIB names. It is preloaded, so the \
    program must be linked dynamically, and must call open, ioctl, mmap, poll and close through the C library. Other programs \
    (static, Go, set-user-ID) run as they are if a broker serves a real /dev/netmap."
)]
pub struct RunArgs {
    /// Program: a path, or a name to be found in PATH
    program: OsString,
    /// Its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// Runs the command: this process becomes the program.
pub fn run(args: &RunArgs) -> Result<(), Failure> {
    let program = find(&args.program)?;
    let mut command = Command::new(&program);
    if way(&program, Path::new(NETMAP_DEVICE_NAME))? == Way::Device {
        let error = command.args(&args.args).exec();
        return Err(Failure::new(format!("cannot run {}: {error}", program.display())));
    }
    let library = library()?;
    let mut preload = library.into_os_string();
    if let Some(others) = std::env::var_os("LD_PRELOAD").filter(|v| !v.is_empty()) {
        preload.push(":");
        preload.push(others);
    }
    let error = command.args(&args.args).env("LD_PRELOAD", preload).exec();
    Err(Failure::new(format!("cannot run {}: {error}", program.display())))
}

/// The library to be preloaded, as an absolute path.
fn library() -> Result<PathBuf, Failure> {
    if let Some(named) = std::env::var_os("RINGWAY_LIB").filter(|v| !v.is_empty()) {
        return Path::new(&named)
            .canonicalize()
            .map_err(|e| Failure::new(format!("RINGWAY_LIB names {}: {e}", named.display())));
    }
    let exe = std::env::current_exe()?;
    let mut places = vec![];
    if let Some(dir) = exe.parent() {
        places.push(dir.join("libnetmap.so"));
        places.push(dir.join("../lib/libnetmap.so"));
    }
    places.iter().find_map(|p| p.canonicalize().ok()).ok_or_else(|| {
        Failure::new("there is no libnetmap.so beside this program or in ../lib; install it, or name it in RINGWAY_LIB")
    })
}

/// A program by its path, or from PATH.
fn find(program: &OsStr) -> Result<PathBuf, Failure> {
    let path = Path::new(program);
    if path.components().count() > 1 {
        return Ok(path.to_owned());
    }
    let all = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/local/bin:/usr/bin:/bin"));
    std::env::split_paths(&all)
        .map(|dir| dir.join(path))
        .find(|p| p.metadata().is_ok_and(|m| m.is_file() && m.mode() & 0o111 != 0))
        .ok_or_else(|| Failure::new(format!("there is no program {} in PATH", program.display())))
}

// Source: elf(5), in the byte order of this machine.

const ELF_MAGIC: &[u8] = b"\x7fELF";
const CLASS_64: u8 = 2;
const PT_INTERP: u32 = 3;
const S_ISUID: u32 = 0o4000;
const S_ISGID: u32 = 0o2000;

/// How a program comes to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// By the library, which is preloaded.
    Preload,
    /// By the file that a broker serves.
    Device,
}

/// How a program can run, as far as its file shows; else the error says why it cannot.
fn way(program: &Path, device: &Path) -> Result<Way, Failure> {
    let name = program.display();
    let Some(obstacle) = obstacle(program)? else { return Ok(Way::Preload) };
    let why = format!("{name} {}", obstacle.why);
    // What it opens it opens as its owner, if it changes into him.
    let rights = if obstacle.raises { Access::EXISTS } else { Access::READ_OK | Access::WRITE_OK };
    match accessat(CWD, device, rights, AtFlags::empty()) {
        Ok(()) => Ok(Way::Device),
        Err(Errno::ACCESS) => Err(Failure::new(format!(
            "{why}, and you may not open {}, which a broker serves (owner, group and mode in [device] of its configuration)",
            device.display()
        ))),
        Err(_) => Err(Failure::new(format!(
            "{why}, and there is no {}, which root's broker can serve for such programs ([device] in its configuration). {}",
            device.display(),
            obstacle.remedy
        ))),
    }
}

/// Why a library cannot be preloaded into a program.
struct Obstacle {
    why: &'static str,
    remedy: &'static str,
    /// It runs with more rights than we have.
    raises: bool,
}

/// What is in the way of preloading, if anything.
fn obstacle(program: &Path) -> Result<Option<Obstacle>, Failure> {
    let name = program.display();
    let obstacle = |why, remedy| Ok(Some(Obstacle { why, remedy, raises: false }));
    let file = File::open(program);
    let meta = program.metadata().map_err(|e| Failure::new(format!("cannot run {name}: {e}")))?;
    // Source: ld.so(8), secure-execution mode.
    let euid = rustix::process::geteuid();
    let sets_ids = (meta.mode() & S_ISUID != 0 && meta.uid() != euid.as_raw())
        || (meta.mode() & S_ISGID != 0 && meta.gid() != rustix::process::getegid().as_raw());
    let capable = !euid.is_root() && getxattr(program, "security.capability", &mut [0_u8; 64]).is_ok();
    if sets_ids || capable {
        let why = if sets_ids {
            "is set-user-ID or set-group-ID: the system preloads nothing into such a program"
        } else {
            "has file capabilities: the system preloads nothing into such a program"
        };
        return Ok(Some(Obstacle { why, remedy: "Or run it as its owner, or as root.", raises: true }));
    }
    // What cannot be read cannot be checked, and may run all the same.
    let Ok(mut file) = file else { return Ok(None) };
    let mut head = [0; 64];
    if file.read_exact(&mut head).is_err() || !head.starts_with(ELF_MAGIC) {
        // A script: its interpreter gets the library.
        return Ok(None);
    }
    if head[4] != CLASS_64 {
        return Err(Failure::new(format!("{name} is a 32-bit program: Ringway is for 64 bits")));
    }
    if is_go(&mut file) {
        return obstacle(
            "is a Go program: those make system calls without the C library, so a preloaded library does not see them",
            "No way of linking it helps.",
        );
    }
    if !has_interpreter(&file, &head).unwrap_or(true) {
        return obstacle(
            "is linked statically: no library can be preloaded",
            "Or link it with libnetmap.a, or dynamically.",
        );
    }
    Ok(None)
}

/// Whether a dynamic linker is named. None: the file is cut short.
fn has_interpreter(file: &File, head: &[u8; 64]) -> Option<bool> {
    let word = |bytes: &[u8], at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes);
    let half = |at: usize| u16::from_ne_bytes([head[at], head[at + 1]]);
    let (table, size, count) = (word(head, 0x20)?, half(0x36), half(0x38));
    for i in 0..u64::from(count) {
        let mut kind = [0; 4];
        file.read_exact_at(&mut kind, table.checked_add(i * u64::from(size))?).ok()?;
        if u32::from_ne_bytes(kind) == PT_INTERP {
            return Some(true);
        }
    }
    Some(false)
}

/// Go's linker leaves its mark near the start of a program; those that use the C library for their system calls are none.
fn is_go(file: &mut File) -> bool {
    const MARK: &[u8] = b"\xff Go buildinf:";
    const FIRST_BYTES: u64 = 16 << 20;
    let mut bytes = vec![];
    let read = file.take(FIRST_BYTES).read_to_end(&mut bytes).is_ok();
    read && bytes.windows(MARK.len()).any(|w| w == MARK)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A 64-bit program file with one program header of `kind`.
    fn elf(name: &str, kind: u32, tail: &[u8]) -> PathBuf {
        let mut bytes = vec![0; 64];
        bytes[..4].copy_from_slice(ELF_MAGIC);
        bytes[4] = CLASS_64;
        bytes[0x20..0x28].copy_from_slice(&64u64.to_ne_bytes());
        bytes[0x36..0x38].copy_from_slice(&56u16.to_ne_bytes());
        bytes[0x38..0x3a].copy_from_slice(&1u16.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 52]);
        bytes.extend(tail);
        let path = std::env::temp_dir().join(format!("ringway-run-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn why(path: &Path, device: &str) -> String {
        let text = way(path, Path::new(device)).err().map(|f| f.text).unwrap_or_default();
        let _ = std::fs::remove_file(path);
        text
    }

    const NOWHERE: &str = "/nonexistent/netmap";

    #[test]
    fn programs_that_cannot_take_the_library_are_told_why() {
        assert_eq!(why(&elf("dynamic", PT_INTERP, b""), NOWHERE), "");
        let told = why(&elf("static", 1, b""), NOWHERE);
        for part in
            ["linked statically", "there is no /nonexistent/netmap", "[device]", "link it with libnetmap.a"]
        {
            assert!(told.contains(part), "{part}: {told}");
        }
        for kind in [1, PT_INTERP] {
            let told = why(&elf("go", kind, b"\xff Go buildinf:"), NOWHERE);
            assert!(told.contains("Go program") && told.contains("[device]"), "{told}");
        }
        assert!(why(Path::new("/nonexistent/program"), NOWHERE).contains("No such file"));
        let narrow = elf("narrow", 1, b"");
        let mut bytes = std::fs::read(&narrow).unwrap();
        bytes[4] = 1;
        std::fs::write(&narrow, bytes).unwrap();
        assert!(why(&narrow, "/dev/null").contains("32-bit"), "the file does not serve it either");
    }

    #[test]
    fn they_run_as_they_are_where_there_is_a_device_file() {
        for (name, kind, tail, wanted) in [
            ("dynamic", PT_INTERP, &b""[..], Way::Preload),
            ("static", 1, b"", Way::Device),
            ("go", PT_INTERP, b"\xff Go buildinf:", Way::Device),
        ] {
            let program = elf(&format!("device-{name}"), kind, tail);
            // Everybody may read and write that.
            assert_eq!(way(&program, Path::new("/dev/null")).ok(), Some(wanted), "{name}");
            let _ = std::fs::remove_file(program);
        }
    }

    #[test]
    fn who_may_not_open_the_device_file_is_told_so() {
        use std::os::unix::fs::PermissionsExt;
        let device = std::env::temp_dir().join(format!("ringway-run-{}-device", std::process::id()));
        std::fs::write(&device, b"").unwrap();
        std::fs::set_permissions(&device, std::fs::Permissions::from_mode(0o400)).unwrap();
        let program = elf("no-device", 1, b"");
        let (path, file) = (program.clone(), device.clone());
        let asker = std::thread::spawn(move || {
            // Root may open all; this thread is somebody else then.
            if rustix::process::geteuid().is_root() {
                rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(12345)).unwrap();
            }
            why(&path, file.to_str().unwrap())
        });
        let told = asker.join().unwrap();
        [program, device].iter().for_each(|p| drop(std::fs::remove_file(p)));
        assert!(told.contains("you may not open"), "{told}");
    }

    #[test]
    fn programs_that_gain_rights_take_no_library() {
        use std::os::unix::fs::{PermissionsExt, chown};
        let program = elf("set-user-id", PT_INTERP, b"");
        if chown(&program, Some(12345), None).is_err() {
            println!(
                "SKIP programs_that_gain_rights_take_no_library: root alone can make one of another user"
            );
            let _ = std::fs::remove_file(program);
            return;
        }
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o4755)).unwrap();
        assert_eq!(way(&program, Path::new("/dev/null")).ok(), Some(Way::Device));
        let told = why(&program, NOWHERE);
        assert!(told.contains("set-user-ID") && told.contains("run it as its owner"), "{told}");
    }
}
