//! pcapng: sections of blocks. Understood are section header, interface description, and
//! the enhanced, simple and obsolete packet blocks; every other block is skipped.
//!
//! ```text
//!   | type 4 | length 4 | body, padded to 4 | length 4 |     length = all of it
//! ```

use std::io::BufRead;

use super::{CaptureError, Frame, MAX_FRAME_BYTES, Order, Source};

/// Type of a section header: the same in both byte orders.
pub(super) const SECTION_BLOCK: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

const INTERFACE_BLOCK: u32 = 1;
const OLD_PACKET_BLOCK: u32 = 2;
const SIMPLE_BLOCK: u32 = 3;
const ENHANCED_BLOCK: u32 = 6;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;

/// Type, and the length at both ends.
const FRAME_BYTES: u32 = 12;
/// An interface description with its options is held, so it is bounded.
const MAX_INTERFACE_BYTES: u32 = 65536;
const MAX_INTERFACES: usize = 4096;

const OPT_TSRESOL: u16 = 9;
const OPT_TSOFFSET: u16 = 14;

#[derive(Clone, Copy, Debug)]
struct Interface {
    link_type: u32,
    /// 0: no limit.
    snaplen: u32,
    /// Time units in a second.
    units: u128,
    /// Seconds to add to each time.
    offset_secs: i64,
}

impl Interface {
    fn nanos(&self, units: u64) -> u64 {
        let nanos = i128::try_from(u128::from(units) * 1_000_000_000 / self.units).unwrap_or(i128::MAX);
        let total = nanos.saturating_add(i128::from(self.offset_secs) * 1_000_000_000);
        u64::try_from(total.max(0)).unwrap_or(u64::MAX)
    }
}

/// The section that is being read.
#[derive(Debug)]
pub(super) struct Section {
    order: Order,
    interfaces: Vec<Interface>,
}

/// A block whose type and length are read; what is left of its body is counted down.
struct Block {
    offset: u64,
    what: &'static str,
    length: u32,
    left: u32,
}

impl Block {
    fn new(offset: u64, length: u32, what: &'static str) -> Result<Block, CaptureError> {
        if length < FRAME_BYTES || !length.is_multiple_of(4) {
            return Err(CaptureError::BadLength { offset, what: "block length", value: length });
        }
        Ok(Block { offset, what, length, left: length - FRAME_BYTES })
    }

    /// Takes `len` bytes off the body, or fails since the body is shorter.
    fn take(&mut self, len: u32, what: &'static str) -> Result<(), CaptureError> {
        match self.left.checked_sub(len) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(CaptureError::BadLength { offset: self.offset, what, value: len }),
        }
    }

    fn array<const N: usize, R: BufRead>(&mut self, src: &mut Source<R>) -> Result<[u8; N], CaptureError> {
        self.take(N as u32, "block length")?;
        src.array(self.what)
    }

    /// Packet data of `len` bytes.
    fn data<R: BufRead>(&mut self, src: &mut Source<R>, len: u32) -> Result<Vec<u8>, CaptureError> {
        if len > MAX_FRAME_BYTES {
            let what = "captured length";
            return Err(CaptureError::BadLength { offset: self.offset, what, value: len });
        }
        self.take(len, "captured length")?;
        src.vec(len, self.offset, self.what)
    }

    /// Skips what is left and checks the length at the end.
    fn finish<R: BufRead>(self, src: &mut Source<R>, order: Order) -> Result<(), CaptureError> {
        src.skip(self.left, self.offset, self.what)?;
        let trailer: [u8; 4] = src.array(self.what)?;
        let value = order.u32(&trailer);
        if value != self.length {
            let what = "trailing block length";
            return Err(CaptureError::BadLength { offset: self.offset, what, value });
        }
        Ok(())
    }
}

impl Section {
    /// Reads a section header whose type, at `offset`, has been read.
    pub fn open<R: BufRead>(src: &mut Source<R>, offset: u64) -> Result<Section, CaptureError> {
        let head: [u8; 8] = src.array("section header")?;
        let order = if Order::Little.u32(&head[4..]) == BYTE_ORDER_MAGIC {
            Order::Little
        } else if Order::Big.u32(&head[4..]) == BYTE_ORDER_MAGIC {
            Order::Big
        } else {
            return Err(CaptureError::BadByteOrder { offset });
        };
        let mut block = Block::new(offset, order.u32(&head), "section header")?;
        // The magic is part of the body; version and section length follow and are not needed.
        block.take(4 + 12, "block length")?;
        src.skip(12, offset, "section header")?;
        block.finish(src, order)?;
        Ok(Section { order, interfaces: Vec::new() })
    }

