//! What a user opens.

use crate::builder::PortBuilder;
use crate::embedded::Netmap;
use crate::error::{OpenError, SyncError};
use crate::extra::{ExtraBuf, Extras, Lender};
use crate::rx::RxRing;
use crate::session::{Backend, Link};
use crate::tx::TxRing;
use crate::view::{Fixed, View, settle};
use crate::wait::Waiter;
use ringway_abi::{Errno, NR_EXCLUSIVE};
use ringway_core::adapter::SyncFlags;
use ringway_core::layout::{Dir, Geometry, region_bufs};
use ringway_core::lease::{Endpoint, Grant, GrantKind};
use ringway_core::stats::Counters;
use ringway_os::bytes::Bufs;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

static NEXT_PORT: AtomicU64 = AtomicU64::new(1);

/// An open port: rings of packet slots, bound to this program until it is dropped.
///
/// It can be sent to another thread; [`Port::rings`] shares its rings out to several. Dropping it neither sends what was not synced
/// nor waits.
pub struct Port {
    pub(crate) end: Endpoint,
    pub(crate) link: Link,
    pub(crate) waiter: Waiter,
    extras: std::sync::Arc<Extras>,
    bufs: Bufs,
    fixed: Fixed,
    netmap: Netmap,
}

/// What was counted on a port's bound rings, by whoever synced them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Sum over the TX rings: packets taken from them, delivered, dropped by reason.
    pub tx: Counters,
    /// Sum over the RX rings: packets received.
    pub rx: Counters,
}

impl Port {
    /// Opens a port with the broker of this machine (started if none runs), exclusively, as its name says: `vale0:a`,
    /// `netmap:eth0`, `netmap:eth0-2`, `netmap:x{1`, `vale0:a@conf:slots=4096`.
    ///
    /// # Errors
    /// As [`PortBuilder::open`].
    pub fn open(name: &str) -> Result<Self, OpenError> {
        Netmap::broker().open(name)
    }

    /// Describes a port to open with the broker.
    pub fn builder(name: &str) -> PortBuilder {
        Netmap::broker().builder(name)
    }

    pub(crate) fn new(netmap: Netmap, backend: Box<dyn Backend>, grant: Grant) -> Result<Self, OpenError> {
        let bad = || OpenError::refused(Errno::EPROTO, "the memory granted does not hold the rings granted");
        let bufs = region_bufs(&grant.region.map, &grant.layout).filter(|b| b.payload(0).is_some());
        let bufs = bufs.ok_or_else(bad)?;
        let fixed =
            Fixed { port: NEXT_PORT.fetch_add(1, Relaxed), exclusive: grant.nr_flags & NR_EXCLUSIVE != 0 };
        let extras = Extras::take_over(&grant, &bufs, fixed.port);
        let me = backend.attachment().unwrap_or_default();
        let end = Endpoint::new(grant, me).map_err(|_| bad())?;
        let link = Link::new(backend, end.holds().clone());
        let waiter = Waiter::new(&end, &link, me).map_err(|e| OpenError::Io {
            errno: Errno(e.raw_os_error().unwrap_or(Errno::EIO.0)),
            message: format!("cannot make an epoll for the port: {e}"),
        })?;
        Ok(Port { end, link, waiter, extras, bufs, fixed, netmap })
    }

    fn grant(&self) -> &Grant {
        self.end.grant()
    }

