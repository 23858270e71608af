//! Options of REGISTER: which there are, their statuses, and what OFFSETS does to rings.
//!
//! CSB names memory of the client, which the library there has looked at: what arrives here is how many entries it found, see
//! [`ReqOption::csb`]. The rest of CSB mode is the library's.
//!
//! The list itself, linked by addresses of the client, is walked by the library there; here it is a sequence of types and bodies, none
//! of which is believed.
//!
//! Source: abi.md 8, 9.13 and 12; semantics.md 14.

use super::rings::Taken;
use super::{Asker, BindingId, ControlError, Kind, PortId, Registry};
use crate::layout::Dir;
use crate::offsets::Offsets;
use ringway_abi::{
    Errno, NETMAP_REQ_OPT_CSB, NETMAP_REQ_OPT_MAX, NETMAP_REQ_OPT_OFFSETS,
    NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS, nmreq_opt_csb, nmreq_opt_offsets, nmreq_option, nmreq_register,
    option_name, option_size,
};
use std::sync::atomic::Ordering::Relaxed;
use zerocopy::{FromBytes, IntoBytes};

/// Bytes of the head of every option.
const HEAD_BYTES: usize = size_of::<nmreq_option>();

/// An option of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReqOption {
    /// `NETMAP_REQ_OPT_*`.
    pub nro_reqtype: u32,
    /// 0, or the errno of this option.
    pub nro_status: u32,
    /// What follows its [`nmreq_option`], as the type fixes it; empty for types that nobody knows.
    pub body: Vec<u8>,
}

impl ReqOption {
    /// OFFSETS. Of the option's head only the type counts.
    #[must_use]
    pub fn offsets(o: &nmreq_opt_offsets) -> Self {
        let body = o.as_bytes()[HEAD_BYTES..].to_vec();
        ReqOption { nro_reqtype: NETMAP_REQ_OPT_OFFSETS, nro_status: 0, body }
    }

    /// CSB. `app` and `kern` stand for the arrays at the client's two addresses: how many entries are mapped there.
    #[must_use]
    pub fn csb(app: CsbArray, kern: CsbArray) -> Self {
        let nro_opt = nmreq_option::default();
        let o = nmreq_opt_csb { nro_opt, csb_atok: app.to_word(), csb_ktoa: kern.to_word() };
        ReqOption {
            nro_reqtype: NETMAP_REQ_OPT_CSB,
            nro_status: 0,
            body: o.as_bytes()[HEAD_BYTES..].to_vec(),
        }
    }

    /// Settles it.
    pub(super) fn answer(&mut self, errno: Errno) {
        self.nro_status = errno.0 as u32;
    }
}

/// An array of a CSB, as the library found it at the client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CsbArray {
    /// The address is not a multiple of 64.
    Misaligned,
    /// So many entries can be read and written there.
    Entries(u32),
}

/// Marks what [`ReqOption::csb`] wrote: no address of a program has this bit. A list that nobody has looked through has addresses.
const LOOKED_AT: u64 = 1 << 63;

impl CsbArray {
    fn to_word(self) -> u64 {
        match self {
            CsbArray::Misaligned => u64::MAX,
            CsbArray::Entries(n) => LOOKED_AT | u64::from(n),
        }
    }

    /// None: an address.
    fn from_word(word: u64) -> Option<Self> {
        let entries = u32::try_from(word & !LOOKED_AT);
        (word & LOOKED_AT != 0).then(|| entries.map_or(CsbArray::Misaligned, CsbArray::Entries))
    }

    /// Whether it serves `rings` rings.
    ///
    /// # Errors
    /// EINVAL, EFAULT.
    pub fn check(self, rings: usize) -> Result<(), Errno> {
        match self {
            CsbArray::Misaligned => Err(Errno::EINVAL),
            CsbArray::Entries(n) if (n as usize) < rings => Err(Errno::EFAULT),
            CsbArray::Entries(_) => Ok(()),
        }
    }
}

/// Whether a descriptor with so many rings can be in CSB mode. Source: abi.md 12.
///
/// # Errors
/// EINVAL, EFAULT.
pub fn check_csb(rings: usize, exclusive: bool, app: CsbArray, kern: CsbArray) -> Result<(), Errno> {
    if rings == 0 {
        return Ok(());
    }
    if !exclusive {
        return Err(Errno::EINVAL);
    }
    app.check(rings)?;
    kern.check(rings)
}

