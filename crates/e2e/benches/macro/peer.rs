//! The other processes of a case: this program again, with a role.
//!
//! Standard input is the memory shared with the parent ([`Control`]). Who is not told to end is killed with its parent.

use crate::cases::{Case, Link, Place, Waiting, cases};
use crate::control::{Control, Laps};
use crate::traffic::{Sender, announce, header, mac, take, wait};
use crate::veth;
use crate::yardstick::{PAUSE, pin};
use ringway::{Interest, Netmap, Port};
use ringway_os::link::with_netns;
use ringway_os::sys::{monotonic_nanos, yield_now};
use std::error::Error;
use std::hint::black_box;
use std::os::fd::AsFd;
use std::time::Duration;

pub type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// Numbers of the processes that are measured.
pub const TX: usize = 0;
pub const RX: usize = 1;
pub const HOLDER: usize = 2;

/// Time to sleep in a row, for those who only hold ports.
const NAP: Duration = Duration::from_millis(2);

/// `ROLE NAMESPACE ARGS...`; NAMESPACE is the file of a network namespace, or `-`.
pub fn run(args: &[String]) -> Outcome {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let [role, netns, args @ ..] = args else { return Err("ROLE NAMESPACE".into()) };
    if netns == "-" {
        return play(role, args);
    }
    with_netns(std::fs::File::open(netns)?.as_fd(), || play(role, args))?
}

fn play(role: &str, args: &[String]) -> Outcome {
    if role == "busy" {
        loop {
            std::hint::spin_loop();
        }
    }
    let control = Control::from_stdin()?;
    let case = |i: usize| -> Result<Case, Box<dyn Error + Send + Sync>> {
        let index: usize = args.get(i).ok_or("a case")?.parse()?;
        Ok(*cases().get(index).ok_or("no such case")?)
    };
    match role {
        "tx" => send(&case(0)?, &control),
        "rx" => receive(&case(0)?, &control),
        "thread" => one_thread(&case(0)?, &control),
        "null" => null(&control),
        "hold" => hold(args, &control),
        "open" => open_twice(args, &control),
        "single-tx" => single_tx(args, &control),
        "single-rx" => single_rx(args, &control),
        "waker" => waker(args, &control),
        "sleeper" => sleeper(args, &control),
        other => veth::play(other, args, &control),
    }
}

fn open_all(names: &[String], slots: u32) -> Result<Vec<Port>, ringway::OpenError> {
    names.iter().map(|name| Port::builder(name).slots(slots).open()).collect()
}

fn lost(ports: &[Port]) -> u64 {
    ports.iter().map(|p| p.counters().tx.all_drops()).sum()
}

fn send(case: &Case, control: &Control) -> Outcome {
    pin(case.place, false);
    let mut ports = open_all(&case.port_names().0, case.slots)?;
    let mut senders: Vec<_> = (0..).zip(&mut ports).map(|(i, p)| Sender::new(case, p, i)).collect();
    // Every page that packets lie in is touched before the clock runs.
    for (port, sender) in ports.iter_mut().zip(&mut senders) {
        while !sender.is_warm() {
            sender.send(port)?;
            wait(Waiting::Yield, port, Interest::TX, sender.room())?;
        }
    }
    let mut laps = Laps::ready(control, TX);
    let mut packets = 0;
    while !laps.follow(packets, || lost(&ports)) {
        let mut any = 0;
        for (port, sender) in ports.iter_mut().zip(&mut senders) {
            any += sender.send(port)?;
        }
        packets += u64::from(any);
        match &mut ports[..] {
            _ if any > 0 => {}
            [port] => wait(case.waiting, port, Interest::TX, senders[0].room())?,
            _ => yield_now(),
        }
    }
    Ok(())
}

fn receive(case: &Case, control: &Control) -> Outcome {
    pin(case.place, true);
    let mut ports = open_all(&case.port_names().1, case.slots)?;
    if case.link != Link::Pipe {
        for (i, port) in (0..).zip(&mut ports) {
            announce(port, i..i + case.macs.0.max(1))?;
        }
    }
    let mut laps = Laps::ready(control, RX);
    let (mut packets, mut sum) = (0, 0u64);
    while !laps.follow(packets, || 0) {
        let before = packets;
        let several = ports.len() > 1;
        for port in &mut ports {
            if several {
                port.rxsync()?;
            } else {
                wait(case.waiting, port, Interest::RX, 1)?;
            }
            let (count, read) = take(case, &mut port.rx(0));
            packets += count;
            sum = sum.wrapping_add(read);
        }
        if several && packets == before {
            yield_now();
        }
    }
    black_box(sum);
    Ok(())
}

/// The engine and both ports in this thread.
fn one_thread(case: &Case, control: &Control) -> Outcome {
    pin(Place::Thread, false);
    let netmap = Netmap::embedded();
    let (a, b) = case.port_names();
    let (mut a, mut b) = (netmap.open(&a[0])?, netmap.open(&b[0])?);
    announce(&mut b, 0..case.macs.0.max(1))?;
    let mut sender = Sender::new(case, &mut a, 0);
    let mut laps = Laps::ready(control, RX);
    let (mut packets, mut sum) = (0, 0u64);
    while !laps.follow(packets, || a.counters().tx.all_drops()) {
        sender.send(&mut a)?;
        let mut rx = b.rx(0);
        rx.sync()?;
        let (count, read) = take(case, &mut rx);
        packets += count;
        sum = sum.wrapping_add(read);
        if 2 * count > u64::from(rx.num_slots()) {
            // The next batch would not find room: slots are given back by a sync.
            rx.sync()?;
        }
    }
    black_box(sum);
    Ok(())
}

