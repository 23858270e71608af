//! The null port: holds a region, moves nothing. Also the template of a driver.
//!
//! Source: semantics.md 23; `sys/dev/netmap/netmap_null.c`.

use super::{RingDriver, SyncError};
use crate::kring::{Kring, RingHandle};

/// TX accepts and never sends, RX never receives; both succeed.
#[derive(Debug)]
pub struct Null;

impl RingDriver for Null {
    fn sync(&mut self, _kring: &mut Kring<'_>) -> Result<(), SyncError> {
        Ok(())
    }

    fn moved_since(&self, _handle: &RingHandle, _wanted: u32) -> bool {
        false
    }
}
