//! NIOCCTRL in a caller's memory: a header that names a body and a linked list of options.
//!
//! Everything is read once, checked, and from then on only our copy counts.
//!
//! Source: abi.md 7 and 8.

use ringway_abi::{
    Errno, NETMAP_MAX_API, NETMAP_MIN_API, NETMAP_REQ_IFNAMSIZ, NETMAP_REQ_MAXSIZE, NETMAP_REQ_OPT_MAX,
    body_size, nmreq_header, nmreq_option, option_size,
};
use ringway_core::control::ReqOption;
use zerocopy::{FromBytes, IntoBytes};

/// Bytes of an option's head.
const HEAD: usize = size_of::<nmreq_option>();
/// Where `nro_status` lies in it.
const STATUS_OFS: u64 = std::mem::offset_of!(nmreq_option, nro_status) as u64;
/// What netmap's own copy of a request may take: a body, options, and what it keeps beside them.
const SCRATCH: usize = NETMAP_REQ_MAXSIZE + 8 * 8 + 6 * 8;

/// Memory of a caller.
pub(super) trait UserMemory {
    /// Reads all of `buf`.
    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Errno>;
    /// Writes all of `data`.
    fn write(&self, addr: u64, data: &[u8]) -> Result<(), Errno>;
}

/// A request, read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Nested {
    pub body: Vec<u8>,
    /// In the order of the caller's list.
    pub options: Vec<ReqOption>,
    /// Where each lies.
    at: Vec<u64>,
}

/// Reads what `header` names. A request that cannot be read has its options' statuses written already.
///
/// # Errors
/// As netmap's.
pub(super) fn read(header: &nmreq_header, memory: &impl UserMemory) -> Result<Nested, Errno> {
    if !(NETMAP_MIN_API..=NETMAP_MAX_API).contains(&header.nr_version) || header.nr_reserved != 0 {
        return Err(Errno::EINVAL);
    }
    let mut body = vec![0; body_size(header.nr_reqtype)];
    if body.is_empty() != (header.nr_body == 0) {
        return Err(Errno::EINVAL);
    }
    memory.read(header.nr_body, &mut body)?;
    let mut nested = Nested { body, ..Nested::default() };
    match nested.read_options(header.nr_options, memory) {
        Ok(()) => Ok(nested),
        Err(Failed { errno, tell: false }) => Err(errno),
        Err(Failed { errno, tell: true }) => {
            nested.write_statuses(memory)?;
            Err(errno)
        }
    }
}

struct Failed {
    errno: Errno,
    /// Whether the options read so far are told their statuses.
    tell: bool,
}

impl Nested {
    fn read_options(&mut self, first: u64, memory: &impl UserMemory) -> Result<(), Failed> {
        let fail = |errno| Err(Failed { errno, tell: true });
        let mut total = self.body.len();
        let mut scratch = 16 + self.body.len() + 6 * 8;
        let mut at = first;
        while at != 0 {
            scratch += 8 + HEAD;
            if scratch > SCRATCH {
                return Err(Failed { errno: Errno::EMSGSIZE, tell: false });
            }
            let mut head = [0; HEAD];
            if let Err(errno) = memory.read(at, &mut head) {
                return fail(errno);
            }
            let head = nmreq_option::read_from_bytes(&head).unwrap_or_default();
            let nro_reqtype = head.nro_reqtype;
            total += HEAD;
            self.at.push(at);
            self.options.push(ReqOption { nro_reqtype, nro_status: 0, body: vec![] });
            let index = self.options.len() - 1;
            if nro_reqtype == 0 {
                self.options[index].nro_status = Errno::EINVAL.0 as u32;
                return fail(Errno::EINVAL);
            }
            if nro_reqtype < NETMAP_REQ_OPT_MAX {
                let twin = self.options[..index].iter().position(|o| o.nro_reqtype == nro_reqtype);
                if let Some(twin) = twin {
                    self.options[twin].nro_status = Errno::EINVAL.0 as u32;
                    self.options[index].nro_status = Errno::EINVAL.0 as u32;
                    return fail(Errno::EINVAL);
                }
                if head.nro_size > NETMAP_REQ_MAXSIZE as u64 {
                    return fail(Errno::EMSGSIZE);
                }
                let len = option_size(nro_reqtype, head.nro_size) - HEAD;
                total += len;
                scratch += len;
                if total > NETMAP_REQ_MAXSIZE || scratch > SCRATCH {
                    return fail(Errno::EMSGSIZE);
                }
                let mut body = vec![0; len];
                if let Err(errno) = memory.read(at.wrapping_add(HEAD as u64), &mut body) {
                    return fail(errno);
                }
                self.options[index].body = body;
            }
            at = head.nro_next;
        }
        Ok(())
    }

    fn write_statuses(&self, memory: &impl UserMemory) -> Result<(), Errno> {
        for (at, option) in self.at.iter().zip(&self.options) {
            memory.write(at.wrapping_add(STATUS_OFS), option.nro_status.as_bytes())?;
        }
        Ok(())
    }

    /// Writes back what came of the request: the body if it succeeded, every status, the bodies of options that were served.
    ///
    /// # Errors
    /// EFAULT ends it; what the request did stays done.
    pub fn write(&self, header: &nmreq_header, success: bool, memory: &impl UserMemory) -> Result<(), Errno> {
        if success && !self.body.is_empty() {
            memory.write(header.nr_body, &self.body)?;
        }
        for (at, option) in self.at.iter().zip(&self.options) {
            memory.write(at.wrapping_add(STATUS_OFS), option.nro_status.as_bytes())?;
            if success && option.nro_status == 0 && !option.body.is_empty() {
                memory.write(at.wrapping_add(HEAD as u64), &option.body)?;
            }
        }
        Ok(())
    }
}

/// The name, with its end made sure of.
pub(super) fn name_of(header: &mut nmreq_header) -> Result<String, Errno> {
    header.nr_name[NETMAP_REQ_IFNAMSIZ - 1] = 0;
    let name = std::str::from_utf8(ringway_abi::c_name(&header.nr_name));
    name.map(str::to_owned).map_err(|_| Errno::EINVAL)
}

#[cfg(test)]
mod tests;
