//! AF_XDP on veth pairs.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringway_os::bpf::{self, BpfError, PROGRAM_NAME, XdpLink, XdpProgram, XskMap};
use ringway_os::bytes::Bufs;
use ringway_os::link::XdpMode;
use ringway_os::mem::{Map, Memfd};
use ringway_os::packet::{PacketConfig, PacketSocket, Received};
use ringway_os::xdp::{
    CopyMode, Kick, RingSizes, Umem, UmemLayout, XdpDesc, XskConfig, XskRings, XskSocket, kick_rx, kick_tx,
};

#[path = "nic_util.rs"]
mod util;
use util::{frame, in_namespace, sh, veth, wait_until};

const NUM_BUFS: u32 = 600;
/// Buffers from here on are for sending.
const TX_BUFS: u32 = 300;
const POISON: u8 = 0xee;
const PATIENCE: Duration = Duration::from_millis(100);

/// A queue with a region of its own. Field order: the rings are unmapped before the socket closes.
struct Nic {
    rings: XskRings,
    socket: XskSocket,
    bufs: Bufs,
    layout: UmemLayout,
    _map: Arc<Map>,
}

impl Nic {
    fn open(ifindex: u32, queue: u32, stride: u32, multi_buffer: bool) -> Nic {
        // As netmap lays out a region: the buffers begin behind other objects.
        let buf_ofs = 3 * 4096;
        let memory = Memfd::create("nic_xdp", buf_ofs + (stride * NUM_BUFS) as usize).unwrap();
        let map = memory.map().unwrap();
        let layout = UmemLayout::unaligned(map.len_bytes() as u64, buf_ofs as u64, stride, NUM_BUFS).unwrap();
        let bufs = Bufs::new(&map, buf_ofs, stride as usize, NUM_BUFS).unwrap();
        for i in 0..NUM_BUFS {
            bufs.payload(i).unwrap().copy_from(&vec![POISON; stride as usize]);
        }
        let umem = Umem::new(&map, layout).unwrap();
        let config = XskConfig {
            multi_buffer,
            copy_mode: CopyMode::Auto,
            ..XskConfig::new(RingSizes::for_slots(256, 256))
        };
        let socket = XskSocket::bind_retry(ifindex, queue, &umem, &config, PATIENCE).unwrap();
        let rings = XskRings::map(socket.as_fd(), &socket.sizes()).unwrap();
        Nic { rings, socket, bufs, layout, _map: map }
    }

    fn fill(&mut self, bufs: std::ops::Range<u32>) {
        let addrs: Vec<_> = bufs.map(|i| self.layout.fill_addr(i).unwrap()).collect();
        assert_eq!(self.rings.fill.push(addrs.iter().copied()) as usize, addrs.len());
        kick_rx(&self.socket).unwrap();
    }

    /// Sends each frame from a buffer of its own, in pieces if it is long, and waits for all completions.
    fn send(&mut self, frames: &[Vec<u8>]) {
        let mut n = 0;
        for f in frames {
            let pieces: Vec<_> = f.chunks(self.layout.frame_len() as usize).collect();
            for (k, piece) in pieces.iter().enumerate() {
                let buf = TX_BUFS + n;
                self.bufs.payload(buf).unwrap().copy_from(piece);
                let options = if k + 1 < pieces.len() { XdpDesc::CONTINUED } else { 0 };
                let addr = self.layout.tx_addr(buf).unwrap();
                assert!(n < self.rings.tx.free());
                self.rings.tx.put(n, XdpDesc { addr, len: piece.len() as u32, options });
                n += 1;
            }
        }
        self.rings.tx.submit(n);
        assert!(self.rings.tx.needs_wakeup());
        let mut completed = Vec::new();
        wait_until("completions", || {
            if !self.rings.tx.is_idle() {
                kick_tx(&self.socket).unwrap();
            }
            self.rings.comp.drain(u32::MAX, |addr| completed.push(self.layout.buf_of_addr(addr).unwrap()));
            completed.len() as u32 == n
        });
        completed.sort_unstable();
        assert_eq!(completed, (TX_BUFS..TX_BUFS + n).collect::<Vec<_>>());
    }

