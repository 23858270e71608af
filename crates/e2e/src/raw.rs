//! Requests without the library, and what comes back: for clients that do not behave, and for questions that cost no process.

use ringway_abi::wire::{self, Kind};
use ringway_abi::{NETMAP_API, NETMAP_REQ_REGISTER, c_name_field, nmreq_header, nmreq_register};
use ringway_core::handover::grant_in;
use ringway_core::lease::Grant;
use ringway_os::mem::Memfd;
use ringway_os::sock::Conn;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;
use zerocopy::IntoBytes;

/// Sends one message on a connection of its own, and returns the answer with its fds and the connection. None: the broker
/// did not answer.
///
/// # Panics
/// If nobody listens there.
pub fn answer(
    socket: &Path,
    message: &[u8],
    extra: &[BorrowedFd<'_>],
) -> Option<(Vec<u8>, Vec<OwnedFd>, Conn)> {
    let conn = Conn::connect(socket).expect("the broker listens");
    let (mine, theirs) = Conn::pair().expect("a socket pair");
    let mut fds = vec![theirs.as_fd()];
    fds.extend_from_slice(extra);
    conn.send(message, &fds).ok()?;
    drop(theirs);
    let mut buf = vec![0; 20_000];
    ringway_os::sys::wait_readable(mine.as_fd(), Duration::from_secs(5)).ok()?.then_some(())?;
    let got = mine.recv(&mut buf).ok()?;
    buf.truncate(got.len_bytes);
    Some((buf, got.fds, conn))
}

/// Registers a port: what was granted, and the connection that keeps it bound.
///
/// # Panics
/// If it is refused.
pub fn register(socket: &Path, name: &str, req: &nmreq_register) -> (Grant, Conn) {
    let header = nmreq_header {
        nr_version: NETMAP_API,
        nr_reqtype: NETMAP_REQ_REGISTER,
        nr_name: c_name_field(name).expect("a short name"),
        ..Default::default()
    };
    let control = wire::Control { header, ..Default::default() };
    let body = [control.as_bytes(), req.as_bytes()].concat();
    let (bytes, fds, conn) = answer(socket, &wire::message(Kind::Control, 0, &body), &[]).expect("an answer");
    let (head, _, mut rest) = wire::parse(&bytes).expect("a reply");
    assert_eq!(head.errno, 0, "{}", String::from_utf8_lossy(rest));
    let controlled: wire::Controlled = wire::take(&mut rest).expect("its head");
    (grant_in(&rest[controlled.body_bytes as usize..], fds).expect("a grant"), conn)
}

/// Asks for a listing.
///
/// # Panics
/// If there is no answer.
pub fn json(socket: &Path, kind: Kind) -> serde_json::Value {
    let (bytes, fds, _conn) = answer(socket, &wire::message(kind, 0, &[]), &[]).expect("an answer");
    let (head, _, rest) = wire::parse(&bytes).expect("a reply");
    assert_eq!(head.errno, 0, "{}", String::from_utf8_lossy(rest));
    let fd = fds.into_iter().next().expect("a file");
    let text = Memfd::adopt(fd).and_then(|m| m.read_all()).expect("it can be read");
    let text: Vec<u8> = text.into_iter().take_while(|b| *b != 0).collect();
    serde_json::from_slice(&text).expect("JSON")
}
