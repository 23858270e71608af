//! CSB mode and the sync loop: NETMAP_REQ_OPT_CSB, CSB_ENABLE, SYNC_KLOOP_START, SYNC_KLOOP_STOP. Source: abi.md 12.
//!
//! The loop runs in the thread that asks for it; the arrays are the program's, at addresses that mean something in this process, and in
//! children forked later.

use core::ffi::c_int;
use core::sync::atomic::Ordering::Relaxed;
use ringway::raw::{Bound, CsbArray, ReqOption};
use ringway::{Csb, LoopConfig, MAX_SLEEP, RingEvents};
use ringway_abi::{
    CSB_ALIGN, Errno, NETMAP_REQ_OPT_CSB, NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS, NETMAP_REQ_OPT_SYNC_KLOOP_MODE,
    NM_OPT_SYNC_KLOOP_DIRECT_RX, NM_OPT_SYNC_KLOOP_DIRECT_TX, nmreq_sync_kloop_start,
};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use zerocopy::FromBytes;

use crate::options::{Opt, Options};
use crate::ranges;
use crate::table::{Desc, borrow, lock};

/// Entries that a CSB can have: more rings than a descriptor can bind.
const MAX_ENTRIES: usize = ringway_abi::wire::MAX_GRANT_RINGS;

/// The addresses of an option.
#[derive(Clone, Copy, Debug)]
struct Arrays {
    app: u64,
    kern: u64,
}

impl Arrays {
    fn of(option: &Opt) -> Option<Self> {
        let word = |at: usize| option.body.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes);
        Some(Arrays { app: word(0)?, kern: word(8)? })
    }

    /// What lies there, as far as the kernel says.
    fn look(self) -> [CsbArray; 2] {
        [self.app, self.kern].map(|at| {
            if !at.is_multiple_of(CSB_ALIGN) {
                return CsbArray::Misaligned;
            }
            let bytes = ranges::writable_bytes(at, MAX_ENTRIES as u64 * CSB_ALIGN);
            CsbArray::Entries((bytes / CSB_ALIGN) as u32)
        })
    }

    /// For `rings` rings, that are there.
    fn csb(self, rings: usize) -> Option<Csb> {
        let [app, kern] = [self.app, self.kern].map(|at| core::ptr::with_exposed_provenance_mut(at as usize));
        // SAFETY: `look` found memory for so many entries, which stays while a loop runs, and that the program shares with the loop by
        // atomic accesses (C contract 1).
        unsafe { Csb::from_raw(app, kern, rings) }
    }
}

/// The CSB option of a REGISTER, as it goes to the registry: how much is there in place of where.
pub fn to_request(option: &Opt) -> ReqOption {
    match Arrays::of(option) {
        Some(arrays) => {
            let [app, kern] = arrays.look();
            ReqOption::csb(app, kern)
        }
        None => option.to_request(),
    }
}

/// Enters CSB mode after a REGISTER whose option was served.
pub fn enter(desc: &Desc, options: &Options) -> Result<(), Errno> {
    let option = options.0.iter().find(|o| o.nro_reqtype == NETMAP_REQ_OPT_CSB);
    match (option.and_then(Arrays::of), desc.known()) {
        (Some(arrays), Some(bound)) => enter_with(desc, bound, arrays),
        _ => Ok(()),
    }
}

fn enter_with(desc: &Desc, bound: &Bound, arrays: Arrays) -> Result<(), Errno> {
    let rings = bound.csb_rings();
    if rings == 0 {
        return Ok(());
    }
    let csb = Arc::new(arrays.csb(rings).ok_or(Errno::EINVAL)?);
    let mut own = lock(&desc.csb);
    bound.enter_csb(&csb).map_err(|e| e.errno())?;
    *own = Some(csb);
    Ok(())
}

/// CSB_ENABLE.
pub fn enable(desc: &Desc, bound: Option<&Bound>, options: &mut Options) -> Result<(), Errno> {
    let option = options.0.iter_mut().find(|o| o.nro_reqtype == NETMAP_REQ_OPT_CSB).ok_or(Errno::EINVAL)?;
    let enter = |arrays: Arrays| match bound {
        None => Ok(()),
        Some(bound) => {
            let [app, kern] = arrays.look();
            bound.check_csb(app, kern)?;
            enter_with(desc, bound, arrays)
        }
    };
    let result = Arrays::of(option).ok_or(Errno::EINVAL).and_then(enter);
    option.status = result.err().map_or(0, |e| e.0 as u32);
    result
}

