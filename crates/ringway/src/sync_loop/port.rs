//! The sync loop of a [`Port`].

use super::{LoopConfig, LoopError};
use crate::port::Port;
use ringway_core::sync_loop::LoopWord;
use ringway_os::csb::Csb;
use ringway_os::event::Doorbell;
use ringway_os::mem::SharedRef;
use ringway_os::state::RingState;
use std::sync::Arc;

/// Ends the sync loop of a port, from any thread.
#[derive(Clone, Debug)]
pub struct LoopStopper {
    state: Option<SharedRef<RingState>>,
    bell: Arc<Doorbell>,
}

impl LoopStopper {
    /// Asks for the end of the loop, without waiting. If none runs, the next one ends at once.
    pub fn stop(&self) {
        if let Some(state) = &self.state {
            let _ = LoopWord::of(state).ask_stop();
            self.bell.ring();
        }
    }
}

impl Port {
    /// Enters CSB mode: from now on [`Port::run_csb_loop`] syncs, on behalf of whoever writes into `csb`, and into the slots of the bound
    /// rings. Fills `csb` as the rings are. May be done again while no loop runs.
    ///
    /// From now on the port's rings take no part in swaps, since nobody but that writer can tell which buffers are in them.
    ///
    /// # Errors
    /// [`LoopError`]: NotExclusive, TooFewEntries, Running.
    pub fn enter_csb(&mut self, csb: &Csb) -> Result<(), LoopError> {
        self.bound.enter_csb(csb)?;
        self.fixed.exclusive = false;
        Ok(())
    }

    /// Syncs in this thread, until a [`LoopStopper`] ends it: what netmap's SYNC_KLOOP_START does. The one whom it serves, most likely a
    /// virtual machine that maps the port's region, is not trusted with anything but the port's packets: positions that are illegal are refused.
    ///
    /// ```
    /// use ringway::{Csb, LoopConfig, Netmap};
    ///
    /// let netmap = Netmap::embedded();
    /// let (mut port, mut peer) = (netmap.open("vale0:vm")?, netmap.open("vale0:b")?);
    /// let (csb, memfd) = Csb::create(port.tx_rings() + port.rx_rings())?; // the guest maps `memfd`
    /// # let _ = memfd;
    /// port.enter_csb(&csb)?;
    /// let stopper = port.loop_stopper();
    /// std::thread::scope(|s| {
    ///     let running = s.spawn(|| port.run_csb_loop(&csb, LoopConfig::default()));
    ///     csb.app()[0].publish(1, 1); // the guest has filled slot 0
    ///     while csb.kern()[0].positions().0 != 1 {}
    ///     stopper.stop();
    ///     running.join().unwrap()
    /// })?;
    /// # peer.rxsync()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`LoopError`].
    pub fn run_csb_loop(&mut self, csb: &Csb, config: LoopConfig) -> Result<(), LoopError> {
        self.bound.begin_loop()?.run(csb, config)
    }

    /// What ends [`Port::run_csb_loop`].
    #[must_use]
    pub fn loop_stopper(&self) -> LoopStopper {
        LoopStopper { state: self.bound.loop_state().cloned(), bell: self.bound.grant().rx_bell.clone() }
    }
}