    pub fn next_frame<R: BufRead>(&mut self, src: &mut Source<R>) -> Result<Option<Frame>, CaptureError> {
        loop {
            if src.at_end()? {
                return Ok(None);
            }
            let offset = src.offset();
            let kind: [u8; 4] = src.array("block")?;
            if kind == SECTION_BLOCK {
                *self = Section::open(src, offset)?;
                continue;
            }
            let length: [u8; 4] = src.array("block")?;
            let length = self.order.u32(&length);
            let frame = match self.order.u32(&kind) {
                INTERFACE_BLOCK => self.interface(src, Block::new(offset, length, "interface block")?)?,
                ENHANCED_BLOCK => self.packet(src, Block::new(offset, length, "packet block")?, false)?,
                OLD_PACKET_BLOCK => self.packet(src, Block::new(offset, length, "packet block")?, true)?,
                SIMPLE_BLOCK => self.simple(src, Block::new(offset, length, "packet block")?)?,
                _ => {
                    Block::new(offset, length, "block")?.finish(src, self.order)?;
                    None
                }
            };
            if frame.is_some() {
                return Ok(frame);
            }
        }
    }

    /// An interface description. Gives no frame.
    fn interface<R: BufRead>(
        &mut self,
        src: &mut Source<R>,
        mut block: Block,
    ) -> Result<Option<Frame>, CaptureError> {
        let offset = block.offset;
        if block.left > MAX_INTERFACE_BYTES {
            let (what, value) = ("interface block length", block.length);
            return Err(CaptureError::BadLength { offset, what, value });
        }
        if self.interfaces.len() >= MAX_INTERFACES {
            return Err(CaptureError::TooManyInterfaces { offset });
        }
        let fixed: [u8; 8] = block.array(src)?;
        let options = block.data(src, block.left)?;
        let mut interface = Interface {
            link_type: u32::from(self.order.u16(&fixed)),
            snaplen: self.order.u32(&fixed[4..]),
            units: 1_000_000,
            offset_secs: 0,
        };
        self.options(&options, &mut interface);
        self.interfaces.push(interface);
        block.finish(src, self.order)?;
        Ok(None)
    }

    /// Options are a list of code, length, value padded to 4. A broken list ends early, without error: it
    /// takes nothing from the packets.
    fn options(&self, mut rest: &[u8], interface: &mut Interface) {
        while rest.len() >= 4 {
            let (code, len) = (self.order.u16(rest), usize::from(self.order.u16(&rest[2..])));
            let Some(value) = rest.get(4..4 + len) else { return };
            match (code, value) {
                (0, _) => return,
                (OPT_TSRESOL, [resolution]) => interface.units = units_per_second(*resolution),
                (OPT_TSOFFSET, value @ [_, _, _, _, _, _, _, _]) => {
                    let (a, b) = (self.order.u32(value), self.order.u32(&value[4..]));
                    let (low, high) = if self.order == Order::Little { (a, b) } else { (b, a) };
                    interface.offset_secs = (u64::from(high) << 32 | u64::from(low)).cast_signed();
                }
                _ => {}
            }
            rest = rest.get(4 + len.next_multiple_of(4)..).unwrap_or_default();
        }
    }

    /// An enhanced packet block, or its obsolete forerunner, which differs in the first word.
    fn packet<R: BufRead>(
        &self,
        src: &mut Source<R>,
        mut block: Block,
        old: bool,
    ) -> Result<Option<Frame>, CaptureError> {
        let fixed: [u8; 20] = block.array(src)?;
        let word = |at: usize| self.order.u32(&fixed[at..]);
        let number = if old { u32::from(self.order.u16(&fixed)) } else { word(0) };
        let interface = self.find(number, block.offset)?;
        let data = block.data(src, word(12))?;
        let ts_ns = interface.nanos(u64::from(word(4)) << 32 | u64::from(word(8)));
        let frame = Frame { ts_ns, orig_len: word(16), link_type: interface.link_type, data };
        block.finish(src, self.order)?;
        Ok(Some(frame))
    }

    /// A simple packet block: of interface 0, without a time and without captured length.
    fn simple<R: BufRead>(
        &self,
        src: &mut Source<R>,
        mut block: Block,
    ) -> Result<Option<Frame>, CaptureError> {
        let fixed: [u8; 4] = block.array(src)?;
        let orig_len = self.order.u32(&fixed);
        let interface = self.find(0, block.offset)?;
        let snaplen = if interface.snaplen == 0 { u32::MAX } else { interface.snaplen };
        let data = block.data(src, orig_len.min(snaplen).min(block.left))?;
        block.finish(src, self.order)?;
        Ok(Some(Frame { ts_ns: 0, orig_len, link_type: interface.link_type, data }))
    }

    fn find(&self, number: u32, offset: u64) -> Result<Interface, CaptureError> {
        let found = usize::try_from(number).ok().and_then(|number| self.interfaces.get(number));
        found.copied().ok_or(CaptureError::BadInterface { offset, interface: number })
    }
}

/// `if_tsresol`: with the top bit a negative power of 2, else of 10. Powers without any sense (no time
/// would be left) count as the largest possible.
fn units_per_second(resolution: u8) -> u128 {
    let power = u32::from(resolution & 0x7f);
    if resolution & 0x80 != 0 { 1 << power.min(126) } else { 10u128.pow(power.min(38)) }
}
