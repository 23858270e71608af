//! Buffers that lie in no slot, and the exchange of buffers.
//!
//! A buffer has one owner: a slot, or an [`ExtraBuf`]. Ownership moves only by exchange, so none is lost or doubled. The buffers
//! granted to a port stay on its books here, wherever their `ExtraBuf`s are (leaked ones too), and go back when it closes.

use crate::error::SwapError;
use crate::view::View;
use ringway_abi::{FIRST_BUF_IDX, NS_BUF_CHANGED};
use ringway_core::lease::Grant;
use ringway_os::bytes::{Bufs, Payload};
use ringway_os::mem::SharedRef;
use ringway_os::ring::{IfHeader, Slot, SlotWord};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The extra buffers of a port.
#[derive(Debug)]
pub(crate) struct Extras {
    port: u64,
    bufs: Bufs,
    books: Mutex<Books>,
}

#[derive(Debug)]
struct Books {
    open: bool,
    /// Buffer of each entry; an `ExtraBuf` is the number of one.
    entries: Vec<u32>,
    /// Entries that no `ExtraBuf` stands for.
    idle: Vec<usize>,
}

impl Extras {
    /// Takes the list that the engine made over into our books. In shared memory it is empty from now on: a list whose links lie
    /// in buffers that we write would lead astray who walks it after we were killed.
    pub fn take_over(grant: &Grant, bufs: &Bufs, port: u64) -> Arc<Self> {
        let mut entries = vec![];
        if let Some(header) = if_header(grant) {
            let mut idx = header.ni_bufs_head.swap(0, Relaxed);
            while idx >= FIRST_BUF_IDX && entries.len() < grant.extra_bufs as usize {
                let Some(payload) = bufs.payload(idx) else { break };
                entries.push(idx);
                idx = payload.load_u32(0).unwrap_or(0);
            }
        }
        let idle = (0..entries.len()).rev().collect();
        let books = Mutex::new(Books { open: true, entries, idle });
        Arc::new(Extras { port, bufs: bufs.clone(), books })
    }

    /// For a port that somebody else opened, who has the buffers.
    pub fn none(bufs: &Bufs, port: u64) -> Arc<Self> {
        let books = Mutex::new(Books { open: true, entries: vec![], idle: vec![] });
        Arc::new(Extras { port, bufs: bufs.clone(), books })
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn take(self: &Arc<Self>) -> Option<ExtraBuf> {
        let entry = self.lock().idle.pop()?;
        Some(ExtraBuf { pool: self.clone(), entry })
    }

    pub fn idle(&self) -> usize {
        self.lock().idle.len()
    }

    /// The port closes: links all entries at `ni_bufs_head`, where the engine looks for them.
    pub fn give_back(&self, grant: &Grant) {
        let mut books = self.lock();
        books.open = false;
        books.idle.clear();
        let mut head = 0;
        for idx in books.entries.drain(..) {
            if let Some(payload) = self.bufs.payload(idx) {
                payload.store_u32(0, head);
                head = idx;
            }
        }
        if let Some(header) = if_header(grant) {
            header.ni_bufs_head.store(head, Relaxed);
        }
    }
}

fn if_header(grant: &Grant) -> Option<SharedRef<IfHeader>> {
    SharedRef::new(&grant.region.map, usize::try_from(grant.if_ofs).ok()?)
}

/// A buffer that lies in no slot. Dropping it makes it available to [`Port::take_extra`](crate::Port::take_extra) again.
///
/// Source: `ni_bufs_head` of `struct netmap_if`; semantics.md 12.
#[derive(Debug)]
pub struct ExtraBuf {
    pool: Arc<Extras>,
    entry: usize,
}

impl ExtraBuf {
    /// The whole buffer, lent through its port or one of that port's rings, so that it cannot be used when the port is closed. None
    /// for another port.
    #[must_use]
    pub fn payload<'a>(&'a self, lender: &'a impl Lender) -> Option<Payload<'a>> {
        let (port, bufs) = lender.lends();
        (port == self.pool.port).then(|| bufs.payload(self.buf_idx()?)).flatten()
    }

    /// Index of the buffer in the region; None when the port is closed.
    #[must_use]
    pub fn buf_idx(&self) -> Option<u32> {
        self.pool.lock().entries.get(self.entry).copied()
    }

    /// This buffer as a party of a [`swap`].
    pub fn place(&mut self) -> Place<'_> {
        Place(Inner::Extra(self))
    }
}

