//! The list of options of a request, in the program's memory. Source: abi.md 8.

use core::mem::offset_of;
use ringway_abi::{Errno, NETMAP_REQ_MAXSIZE, NETMAP_REQ_OPT_MAX, nmreq_option, option_size};

use crate::user;
use ringway::raw::ReqOption;

/// One option of a list.
#[derive(Debug)]
pub struct Opt {
    /// Where its head is.
    addr: u64,
    pub nro_reqtype: u32,
    pub status: u32,
    /// What follows the head; empty for unknown types.
    pub body: Vec<u8>,
}

impl Opt {
    /// Writes its status.
    fn write_head(&self) -> Result<(), Errno> {
        user::write(self.addr.wrapping_add(offset_of!(nmreq_option, nro_status) as u64), &self.status)
    }

    /// As the registry takes it.
    pub fn to_request(&self) -> ReqOption {
        ReqOption { nro_reqtype: self.nro_reqtype, nro_status: self.status, body: self.body.clone() }
    }

    /// What the registry made of it.
    pub fn take(&mut self, served: ReqOption) {
        (self.status, self.body) = (served.nro_status, served.body);
    }
}

/// A list, as it was read.
#[derive(Debug, Default)]
pub struct Options(pub Vec<Opt>);

/// What upstream's kernel keeps a list in holds 4096 bytes, 8 pointers and a table: a list that does not end is found by that.
const SCRATCH_BYTES: usize = NETMAP_REQ_MAXSIZE + 14 * 8;
const HEAD_BYTES: usize = size_of::<nmreq_option>();

impl Options {
    /// Reads a list. If it is bad, what was looked at so far gets its status.
    pub fn read(first: u64, body_bytes: usize) -> Result<Self, Errno> {
        let mut list = Options::default();
        match list.fill(first, body_bytes) {
            Ok(()) => {
                for option in &mut list.0 {
                    option.status = Errno::EOPNOTSUPP.0 as u32;
                }
                Ok(list)
            }
            Err((e, tell)) => {
                if tell {
                    list.write_heads()?;
                }
                Err(e)
            }
        }
    }

    /// The error, and whether statuses are told.
    fn fill(&mut self, first: u64, body_bytes: usize) -> Result<(), (Errno, bool)> {
        let mut total = body_bytes;
        let mut scratch = 16 + body_bytes + 6 * 8;
        let mut addr = first;
        while addr != 0 {
            scratch += 8 + HEAD_BYTES;
            if scratch > SCRATCH_BYTES {
                return Err((Errno::EMSGSIZE, false));
            }
            let head: nmreq_option = user::read(addr).map_err(|e| (e, true))?;
            let nro_reqtype = head.nro_reqtype;
            total += HEAD_BYTES;
            let twin = self
                .0
                .iter_mut()
                .find(|o| o.nro_reqtype == nro_reqtype && (1..NETMAP_REQ_OPT_MAX).contains(&nro_reqtype));
            let invalid = Errno::EINVAL.0 as u32;
            let bad = nro_reqtype == 0 || twin.is_some();
            if let Some(twin) = twin {
                twin.status = invalid;
            }
            self.0.push(Opt { addr, nro_reqtype, status: if bad { invalid } else { 0 }, body: vec![] });
            if bad {
                return Err((Errno::EINVAL, true));
            }
            if nro_reqtype < NETMAP_REQ_OPT_MAX {
                if head.nro_size > NETMAP_REQ_MAXSIZE as u64 {
                    return Err((Errno::EMSGSIZE, true));
                }
                let body = option_size(nro_reqtype, head.nro_size) - HEAD_BYTES;
                total += body;
                scratch += body;
                if total > NETMAP_REQ_MAXSIZE || scratch > SCRATCH_BYTES {
                    return Err((Errno::EMSGSIZE, true));
                }
                let mut bytes = vec![0; body];
                user::read_bytes(addr.wrapping_add(HEAD_BYTES as u64), &mut bytes).map_err(|e| (e, true))?;
                if let Some(last) = self.0.last_mut() {
                    last.body = bytes;
                }
            }
            addr = head.nro_next;
        }
        Ok(())
    }

    /// Writes the statuses.
    fn write_heads(&self) -> Result<(), Errno> {
        self.0.iter().try_for_each(Opt::write_head)
    }

    /// Writes the statuses, and the bodies of those that were served, one option after the other.
    pub fn write_back(&self, with_bodies: bool) -> Result<(), Errno> {
        self.0.iter().try_for_each(|o| {
            o.write_head()?;
            let body: &[u8] = if with_bodies && o.status == 0 { &o.body } else { &[] };
            user::write_bytes(o.addr.wrapping_add(HEAD_BYTES as u64), body)
        })
    }
}
