//! The engine in this process: no broker, no socket, no thread.
//!
//! Ports of one engine see each other, and nobody else sees them. Each port may be used by a thread of its own.

use crate::builder::PortBuilder;
use crate::error::OpenError;
use crate::extmem::FileMemory;
use crate::port::Port;
use crate::session::{Backend, ask_broker, open_with_broker, share_region};
use ringway_abi::{
    Errno, NETMAP_REQ_PORT_HDR_GET, NETMAP_REQ_PORT_HDR_SET, PortSpec, nmreq_port_hdr, nmreq_port_info_get,
    nmreq_register,
};
use ringway_core::control::{Asker, BindingId, Jobs, PortInfo, Registry, ReqOption, Tunables};
use ringway_core::kring::BROKER;
use ringway_core::lease::{Grant, PeerGrant};
use ringway_core::nic::NicRequest;
use std::fmt;
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use zerocopy::IntoBytes;

/// All of an engine belongs to one user.
const OWNER: Asker = Asker { uid: 0 };

/// Where ports are opened: with the broker of this machine, or in an engine of this process.
///
/// ```
/// use ringway::{Interest, Netmap};
///
/// let netmap = Netmap::embedded();
/// let mut a = netmap.open("vale0:a")?;
/// let mut b = netmap.open("vale0:b")?;
/// a.tx(0).send(&[0xff; 60]);
/// a.txsync()?;
/// b.rxsync()?;
/// assert_eq!(b.rx(0).len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Netmap(Origin);

#[derive(Clone)]
enum Origin {
    /// The one whose socket it is; None: the first that answers.
    Broker(Option<Arc<Path>>),
    Embedded(Arc<Engine>),
}

/// An engine: a registry behind a lock that syncs do not take, but for the first packet to a new port.
struct Engine {
    registry: Mutex<Registry>,
    /// What a worker of the broker would run: rings with monitors. Whoever posts runs them. Taken after `registry`.
    jobs: Mutex<Jobs>,
    next_attachment: AtomicU32,
}

impl Engine {
    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Netmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Origin::Broker(None) => f.write_str("Netmap(broker)"),
            Origin::Broker(Some(socket)) => write!(f, "Netmap(broker at {})", socket.display()),
            Origin::Embedded(_) => f.write_str("Netmap(embedded)"),
        }
    }
}

impl Netmap {
    /// The broker of this machine, started on first use. [`Port::open`] is short for `Netmap::broker().open`.
    #[must_use]
    pub fn broker() -> Self {
        Netmap(Origin::Broker(None))
    }

    /// The broker whose socket is at `socket`, and no other, whatever the environment says; started there if none answers. What
    /// `$RINGWAY_SOCKET` is for a whole process, this is for single ports.
    ///
    /// ```no_run
    /// let port = ringway::Netmap::at("/run/lab/ringway.sock").open("vale0:a")?;
    /// # Ok::<(), ringway::OpenError>(())
    /// ```
    #[must_use]
    pub fn at(socket: impl AsRef<Path>) -> Self {
        Netmap(Origin::Broker(Some(socket.as_ref().into())))
    }

    /// A new engine in this process. It lives as long as this value, its clones and its ports.
    #[must_use]
    pub fn embedded() -> Self {
        Self::embedded_with(Tunables::default())
    }

    /// A new engine in this process with other parameters than the default ones.
    ///
    /// ```
    /// use ringway::{Netmap, Tunables};
    ///
    /// // A small engine: regions hold a few hundred buffers, not tens of thousands.
    /// let tunables = Tunables { priv_buf_size: 4096, priv_buf_num: 500, ..Tunables::default() };
    /// let port = Netmap::embedded_with(tunables).builder("vale0:a").slots(64).open()?;
    /// assert_eq!(port.buf_size(), 4096);
    /// # Ok::<(), ringway::OpenError>(())
    /// ```
    #[must_use]
    pub fn embedded_with(tunables: Tunables) -> Self {
        let engine = Engine {
            registry: Mutex::new(Registry::new(tunables)),
            jobs: Mutex::default(),
            next_attachment: AtomicU32::new(BROKER + 1),
        };
        Netmap(Origin::Embedded(Arc::new(engine)))
    }

    /// Opens a port, exclusively, with what its name says.
    ///
    /// # Errors
    /// As [`PortBuilder::open`].
    pub fn open(&self, name: &str) -> Result<Port, OpenError> {
        self.builder(name).open()
    }

    /// Describes a port to open.
    pub fn builder(&self, name: &str) -> PortBuilder {
        PortBuilder::new(self.clone(), name)
    }

    /// True if ports are opened in this process.
    #[must_use]
    pub fn is_embedded(&self) -> bool {
        matches!(self.0, Origin::Embedded(_))
    }

    /// Every port of the engine, in the order of names.
    ///
    /// # Errors
    /// EOPNOTSUPP for the broker: its ports are listed by `ringway ports`.
    pub fn ports(&self) -> Result<Vec<PortInfo>, OpenError> {
        match &self.0 {
            Origin::Embedded(engine) => Ok(engine.lock().list(OWNER)),
            Origin::Broker(_) => Err(OpenError::refused(
                Errno::EOPNOTSUPP,
                "the ports of the broker are listed by `ringway ports`",
            )),
        }
    }

