//! Where fuzzing begins: small inputs that reach every part of a target.

use ringway_abi::wire::{self, Kind};
use ringway_abi::{NETMAP_API, NETMAP_REQ_REGISTER, c_name_field, nmreq_header, nmreq_register};
use ringway_apps::capture::{LINK_ETHERNET, Resolution, Writer};
use zerocopy::{FromZeros, IntoBytes};

/// Names and bytes of the seeds of a target.
#[must_use]
pub fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    match target {
        "wire" => wire(),
        "request" => request(),
        "portspec" => portspec(),
        "capture" => capture(),
        "scribble" => scribble(),
        _ => vec![],
    }
}

fn wire() -> Vec<(String, Vec<u8>)> {
    let header = nmreq_header {
        nr_version: NETMAP_API,
        nr_reqtype: NETMAP_REQ_REGISTER,
        nr_name: c_name_field("vale0:a").unwrap_or_else(FromZeros::new_zeroed),
        ..Default::default()
    };
    let control = wire::Control { header, ..Default::default() };
    let register = [control.as_bytes(), nmreq_register::default().as_bytes()].concat();
    let mut grant = wire::Grant::new_zeroed();
    (grant.kind, grant.bound, grant.memsize) = (1, [1, 1], 1 << 20);
    let switch = [grant.as_bytes(), &[7; 16]].concat();
    (grant.kind, grant.bound) = (3, [1, 0]);
    let nic = wire::Nic { path: 2, ifindex: 3, multi_slot: 1, queues: 1 };
    let queue = wire::NicQueue { index: 0, sizes: [64; 4] };
    let interface = [grant.as_bytes(), &[7; 8], nic.as_bytes(), queue.as_bytes()].concat();
    let mut tune = wire::Tune::new_zeroed();
    tune.name[..7].copy_from_slice(b"buf_num");
    [
        ("attach", wire::message(Kind::Attach, 0, &[])),
        ("register", wire::message(Kind::Control, 0, &register)),
        ("peer", wire::message(Kind::Peer, 0, wire::PeerAsk { index: 3, key: [5; 16] }.as_bytes())),
        ("tune", wire::message(Kind::Tune, 0, tune.as_bytes())),
        ("refused", wire::message(Kind::Reply, 13, b"EACCES, in words")),
        ("grant-switch", wire::message(Kind::Reply, 0, &switch)),
        ("grant-interface", wire::message(Kind::Reply, 0, &interface)),
        ("granted-peer", wire::message(Kind::Reply, 0, wire::Peer::new_zeroed().as_bytes())),
    ]
    .map(|(name, bytes)| (name.to_owned(), bytes))
    .into()
}

/// A legal REGISTER as the target decodes it: user, what, name, mode, flags, no more fields.
fn open(user: u8, name: u8) -> [u8; 6] {
    [user, 0, name, 0, 0, 0]
}

fn request() -> Vec<(String, Vec<u8>)> {
    let close = |n: u8| [0, 4, n];
    let jobs = [0, 11];
    // Rings and slots in full, of the region of the first port, with extra buffers.
    let full = [0, 0, 1, 0, 0, 0x80, 0, 0, 32, 16, 2, 3, 0x80, 2, 8];
    let null = [0, 0, 13, 3, 0, 0x80, 0, 0, 0, 0, 0, 0, 0x80, 2, 8];
    // A null port that binds none of very many rings.
    let huge = [0, 0, 13, 3, 5, 0x80, 0, 0, 8, 8, 0xfe, 0xff, 0xff, 0xfe, 0xff, 0xff, 0x80, 2, 0];
    // A port in memory of its user: pools and pages, then perhaps a CSB.
    let own = |user: u8, name: u8, flags: u8, csb: &[u8]| {
        let rings = [0x80, 0, 0, 32, 16, 2, 3, 0, 8];
        let pools = [0, 4, 30, 20, 10, 20, 33];
        [&[user, 252, name, 0, flags], &rings[..], &pools, csb, &[0]].concat()
    };
    let no_csb = &[0x80];
    [
        (
            "memory-of-clients",
            [own(0, 0, 0, no_csb), own(0, 1, 0, no_csb), own(1, 3, 1, &[0, 1, 5, 1, 5]), close(0).to_vec()]
                .concat(),
        ),
        (
            "switch",
            [&open(0, 0)[..], &open(0, 1), &open(1, 2), &[0, 10, 1], &[0, 6, 0, 0, 0, 0], &close(0)].concat(),
        ),
        ("public", [&open(0, 4)[..], &open(1, 5), &jobs, &close(0), &jobs, &open(2, 4)].concat()),
        ("pipe", [&open(0, 6)[..], &open(0, 7), &open(1, 7), &close(0), &open(0, 6)].concat()),
        (
            "pipe-of-port",
            [&open(0, 9)[..], &open(0, 10), &open(0, 0), &close(0), &close(0), &close(0)].concat(),
        ),
        ("pipe-of-pipe", [&open(0, 11)[..], &open(0, 12), &close(0)].concat()),
        ("memory", [&open(0, 0)[..], &full, &null, &close(0), &close(0)].concat()),
        ("null-with-many-rings", [&open(0, 0)[..], &huge].concat()),
        ("header", [&open(0, 0)[..], &[0, 9, 0, 2], &[1, 9, 0, 2], &open(0, 0), &[0, 9, 0, 3]].concat()),
        (
            "questions",
            [&open(0, 0)[..], &[0, 7, 0], &[0, 8, 0, 0, 0], &[1, 8, 0, 0, 0x80, 0], &[0, 6, 0, 0, 0, 13]]
                .concat(),
        ),
        (
            "two-switches",
            // Make v0, attach it twice, open members, poll, detach.
            [
                &[0, 0xf0, 0, 0, 0xf2, 2, 0, 0, 0xf2, 3, 0][..],
                &open(0, 0),
                &open(0, 3),
                &[0, 0xf4, 3, 1, 1, 1, 0, 0xf3, 3, 0, 0xf5, 3, 0, 0xf3, 3, 0, 0xf3, 2, 0, 0xf1, 0],
            ]
            .concat(),
        ),
        (
            "odd-names",
            [&[0, 0, 0xf2, b'a', b'{', 0xff, 0, 0, 0][..], &[0, 0, 14, 0, 0, 0], &[0, 0, 15, 0, 0, 0]]
                .concat(),
        ),
    ]
    .map(|(name, bytes)| (name.to_owned(), bytes))
    .into()
}

