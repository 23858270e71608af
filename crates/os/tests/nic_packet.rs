//! Packet sockets on veth pairs.

use ringway_os::bytes::Bufs;
use ringway_os::link::Link;
use ringway_os::mem::Map;
use ringway_os::packet::{PacketConfig, PacketSocket, Received, SendEnd};

#[path = "nic_util.rs"]
mod util;
use util::{frame, in_namespace, sh, veth, wait_until};

fn bufs() -> Bufs {
    Bufs::new(&Map::anonymous(256 * 2048).unwrap(), 0, 2048, 256).unwrap()
}

fn send(socket: &mut PacketSocket, bufs: &Bufs, frames: &[Vec<u8>]) -> ringway_os::packet::Sent {
    let payloads: Vec<_> = frames
        .iter()
        .enumerate()
        .map(|(i, f)| {
            let p = bufs.payload(i as u32).unwrap();
            p.copy_from(f);
            p.slice(0, f.len())
        })
        .collect();
    socket.send_batch(&payloads).unwrap()
}

fn receive(socket: &mut PacketSocket, bufs: &Bufs, count: usize) -> Vec<(Vec<u8>, Received)> {
    let payloads: Vec<_> = (128..192).map(|i| bufs.payload(i).unwrap()).collect();
    let mut got = Vec::new();
    wait_until("frames", || {
        let mut out = [Received::default(); 64];
        let n = socket.recv_batch(&payloads, &mut out).unwrap();
        got.extend((0..n).map(|i| (payloads[i].slice(0, out[i].len).to_vec(), out[i])));
        got.len() >= count
    });
    got
}

#[test]
fn frames_pass_both_ways() {
    in_namespace("frames_pass_both_ways", || {
        let (a, b) = veth("va", "vb", 1);
        let mut sa = PacketSocket::open(a, &PacketConfig::default()).unwrap();
        let mut sb =
            PacketSocket::open(b, &PacketConfig { promiscuous: true, ..PacketConfig::default() }).unwrap();
        let bufs = bufs();
        let frames: Vec<_> = (0..100).map(|i| frame(i, 60 + i as usize * 14)).collect();
        for _ in 0..2 {
            assert_eq!(send(&mut sa, &bufs, &frames).taken, 100);
            let got: Vec<_> = receive(&mut sb, &bufs, 100).into_iter().map(|(f, _)| f).collect();
            assert_eq!(got, frames);
            // What we send ourselves does not come back.
            let payloads = [bufs.payload(200).unwrap()];
            assert_eq!(sa.recv_batch(&payloads, &mut [Received::default()]).unwrap(), 0);
            std::mem::swap(&mut sa, &mut sb);
        }
        assert_eq!(sb.statistics().unwrap().drops, 0);
        assert_eq!(sb.statistics().unwrap().packets, 100);
    });
}

#[test]
fn vlan_tags_stay_in_the_frame() {
    in_namespace("vlan_tags_stay_in_the_frame", || {
        let (a, b) = veth("va", "vb", 1);
        let mut sa = PacketSocket::open(a, &PacketConfig::default()).unwrap();
        let mut sb = PacketSocket::open(b, &PacketConfig::default()).unwrap();
        let bufs = bufs();
        let tagged = |tpid: u16, i: u32| {
            let plain = frame(i, 100 + i as usize);
            let mut f = plain[..12].to_vec();
            f.extend(tpid.to_be_bytes());
            f.extend([0x20, 7]);
            f.extend(&plain[12..]);
            f
        };
        let frames = vec![tagged(0x8100, 1), frame(2, 80), tagged(0x88a8, 3), tagged(0x8100, 1400)];
        assert_eq!(send(&mut sa, &bufs, &frames).taken, 4);
        let got: Vec<_> = receive(&mut sb, &bufs, 4).into_iter().map(|(f, _)| f).collect();
        assert_eq!(got, frames);

        // A buffer that just holds the frame without its tag.
        send(&mut sa, &bufs, &[tagged(0x8100, 1)]);
        let small = [bufs.payload(200).unwrap().slice(0, 101)];
        let mut out = [Received::default()];
        wait_until("frame", || sb.recv_batch(&small, &mut out).unwrap() == 1);
        assert!(out[0].truncated && out[0].len == 101);
        assert_eq!(small[0].to_vec(), tagged(0x8100, 1)[..101]);
    });
}

#[test]
fn bad_frames_are_counted_and_do_not_block_the_good() {
    in_namespace("bad_frames", || {
        let (a, b) = veth("va", "vb", 1);
        let mut sa = PacketSocket::open(a, &PacketConfig::default()).unwrap();
        let mut sb = PacketSocket::open(b, &PacketConfig::default()).unwrap();
        let bufs = bufs();
        let frames = vec![frame(1, 60), vec![0; 5], frame(2, 1800), frame(3, 60)];
        let sent = send(&mut sa, &bufs, &frames);
        assert_eq!((sent.taken, sent.invalid, sent.end), (4, 2, SendEnd::Complete));
        let got: Vec<_> = receive(&mut sb, &bufs, 2).into_iter().map(|(f, _)| f).collect();
        assert_eq!(got, [frame(1, 60), frame(3, 60)]);

        sh("ip link set va down");
        let sent = send(&mut sa, &bufs, &frames[..1]);
        assert_eq!((sent.taken, sent.end), (0, SendEnd::LinkDown));
        let payloads = [bufs.payload(200).unwrap()];
        assert_eq!(sa.recv_batch(&payloads, &mut [Received::default()]).unwrap(), 0);
        sh("ip link set va up");
        wait_until("carrier", || Link::by_index(a).unwrap().running);
        assert_eq!(send(&mut sa, &bufs, &frames[..1]).taken, 1);
        receive(&mut sb, &bufs, 1);

        sh("ip link del va");
        let p = bufs.payload(0).unwrap().slice(0, 60);
        let e = sa.send_batch(&[p]).unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::ENXIO));
        assert!(PacketSocket::open(a, &PacketConfig::default()).is_err());
    });
}

#[test]
fn a_full_socket_counts_drops() {
    in_namespace("a_full_socket_counts_drops", || {
        let (a, b) = veth("va", "vb", 1);
        let mut sa = PacketSocket::open(a, &PacketConfig::default()).unwrap();
        let config = PacketConfig { recv_buffer_bytes: Some(8192), ..PacketConfig::default() };
        let mut sb = PacketSocket::open(b, &config).unwrap();
        let frames: Vec<_> = (0..100).map(|i| frame(i, 60)).collect();
        assert_eq!(send(&mut sa, &bufs(), &frames).taken, 100);
        wait_until("drops", || {
            let s = sb.statistics().unwrap();
            s.packets == 100 && s.drops > 0
        });
        let fd = sb.into_fd();
        let drops = ringway_os::packet::drops(&fd).unwrap();
        assert!((1..100).contains(&drops), "{drops}");
        assert_eq!(ringway_os::packet::drops(&fd).unwrap(), drops, "asking changes nothing");
    });
}
