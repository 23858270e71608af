//! The older calls NIOCREGIF and NIOCGINFO: each becomes a request of the newer interface, [`regif`] and [`ginfo`]. What comes back of
//! that goes into the older structure, [`Converted::write_back`]. Nothing is asked of anybody here.
//!
//! Source: abi.md 11.

use ringway_abi::legacy::*;
use ringway_abi::*;
use zerocopy::{FromBytes, IntoBytes};

/// What an older call asks, as a newer request without options.
#[derive(Debug)]
pub struct Converted {
    /// Its head: to be served, and written to, as that of NIOCCTRL.
    pub header: nmreq_header,
    /// Its body, likewise.
    pub body: Vec<u8>,
}

fn request(name: &[u8], nr_reqtype: u16, body: &[u8]) -> Result<Converted, Errno> {
    let mut header = nmreq_header { nr_version: NETMAP_API, nr_reqtype, ..Default::default() };
    // Its last byte stays NUL.
    header.nr_name[..NETMAP_REQ_IFNAMSIZ - 1]
        .get_mut(..name.len())
        .ok_or(Errno::ENOMEM)?
        .copy_from_slice(name);
    Ok(Converted { header, body: body.to_vec() })
}

fn name_of(req: &nmreq) -> Vec<u8> {
    c_name(&req.nr_name[..IFNAMSIZ - 1]).to_vec()
}

fn check_version(req: &nmreq) -> Result<(), Errno> {
    if req.nr_version < u32::from(NETMAP_MIN_API) { Err(Errno::EINVAL) } else { Ok(()) }
}

/// The binding that the older fields describe. A pipe's number goes to the end of the name.
fn register(req: &nmreq, name: &mut Vec<u8>) -> nmreq_register {
    let ringid = req.nr_ringid & NETMAP_RING_MASK;
    let mut out = nmreq_register {
        nr_tx_slots: req.nr_tx_slots,
        nr_rx_slots: req.nr_rx_slots,
        nr_tx_rings: req.nr_tx_rings,
        nr_rx_rings: req.nr_rx_rings,
        nr_mem_id: req.nr_arg2,
        nr_ringid: ringid,
        nr_mode: req.nr_flags & NR_REG_MASK,
        nr_extra_bufs: req.nr_arg3,
        nr_flags: u64::from(req.nr_flags & !NR_REG_MASK),
        ..Default::default()
    };
    match out.nr_mode {
        NR_REG_DEFAULT => {
            out.nr_mode = if req.nr_ringid & NETMAP_SW_RING != 0 {
                NR_REG_SW
            } else if req.nr_ringid & NETMAP_HW_RING != 0 {
                NR_REG_ONE_NIC
            } else {
                NR_REG_ALL_NIC
            };
        }
        NR_REG_PIPE_MASTER | NR_REG_PIPE_SLAVE => {
            let brace = if out.nr_mode == NR_REG_PIPE_MASTER { '{' } else { '}' };
            name.extend(format!("{brace}{ringid}").bytes());
            (out.nr_mode, out.nr_ringid) = (NR_REG_ALL_NIC, 0);
        }
        _ => {}
    }
    if req.nr_ringid & NETMAP_NO_TX_POLL != 0 {
        out.nr_flags |= NR_NO_TX_POLL;
    }
    if req.nr_ringid & NETMAP_DO_RX_POLL != 0 {
        out.nr_flags |= NR_DO_RX_POLL;
    }
    out
}