/// SYNC_KLOOP_STOP.
pub fn stop(bound: Option<&Bound>) -> Result<(), Errno> {
    bound.ok_or(Errno::ENXIO)?.stop_loop().map_err(|e| e.errno())
}

/// SYNC_KLOOP_START: returns when the loop has ended.
pub fn start(desc: &Desc, bound: Option<&Bound>, body: &[u8], options: &mut Options) -> Result<(), Errno> {
    let req = nmreq_sync_kloop_start::read_from_bytes(body).map_err(|_| Errno::EINVAL)?;
    let nap = Duration::from_micros(req.sleep_us.into());
    if nap > MAX_SLEEP {
        return Err(Errno::EINVAL);
    }
    let bound = bound.filter(|b| b.is_alive()).ok_or(Errno::ENXIO)?;
    let csb = lock(&desc.csb).clone().filter(|_| bound.in_csb_mode()).ok_or(Errno::EINVAL)?;
    let _running = Here::new(desc);
    // From here on a stop that came before ends with this.
    let running = bound.begin_loop().map_err(|e| e.errno())?;
    let mut config = LoopConfig { sleep: nap, ..LoopConfig::default() };
    if let Some(option) = find(options, NETMAP_REQ_OPT_SYNC_KLOOP_MODE) {
        settle(option, |body| mode(body, &mut config))?;
    }
    if let Some(option) = find(options, NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS) {
        settle(option, |body| events(body, bound.csb_rings(), &mut config))?;
    }
    running.run(&csb, config).map_err(|e| e.errno())
}

fn find(options: &mut Options, nro_reqtype: u32) -> Option<&mut Opt> {
    options.0.iter_mut().find(|o| o.nro_reqtype == nro_reqtype)
}

/// Serves an option: its status is what came of it.
fn settle(option: &mut Opt, serve: impl FnOnce(&[u8]) -> Result<(), Errno>) -> Result<(), Errno> {
    let result = serve(&option.body);
    option.status = result.err().map_or(0, |e| e.0 as u32);
    result
}

fn mode(body: &[u8], config: &mut LoopConfig) -> Result<(), Errno> {
    let bits = body.first_chunk().map(|b| u32::from_ne_bytes(*b)).ok_or(Errno::EINVAL)?;
    if bits & !(NM_OPT_SYNC_KLOOP_DIRECT_TX | NM_OPT_SYNC_KLOOP_DIRECT_RX) != 0 {
        return Err(Errno::EINVAL);
    }
    config.direct_tx = bits & NM_OPT_SYNC_KLOOP_DIRECT_TX != 0;
    config.direct_rx = bits & NM_OPT_SYNC_KLOOP_DIRECT_RX != 0;
    Ok(())
}

fn events(body: &[u8], rings: usize, config: &mut LoopConfig) -> Result<(), Errno> {
    let (pairs, rest) = body.as_chunks::<8>();
    if pairs.len() != rings || !rest.is_empty() {
        return Err(Errno::EINVAL);
    }
    let pairs: Vec<[c_int; 2]> = pairs
        .iter()
        .map(|p| [[p[0], p[1], p[2], p[3]], [p[4], p[5], p[6], p[7]]].map(c_int::from_ne_bytes))
        .collect();
    if (config.direct_tx || config.direct_rx) && pairs.iter().any(|[kick, _]| *kick < 0) {
        return Err(Errno::EINVAL);
    }
    for [kick, notify] in pairs {
        config.events.push(RingEvents { kick: event(kick)?, notify: event(notify)? });
    }
    Ok(())
}

/// A copy of an eventfd of the program, which may close it meanwhile. None for a negative number.
fn event(fd: c_int) -> Result<Option<OwnedFd>, Errno> {
    if fd < 0 {
        return Ok(None);
    }
    let errno = |e: std::io::Error| Errno(e.raw_os_error().unwrap_or(Errno::EBADF.0));
    ringway_os::event::check_eventfd(borrow(fd)).map_err(errno)?;
    borrow(fd).try_clone_to_owned().map(ringway_os::place::keep).map(Some).map_err(errno)
}

/// A loop runs in this process: a close of the last number of its descriptor ends it.
struct Here<'d>(&'d Desc);

impl<'d> Here<'d> {
    fn new(desc: &'d Desc) -> Self {
        desc.loops.fetch_add(1, Relaxed);
        Here(desc)
    }
}

impl Drop for Here<'_> {
    fn drop(&mut self) {
        self.0.loops.fetch_sub(1, Relaxed);
    }
}