/// The CSB option, if there is one, of a request that is about to bind so many rings.
pub(super) fn apply_csb(
    rings: usize,
    exclusive: bool,
    options: &mut [ReqOption],
) -> Result<(), ControlError> {
    let Some(option) = options.iter_mut().find(|o| o.nro_reqtype == NETMAP_REQ_OPT_CSB) else {
        return Ok(());
    };
    let bytes = [&[0; HEAD_BYTES][..], &option.body].concat();
    let Ok(wish) = nmreq_opt_csb::read_from_bytes(&bytes) else {
        return Err(refuse(Errno::EINVAL, "the option has another size than its type"));
    };
    let arrays = CsbArray::from_word(wish.csb_atok).zip(CsbArray::from_word(wish.csb_ktoa));
    // Else it comes from where nobody can enter CSB mode (the device file): as one that nobody serves.
    let Some((app, kern)) = arrays else { return Ok(()) };
    match check_csb(rings, exclusive, app, kern) {
        Ok(()) => {
            option.nro_status = 0;
            Ok(())
        }
        Err(e) => {
            option.answer(e);
            let text = if exclusive {
                format!("CSB mode needs two arrays of {rings} entries, each on a boundary of 64 bytes")
            } else {
                "CSB mode needs rings that nobody else has (NR_EXCLUSIVE)".into()
            };
            Err(refuse(e, text))
        }
    }
}

fn refuse(errno: Errno, text: impl Into<String>) -> ControlError {
    ControlError::new(errno, text)
}

/// Checks a list of options, and sets every status to "nobody has looked at it": EOPNOTSUPP.
///
/// # Errors
/// EINVAL for type 0, for a known type that is there twice (in the status of both), and for a body of another size than its
/// type has.
pub fn check_options(options: &mut [ReqOption]) -> Result<(), ControlError> {
    options.iter_mut().for_each(|o| o.nro_status = 0);
    for i in 0..options.len() {
        let nro_reqtype = options[i].nro_reqtype;
        if nro_reqtype == 0 {
            options[i].answer(Errno::EINVAL);
            return Err(refuse(Errno::EINVAL, "an option has no type"));
        }
        if nro_reqtype >= NETMAP_REQ_OPT_MAX {
            continue;
        }
        if let Some(first) = options[..i].iter().position(|o| o.nro_reqtype == nro_reqtype) {
            options[first].answer(Errno::EINVAL);
            options[i].answer(Errno::EINVAL);
            let text = format!("option {} is there twice", option_name(nro_reqtype));
            return Err(refuse(Errno::EINVAL, text));
        }
        let free_size = nro_reqtype == NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS;
        if !free_size && options[i].body.len() + HEAD_BYTES != option_size(nro_reqtype, 0) {
            options[i].answer(Errno::EINVAL);
            let text = format!("option {} has another size than its type", option_name(nro_reqtype));
            return Err(refuse(Errno::EINVAL, text));
        }
    }
    options.iter_mut().for_each(|o| o.answer(Errno::EOPNOTSUPP));
    Ok(())
}

impl Registry {
    /// As [`Registry::register`], with options. Each is left with its status, whatever comes of the request; OFFSETS also with the largest
    /// offset in force.
    ///
    /// # Errors
    /// As abi.md 8, 9.1, 9.13.
    pub fn register_with(
        &mut self,
        who: Asker,
        name: &str,
        req: &nmreq_register,
        options: &mut [ReqOption],
    ) -> Result<BindingId, ControlError> {
        check_options(options)?;
        let own = self.apply_extmem(who, options)?;
        let mem_id = own.and_then(|id| self.regions.get(&id)).map_or(req.nr_mem_id, |r| r.mem_id);
        let req = &nmreq_register { nr_mem_id: mem_id, ..*req };
        let bound = self.look_up(who, name, req, true).and_then(|port| {
            let bound = self.bind(who, port, req, options);
            if bound.is_err() {
                self.drop_if_unused(port);
            }
            bound
        });
        if let Some(own) = own {
            // It failed, or the port has another region already.
            self.discard_unused_region(own);
        }
        let id = bound?;
        let unserved = options.iter().find(|o| o.nro_status == Errno::EOPNOTSUPP.0 as u32);
        if let Some(option) = unserved {
            self.unbind(id);
            let text = format!("{name}: option {} is not served", option_name(option.nro_reqtype));
            return Err(refuse(Errno::EOPNOTSUPP, text));
        }
        Ok(id)
    }

    /// The OFFSETS option, if there is one, for rings that were just taken.
    pub(super) fn apply_offsets(
        &mut self,
        id: PortId,
        taken: &[Taken],
        options: &mut [ReqOption],
    ) -> Result<(), ControlError> {
        let Some(option) = options.iter_mut().find(|o| o.nro_reqtype == NETMAP_REQ_OPT_OFFSETS) else {
            return Ok(());
        };
        let bytes = [&[0; HEAD_BYTES][..], &option.body].concat();
        // `check_options` has looked at its size.
        let wish = nmreq_opt_offsets::read_from_bytes(&bytes)
            .map_err(|_| refuse(Errno::EINVAL, "the option has another size than its type"))?;
        match self.set_offsets(id, taken, &wish) {
            Ok(max) => {
                *option = ReqOption::offsets(&nmreq_opt_offsets { nro_max_offset: max.into(), ..wish });
                Ok(())
            }
            Err(e) => {
                option.answer(e.errno);
                Err(e)
            }
        }
    }

