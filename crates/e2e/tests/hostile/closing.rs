//! Files whose close waits, and other ways to make a system call of somebody else wait.

use crate::{HOSTILE, OTHER, while_stopped};
use ringway_abi::Errno;
use ringway_abi::wire::{self, Kind};
use ringway_core::layout::{Dir, RingShared};
use ringway_e2e::hostile::{Lingering, as_user, become_user, latencies};
use ringway_e2e::raw::{ask, refusal, register, register_message};
use ringway_e2e::{TestBroker, eventually, root_or_skip};
use ringway_os::event::{Doorbell, Epoll, EventFlags};
use ringway_os::sock::Conn;
use ringway_os::stall::StalledPage;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);

/// Lets stalled threads go on when a test ends, also in a panic: it would wait for them.
struct Finally<F: Fn()>(F);

impl<F: Fn()> Drop for Finally<F> {
    fn drop(&mut self) {
        self.0();
    }
}

fn closing(broker: &TestBroker) -> u64 {
    broker.json(&["broker", "status"])[0]["closing"].as_u64().unwrap()
}

/// A file that user `uid` sends with a request is closed at once, whatever others have sent.
fn sent_file_is_closed(broker: &TestBroker, uid: u32) {
    as_user(uid, || {
        let (mine, theirs) = Conn::pair().unwrap();
        let conn = Conn::connect(&broker.socket()).unwrap();
        let status = wire::message(Kind::Status, 0, &[]);
        let (bytes, _) = ask(&conn, &status, &[theirs.as_fd()]).expect("an answer");
        assert_eq!(wire::parse(&bytes).unwrap().0.errno, Errno::EPROTO.0, "one fd too many");
        drop(theirs);
        assert!(ringway_os::sys::wait_readable(mine.as_fd(), LIMIT).unwrap(), "not closed");
    });
}