    /// Waits for `count` descriptors, and gives them with the buffer each lies in.
    fn receive(&mut self, count: u32) -> Vec<(u32, XdpDesc)> {
        wait_until("frames", || self.rings.rx.available() >= count);
        let got = (0..count)
            .map(|i| {
                let d = self.rings.rx.get(i);
                let (buf, ofs) = self.layout.locate(d.addr).expect("in a buffer");
                assert_eq!(ofs, 0, "the frame begins where the buffer begins");
                (buf, d)
            })
            .collect();
        self.rings.rx.release(count);
        got
    }

    fn bytes(&self, buf: u32, len: u32) -> Vec<u8> {
        self.bufs.payload(buf).unwrap().slice(0, len as usize).to_vec()
    }
}

/// Map, program and link on an interface; `None` and SKIP without the privilege.
fn program(test: &str, ifindex: u32, mode: XdpMode) -> Option<(XskMap, XdpProgram, XdpLink)> {
    let made = || {
        let map = XskMap::create(4)?;
        let program = XdpProgram::redirect(&map)?;
        let link = program.attach(ifindex, mode)?;
        Ok((map, program, link))
    };
    match made() {
        Ok(all) => Some(all),
        Err(e @ BpfError::NotPermitted { .. }) => {
            println!("SKIP {test}: {e}");
            None
        }
        Err(e) => panic!("{e}"),
    }
}

fn both_ways(test: &str, mode: XdpMode, stride: u32) {
    in_namespace(test, || {
        let (a, b) = veth("va", "vb", 1);
        let Some((map_a, _pa, link_a)) = program(test, a, mode) else { return };
        let Some((map_b, _pb, _lb)) = program(test, b, mode) else { return };
        assert_eq!((link_a.mode(), link_a.ifindex()), (mode, a));
        let mut na = Nic::open(a, 0, stride, false);
        let mut nb = Nic::open(b, 0, stride, false);
        assert!(!na.socket.is_zero_copy(), "veth has no zero-copy");
        map_a.insert(0, na.socket.as_fd()).unwrap();
        map_b.insert(0, nb.socket.as_fd()).unwrap();

        let longest = 1514.min(stride as usize);
        let frames: Vec<_> = (0..100u32).map(|i| frame(i, 60 + i as usize * (longest - 60) / 99)).collect();
        for round in 0..4 {
            let (tx, rx) = if round % 2 == 0 { (&mut na, &mut nb) } else { (&mut nb, &mut na) };
            // Every other buffer: the ones between must stay untouched.
            rx.fill_every_other();
            tx.send(&frames);
            for ((buf, d), f) in rx.receive(100).into_iter().zip(&frames) {
                assert_eq!((d.len as usize, d.options), (f.len(), 0));
                assert_eq!(&rx.bytes(buf, d.len), f);
            }
            for i in (3..TX_BUFS).step_by(2) {
                assert!(rx.bytes(i, stride).iter().all(|x| *x == POISON), "buffer {i} was touched");
            }
        }
        let stats = nb.socket.statistics().unwrap();
        assert_eq!(
            (stats.rx_dropped, stats.rx_invalid_descs, stats.tx_invalid_descs),
            (0, 0, 0),
            "{stats:?}"
        );
        println!("{test}: tx budget {}", na.socket.tx_budget());
    });
}

impl Nic {
    fn fill_every_other(&mut self) {
        let want: Vec<_> = (2..TX_BUFS).step_by(2).map(|i| self.layout.fill_addr(i).unwrap()).collect();
        let missing = 100usize.saturating_sub(self.rings.fill.unread().count());
        self.rings.fill.push(want.into_iter().take(missing));
        kick_rx(&self.socket).unwrap();
    }
}

#[test]
fn native_both_ways_2048() {
    both_ways("native_both_ways_2048", XdpMode::Native, 2048);
}

#[test]
fn native_both_ways_2112() {
    both_ways("native_both_ways_2112", XdpMode::Native, 2112);
}

