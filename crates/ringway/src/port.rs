//! What a user opens.

use crate::bound::{Bound, Pass};
use crate::builder::PortBuilder;
use crate::embedded::Netmap;
use crate::error::{OpenError, SyncError};
use crate::extra::{ExtraBuf, Extras, Lender};
use crate::port_wait::Waiter;
use crate::raw::{self, Joined};
use crate::rx::RxRing;
use crate::session::Backend;
use crate::tx::TxRing;
use crate::view::{Fixed, View};
use ringway_abi::{Errno, NR_EXCLUSIVE};
use ringway_core::adapter::SyncFlags;
use ringway_core::layout::{Dir, Geometry, region_bufs};
use ringway_core::lease::{Grant, GrantKind};
use ringway_core::stats::Counters;
use ringway_os::bytes::Bufs;
use std::fmt;
use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

static NEXT_PORT: AtomicU64 = AtomicU64::new(1);

/// An open port: rings of packet slots, bound to this program until it is dropped.
///
/// It can be sent to another thread; [`Port::rings`] shares its rings out to several. Dropping it neither sends what was not synced
/// nor waits.
pub struct Port {
    pub(crate) bound: Bound,
    pub(crate) waiter: Waiter,
    extras: std::sync::Arc<Extras>,
    /// The attachment whose process has the extra buffers on its books: not a forked child.
    keeper: u32,
    bufs: Bufs,
    pub(crate) fixed: Fixed,
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

    /// Makes a port of a netmap descriptor that another process has sent (`SCM_RIGHTS`), or that this program began with (after exec). It goes
    /// on where the others are; they may go on too. If the descriptor was bound by another user, the broker moves the
    /// packets from now on.
    ///
    /// The binding counts as shared: its rings take no part in swaps, and extra buffers stay with whoever opened the port.
    ///
    /// ```no_run
    /// /// `fd` came by recvmsg, with the means of your choice.
    /// fn go_on(fd: std::os::fd::OwnedFd) -> Result<(), Box<dyn std::error::Error>> {
    ///     let mut port = ringway::Port::adopt(fd)?;
    ///     port.rxsync()?;
    ///     println!("{} packets are there", port.rx(0).len());
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// EBADF if the fd is no netmap descriptor; ENXIO if nothing is bound to it, or its broker is gone; EACCES if another user bound it, and
    /// the broker cannot serve such a port.
    pub fn adopt(descriptor: OwnedFd) -> Result<Self, OpenError> {
        match raw::join_owned(descriptor)? {
            Joined::Bound(bound) => Self::with(Netmap::broker(), *bound, false),
            Joined::Unbound => Err(OpenError::refused(Errno::ENXIO, "nothing is bound to the descriptor")),
            Joined::Foreign => Err(OpenError::refused(Errno::EBADF, "the fd is no netmap descriptor")),
        }
    }

