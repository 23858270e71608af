//! Memory that a client brings (abi.md 9.12, semantics.md 13), and what the registry says of CSB mode (abi.md 12).

use super::*;
use crate::sync_loop::LoopWord;
use ringway_abi::{
    NR_EXCLUSIVE, NR_REG_NULL, NR_RX_RINGS_ONLY, NR_TX_RINGS_ONLY, nmreq_opt_extmem, nmreq_pools_info,
};
use ringway_os::mem::Memfd;
use ringway_os::sys::file_id;
use std::os::fd::AsFd;

const OTHER: Asker = Asker { uid: 1001 };
const MEM_BYTES: u64 = 12 << 20;
const FILE: PagesKey = PagesKey { file: (5, 77), offset: 4096, len: MEM_BYTES };

fn memory() -> Memfd {
    let memfd = Memfd::create("test", MEM_BYTES as usize).unwrap();
    memfd.write_at(b"mine", MEM_BYTES as usize - 4).unwrap();
    memfd
}

fn extmem(len: u64) -> ReqOption {
    let nro_info = nmreq_pools_info {
        nr_memsize: len,
        nr_if_pool_objtotal: 4,
        nr_ring_pool_objtotal: 8,
        ..Default::default()
    };
    ReqOption::extmem(&nmreq_opt_extmem { nro_info, ..Default::default() })
}

/// Binds in memory of the asker's. Also what the option says.
fn open(
    r: &mut Registry,
    who: Asker,
    name: &str,
    memfd: Memfd,
    pages: Option<PagesKey>,
) -> (Result<BindingId, Errno>, nmreq_opt_extmem, u32) {
    let mut options = [extmem(MEM_BYTES)];
    r.offer(Some(Offer { memfd, pages }));
    let req = nmreq_register { nr_tx_slots: 64, nr_rx_slots: 64, ..all() };
    let done = r.register_with(who, name, &req, &mut options).map_err(|e| e.errno);
    let [option] = options;
    (done, option.as_extmem().unwrap(), option.nro_status)
}

fn mem_id(r: &Registry, id: BindingId) -> u16 {
    r.grant(id).unwrap().mem_id
}

#[test]
fn s13_the_same_pages_are_one_region_for_one_user() {
    let mut r = registry();
    let memfd = memory();
    let own = PagesKey { file: file_id(memfd.as_fd()).unwrap(), offset: 0, len: MEM_BYTES };
    let (a, told, status) = open(&mut r, ME, "vale0:a", memfd, Some(FILE));
    let a = a.unwrap();
    assert_eq!((status, told.nro_usrptr), (0, mem_id(&r, a).into()));
    let info = told.nro_info;
    assert_eq!((info.nr_if_pool_objtotal, info.nr_buf_pool_objtotal, info.nr_mem_id), (4, 4098, 0));
    // By the pages that they were, and by those that they are now.
    for (i, pages) in [FILE, own].into_iter().enumerate() {
        let (b, told, _) = open(&mut r, ME, &format!("vale0:b{i}"), memory(), Some(pages));
        let b = b.unwrap();
        assert_eq!((mem_id(&r, b), told.nro_usrptr), (mem_id(&r, a), mem_id(&r, a).into()));
        assert_eq!(told.nro_info.nr_buf_pool_objtotal, 0, "what it asks is not looked at");
    }
    for pages in [PagesKey { offset: 0, ..FILE }, PagesKey { file: (5, 78), ..FILE }] {
        let (b, ..) = open(&mut r, ME, "x{1", memory(), Some(pages));
        let b = b.unwrap();
        assert_ne!(mem_id(&r, b), mem_id(&r, a));
        r.unbind(b);
    }
    let (theirs, ..) = open(&mut r, OTHER, "vale1:c", memory(), Some(FILE));
    assert_ne!(mem_id(&r, theirs.unwrap()), mem_id(&r, a));
}

#[test]
fn s13_what_the_memory_holds_is_the_clients_when_the_region_is_gone() {
    let mut r = registry();
    let memfd = memory();
    let ours = Memfd::adopt(memfd.as_fd().try_clone_to_owned().unwrap()).unwrap();
    let (a, ..) = open(&mut r, ME, "vale0:a", memfd, None);
    r.unbind(a.unwrap());
    assert!(r.is_empty());
    assert!(ours.read_all().unwrap().ends_with(b"mine"));
}

