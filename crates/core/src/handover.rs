//! Grants as bytes and fds, for the way from broker to client. See `ringway_abi::wire` for the layout.

use crate::control::ReqOption;
use crate::layout::{Geometry, PoolLayout, RegionLayout};
use crate::lease::{BindingKey, BoundRings, Grant, GrantKind, GuestOf, PeerGrant};
use crate::nic::{MAX_QUEUES, NicGrant, NicPath, NicQueue};
use crate::pool::Shm;
use ringway_abi::wire::{self, WireError};
use ringway_os::event::{Doorbell, LentBell};
use ringway_os::mem::Memfd;
use ringway_os::xdp::RingSizes;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use zerocopy::IntoBytes;

/// Why a grant could not be taken in.
#[derive(Debug)]
pub enum HandoverError {
    /// Its bytes are no grant.
    Wire(WireError),
    /// A field is out of range.
    Field(&'static str),
    /// An fd is missing.
    Fds,
    /// A memfd could not be mapped.
    Map(io::Error),
}

impl fmt::Display for HandoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandoverError::Wire(e) => write!(f, "bad grant: {e}"),
            HandoverError::Field(name) => write!(f, "bad grant: {name} is out of range"),
            HandoverError::Fds => {
                f.write_str("bad grant: fds are missing (is the limit of open files reached?)")
            }
            HandoverError::Map(e) => write!(f, "cannot map the granted memory: {e}"),
        }
    }
}

impl std::error::Error for HandoverError {}

impl From<WireError> for HandoverError {
    fn from(e: WireError) -> Self {
        HandoverError::Wire(e)
    }
}

fn geometry_out(g: &Geometry) -> wire::Geometry {
    wire::Geometry {
        tx_slots: g.tx_slots,
        rx_slots: g.rx_slots,
        tx_rings: g.tx_rings,
        rx_rings: g.rx_rings,
        pad: 0,
    }
}

fn geometry_in(g: &wire::Geometry) -> Result<Geometry, HandoverError> {
    if g.tx_slots > 1 << 20 || g.rx_slots > 1 << 20 {
        return Err(HandoverError::Field("slots"));
    }
    Ok(Geometry { tx_slots: g.tx_slots, rx_slots: g.rx_slots, tx_rings: g.tx_rings, rx_rings: g.rx_rings })
}

fn pools_out(l: &RegionLayout) -> [wire::Pool; 3] {
    [l.ifs, l.rings, l.bufs].map(|p| wire::Pool {
        offset: p.offset,
        objsize: p.objsize,
        objtotal: p.objtotal,
    })
}

fn pools_in(pools: &[wire::Pool; 3], memsize: u64) -> RegionLayout {
    let [ifs, rings, bufs] =
        pools.map(|p| PoolLayout { offset: p.offset, objsize: p.objsize, objtotal: p.objtotal });
    RegionLayout { ifs, rings, bufs, memsize }
}

/// A grant as bytes and fds.
#[must_use]
pub fn grant_out(g: &Grant) -> (Vec<u8>, Vec<BorrowedFd<'_>>) {
    let mut fds = vec![g.region.memfd.as_fd(), g.state.memfd.as_fd()];
    fds.extend([g.rx_bell.as_fd(), g.tx_bell.as_fd(), g.notice.as_fd(), g.worker_bell.as_fd()]);
    let (kind, index, generation) = match &g.kind {
        GrantKind::Null => (0, 0, 0),
        GrantKind::Vale { index, generation, page } => {
            fds.push(page.memfd.as_fd());
            (1, u32::from(*index), *generation)
        }
        GrantKind::Pipe { peer_state, peer_rx_bell, peer_tx_bell } => {
            fds.extend([peer_state.memfd.as_fd(), peer_rx_bell.as_fd(), peer_tx_bell.as_fd()]);
            (2, 0, 0)
        }
        GrantKind::Nic(nic) => {
            fds.extend(nic.queues.iter().map(|q| q.socket.as_fd()));
            (3, 0, 0)
        }
        GrantKind::Guest(GuestOf::Switch) => (4, 0, 0),
        GrantKind::Guest(GuestOf::Other) => (5, 0, 0),
        GrantKind::Monitor => (6, 0, 0),
    };
    let mut name = [0; wire::NAME_BYTES];
    for (b, c) in name.iter_mut().zip(g.name.bytes().take(wire::NAME_BYTES - 1)) {
        *b = c;
    }
    let fixed = wire::Grant {
        kind,
        index,
        generation,
        mem_id: g.mem_id.into(),
        first: [g.tx.first, g.rx.first],
        bound: [g.tx.offsets.len() as u16, g.rx.offsets.len() as u16],
        geometry: geometry_out(&g.geometry),
        pools: pools_out(&g.layout),
        memsize: g.layout.memsize,
        region_ofs: g.region.memfd.ofs() as u64,
        if_ofs: g.if_ofs,
        nr_flags: g.nr_flags,
        extra_bufs: g.extra_bufs,
        pad: 0,
        key: g.key.0,
        name,
    };
    let mut bytes = fixed.as_bytes().to_vec();
    for ofs in g.tx.offsets.iter().chain(&g.rx.offsets) {
        bytes.extend_from_slice(&ofs.to_ne_bytes());
    }
    if let GrantKind::Nic(nic) = &g.kind {
        bytes.extend(nic_out(nic));
    }
    (bytes, fds)
}

