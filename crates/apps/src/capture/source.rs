//! Reads and counts bytes, so that errors can tell where they are.

use std::io::{self, BufRead, ErrorKind, Read};

use super::{CaptureError, MAX_FRAME_BYTES};

/// Byte order of the numbers in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Little,
    Big,
}

impl Order {
    pub fn u16(self, data: &[u8]) -> u16 {
        let bytes = [data[0], data[1]];
        match self {
            Order::Little => u16::from_le_bytes(bytes),
            Order::Big => u16::from_be_bytes(bytes),
        }
    }

    pub fn u32(self, data: &[u8]) -> u32 {
        let bytes = [data[0], data[1], data[2], data[3]];
        match self {
            Order::Little => u32::from_le_bytes(bytes),
            Order::Big => u32::from_be_bytes(bytes),
        }
    }
}

#[derive(Debug)]
pub(super) struct Source<R> {
    file: R,
    offset: u64,
}

impl<R: BufRead> Source<R> {
    pub fn new(file: R) -> Source<R> {
        Source { file, offset: 0 }
    }

    /// Bytes taken so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// True when nothing is left.
    pub fn at_end(&mut self) -> Result<bool, CaptureError> {
        loop {
            match self.file.fill_buf() {
                Ok(rest) => return Ok(rest.is_empty()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The next `N` bytes; `what` names the record that starts here, for the error.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], CaptureError> {
        let mut bytes = [0; N];
        let start = self.offset;
        self.file.read_exact(&mut bytes).map_err(|error| at_end(error, start, what))?;
        self.offset += N as u64;
        Ok(bytes)
    }

    /// The next `len` bytes, at most [`MAX_FRAME_BYTES`] (callers check before). Memory grows with what the
    /// file really has, not with what it promises.
    pub fn vec(&mut self, len: u32, start: u64, what: &'static str) -> Result<Vec<u8>, CaptureError> {
        let len = u64::from(len.min(MAX_FRAME_BYTES));
        let mut data = Vec::with_capacity(len.min(2048) as usize);
        let got = self.file.by_ref().take(len).read_to_end(&mut data)? as u64;
        self.offset += got;
        if got < len { Err(CaptureError::Truncated { offset: start, what }) } else { Ok(data) }
    }

    /// Leaves out `len` bytes without holding them.
    pub fn skip(&mut self, len: u32, start: u64, what: &'static str) -> Result<(), CaptureError> {
        let got = io::copy(&mut self.file.by_ref().take(u64::from(len)), &mut io::sink())?;
        self.offset += got;
        if got < u64::from(len) { Err(CaptureError::Truncated { offset: start, what }) } else { Ok(()) }
    }
}

fn at_end(error: io::Error, offset: u64, what: &'static str) -> CaptureError {
    if error.kind() == ErrorKind::UnexpectedEof {
        CaptureError::Truncated { offset, what }
    } else {
        error.into()
    }
}