    /// The netmap descriptor behind this port, to be sent to another process, which makes a port of it with [`Port::adopt`]. The binding ends
    /// when the last copy is closed, here and there: drop this port to hand it over. None for a port of an engine of this process.
    ///
    /// From now on the port counts as shared: its rings take no part in swaps. It is close-on-exec.
    ///
    /// A forked child needs none of this: it goes on with the copy of the port that it has.
    pub fn descriptor(&mut self) -> Option<BorrowedFd<'_>> {
        let fd = self.bound.link.hangup_fd()?;
        self.fixed.exclusive = false;
        Some(fd)
    }

    pub(crate) fn new(netmap: Netmap, backend: Box<dyn Backend>, grant: Grant) -> Result<Self, OpenError> {
        let exclusive = grant.nr_flags & NR_EXCLUSIVE != 0;
        let mut port = Self::with(netmap, Bound::new(backend, grant)?, exclusive)?;
        port.extras = Extras::take_over(port.bound.grant(), &port.bufs, port.fixed.port);
        port.keeper = port.bound.link.present_attachment();
        Ok(port)
    }

    fn with(netmap: Netmap, bound: Bound, exclusive: bool) -> Result<Self, OpenError> {
        let bad = || OpenError::refused(Errno::EPROTO, "the memory granted does not hold the rings granted");
        let bufs = region_bufs(&bound.grant().region.map, &bound.grant().layout);
        let bufs = bufs.filter(|b| b.payload(0).is_some()).ok_or_else(bad)?;
        let fixed = Fixed { port: NEXT_PORT.fetch_add(1, Relaxed), exclusive };
        let extras = Extras::none(&bufs, fixed.port);
        let waiter = Waiter::new(&bound, bound.link.present_attachment())
            .map_err(|e| OpenError::io("cannot make an epoll for the port", &e))?;
        Ok(Port { bound, waiter, extras, keeper: 0, bufs, fixed, netmap })
    }

    fn grant(&self) -> &Grant {
        self.bound.grant()
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

    /// True if nobody else has these rings: their buffers can be swapped. False for a port that was opened
    /// [`shared`](PortBuilder::shared), [adopted](Port::adopt), whose [descriptor](Port::descriptor) was asked for, or that a sync loop serves
    /// ([`Port::enter_csb`]).
    #[must_use]
    pub fn is_exclusive(&self) -> bool {
        self.fixed.exclusive
    }

    /// TX rings bound here.
    #[must_use]
    pub fn tx_rings(&self) -> usize {
        self.bound.end.bound(Dir::Tx).len()
    }

    /// RX rings bound here.
    #[must_use]
    pub fn rx_rings(&self) -> usize {
        self.bound.end.bound(Dir::Rx).len()
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
        let (context, tx, _) = self.bound.end.split();
        Some(TxRing(View::new(tx.get_mut(i)?.parts(), context, &self.bound.link, self.fixed)))
    }

    /// The `i`th of the RX rings bound here, if there are so many.
    #[must_use]
    #[inline]
    pub fn get_rx(&mut self, i: usize) -> Option<RxRing<'_>> {
        self.let_go_if_dead();
        let (context, _, rx) = self.bound.end.split();
        Some(RxRing(View::new(rx.get_mut(i)?.parts(), context, &self.bound.link, self.fixed)))
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
        let (context, tx, rx) = self.bound.end.split();
        let (link, fixed) = (&self.bound.link, self.fixed);
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
        self.sync(Dir::Tx, SyncFlags::empty())
    }

    /// rxsync of all RX rings: gives released slots back and takes in what has arrived, in this thread. Never blocks.
    ///
    /// Source: `NIOCRXSYNC`; semantics.md 4.
    ///
    /// # Errors
    /// The first [`SyncError`]; the other rings are synced all the same.
    #[inline]
    pub fn rxsync(&mut self) -> Result<(), SyncError> {
        self.sync(Dir::Rx, SyncFlags::TIMESTAMP)
    }

    /// Sends like [`Port::txsync`], but where a worker of the broker does the work, does not wait until it is done: packets may
    /// arrive later than this returns.
    ///
    /// # Errors
    /// As [`Port::txsync`].
    #[inline]
    pub fn post(&mut self) -> Result<(), SyncError> {
        self.sync(Dir::Tx, SyncFlags::POST)
    }

    #[inline]
    fn sync(&mut self, dir: Dir, flags: SyncFlags) -> Result<(), SyncError> {
        let me = match self.bound.link.enter() {
            Ok(me) => me,
            Err(e) => {
                self.let_go_if_dead();
                return Err(e);
            }
        };
        let (context, tx, rx) = self.bound.end.split();
        let rings = if dir == Dir::Tx { tx } else { rx };
        Pass { context, link: &self.bound.link, me }.sync_all(rings.iter_mut(), flags, |_| true)
    }

    /// The broker is gone: the next one must find the queues of our interface free.
    #[inline]
    fn let_go_if_dead(&mut self) {
        if self.bound.link.is_dead() {
            self.bound.end.release_devices();
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

    /// What was counted on the rings bound here, with what the kernel dropped before it reached them since the queue of the
    /// interface was opened.
    #[must_use]
    pub fn counters(&self) -> PortCounters {
        let sum = |dir| {
            let mut sum = Counters::default();
            for ring in self.bound.end.bound(dir) {
                sum.merge(&Counters::read(&ring.handle().shared.state));
                if let (GrantKind::Nic(nic), Dir::Rx) = (&self.grant().kind, dir) {
                    ring.add_kernel_drops(nic.path, &mut sum);
                }
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
        // Before the binding goes (with `bound`): the engine looks at the list then. A forked child's books are its parent's.
        if self.keeper == self.bound.link.present_attachment() {
            self.extras.give_back(self.bound.grant());
        }
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tx, rx) = (self.bound_rings(Dir::Tx), self.bound_rings(Dir::Rx));
        write!(f, "Port({}, tx {tx:?}, rx {rx:?}, region {})", self.name(), self.mem_id())
    }
}
