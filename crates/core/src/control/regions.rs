//! Regions: made for a port, shared by id, gone with the last port.

use super::{Asker, ControlError, RegionEntry, RegionId, Registry};
use crate::layout::{BadPool, RegionLayout, RegionWish};
use crate::pool::Region;
use ringway_abi::Errno;

/// The id of everybody's global region.
const GLOBAL_MEM_ID: u16 = 1;

impl Registry {
    /// The region that `who` calls `mem_id`. Others' regions are as if unknown.
    ///
    /// # Errors
    /// EINVAL if there is none.
    pub(super) fn find_region(&self, who: Asker, mem_id: u16) -> Result<RegionId, ControlError> {
        if mem_id == GLOBAL_MEM_ID
            && let Some(id) = self.globals.get(&who.uid)
        {
            return Ok(*id);
        }
        self.regions
            .iter()
            .find(|(_, r)| r.mem_id == mem_id && r.mem_id != GLOBAL_MEM_ID && who.may(r.owner))
            .map(|(id, _)| *id)
            .ok_or_else(|| {
                let text = format!("no memory region with id {mem_id}; `ringway ports` lists those in use");
                ControlError::new(Errno::EINVAL, text)
            })
    }

    fn lay_out(&self, wish: &RegionWish, private: bool) -> Result<RegionLayout, ControlError> {
        wish.lay_out(private).map_err(|BadPool { name, value }| {
            let prefix = if private { "priv_" } else { "" };
            let text = format!(
                "tunable {prefix}{name} is {value}, which is out of range; set it with `ringway tune`"
            );
            ControlError::new(Errno::EINVAL, text)
        })
    }

    /// A new private region for `owner`, not used by any port yet.
    pub(super) fn make_private_region(
        &mut self,
        owner: u32,
        wish: &RegionWish,
    ) -> Result<RegionId, ControlError> {
        let layout = self.lay_out(wish, true)?;
        let region = Region::create("ringway-region", layout, true).map_err(|e| no_memory("a region", &e))?;
        let mem_id = self.next_mem_id();
        self.last_mem_id = mem_id;
        let id = RegionId(self.fresh_id());
        self.regions.insert(id, RegionEntry { mem_id, owner, region, ports: 0 });
        Ok(id)
    }

    /// The global region of `owner`, made on first use.
    pub(super) fn global_region(&mut self, owner: u32) -> Result<RegionId, ControlError> {
        if let Some(id) = self.globals.get(&owner) {
            return Ok(*id);
        }
        let layout = self.lay_out(&self.tunables.global_region(), false)?;
        let region =
            Region::create("ringway-global", layout, false).map_err(|e| no_memory("a region", &e))?;
        let id = RegionId(self.fresh_id());
        self.regions.insert(id, RegionEntry { mem_id: GLOBAL_MEM_ID, owner, region, ports: 0 });
        self.globals.insert(owner, id);
        Ok(id)
    }

    /// The id after the last given one that is not in use.
    fn next_mem_id(&self) -> u16 {
        let mut id = self.last_mem_id;
        loop {
            id = id.wrapping_add(1);
            if id > GLOBAL_MEM_ID && !self.regions.values().any(|r| r.mem_id == id) {
                return id;
            }
        }
    }

    /// One port less uses the region. The last one takes it away, its pages at once.
    pub(super) fn release_region(&mut self, id: RegionId) {
        let Some(entry) = self.regions.get_mut(&id) else { return };
        entry.ports = entry.ports.saturating_sub(1);
        if entry.ports == 0 {
            self.discard_unused_region(id);
        }
    }

    /// Takes a region away that no port uses.
    pub(super) fn discard_unused_region(&mut self, id: RegionId) {
        if self.regions.get(&id).is_none_or(|r| r.ports > 0) {
            return;
        }
        if let Some(gone) = self.regions.remove(&id) {
            // A client may keep its map; the pages need not stay.
            let _ = gone.region.shm.memfd.discard();
            self.globals.retain(|_, global| *global != id);
            if gone.mem_id == self.last_mem_id {
                let before = self.regions.values().map(|r| r.mem_id).filter(|m| *m < gone.mem_id).max();
                self.last_mem_id = before.unwrap_or(GLOBAL_MEM_ID);
            }
        }
    }
}

/// Memory or fds could not be had.
pub(super) fn no_memory(what: &str, e: &std::io::Error) -> ControlError {
    ControlError::new(Errno::ENOMEM, format!("cannot make {what}: {e}"))
}