    /// Gives rings offsets. Returns the largest one in force.
    fn set_offsets(
        &mut self,
        id: PortId,
        taken: &[Taken],
        wish: &nmreq_opt_offsets,
    ) -> Result<u32, ControlError> {
        let port = self.port(id)?;
        let name = port.name.clone();
        let buf_size = self.region_of(port)?.region.layout.bufs.objsize;
        if matches!(&port.kind, Kind::Monitor(watch) if watch.zcopy) {
            let text = format!("{name}: a zero-copy monitor shows frames where they lie");
            return Err(refuse(Errno::EOPNOTSUPP, text));
        }
        let invalid = |text: String| refuse(Errno::EINVAL, format!("{name}: {text}"));
        let bits = match wish.nro_offset_bits {
            0 => 64,
            bits if bits > 64 => return Err(invalid(format!("an offset has up to 64 bits, not {bits}"))),
            bits => bits,
        };
        let mask = u64::MAX >> (64 - bits);
        let (max, initial) = (wish.nro_max_offset, wish.nro_initial_offset);
        let max_offset = u32::try_from(max).ok().filter(|m| *m <= buf_size);
        let Some(max_offset) = max_offset else {
            return Err(invalid(format!("offset {max} is behind the end of a buffer of {buf_size} bytes")));
        };
        if max > mask {
            return Err(invalid(format!("offset {max} does not fit {bits} bits")));
        }
        if initial > max {
            return Err(invalid(format!("initial offset {initial} is above the largest, {max}")));
        }
        let room = buf_size - max_offset;
        let gap = match u32::try_from(wish.nro_min_gap) {
            Ok(gap) if gap > 0 => gap.min(room),
            _ => room,
        };
        let new = Offsets { mask, max: max_offset, gap };
        // All or none.
        let mut in_force = Vec::with_capacity(taken.len());
        for t in taken {
            let old = self.ring_use(id, t.dir, t.index).map(|r| r.offsets).unwrap_or_default();
            if old.is_on() && (old.mask & mask != mask || old.max < max_offset) {
                let text = format!("{name}: {:?} ring {} has smaller offsets already", t.dir, t.index);
                return Err(refuse(Errno::EBUSY, text));
            }
            in_force.push(if old.is_on() { old } else { new });
        }
        for (t, offsets) in taken.iter().zip(&in_force) {
            self.give_offsets(id, t, *offsets, initial as u32);
        }
        Ok(in_force.iter().map(|o| o.max).min().unwrap_or(max_offset))
    }

    fn give_offsets(&mut self, id: PortId, t: &Taken, offsets: Offsets, initial: u32) {
        let Some(handle) = self.handle(id, t.dir, t.index) else { return };
        if initial != 0 && t.is_first {
            for slot in handle.ring.slots.iter() {
                slot.set_ptr(offsets.put(slot.ptr(), initial));
            }
        }
        let show = |h: &crate::kring::RingHandle| {
            h.ring.header.offset_mask.store(offsets.mask, Relaxed);
            // No alignment is asked of anybody.
            h.ring.header.buf_align.store(0, Relaxed);
        };
        show(&handle);
        let kind = self.ports.get(&id).map(|p| &p.kind);
        if let (Some(Kind::Pipe { peer, .. }), true) = (kind, t.is_new) {
            let far = if t.dir == Dir::Tx { Dir::Rx } else { Dir::Tx };
            if let Some(other) = self.handle(*peer, far, t.index) {
                show(&other);
                for (a, b) in handle.ring.slots.iter().zip(other.ring.slots.iter()) {
                    b.set_ptr(a.ptr());
                }
                // Both know the slots as they are now.
                other.reset();
            }
            handle.reset();
        }
        if let (Some(Kind::Vale { .. }), Dir::Rx) = (kind, t.dir) {
            // What its owner tells senders with each sync.
            for (k, slot) in handle.ring.slots.iter().enumerate() {
                handle.shared.records[2 * k].store(offsets.of(slot.ptr()).into(), Relaxed);
            }
        }
        if let Some(ring) = self.ring_use_mut(id, t.dir, t.index) {
            ring.offsets = offsets;
        }
        offsets.store(&handle.shared.state);
        offsets.store_senders(&handle.shared.state);
    }
}
