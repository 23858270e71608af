//! Atomics: the processor's, or loom's when models are checked (`--cfg loom`).

#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(loom)]
pub use loom_seq_cst::AtomicU32;

/// loom takes a sequentially consistent access for an acquire-release one, and so finds lost wake-ups where there are
/// none; what it does know are fences. So here two such accesses of a thread, one right after the other, have a fence between them: no
/// less than C++11 gives them (both stand, in this order, in the single order of all), and no more as soon as either
/// is weakened.
#[cfg(loom)]
mod loom_seq_cst {
    use loom::sync::atomic::{self, Ordering, fence};
    use std::cell::Cell;

    loom::thread_local! {
        static LAST_WAS_SEQ_CST: Cell<bool> = Cell::new(false);
    }

    fn before(order: Ordering) {
        let is_seq_cst = order == Ordering::SeqCst;
        if LAST_WAS_SEQ_CST.with(|last| last.replace(is_seq_cst)) && is_seq_cst {
            fence(Ordering::SeqCst);
        }
    }

    /// As `core::sync::atomic::AtomicU32`, as far as it is used.
    #[derive(Debug, Default)]
    pub struct AtomicU32(atomic::AtomicU32);

    impl AtomicU32 {
        /// Holds `value`.
        pub fn new(value: u32) -> Self {
            AtomicU32(atomic::AtomicU32::new(value))
        }

        /// Loads.
        pub fn load(&self, order: Ordering) -> u32 {
            before(order);
            self.0.load(order)
        }

        /// Stores.
        pub fn store(&self, value: u32, order: Ordering) {
            before(order);
            self.0.store(value, order);
        }

        /// Exchanges.
        pub fn swap(&self, value: u32, order: Ordering) -> u32 {
            before(order);
            self.0.swap(value, order)
        }

        /// Exchanges if equal.
        ///
        /// # Errors
        /// What was found instead.
        pub fn compare_exchange(
            &self,
            current: u32,
            new: u32,
            success: Ordering,
            failure: Ordering,
        ) -> Result<u32, u32> {
            before(success);
            self.0.compare_exchange(current, new, success, failure)
        }

        /// Exchanges if equal. It does not fail for nothing here: that only repeats the loop around it.
        ///
        /// # Errors
        /// What was found instead.
        pub fn compare_exchange_weak(
            &self,
            current: u32,
            new: u32,
            success: Ordering,
            failure: Ordering,
        ) -> Result<u32, u32> {
            self.compare_exchange(current, new, success, failure)
        }
    }
}
