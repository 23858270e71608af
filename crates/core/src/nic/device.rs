//! The device behind a port: sockets, queue by queue, and the XDP program, attached with the first queue that receives and detached
//! with the last.

use super::{MAX_QUEUES, NicGrant, NicPath, NicQueue, NicRequest};
use crate::adapter::packet::BATCH;
use crate::control::ControlError;
use crate::pool::Region;
use crate::stats::Counters;
use ringway_abi::{Errno, NicMode};
use ringway_os::bpf::{BpfError, MissingCapabilities, XdpLink, XdpProgram, XskMap};
use ringway_os::link::{Link, XdpMode};
use ringway_os::packet::{PacketConfig, PacketSocket};
use ringway_os::xdp::{CopyMode, RingSizes, Umem, XskConfig, XskError, XskSocket};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Bytes that an Ethernet header with a VLAN tag adds to the MTU.
const HEADER_BYTES: u32 = 18;
/// Kernel memory for frames that wait in a packet socket.
const PACKET_RECV_BYTES: usize = 8 << 20;

/// Why a path does not work.
enum Refusal {
    /// Not this way; another may do.
    Path(ControlError),
    /// No way.
    Final(ControlError),
}

/// The XDP program on the interface.
#[derive(Debug)]
struct Attached {
    // Dropped in this order: the link takes the program off the interface.
    _link: XdpLink,
    _program: XdpProgram,
    map: XskMap,
}

/// An interface that a port was made for.
#[derive(Debug)]
pub(crate) struct NicDevice {
    request: NicRequest,
    pub name: String,
    pub ifindex: u32,
    mtu: u32,
    num_queues: u32,
    plan: Vec<NicPath>,
    /// What was got, while a queue is open.
    path: Option<NicPath>,
    multi_slot: bool,
    attached: Option<Attached>,
    queues: Vec<Option<OpenQueue>>,
    /// It was deleted, or left its namespace.
    pub gone: bool,
}

#[derive(Debug)]
struct OpenQueue {
    socket: Arc<OwnedFd>,
    sizes: RingSizes,
    /// Frames come to the socket.
    receives: bool,
}

impl NicDevice {
    /// Asks for the interface called `name`.
    pub fn find(request: &NicRequest, name: &str) -> io::Result<Link> {
        request.in_netns(|| Link::by_name(name))?
    }

    /// A device over a link, with no queue open. `slots` are those of its rings.
    pub fn new(request: &NicRequest, link: &Link, admode: i32) -> Self {
        let num_queues = link.num_rx_queues.max(link.num_tx_queues).clamp(1, MAX_QUEUES);
        NicDevice {
            request: request.clone(),
            name: link.name.clone(),
            ifindex: link.ifindex,
            mtu: link.mtu,
            num_queues,
            plan: NicPath::plan(request.mode, admode, link),
            path: None,
            multi_slot: false,
            attached: None,
            queues: (0..num_queues).map(|_| None).collect(),
            gone: false,
        }
    }

    /// Its namespace.
    pub fn netns_id(&self) -> u64 {
        self.request.netns_id
    }

    /// Only packet sockets are left to try, or in use: one queue serves all.
    pub(crate) fn is_packet(&self) -> bool {
        self.path.map_or(self.plan == [NicPath::Packet], |p| p == NicPath::Packet)
    }

    /// How it is reached, while a queue is open.
    pub fn path(&self) -> Option<NicPath> {
        self.path
    }

    /// True if a request for `mode` can share what is open.
    pub fn serves(&self, mode: NicMode) -> bool {
        let wanted = match mode {
            NicMode::Auto => return true,
            NicMode::Zerocopy => NicPath::ZeroCopy,
            NicMode::Copy => NicPath::NativeCopy,
            NicMode::Generic => NicPath::Generic,
            NicMode::Packet => NicPath::Packet,
        };
        self.path.map_or(self.plan == [wanted], |p| p == wanted)
    }

