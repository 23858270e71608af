//! `@extmem=FILE`: a port whose region begins as the contents of a file, shared with whoever else names that file.
//!
//! The broker maps nothing that could shrink: the region is a memfd of its own, filled from the file, which itself is not written. What makes it
//! one region for several programs is that they name the same file (abi.md 9.12, semantics.md 13).

use crate::error::OpenError;
use ringway_abi::portspec::Extmem;
use ringway_abi::{PortSpec, nmreq_opt_extmem};
use ringway_core::control::{Offer, PagesKey, ReqOption};
use ringway_os::mem::Memfd;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

/// Bytes copied at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// Memory for a request, and the option that goes with it.
pub(crate) struct FileMemory {
    pub offer: Offer,
    pub option: ReqOption,
    /// Its number tells the region, so it must not be given to another file meanwhile.
    pub file: File,
}

fn failed(what: &str, name: &str) -> impl Fn(io::Error) -> OpenError {
    move |e| OpenError::io(&format!("{what} '{name}'"), &e)
}

impl FileMemory {
    /// What a name asks for, if it does.
    pub fn of(spec: &PortSpec) -> Result<Option<Self>, OpenError> {
        spec.extmem.as_ref().map(Self::read).transpose()
    }

    fn read(wish: &Extmem) -> Result<Self, OpenError> {
        let name = wish.file.as_str();
        let file = File::options().read(true).write(true).open(name).map_err(failed("cannot open", name))?;
        let meta = file.metadata().map_err(failed("failed to obtain filesize of", name))?;
        let len = usize::try_from(meta.len()).unwrap_or(usize::MAX);
        let copy = || -> io::Result<Memfd> {
            let memfd = Memfd::create("ringway-extmem", len.max(1))?;
            let mut chunk = vec![0; CHUNK_BYTES.min(len)];
            let mut done = 0;
            while done < len {
                let n = file.read_at(&mut chunk, done as u64)?;
                if n == 0 {
                    break;
                }
                memfd.fill_at(&chunk[..n], done)?;
                done += n;
            }
            Ok(memfd)
        };
        let memfd = copy().map_err(failed("cannot take in", name))?;
        let pages = PagesKey { file: (meta.dev(), meta.ino()), offset: 0, len: meta.len() };
        let nro_info = wish.pools_info(meta.len());
        let option = ReqOption::extmem(&nmreq_opt_extmem { nro_info, ..Default::default() });
        Ok(FileMemory { offer: Offer { memfd, pages: Some(pages) }, option, file })
    }
}
