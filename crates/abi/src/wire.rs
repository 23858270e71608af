//! The protocol between library and broker.
//!
//! One message is one SEQPACKET datagram: a [`Head`], then a body whose layout the head's kind fixes. Everything is native
//! byte order: both ends are on one machine. Each request brings its own reply socket as its first fd, since several processes may
//! share a connection and would read each other's answers. The reply is one message on that socket: a Unix socket of type SEQPACKET
//! that has a name (an abstract one that the kernel chose will do), so that sending on it never waits. Others get no answer.
//!
//! | request | body | fds | reply body, on success | fds |
//! |---|---|---|---|---|
//! | ATTACH | | reply, channel | [`Attached`] | |
//! | CONTROL | [`Control`], then the body of its nmreq, then its options | reply | [`Controlled`], then the nmreq body, then the options with their statuses; REGISTER: a grant behind them | those of the grant |
//! | CONTROL_IN | [`Pages`], then as CONTROL | reply, memfd | as CONTROL | as CONTROL |
//! | JOIN | | reply | a grant | those of the grant |
//! | PEER | [`PeerAsk`] | reply | a peer | region, state, doorbell |
//! | LIST, STATUS, AUDIT | | reply | | memfd with JSON |
//! | TUNE | [`Tune`] | reply | [`Tuned`] entries | |
//! | STOP | | reply | | |
//! | MEMORY | | reply | | the file in which all regions of the asking user lie (for the helper that serves the device file) |
//!
//! Options are [`Opt`]s, each with its body behind it: the list in the client's memory was walked by the library. A request
//! with options that fails is answered with [`Kind::Refused`]: [`Controlled`] without a body, the options with their statuses, and then the text.
//!
//! CONTROL_IN is a REGISTER with the EXTMEM option: the memfd holds what the program's pages held, and nobody can shrink it, grow it or seal it any
//! further. In the option that comes back `nro_usrptr` is the id of that region.
//!
//! A grant is [`Grant`] with its list of offsets (TX, then RX, 8 bytes each) and name; its fds are region, state, RX and TX doorbell, the broker's own
//! bell (an epoll fd to watch), the worker's doorbell, then for a switch port the switch page, for a pipe the other end's state and its RX and TX doorbells.
//! JOIN of another user's port: no more than region and state, with bells that nobody else has, and no key. Who joins has attached before.

use crate::request::nmreq_header;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// First word of every message.
pub const MAGIC: u32 = 0x5957_4752;
/// Version of this protocol. Both ends must speak the same.
pub const VERSION: u16 = 1;
/// Bytes of a message, at most.
pub const MAX_MESSAGE_BYTES: usize = 16384;
/// Rings in one grant, at most (both directions).
pub const MAX_GRANT_RINGS: usize = 1024;
/// Bytes of an error text, at most.
pub const MAX_TEXT_BYTES: usize = 1024;
/// Bytes of the options of a request, at most: what netmap takes of known ones (4096), and the heads of unknown ones.
pub const MAX_OPTION_BYTES: usize = 6144;
/// Bytes of a port's name in a grant.
pub const NAME_BYTES: usize = 80;

/// An ioctl of the device file, beside netmap's: the number of a SEQPACKET socket of the caller, on which the helper sends the connection of
/// the bound descriptor. Whoever has it may JOIN, and sync the rings himself.
pub const RINGWAY_LEND: u32 = crate::request::_IOWR(b'i', 200, 4);

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// The process gets a number, under which it holds locks.
    Attach = 1,
    /// An NIOCCTRL request.
    Control = 2,
    /// Another process takes part in this descriptor's binding.
    Join = 3,
    /// The memory of another port of the switch.
    Peer = 4,
    /// All ports.
    List = 5,
    /// The broker itself.
    Status = 6,
    /// Parameters: asked, or set.
    Tune = 7,
    /// The broker ends.
    Stop = 8,
    /// Who owns each buffer, and which locks are held.
    Audit = 9,
    /// The file of the user's regions.
    Memory = 10,
    /// An NIOCCTRL request with memory of the client.
    ControlIn = 16,
    /// Answer to any of these.
    Reply = 100,
    /// Answer to a CONTROL with options that failed.
    Refused = 101,
}

impl Kind {
    /// The kind of that number.
    pub const fn from_u16(n: u16) -> Option<Kind> {
        Some(match n {
            1 => Kind::Attach,
            2 => Kind::Control,
            3 => Kind::Join,
            4 => Kind::Peer,
            5 => Kind::List,
            6 => Kind::Status,
            7 => Kind::Tune,
            8 => Kind::Stop,
            9 => Kind::Audit,
            10 => Kind::Memory,
            16 => Kind::ControlIn,
            100 => Kind::Reply,
            101 => Kind::Refused,
            _ => return None,
        })
    }

