//! Questions about interfaces, and news of them.

use std::os::fd::AsFd;

use ringway_os::link::{self, Link, LinkChange, LinkMonitor, Offloads, with_netns};

#[path = "nic_util.rs"]
mod util;
use util::{in_namespace, sh, veth, wait_until};

#[test]
fn a_link_tells_what_it_is() {
    in_namespace("a_link_tells_what_it_is", || {
        let (a, b) = veth("va", "vb", 2);
        sh("ip link set va mtu 1400");
        sh("ip link set va address 02:00:00:00:00:0a");
        let l = Link::by_name("va").unwrap();
        assert_eq!((l.ifindex, l.mtu, l.mac), (a, 1400, Some([2, 0, 0, 0, 0, 10])));
        assert!(l.up && l.running && !l.loopback && !l.promiscuous);
        assert_eq!((l.kind.as_deref(), l.driver.as_deref()), (Some("veth"), Some("veth")));
        assert_eq!((l.num_rx_queues, l.num_tx_queues), (2, 2));
        assert!(l.xdp.is_empty());
        assert!(
            l.offloads.contains(Offloads::GSO | Offloads::TSO | Offloads::TX_CHECKSUM),
            "{:?}",
            l.offloads
        );
        println!("{l:?} {:?}", l.offloads.names());
        sh("ethtool -K va tso off gso off tx off gro off");
        let off = Link::by_index(a).unwrap().offloads;
        let all = Offloads::GSO | Offloads::TSO | Offloads::TX_CHECKSUM | Offloads::GRO;
        assert!(!off.intersects(all), "{off:?}");
        sh("ethtool -L va rx 1 tx 1");
        let l = Link::by_index(a).unwrap();
        assert_eq!((l.num_rx_queues, l.num_tx_queues), (1, 1), "queues in use, not queues made");

        sh("ip link set vb down");
        let l = Link::by_index(a).unwrap();
        assert!(l.up && !l.running, "no carrier");
        assert_eq!(link::index_of("vb").unwrap(), b);
        assert_eq!(link::name_of(b).unwrap(), "vb");
        assert!(Link::by_name("lo").unwrap().loopback);
        let mut names: Vec<_> = Link::all().unwrap().into_iter().map(|l| l.name).collect();
        names.sort();
        assert_eq!(names, ["lo", "va", "vb"]);

        for name in ["nosuch", "", "a-name-longer-than-15", "a\0b"] {
            let errno = Link::by_name(name).unwrap_err().raw_os_error();
            assert_eq!(errno, Some(if name == "nosuch" { libc::ENODEV } else { libc::EINVAL }), "{name}");
        }
        assert_eq!(Link::by_index(9999).unwrap_err().raw_os_error(), Some(libc::ENODEV));
    });
}

#[test]
fn the_monitor_tells_what_changes() {
    in_namespace("the_monitor_tells_what_changes", || {
        let (a, b) = veth("va", "vb", 1);
        let mut monitor = LinkMonitor::open().unwrap();
        assert_eq!(monitor.events().unwrap(), []);
        // What the kernel tells comes in order, but some of it late (carrier: up to a second).
        let mut expect = |ifindex: u32, change: LinkChange| {
            wait_until(&format!("{change:?}"), || {
                monitor.events().unwrap().iter().any(|e| e.ifindex == ifindex && e.change == change)
            });
        };
        sh("ip link set va mtu 1300");
        expect(a, LinkChange::MtuChanged(1300));
        sh("ip link set va down");
        expect(a, LinkChange::Down);
        sh("ip link set va name vc");
        expect(a, LinkChange::Renamed("vc".into()));
        sh("ip link set vc up");
        expect(a, LinkChange::Up);
        sh("ip link set vb down");
        expect(a, LinkChange::Carrier(false));
        sh("ip link add br0 type bridge");
        let bridge = link::index_of("br0").unwrap();
        expect(bridge, LinkChange::Added("br0".into()));
        // Leaving a bridge is a DELLINK of family AF_BRIDGE: no deletion.
        sh("ip link set vc master br0");
        sh("ip link set vc nomaster");
        sh("ip link set vc mtu 1400");
        let mut seen = Vec::new();
        wait_until("mtu", || {
            seen.extend(monitor.events().unwrap());
            seen.iter().any(|e| e.change == LinkChange::MtuChanged(1400))
        });
        assert!(!seen.iter().any(|e| e.change == LinkChange::Deleted), "{seen:?}");
        sh("ip link del vc");
        let mut gone = Vec::new();
        wait_until("deletion", || {
            gone.extend(monitor.events().unwrap().into_iter().filter(|e| e.change == LinkChange::Deleted));
            gone.len() == 2
        });
        assert!(gone.iter().any(|e| e.ifindex == a) && gone.iter().any(|e| e.ifindex == b));
    });
}

#[test]
fn the_monitor_survives_an_overrun() {
    in_namespace("the_monitor_survives_an_overrun", || {
        let (a, b) = veth("va", "vb", 1);
        let mut monitor = LinkMonitor::open().unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size(monitor.as_fd(), 4096).unwrap();
        for mtu in 1000..1040 {
            sh(&format!("ip link set va mtu {mtu}"));
        }
        sh("ip link del vb");
        let events = monitor.events().unwrap();
        for i in [a, b] {
            assert!(events.iter().any(|e| e.ifindex == i && e.change == LinkChange::Deleted), "{events:?}");
        }
    });
}

#[test]
fn work_in_another_namespace_leaves_the_caller_where_it_is() {
    in_namespace("work_in_another_namespace", || {
        let name = format!("rwos{}", std::process::id());
        sh(&format!("ip netns add {name}"));
        let _cleanup = DeleteNetns(name.clone());
        let ns = std::fs::File::open(format!("/run/netns/{name}")).unwrap();
        let in_there = with_netns(ns.as_fd(), || {
            sh("ip link add inner type bridge");
            Link::by_name("inner").map(|l| l.kind)
        });
        assert_eq!(in_there.unwrap().unwrap().as_deref(), Some("bridge"));
        assert!(Link::by_name("inner").is_err());
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(with_netns(file.as_fd(), || ()).is_err());
    });
}

struct DeleteNetns(String);

impl Drop for DeleteNetns {
    fn drop(&mut self) {
        let _ = std::process::Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}
