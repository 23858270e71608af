//! Messages of every wrong kind.

use ringway_abi::wire::{self, Kind};
use ringway_e2e::TestBroker;
use ringway_e2e::hostile::{Random, answer, latencies};
use ringway_os::event::Doorbell;
use std::os::fd::AsFd;

#[test]
fn nonsense_is_refused_and_costs_others_nothing() {
    let broker = TestBroker::start("");
    let mut random = Random(0x1234_5678_9abc_def1);
    let good = wire::message(Kind::Control, 0, &[0; 200]);
    for round in 0..2000 {
        let mut message = good.clone();
        match round % 5 {
            0 => message.iter_mut().for_each(|b| *b = random.next() as u8),
            1 => message.truncate(random.next() as usize % message.len()),
            2 => message.resize(15_000, 0xff),
            3 => {
                let at = 7 + random.next() as usize % (message.len() - 7);
                message[at] ^= 1 << (random.next() % 8);
            }
            // All kinds but STOP, which we may ask for.
            _ => message[6] = [0, 1, 2, 3, 4, 5, 6, 7, 9, 100][(random.next() % 10) as usize],
        }
        if message.is_empty() {
            continue;
        }
        let bell = Doorbell::new().unwrap();
        let extra = [bell.as_fd(); 5];
        let some = &extra[..random.next() as usize % 6];
        if let Some((bytes, _, _)) = answer(&broker.socket(), &message, some)
            && let Ok((head, kind, _)) = wire::parse(&bytes)
        {
            assert_eq!(kind, Kind::Reply);
            assert!(head.errno >= 0);
        }
    }
    latencies(&broker.socket(), 101).check("nonsense");
    assert_eq!(broker.json(&["broker", "status"])[0]["ports"], 0);
}
