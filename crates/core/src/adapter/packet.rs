//! Interfaces through packet sockets: the kernel copies frames from and to the buffers of the slots, which keep them.
//!
//! The host goes on receiving what we receive. Each slot is a frame: no NS_MOREFRAG.
//!
//! Source: semantics.md 24 ("emulated"); packet(7).

use super::{RingDriver, SyncError};
use crate::kring::{Kring, RingHandle, distance, forward, next, prev};
use crate::stats::{Drop, Stat, add, drop_packets};
use ringway_os::bytes::Payload;
use ringway_os::packet::{PacketSocket, Received, SendEnd};
use ringway_os::ring::SlotWord;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Frames per system call.
pub(crate) const BATCH: usize = 64;

/// RX ring over a packet socket.
#[derive(Debug)]
pub struct PacketRx {
    /// The socket, ours.
    pub socket: PacketSocket,
    /// The socket that the port's rings share, for waiting: sleepers of both directions watch one fd.
    pub shared: Arc<OwnedFd>,
}

/// TX ring over a packet socket.
#[derive(Debug)]
pub struct PacketTx {
    /// The socket, ours.
    pub socket: PacketSocket,
    /// As of [`PacketRx`].
    pub shared: Arc<OwnedFd>,
}

fn failed(e: &std::io::Error) -> SyncError {
    let gone = [ringway_abi::Errno::ENXIO.0, ringway_abi::Errno::ENODEV.0];
    if e.raw_os_error().is_some_and(|e| gone.contains(&e)) { SyncError::Stopped } else { SyncError::Failed }
}

impl RingDriver for PacketRx {
    fn sync(&mut self, kring: &mut Kring<'_>) -> Result<(), SyncError> {
        let handle = kring.handle;
        let n = handle.num_slots();
        let state = &*handle.shared.state;
        kring.hwcur = kring.rhead;
        state.owner.hwcur.publish(kring.hwcur);
        let (mut packets, mut bytes, mut cut) = (0u64, 0u64, 0u64);
        loop {
            let room = (n - 1 - distance(n, kring.hwcur, kring.hwtail)).min(BATCH as u32);
            let Some(first) = handle.ring.bufs.payload(0) else { return Err(SyncError::Failed) };
            let mut bufs: [Payload<'_>; BATCH] = [first; BATCH];
            let mut got = [Received::default(); BATCH];
            for i in 0..room {
                let slot = &handle.ring.slots[forward(n, kring.hwtail, i) as usize];
                let word = slot.load();
                // A bad index: into the dummy, buffer 0.
                if let Some(payload) = handle.ring.bufs.payload(handle.valid_buf(word)) {
                    bufs[i as usize] = if kring.offsets.is_on() {
                        let gap = kring.offsets.gap.min(u16::MAX.into()) as usize;
                        payload.slice(kring.offsets.of(slot.ptr()) as usize, gap)
                    } else {
                        payload.slice(0, usize::from(u16::MAX))
                    };
                }
            }
            let received =
                self.socket.recv_batch(&bufs[..room as usize], &mut got).map_err(|e| failed(&e))?;
            for frame in &got[..received] {
                let slot = &handle.ring.slots[kring.hwtail as usize];
                let word = slot.load();
                slot.store(SlotWord::new(word.buf_idx(), frame.len as u16, 0));
                cut += u64::from(frame.truncated);
                packets += 1;
                bytes += frame.len as u64;
                kring.hwtail = next(n, kring.hwtail);
            }
            if received < room as usize || room == 0 {
                break;
            }
        }
        add(state, Stat::Packets, packets);
        add(state, Stat::Bytes, bytes);
        drop_packets(state, Drop::Device, cut);
        Ok(())
    }

    fn moved_since(&self, handle: &RingHandle, wanted: u32) -> bool {
        let kring = handle.load(0);
        distance(handle.num_slots(), kring.hwcur, kring.hwtail) >= wanted
            || ringway_os::sys::is_readable(self.socket.as_fd())
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.shared.as_fd())
    }
}

impl RingDriver for PacketTx {
    fn sync(&mut self, kring: &mut Kring<'_>) -> Result<(), SyncError> {
        let handle = kring.handle;
        let n = handle.num_slots();
        let state = &*handle.shared.state;
        let mut result = Ok(());
        while kring.hwcur != kring.rhead {
            let Some(first) = handle.ring.bufs.payload(0) else { return Err(SyncError::Failed) };
            let mut frames: [Payload<'_>; BATCH] = [first; BATCH];
            let (mut count, mut bytes, mut fault) = (0usize, 0u64, None);
            let mut at = kring.hwcur;
            while at != kring.rhead && count < BATCH {
                let slot = &handle.ring.slots[at as usize];
                let word = slot.load();
                let ofs = kring.offsets.of(slot.ptr()) as usize;
                let payload = handle.ring.bufs.payload(handle.valid_buf(word));
                let payload = payload.map(|p| p.slice(ofs, usize::MAX));
                let payload =
                    payload.filter(|p| usize::from(word.len()) <= p.len() && handle.valid_buf(word) != 0);
                fault = if payload.is_none() {
                    Some(Drop::BadSlot)
                } else {
                    (word.len() < 14).then_some(Drop::Short)
                };
                let Some(payload) = payload.filter(|_| fault.is_none()) else { break };
                frames[count] = payload.slice(0, word.len().into());
                bytes += u64::from(word.len());
                count += 1;
                at = next(n, at);
            }
            let mut end = SendEnd::Complete;
            if count > 0 {
                match self.socket.send_batch(&frames[..count]) {
                    Ok(sent) => {
                        add(state, Stat::Packets, sent.taken as u64);
                        add(state, Stat::Bytes, if sent.taken == count { bytes } else { 0 });
                        drop_packets(state, Drop::Device, sent.invalid as u64);
                        kring.hwcur = forward(n, kring.hwcur, sent.taken as u32);
                        end = if sent.taken < count { sent.end } else { SendEnd::Complete };
                    }
                    Err(e) => {
                        result = Err(failed(&e));
                        end = SendEnd::Again;
                    }
                }
            }
            if end != SendEnd::Complete {
                break;
            }
            if let Some(fault) = fault {
                kring.hwcur = next(n, kring.hwcur);
                add(state, Stat::Packets, 1);
                drop_packets(state, fault, 1);
            }
        }
        state.owner.hwcur.publish(kring.hwcur);
        kring.hwtail = prev(n, kring.hwcur);
        result
    }

    fn moved_since(&self, handle: &RingHandle, wanted: u32) -> bool {
        let n = handle.num_slots();
        let kring = handle.load(0);
        distance(n, kring.hwcur, kring.rtail) >= wanted
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.shared.as_fd())
    }
}