/// NIOCREGIF.
///
/// # Errors
/// EINVAL for a version or command that does not exist; ENOMEM where the conversion fails.
pub fn regif(req: &nmreq) -> Result<Converted, Errno> {
    check_version(req)?;
    let mut name = name_of(req);
    match req.nr_cmd {
        0 => {
            let body = register(req, &mut name);
            request(&name, NETMAP_REQ_REGISTER, body.as_bytes())
        }
        NETMAP_BDG_ATTACH => {
            let mut reg = register(req, &mut name);
            let with_host = req.nr_arg1 & NETMAP_BDG_HOST != 0;
            reg.nr_mode = if with_host { NR_REG_NIC_SW } else { NR_REG_ALL_NIC };
            let body = nmreq_vale_attach { reg, ..Default::default() };
            request(&name, NETMAP_REQ_VALE_ATTACH, body.as_bytes())
        }
        NETMAP_BDG_DETACH => request(&name, NETMAP_REQ_VALE_DETACH, nmreq_vale_detach::default().as_bytes()),
        NETMAP_BDG_VNET_HDR => {
            let body = nmreq_port_hdr { nr_hdr_len: req.nr_arg1.into(), ..Default::default() };
            request(&name, NETMAP_REQ_PORT_HDR_SET, body.as_bytes())
        }
        NETMAP_VNET_HDR_GET => request(&name, NETMAP_REQ_PORT_HDR_GET, nmreq_port_hdr::default().as_bytes()),
        NETMAP_BDG_NEWIF => {
            let body = nmreq_vale_newif {
                nr_tx_slots: req.nr_tx_slots,
                nr_rx_slots: req.nr_rx_slots,
                nr_tx_rings: req.nr_tx_rings,
                nr_rx_rings: req.nr_rx_rings,
                nr_mem_id: req.nr_arg2,
                ..Default::default()
            };
            request(&name, NETMAP_REQ_VALE_NEWIF, body.as_bytes())
        }
        NETMAP_BDG_DELIF => request(&name, NETMAP_REQ_VALE_DELIF, &[]),
        NETMAP_BDG_POLLING_ON | NETMAP_BDG_POLLING_OFF => {
            let nr_mode = match req.nr_flags & NR_REG_MASK {
                NR_REG_ONE_NIC => NETMAP_POLLING_MODE_MULTI_CPU,
                NR_REG_ALL_NIC => NETMAP_POLLING_MODE_SINGLE_CPU,
                _ => 0,
            };
            let body = nmreq_vale_polling {
                nr_mode,
                nr_first_cpu_id: (req.nr_ringid & NETMAP_RING_MASK).into(),
                nr_num_polling_cpus: req.nr_arg1.into(),
                ..Default::default()
            };
            let on = req.nr_cmd == NETMAP_BDG_POLLING_ON;
            let kind = if on { NETMAP_REQ_VALE_POLLING_ENABLE } else { NETMAP_REQ_VALE_POLLING_DISABLE };
            request(&name, kind, body.as_bytes())
        }
        NETMAP_PT_HOST_CREATE | NETMAP_PT_HOST_DELETE => Err(Errno::ENOMEM),
        _ => Err(Errno::EINVAL),
    }
}

/// NIOCGINFO.
///
/// # Errors
/// As [`regif`].
pub fn ginfo(req: &nmreq) -> Result<Converted, Errno> {
    check_version(req)?;
    let name = name_of(req);
    if req.nr_cmd == NETMAP_BDG_LIST {
        let body = nmreq_vale_list {
            nr_bridge_idx: req.nr_arg1,
            nr_port_idx: req.nr_arg2.into(),
            ..Default::default()
        };
        return request(&name, NETMAP_REQ_VALE_LIST, body.as_bytes());
    }
    let body = nmreq_port_info_get {
        nr_tx_slots: req.nr_tx_slots,
        nr_rx_slots: req.nr_rx_slots,
        nr_tx_rings: req.nr_tx_rings,
        nr_rx_rings: req.nr_rx_rings,
        nr_mem_id: req.nr_arg2,
        ..Default::default()
    };
    request(&name, NETMAP_REQ_PORT_INFO_GET, body.as_bytes())
}

fn write_register(req: &mut nmreq, reg: &nmreq_register) {
    req.nr_offset = reg.nr_offset as u32;
    req.nr_memsize = reg.nr_memsize as u32;
    (req.nr_tx_slots, req.nr_rx_slots) = (reg.nr_tx_slots, reg.nr_rx_slots);
    (req.nr_tx_rings, req.nr_rx_rings) = (reg.nr_tx_rings, reg.nr_rx_rings);
    (req.nr_arg2, req.nr_arg3) = (reg.nr_mem_id, reg.nr_extra_bufs);
}