/// A chunk may not be below 2048: the room before the frame grows instead.
#[test]
fn native_both_ways_small_buffers() {
    both_ways("native_both_ways_small_buffers", XdpMode::Native, 512);
}

#[test]
fn native_both_ways_large_buffers() {
    both_ways("native_both_ways_large_buffers", XdpMode::Native, 4096 + 64);
}

#[test]
fn generic_both_ways_2048() {
    both_ways("generic_both_ways_2048", XdpMode::Generic, 2048);
}

#[test]
fn generic_both_ways_2112() {
    both_ways("generic_both_ways_2112", XdpMode::Generic, 2112);
}

/// A frame that just fills the buffer: all 2048 bytes are usable.
#[test]
fn a_frame_fills_the_whole_buffer() {
    let test = "a_frame_fills_the_whole_buffer";
    in_namespace(test, || {
        let (a, b) = veth("va", "vb", 1);
        sh("ip link set va mtu 3000");
        sh("ip link set vb mtu 3000");
        let Some((map, _p, _l)) = program(test, b, XdpMode::Native) else { return };
        let mut na = Nic::open(a, 0, 2048, false);
        let mut nb = Nic::open(b, 0, 2048, false);
        map.insert(0, nb.socket.as_fd()).unwrap();
        nb.fill(10..11);
        na.send(&[frame(1, 2048)]);
        let got = nb.receive(1);
        assert_eq!((got[0].0, nb.bytes(10, 2048)), (10, frame(1, 2048)));
        assert_eq!(nb.bytes(11, 1), [POISON]);
        assert_eq!(nb.bytes(9, 2048), vec![POISON; 2048]);
    });
}

#[test]
fn aligned_layout_receives_256_bytes_in() {
    let test = "aligned_layout_receives_256_bytes_in";
    in_namespace(test, || {
        let (a, b) = veth("va", "vb", 1);
        let Some((xsks, _p, _l)) = program(test, b, XdpMode::Native) else { return };
        let mut na = Nic::open(a, 0, 2048, false);
        let map = Map::anonymous(64 * 2048).unwrap();
        let layout = UmemLayout::aligned(64 * 2048, 0, 2048, 64).unwrap();
        let bufs = Bufs::new(&map, 0, 2048, 64).unwrap();
        let umem = Umem::new(&map, layout).unwrap();
        let config = XskConfig::new(RingSizes::for_slots(64, 64));
        let socket = XskSocket::bind(b, 0, &umem, &config).unwrap();
        let mut rings = XskRings::map(socket.as_fd(), &socket.sizes()).unwrap();
        xsks.insert(0, socket.as_fd()).unwrap();
        rings.fill.push([layout.fill_addr(5).unwrap()]);
        na.send(&[frame(9, 1514)]);
        wait_until("frame", || rings.rx.available() == 1);
        let d = rings.rx.get(0);
        assert_eq!(layout.locate(d.addr), Some((5, 256)));
        assert_eq!(layout.rx_offset(), 256);
        assert_eq!(bufs.payload(5).unwrap().slice(256, 1514).to_vec(), frame(9, 1514));
    });
}

