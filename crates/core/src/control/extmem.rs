//! The EXTMEM option: a region in memory that the client brings itself.
//!
//! What is mapped here is never a client's file as such: the library there has moved the memory into a memfd that nobody can shrink, and put
//! that in the place of what the program had. The memfd comes with the request ([`Registry::offer`]), with what tells the
//! program's pages from others.
//!
//! Source: abi.md 9.12, semantics.md 13.

use super::regions::no_memory;
use super::{Asker, ControlError, RegionEntry, RegionId, Registry, ReqOption};
use crate::layout::{PoolWish, RegionWish};
use crate::pool::{Region, Shm};
use ringway_abi::{Errno, NETMAP_REQ_OPT_EXTMEM, nmreq_opt_extmem, nmreq_option, nmreq_pools_info};
use ringway_os::mem::Memfd;
use ringway_os::sys::file_id;
use std::os::fd::AsFd;
use zerocopy::{FromBytes, IntoBytes};

const HEAD_BYTES: usize = size_of::<nmreq_option>();

/// What tells pages from others, as long as somebody uses them: a part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PagesKey {
    /// Device and inode.
    pub file: (u64, u64),
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// Memory for the EXTMEM option of the request under way.
#[derive(Debug)]
pub struct Offer {
    /// The memory, which nobody can shrink or grow.
    pub memfd: Memfd,
    /// Which pages of the program it stands for; None: nobody else can have them.
    pub pages: Option<PagesKey>,
}

impl ReqOption {
    /// EXTMEM. Of the option's head only the type counts. After the request `nro_usrptr` is the id of the region that this memory is; the
    /// port may have another.
    #[must_use]
    pub fn extmem(o: &nmreq_opt_extmem) -> Self {
        let body = o.as_bytes()[HEAD_BYTES..].to_vec();
        ReqOption { nro_reqtype: NETMAP_REQ_OPT_EXTMEM, nro_status: 0, body }
    }

    /// The option, if it is EXTMEM.
    #[must_use]
    pub fn as_extmem(&self) -> Option<nmreq_opt_extmem> {
        let bytes = [&[0; HEAD_BYTES][..], &self.body].concat();
        nmreq_opt_extmem::read_from_bytes(&bytes).ok().filter(|_| self.nro_reqtype == NETMAP_REQ_OPT_EXTMEM)
    }
}

/// Zeros replaced by what is used then.
fn with_defaults(asked: &nmreq_pools_info, default: &RegionWish) -> nmreq_pools_info {
    let or = |asked: u32, default: u32| if asked == 0 { default } else { asked };
    nmreq_pools_info {
        nr_if_pool_objtotal: or(asked.nr_if_pool_objtotal, default.ifs.objtotal),
        nr_if_pool_objsize: or(asked.nr_if_pool_objsize, default.ifs.objsize),
        nr_ring_pool_objtotal: or(asked.nr_ring_pool_objtotal, default.rings.objtotal),
        nr_ring_pool_objsize: or(asked.nr_ring_pool_objsize, default.rings.objsize),
        nr_buf_pool_objtotal: or(asked.nr_buf_pool_objtotal, default.bufs.objtotal),
        nr_buf_pool_objsize: or(asked.nr_buf_pool_objsize, default.bufs.objsize),
        ..*asked
    }
}

fn wish(info: &nmreq_pools_info) -> RegionWish {
    let pool = |objsize, objtotal| PoolWish { objsize, objtotal };
    RegionWish {
        ifs: pool(info.nr_if_pool_objsize, info.nr_if_pool_objtotal),
        rings: pool(info.nr_ring_pool_objsize, info.nr_ring_pool_objtotal),
        bufs: pool(info.nr_buf_pool_objsize, info.nr_buf_pool_objtotal),
    }
}

impl Registry {
    /// The memory that comes with the next request; None: none does.
    pub fn offer(&mut self, offer: Option<Offer>) {
        self.offer = offer;
    }

    /// The EXTMEM option, if there is one that memory came for: the region that it names, which may have no port yet.
    pub(super) fn apply_extmem(
        &mut self,
        who: Asker,
        options: &mut [ReqOption],
    ) -> Result<Option<RegionId>, ControlError> {
        let Some(offer) = self.offer.take() else { return Ok(None) };
        let Some(option) = options.iter_mut().find(|o| o.nro_reqtype == NETMAP_REQ_OPT_EXTMEM) else {
            return Ok(None);
        };
        let Some(asked) = option.as_extmem() else {
            return Err(ControlError::new(Errno::EINVAL, "the option has another size than its type"));
        };
        match self.region_in(who, offer, &asked.nro_info) {
            Ok((id, mem_id, info)) => {
                let answer = nmreq_opt_extmem { nro_usrptr: mem_id.into(), nro_info: info, ..asked };
                *option = ReqOption::extmem(&answer);
                Ok(Some(id))
            }
            Err(e) => {
                option.answer(e.errno);
                Err(e)
            }
        }
    }

    fn region_in(
        &mut self,
        who: Asker,
        offer: Offer,
        asked: &nmreq_pools_info,
    ) -> Result<(RegionId, u16, nmreq_pools_info), ControlError> {
        let len = asked.nr_memsize;
        let is_it = |r: &RegionEntry| {
            let Some(key) = r.pages.filter(|k| r.owner == who.uid && k.len == len) else { return false };
            let own = || Some(PagesKey { file: file_id(r.region.shm.memfd.as_fd())?, offset: 0, len });
            offer.pages.is_some_and(|p| p == key || Some(p) == own())
        };
        if let Some((id, entry)) = self.regions.iter().find(|(_, r)| is_it(r)) {
            return Ok((*id, entry.mem_id, *asked));
        }
        let info = with_defaults(asked, &self.tunables.private_region());
        let layout = wish(&info).lay_out_in(len).ok_or_else(|| {
            let text = format!(
                "memory of {len} bytes is too small for the pools asked for (or an object's size is no multiple of 64)"
            );
            ControlError::new(Errno::ENOMEM, text)
        })?;
        let file = file_id(offer.memfd.as_fd()).unwrap_or_default();
        let region = Shm::from_memfd(offer.memfd)
            .and_then(|shm| Region::over(shm, layout, true))
            .map_err(|e| no_memory("a region in the program's memory", &e))?;
        let pages = offer.pages.unwrap_or(PagesKey { file, offset: 0, len });
        let mem_id = self.next_mem_id();
        self.last_mem_id = mem_id;
        let id = RegionId(self.fresh_id());
        let entry = RegionEntry { mem_id, owner: who.uid, region, ports: 0, pages: Some(pages) };
        self.regions.insert(id, entry);
        Ok((id, mem_id, info))
    }
}
