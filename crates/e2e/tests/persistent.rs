//! Persistent switch ports through the broker: interfaces that the system shows, and the broker's life.

use ringway::{Broker, Errno, Interest, OpenError};
use ringway_abi::{NETMAP_REQ_VALE_LIST, nmreq_vale_list};
use ringway_e2e::ns::Ns;
use ringway_e2e::requests::{ask, attach, delif, detach, newif};
use ringway_e2e::{TempDir, TestBroker, programs, root_or_skip};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use zerocopy::IntoBytes;

#[test]
fn the_system_shows_the_interface_and_it_goes_with_the_port_or_the_broker() {
    const TEST: &str = "the_system_shows_the_interface_and_it_goes_with_the_port_or_the_broker";
    if !root_or_skip(TEST) || !Path::new("/dev/net/tun").exists() {
        println!("SKIP {TEST}: needs /dev/net/tun");
        return;
    }
    let Some(ns) = Ns::new(TEST) else { return };
    let mut test_broker = TestBroker::start("");
    let (socket, netmap) = (test_broker.socket(), test_broker.netmap());
    let shown = || ns.try_sh("ip link show v0").1;
    ns.run(|| {
        let broker = Broker::at(&socket).unwrap();
        assert_eq!(newif(&broker, "v0").unwrap().nr_tx_slots, 1024);
        assert!(shown().contains("v0:"), "{}", shown());
        assert_eq!(newif(&broker, "v0"), Err(Errno::EEXIST));
        // Up and down; its MTU counts.
        ns.sh("ip link set v0 up");
        ns.sh("ip link set v0 mtu 9000");
        assert!(shown().contains("UP"));
        let refused = netmap.open("netmap:v0").unwrap_err();
        assert!(matches!(refused, OpenError::Refused { errno: Errno::EINVAL, .. }), "{refused}");
        ns.sh("ip link set v0 mtu 1500");
        // It is the switch port that opens, not the interface; by its new name, too.
        assert_eq!(netmap.open("netmap:v0").unwrap().nic_path(), None);
        ns.sh("ip link set v0 down; ip link set v0 name w0; ip link set w0 up");
        assert_eq!(netmap.open("netmap:w0").unwrap().name(), "v0");
        ns.sh("ip link set w0 down; ip link set w0 name v0");

        let listed = || {
            let port = &test_broker.json(&["ports", "--interval", "0"])[0];
            (port["name"].as_str().unwrap().to_owned(), port["kind"].as_str().unwrap().to_owned())
        };
        assert_eq!(listed(), ("v0".into(), "persistent".into()));
        assert_eq!(attach(&broker, "vale1:v0"), Ok(0));
        assert_eq!(listed(), ("vale1:v0".into(), "persistent".into()));
        let mut at = nmreq_vale_list::default();
        assert_eq!(ask(&broker, NETMAP_REQ_VALE_LIST, "", at.as_mut_bytes()), Ok("vale1:v0".into()));
        let (mut v, mut a) = (netmap.open("netmap:v0").unwrap(), netmap.open("vale1:a").unwrap());
        for (from, to) in [(0, 1), (1, 0)] {
            let ports = [&mut v, &mut a];
            ports[from].tx(0).fill(1, |slot| {
                slot.payload().copy_from(&[0xff; 60]);
                slot.set(60, 0);
                true
            });
            ports[from].txsync().unwrap();
            assert!(ports[to].wait(Interest::RX, Some(Duration::from_secs(1))).unwrap().rx);
            assert_eq!(ports[to].rx(0).drain(9, |slot| slot.len() == 60), 1);
        }
        assert_eq!(detach(&broker, "vale1:v0"), Ok(0), "while it is open");
        assert_eq!(delif(&broker, "v0"), Err(Errno::EBUSY));
        drop((v, a));
        assert_eq!(delif(&broker, "v0"), Ok(()));
        assert!(!shown().contains("v0:"), "{}", shown());
        assert_eq!(delif(&broker, "v0"), Err(Errno::ENXIO));

        newif(&broker, "v0").unwrap();
        assert!(shown().contains("v0:"));
    });
    test_broker.kill();
    // The kernel closes the files of a dead process before it can be waited for.
    assert!(!shown().contains("v0:"), "{}", shown());
}

/// A process that does not outlive the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_broker_does_not_end_while_it_keeps_a_persistent_port() {
    let dir = TempDir::new();
    let socket = dir.path().join("sock");
    let Some(ns) = Ns::new("a_broker_does_not_end_while_it_keeps_a_persistent_port") else { return };
    let child = Command::new(programs().join("ringway"))
        .args(["broker", "run", "--socket"])
        .arg(&socket)
        .env("XDG_CONFIG_HOME", dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the broker starts");
    let mut child = Killed(child);
    let mut line = String::new();
    BufReader::new(child.0.stdout.take().expect("piped")).read_line(&mut line).expect("the broker speaks");
    ns.run(|| newif(&Broker::at(&socket).unwrap(), "v2")).unwrap();
    // Longer than a broker that nobody uses lives.
    std::thread::sleep(Duration::from_secs(6));
    assert!(child.0.try_wait().unwrap().is_none(), "it ended, and took the port along");
    ns.run(|| delif(&Broker::at(&socket).unwrap(), "v2")).unwrap();
    let since = Instant::now();
    assert!(child.0.wait().unwrap().success());
    assert!(since.elapsed() < Duration::from_secs(20));
}