/// Syncs of a null port, counted as packets.
fn null(control: &Control) -> Outcome {
    pin(Place::Thread, false);
    let home = Port::open("vale0:home")?;
    let mut port =
        Port::builder("netmap:macro").null().share_memory_with(&home).rings(1).slots(1024).open()?;
    let mut laps = Laps::ready(control, RX);
    let mut syncs = 0;
    while !laps.follow(syncs, || 0) {
        for _ in 0..32 {
            port.txsync()?;
            port.rxsync()?;
        }
        syncs += 64;
    }
    Ok(())
}

/// Holds ports, and does nothing.
fn hold(names: &[String], control: &Control) -> Outcome {
    let ports = open_all(names, 0)?;
    control.say_ready(HOLDER);
    while !control.is_over() {
        std::thread::sleep(NAP);
    }
    drop(ports);
    Ok(())
}

/// Opens a port, closes it, and opens another: leaves the nanoseconds of both. The first attaches this process.
fn open_twice(names: &[String], control: &Control) -> Outcome {
    let mut times = vec![];
    for name in names {
        let begin = monotonic_nanos();
        let port = Port::open(name)?;
        times.push(monotonic_nanos() - begin);
        drop(port);
    }
    control.put_samples(&times);
    Ok(())
}

fn place(word: Option<&String>) -> Place {
    if word.is_some_and(|w| w == "one") { Place::One } else { Place::Two }
}

/// Sends one frame from time to time, with the time in it. `PORT PLACE`.
fn single_tx(args: &[String], control: &Control) -> Outcome {
    pin(place(args.get(1)), false);
    let mut port = Port::open(&args[0])?;
    // Every page that frames lie in is touched before: more than once around, as other senders do.
    let all = 4 * port.tx(0).num_slots();
    for _ in 0..all {
        send_one(&mut port, || NO_TIME)?;
        wait(Waiting::Port, &mut port, Interest::TX, 1)?;
    }
    control.say_ready(TX);
    while !control.is_over() {
        std::thread::sleep(PAUSE);
        send_one(&mut port, monotonic_nanos)?;
    }
    Ok(())
}

/// What frames carry that nobody measures.
const NO_TIME: u64 = 0;

fn send_one(port: &mut Port, time: impl Fn() -> u64) -> Result<(), ringway::SyncError> {
    let mut tx = port.tx(0);
    if let Some(slot) = tx.slot(0) {
        let payload = slot.payload();
        let (first, second) = header(mac(1, 0), mac(0, 0));
        payload.store_u64(0, first);
        payload.store_u64(8, second);
        payload.store_u64(16, time());
        slot.set(60, 0);
    }
    tx.advance(1);
    tx.sync()
}

/// Sleeps until a frame comes, and says how old it is; so many times. `PORT PLACE COUNT`.
fn single_rx(args: &[String], control: &Control) -> Outcome {
    pin(place(args.get(1)), true);
    let count: usize = args.get(2).ok_or("how many")?.parse()?;
    let mut port = Port::open(&args[0])?;
    if !args[0].contains('}') {
        announce(&mut port, 0..1)?;
    }
    control.say_ready(RX);
    let mut samples = vec![];
    while samples.len() < count {
        port.wait(Interest::RX, None)?;
        let now = monotonic_nanos();
        port.rx(0).drain(u32::MAX, |slot| {
            let sent = slot.payload().load_u64(16).unwrap_or(NO_TIME);
            samples.extend((sent != NO_TIME).then(|| now.saturating_sub(sent)));
            true
        });
    }
    control.put_samples(&samples);
    control.say_done(RX);
    Ok(())
}

/// Writes to the eventfd that is its standard output from time to time: what it adds is the time. `PLACE`.
fn waker(args: &[String], control: &Control) -> Outcome {
    pin(place(args.first()), false);
    let bell = std::io::stdout();
    while !control.is_over() {
        std::thread::sleep(PAUSE);
        rustix::io::write(&bell, &monotonic_nanos().to_ne_bytes())?;
    }
    Ok(())
}

/// Sleeps in a read of that eventfd, and says how long ago it was written to; so many times. `PLACE COUNT`.
fn sleeper(args: &[String], control: &Control) -> Outcome {
    pin(place(args.first()), true);
    let count: usize = args.get(1).ok_or("how many")?.parse()?;
    let bell = std::io::stdout();
    let mut samples = vec![];
    control.say_ready(RX);
    while samples.len() < count {
        let mut value = [0; 8];
        rustix::io::read(&bell, &mut value)?;
        // Two writes at once add up to a time far ahead.
        samples.extend(monotonic_nanos().checked_sub(u64::from_ne_bytes(value)));
    }
    control.put_samples(&samples);
    control.say_done(RX);
    Ok(())
}
