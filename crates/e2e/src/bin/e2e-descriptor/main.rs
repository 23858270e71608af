//! The other processes of tests about descriptors: handed over, inherited, forked, shared by threads.
//!
//! `e2e-descriptor ROLE ARGS`. Says `ready` when others may act, then numbers, or `error: ...`.
#![forbid(unsafe_code)]

mod forks;
mod handing;
mod probes;
mod threads;
mod traffic;

use crate::forks::{fork_in_turn, fork_kills, fork_waits, in_child, join_child};
use crate::handing::{give, receive_fd, serve, take_fd};
use crate::probes::{close_semantics, pry, recognise};
use crate::traffic::{expect, receive, send};
use ringway::Port;
use ringway_e2e::role::{Outcome, end, say};
use ringway_os::sock::Conn;
use ringway_os::sys::detach_from_starter;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

/// Far more than anything here takes.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// Until the test closes our input.
pub(crate) fn until_told() {
    let _ = std::io::stdin().read(&mut [0; 1]);
}

pub(crate) fn open(name: &str) -> Outcome<Port> {
    Ok(Port::builder(name).shared().open()?)
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
    end(run())
}
