//! Messages of every wrong kind.

use ringway_abi::wire::{self, Kind};
use ringway_abi::{
    Errno, NETMAP_API, NETMAP_REQ_REGISTER, NR_REG_ALL_NIC, c_name_field, nmreq_header, nmreq_opt_extmem,
    nmreq_pools_info, nmreq_register,
};
use ringway_core::control::ReqOption;
use ringway_core::handover::options_out;
use ringway_e2e::TestBroker;
use ringway_e2e::hostile::{Random, latencies};
use ringway_e2e::raw::answer;
use ringway_os::event::Doorbell;
use ringway_os::sock::Conn;
use rustix::fs::{MemfdFlags, SealFlags};
use std::os::fd::{AsFd, BorrowedFd};
use zerocopy::IntoBytes;

#[test]
fn nonsense_is_refused_and_costs_others_nothing() {
    let broker = TestBroker::start("");
    let mut random = Random(0x1234_5678_9abc_def1);
    let good = wire::message(Kind::Control, 0, &[0; 200]);
    for round in 0..2000 {
        let mut message = good.clone();
        match round % 5 {
            0 => message.iter_mut().for_each(|b| *b = random.next() as u8),
            1 => message.truncate(random.next() as usize % message.len()),
            2 => message.resize(15_000, 0xff),
            3 => {
                let at = 7 + random.next() as usize % (message.len() - 7);
                message[at] ^= 1 << (random.next() % 8);
            }
            // All kinds but STOP, which we may ask for.
            _ => message[6] = [0, 1, 2, 3, 4, 5, 6, 7, 9, 16, 100][(random.next() % 11) as usize],
        }
        if message.is_empty() {
            continue;
        }
        let bell = Doorbell::new().unwrap();
        let extra = [bell.as_fd(); 5];
        let some = &extra[..random.next() as usize % 6];
        if let Some((bytes, _, _)) = answer(&broker.socket(), &message, some)
            && let Ok((head, kind, _)) = wire::parse(&bytes)
        {
            assert_eq!(kind, Kind::Reply);
            assert!(head.errno >= 0);
        }
    }
    latencies(&broker.socket(), 101).check("nonsense");
    assert_eq!(broker.json(&["broker", "status"])[0]["ports"], 0);
}

/// A REGISTER with the EXTMEM option and memory.
fn register_in(name: &str, memsize: u64) -> Vec<u8> {
    let nro_info = nmreq_pools_info { nr_memsize: memsize, ..Default::default() };
    let option = ReqOption::extmem(&nmreq_opt_extmem { nro_info, ..Default::default() });
    let header = nmreq_header {
        nr_version: NETMAP_API,
        nr_reqtype: NETMAP_REQ_REGISTER,
        nr_name: c_name_field(name).expect("a short name"),
        ..Default::default()
    };
    let req = nmreq_register { nr_mode: NR_REG_ALL_NIC, ..Default::default() };
    let control = wire::Control { header, options: 1, ..Default::default() };
    let pages = wire::Pages::default();
    let parts = [pages.as_bytes(), control.as_bytes(), req.as_bytes(), &options_out(&[option])];
    wire::message(Kind::ControlIn, 0, &parts.concat())
}

#[test]
fn memory_that_could_change_its_size_is_not_mapped() {
    const LEN: u64 = 12 << 20;
    let broker = TestBroker::start("");
    let errno = |fd: BorrowedFd<'_>, len: u64| {
        let got = answer(&broker.socket(), &register_in("vale0:m", len), &[fd]);
        let (bytes, fds, _) = got.expect("an answer");
        let (head, ..) = wire::parse(&bytes).unwrap();
        (head.errno, fds.is_empty())
    };
    let file = |seals: SealFlags| {
        let fd = rustix::fs::memfd_create("hostile", MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&fd, LEN).unwrap();
        rustix::fs::fcntl_add_seals(&fd, seals).unwrap();
        fd
    };
    let bell = Doorbell::new().unwrap();
    let (socket, _other) = Conn::pair().unwrap();
    let plain = std::fs::File::options().read(true).write(true).open("/dev/zero").unwrap();
    for fd in [bell.as_fd(), socket.as_fd(), plain.as_fd()] {
        assert_eq!(errno(fd, LEN), (Errno::EFAULT.0, true));
    }
    let all = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    for seals in [SealFlags::empty(), SealFlags::SHRINK, all - SealFlags::SHRINK, all | SealFlags::WRITE] {
        assert_eq!(errno(file(seals).as_fd(), LEN), (Errno::EFAULT.0, true), "{seals:?}");
    }
    // More is said than there is.
    assert_eq!(errno(file(all).as_fd(), LEN + 1), (Errno::ENOMEM.0, true));
    assert_eq!(errno(file(all).as_fd(), u64::MAX), (Errno::ENOMEM.0, true));
    assert_eq!(errno(file(all).as_fd(), LEN), (0, false));
    // Too short, and for another request: refused, and no memory is kept for the next.
    let short = wire::message(Kind::ControlIn, 0, &[0; 20]);
    assert!(answer(&broker.socket(), &short, &[file(all).as_fd()]).is_some());
    latencies(&broker.socket(), 101).check("memory");
    assert_eq!(broker.json(&["broker", "status"])[0]["ports"], 0);
}
