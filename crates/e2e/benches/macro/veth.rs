//! Ports on a veth pair, beside the least programs that do the same ([`crate::raw`]), in network namespaces of their own.

use crate::cases::{Case, Place, Waiting, cases, matches};
use crate::control::{Control, Laps};
use crate::peer::{HOLDER, Outcome, TX};
use crate::raw::{self, Memory, Queue};
use crate::run::{Failed, Process, Slice, measure, slices};
use crate::stats::{Spread, digits, spread};
use crate::traffic::{Sender, take, wait};
use crate::yardstick::pin;
use ringway::{Interest, Port};
use ringway_e2e::ns::{Ns, Pair};
use ringway_e2e::root_or_skip;

/// What is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Job {
    /// One side sends; the other's host throws it away.
    Tx,
    /// One side receives what the least program sends.
    Rx,
    /// The same, and sends it on to a second pair without copying.
    Forward,
}

#[derive(Clone, Copy, Debug)]
struct VethCase {
    job: Job,
    len: u16,
    batch: u32,
    /// Sleeps when there is nothing, else looks again at once.
    sleeps: bool,
}

/// Batch of the program that sends to receivers and forwarders.
const GENERATOR_BATCH: u32 = 64;
/// Turns of the two programs.
const ROUNDS: usize = 2;

fn table() -> Vec<VethCase> {
    let mut all = vec![];
    for len in [60, 1514] {
        for batch in [1, 8, 64, 256, 1024] {
            all.push(VethCase { job: Job::Tx, len, batch, sleeps: false });
        }
        for (job, sleeps) in [(Job::Rx, false), (Job::Rx, true), (Job::Forward, false), (Job::Forward, true)]
        {
            all.push(VethCase { job, len, batch: GENERATOR_BATCH, sleeps });
        }
    }
    all
}

impl VethCase {
    fn name(&self) -> String {
        let how = match (self.job, self.sleeps) {
            (Job::Tx, _) => "",
            (_, true) => " wait",
            (_, false) => " spin",
        };
        format!("veth {} {}b b{}{how}", format!("{:?}", self.job).to_lowercase(), self.len, self.batch)
    }
}

/// Prints the section. Returns how many rows failed.
pub fn section(filter: &[String]) -> u32 {
    let table: Vec<VethCase> = table().into_iter().filter(|c| matches(filter, &c.name())).collect();
    if table.is_empty() || !root_or_skip("veth") {
        return 0;
    }
    // `va` in one namespace, `vb` in another; and from the first to a third `vc` and `vd`.
    let (Some(pair), Some(far)) = (Pair::new("veth", 1), Ns::new("veth")) else { return 0 };
    pair.a.sh(&format!("ip link add vc type veth peer name vd; ip link set vd netns {}", far.path()));
    pair.a.sh("ip link set vc up");
    far.sh("ip link set vd up");
    println!("\n| case | Mpps, port | least program | ratio | ns of CPU, port | least program | ratio |");
    println!("|---|---|---|---|---|---|---|");
    let mut failed = 0;
    for case in table {
        match both(&case, &pair) {
            Ok([(mpps, ns), (raw_mpps, raw_ns)]) => println!(
                "| {} | {mpps} | {raw_mpps} | {} | {ns} | {raw_ns} | {} |",
                case.name(),
                digits(mpps.median / raw_mpps.median),
                digits(ns.median / raw_ns.median)
            ),
            Err(e) => {
                println!("| {} | FAILED: {e} | | | | | |", case.name());
                failed += 1;
            }
        }
    }
    failed
}

/// Packets per second and CPU: of the port's program, and of the least one.
fn both(case: &VethCase, pair: &Pair) -> Result<[(Spread, Spread); 2], Failed> {
    let mut all: [Vec<Slice>; 2] = [vec![], vec![]];
    for _ in 0..ROUNDS {
        for (slices, who) in all.iter_mut().zip(["port", "raw"]) {
            slices.extend(once(case, pair, who)?);
        }
    }
    Ok(all.map(|slices| {
        let of = |f: &dyn Fn(&Slice) -> f64| spread(&mut slices.iter().map(f).collect::<Vec<_>>());
        (of(&|s| s.mpps(TX)), of(&|s| s.cost(TX, TX)))
    }))
}

