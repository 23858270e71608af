//! Requests about switches, as a C program makes them with NIOCCTRL.

use ringway::{Broker, Errno, OpenError};
use ringway_abi::{
    NETMAP_API, NETMAP_REQ_VALE_ATTACH, NETMAP_REQ_VALE_DELIF, NETMAP_REQ_VALE_DETACH, NETMAP_REQ_VALE_LIST,
    NETMAP_REQ_VALE_NEWIF, NETMAP_REQ_VALE_POLLING_DISABLE, NETMAP_REQ_VALE_POLLING_ENABLE, NR_REG_ALL_NIC,
    c_name, c_name_field, nmreq_header, nmreq_register, nmreq_vale_attach, nmreq_vale_detach,
    nmreq_vale_list, nmreq_vale_newif, nmreq_vale_polling,
};
use zerocopy::IntoBytes;

/// One request. Returns the name that comes back.
///
/// # Errors
/// The errno of a refusal.
///
/// # Panics
/// If the broker cannot be asked.
pub fn ask(broker: &Broker, nr_reqtype: u16, name: &str, body: &mut [u8]) -> Result<String, Errno> {
    let nr_name = c_name_field(name).expect("a short name");
    let mut header = nmreq_header { nr_version: NETMAP_API, nr_reqtype, nr_name, ..Default::default() };
    match broker.control(&mut header, body) {
        Ok(()) => Ok(String::from_utf8_lossy(c_name(&header.nr_name)).into_owned()),
        Err(OpenError::Refused { errno, .. }) => Err(errno),
        Err(e) => panic!("{name}: {e}"),
    }
}

/// VALE_NEWIF.
///
/// # Errors
/// As [`ask`], like all others here.
pub fn newif(broker: &Broker, name: &str) -> Result<nmreq_vale_newif, Errno> {
    let mut body = nmreq_vale_newif::default();
    ask(broker, NETMAP_REQ_VALE_NEWIF, name, body.as_mut_bytes()).map(|_| body)
}

/// VALE_DELIF.
///
/// # Errors
/// As [`ask`].
pub fn delif(broker: &Broker, name: &str) -> Result<(), Errno> {
    ask(broker, NETMAP_REQ_VALE_DELIF, name, &mut []).map(drop)
}

/// VALE_ATTACH in mode ALL_NIC. Returns the index on the switch.
///
/// # Errors
/// As [`ask`].
pub fn attach(broker: &Broker, name: &str) -> Result<u32, Errno> {
    attach_as(broker, name, nmreq_register { nr_mode: NR_REG_ALL_NIC, ..Default::default() })
}

/// VALE_ATTACH with all that it can say.
///
/// # Errors
/// As [`ask`].
pub fn attach_as(broker: &Broker, name: &str, reg: nmreq_register) -> Result<u32, Errno> {
    let mut body = nmreq_vale_attach { reg, ..Default::default() };
    ask(broker, NETMAP_REQ_VALE_ATTACH, name, body.as_mut_bytes()).map(|_| body.port_index)
}

/// VALE_DETACH. Returns the index that it had.
///
/// # Errors
/// As [`ask`].
pub fn detach(broker: &Broker, name: &str) -> Result<u32, Errno> {
    let mut body = nmreq_vale_detach::default();
    ask(broker, NETMAP_REQ_VALE_DETACH, name, body.as_mut_bytes()).map(|_| body.port_index)
}

/// All ports on switches: VALE_LIST until its end.
///
/// # Panics
/// If it fails otherwise.
#[must_use]
pub fn list(broker: &Broker) -> Vec<String> {
    let mut at = nmreq_vale_list::default();
    let mut out = vec![];
    loop {
        match ask(broker, NETMAP_REQ_VALE_LIST, "", at.as_mut_bytes()) {
            Ok(name) => out.push(name),
            Err(Errno::ENOENT) => return out,
            Err(e) => panic!("VALE_LIST: {e:?}"),
        }
        at.nr_port_idx += 1;
    }
}

/// VALE_POLLING_ENABLE.
///
/// # Errors
/// As [`ask`].
pub fn poll(broker: &Broker, name: &str, mode: u32, first: u32, count: u32) -> Result<(), Errno> {
    let mut body = nmreq_vale_polling {
        nr_mode: mode,
        nr_first_cpu_id: first,
        nr_num_polling_cpus: count,
        ..Default::default()
    };
    ask(broker, NETMAP_REQ_VALE_POLLING_ENABLE, name, body.as_mut_bytes()).map(drop)
}

/// VALE_POLLING_DISABLE.
///
/// # Errors
/// As [`ask`].
pub fn end_polling(broker: &Broker, name: &str) -> Result<(), Errno> {
    let mut body = nmreq_vale_polling::default();
    ask(broker, NETMAP_REQ_VALE_POLLING_DISABLE, name, body.as_mut_bytes()).map(drop)
}