impl Converted {
    /// Writes what the request brought, once it has succeeded, into the older structure.
    pub fn write_back(&self, req: &mut nmreq) {
        fn body<T: FromBytes>(bytes: &[u8]) -> Option<T> {
            T::read_from_bytes(bytes).ok()
        }
        req.nr_name[IFNAMSIZ - 1] = 0;
        match self.header.nr_reqtype {
            NETMAP_REQ_REGISTER => {
                if let Some(reg) = body(&self.body) {
                    write_register(req, &reg);
                }
            }
            NETMAP_REQ_VALE_ATTACH => {
                if let Some(attach) = body::<nmreq_vale_attach>(&self.body) {
                    write_register(req, &attach.reg);
                }
            }
            NETMAP_REQ_PORT_HDR_SET | NETMAP_REQ_PORT_HDR_GET => {
                if let Some(hdr) = body::<nmreq_port_hdr>(&self.body) {
                    req.nr_arg1 = hdr.nr_hdr_len as u16;
                }
            }
            NETMAP_REQ_VALE_NEWIF => {
                if let Some(new) = body::<nmreq_vale_newif>(&self.body) {
                    (req.nr_tx_slots, req.nr_rx_slots) = (new.nr_tx_slots, new.nr_rx_slots);
                    (req.nr_tx_rings, req.nr_rx_rings) = (new.nr_tx_rings, new.nr_rx_rings);
                    req.nr_arg2 = new.nr_mem_id;
                }
            }
            NETMAP_REQ_VALE_LIST => {
                if let Some(list) = body::<nmreq_vale_list>(&self.body) {
                    (req.nr_arg1, req.nr_arg2) = (list.nr_bridge_idx, list.nr_port_idx as u16);
                    let name = c_name(&self.header.nr_name);
                    let len = name.len().min(IFNAMSIZ - 1);
                    req.nr_name = [0; IFNAMSIZ];
                    req.nr_name[..len].copy_from_slice(&name[..len]);
                }
            }
            NETMAP_REQ_PORT_INFO_GET => {
                if let Some(info) = body::<nmreq_port_info_get>(&self.body) {
                    req.nr_memsize = info.nr_memsize as u32;
                    (req.nr_tx_slots, req.nr_rx_slots) = (info.nr_tx_slots, info.nr_rx_slots);
                    (req.nr_tx_rings, req.nr_rx_rings) = (info.nr_tx_rings, info.nr_rx_rings);
                    req.nr_arg2 = info.nr_mem_id;
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &[u8]) -> nmreq {
        let mut req = nmreq { nr_version: 14, ..Default::default() };
        req.nr_name[..name.len()].copy_from_slice(name);
        req
    }

    fn reg(c: &Converted) -> nmreq_register {
        nmreq_register::read_from_bytes(&c.body).unwrap()
    }

    #[test]
    fn modes_and_names_are_those_of_the_older_fields() {
        let mut req = named(b"vale0:a");
        assert_eq!(reg(&regif(&req).unwrap()).nr_mode, NR_REG_ALL_NIC);
        req.nr_ringid = NETMAP_HW_RING | NETMAP_NO_TX_POLL | 3;
        let r = reg(&regif(&req).unwrap());
        assert_eq!((r.nr_mode, r.nr_ringid, r.nr_flags), (NR_REG_ONE_NIC, 3, NR_NO_TX_POLL));
        req.nr_flags = NR_REG_PIPE_SLAVE;
        req.nr_ringid = 12;
        let c = regif(&req).unwrap();
        assert_eq!(c_name(&c.header.nr_name), b"vale0:a}12");
        assert_eq!((reg(&c).nr_mode, reg(&c).nr_ringid), (NR_REG_ALL_NIC, 0));
        req.nr_cmd = NETMAP_BDG_ATTACH;
        let c = regif(&req).unwrap();
        assert_eq!(
            (c_name(&c.header.nr_name), c.header.nr_reqtype),
            (&b"vale0:a}12"[..], NETMAP_REQ_VALE_ATTACH)
        );
        req.nr_version = 13;
        assert_eq!(regif(&req).unwrap_err(), Errno::EINVAL);
        req = named(b"x");
        req.nr_cmd = NETMAP_PT_HOST_CREATE;
        assert_eq!(regif(&req).unwrap_err(), Errno::ENOMEM);
        req.nr_cmd = 99;
        assert_eq!(regif(&req).unwrap_err(), Errno::EINVAL);
    }

    #[test]
    fn a_name_ends_in_its_field() {
        let mut req = named(b"0123456789abcdef");
        let c = regif(&req).unwrap();
        assert_eq!(c_name(&c.header.nr_name), b"0123456789abcde");
        c.write_back(&mut req);
        assert_eq!(c_name(&req.nr_name), b"0123456789abcde");
    }

    #[test]
    fn answers_go_back_into_the_older_structure() {
        let mut req = named(b"x");
        let mut c = regif(&req).unwrap();
        let out = nmreq_register {
            nr_offset: (1 << 40) + 5,
            nr_memsize: 4096,
            nr_mem_id: 9,
            nr_extra_bufs: 3,
            nr_tx_slots: 512,
            ..Default::default()
        };
        c.body = out.as_bytes().to_vec();
        c.write_back(&mut req);
        assert_eq!((req.nr_offset, req.nr_memsize, req.nr_arg2, req.nr_arg3), (5, 4096, 9, 3));
        req.nr_cmd = NETMAP_BDG_LIST;
        let mut c = ginfo(&req).unwrap();
        c.header.nr_name = c_name_field("vale0:a-very-long-name").unwrap();
        c.body =
            nmreq_vale_list { nr_bridge_idx: 1, nr_port_idx: 255, ..Default::default() }.as_bytes().to_vec();
        c.write_back(&mut req);
        assert_eq!(c_name(&req.nr_name), b"vale0:a-very-lo");
        assert_eq!((req.nr_arg1, req.nr_arg2), (1, 255));
    }
}
