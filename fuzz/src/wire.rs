//! Messages between library and broker, as either end reads them.

use ringway_abi::wire::{self, Kind};
use ringway_core::handover::{grant_in, peer_in};

/// The broker's parser, every body, and grants as a client takes them in.
///
/// # Panics
/// If something is wrong with them.
pub fn wire(data: &[u8]) {
    let Ok((head, kind, body)) = wire::parse(data) else { return };
    assert_eq!((head.kind, head.body_bytes as usize), (kind as u16, body.len()));
    assert_eq!(Kind::from_u16(kind as u16), Some(kind));
    let again = wire::message(kind, head.errno, body);
    let (_, same_kind, same_body) = wire::parse(&again).expect("made by the same code");
    assert_eq!((same_kind, same_body), (kind, body));
    // What is taken and what is left are all there was.
    macro_rules! take {
        ($($type:ident),*) => {$({
            let mut rest = body;
            match wire::take::<wire::$type>(&mut rest) {
                Ok(_) => assert_eq!(body.len() - rest.len(), size_of::<wire::$type>()),
                Err(e) => assert!(e == wire::WireError::Short && rest.len() == body.len()),
            }
        })*};
    }
    take!(Attached, Control, Controlled, PeerAsk, Tune, Tuned, Grant, Nic, NicQueue, Peer, Pool, Geometry);
    // Without fds none is complete.
    assert!(grant_in(body, vec![]).is_err());
    assert!(peer_in(body, vec![]).is_err());
}
