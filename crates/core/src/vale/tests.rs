//! Tests of the switch. The numbers in names are sections of semantics.md.

use super::*;
use crate::kring::SyncOutcome;
use crate::sim::{Frame, Member, Rng, SimSwitch, conserved, packets};
use crate::stats::{Counters, Drop};
use ringway_abi::ring::{NS_BUF_CHANGED, NS_INDIRECT, NS_MOREFRAG, NS_NO_LEARN, NS_REPORT};
use ringway_os::event::{Epoll, EventBuf, EventFlags};
use ringway_os::ring::SlotWord;
use std::time::Duration;

mod delivery;
mod hostile;
mod learning;
mod model;
mod slots;
mod threads;
mod vnet;

const BUF_SIZE: u32 = 256;
const BROADCAST: u8 = 0xff;

fn geometry(rings: u16, slots: u32) -> Geometry {
    Geometry { tx_rings: rings, rx_rings: rings, tx_slots: slots, rx_slots: slots }
}

/// The address of host `x`.
fn mac(x: u8) -> [u8; 6] {
    if x == BROADCAST { [0xff; 6] } else { [2, 0, 0, 0, 0, x] }
}

/// A frame from host `src` to host `dst` that carries `number`.
fn frame(dst: u8, src: u8, number: u32) -> Vec<u8> {
    let mut f = [mac(dst), mac(src)].concat();
    f.extend([0x88, 0xb5]);
    f.extend(number.to_le_bytes());
    f
}

fn numbers(frames: &[Frame]) -> Vec<u32> {
    frames.iter().map(|f| u32::from_le_bytes(f.bytes[14..18].try_into().unwrap())).collect()
}

/// A switch with `N` ports at indexes from 0, of one ring each.
fn members<const N: usize>(slots: u32) -> [Member; N] {
    let switch = SimSwitch::default();
    std::array::from_fn(|i| switch.attach(i as u8, &geometry(1, slots), BUF_SIZE))
}

/// Every port sends one frame from the host with its number: the switch knows them. What that flooded is thrown away.
fn introduce(members: &mut [Member]) {
    for m in &mut *members {
        let index = m.index;
        m.send(&frame(BROADCAST, index, 0));
    }
    for m in &mut *members {
        m.receive(0);
    }
}

fn drops(m: &Member) -> Counters {
    m.counters(Dir::Tx)
}

fn check(members: &[Member]) {
    conserved(&members.iter().collect::<Vec<_>>());
    members.iter().for_each(Member::check_owners);
}

fn received(members: &mut [Member]) -> Vec<Vec<u32>> {
    members.iter_mut().map(|m| numbers(&m.receive(0))).collect()
}

/// A packet of `slots` slots, each of another length.
fn long_packet(dst: u8, src: u8, number: u32, slots: usize) -> Vec<Vec<u8>> {
    (0..slots).map(|i| if i == 0 { frame(dst, src, number) } else { vec![i as u8; i % 200] }).collect()
}
