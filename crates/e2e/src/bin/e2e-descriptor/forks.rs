//! Parents and children that share bound descriptors.

use crate::handing::hear;
use crate::traffic::{expect, send};
use crate::{LONG, open};
use ringway::Interest;
use ringway_e2e::role::{Outcome, say};
use ringway_os::sock::Conn;
use ringway_os::sys::fork_to;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::time::{Duration, Instant};

/// Runs `work` in a child; says nothing if it is well.
pub(crate) fn in_child(work: impl FnOnce() -> Outcome) -> Outcome<Pid> {
    Ok(fork_to(|| match work() {
        Ok(()) => 0,
        Err(e) => {
            say(&format!("error: child: {e}"));
            1
        }
    })?)
}

pub(crate) fn join_child(pid: Pid) -> Outcome {
    let status = waitpid(Some(pid), WaitOptions::empty())?.ok_or("no child")?.1;
    if status.exit_status() == Some(0) { Ok(()) } else { Err(format!("a child ended so: {status:?}").into()) }
}

/// Parent and child in turn, on both ends of a pipe or on two ports.
pub(crate) fn fork_in_turn(a: &str, b: &str) -> Outcome {
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
pub(crate) fn fork_waits(a: &str, b: &str) -> Outcome {
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
pub(crate) fn fork_kills(name: &str) -> Outcome {
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
