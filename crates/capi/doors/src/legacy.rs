//! NIOCREGIF and NIOCGINFO: the older requests, turned into those of NIOCCTRL. Source: abi.md 11.

use core::ffi::c_int;
use ringway_abi::*;
use zerocopy::IntoBytes;

use crate::ctrl;
use crate::options::Options;
use crate::table::Desc;

/// Serves one. `req` is written if it succeeds.
pub fn serve(fd: c_int, desc: &Desc, req: &mut nmreq, info: bool) -> Result<(), Errno> {
    if req.nr_version < u32::from(NETMAP_MIN_API) {
        return Err(Errno::EINVAL);
    }
    if let Some(last) = req.nr_name.last_mut() {
        *last = 0;
    }
    let mut name = c_name(&req.nr_name).to_vec();
    let mut call = |nr_reqtype: u16, name: &[u8], body: &mut [u8]| {
        let mut header = nmreq_header { nr_version: NETMAP_API, nr_reqtype, ..Default::default() };
        header.nr_name.get_mut(..name.len()).ok_or(Errno::ENOMEM)?.copy_from_slice(name);
        ctrl::dispatch(fd, desc, &mut header, body, &mut Options::default())?;
        Ok::<_, Errno>(header.nr_name)
    };
    if info {
        return serve_info(req, &name, &mut call);
    }
    match req.nr_cmd {
        0 => {
            let mut reg = to_register(req, &mut name)?;
            call(NETMAP_REQ_REGISTER, &name, reg.as_mut_bytes())?;
            from_register(req, &reg);
        }
        NETMAP_BDG_ATTACH => {
            let mut attach = nmreq_vale_attach { reg: to_register(req, &mut name)?, ..Default::default() };
            let host = req.nr_arg1 & NETMAP_BDG_HOST != 0;
            attach.reg.nr_mode = if host { NR_REG_NIC_SW } else { NR_REG_ALL_NIC };
            call(NETMAP_REQ_VALE_ATTACH, &name, attach.as_mut_bytes())?;
            from_register(req, &attach.reg);
        }
        NETMAP_BDG_DETACH => {
            let mut detach = nmreq_vale_detach::default();
            call(NETMAP_REQ_VALE_DETACH, &name, detach.as_mut_bytes())?;
        }
        NETMAP_BDG_VNET_HDR | NETMAP_VNET_HDR_GET => {
            let set = req.nr_cmd == NETMAP_BDG_VNET_HDR;
            let mut hdr = nmreq_port_hdr::default();
            if set {
                hdr.nr_hdr_len = req.nr_arg1.into();
            }
            let nr_reqtype = if set { NETMAP_REQ_PORT_HDR_SET } else { NETMAP_REQ_PORT_HDR_GET };
            call(nr_reqtype, &name, hdr.as_mut_bytes())?;
            req.nr_arg1 = hdr.nr_hdr_len as u16;
        }
        NETMAP_BDG_NEWIF => {
            let mut newif = nmreq_vale_newif {
                nr_tx_slots: req.nr_tx_slots,
                nr_rx_slots: req.nr_rx_slots,
                nr_tx_rings: req.nr_tx_rings,
                nr_rx_rings: req.nr_rx_rings,
                nr_mem_id: req.nr_arg2,
                ..Default::default()
            };
            call(NETMAP_REQ_VALE_NEWIF, &name, newif.as_mut_bytes())?;
            (req.nr_tx_slots, req.nr_rx_slots) = (newif.nr_tx_slots, newif.nr_rx_slots);
            (req.nr_tx_rings, req.nr_rx_rings) = (newif.nr_tx_rings, newif.nr_rx_rings);
            req.nr_arg2 = newif.nr_mem_id;
        }
        NETMAP_BDG_DELIF => {
            call(NETMAP_REQ_VALE_DELIF, &name, &mut [])?;
        }
        NETMAP_BDG_POLLING_ON | NETMAP_BDG_POLLING_OFF => {
            let on = req.nr_cmd == NETMAP_BDG_POLLING_ON;
            let mut polling = nmreq_vale_polling {
                nr_mode: match req.nr_flags & NR_REG_MASK {
                    NR_REG_ONE_NIC => NETMAP_POLLING_MODE_MULTI_CPU,
                    NR_REG_ALL_NIC => NETMAP_POLLING_MODE_SINGLE_CPU,
                    _ => 0,
                },
                nr_first_cpu_id: (req.nr_ringid & NETMAP_RING_MASK).into(),
                nr_num_polling_cpus: req.nr_arg1.into(),
                ..Default::default()
            };
            let nr_reqtype =
                if on { NETMAP_REQ_VALE_POLLING_ENABLE } else { NETMAP_REQ_VALE_POLLING_DISABLE };
            call(nr_reqtype, &name, polling.as_mut_bytes())?;
        }
        NETMAP_PT_HOST_CREATE | NETMAP_PT_HOST_DELETE => return Err(Errno::ENOMEM),
        _ => return Err(Errno::EINVAL),
    }
    Ok(())
}