#[test]
fn the_program_goes_with_its_link_and_a_second_one_is_refused_by_name() {
    let test = "the_program_goes_with_its_link";
    in_namespace(test, || {
        let (a, b) = veth("va", "vb", 1);
        let start = Instant::now();
        let Some((map, prog, link)) = program(test, a, XdpMode::Native) else { return };
        println!("map, program and link: {:?}", start.elapsed());
        let there = bpf::attached(a).unwrap();
        assert_eq!(there.len(), 1);
        assert_eq!((there[0].name.as_deref(), there[0].mode), (Some(PROGRAM_NAME), XdpMode::Native));
        assert_eq!(bpf::attached(b).unwrap(), []);

        for mode in [XdpMode::Native, XdpMode::Generic] {
            let e = XdpProgram::redirect(&map).unwrap().attach(a, mode).unwrap_err();
            let BpfError::Busy { by: Some(by), ifindex, .. } = &e else { panic!("{e:?}") };
            assert_eq!((by, *ifindex), (&there[0], a));
            assert!(e.to_string().contains(PROGRAM_NAME), "{e}");
            println!("{mode}: {e}");
        }
        assert!(matches!(prog.attach_best(a), Err(BpfError::Busy { .. })));

        let start = Instant::now();
        drop(link);
        wait_until("program gone", || bpf::attached(a).unwrap().is_empty());
        println!("gone after {:?}", start.elapsed());
        assert_eq!(prog.attach_best(a).unwrap().mode(), XdpMode::Native);

        // A driver without native XDP.
        sh("ip link add br0 type bridge");
        let bridge = ringway_os::link::index_of("br0").unwrap();
        let e = prog.attach(bridge, XdpMode::Native).unwrap_err();
        assert_eq!(e.errno(), rustix::io::Errno::OPNOTSUPP, "{e}");
        assert_eq!(prog.attach_best(bridge).unwrap().mode(), XdpMode::Generic);
        assert_eq!(prog.attach(9999, XdpMode::Native).unwrap_err().errno(), rustix::io::Errno::NODEV);
        map.remove(0).unwrap();
        assert!(map.remove(99).is_err());
        assert!(map.insert(0, std::fs::File::open("/dev/null").unwrap().as_fd()).is_err());
    });
}

#[test]
fn queues_without_socket_pass_to_the_host() {
    let test = "queues_without_socket_pass_to_the_host";
    in_namespace(test, || {
        let (a, b) = veth("va", "vb", 2);
        let Some((map, _p, _l)) = program(test, b, XdpMode::Native) else { return };
        // The peer's transmit queue decides the receive queue.
        let mut tx0 = Nic::open(a, 0, 2048, false);
        let mut tx1 = Nic::open(a, 1, 2048, false);
        let mut rx0 = Nic::open(b, 0, 2048, false);
        rx0.fill(2..102);
        map.insert(0, rx0.socket.as_fd()).unwrap();
        let mut host = PacketSocket::open(b, &PacketConfig::default()).unwrap();
        let host_frames = |host: &mut PacketSocket, count: usize| {
            let map = Map::anonymous(64 * 2048).unwrap();
            let bufs = Bufs::new(&map, 0, 2048, 64).unwrap();
            let payloads: Vec<_> = (0..64).map(|i| bufs.payload(i).unwrap()).collect();
            let mut all = Vec::new();
            wait_until("host frames", || {
                let mut out = [Received::default(); 64];
                let n = host.recv_batch(&payloads, &mut out).unwrap();
                all.extend((0..n).map(|i| payloads[i].slice(0, out[i].len).to_vec()));
                all.len() >= count
            });
            all
        };
        let f0: Vec<_> = (0..20).map(|i| frame(i, 100)).collect();
        let f1: Vec<_> = (100..120).map(|i| frame(i, 100)).collect();
        tx0.send(&f0);
        tx1.send(&f1);
        let got = rx0.receive(20);
        assert!(got.iter().zip(&f0).all(|((buf, d), f)| &rx0.bytes(*buf, d.len) == f));
        assert_eq!(host_frames(&mut host, 20), f1);
        assert_eq!(rx0.rings.rx.available(), 0);

        map.remove(0).unwrap();
        tx0.send(&f0);
        assert_eq!(host_frames(&mut host, 20), f0, "given back to the host");

        // A socket that closes leaves the map by itself.
        map.insert(0, rx0.socket.as_fd()).unwrap();
        drop(rx0);
        tx0.send(&f0);
        assert_eq!(host_frames(&mut host, 20), f0);
    });
}

#[test]
fn jumbo_frames_come_in_pieces() {
    let test = "jumbo_frames_come_in_pieces";
    in_namespace(test, || {
        let (a, b) = veth("va", "vb", 1);
        sh("ip link set va mtu 9000");
        sh("ip link set vb mtu 9000");
        let Some((map, _p, _l)) = program(test, b, XdpMode::Native) else { return };
        let mut na = Nic::open(a, 0, 2048, true);
        let mut nb = Nic::open(b, 0, 2048, true);
        map.insert(0, nb.socket.as_fd()).unwrap();
        nb.fill(2..202);
        let frames: Vec<_> = [9014, 60, 2049, 2048].into_iter().map(|n| frame(n as u32, n)).collect();
        na.send(&frames);
        let mut got = vec![Vec::new()];
        let mut pieces = 0;
        while got.len() <= frames.len() {
            let (buf, d) = nb.receive(1)[0];
            pieces += 1;
            got.last_mut().unwrap().extend(nb.bytes(buf, d.len));
            if !d.is_continued() {
                got.push(Vec::new());
            }
        }
        got.pop();
        assert_eq!(got, frames);
        println!("{pieces} descriptors");
    });
}