    /// Fds that a request of this kind carries.
    pub const fn request_fds(self) -> usize {
        match self {
            Kind::Attach | Kind::ControlIn => 2,
            Kind::Reply | Kind::Refused => 0,
            _ => 1,
        }
    }
}

/// Start of every message.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Head {
    /// [`MAGIC`].
    pub magic: u32,
    /// [`VERSION`].
    pub version: u16,
    /// [`Kind`].
    pub kind: u16,
    /// Requests: 0. Replies: an errno, 0 for success.
    pub errno: i32,
    /// Bytes behind the head; of a reply that is an error: its text.
    pub body_bytes: u32,
}

/// Bytes of a head.
pub const HEAD_BYTES: usize = size_of::<Head>();

/// Body of an ATTACH reply.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Attached {
    /// The number.
    pub number: u32,
}

/// Start of a CONTROL body; the nmreq body follows. Pointers in the header mean nothing here.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Control {
    /// The request's header.
    pub header: nmreq_header,
    /// How to reach an interface: the [`number`](crate::NicMode::number) of the port option `@mode`.
    pub nic_mode: u32,
    /// Options behind the nmreq body.
    pub options: u32,
}

/// Start of a CONTROL_IN body: which pages of the client the memory stands for.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Pages {
    /// The file whose pages they are: device and inode. 0 and 0: nobody else can have them.
    pub file: [u64; 2],
    /// First byte in it.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// Start of a CONTROL reply.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Controlled {
    /// The header, with the name that VALE_LIST found.
    pub header: nmreq_header,
    /// Bytes of the nmreq body behind this.
    pub body_bytes: u32,
    /// Options behind that: as many as the request had, in its order. A grant follows them if it was a REGISTER.
    pub options: u32,
}

/// Start of an option; its body (what follows its `nmreq_option`) lies behind it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Opt {
    /// `NETMAP_REQ_OPT_*`.
    pub nro_reqtype: u32,
    /// Replies: 0 or an errno.
    pub nro_status: u32,
    /// Bytes of the body.
    pub body_bytes: u32,
    /// Unused.
    pub pad: u32,
}

/// Body of a PEER request.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PeerAsk {
    /// Index on the switch.
    pub index: u32,
    /// Key of the binding, as granted.
    pub key: [u8; 16],
}

/// Body of a TUNE request: an empty name asks for all.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Tune {
    /// Name, NUL-padded.
    pub name: [u8; 32],
    /// 1: set it to `value`.
    pub set: u32,
    /// Value.
    pub value: i32,
}

/// One entry of a TUNE reply.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Tuned {
    /// Name, NUL-padded.
    pub name: [u8; 32],
    /// Value in force.
    pub value: i32,
    /// 1: it may be set while the broker runs.
    pub live: u32,
}

/// A pool of a region.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Pool {
    /// Offset in the region.
    pub offset: u64,
    /// Bytes of an object.
    pub objsize: u32,
    /// Objects.
    pub objtotal: u32,
}

/// Rings and slots.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Geometry {
    /// Slots in TX rings.
    pub tx_slots: u32,
    /// Slots in RX rings.
    pub rx_slots: u32,
    /// TX rings.
    pub tx_rings: u16,
    /// RX rings.
    pub rx_rings: u16,
    /// Unused.
    pub pad: u32,
}

/// A grant, without its list of offsets.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Grant {
    /// 0 null, 1 switch port, 2 pipe, 3 interface, 6 monitor; of another user: 4 switch port, 5 others.
    pub kind: u32,
    /// Switch port: its index.
    pub index: u32,
    /// Switch port: its generation.
    pub generation: u32,
    /// Region id.
    pub mem_id: u32,
    /// First bound ring of each direction: TX, RX.
    pub first: [u16; 2],
    /// Bound rings of each direction.
    pub bound: [u16; 2],
    /// All rings of the port.
    pub geometry: Geometry,
    /// Interface records, rings, buffers.
    pub pools: [Pool; 3],
    /// Bytes of the region.
    pub memsize: u64,
    /// Where it begins in its file; 0: it is the whole file.
    pub region_ofs: u64,
    /// Offset of the interface record.
    pub if_ofs: u64,
    /// `NR_*` of the request.
    pub nr_flags: u64,
    /// Extra buffers granted.
    pub extra_bufs: u32,
    /// Unused.
    pub pad: u32,
    /// Who shows it is served as the binding's user, whoever he is by then; 0 for other users.
    pub key: [u8; 16],
    /// Name, NUL-padded.
    pub name: [u8; NAME_BYTES],
}

