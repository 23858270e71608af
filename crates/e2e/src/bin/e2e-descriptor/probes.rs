//! What a descriptor is, and is not: when its name is free, who may ask it what.

use crate::forks::{in_child, join_child};
use crate::handing::hear;
use ringway::raw::{self, Joined};
use ringway::{NicMode, Port};
use ringway_abi::wire::{self, Kind};
use ringway_abi::{Errno, NR_EXCLUSIVE, NR_REG_ALL_NIC, nmreq_register};
use ringway_core::handover::grant_in;
use ringway_core::lease::GrantKind;
use ringway_e2e::role::{Outcome, say};
use ringway_os::sock::Conn;
use std::os::fd::{AsFd, OwnedFd};
use zerocopy::IntoBytes;

/// The name is free exactly when the last copy is closed.
pub(crate) fn close_semantics(full: &str) -> Outcome {
    let name = full.trim_start_matches("netmap:");
    let req = nmreq_register { nr_mode: NR_REG_ALL_NIC, nr_flags: NR_EXCLUSIVE, ..Default::default() };
    for round in 0..200 {
        let fd = raw::open()?;
        let (out, bound) = raw::register(fd.as_fd(), name, &req, NicMode::default())?;
        if out.nr_offset != bound.nr_offset() || bound.check_map(0, out.nr_memsize).is_err() {
            return Err(format!("what REGISTER wrote back does not fit: {out:?}").into());
        }
        let mut copies = vec![fd.try_clone()?, fd.try_clone()?];
        drop((fd, bound));
        // A child has one more, and outlives our last.
        let (mine, theirs) = Conn::pair()?;
        let child = (round % 4 == 0).then(|| in_child(|| hear(&theirs)));
        let child = child.transpose()?;
        while let Some(copy) = copies.pop() {
            let other = raw::open()?;
            let refused = raw::register(other.as_fd(), name, &req, NicMode::default()).map(|_| ());
            if refused.as_ref().err().map(ringway::OpenError::errno) != Some(Errno::EBUSY) {
                return Err(format!("with a copy open it should be busy: {refused:?}").into());
            }
            drop(copy);
        }
        if let Some(child) = child {
            if Port::open(full).is_ok() {
                return Err("the child's copy does not hold it".into());
            }
            mine.send(b"end", &[])?;
            join_child(child)?;
        }
        drop(Port::open(full)?);
    }
    Ok(())
}

/// One request by hand: the error's number, what is behind the head of the answer, and its fds.
fn ask(conn: &Conn, kind: Kind, body: &[u8], extra: &[&Conn]) -> Outcome<(i32, Vec<u8>, Vec<OwnedFd>)> {
    let extra: Vec<_> = extra.iter().map(|c| c.as_fd()).collect();
    let answer = ringway_e2e::raw::ask(conn, &wire::message(kind, 0, body), &extra);
    let (bytes, fds) = answer.ok_or("no answer")?;
    let (head, _, body) = wire::parse(&bytes)?;
    Ok((head.errno, body.to_vec(), fds))
}

/// What a process of another user gets who speaks the protocol by itself: the port's own memory, and no way to its peers.
pub(crate) fn pry(fd: OwnedFd) -> Outcome {
    let conn = Conn::adopt(fd);
    let peer = wire::PeerAsk { index: 0, key: [0; 16] };
    let errno = |answer: (i32, Vec<u8>, Vec<OwnedFd>)| answer.0;
    let unattached = errno(ask(&conn, Kind::Join, &[], &[])?);
    let peer_before = errno(ask(&conn, Kind::Peer, peer.as_bytes(), &[])?);
    let (channel, theirs) = Conn::pair()?;
    let attached = errno(ask(&conn, Kind::Attach, &[], &[&theirs])?);
    let peer = wire::PeerAsk { key: [7; 16], ..peer };
    let (joined, body, fds) = ask(&conn, Kind::Join, &[], &[])?;
    let fd_count = fds.len();
    let grant = grant_in(&body, fds)?;
    let peer_after = errno(ask(&conn, Kind::Peer, peer.as_bytes(), &[])?);
    let is_guest = matches!(grant.kind, GrantKind::Guest(_));
    drop(channel);
    say(&format!(
        "{unattached} {peer_before} {attached} {joined} {fd_count} {} {peer_after}",
        u8::from(is_guest)
    ));
    Ok(())
}

/// Any fd may be asked; only descriptors answer, and nobody else hears of it.
pub(crate) fn recognise() -> Outcome {
    let (conn, far) = Conn::pair()?;
    let (stream, _other) = std::os::unix::net::UnixStream::pair()?;
    let file = std::fs::File::open("/dev/null")?;
    for fd in [conn.as_fd(), stream.as_fd(), file.as_fd()] {
        let joined = raw::join(fd)?;
        if !matches!(joined, Joined::Foreign) || raw::is_descriptor(fd) {
            return Err(format!("{joined:?}").into());
        }
    }
    if far.recv(&mut [0; 8]).is_ok() {
        return Err("something was sent".into());
    }
    let fd = raw::open()?;
    if !raw::is_descriptor(fd.as_fd()) || !matches!(raw::join(fd.as_fd())?, Joined::Unbound) {
        return Err("an unbound descriptor".into());
    }
    // Made non-blocking by its program, as some do.
    let mut info = ringway_abi::nmreq_vale_list::default();
    let mut header = ringway_abi::nmreq_header {
        nr_version: ringway_abi::NETMAP_API,
        nr_reqtype: ringway_abi::NETMAP_REQ_VALE_LIST,
        ..Default::default()
    };
    rustix::io::ioctl_fionbio(&fd, true)?;
    let answer = raw::control(fd.as_fd(), &mut header, info.as_mut_bytes()).map_err(|e| e.errno());
    if answer != Err(Errno::ENOENT) && answer.is_ok() {
        return Err(format!("no switch is there: {answer:?}").into());
    }
    let req = nmreq_register { nr_mode: NR_REG_ALL_NIC, ..Default::default() };
    let (_, bound) = raw::register(fd.as_fd(), "vale0:r", &req, NicMode::default())?;
    let Joined::Bound(same) = raw::join(fd.as_fd())? else { return Err("a bound one".into()) };
    if (same.name(), same.nr_offset()) != (bound.name(), bound.nr_offset()) {
        return Err(format!("{same:?} is not {bound:?}").into());
    }
    Ok(())
}
