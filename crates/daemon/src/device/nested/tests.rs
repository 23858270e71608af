use super::*;
use ringway_abi::{
    NETMAP_API, NETMAP_REQ_OPT_CSB, NETMAP_REQ_OPT_OFFSETS, NETMAP_REQ_REGISTER, NETMAP_REQ_VALE_DELIF,
};
use std::cell::RefCell;

/// Memory from address 4096 on.
struct Memory(RefCell<Vec<u8>>);

const BASE: u64 = 4096;

impl Memory {
    fn new() -> Self {
        Memory(RefCell::new(vec![0; 16384]))
    }

    fn range(&self, addr: u64, len: usize) -> Result<std::ops::Range<usize>, Errno> {
        let start = usize::try_from(addr.wrapping_sub(BASE)).map_err(|_| Errno::EFAULT)?;
        let end = start.checked_add(len).filter(|e| *e <= self.0.borrow().len()).ok_or(Errno::EFAULT)?;
        Ok(start..end)
    }

    /// An option at `addr`.
    fn put(&self, addr: u64, nro_reqtype: u32, nro_next: u64, nro_size: u64) {
        let head = nmreq_option { nro_next, nro_reqtype, nro_status: 7, nro_size };
        self.write(addr, head.as_bytes()).unwrap();
    }

    fn status(&self, addr: u64) -> u32 {
        let mut status = [0; 4];
        self.read(addr + STATUS_OFS, &mut status).unwrap();
        u32::from_ne_bytes(status)
    }
}

impl UserMemory for Memory {
    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Errno> {
        buf.copy_from_slice(&self.0.borrow()[self.range(addr, buf.len())?]);
        Ok(())
    }
    fn write(&self, addr: u64, data: &[u8]) -> Result<(), Errno> {
        let range = self.range(addr, data.len())?;
        self.0.borrow_mut()[range].copy_from_slice(data);
        Ok(())
    }
}

fn header(nr_options: u64) -> nmreq_header {
    nmreq_header {
        nr_version: NETMAP_API,
        nr_reqtype: NETMAP_REQ_REGISTER,
        nr_options,
        nr_body: BASE,
        ..Default::default()
    }
}

const EINVAL: u32 = Errno::EINVAL.0 as u32;

#[test]
fn headers_are_checked_before_anything_is_read() {
    let memory = Memory::new();
    let good = header(0);
    assert_eq!(read(&good, &memory).unwrap().body.len(), 56);
    for bad in [
        nmreq_header { nr_version: 13, ..good },
        nmreq_header { nr_version: 16, ..good },
        nmreq_header { nr_reserved: 1, ..good },
        nmreq_header { nr_body: 0, ..good },
        nmreq_header { nr_reqtype: NETMAP_REQ_VALE_DELIF, ..good },
        nmreq_header { nr_reqtype: 99, ..good },
    ] {
        assert_eq!(read(&bad, &memory).unwrap_err(), Errno::EINVAL, "{bad:?}");
    }
    let bad = nmreq_header { nr_body: u64::MAX - 8, ..good };
    assert_eq!(read(&bad, &memory).unwrap_err(), Errno::EFAULT);
}

#[test]
fn options_come_with_their_bodies_and_go_with_their_statuses() {
    let memory = Memory::new();
    let (a, b) = (BASE + 1000, BASE + 2000);
    memory.put(a, NETMAP_REQ_OPT_OFFSETS, b, 0);
    memory.write(a + 24, &[5; 32]).unwrap();
    memory.put(b, 77, 0, u64::MAX);
    let mut nested = read(&header(a), &memory).unwrap();
    assert_eq!(nested.options[0].body, [5; 32]);
    assert_eq!((nested.options[1].nro_reqtype, nested.options[1].body.len()), (77, 0));
    nested.body[0] = 9;
    nested.options[0].body[0] = 6;
    nested.options[1].nro_status = 95;
    nested.write(&header(a), false, &memory).unwrap();
    assert_eq!((memory.status(a), memory.status(b)), (0, 95));
    let mut byte = [0];
    memory.read(BASE, &mut byte).unwrap();
    assert_eq!(byte, [0], "the body stays as it was when the request failed");
    nested.write(&header(a), true, &memory).unwrap();
    memory.read(BASE, &mut byte).unwrap();
    assert_eq!(byte, [9]);
    memory.read(a + 24, &mut byte).unwrap();
    assert_eq!(byte, [6]);
}

#[test]
fn bad_lists_end_and_say_where() {
    let memory = Memory::new();
    let (a, b) = (BASE + 1000, BASE + 2000);
    // A type of 0.
    memory.put(a, NETMAP_REQ_OPT_CSB, b, 0);
    memory.put(b, 0, 0, 0);
    assert_eq!(read(&header(a), &memory).unwrap_err(), Errno::EINVAL);
    assert_eq!((memory.status(a), memory.status(b)), (0, EINVAL));
    // A circle through a known one: twice the same.
    memory.put(b, 77, a, 0);
    assert_eq!(read(&header(a), &memory).unwrap_err(), Errno::EINVAL);
    assert_eq!((memory.status(a), memory.status(b)), (EINVAL, 0));
    // One of unknown ones: nothing is written.
    memory.put(a, 78, b, 0);
    memory.put(b, 77, a, 0);
    assert_eq!(read(&header(a), &memory).unwrap_err(), Errno::EMSGSIZE);
    assert_eq!((memory.status(a), memory.status(b)), (7, 7));
    // Too long.
    memory.put(a, NETMAP_REQ_OPT_CSB, 0, 4097);
    assert_eq!(read(&header(a), &memory).unwrap_err(), Errno::EMSGSIZE);
    // Beyond memory.
    memory.put(a, NETMAP_REQ_OPT_CSB, 8, 0);
    assert_eq!(read(&header(a), &memory).unwrap_err(), Errno::EFAULT);
    assert_eq!(memory.status(a), 0);
}