/// Sends one message with a reply socket and other files, and forgets all of it.
fn send_and_forget(conn: &Conn, message: &[u8], files: &[BorrowedFd<'_>]) {
    let (_, theirs) = Conn::pair().unwrap();
    let all: Vec<_> = [theirs.as_fd()].into_iter().chain(files.iter().copied()).collect();
    conn.send(message, &all).unwrap();
}

#[test]
fn files_whose_close_waits_delay_only_who_sent_them() {
    const TEST: &str = "files_whose_close_waits_delay_only_who_sent_them";
    if !root_or_skip(TEST) {
        return;
    }
    let broker = TestBroker::start("admit = \"all\"\n[limits]\nclosing = 40");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let lingering: Vec<Lingering> = (0..8).map(|_| Lingering::new(&listener).unwrap()).collect();
    let (sockets, others): (Vec<_>, Vec<_>) = lingering.into_iter().map(|l| (l.socket, l.other)).unzip();
    let status = wire::message(Kind::Status, 0, &[]);
    // One in each place where a file that came can go out of use. All copies of ours are gone when the broker sees them.
    let path = broker.socket();
    let conns = while_stopped(&broker, || {
        as_user(HOSTILE, move || {
            let mut conns = vec![];
            for (i, socket) in sockets.into_iter().enumerate() {
                let conn = Conn::connect(&path).unwrap();
                match i {
                    0 => conn.send(&status, &[socket.as_fd()]).unwrap(),
                    1 => send_and_forget(&conn, &status, &[socket.as_fd()]),
                    2 => send_and_forget(&conn, &[9; 40], &[socket.as_fd()]),
                    3 => send_and_forget(&conn, &vec![9; wire::MAX_MESSAGE_BYTES + 1], &[socket.as_fd()]),
                    4 => send_and_forget(&conn, &wire::message(Kind::Attach, 0, &[]), &[socket.as_fd()]),
                    5 => conn.send(&[], &[socket.as_fd()]).unwrap(),
                    6 => send_and_forget(&conn, &register_message("vale7:x"), &[socket.as_fd()]),
                    _ => {
                        // Behind more than a session may say at a time, and hung up.
                        for _ in 0..20 {
                            send_and_forget(&conn, &status, &[]);
                        }
                        send_and_forget(&conn, &status, &[socket.as_fd()]);
                        continue;
                    }
                }
                conns.push(conn);
            }
            conns
        })
    });
    latencies(&broker.socket(), 201).check("lingering sockets");
    eventually("files wait", || closing(&broker) >= 8);
    sent_file_is_closed(&broker, OTHER);
    sent_file_is_closed(&broker, 0);

    // More and more files, until their sender is refused, and his descriptors end.
    let mut bound = Some(as_user(HOSTILE, || register(&broker.socket(), "vale6:h")).unwrap());
    let full = (0..40).find_map(|_| {
        as_user(HOSTILE, || {
            let bell = Doorbell::new().unwrap();
            let conn = Conn::connect(&broker.socket()).unwrap();
            send_and_forget(&conn, &wire::message(Kind::Status, 0, &[]), &[bell.as_fd(); 5]);
            register(&broker.socket(), "vale6:more").err()
        })
    });
    let (errno, text) = full.expect("a limit");
    assert!(errno == Errno::EBUSY.0 && text.contains("limits.closing"), "{errno} {text}");
    let (_, conn) = bound.take().unwrap();
    let none = ask(&conn, &wire::message(Kind::Status, 0, &[]), &[]).filter(|(bytes, _)| !bytes.is_empty());
    assert!(none.is_none(), "a session goes on");
    assert_eq!(refusal(&conn).map(|r| r.0), Some(Errno::EBUSY.0));
    // Refused connections with nothing in them do not pile up; with files in them they do.
    let before = closing(&broker);
    as_user(HOSTILE, || (0..100).for_each(|_| drop(Conn::connect(&broker.socket()).unwrap())));
    latencies(&broker.socket(), 201).check("refused connections");
    assert!(closing(&broker) < before + 20, "{} wait, {before} before", closing(&broker));
    sent_file_is_closed(&broker, OTHER);
    as_user(OTHER, || register(&broker.socket(), "vale5:o")).unwrap();

    // What they waited for is gone: all is as before.
    drop((others, conns));
    eventually("all is closed", || closing(&broker) <= 1);
    as_user(HOSTILE, || register(&broker.socket(), "vale6:again")).unwrap();
    sent_file_is_closed(&broker, HOSTILE);
}

/// Whoever waits for events has his epoll's lock while he writes them down. Closing a file that the epoll watches takes that lock.
#[test]
fn an_epoll_held_on_a_page_that_never_comes_delays_nobody() {
    const TEST: &str = "an_epoll_held_on_a_page_that_never_comes_delays_nobody";
    if !root_or_skip(TEST) {
        return;
    }
    let (lent_page, own_page) = match (StalledPage::new(), StalledPage::new()) {
        (Ok(a), Ok(b)) => (a, b),
        (Err(e), _) | (_, Err(e)) => {
            println!("SKIP {TEST}: userfaultfd: {e}");
            return;
        }
    };
    let broker = TestBroker::start("admit = \"all\"\npublic_switches = [\"vale0\"]");
    let mut tx = broker.netmap().open("vale0:tx").unwrap();
    let mut rx = broker.netmap().open("vale0:rx").unwrap();
    let (grant, conn) = as_user(HOSTILE, || register(&broker.socket(), "vale0:h")).unwrap();
    let mut exchanged = 0u64;
    let mut exchange = |n: u64| {
        for _ in 0..n {
            let mut frame = [0xff; 60];
            frame[14..22].copy_from_slice(&exchanged.to_ne_bytes());
            assert!(tx.tx(0).send(&frame));
            tx.txsync().unwrap();
            rx.rxsync().unwrap();
            let mut seen = vec![];
            rx.rx(0).drain(u32::MAX, |slot| {
                seen.extend(slot.payload().load_u64(14));
                true
            });
            assert_eq!(seen, [exchanged]);
            exchanged += 1;
        }
    };
    // One of his own, over a doorbell of which he then has no copy left.
    let own = Epoll::new().unwrap();
    own.add(grant.rx_bell.as_fd(), 0, EventFlags::IN).unwrap();
    own.add(grant.worker_bell.as_fd(), 0, EventFlags::IN).unwrap();
    std::thread::scope(|s| {
        let _release = Finally(|| {
            lent_page.release();
            own_page.release();
        });
        // The epoll that the broker lent: it gets an event when the worker wakes a sleeper.
        let ring = RingShared::new(&grant.state.map, &grant.geometry, Dir::Rx, 0).unwrap();
        let notice = grant.notice.clone();
        let lent = &lent_page;
        s.spawn(move || {
            become_user(HOSTILE);
            let _ = lent.epoll_wait(notice.as_fd());
        });
        eventually("the lent epoll is held", || {
            ring.state.sleep.owner.announce(1);
            exchange(1);
            lent_page.wait_touched(Duration::ZERO).unwrap()
        });
        grant.rx_bell.ring();
        let (page, held) = (&own_page, own.as_fd());
        s.spawn(move || {
            become_user(HOSTILE);
            let _ = page.epoll_wait(held);
        });
        assert!(own_page.wait_touched(LIMIT).unwrap());
        // The bells are rung.
        for _ in 0..100 {
            ring.state.sleep.owner.announce(1);
            exchange(1);
        }
        latencies(&broker.socket(), 101).check("a lent epoll is held");
        // The port ends: the broker closes what is watched.
        drop((ring, grant, conn));
        latencies(&broker.socket(), 101).check("what a held epoll watches is closed");
        exchange(100);
        assert!(closing(&broker) >= 1, "nothing waits: the test tests nothing");
        sent_file_is_closed(&broker, OTHER);
        as_user(OTHER, || register(&broker.socket(), "vale0:o")).unwrap();
    });
    eventually("all is closed", || closing(&broker) <= 1);
}

/// Who writes to a file has its lock while the bytes come. Giving pages of the file back takes that lock.
#[test]
fn memory_that_is_written_from_a_page_that_never_comes_delays_nobody() {
    const TEST: &str = "memory_that_is_written_from_a_page_that_never_comes_delays_nobody";
    if !root_or_skip(TEST) {
        return;
    }
    let (region_page, state_page) = match (StalledPage::new(), StalledPage::new()) {
        (Ok(a), Ok(b)) => (a, b),
        (Err(e), _) | (_, Err(e)) => {
            println!("SKIP {TEST}: userfaultfd: {e}");
            return;
        }
    };
    let broker = TestBroker::start("admit = \"all\"");
    let (grant, conn) = as_user(HOSTILE, || register(&broker.socket(), "vale1:h")).unwrap();
    std::thread::scope(|s| {
        let _release = Finally(|| {
            region_page.release();
            state_page.release();
        });
        for (page, memory) in [(&region_page, &grant.region.memfd), (&state_page, &grant.state.memfd)] {
            let memory = memory.as_fd().try_clone_to_owned().unwrap();
            s.spawn(move || {
                become_user(HOSTILE);
                let _ = page.write(memory.as_fd());
            });
            assert!(page.wait_touched(LIMIT).unwrap());
        }
        // The port ends, and with it its memory.
        drop((grant, conn));
        latencies(&broker.socket(), 101).check("memory that is being written is given back");
        assert_eq!(broker.ports().as_array().map(Vec::len), Some(0));
        assert!(closing(&broker) >= 1, "nothing waits: the test tests nothing");
        as_user(OTHER, || register(&broker.socket(), "vale2:o")).unwrap();
        // He himself goes on, too, within his limits.
        as_user(HOSTILE, || register(&broker.socket(), "vale1:h")).unwrap();
    });
    eventually("all is given back", || closing(&broker) <= 1);
}

#[test]
fn a_reply_socket_that_stalls_who_sends_on_it_gets_nothing() {
    const TEST: &str = "a_reply_socket_that_stalls_who_sends_on_it_gets_nothing";
    if !root_or_skip(TEST) {
        return;
    }
    let page = match StalledPage::new() {
        Ok(page) => page,
        Err(e) => return println!("SKIP {TEST}: userfaultfd: {e}"),
    };
    let broker = TestBroker::start("admit = \"all\"");
    let status = wire::message(Kind::Status, 0, &[]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // TCP: its lock is held by who sends out of memory that never comes.
    let tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    // A Unix socket that asks for credentials, and so is given a name as it sends: under a lock that who names it himself may hold.
    let unnamed =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .unwrap();
    rustix::net::sockopt::set_socket_passcred(&unnamed.0, true).unwrap();
    std::thread::scope(|s| {
        let _release = Finally(|| page.release());
        s.spawn(|| page.send(tcp.as_fd()));
        assert!(page.wait_touched(LIMIT).unwrap());
        as_user(HOSTILE, || {
            let conn = Conn::connect(&broker.socket()).unwrap();
            for reply in [tcp.as_fd(), unnamed.0.as_fd()] {
                conn.send(&status, &[reply]).unwrap();
                // As a channel to be watched, too.
                let (_mine, theirs) = Conn::pair().unwrap();
                conn.send(&wire::message(Kind::Attach, 0, &[]), &[theirs.as_fd(), reply]).unwrap();
            }
            assert!(ask(&conn, &status, &[]).is_some(), "the next request is answered");
            let none = rustix::net::recv(&unnamed.1, &mut [0; 8][..], rustix::net::RecvFlags::DONTWAIT);
            assert!(none.is_err(), "it was used");
        });
        latencies(&broker.socket(), 101).check("reply sockets that stall");
    });
}
