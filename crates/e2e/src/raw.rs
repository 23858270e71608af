//! Requests without the library, and what comes back: for clients that do not behave, and for questions that cost no process.

use ringway_abi::wire::{self, Kind};
use ringway_abi::{
    NETMAP_API, NETMAP_REQ_REGISTER, NR_REG_ALL_NIC, c_name_field, nmreq_header, nmreq_register,
};
use ringway_core::handover::grant_in;
use ringway_core::lease::Grant;
use ringway_os::mem::Memfd;
use ringway_os::sock::Conn;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;
use zerocopy::IntoBytes;

/// What came back: bytes and fds.
pub type Answer = (Vec<u8>, Vec<OwnedFd>);

/// Sends bytes and fds over a connection, with a reply socket in front; the answer, if one came.
pub fn ask(conn: &Conn, message: &[u8], extra: &[BorrowedFd<'_>]) -> Option<Answer> {
    let (mine, theirs) = Conn::pair().ok()?;
    let mut fds = vec![theirs.as_fd()];
    fds.extend_from_slice(extra);
    conn.send(message, &fds).ok()?;
    drop(theirs);
    let mut buf = vec![0; 20_000];
    ringway_os::sys::wait_readable(mine.as_fd(), Duration::from_secs(5)).ok()?.then_some(())?;
    let got = mine.recv(&mut buf).ok()?;
    buf.truncate(got.len_bytes);
    Some((buf, got.fds))
}

/// As [`ask`], over a connection of its own, which is returned.
///
/// # Panics
/// If nobody listens.
pub fn answer(
    socket: &Path,
    message: &[u8],
    extra: &[BorrowedFd<'_>],
) -> Option<(Vec<u8>, Vec<OwnedFd>, Conn)> {
    let conn = Conn::connect(socket).expect("the broker listens");
    let (bytes, fds) = ask(&conn, message, extra)?;
    Some((bytes, fds, conn))
}

fn all_rings() -> nmreq_register {
    nmreq_register { nr_mode: NR_REG_ALL_NIC, ..Default::default() }
}

/// A REGISTER request for all rings of a port.
///
/// # Panics
/// If the name is too long.
#[must_use]
pub fn register_message(name: &str) -> Vec<u8> {
    message_of(name, &all_rings())
}

fn message_of(name: &str, req: &nmreq_register) -> Vec<u8> {
    let header = nmreq_header {
        nr_version: NETMAP_API,
        nr_reqtype: NETMAP_REQ_REGISTER,
        nr_name: c_name_field(name).expect("a short name"),
        ..Default::default()
    };
    let control = wire::Control { header, ..Default::default() };
    wire::message(Kind::Control, 0, &[control.as_bytes(), req.as_bytes()].concat())
}

/// Binds all rings of a port: what was granted, and the connection that keeps it bound.
///
/// # Errors
/// Number and words of the broker; "no answer".
pub fn register(socket: &Path, name: &str) -> Result<(Grant, Conn), (i32, String)> {
    register_as(socket, name, &all_rings())
}

/// As [`register`], with all that can be said.
///
/// # Errors
/// As [`register`].
pub fn register_as(socket: &Path, name: &str, req: &nmreq_register) -> Result<(Grant, Conn), (i32, String)> {
    let conn = Conn::connect(socket).map_err(|e| (0, e.to_string()))?;
    let Some((bytes, fds)) = ask(&conn, &message_of(name, req), &[]).filter(|(b, _)| !b.is_empty()) else {
        return Err(refusal(&conn).unwrap_or((0, "no answer".to_owned())));
    };
    let (head, _, mut rest) = wire::parse(&bytes).map_err(|e| (0, e.to_string()))?;
    if head.errno != 0 {
        return Err((head.errno, String::from_utf8_lossy(rest).into_owned()));
    }
    let controlled: wire::Controlled = wire::take(&mut rest).map_err(|e| (0, e.to_string()))?;
    let grant = grant_in(&rest[controlled.body_bytes as usize..], fds).map_err(|e| (0, e.to_string()))?;
    Ok((grant, conn))
}

/// What a broker that does not serve us said on the connection itself.
pub fn refusal(conn: &Conn) -> Option<(i32, String)> {
    let mut buf = [0; 4096];
    let got = conn.recv(&mut buf).ok()?;
    let (head, _, text) = wire::parse(&buf[..got.len_bytes]).ok()?;
    Some((head.errno, String::from_utf8_lossy(text).into_owned()))
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