    /// The grant of the queues in `range`.
    pub fn grant(&self, indexes: impl Iterator<Item = u16>) -> Option<NicGrant> {
        let queues = indexes.filter_map(|index| {
            let q = self.queues.get(usize::from(index))?.as_ref()?;
            Some(NicQueue { index, socket: q.socket.clone(), sizes: q.sizes })
        });
        let (path, multi_slot) = (self.path?, self.multi_slot);
        Some(NicGrant { path, ifindex: self.ifindex, multi_slot, queues: queues.collect() })
    }

    /// What becomes readable when a queue has frames, while it is open.
    pub fn socket(&self, index: u16) -> Option<Arc<OwnedFd>> {
        Some(self.queues.get(usize::from(index))?.as_ref()?.socket.clone())
    }

    /// The socket of a queue, while it is open.
    pub fn queue(&self, index: u16) -> Option<(&OwnedFd, RingSizes)> {
        let q = self.queues.get(usize::from(index))?.as_ref()?;
        Some((&q.socket, q.sizes))
    }

    /// Adds what the kernel dropped before it reached the RX ring, since the queue was opened.
    pub(crate) fn add_kernel_drops(&self, index: u16, counters: &mut Counters) {
        if let (Some((socket, _)), Some(path)) = (self.queue(index), self.path) {
            path.add_kernel_drops(socket, counters);
        }
    }

    fn has_open_queue(&self) -> bool {
        self.queues.iter().any(Option::is_some)
    }

    /// The interface's MTU is this now.
    pub(crate) fn set_mtu(&mut self, mtu: u32) {
        self.mtu = mtu;
    }

    /// Opens the socket of queue `index` over the region, if it is not open yet. The first one settles the path.
    ///
    /// # Errors
    /// EAGAIN if the queue was closed a moment ago, or is another program's; EBUSY if another XDP program is attached; EINVAL if
    /// the MTU does not fit; EPERM with the capabilities that are missing; EOPNOTSUPP if the path asked for is not possible.
    pub(crate) fn open_queue(
        &mut self,
        index: u16,
        region: &Region,
        slots: (u32, u32),
    ) -> Result<(), ControlError> {
        if self.queue(index).is_some() {
            return Ok(());
        }
        let plan = self.path.map_or_else(|| self.plan.clone(), |p| vec![p]);
        let mut refusals: Vec<ControlError> = vec![];
        // A socket that one path bound and the next can use: a queue just closed would be busy.
        let mut spare = None;
        for path in plan {
            match self.open_by(path, index, region, slots, &mut spare) {
                Ok(()) => {
                    self.path = Some(path);
                    return Ok(());
                }
                Err(Refusal::Path(e)) => refusals.push(e),
                Err(Refusal::Final(e)) => return Err(e),
            }
        }
        let texts: Vec<&str> = refusals.iter().map(|e| e.message.as_str()).collect();
        // The reason that a user can do something about comes first.
        let errno = [Errno::EPERM, Errno::EINVAL, Errno::EOPNOTSUPP]
            .into_iter()
            .find(|n| refusals.iter().any(|e| e.errno == *n))
            .unwrap_or(Errno::EOPNOTSUPP);
        if errno == Errno::EPERM {
            let text = format!(
                "{}: the broker may not open interfaces (packet sockets: {}; XDP, besides: {}); start it as root, or give it these capabilities",
                self.name,
                MissingCapabilities::for_raw_socket(),
                MissingCapabilities::for_xdp()
            );
            return Err(ControlError::new(errno, text));
        }
        Err(ControlError::new(errno, format!("{}: {}", self.name, texts.join("; "))))
    }

