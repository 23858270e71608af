//! Requests that bring memory of the client's. It is mapped only if it is a memfd that nobody can shrink: nothing that a client does to it later
//! can make an access here fault.

use crate::closer::Foreign;
use crate::server::Server;
use ringway_abi::Errno;
use ringway_abi::wire;
use ringway_core::control::{ControlError, Offer, PagesKey};
use ringway_os::mem::Memfd;
use ringway_os::sock::Creds;

fn refuse(errno: Errno, text: &str) -> ControlError {
    ControlError::new(errno, text)
}

/// What a client offers; whatever it is, the closing thread closes the client's own fd.
fn offer(memory: Option<&Foreign>, pages: &wire::Pages) -> Result<Offer, ControlError> {
    let fd = memory.and_then(Foreign::fd).ok_or_else(|| refuse(Errno::EPROTO, "no memory"))?;
    let memfd = Memfd::copy_foreign(fd).map_err(|_| {
        refuse(Errno::EFAULT, "the memory is no memfd sealed against shrinking, growing and further sealing")
    })?;
    let [dev, ino] = pages.file;
    let key = PagesKey { file: (dev, ino), offset: pages.offset, len: pages.len };
    Ok(Offer { memfd, pages: (pages.file != [0, 0]).then_some(key) })
}

impl Server {
    /// As `control`, with memory for the EXTMEM option.
    pub(crate) fn control_in(
        &mut self,
        id: u64,
        creds: Creds,
        body: &[u8],
        reply: Foreign,
        memory: Option<&Foreign>,
    ) {
        let mut rest = body;
        let Ok(pages) = wire::take::<wire::Pages>(&mut rest) else {
            return self.finish(reply, &Err(refuse(Errno::EPROTO, "message too short")));
        };
        let offer = offer(memory, &pages).and_then(|offer| {
            let mib = self.config.limits.memory_mib;
            let fits = offer.memfd.len_bytes() as u64 >> 20 < mib;
            let too_large =
                || refuse(Errno::ENOMEM, "the memory is larger than a user may have (limits.memory_mib)");
            fits.then_some(offer).ok_or_else(too_large)
        });
        match offer {
            Ok(offer) => {
                self.registry.offer(Some(offer));
                self.control(id, creds, rest, reply);
                self.registry.offer(None);
            }
            Err(e) => self.finish(reply, &Err(e)),
        }
    }
}