fn nic_out(nic: &NicGrant) -> Vec<u8> {
    let head = wire::Nic {
        path: nic.path as u32,
        ifindex: nic.ifindex,
        multi_slot: nic.multi_slot.into(),
        queues: nic.queues.len() as u32,
    };
    let mut bytes = head.as_bytes().to_vec();
    for q in &nic.queues {
        let sizes = [q.sizes.fill, q.sizes.comp, q.sizes.rx, q.sizes.tx];
        bytes.extend_from_slice(wire::NicQueue { index: q.index.into(), sizes }.as_bytes());
    }
    bytes
}

fn nic_in(bytes: &mut &[u8], fds: &mut Fds) -> Result<NicGrant, HandoverError> {
    let head: wire::Nic = wire::take(bytes)?;
    let path = NicPath::from_u32(head.path).ok_or(HandoverError::Field("path"))?;
    if head.queues > MAX_QUEUES {
        return Err(HandoverError::Field("queues"));
    }
    let queues = (0..head.queues).map(|_| {
        let q: wire::NicQueue = wire::take(bytes)?;
        let index = u16::try_from(q.index).map_err(|_| HandoverError::Field("queue"))?;
        let [fill, comp, rx, tx] = q.sizes;
        let socket = Arc::new(fds.0.next().ok_or(HandoverError::Fds)?);
        Ok(NicQueue { index, socket, sizes: RingSizes { fill, comp, rx, tx } })
    });
    let queues = queues.collect::<Result<Vec<_>, HandoverError>>()?;
    Ok(NicGrant { path, ifindex: head.ifindex, multi_slot: head.multi_slot == 1, queues })
}

/// Fds in the order in which they came.
struct Fds(std::vec::IntoIter<OwnedFd>);

impl Fds {
    fn shm(&mut self) -> Result<Shm, HandoverError> {
        let fd = self.0.next().ok_or(HandoverError::Fds)?;
        Memfd::adopt(fd).and_then(Shm::from_memfd).map_err(HandoverError::Map)
    }

    /// A region: the file, or the part of it that the grant means.
    fn region(&mut self, ofs: u64, memsize: u64) -> Result<Shm, HandoverError> {
        if ofs == 0 {
            return self.shm();
        }
        let fd = self.0.next().ok_or(HandoverError::Fds)?;
        let ofs = usize::try_from(ofs).map_err(|_| HandoverError::Field("region_ofs"))?;
        let len = usize::try_from(memsize).map_err(|_| HandoverError::Field("memsize"))?;
        Memfd::adopt_window(fd, ofs, len).and_then(Shm::from_memfd).map_err(HandoverError::Map)
    }

    fn bell(&mut self) -> Result<Arc<Doorbell>, HandoverError> {
        self.0.next().map(|fd| Arc::new(Doorbell::adopt(fd))).ok_or(HandoverError::Fds)
    }
}

/// A grant from bytes and fds. Fds are closed after mapping.
///
/// # Errors
/// [`HandoverError`]. Whether rings fit the memory is checked when an endpoint is made of it.
pub fn grant_in(mut bytes: &[u8], fds: Vec<OwnedFd>) -> Result<Grant, HandoverError> {
    let w: wire::Grant = wire::take(&mut bytes)?;
    let mut offsets = |n: u16| -> Result<Vec<u64>, HandoverError> {
        (0..n).map(|_| Ok(wire::take::<u64>(&mut bytes)?)).collect()
    };
    let tx = BoundRings { first: w.first[0], offsets: offsets(w.bound[0])? };
    let rx = BoundRings { first: w.first[1], offsets: offsets(w.bound[1])? };
    let mut fds = Fds(fds.into_iter());
    let (region, state) = (fds.region(w.region_ofs, w.memsize)?, fds.shm()?);
    let (rx_bell, tx_bell) = (fds.bell()?, fds.bell()?);
    let notice = fds.0.next().map(|fd| Arc::new(LentBell::adopt(fd))).ok_or(HandoverError::Fds)?;
    let worker_bell = fds.bell()?;
    let kind = match w.kind {
        0 => GrantKind::Null,
        1 => {
            let index = u8::try_from(w.index).map_err(|_| HandoverError::Field("index"))?;
            GrantKind::Vale { index, generation: w.generation, page: fds.shm()? }
        }
        2 => GrantKind::Pipe { peer_state: fds.shm()?, peer_rx_bell: fds.bell()?, peer_tx_bell: fds.bell()? },
        3 => GrantKind::Nic(nic_in(&mut bytes, &mut fds)?),
        4 => GrantKind::Guest(GuestOf::Switch),
        5 => GrantKind::Guest(GuestOf::Other),
        6 => GrantKind::Monitor,
        _ => return Err(HandoverError::Field("kind")),
    };
    let name = w.name.iter().take_while(|b| **b != 0).map(|b| char::from(*b)).collect();
    Ok(Grant {
        name,
        kind,
        geometry: geometry_in(&w.geometry)?,
        tx,
        rx,
        mem_id: u16::try_from(w.mem_id).map_err(|_| HandoverError::Field("mem_id"))?,
        layout: pools_in(&w.pools, w.memsize),
        if_ofs: w.if_ofs,
        extra_bufs: w.extra_bufs,
        nr_flags: w.nr_flags,
        key: BindingKey(w.key),
        region,
        state,
        rx_bell,
        tx_bell,
        notice,
        worker_bell,
    })
}