    /// Bytes of the virtio-net header before the frames of a switch port.
    ///
    /// # Errors
    /// ENXIO unless the port exists. Source: PORT_HDR_GET, semantics.md 17.
    pub fn header_len(&self, name: &str) -> Result<u32, OpenError> {
        let spec = PortSpec::parse(name)?;
        match &self.0 {
            Origin::Embedded(engine) => Ok(engine.lock().port_hdr_get(OWNER, &spec.name)?),
            Origin::Broker(at) => {
                let mut body = nmreq_port_hdr::default();
                ask_broker(at.as_deref(), &spec.name, NETMAP_REQ_PORT_HDR_GET, body.as_mut_bytes())?;
                Ok(body.nr_hdr_len)
            }
        }
    }

    /// Sets the length of the virtio-net header before the frames of a switch port: 0, 10 or 12 bytes. Between ports with
    /// different lengths the switch converts frames; see docs/vale.md.
    ///
    /// # Errors
    /// EINVAL for another length, ENXIO unless the port exists. Source: PORT_HDR_SET, semantics.md 17.
    pub fn set_header_len(&self, name: &str, len_bytes: u32) -> Result<(), OpenError> {
        let spec = PortSpec::parse(name)?;
        match &self.0 {
            Origin::Embedded(engine) => Ok(engine.lock().port_hdr_set(OWNER, &spec.name, len_bytes)?),
            Origin::Broker(at) => {
                let mut body = nmreq_port_hdr { nr_hdr_len: len_bytes, ..Default::default() };
                ask_broker(at.as_deref(), &spec.name, NETMAP_REQ_PORT_HDR_SET, body.as_mut_bytes())
            }
        }
    }

    pub(crate) fn register(
        &self,
        spec: &PortSpec,
        req: &nmreq_register,
        options: &mut [ReqOption],
    ) -> Result<(Box<dyn Backend>, Grant), OpenError> {
        match &self.0 {
            Origin::Broker(at) => open_with_broker(at.as_deref(), spec, req, options),
            Origin::Embedded(engine) => Binding::open(engine, spec, req, options),
        }
    }
}

/// A binding in an embedded engine.
struct Binding {
    engine: Arc<Engine>,
    id: BindingId,
    attachment: u32,
    /// A file whose number tells the region of the port.
    _pin: Option<File>,
}

impl Binding {
    fn open(
        engine: &Arc<Engine>,
        spec: &PortSpec,
        req: &nmreq_register,
        options: &mut [ReqOption],
    ) -> Result<(Box<dyn Backend>, Grant), OpenError> {
        let mut req = *req;
        let mut all = options.to_vec();
        let (mut offer, mut pin) = (None, None);
        if let Some(memory) = FileMemory::of(spec)? {
            all.push(memory.option);
            (offer, pin) = (Some(memory.offer), Some(memory.file));
        }
        let mut registry = engine.lock();
        if let Some(share) = &spec.share {
            let mem_id = region_of(&mut registry, share)?;
            share_region(&mut req, mem_id)?;
        }
        let mode = spec.nic_mode.unwrap_or_default();
        registry.ask_from(NicRequest { mode, ..NicRequest::default() });
        registry.offer(offer);
        let id = registry.register_with(OWNER, &spec.name, &req, &mut all);
        registry.offer(None);
        options.iter_mut().zip(all).for_each(|(option, served)| *option = served);
        registry.refresh_jobs(&mut engine.jobs());
        drop(registry.take_retired());
        let id = id?;
        let grant = registry.grant(id);
        drop(registry);
        // From here on a failure unbinds.
        let attachment = engine.next_attachment.fetch_add(1, Relaxed);
        let binding = Binding { engine: engine.clone(), id, attachment, _pin: pin };
        Ok((Box::new(binding), grant?))
    }
}

/// The region of the port named by `@share=`.
fn region_of(registry: &mut Registry, share: &str) -> Result<u16, OpenError> {
    let spec = PortSpec::parse(share)?;
    let mut info = nmreq_port_info_get { nr_mem_id: spec.nr_mem_id, ..Default::default() };
    registry.port_info_get(OWNER, &spec.name, &mut info)?;
    Ok(info.nr_mem_id)
}

impl Drop for Binding {
    fn drop(&mut self) {
        let mut registry = self.engine.lock();
        let mut jobs = self.engine.jobs();
        registry.settle_jobs(&mut jobs);
        registry.unbind(self.id);
        registry.refresh_jobs(&mut jobs);
        // Nobody but this process holds them.
        drop(registry.take_retired());
    }
}

impl Backend for Binding {
    fn attachment(&self) -> Option<u32> {
        Some(self.attachment)
    }

    fn present_attachment(&self) -> u32 {
        self.attachment
    }

    fn peer(&self, index: u8) -> Option<PeerGrant> {
        self.engine.lock().peer_grant(self.id, index).ok()
    }

    fn is_alive(&self) -> bool {
        true
    }

    fn hangup_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn serve(&self) {
        let mut jobs = self.engine.jobs();
        if jobs.late().have_some_come() {
            drop(jobs);
            let registry = self.engine.lock();
            jobs = self.engine.jobs();
            registry.refresh_jobs(&mut jobs);
        }
        jobs.run();
    }
}