    fn open_by(
        &mut self,
        path: NicPath,
        index: u16,
        region: &Region,
        slots: (u32, u32),
        spare: &mut Option<(XskSocket, bool)>,
    ) -> Result<(), Refusal> {
        let refuse =
            |errno, text: String| Refusal::Path(ControlError::new(errno, format!("{}: {text}", path.name())));
        let buf_size = region.layout.bufs.objsize;
        let sizes = RingSizes::for_slots(slots.1, slots.0);
        let (ifindex, mtu) = (self.ifindex, self.mtu);
        let too_long = |max: u32| {
            refuse(
                Errno::EINVAL,
                format!(
                    "MTU {mtu} needs frames of more than {max} bytes; lower it, or raise tunable buf_size"
                ),
            )
        };
        if path == NicPath::Packet {
            // As netmap's emulated adapters: no frame of several slots.
            if mtu > buf_size {
                return Err(too_long(buf_size));
            }
            let config = PacketConfig {
                max_batch: BATCH,
                recv_buffer_bytes: Some(PACKET_RECV_BYTES),
                // A packet socket sees the frames of all queues: they go to ring 0, the others only send.
                receive: index == 0,
                ..PacketConfig::default()
            };
            let opened = self.request.in_netns(|| PacketSocket::open(ifindex, &config));
            let socket = match opened {
                Ok(Ok(socket)) => socket,
                Ok(Err(e)) => return Err(refuse(os_errno(e.errno().raw_os_error()), e.to_string())),
                Err(e) => return Err(netns_refused(&e)),
            };
            self.multi_slot = false;
            self.queues[usize::from(index)] =
                Some(OpenQueue { socket: Arc::new(socket.into_fd()), sizes, receives: true });
            return Ok(());
        }
        let umem = path.umem(&region.layout).and_then(|l| Umem::new(&region.shm.map, l));
        let umem = umem.map_err(|e| refuse(Errno::EINVAL, e.to_string()))?;
        let max = umem.layout().frame_len();
        if path == NicPath::Generic && mtu > max {
            return Err(too_long(max));
        }
        let config = XskConfig {
            copy_mode: if path == NicPath::ZeroCopy { CopyMode::ZeroCopy } else { CopyMode::Copy },
            multi_buffer: true,
            ..XskConfig::new(sizes)
        };
        let is_attached = self.attached.is_some();
        let num_queues = self.num_queues;
        let mode = if path == NicPath::Generic { XdpMode::Generic } else { XdpMode::Native };
        let fits = mtu.saturating_add(HEADER_BYTES) <= max;
        let before = if path == NicPath::ZeroCopy { None } else { spare.take() };
        let made = self.request.in_netns(move || {
            let bound = match before {
                Some(bound) => Ok(bound),
                None => bind(ifindex, index.into(), &umem, config, fits),
            };
            bound.map(|bound| {
                let attached =
                    if is_attached { Ok(None) } else { attach(ifindex, num_queues, mode).map(Some) };
                (bound, attached)
            })
        });
        let (bound, attached) = match made {
            Ok(Ok(made)) => made,
            Ok(Err(e)) if e.is_busy() => {
                // The message stays when the client has tried again in vain.
                return Err(Refusal::Final(ControlError::new(Errno::EAGAIN, format!("{}: {e}", self.name))));
            }
            Ok(Err(e)) => return Err(refuse(os_errno(e.errno().raw_os_error()), e.to_string())),
            Err(e) => return Err(netns_refused(&e)),
        };
        let attached = match attached {
            Ok(attached) => attached,
            Err(e) => {
                *spare = Some(bound).filter(|_| path != NicPath::ZeroCopy);
                return Err(bpf_refused(path, &self.name, &e));
            }
        };
        let (socket, multi_slot) = bound;
        if attached.is_some() {
            self.attached = attached;
        }
        self.multi_slot = multi_slot;
        self.queues[usize::from(index)] =
            Some(OpenQueue { socket: Arc::new(socket.into_fd()), sizes, receives: false });
        Ok(())
    }

