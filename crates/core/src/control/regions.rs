//! Regions: made for a port, shared by id, gone with the last port.

use super::domain::Domain;
use super::retired::GivenBack;
use super::{Asker, ControlError, RegionEntry, RegionId, Registry};
use crate::layout::{BadPool, RegionLayout, RegionWish};
use crate::pool::{Region, Shm};
use ringway_abi::Errno;
use ringway_os::mem::Memfd;
use std::collections::hash_map::Entry;

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
            let name = format!("{prefix}{name}");
            // Negative ones were laid out as 0.
            let set = self.tunables.get(&name).filter(|set| *set < 0);
            let value = set.map_or_else(|| value.to_string(), |set| set.to_string());
            let text =
                format!("tunable {name} is {value}, which is out of range; set it with `ringway tune`");
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
        let region = self.make_region("ringway-region", owner, layout, true)?;
        let mem_id = self.next_mem_id();
        self.last_mem_id = mem_id;
        let id = RegionId(self.fresh_id());
        self.regions.insert(id, RegionEntry { mem_id, owner, region, ports: 0, pages: None });
        Ok(id)
    }

    /// The global region of `owner`, made on first use.
    pub(super) fn global_region(&mut self, owner: u32) -> Result<RegionId, ControlError> {
        if let Some(id) = self.globals.get(&owner) {
            return Ok(*id);
        }
        let layout = self.lay_out(&self.tunables.global_region(), false)?;
        let region = self.make_region("ringway-global", owner, layout, false)?;
        let id = RegionId(self.fresh_id());
        let entry = RegionEntry { mem_id: GLOBAL_MEM_ID, owner, region, ports: 0, pages: None };
        self.regions.insert(id, entry);
        self.globals.insert(owner, id);
        Ok(id)
    }

    fn make_region(
        &mut self,
        name: &str,
        owner: u32,
        layout: RegionLayout,
        private: bool,
    ) -> Result<Region, ControlError> {
        let made = if self.one_file_per_user {
            let len = layout.memsize as usize;
            let window = self.domain(owner).and_then(|domain| domain.take(len));
            let made = window.and_then(|w| Region::over(Shm::from_memfd(w)?, layout, private));
            made.map_err(|e| (e, "a region in the file of its owner (the device file needs it)"))
        } else {
            Region::create(name, layout, private).map_err(|e| (e, "a region"))
        };
        made.map_err(|(e, what)| no_memory(what, &e))
    }

    fn domain(&mut self, owner: u32) -> std::io::Result<&mut Domain> {
        Ok(match self.domains.entry(owner) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(Domain::new()?),
        })
    }

    /// The file in which all regions of `owner` lie, if [`Registry::one_file_per_user`].
    ///
    /// # Errors
    /// EOPNOTSUPP if each has its own; ENOMEM.
    pub fn user_memory(&mut self, owner: u32) -> Result<&Memfd, ControlError> {
        if !self.one_file_per_user {
            return Err(ControlError::new(Errno::EOPNOTSUPP, "each region has a file of its own"));
        }
        let domain = self.domain(owner).map_err(|e| no_memory("the file of a user's regions", &e))?;
        Ok(domain.file())
    }

    /// Gives back memory that users have touched where they have no region.
    pub fn sweep_user_memory(&mut self) {
        let swept = self.domains.iter_mut().filter_map(|(owner, domain)| Some((*owner, domain.sweep()?)));
        for (owner, pages) in swept.collect::<Vec<_>>() {
            self.retire_memory(owner, pages);
        }
    }

    /// Where the region that `who` calls `mem_id` begins in its file; 0 if there is none (a port that was made to answer a question is
    /// gone with its region).
    #[must_use]
    pub fn region_ofs(&self, who: Asker, mem_id: u16) -> u64 {
        let region = self.find_region(who, mem_id).ok().and_then(|id| self.regions.get(&id));
        region.map_or(0, |entry| entry.region.shm.memfd.ofs() as u64)
    }

    /// The id after the last given one that is not in use.
    pub(super) fn next_mem_id(&self) -> u16 {
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
            // The pages of a client's own memory stay as they are.
            if gone.pages.is_none() {
                let memfd = gone.region.shm.memfd.clone();
                let pages = match self.domains.get_mut(&gone.owner) {
                    Some(domain) => domain.leave(memfd),
                    None => GivenBack::whole(memfd),
                };
                self.retire_memory(gone.owner, pages);
            }
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