#[test]
fn another_holder_of_the_socket_goes_on_where_the_first_stopped() {
    let test = "another_holder_of_the_socket";
    in_namespace(test, || {
        let (a, b) = veth("va", "vb", 1);
        let Some((map, _p, _l)) = program(test, b, XdpMode::Native) else { return };
        let mut na = Nic::open(a, 0, 2048, false);
        let mut nb = Nic::open(b, 0, 2048, false);
        map.insert(0, nb.socket.as_fd()).unwrap();
        nb.fill(2..102);
        let frames: Vec<_> = (0..50).map(|i| frame(i, 200)).collect();
        na.send(&frames);
        wait_until("frames", || nb.rings.rx.available() == 50);
        nb.receive(20);
        // As after SCM_RIGHTS: nothing but the fd and the sizes.
        let fd = nb.socket.as_fd().try_clone_to_owned().unwrap();
        let rings = XskRings::map(fd.as_fd(), &nb.socket.sizes()).unwrap();
        let first = std::mem::replace(&mut nb.rings, rings);
        drop(first);
        for ((buf, d), f) in nb.receive(30).into_iter().zip(&frames[20..]) {
            assert_eq!(&nb.bytes(buf, d.len), f);
        }
        // Wrong sizes, wrong fds.
        let sizes = nb.socket.sizes();
        let e = XskRings::map(fd.as_fd(), &RingSizes { rx: 1 << 16, ..sizes }).unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::EINVAL));
        assert!(XskRings::map(fd.as_fd(), &RingSizes { rx: 100, ..sizes }).is_err());
        let (unix, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(XskRings::map(unix.as_fd(), &sizes).is_err());
    });
}

#[test]
fn one_kick_sends_a_whole_ring() {
    in_namespace("one_kick_sends_a_whole_ring", || {
        let (a, _) = veth("va", "vb", 1);
        let mut na = Nic::open(a, 0, 2048, false);
        let budget = na.socket.tx_budget();
        for i in 0..256 {
            let addr = na.layout.tx_addr(TX_BUFS + i).unwrap();
            na.rings.tx.put(i, XdpDesc { addr, len: 60, options: 0 });
        }
        na.rings.tx.submit(256);
        assert_eq!(na.rings.tx.free(), 0);
        let first = kick_tx(&na.socket).unwrap();
        let left = na.rings.tx.unsent().count() as u32;
        println!("budget {budget}: first kick {first:?}, {left} left");
        assert_eq!(left, 256 - budget.min(256));
        while !na.rings.tx.is_idle() {
            kick_tx(&na.socket).unwrap();
        }
        let mut n = 0;
        wait_until("completions", || {
            n += na.rings.comp.drain(10, |_| {});
            n == 256
        });
    });
}