    /// Lets the frames of an open queue come to its socket.
    ///
    /// # Errors
    /// What the kernel answers.
    pub(crate) fn start_receiving(&mut self, index: u16) -> Result<(), ControlError> {
        let Some(Some(queue)) = self.queues.get_mut(usize::from(index)) else { return Ok(()) };
        if let Some(attached) = &self.attached
            && !queue.receives
        {
            let inserted = attached.map.insert(index.into(), queue.socket.as_fd());
            inserted.map_err(|e| {
                ControlError::new(os_errno(e.errno().raw_os_error()), format!("{}: {e}", self.name))
            })?;
            queue.receives = true;
        }
        Ok(())
    }

    /// Gives the frames of a queue back to the host. Frames that the socket has stay there.
    pub(crate) fn stop_receiving(&mut self, index: u16) {
        let Some(Some(queue)) = self.queues.get_mut(usize::from(index)) else { return };
        if let Some(attached) = &self.attached {
            let _ = attached.map.remove(index.into());
            queue.receives = false;
        }
    }

    /// Closes a queue, but for its socket, which was lent. With the last one the program leaves the interface.
    pub(crate) fn close_queue(&mut self, index: u16) -> Option<Arc<OwnedFd>> {
        self.stop_receiving(index);
        let queue = self.queues.get_mut(usize::from(index)).and_then(Option::take);
        if !self.has_open_queue() {
            self.attached = None;
            self.path = None;
        }
        queue.map(|q| q.socket)
    }
}

const EOPNOTSUPP: i32 = Errno::EOPNOTSUPP.0;
const EINVAL: i32 = Errno::EINVAL.0;

/// Binds a socket, for frames of several slots where they can be had: the host's offloads make such frames whatever the MTU is.
/// Without that only if the MTU `fits` a buffer. True with the socket: several slots.
fn bind(
    ifindex: u32,
    queue: u32,
    umem: &Umem,
    config: XskConfig,
    fits: bool,
) -> Result<(XskSocket, bool), XskError> {
    match XskSocket::bind(ifindex, queue, umem, &config) {
        Err(e) if fits && matches!(e.errno().raw_os_error(), EOPNOTSUPP | EINVAL) => {
            let config = XskConfig { multi_buffer: false, ..config };
            XskSocket::bind(ifindex, queue, umem, &config).map(|s| (s, false))
        }
        other => other.map(|s| (s, true)),
    }
}

fn attach(ifindex: u32, num_queues: u32, mode: XdpMode) -> Result<Attached, BpfError> {
    let map = XskMap::create(num_queues)?;
    let program = XdpProgram::redirect(&map)?;
    let link = program.attach(ifindex, mode)?;
    Ok(Attached { _link: link, _program: program, map })
}

fn os_errno(n: i32) -> Errno {
    match Errno(n) {
        Errno::ENODEV => Errno::ENXIO,
        // Capabilities are missing.
        Errno::EACCES => Errno::EPERM,
        other => other,
    }
}

fn netns_refused(e: &io::Error) -> Refusal {
    let text =
        format!("cannot enter the client's network namespace: {e}; the broker needs CAP_SYS_ADMIN for that");
    Refusal::Final(ControlError::new(os_errno(e.raw_os_error().unwrap_or(Errno::EIO.0)), text))
}

fn bpf_refused(path: NicPath, name: &str, e: &BpfError) -> Refusal {
    let errno = os_errno(e.errno().raw_os_error());
    let text = format!("{}: {e}", path.name());
    match e {
        BpfError::Busy { .. } => {
            let text = format!("{name}: {e}, or open it with @mode=packet");
            Refusal::Final(ControlError::new(Errno::EBUSY, text))
        }
        _ if errno == Errno::ENXIO => Refusal::Final(ControlError::new(errno, format!("{name}: {e}"))),
        BpfError::Failed { .. } => Refusal::Path(ControlError::new(Errno::EOPNOTSUPP, text)),
        _ => Refusal::Path(ControlError::new(errno, text)),
    }
}
