//! Descriptors that are handed to other processes over a socket.

use crate::{LONG, until_told};
use ringway::raw;
use ringway::{NicMode, Port};
use ringway_abi::{NR_REG_ALL_NIC, nmreq_register};
use ringway_e2e::role::{Outcome, say};
use ringway_os::sock::{Conn, Listener};
use ringway_os::sys::wait_readable;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Waits for a word of the other process.
pub(crate) fn hear(conn: &Conn) -> Outcome {
    if !wait_readable(conn.as_fd(), LONG)? {
        return Err("the other process says nothing".into());
    }
    conn.recv(&mut [0; 8])?;
    Ok(())
}

/// Listens at `path` for anybody, and says ready.
fn listen(path: &str) -> Outcome<Listener> {
    let listener = Listener::bind(Path::new(path))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))?;
    say("ready");
    Ok(listener)
}

fn accept(listener: &Listener) -> Outcome<Conn> {
    if !wait_readable(listener.as_fd(), LONG)? {
        return Err("nobody comes".into());
    }
    Ok(listener.accept()?)
}

pub(crate) fn take_fd(conn: &Conn) -> Outcome<OwnedFd> {
    if !wait_readable(conn.as_fd(), LONG)? {
        return Err("no fd comes".into());
    }
    conn.recv(&mut [0; 16])?.fds.into_iter().next().ok_or_else(|| "no fd in the message".into())
}

pub(crate) fn receive_fd(path: &str) -> Outcome<OwnedFd> {
    take_fd(&accept(&listen(path)?)?)
}

fn give_fd(path: &str, fd: impl AsFd) -> Outcome {
    Conn::connect(Path::new(path))?.send(b"take it", &[fd.as_fd()])?;
    Ok(())
}

pub(crate) fn give(port: &mut Port, path: &str) -> Outcome {
    give_fd(path, port.descriptor().ok_or("a port of a broker")?)
}

/// Hands out bound descriptors: a client sends a name, and gets one. Keeps none.
pub(crate) fn serve(path: &str, clients: usize) -> Outcome {
    let listener = listen(path)?;
    for _ in 0..clients {
        let conn = accept(&listener)?;
        wait_readable(conn.as_fd(), LONG)?;
        let mut buf = [0; 64];
        let len = conn.recv(&mut buf)?.len_bytes;
        let name = std::str::from_utf8(&buf[..len])?;
        let fd = raw::open()?;
        let req = nmreq_register { nr_mode: NR_REG_ALL_NIC, ..Default::default() };
        raw::register(fd.as_fd(), name, &req, NicMode::default())?;
        conn.send(b"here", &[fd.as_fd()])?;
    }
    until_told();
    say("0");
    Ok(())
}
