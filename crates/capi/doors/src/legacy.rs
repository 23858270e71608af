//! NIOCREGIF and NIOCGINFO: the older requests, turned into those of NIOCCTRL. Source: abi.md 11.

use core::ffi::c_int;
use ringway::raw::legacy;
use ringway_abi::{Errno, nmreq};

use crate::ctrl;
use crate::options::Options;
use crate::table::Desc;

/// Serves one. `req` is written if it succeeds.
pub fn serve(fd: c_int, desc: &Desc, req: &mut nmreq, info: bool) -> Result<(), Errno> {
    let mut asked = if info { legacy::ginfo(req)? } else { legacy::regif(req)? };
    ctrl::dispatch(fd, desc, &mut asked.header, &mut asked.body, &mut Options::default())?;
    asked.write_back(req);
    Ok(())
}