#[test]
fn faults_are_told() {
    let test = "faults_are_told";
    in_namespace(test, || {
        let (a, b) = veth("va", "vb", 1);
        let Some((map, _p, _l)) = program(test, b, XdpMode::Native) else { return };
        let mut na = Nic::open(a, 0, 2048, false);
        let mut nb = Nic::open(b, 0, 2048, false);
        map.insert(0, nb.socket.as_fd()).unwrap();

        // No buffers to receive into, then a bad one.
        na.send(&[frame(1, 60), frame(2, 60)]);
        wait_until("statistics", || {
            let s = nb.socket.statistics().unwrap();
            s.rx_dropped + s.rx_fill_ring_empty_descs >= 2
        });
        println!("empty fill ring: {:?}", nb.socket.statistics().unwrap());
        nb.rings.fill.push([u64::MAX >> 16, 1 << 40, 1 << 30]);
        nb.fill(7..8);
        na.send(&[frame(3, 60)]);
        assert_eq!(nb.receive(1)[0].0, 7);
        // The kernel passes over bad addresses; its counter for them does not count
        // (XskStats::rx_invalid_descs).
        assert_eq!(nb.rings.fill.unread().count(), 0);

        // A bad descriptor to send.
        na.rings.tx.put(0, XdpDesc { addr: 1 << 40, len: 60, options: 0 });
        na.rings.tx.submit(1);
        let _ = kick_tx(&na.socket);
        wait_until("statistics", || na.socket.statistics().unwrap().tx_invalid_descs == 1);

        // The queue is taken; zero-copy is not to be had; there is no such queue.
        let small = Map::anonymous(64 * 2048).unwrap();
        let umem = Umem::new(&small, UmemLayout::unaligned(64 * 2048, 0, 2048, 64).unwrap()).unwrap();
        let config = XskConfig::new(RingSizes::for_slots(64, 64));
        let e = XskSocket::bind(b, 0, &umem, &config).unwrap_err();
        assert!(e.is_busy(), "{e}");
        let e = XskSocket::bind(b, 7, &umem, &config).unwrap_err();
        assert_eq!(e.errno(), rustix::io::Errno::INVAL, "{e}");
        let start = Instant::now();
        drop(nb);
        let again = XskSocket::bind_retry(b, 0, &umem, &config, PATIENCE).unwrap();
        println!("bound again after {:?}", start.elapsed());
        drop(again);
        let zc = XskConfig { copy_mode: CopyMode::ZeroCopy, ..config };
        let e = XskSocket::bind_retry(b, 0, &umem, &zc, PATIENCE).unwrap_err();
        assert_eq!(e.errno(), rustix::io::Errno::OPNOTSUPP, "{e}");
        println!("{e}");

        // Interface down, then gone.
        sh("ip link set va down");
        assert_eq!(kick_tx(&na.socket).unwrap(), Kick::LinkDown);
        println!("kick_rx when down: {:?}", kick_rx(&na.socket));
        sh("ip link del va");
        let e = kick_tx(&na.socket).unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::ENXIO));
    });
}

#[test]
fn a_region_serves_two_interfaces_without_copying() {
    let test = "a_region_serves_two_interfaces";
    in_namespace(test, || {
        let (a, b) = veth("va", "vb", 1);
        let (c, d) = veth("vc", "vd", 1);
        let Some((map_b, _p, _l)) = program(test, b, XdpMode::Native) else { return };
        let Some((map_d, _p2, _l2)) = program(test, d, XdpMode::Native) else { return };
        let mut source = Nic::open(a, 0, 2112, false);
        let mut sink = Nic::open(d, 0, 2112, false);
        map_d.insert(0, sink.socket.as_fd()).unwrap();
        sink.fill(2..202);
        // b and c register the same memory; what b received c sends, by address.
        let mut middle = Nic::open(b, 0, 2112, false);
        map_b.insert(0, middle.socket.as_fd()).unwrap();
        middle.fill(2..202);
        let umem = Umem::new(&middle._map, middle.layout).unwrap();
        let config = XskConfig::new(RingSizes::for_slots(256, 256));
        let out = XskSocket::bind(c, 0, &umem, &config).unwrap();
        let mut out_rings = XskRings::map(out.as_fd(), &out.sizes()).unwrap();
        let frames: Vec<_> = (0..100).map(|i| frame(i, 300)).collect();
        source.send(&frames);
        for (i, (buf, d)) in middle.receive(100).into_iter().enumerate() {
            let addr = middle.layout.tx_addr(buf).unwrap();
            out_rings.tx.put(i as u32, XdpDesc { addr, len: d.len, options: 0 });
        }
        out_rings.tx.submit(100);
        while !out_rings.tx.is_idle() {
            kick_tx(&out).unwrap();
        }
        for ((buf, d), f) in sink.receive(100).into_iter().zip(&frames) {
            assert_eq!(&sink.bytes(buf, d.len), f);
        }
    });
}
