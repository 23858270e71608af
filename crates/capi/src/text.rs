//! C strings as text for the grammar of names, and back.
//!
//! Names and paths are bytes to C, and the grammar reads `str`. UTF-8 is taken as it is. Of anything else
//! each byte becomes one character (as in Latin-1), so that no two strings become equal, and every part of
//! the text can be turned back into the bytes it came from.

use core::ffi::{CStr, c_char};
use ringway_abi::SpecError;
use std::ffi::CString;

use crate::errno::Failure;

/// The text of a C string.
#[derive(Debug)]
pub struct Text {
    text: String,
    /// Whether each character stands for one byte.
    bytewise: bool,
}

impl Text {
    /// Takes a copy.
    pub fn new(bytes: &[u8]) -> Self {
        match core::str::from_utf8(bytes) {
            Ok(text) => Self { text: text.into(), bytewise: false },
            Err(_) => Self { text: bytes.iter().copied().map(char::from).collect(), bytewise: true },
        }
    }

    /// Takes a copy of a C string.
    ///
    /// # Safety
    /// C contract 2.
    pub unsafe fn from_ptr(string: *const c_char) -> Self {
        // SAFETY: as the caller promises.
        Self::new(unsafe { CStr::from_ptr(string) }.to_bytes())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Another C string in the same writing, to be compared with parts of this one.
    pub fn same_writing(&self, bytes: &[u8]) -> String {
        match self.bytewise {
            true => bytes.iter().copied().map(char::from).collect(),
            // Not UTF-8: equal to nothing in this text, as it should be.
            false => String::from_utf8_lossy(bytes).into_owned(),
        }
    }

    /// The bytes of a part of this text, or of words that quote it.
    pub fn bytes(&self, part: &str) -> Vec<u8> {
        match self.bytewise {
            true => part.chars().map(|c| u8::try_from(c).unwrap_or(b'?')).collect(),
            false => part.into(),
        }
    }

    /// A part of this text as a C string.
    pub fn c_string(&self, part: &str) -> CString {
        // The text came from a C string, so no part of it holds a NUL.
        CString::new(self.bytes(part)).unwrap_or_default()
    }

    /// Where in the C string `rest` begins, which is what remains of this text.
    pub fn offset(&self, rest: &str) -> usize {
        let read = self.text.len().saturating_sub(rest.len());
        match self.bytewise {
            true => self.text.get(..read).map_or(0, |read| read.chars().count()),
            false => read,
        }
    }

    /// An error of the grammar.
    pub fn failure(&self, error: &SpecError) -> Failure {
        Failure::new(error.errno, self.bytes(&error.message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_come_back() {
        for bytes in [&b"plain"[..], "\u{e9}t\u{e9}".as_bytes(), b"\xe9t\xe9\xff", b""] {
            let text = Text::new(bytes);
            assert_eq!(text.bytes(text.as_str()), bytes);
            assert_eq!(text.c_string(text.as_str()).as_bytes(), bytes);
            for (at, _) in text.as_str().char_indices() {
                let rest = &text.as_str()[at..];
                assert_eq!(&bytes[text.offset(rest)..], text.bytes(rest));
            }
            assert_eq!(text.same_writing(bytes), text.as_str());
        }
        assert_ne!(Text::new(b"\xff").as_str(), Text::new("\u{ff}\u{ff}".as_bytes()).as_str());
        assert_ne!(Text::new(b"a").same_writing(b"\xff"), "a");
    }

    #[test]
    fn errors_quote_bytes() {
        let text = Text::new(b"netmap:eth0/\xe9");
        let error = ringway_abi::PortSpec::parse(text.as_str()).unwrap_err();
        assert_eq!(text.failure(&error).message.unwrap(), b"unrecognized flag: '\xe9'");
    }
}
