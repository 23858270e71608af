//! Classic pcap: one header, then records. Times in microseconds or nanoseconds, either byte order.

use std::io::{self, BufRead, Write};

use super::{CaptureError, Frame, MAX_FRAME_BYTES, Order, Source};

const MAGIC_MICROS: u32 = 0xa1b2_c3d4;
const MAGIC_NANOS: u32 = 0xa1b2_3c4d;

/// Unit of the fractions of seconds in a classic pcap file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The original format, which every program reads.
    Micros,
    /// The format with its own magic number.
    Nanos,
}

impl Resolution {
    fn nanos(self) -> u64 {
        match self {
            Resolution::Micros => 1000,
            Resolution::Nanos => 1,
        }
    }
}

#[derive(Debug)]
pub(super) struct Header {
    order: Order,
    resolution: Resolution,
    link_type: u32,
}

impl Header {
    /// Reads the rest of the file header, behind its `magic`.
    pub fn open<R: BufRead>(src: &mut Source<R>, magic: [u8; 4]) -> Result<Header, CaptureError> {
        let (order, resolution) = match (u32::from_le_bytes(magic), u32::from_be_bytes(magic)) {
            (MAGIC_MICROS, _) => (Order::Little, Resolution::Micros),
            (MAGIC_NANOS, _) => (Order::Little, Resolution::Nanos),
            (_, MAGIC_MICROS) => (Order::Big, Resolution::Micros),
            (_, MAGIC_NANOS) => (Order::Big, Resolution::Nanos),
            _ => return Err(CaptureError::NotACapture(magic)),
        };
        // Version, time zone, accuracy and snap length tell nothing that is needed here.
        let rest: [u8; 20] = src.array("file header")?;
        // The upper bits say whether frames end with an FCS.
        let link_type = order.u32(&rest[16..]) & 0xffff;
        Ok(Header { order, resolution, link_type })
    }

    pub fn link_type(&self) -> u32 {
        self.link_type
    }

    pub fn next_frame<R: BufRead>(&self, src: &mut Source<R>) -> Result<Option<Frame>, CaptureError> {
        if src.at_end()? {
            return Ok(None);
        }
        let offset = src.offset();
        let record: [u8; 16] = src.array("packet record")?;
        let word = |at: usize| self.order.u32(&record[at..]);
        let cap_len = word(8);
        if cap_len > MAX_FRAME_BYTES {
            return Err(CaptureError::BadLength { offset, what: "captured length", value: cap_len });
        }
        let data = src.vec(cap_len, offset, "packet record")?;
        let ts_ns = u64::from(word(0)) * 1_000_000_000 + u64::from(word(4)) * self.resolution.nanos();
        Ok(Some(Frame { ts_ns, orig_len: word(12), link_type: self.link_type, data }))
    }
}

/// Writes a classic pcap file, little-endian.
#[derive(Debug)]
pub struct Writer<W> {
    file: W,
    resolution: Resolution,
    snaplen: u32,
}

impl<W: Write> Writer<W> {
    /// Writes the file header. Frames longer than `snaplen` bytes will be cut to that.
    ///
    /// # Errors
    /// What the writer returns.
    pub fn new(mut file: W, link_type: u32, snaplen: u32, resolution: Resolution) -> io::Result<Writer<W>> {
        let magic = match resolution {
            Resolution::Micros => MAGIC_MICROS,
            Resolution::Nanos => MAGIC_NANOS,
        };
        let snaplen = snaplen.min(MAX_FRAME_BYTES);
        let mut header = [0; 24];
        header[0..4].copy_from_slice(&magic.to_le_bytes());
        header[4] = 2; // Version 2.4.
        header[6] = 4;
        header[16..20].copy_from_slice(&snaplen.to_le_bytes());
        header[20..24].copy_from_slice(&link_type.to_le_bytes());
        file.write_all(&header)?;
        Ok(Writer { file, resolution, snaplen })
    }

    /// Writes one frame of `orig_len` bytes on the wire, of which `data` was captured, at `ts_ns`
    /// nanoseconds since the epoch (the format ends in 2106).
    ///
    /// # Errors
    /// What the writer returns.
    pub fn write(&mut self, ts_ns: u64, orig_len: u32, data: &[u8]) -> io::Result<()> {
        let data = &data[..data.len().min(self.snaplen as usize)];
        let secs = u32::try_from(ts_ns / 1_000_000_000).unwrap_or(u32::MAX);
        let fraction = (ts_ns % 1_000_000_000 / self.resolution.nanos()) as u32;
        let mut record = [0; 16];
        for (word, value) in record.chunks_exact_mut(4).zip([secs, fraction, data.len() as u32, orig_len]) {
            word.copy_from_slice(&value.to_le_bytes());
        }
        self.file.write_all(&record)?;
        self.file.write_all(data)
    }

    /// Hands out what is buffered.
    ///
    /// # Errors
    /// What the writer returns.
    pub fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    /// The writer below.
    pub fn into_inner(self) -> W {
        self.file
    }
}
