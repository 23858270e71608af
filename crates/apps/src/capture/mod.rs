//! Capture files: reads classic pcap and pcapng, writes classic pcap.
//!
//! Streaming, over any [`BufRead`]; whatever a file says about lengths, at most [`MAX_FRAME_BYTES`] are
//! held for one frame, and blocks of no interest are skipped without being held. Link types are handed on, not
//! interpreted.
//!
//! Source: `pcap-savefile(5)`; draft-ietf-opsawg-pcapng.

use std::fmt;
use std::io::{self, BufRead};

mod source;
use source::{Order, Source};

mod classic;
pub use classic::{Resolution, Writer};

mod ng;

/// Most bytes of one frame that are read from a file; the limit that tcpdump and Wireshark use.
pub const MAX_FRAME_BYTES: u32 = 262_144;

/// Link type of Ethernet frames.
pub const LINK_ETHERNET: u32 = 1;

/// One captured frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Nanoseconds since the epoch; 0 where the file has no time (pcapng's simple packets).
    pub ts_ns: u64,
    /// Bytes the frame had on the wire; `data` may be fewer.
    pub orig_len: u32,
    /// What kind of frame, [`LINK_ETHERNET`] or another number of the pcap link-type registry.
    pub link_type: u32,
    /// The captured bytes.
    pub data: Vec<u8>,
}

/// Why a capture file cannot be read on. Offsets are bytes from the start of the file.
#[derive(Debug)]
pub enum CaptureError {
    /// The file itself could not be read.
    Io(io::Error),
    /// It does not start like a capture file; the first four bytes are given.
    NotACapture([u8; 4]),
    /// The file ends in the middle of something.
    Truncated {
        /// Where that something starts.
        offset: u64,
        /// What it is.
        what: &'static str,
    },
    /// A length in the file is impossible, or above the limit.
    BadLength {
        /// Where the record or block starts.
        offset: u64,
        /// Which length.
        what: &'static str,
        /// Its value, in bytes.
        value: u32,
    },
    /// A packet refers to an interface that was not described before.
    BadInterface {
        /// Where the block starts.
        offset: u64,
        /// Number of the interface.
        interface: u32,
    },
    /// More interfaces in one section than is sensible.
    TooManyInterfaces {
        /// Where the block starts that is one too many.
        offset: u64,
    },
    /// A section whose byte order cannot be told.
    BadByteOrder {
        /// Where the section starts.
        offset: u64,
    },
}

impl fmt::Display for CaptureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CaptureError::Io(error) => write!(f, "cannot read the capture: {error}"),
            CaptureError::NotACapture([a, b, c, d]) => {
                write!(f, "not a pcap or pcapng file: it starts with {a:02x} {b:02x} {c:02x} {d:02x}")
            }
            CaptureError::Truncated { offset, what } => {
                write!(f, "the file ends inside the {what} at offset {offset}")
            }
            CaptureError::BadLength { offset, what, value } => {
                write!(f, "bad {what} {value} at offset {offset}")
            }
            CaptureError::BadInterface { offset, interface } => {
                write!(f, "packet of the unknown interface {interface} at offset {offset}")
            }
            CaptureError::TooManyInterfaces { offset } => {
                write!(f, "too many interfaces, at offset {offset}")
            }
            CaptureError::BadByteOrder { offset } => {
                write!(f, "section without byte-order mark at offset {offset}")
            }
        }
    }
}

impl std::error::Error for CaptureError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            CaptureError::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for CaptureError {
    fn from(error: io::Error) -> CaptureError {
        CaptureError::Io(error)
    }
}

/// Reads frames from a capture file of either format. An iterator; after the first error it ends.
#[derive(Debug)]
pub struct Reader<R> {
    src: Source<R>,
    format: Format,
    done: bool,
}

#[derive(Debug)]
enum Format {
    Classic(classic::Header),
    Ng(ng::Section),
}

impl<R: BufRead> Reader<R> {
    /// Reads the file's first header.
    ///
    /// # Errors
    /// [`CaptureError`] if this is no capture file, or its header cannot be read.
    pub fn new(file: R) -> Result<Reader<R>, CaptureError> {
        let mut src = Source::new(file);
        let magic: [u8; 4] = src.array("file header")?;
        let format = if magic == ng::SECTION_BLOCK {
            Format::Ng(ng::Section::open(&mut src, 0)?)
        } else {
            Format::Classic(classic::Header::open(&mut src, magic)?)
        };
        Ok(Reader { src, format, done: false })
    }

    /// Link type of the whole file; pcapng has one for each frame instead, and gives `None`.
    pub fn link_type(&self) -> Option<u32> {
        match &self.format {
            Format::Classic(header) => Some(header.link_type()),
            Format::Ng(_) => None,
        }
    }

    /// Bytes read so far.
    pub fn offset(&self) -> u64 {
        self.src.offset()
    }

    /// The next frame, `None` at the end of the file.
    ///
    /// # Errors
    /// [`CaptureError`]: nothing behind it can be read.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, CaptureError> {
        if self.done {
            return Ok(None);
        }
        let next = match &mut self.format {
            Format::Classic(header) => header.next_frame(&mut self.src),
            Format::Ng(section) => section.next_frame(&mut self.src),
        };
        self.done = !matches!(next, Ok(Some(_)));
        next
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Frame, CaptureError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_frame().transpose()
    }
}

#[cfg(test)]
mod tests;