    /// Full name of the port, without `netmap:`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.grant().name
    }

    /// Where it was opened.
    #[must_use]
    pub fn netmap(&self) -> &Netmap {
        &self.netmap
    }

    /// Id of its region. Ports with one id can swap buffers.
    #[must_use]
    pub fn mem_id(&self) -> u16 {
        self.grant().mem_id
    }

    /// Rings and slots of the whole port, bound here or not.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.grant().geometry
    }

    /// Bytes in a buffer: the longest packet in one slot.
    #[must_use]
    pub fn buf_size(&self) -> usize {
        self.bufs.buf_size() as usize
    }

    /// True if nobody else can bind these rings.
    #[must_use]
    pub fn is_exclusive(&self) -> bool {
        self.fixed.exclusive
    }

    /// TX rings bound here.
    #[must_use]
    pub fn tx_rings(&self) -> usize {
        self.end.bound(Dir::Tx).len()
    }

    /// RX rings bound here.
    #[must_use]
    pub fn rx_rings(&self) -> usize {
        self.end.bound(Dir::Rx).len()
    }

    /// Numbers, in the port, of the rings bound here.
    #[must_use]
    pub fn bound_rings(&self, dir: Dir) -> Range<u16> {
        match dir {
            Dir::Tx => self.grant().tx.range(),
            Dir::Rx => self.grant().rx.range(),
        }
    }

    /// The `i`th of the TX rings bound here, if there are so many.
    #[must_use]
    #[inline]
    pub fn get_tx(&mut self, i: usize) -> Option<TxRing<'_>> {
        self.let_go_if_dead();
        let (context, tx, _) = self.end.split();
        Some(TxRing(View::new(tx.get_mut(i)?.parts(), context, &self.link, self.fixed)))
    }

    /// The `i`th of the RX rings bound here, if there are so many.
    #[must_use]
    #[inline]
    pub fn get_rx(&mut self, i: usize) -> Option<RxRing<'_>> {
        self.let_go_if_dead();
        let (context, _, rx) = self.end.split();
        Some(RxRing(View::new(rx.get_mut(i)?.parts(), context, &self.link, self.fixed)))
    }

    /// The `i`th of the TX rings bound here.
    ///
    /// # Panics
    /// If there are not so many ([`Port::tx_rings`]), as indexing does.
    #[must_use]
    #[inline]
    pub fn tx(&mut self, i: usize) -> TxRing<'_> {
        match self.get_tx(i) {
            Some(ring) => ring,
            None => no_ring("TX", i),
        }
    }

    /// The `i`th of the RX rings bound here.
    ///
    /// # Panics
    /// If there are not so many ([`Port::rx_rings`]), as indexing does.
    #[must_use]
    #[inline]
    pub fn rx(&mut self, i: usize) -> RxRing<'_> {
        match self.get_rx(i) {
            Some(ring) => ring,
            None => no_ring("RX", i),
        }
    }

    /// All rings bound here at a time. They may go to several threads (`std::thread::scope`); each syncs its own.
    #[must_use]
    pub fn rings(&mut self) -> (Vec<TxRing<'_>>, Vec<RxRing<'_>>) {
        self.let_go_if_dead();
        let (context, tx, rx) = self.end.split();
        let (link, fixed) = (&self.link, self.fixed);
        let tx = tx.iter_mut().map(|r| TxRing(View::new(r.parts(), context, link, fixed))).collect();
        let rx = rx.iter_mut().map(|r| RxRing(View::new(r.parts(), context, link, fixed))).collect();
        (tx, rx)
    }

    /// txsync of all TX rings: sends what was advanced over, in this thread; takes completed slots back. Never blocks.
    ///
    /// Source: `NIOCTXSYNC`; semantics.md 4.
    ///
    /// # Errors
    /// The first [`SyncError`]; the other rings are synced all the same.
    #[inline]
    pub fn txsync(&mut self) -> Result<(), SyncError> {
        self.sync(Dir::Tx, SyncFlags::FORCE)
    }

    /// rxsync of all RX rings: gives released slots back and takes in what has arrived, in this thread. Never blocks.
    ///
    /// Source: `NIOCRXSYNC`; semantics.md 4.
    ///
    /// # Errors
    /// The first [`SyncError`]; the other rings are synced all the same.
    #[inline]
    pub fn rxsync(&mut self) -> Result<(), SyncError> {
        self.sync(Dir::Rx, SyncFlags::FORCE | SyncFlags::TIMESTAMP)
    }

    /// Sends like [`Port::txsync`], but where a worker of the broker does the work, does not wait until it is done: packets may
    /// arrive later than this returns.
    ///
    /// # Errors
    /// As [`Port::txsync`].
    #[inline]
    pub fn post(&mut self) -> Result<(), SyncError> {
        self.sync(Dir::Tx, SyncFlags::FORCE | SyncFlags::POST)
    }

    #[inline]
    fn sync(&mut self, dir: Dir, flags: SyncFlags) -> Result<(), SyncError> {
        let me = match self.link.enter() {
            Ok(me) => me,
            Err(e) => {
                self.let_go_if_dead();
                return Err(e);
            }
        };
        let (context, tx, rx) = self.end.split();
        let rings = if dir == Dir::Tx { tx } else { rx };
        let mut result = Ok(());
        for ring in rings {
            let parts = ring.parts();
            let outcome = context.sync(parts.handle, parts.driver, me, flags, &mut &self.link);
            result = result.and(settle(outcome, parts.handle, parts.index));
        }
        result
    }

    /// The broker is gone: the next one must find the queues of our interface free.
    #[inline]
    fn let_go_if_dead(&mut self) {
        if self.link.is_dead() {
            self.end.release_devices();
        }
    }

    /// How an interface is reached: `xdp native copy`, `af_packet` and the like. None for other ports.
    #[must_use]
    pub fn nic_path(&self) -> Option<&'static str> {
        match &self.grant().kind {
            GrantKind::Nic(nic) => Some(nic.path.name()),
            _ => None,
        }
    }

    /// What was counted on the rings bound here.
    #[must_use]
    pub fn counters(&self) -> PortCounters {
        let sum = |dir| {
            let mut sum = Counters::default();
            for ring in self.end.bound(dir) {
                sum.merge(&Counters::read(&ring.handle().shared.state));
            }
            sum
        };
        PortCounters { tx: sum(Dir::Tx), rx: sum(Dir::Rx) }
    }

    /// Takes one of the extra buffers that the port was opened with
    /// ([`extra_buffers`](PortBuilder::extra_buffers)); None if all are taken.
    #[must_use]
    pub fn take_extra(&self) -> Option<ExtraBuf> {
        self.extras.take()
    }

    /// Extra buffers that [`Port::take_extra`] can still give.
    #[must_use]
    pub fn extra_left(&self) -> usize {
        self.extras.idle()
    }
}

#[cold]
fn no_ring(dir: &str, i: usize) -> ! {
    panic!("{dir} ring {i} is not bound here");
}

impl Lender for Port {}
impl crate::extra::sealed::Lends for Port {
    fn lends(&self) -> (u64, &Bufs) {
        (self.fixed.port, &self.bufs)
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        // Before the binding goes (with `link`): the engine looks at the list then.
        self.extras.give_back(self.end.grant());
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tx, rx) = (self.bound_rings(Dir::Tx), self.bound_rings(Dir::Rx));
        write!(f, "Port({}, tx {tx:?}, rx {rx:?}, region {})", self.name(), self.mem_id())
    }
}
