//! The two protocols that shared words speak: who sleeps, and who holds a lock.
//!
//! They stand here, apart from the memory that they lie in, so that loom can check them
//! (`crates/os/tests/loom`).
//!
//! **Sleep and wake.** One word a side: 0 when nobody sleeps, else the smallest number of slots waited for. The
//! sleeper announces, then looks once more at the cursor, then sleeps. The waker publishes the cursor, then
//! looks at the word. All four accesses are sequentially consistent, so one of the two sees the other: a wake-up
//! cannot be lost. The waker exchanges the word for 0 and rings; whoever wakes looks, and announces
//! itself anew if need be, so a dead sleeper costs one needless ring.
//!
//! **Lock.** A word holds the number of the attachment that holds it, 0 when free. It is tried, never waited for in here.
//! The broker may break the lock of a dead holder: therefore unlocking compares, and a holder that lost its lock learns it. From a living
//! one it takes nothing: it *claims* the lock, and who unlocks it then hands it over. So nobody else has it in between, and
//! what the holder did, the broker sees.

use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// The number that the broker holds locks under; attachments have higher ones.
pub const BROKER: u32 = 1;
/// In the word of a lock: the broker has it next. No number of a holder has this bit.
const CLAIMED: u32 = 1 << 31;

/// Who sleeps on a ring, and for how many slots.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct SleepWord(AtomicU32);

impl SleepWord {
    /// A word on which nobody sleeps.
    #[must_use]
    pub fn new() -> Self {
        SleepWord(AtomicU32::new(0))
    }

    /// Sleeper: says that it will sleep until `threshold` slots (at least 1) are there.
    /// It must look at the cursor again after this, with [`Cursor::load_after_announce`].
    pub fn announce(&self, threshold: u32) {
        let wanted = threshold.max(1);
        let mut seen = self.0.load(Ordering::Relaxed);
        loop {
            let next = if seen == 0 { wanted } else { seen.min(wanted) };
            // SeqCst: pairs with the publishing exchange and the load in `take`.
            match self.0.compare_exchange_weak(seen, next, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// Waker, after [`Cursor::publish`]: true if somebody sleeps for no more than `available` slots. The
    /// announcement is then consumed, and the caller must ring the doorbell.
    #[inline]
    pub fn take(&self, available: u32) -> bool {
        // SeqCst: pairs with `announce`; ordered after the publishing exchange.
        let wanted = self.0.load(Ordering::SeqCst);
        if wanted == 0 || wanted > available {
            return false;
        }
        self.take_slow()
    }

    #[cold]
    fn take_slow(&self) -> bool {
        self.0.swap(0, Ordering::SeqCst) != 0
    }

    /// Waker that must be heard whatever the threshold: a port goes away, an error.
    pub fn take_any(&self) -> bool {
        self.take_slow()
    }
}

/// A ring position that one side publishes and the other reads.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct Cursor(AtomicU32);

impl Cursor {
    /// A cursor at `value`.
    #[must_use]
    pub fn new(value: u32) -> Self {
        Cursor(AtomicU32::new(value))
    }

    /// Reader: what lies before the cursor is visible. Acquire pairs with the release half of `publish`.
    #[inline]
    pub fn load(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    /// Sleeper, after [`SleepWord::announce`]: a look that cannot miss what a waker published before it looked at
    /// the sleep word.
    #[inline]
    pub fn load_after_announce(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }

    /// The only writer: publishes `next`. An exchange, since the look at the sleep word that follows must not
    /// overtake it.
    #[inline]
    pub fn publish(&self, next: u32) {
        self.0.swap(next, Ordering::SeqCst);
    }

    /// One of several writers, under a lock that may have been taken away: publishes `next` if the cursor is still
    /// at `expected`. False: the lock was lost, nothing was published.
    #[inline]
    pub fn publish_from(&self, expected: u32, next: u32) -> bool {
        self.0.compare_exchange(expected, next, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    /// Sets the cursor where no sleeper is concerned. Release: what lies before it is visible.
    pub fn set(&self, value: u32) {
        self.0.store(value, Ordering::Release);
    }
}

/// A lock that names its holder.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct LockWord(AtomicU32);

impl LockWord {
    /// A free lock.
    #[must_use]
    pub fn new() -> Self {
        LockWord(AtomicU32::new(0))
    }

    /// Takes the lock for `me` (not 0).
    ///
    /// # Errors
    /// The number of the holder if it is taken.
    #[inline]
    pub fn try_lock(&self, me: u32) -> Result<(), u32> {
        // Acquire: pairs with the release of `unlock` and `steal`.
        let done = self.0.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed);
        done.map(|_| ()).map_err(|word| word & !CLAIMED)
    }

    /// Gives the lock back. False: the broker has it now, by this or already before.
    #[inline]
    pub fn unlock(&self, me: u32) -> bool {
        match self.0.compare_exchange(me, 0, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => true,
            Err(word) => self.hand_over(me, word),
        }
    }

    /// The word was `word` when `me` unlocked.
    #[cold]
    fn hand_over(&self, me: u32, mut word: u32) -> bool {
        loop {
            let next = match word {
                w if w == me | CLAIMED => BROKER,
                // The claim was withdrawn meanwhile.
                w if w == me => 0,
                _ => return false,
            };
            // Release: the broker sees what we did.
            match self.0.compare_exchange(word, next, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return next == 0,
                Err(now) => word = now,
            }
        }
    }

    /// Broker: takes the lock from `holder`, which is dead (0: from nobody), claimed or not. False: somebody else holds it now.
    pub fn steal(&self, holder: u32, me: u32) -> bool {
        let word = self.0.load(Ordering::Relaxed);
        word & !CLAIMED == holder
            && self.0.compare_exchange(word, me, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Broker: takes the lock if it is free, else sees to it that its holder hands it over. True: it is the broker's, with all
    /// that was done under it. To be called again to learn that.
    pub fn claim(&self) -> bool {
        // Acquire: pairs with the release of who unlocked, or handed over.
        let mut word = self.0.load(Ordering::Acquire);
        loop {
            let next = match word {
                0 => BROKER,
                BROKER => return true,
                w if w & CLAIMED != 0 => return false,
                w => w | CLAIMED,
            };
            match self.0.compare_exchange(word, next, Ordering::Acquire, Ordering::Acquire) {
                Ok(_) => return next == BROKER,
                Err(now) => word = now,
            }
        }
    }

    /// Broker: gives the lock back, or up the claim to it.
    pub fn withdraw(&self) {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let next = match word {
                BROKER => 0,
                w if w & CLAIMED != 0 => w & !CLAIMED,
                _ => return,
            };
            match self.0.compare_exchange(word, next, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }

    /// True if the broker waits for its holder to unlock it.
    #[inline]
    pub fn is_claimed(&self) -> bool {
        self.0.load(Ordering::Relaxed) & CLAIMED != 0
    }

    /// Who holds it; 0 when free.
    #[inline]
    pub fn holder(&self) -> u32 {
        self.0.load(Ordering::Relaxed) & !CLAIMED
    }
}

/// Counter with one writer at a time (under a lock): no locked instruction.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the holder of the ring's lock may call it.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets it (repair).
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }
}