/// Options as bytes.
#[must_use]
pub fn options_out(options: &[ReqOption]) -> Vec<u8> {
    let mut bytes = vec![];
    for o in options {
        let head = wire::Opt {
            nro_reqtype: o.nro_reqtype,
            nro_status: o.nro_status,
            body_bytes: o.body.len() as u32,
            pad: 0,
        };
        bytes.extend_from_slice(head.as_bytes());
        bytes.extend_from_slice(&o.body);
    }
    bytes
}

/// Takes `count` options off the front of `bytes`.
///
/// # Errors
/// [`WireError`] if they are not there, or have more than [`wire::MAX_OPTION_BYTES`].
pub fn options_in(count: u32, bytes: &mut &[u8]) -> Result<Vec<ReqOption>, WireError> {
    let all = bytes.len();
    let mut options = vec![];
    for _ in 0..count {
        let head: wire::Opt = wire::take(bytes)?;
        let body = bytes.split_at_checked(head.body_bytes as usize);
        let (body, rest) = body.ok_or(WireError::Length(head.body_bytes))?;
        *bytes = rest;
        if all - rest.len() > wire::MAX_OPTION_BYTES {
            return Err(WireError::Length((all - rest.len()) as u32));
        }
        let (nro_reqtype, nro_status) = (head.nro_reqtype, head.nro_status);
        options.push(ReqOption { nro_reqtype, nro_status, body: body.to_vec() });
    }
    Ok(options)
}

/// A peer as bytes and fds.
#[must_use]
pub fn peer_out(p: &PeerGrant) -> (Vec<u8>, [BorrowedFd<'_>; 3]) {
    let fixed = wire::Peer {
        index: p.index.into(),
        generation: p.generation,
        geometry: geometry_out(&p.geometry),
        pools: pools_out(&p.layout),
        memsize: p.layout.memsize,
        region_ofs: p.region.memfd.ofs() as u64,
    };
    (fixed.as_bytes().to_vec(), [p.region.memfd.as_fd(), p.state.memfd.as_fd(), p.rx_bell.as_fd()])
}

/// A peer from bytes and fds.
///
/// # Errors
/// [`HandoverError`].
pub fn peer_in(mut bytes: &[u8], fds: Vec<OwnedFd>) -> Result<PeerGrant, HandoverError> {
    let w: wire::Peer = wire::take(&mut bytes)?;
    let mut fds = Fds(fds.into_iter());
    Ok(PeerGrant {
        index: u8::try_from(w.index).map_err(|_| HandoverError::Field("index"))?,
        generation: w.generation,
        geometry: geometry_in(&w.geometry)?,
        layout: pools_in(&w.pools, w.memsize),
        region: fds.region(w.region_ofs, w.memsize)?,
        state: fds.shm()?,
        rx_bell: fds.bell()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn options_arrive_as_they_were_and_nothing_else_does() {
        let option = |nro_reqtype, nro_status, n: usize| {
            let body = (0..n).map(|i| i as u8).collect();
            ReqOption { nro_reqtype, nro_status, body }
        };
        let all = vec![option(5, 95, 32), option(9, 0, 0), option(2, 22, 17)];
        let bytes = [options_out(&all), vec![1, 2, 3]].concat();
        let mut rest = &bytes[..];
        assert_eq!(options_in(3, &mut rest).unwrap(), all);
        assert_eq!(rest, [1, 2, 3]);
        assert!(options_in(4, &mut &bytes[..]).is_err());
        assert!(options_in(3, &mut &bytes[..60]).is_err());
        let long = options_out(&[option(2, 0, wire::MAX_OPTION_BYTES)]);
        assert!(options_in(1, &mut &long[..]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_options_panic(count: u32, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = options_in(count, &mut &bytes[..]);
        }
    }
}
