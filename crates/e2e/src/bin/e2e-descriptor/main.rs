//! The other processes of tests about descriptors: handed over, inherited, forked, shared by threads.
//!
//! `e2e-descriptor ROLE ARGS`. Says `ready` when others may act, then numbers, or `error: ...`.
#![forbid(unsafe_code)]

mod threads;

use ringway::raw::{self, Joined};
use ringway::{Interest, NicMode, Port};
use ringway_abi::wire::{self, Kind};
use ringway_abi::{Errno, NR_EXCLUSIVE, NR_REG_ALL_NIC, nmreq_register};
use ringway_core::handover::grant_in;
use ringway_core::lease::GrantKind;
use ringway_os::sock::{Conn, Listener};
use ringway_os::sys::{detach_from_starter, fork_to, wait_readable};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};
use zerocopy::IntoBytes;

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Far more than anything here takes.
pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

/// Until the test closes our input.
fn until_told() {
    let _ = std::io::stdin().read(&mut [0; 1]);
}

fn frame(seq: u64) -> [u8; 60] {
    let mut f = [0; 60];
    f[..6].copy_from_slice(&[0xff; 6]);
    f[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 0xd]);
    f[14..22].copy_from_slice(&seq.to_ne_bytes());
    f
}

/// Sends frames numbered `from` and on. Waits for room.
fn send(port: &mut Port, from: u64, count: u64) -> Outcome {
    let mut seq = from;
    while seq < from + count {
        let left = (from + count - seq).min(64) as u32;
        let mut ring = port.tx(0);
        ring.fill(left, |slot| {
            slot.payload().copy_from(&frame(seq));
            slot.set(60, 0);
            seq += 1;
            true
        });
        ring.sync()?;
        drop(ring);
        if seq < from + count {
            port.wait(Interest::TX, Some(LONG))?;
        }
    }
    Ok(())
}

/// What came: how many frames, how often a number was not the next, the first and the last number.
#[derive(Debug, Default)]
struct Got {
    count: u64,
    jumps: u64,
    first: Option<u64>,
    last: u64,
}

impl Got {
    fn say(&self) {
        say(&format!("{} {} {} {}", self.count, self.jumps, self.first.unwrap_or(0), self.last));
    }
}

/// Receives exactly `count` frames.
fn receive(port: &mut Port, count: u64) -> Outcome<Got> {
    let mut got = Got::default();
    while got.count < count {
        if !port.wait(Interest::RX, Some(LONG))?.rx {
            return Err(format!("nothing comes after {} of {count}: {got:?}", got.count).into());
        }
        port.rx(0).drain((count - got.count) as u32, |slot| {
            let seq = slot.payload().load_u64(14).unwrap_or(0);
            got.jumps += u64::from(got.first.is_some() && seq != got.last + 1);
            got.first = got.first.or(Some(seq));
            got.last = seq;
            got.count += 1;
            true
        });
    }
    // What is taken is given back, so that the next one finds it so.
    port.rxsync()?;
    Ok(got)
}

fn expect(port: &mut Port, from: u64, count: u64) -> Outcome {
    let got = receive(port, count)?;
    if (got.first, got.jumps) != (Some(from), 0) {
        return Err(format!("wanted {count} frames from {from}, got {got:?}").into());
    }
    Ok(())
}

/// Runs `work` in a child; says nothing if it is well.
fn in_child(work: impl FnOnce() -> Outcome) -> Outcome<Pid> {
    Ok(fork_to(|| match work() {
        Ok(()) => 0,
        Err(e) => {
            say(&format!("error: child: {e}"));
            1
        }
    })?)
}

fn join_child(pid: Pid) -> Outcome {
    let status = waitpid(Some(pid), WaitOptions::empty())?.ok_or("no child")?.1;
    if status.exit_status() == Some(0) { Ok(()) } else { Err(format!("a child ended so: {status:?}").into()) }
}