#[test]
fn abi_9_12_what_fails_leaves_no_region() {
    let mut r = registry();
    let mut ask = |name: &str, req: &nmreq_register, len: u64, offered: bool| {
        let mut options = [extmem(len)];
        r.offer(offered.then(|| Offer { memfd: memory(), pages: None }));
        let done = r.register_with(ME, name, req, &mut options).map_err(|e| e.errno);
        let id = done.inspect(|id| r.unbind(*id));
        assert!(r.is_empty());
        (id.err(), options[0].nro_status)
    };
    let status = |e: Errno| e.0 as u32;
    let null = nmreq_register { nr_mode: NR_REG_NULL, nr_mem_id: 4711, ..Default::default() };
    assert_eq!(ask("any", &null, MEM_BYTES, true), (None, 0), "an id is not looked at");
    assert_eq!(ask("vale0:a", &all(), 0, true), (Some(Errno::ENOMEM), status(Errno::ENOMEM)));
    assert_eq!(ask("vale0:a", &all(), MEM_BYTES + 1, true), (Some(Errno::ENOMEM), status(Errno::ENOMEM)));
    assert_eq!(ask("vale0:a", &all(), 1 << 20, true), (Some(Errno::ENOMEM), status(Errno::ENOMEM)));
    assert_eq!(ask("eth99", &all(), MEM_BYTES, true), (Some(Errno::ENXIO), 0));
    // Without memory it is an option that nobody serves.
    assert_eq!(
        ask("vale0:a", &all(), MEM_BYTES, false),
        (Some(Errno::EOPNOTSUPP), status(Errno::EOPNOTSUPP))
    );
}

#[test]
fn s13_a_port_that_is_there_keeps_its_region() {
    let mut r = registry();
    let a = r.register(ME, "vale0:a", &all()).unwrap();
    let (b, told, status) = open(&mut r, ME, "vale0:a", memory(), None);
    let b = b.unwrap();
    assert_eq!((status, mem_id(&r, b)), (0, mem_id(&r, a)));
    assert_ne!(told.nro_usrptr, u64::from(mem_id(&r, b)));
    r.unbind(a);
    r.unbind(b);
    assert!(r.is_empty());
}

#[test]
fn abi_12_csb_mode_needs_rings_of_ones_own_and_room() {
    use CsbArray::{Entries, Misaligned};
    let mut r = registry();
    let mut ask = |nr_flags, app, kern| {
        let mut options = [ReqOption::csb(app, kern)];
        let req = nmreq_register { nr_flags, ..all() };
        let done = r.register_with(ME, "vale0:a", &req, &mut options).map_err(|e| e.errno);
        let id = done.inspect(|id| r.unbind(*id));
        assert!(r.is_empty());
        let status = options[0].nro_status;
        assert_eq!(status, id.err().map_or(0, |e| e.0 as u32));
        id.err()
    };
    assert_eq!(ask(NR_EXCLUSIVE, Entries(2), Entries(2)), None);
    assert_eq!(ask(0, Entries(2), Entries(2)), Some(Errno::EINVAL));
    assert_eq!(ask(NR_EXCLUSIVE, Misaligned, Entries(0)), Some(Errno::EINVAL));
    assert_eq!(ask(NR_EXCLUSIVE, Entries(1), Misaligned), Some(Errno::EFAULT));
    assert_eq!(ask(NR_EXCLUSIVE, Entries(2), Entries(1)), Some(Errno::EFAULT));
    assert_eq!(ask(NR_TX_RINGS_ONLY | NR_EXCLUSIVE, Entries(1), Entries(1)), None);
    assert_eq!(ask(NR_TX_RINGS_ONLY | NR_RX_RINGS_ONLY, Misaligned, Misaligned), None);
}

#[test]
fn abi_12_a_loop_ends_with_its_process_and_with_its_binding() {
    let mut r = registry();
    let req = nmreq_register { nr_flags: NR_EXCLUSIVE, ..all() };
    let a = r.register(ME, "x{1", &req).unwrap();
    let port = r.bindings[&a].port;
    let tx = r.handle(port, crate::layout::Dir::Tx, 0).unwrap();
    let word = LoopWord::of(&tx.shared.state);
    word.turn_on().unwrap();
    word.begin(100).unwrap();
    let _ = word.ask_stop();
    assert_eq!((r.break_locks(|n| n == 101), word.runner()), (0, 100));
    assert_eq!((r.break_locks(|n| n == 100), word.runner(), word.wants_stop()), (1, 0, false));
    assert!(word.is_on());
    // The rings of a pipe outlive the binding, its mode does not.
    let other = r.register(ME, "x}1", &all()).unwrap();
    r.unbind(a);
    let again = r.register(ME, "x{1", &req).unwrap();
    assert!(!word.is_on());
    r.unbind(again);
    r.unbind(other);
}