fn once(case: &VethCase, pair: &Pair, who: &str) -> Result<Vec<Slice>, Failed> {
    let control = Control::create().map_err(|e| e.to_string())?;
    let role = format!("{who}-{}", format!("{:?}", case.job).to_lowercase());
    let (len, batch, sleeps) = (case.len.to_string(), case.batch.to_string(), case.sleeps.to_string());
    let args = [len.as_str(), batch.as_str(), sleeps.as_str()];
    let mut measured = Process::start(&control, &role, &pair.a.path(), &args, None)?;
    measured.wait_until(|| control.is_ready(TX))?;
    let mut generator = None;
    if case.job != Job::Tx {
        let process = generator.insert(Process::start(&control, "generate", &pair.b.path(), &args, None)?);
        process.wait_until(|| control.is_ready(HOLDER))?;
    }
    let (count, time) = slices();
    let slices = measure(&control, &mut [(TX, &mut measured)], count.div_ceil(ROUNDS), time)?;
    measured.finish()?;
    if let Some(mut generator) = generator {
        generator.finish()?;
    }
    Ok(slices)
}

/// The processes of the section: `LEN BATCH SLEEPS`.
pub fn play(role: &str, args: &[String], control: &Control) -> Outcome {
    let [len, batch, sleeps] = args else { return Err(format!("no role {role}").into()) };
    let (len, batch, sleeps): (u16, u32, bool) = (len.parse()?, batch.parse()?, sleeps.parse()?);
    let case = Case { len, batch, ..cases()[1] };
    let waiting = if sleeps { Waiting::Port } else { Waiting::Spin };
    pin(Place::Two, role == "generate");
    match role {
        "port-tx" => port_tx(&case, control),
        "port-rx" => port_rx(&case, waiting, control),
        "port-forward" => port_forward(waiting, control),
        "raw-tx" | "generate" => {
            let (number, name) = if role == "raw-tx" { (TX, "va") } else { (HOLDER, "vb") };
            let memory = Memory::new(len)?;
            let mut queue = Queue::open(name, &memory, false)?;
            raw::send(&mut queue, &memory, len, batch, &mut Laps::ready(control, number))
        }
        "raw-rx" => {
            let memory = Memory::new(len)?;
            let mut queue = Queue::open("va", &memory, true)?;
            raw::receive(&mut queue, &memory, sleeps, &mut Laps::ready(control, TX))
        }
        "raw-forward" => {
            let memory = Memory::new(len)?;
            let mut from = Queue::open("va", &memory, true)?;
            let mut to = Queue::open("vc", &memory, false)?;
            raw::forward(&mut from, &mut to, &memory, sleeps, &mut Laps::ready(control, TX))
        }
        _ => Err(format!("no role {role}").into()),
    }
}

fn port_tx(case: &Case, control: &Control) -> Outcome {
    let mut port = Port::open("netmap:va")?;
    let mut sender = Sender::new(case, &mut port, 0);
    let mut laps = Laps::ready(control, TX);
    let mut packets = 0;
    while !laps.follow(packets, || port.counters().tx.all_drops()) {
        let sent = sender.send(&mut port)?;
        packets += u64::from(sent);
        if sent == 0 {
            wait(Waiting::Spin, &mut port, Interest::TX, sender.room())?;
        }
    }
    Ok(())
}

fn port_rx(case: &Case, waiting: Waiting, control: &Control) -> Outcome {
    let mut port = Port::open("netmap:va")?;
    let mut laps = Laps::ready(control, TX);
    let mut packets = 0;
    while !laps.follow(packets, || 0) {
        wait(waiting, &mut port, Interest::RX, 1)?;
        packets += take(case, &mut port.rx(0)).0;
    }
    Ok(())
}

fn port_forward(waiting: Waiting, control: &Control) -> Outcome {
    let mut from = Port::open("netmap:va")?;
    let mut to = Port::open("netmap:vc")?;
    let mut laps = Laps::ready(control, TX);
    let mut packets = 0;
    while !laps.follow(packets, || 0) {
        wait(waiting, &mut from, Interest::RX, 1)?;
        let mut tx = to.tx(0);
        packets += u64::from(tx.forward(&mut from.rx(0), u32::MAX)?);
        tx.sync()?;
    }
    Ok(())
}