fn portspec() -> Vec<(String, Vec<u8>)> {
    let names = [
        "netmap:eth0",
        "netmap:eth0-3/xR",
        "netmap:eth0^",
        "netmap:eth0^2",
        "netmap:eth0*",
        "netmap:x{1",
        "netmap:x}1@7",
        "vale0:a",
        "vale_lab:port/z@3",
        "vale0:a{p",
        "netmap:eth0@conf:slots=512,rings=2",
        "netmap:eth0@conf:tx-slots=512,rx-slots=64,host-rings=1",
        "netmap:eth0@share=vale0:a",
        "netmap:eth0@extmem:file=/dev/hugepages/x,buf-num=100",
        "netmap:eth0@offset:initial=64,bits=16",
        "netmap:eth0@mode=generic",
        "netmap:eth0@2/x@mode=copy",
        "netmap:eth0-99999999999999999999",
        "vale0:a-\u{e9}",
    ];
    names.iter().enumerate().map(|(i, n)| (format!("{i:02}"), n.as_bytes().to_vec())).collect()
}

fn capture() -> Vec<(String, Vec<u8>)> {
    let classic = |resolution| {
        // A vector takes everything.
        let mut writer = Writer::new(vec![], LINK_ETHERNET, 65_535, resolution).expect("a vector");
        for i in 0..3u8 {
            writer.write(1_000_000_000 * u64::from(i) + 7, 60, &[i; 60]).expect("a vector");
        }
        writer.into_inner()
    };
    let micros = classic(Resolution::Micros);
    let swapped = |bytes: &[u8]| -> Vec<u8> {
        // The header's words and those of one empty record, the other way round.
        bytes[..24].chunks(4).flat_map(|w| w.iter().rev().copied()).chain([0; 16]).collect()
    };
    let block = |kind: u32, body: &[u8]| {
        let len = (12 + body.len() as u32).to_le_bytes();
        [&kind.to_le_bytes()[..], &len, body, &len].concat()
    };
    let section =
        block(0x0a0d_0d0a, &[0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]);
    let interface = block(1, &[1, 0, 0, 0, 0, 0, 0, 0]);
    let fine = block(1, &[1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
    let enhanced = block(
        6,
        &[&[0; 4][..], &[0, 0, 6, 0, 7, 0, 0, 0, 14, 0, 0, 0, 60, 0, 0, 0], &[1; 14], &[0; 2]].concat(),
    );
    let simple = block(3, &[&[14, 0, 0, 0][..], &[2; 14], &[0; 2]].concat());
    let unknown = block(0x4000_0bad, &[1, 2, 3, 4]);
    [
        ("classic-micros", micros.clone()),
        ("classic-nanos", classic(Resolution::Nanos)),
        ("classic-swapped", swapped(&micros)),
        ("classic-cut", micros[..micros.len() - 5].to_vec()),
        ("ng", [&section[..], &interface, &enhanced, &simple, &unknown, &section, &fine, &enhanced].concat()),
        ("ng-no-interface", [&section[..], &enhanced].concat()),
    ]
    .map(|(name, bytes)| (name.to_owned(), bytes))
    .into()
}

fn scribble() -> Vec<(String, Vec<u8>)> {
    let mut out = vec![];
    // Each map: a few words at the start of each ring or state, then everybody syncs.
    for map in 0..6u8 {
        for (i, value) in [0u8, 1, 15, 16, 39, 0xfe].into_iter().enumerate() {
            let mut bytes = vec![];
            for at in 0..6u8 {
                bytes.extend([0, map, 2, at, at * 3, value, at, at + 1, value, 0, at, at + 2, value, at]);
                bytes.extend([5, 6, 7, 8, 9]);
            }
            out.push((format!("map{map}-{i}"), bytes));
        }
    }
    out.push(("page".to_owned(), vec![4, 3, 0, 1, 9, 1, 2, 9, 2, 3, 9, 3, 4, 9, 5, 6, 10]));
    out.push(("idle".to_owned(), vec![5, 6, 7, 8, 9, 10, 11, 0, 11, 1, 11, 2]));
    out
}