fn serve_info(
    req: &mut nmreq,
    name: &[u8],
    call: &mut impl FnMut(u16, &[u8], &mut [u8]) -> Result<[u8; NETMAP_REQ_IFNAMSIZ], Errno>,
) -> Result<(), Errno> {
    if req.nr_cmd == NETMAP_BDG_LIST {
        let mut list = nmreq_vale_list {
            nr_bridge_idx: req.nr_arg1,
            nr_port_idx: req.nr_arg2.into(),
            ..Default::default()
        };
        let found = call(NETMAP_REQ_VALE_LIST, name, list.as_mut_bytes())?;
        let found = c_name(&found);
        let len = found.len().min(IFNAMSIZ - 1);
        req.nr_name = [0; IFNAMSIZ];
        req.nr_name[..len].copy_from_slice(&found[..len]);
        (req.nr_arg1, req.nr_arg2) = (list.nr_bridge_idx, list.nr_port_idx as u16);
        return Ok(());
    }
    let mut info = nmreq_port_info_get {
        nr_tx_slots: req.nr_tx_slots,
        nr_rx_slots: req.nr_rx_slots,
        nr_tx_rings: req.nr_tx_rings,
        nr_rx_rings: req.nr_rx_rings,
        nr_mem_id: req.nr_arg2,
        ..Default::default()
    };
    call(NETMAP_REQ_PORT_INFO_GET, name, info.as_mut_bytes())?;
    req.nr_memsize = info.nr_memsize as u32;
    (req.nr_tx_slots, req.nr_rx_slots) = (info.nr_tx_slots, info.nr_rx_slots);
    (req.nr_tx_rings, req.nr_rx_rings) = (info.nr_tx_rings, info.nr_rx_rings);
    req.nr_arg2 = info.nr_mem_id;
    Ok(())
}

/// The new request. A pipe's number goes to the end of its name.
fn to_register(req: &nmreq, name: &mut Vec<u8>) -> Result<nmreq_register, Errno> {
    let ring = req.nr_ringid & NETMAP_RING_MASK;
    let (mut nr_mode, mut nr_ringid) = (req.nr_flags & NR_REG_MASK, ring);
    if nr_mode == NR_REG_DEFAULT {
        nr_mode = match req.nr_ringid {
            r if r & NETMAP_SW_RING != 0 => NR_REG_SW,
            r if r & NETMAP_HW_RING != 0 => NR_REG_ONE_NIC,
            _ => NR_REG_ALL_NIC,
        };
    } else if let NR_REG_PIPE_MASTER | NR_REG_PIPE_SLAVE = nr_mode {
        let role = if nr_mode == NR_REG_PIPE_MASTER { '{' } else { '}' };
        name.extend(format!("{role}{ring}").bytes());
        if name.len() >= NETMAP_REQ_IFNAMSIZ {
            return Err(Errno::ENOMEM);
        }
        (nr_mode, nr_ringid) = (NR_REG_ALL_NIC, 0);
    }
    let mut nr_flags = u64::from(req.nr_flags & !NR_REG_MASK);
    if req.nr_ringid & NETMAP_NO_TX_POLL != 0 {
        nr_flags |= NR_NO_TX_POLL;
    }
    if req.nr_ringid & NETMAP_DO_RX_POLL != 0 {
        nr_flags |= NR_DO_RX_POLL;
    }
    Ok(nmreq_register {
        nr_tx_slots: req.nr_tx_slots,
        nr_rx_slots: req.nr_rx_slots,
        nr_tx_rings: req.nr_tx_rings,
        nr_rx_rings: req.nr_rx_rings,
        nr_mem_id: req.nr_arg2,
        nr_ringid,
        nr_mode,
        nr_extra_bufs: req.nr_arg3,
        nr_flags,
        ..Default::default()
    })
}

/// What the older request tells of it.
fn from_register(req: &mut nmreq, reg: &nmreq_register) {
    (req.nr_offset, req.nr_memsize) = (reg.nr_offset as u32, reg.nr_memsize as u32);
    (req.nr_tx_slots, req.nr_rx_slots) = (reg.nr_tx_slots, reg.nr_rx_slots);
    (req.nr_tx_rings, req.nr_rx_rings) = (reg.nr_tx_rings, reg.nr_rx_rings);
    (req.nr_arg2, req.nr_arg3) = (reg.nr_mem_id, reg.nr_extra_bufs);
}