/// The end of the grant of an interface.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Nic {
    /// How it is reached: 1 zero-copy, 2 native copy, 3 generic, 4 packet socket.
    pub path: u32,
    /// Index of the interface.
    pub ifindex: u32,
    /// 1: frames may lie in several slots.
    pub multi_slot: u32,
    /// [`NicQueue`]s that follow.
    pub queues: u32,
}

/// A bound queue of an interface.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct NicQueue {
    /// Its number.
    pub index: u32,
    /// Entries of fill, completion, RX and TX ring.
    pub sizes: [u32; 4],
}

/// A member of a switch.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Peer {
    /// Index.
    pub index: u32,
    /// Generation.
    pub generation: u32,
    /// Its rings.
    pub geometry: Geometry,
    /// Pools of its region.
    pub pools: [Pool; 3],
    /// Bytes of the region.
    pub memsize: u64,
    /// Where it begins in its file; 0: it is the whole file.
    pub region_ofs: u64,
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// Fewer bytes than the part needs.
    Short,
    /// Not this protocol.
    Magic(u32),
    /// Another version of it.
    Version(u16),
    /// No such kind.
    Kind(u16),
    /// The head tells another length than came.
    Length(u32),
}

impl core::fmt::Display for WireError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            WireError::Short => f.write_str("message too short"),
            WireError::Magic(m) => write!(f, "not a Ringway message ({m:#x})"),
            WireError::Version(v) => {
                write!(
                    f,
                    "the other side speaks version {v} of the protocol, this side {VERSION}: install the same release on both"
                )
            }
            WireError::Kind(k) => write!(f, "no message kind {k}"),
            WireError::Length(n) => write!(f, "message length {n} is not what came"),
        }
    }
}

impl core::error::Error for WireError {}

/// Checks a message's head; returns it with kind and body.
///
/// # Errors
/// [`WireError`].
pub fn parse(message: &[u8]) -> Result<(Head, Kind, &[u8]), WireError> {
    let (head, body) = Head::read_from_prefix(message).map_err(|_| WireError::Short)?;
    if head.magic != MAGIC {
        return Err(WireError::Magic(head.magic));
    }
    if head.version != VERSION {
        return Err(WireError::Version(head.version));
    }
    let kind = Kind::from_u16(head.kind).ok_or(WireError::Kind(head.kind))?;
    if head.body_bytes as usize != body.len() {
        return Err(WireError::Length(head.body_bytes));
    }
    Ok((head, kind, body))
}

/// Takes one fixed part off the front of a body.
///
/// # Errors
/// [`WireError::Short`].
pub fn take<'b, T: FromBytes + KnownLayout + Immutable>(body: &mut &'b [u8]) -> Result<T, WireError> {
    let (value, rest): (T, &'b [u8]) = T::read_from_prefix(body).map_err(|_| WireError::Short)?;
    *body = rest;
    Ok(value)
}

/// A message of that kind, around `body`.
pub fn message(kind: Kind, errno: i32, body: &[u8]) -> alloc::vec::Vec<u8> {
    let head =
        Head { magic: MAGIC, version: VERSION, kind: kind as u16, errno, body_bytes: body.len() as u32 };
    let mut out = alloc::vec::Vec::with_capacity(HEAD_BYTES + body.len());
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(body);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_message_is_parsed_as_it_was_made_and_nothing_else_is() {
        let m = message(Kind::Peer, 0, PeerAsk { index: 7, key: [9; 16] }.as_bytes());
        let (_, kind, mut body) = parse(&m).unwrap();
        assert_eq!((kind, take::<PeerAsk>(&mut body).unwrap().index, body.len()), (Kind::Peer, 7, 0));
        assert_eq!(take::<PeerAsk>(&mut body).unwrap_err(), WireError::Short);
        assert_eq!(parse(&m[..m.len() - 1]).unwrap_err(), WireError::Length(20));
        let mut other = m.clone();
        other[4] = 9;
        assert_eq!(parse(&other).unwrap_err(), WireError::Version(9));
        other[0] = 0;
        assert!(matches!(parse(&other), Err(WireError::Magic(_))));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Ok((_, _, mut body)) = parse(&bytes) {
                let _ = take::<Grant>(&mut body);
            }
        }
    }
}