/// Waits for a word of the other process.
fn hear(conn: &Conn) -> Outcome {
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

fn take_fd(conn: &Conn) -> Outcome<OwnedFd> {
    if !wait_readable(conn.as_fd(), LONG)? {
        return Err("no fd comes".into());
    }
    conn.recv(&mut [0; 16])?.fds.into_iter().next().ok_or_else(|| "no fd in the message".into())
}

fn receive_fd(path: &str) -> Outcome<OwnedFd> {
    take_fd(&accept(&listen(path)?)?)
}

fn give_fd(path: &str, fd: impl AsFd) -> Outcome {
    Conn::connect(Path::new(path))?.send(b"take it", &[fd.as_fd()])?;
    Ok(())
}

fn give(port: &mut Port, path: &str) -> Outcome {
    give_fd(path, port.descriptor().ok_or("a port of a broker")?)
}

fn open(name: &str) -> Outcome<Port> {
    Ok(Port::builder(name).shared().open()?)
}

/// Parent and child in turn, on both ends of a pipe or on two ports.
fn fork_in_turn(a: &str, b: &str) -> Outcome {
    let (mut a, mut b) = (open(a)?, open(b)?);
    send(&mut a, 0, 50)?;
    let (mut sent, mut taken) = (50, 0);
    for _ in 0..50 {
        let child = in_child(|| {
            expect(&mut b, taken, 7)?;
            send(&mut a, sent, 7)
        })?;
        join_child(child)?;
        (sent, taken) = (sent + 7, taken + 7);
        send(&mut a, sent, 5)?;
        expect(&mut b, taken, 5)?;
        (sent, taken) = (sent + 5, taken + 5);
    }
    expect(&mut b, taken, sent - taken)
}

/// A child waits while its parent does: each gets its wake-ups, whoever looks first.
fn fork_waits(a: &str, b: &str) -> Outcome {
    let (mut a, mut b) = (open(a)?, open(b)?);
    // The parent's epolls exist before the fork.
    b.wait(Interest::RX, Some(Duration::from_millis(1)))?;
    let (mine, theirs) = Conn::pair()?;
    let child = in_child(|| {
        for _ in 0..300 {
            if !b.wait(Interest::RX, Some(LONG))?.rx {
                return Err("the child was not woken".into());
            }
            theirs.send(b"woken", &[])?;
            // Until the parent has taken it.
            hear(&theirs)?;
        }
        Ok(())
    })?;
    for seq in 0..300 {
        let sender = std::thread::scope(|s| -> Outcome {
            let sender = s.spawn(|| send(&mut a, seq, 1).map_err(|e| e.to_string()));
            if !b.wait(Interest::RX, Some(LONG))?.rx {
                return Err("the parent was not woken".into());
            }
            Ok(sender.join().map_err(|_| "the sender")??)
        });
        sender?;
        hear(&mine)?;
        expect(&mut b, seq, 1)?;
        mine.send(b"taken", &[])?;
    }
    join_child(child)
}

/// Children are killed while they send; the parent sends on.
fn fork_kills(name: &str) -> Outcome {
    let mut port = open(name)?;
    let mut seed = 77_u64;
    for _ in 0..100 {
        let child = in_child(|| {
            loop {
                send(&mut port, 0, 1000)?;
            }
        })?;
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        std::thread::sleep(Duration::from_micros(seed >> 40 & 0xfff));
        kill_process(child, Signal::KILL)?;
        waitpid(Some(child), WaitOptions::empty())?;
        let syncs_until = Instant::now() + Duration::from_secs(5);
        let before = port.counters().tx.packets;
        while port.counters().tx.packets < before + 500 {
            if Instant::now() > syncs_until {
                return Err("after a kill the parent sends nothing more".into());
            }
            send(&mut port, 0, 100)?;
        }
    }
    Ok(())
}

/// The name is free exactly when the last copy is closed.
fn close_semantics(full: &str) -> Outcome {
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

fn ask(conn: &Conn, kind: Kind, body: &[u8], extra: &[&Conn]) -> Outcome<(i32, Vec<u8>, Vec<OwnedFd>)> {
    let (mine, theirs) = Conn::pair()?;
    let mut fds = vec![theirs.as_fd()];
    fds.extend(extra.iter().map(|c| c.as_fd()));
    conn.send(&wire::message(kind, 0, body), &fds)?;
    drop(theirs);
    let mut buf = vec![0; 20_000];
    wait_readable(mine.as_fd(), LONG)?;
    let got = mine.recv(&mut buf)?;
    let (head, _, body) = wire::parse(&buf[..got.len_bytes])?;
    Ok((head.errno, body.to_vec(), got.fds))
}

/// What a process of another user gets who speaks the protocol by itself: the port's own memory, and no way to its peers.
fn pry(fd: OwnedFd) -> Outcome {
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

/// Hands out bound descriptors: a client sends a name, and gets one. Keeps none.
fn serve(path: &str, clients: usize) -> Outcome {
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

/// Any fd may be asked; only descriptors answer, and nobody else hears of it.
fn recognise() -> Outcome {
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

fn run() -> Outcome {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [role, rest @ ..] = &args[..] else { return Err("ROLE".into()) };
    let arg = |i: usize| rest.get(i).map(String::as_str).ok_or("an argument is missing");
    let number = |i: usize| -> Outcome<u64> { Ok(arg(i)?.parse()?) };
    match role.as_str() {
        "fork-in-turn" => fork_in_turn(arg(0)?, arg(1)?)?,
        "fork-waits" => fork_waits(arg(0)?, arg(1)?)?,
        "fork-kills" => fork_kills(arg(0)?)?,
        "close" => close_semantics(arg(0)?)?,
        "recognise" => recognise()?,
        "two-threads" => return threads::run(arg(0)?, arg(1)?, number(2)?),
        // The child goes on when the parent is gone.
        "orphan" => {
            let mut port = open(arg(0)?)?;
            let count = number(1)?;
            in_child(|| {
                receive(&mut port, count)?.say();
                Ok(())
            })?;
            say("ready");
            until_told();
            return Ok(());
        }
        // A port from somewhere else; `then` says what for.
        "take" | "take-fork" | "pry" => {
            let fd = receive_fd(arg(0)?)?;
            if role == "pry" {
                return pry(fd);
            }
            let mut port = Port::adopt(fd)?;
            if role == "take-fork" {
                // A guest's child is a guest of its own, also when its parent has gone.
                let count = number(2)?;
                port.rxsync()?;
                in_child(|| {
                    receive(&mut port, count)?.say();
                    Ok(())
                })?;
                return Ok(());
            }
            return then(&mut port, arg(1)?, number(2)?);
        }
        "relay" => {
            let mut port = Port::adopt(receive_fd(arg(0)?)?)?;
            let got = receive(&mut port, number(2)?)?;
            give(&mut port, arg(1)?)?;
            got.say();
            return Ok(());
        }
        // Opens a port, hands it over, and when told to goes on with it.
        "give" => {
            let mut port = open(arg(0)?)?;
            give(&mut port, arg(1)?)?;
            say("ready");
            if arg(2)? == "sync" {
                let told = std::thread::spawn(until_told);
                while !told.is_finished() {
                    port.rxsync()?;
                    port.txsync()?;
                }
            } else {
                until_told();
            }
            return then(&mut port, arg(2)?, number(3)?);
        }
        "serve" => return serve(arg(0)?, number(1)? as usize),
        // Has never opened anything.
        "client" => {
            let conn = Conn::connect(Path::new(arg(0)?))?;
            conn.send(arg(1)?.as_bytes(), &[])?;
            let mut port = Port::adopt(take_fd(&conn)?)?;
            say("ready");
            return then(&mut port, arg(2)?, number(3)?);
        }
        // Receives, becomes another program, and goes on.
        "exec" => {
            let mut port = open(arg(0)?)?;
            say("ready");
            expect(&mut port, 0, number(1)?)?;
            let fd = port.descriptor().ok_or("a port of a broker")?.try_clone_to_owned()?;
            let mut next = Command::new(std::env::current_exe()?);
            return Err(next.args(["inherited", "rx", arg(1)?]).stdin(fd).exec().into());
        }
        "inherited" => {
            let mut port = Port::adopt(std::io::stdin().as_fd().try_clone_to_owned()?)?;
            return then(&mut port, arg(0)?, number(1)?);
        }
        // As daemons do: forks twice and closes all numbers before its first open; and once more, having opened something.
        "daemon" => {
            let (name, count) = (arg(0)?.to_owned(), number(1)?);
            let first = in_child(|| {
                detach_from_starter()?;
                in_child(move || {
                    drop(open("vale9:first")?);
                    detach_from_starter()?;
                    let others: Vec<_> = (0..8).map(|_| Conn::pair()).collect::<Result<_, _>>()?;
                    let mut port = open(&name)?;
                    say("ready");
                    receive(&mut port, count)?.say();
                    for (a, b) in &others {
                        a.send(b"whole", &[])?;
                        b.recv(&mut [0; 8])?;
                    }
                    Ok(())
                })?;
                Ok(())
            })?;
            return join_child(first);
        }
        // Root's process that gives its privileges up after opening.
        "drop-privileges" => {
            let mut port = open(arg(0)?)?;
            rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(1003))?;
            say("ready");
            return then(&mut port, "tx", number(1)?);
        }
        // A child that changes its user before its parent met anybody, and outlives it.
        "fork-drops-privileges" => {
            let mut port = open(arg(0)?)?;
            let (task, count) = (arg(1)?, number(2)?);
            in_child(|| {
                rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(1003))?;
                until_told();
                then(&mut port, task, count)
            })?;
            say("ready");
            return Ok(());
        }
        other => return Err(format!("no role {other}").into()),
    }
    say("0");
    Ok(())
}

/// What a port is for, once one has it.
fn then(port: &mut Port, what: &str, count: u64) -> Outcome {
    match what {
        "tx" => {
            send(port, 0, count)?;
            let c = port.counters().tx;
            say(&format!("{count} {} {}", c.delivered, c.all_drops()));
        }
        "rx" => receive(port, count)?.say(),
        "hold" | "sync" => {
            until_told();
            say("0");
        }
        other => return Err(format!("no task {other}").into()),
    }
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            say(&format!("error: {e}"));
            ExitCode::FAILURE
        }
    }
}