impl Drop for ExtraBuf {
    fn drop(&mut self) {
        let mut books = self.pool.lock();
        if books.open {
            books.idle.push(self.entry);
        }
    }
}

pub(crate) mod sealed {
    use super::Bufs;

    pub trait Lends {
        /// The port, and the buffers of its region.
        fn lends(&self) -> (u64, &Bufs);
    }
}

/// What lends the payload of a port's extra buffers: the port itself, and views of its rings.
pub trait Lender: sealed::Lends {}

/// A slot or an extra buffer: one party of a [`swap`].
#[derive(Debug)]
pub struct Place<'a>(Inner<'a>);

#[derive(Debug)]
enum Inner<'a> {
    Slot { slot: &'a Slot, bufs: &'a Bufs },
    Extra(&'a mut ExtraBuf),
}

impl<'a> Place<'a> {
    /// Exclusive borrow of the view: no payload of the ring is lent any more.
    pub(crate) fn slot(view: &'a mut View<'_>, k: u32) -> Result<Self, SwapError> {
        if !view.fixed.exclusive {
            return Err(SwapError::Shared);
        }
        let at = view.slot(k).ok_or(SwapError::NoSlot)?;
        Ok(Place(Inner::Slot { slot: at.slot, bufs: at.bufs }))
    }

    fn bufs(&self) -> &Bufs {
        match &self.0 {
            Inner::Slot { bufs, .. } => bufs,
            Inner::Extra(extra) => &extra.pool.bufs,
        }
    }
}

/// Exchanges the buffers of two slots, of a slot and an extra buffer, or of two extra buffers. Slots are marked `NS_BUF_CHANGED`;
/// their lengths and flags stay. Buffers move between any ports of one region; nothing is copied.
///
/// ```
/// # use ringway::{swap, Netmap};
/// # let netmap = Netmap::embedded();
/// let mut a = netmap.open("vale0:a")?;
/// let mut b = netmap.builder("vale1:b").share_memory_with(&a).open()?;
/// let (mut tx_a, mut tx_b) = (a.tx(0), b.tx(0));
/// let before = tx_a.slot(0).unwrap().buf_idx();
/// swap(tx_a.place(0)?, tx_b.place(7)?)?;
/// assert_eq!(tx_b.slot(7).unwrap().buf_idx(), before);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`SwapError`]; nothing is changed then.
pub fn swap(a: Place<'_>, b: Place<'_>) -> Result<(), SwapError> {
    if !a.bufs().same_as(b.bufs()) {
        return Err(SwapError::OtherRegion);
    }
    match (a.0, b.0) {
        (Inner::Slot { slot: a, .. }, Inner::Slot { slot: b, .. }) => {
            let (in_a, in_b) = (a.load(), b.load());
            put(a, in_b.buf_idx());
            put(b, in_a.buf_idx());
        }
        (Inner::Slot { slot, .. }, Inner::Extra(extra)) | (Inner::Extra(extra), Inner::Slot { slot, .. }) => {
            // Held until both are changed: the extra's port cannot close in between.
            let mut books = extra.pool.lock();
            let entry = books.entries.get_mut(extra.entry).ok_or(SwapError::NoSlot)?;
            let in_slot = slot.load().buf_idx();
            put(slot, *entry);
            *entry = in_slot;
        }
        (Inner::Extra(a), Inner::Extra(b)) => swap_extras(a, b)?,
    }
    Ok(())
}

fn put(slot: &Slot, buf_idx: u32) {
    let word = slot.load();
    slot.store(SlotWord::new(buf_idx, word.len(), word.flags() | NS_BUF_CHANGED));
}

fn swap_extras(a: &mut ExtraBuf, b: &mut ExtraBuf) -> Result<(), SwapError> {
    if Arc::ptr_eq(&a.pool, &b.pool) {
        let is_open = a.pool.lock().open;
        std::mem::swap(&mut a.entry, &mut b.entry);
        return if is_open { Ok(()) } else { Err(SwapError::NoSlot) };
    }
    // Always in the order of addresses, so that two threads cannot wait for each other.
    let swapped = Arc::as_ptr(&a.pool) > Arc::as_ptr(&b.pool);
    let (first, second) = if swapped { (b, a) } else { (a, b) };
    let (mut one, mut other) = (first.pool.lock(), second.pool.lock());
    let one = one.entries.get_mut(first.entry).ok_or(SwapError::NoSlot)?;
    let other = other.entries.get_mut(second.entry).ok_or(SwapError::NoSlot)?;
    std::mem::swap(one, other);
    Ok(())
}
