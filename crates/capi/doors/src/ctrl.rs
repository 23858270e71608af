//! NIOCCTRL. Source: abi.md 7, 8.

use core::ffi::c_int;
use ringway::raw::{self, ReqOption};
use ringway::{NicMode, OpenError};
use ringway_abi::{
    Errno, NETMAP_MAX_API, NETMAP_MIN_API, NETMAP_REQ_CSB_ENABLE, NETMAP_REQ_OPT_CSB, NETMAP_REQ_OPT_EXTMEM,
    NETMAP_REQ_REGISTER, NETMAP_REQ_SYNC_KLOOP_START, NETMAP_REQ_SYNC_KLOOP_STOP, body_size, c_name,
    nmreq_header, nmreq_register,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::options::{Opt, Options};
use crate::table::{Desc, borrow};
use crate::{csb, extmem, files, user};

/// Serves a request of the program; `header` is written as the program shall see it.
pub fn serve(fd: c_int, desc: &Desc, header: &mut nmreq_header) -> Result<(), Errno> {
    if !(NETMAP_MIN_API..=NETMAP_MAX_API).contains(&header.nr_version) || header.nr_reserved != 0 {
        return Err(Errno::EINVAL);
    }
    let size = body_size(header.nr_reqtype);
    if (size > 0) != (header.nr_body != 0) {
        return Err(Errno::EINVAL);
    }
    let mut body = vec![0; size];
    user::read_bytes(header.nr_body, &mut body)?;
    let mut options = Options::read(header.nr_options, size)?;
    if let Some(last) = header.nr_name.last_mut() {
        *last = 0;
    }
    let result = dispatch(fd, desc, header, &mut body, &mut options);
    let body_back = if result.is_ok() { user::write_bytes(header.nr_body, &body) } else { Ok(()) };
    // A bad address ends the copying, and is what the program hears of; what was done stays done.
    body_back.and_then(|()| options.write_back(result.is_ok())).and(result)
}

/// Serves a request whose parts have been read.
pub fn dispatch(
    fd: c_int,
    desc: &Desc,
    header: &mut nmreq_header,
    body: &mut [u8],
    options: &mut Options,
) -> Result<(), Errno> {
    if header.nr_reqtype == NETMAP_REQ_REGISTER {
        let req = nmreq_register::read_from_bytes(body).map_err(|_| Errno::EINVAL)?;
        let out = register(fd, desc, header, &req, options)?;
        body.copy_from_slice(out.as_bytes());
        return Ok(());
    }
    match header.nr_reqtype {
        NETMAP_REQ_CSB_ENABLE => csb::enable(desc, desc.bound(fd), options),
        NETMAP_REQ_SYNC_KLOOP_START => csb::start(desc, desc.bound(fd), body, options),
        NETMAP_REQ_SYNC_KLOOP_STOP => csb::stop(desc.bound(fd)),
        _ => raw::control(borrow(fd), header, body).map_err(|e| told(&e)),
    }
}

/// The errno of a failed request.
fn told(e: &OpenError) -> Errno {
    files::complain(e);
    e.errno()
}

fn register(
    fd: c_int,
    desc: &Desc,
    header: &nmreq_header,
    req: &nmreq_register,
    options: &mut Options,
) -> Result<nmreq_register, Errno> {
    // No interface, switch or pipe has a name that is no text.
    let name = core::str::from_utf8(c_name(&header.nr_name)).map_err(|_| Errno::ENXIO)?;
    // Those that the registry does not serve undo the registration at the end, after whatever fails before.
    let to_request = |o: &Opt| match o.nro_reqtype {
        NETMAP_REQ_OPT_CSB => csb::to_request(o),
        _ => o.to_request(),
    };
    let mut asked: Vec<ReqOption> = options.0.iter().map(to_request).collect();
    let mode = NicMode::default();
    let place = options.0.iter().position(|o| o.nro_reqtype == NETMAP_REQ_OPT_EXTMEM);
    let mut moved = None;
    let out = desc.bind(|| {
        if let Some(option) = place.map(|i| &mut asked[i]) {
            moved = Some(extmem::prepare(option).inspect_err(|e| option.nro_status = e.0 as u32)?);
        }
        let memory = moved.as_ref().map(|m| &m.memory);
        raw::register_in(borrow(fd), name, req, mode, &mut asked, memory).map_err(|e| told(&e))
    });
    for (option, served) in options.0.iter_mut().zip(asked.clone()) {
        match option.nro_reqtype {
            // What the program said of where stays.
            NETMAP_REQ_OPT_CSB => option.status = served.nro_status,
            NETMAP_REQ_OPT_EXTMEM => extmem::take(option, &served),
            _ => option.take(served),
        }
    }
    let out = out?;
    if let (Some(moved), Some(served)) = (moved, place.map(|i| &asked[i])) {
        moved.put_in_place(desc, served)?;
    }
    csb::enter(desc, options)?;
    Ok(out)
}
