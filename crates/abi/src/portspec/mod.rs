//! Port names: both grammars, and what the service itself reads out of a name.
//!
//! [`PortSpec`] is libnetmap's grammar (`nmport_open`), [`LegacySpec`] the older one of `nm_open`. They
//! differ in many details (userapi.md 3 and 6) that programs and their users can see, so each has its
//! own small state machine rather than one with switches. Results and error texts are those of
//! netmap's parsers; the tables of the specification are the tests.
//!
//! Parsing here is pure: what needs a device or a file (`@share=`, `@extmem=`) is handed to the caller
//! as text. So an error of such an option shows only after the whole string was parsed, while
//! libnetmap reports whichever error is further left.

mod keys;
mod legacy;
mod library;
mod names;
mod options;
#[cfg(test)]
mod tests;

pub use keys::{KeyDef, OptionDef, OptionValues, decode_options};
pub use legacy::LegacySpec;
pub use library::{PortSpec, RegisterSpec, decode_header, decode_register};
pub use names::{PipeRole, ValeNameError, is_vale_name, split_pipe, split_vale};
pub use options::{Conf, ConfValues, Extmem, NicMode, Offset, ParseOptions, PortOption, decode_port_options};

use crate::errno::Errno;
use crate::request::{
    NR_EXCLUSIVE, NR_MONITOR_RX, NR_MONITOR_TX, NR_RX_RINGS_ONLY, NR_TX_RINGS_ONLY, NR_ZCOPY_MON,
};
use alloc::format;
use alloc::string::String;
use core::fmt;

/// Ring numbers in names lie below this.
///
/// Source: userapi.md 3 and 6; the C parsers compare with `NETMAP_RING_MASK`.
const RING_LIMIT: u16 = crate::legacy::NETMAP_RING_MASK;

/// Letters of the flag group, in the order in which they are shown.
const FLAG_LETTERS: [(char, u64); 6] = [
    ('x', NR_EXCLUSIVE),
    ('z', NR_ZCOPY_MON),
    ('t', NR_MONITOR_TX),
    ('r', NR_MONITOR_RX),
    ('R', NR_RX_RINGS_ONLY),
    ('T', NR_TX_RINGS_ONLY),
];

/// Why a name was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecError {
    /// What the C functions leave in `errno`.
    pub errno: Errno,
    /// The text the C functions report, without newline.
    pub message: String,
}

impl SpecError {
    fn new(errno: Errno, message: impl Into<String>) -> Self {
        Self { errno, message: message.into() }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::new(Errno::EINVAL, message)
    }

    /// What the C functions leave in `errno`.
    pub const fn errno(&self) -> Errno {
        self.errno
    }
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl core::error::Error for SpecError {}

/// Refuses a name that could not be passed on as a C string.
fn check_nul(spec: &str) -> Result<(), SpecError> {
    match spec.contains('\0') {
        true => Err(SpecError::invalid("port name contains a NUL character")),
        false => Ok(()),
    }
}

/// The bit of a letter of the flag group.
fn flag_bit(letter: char) -> Result<u64, SpecError> {
    match FLAG_LETTERS.iter().find(|(known, _)| *known == letter) {
        Some((_, bit)) => Ok(*bit),
        None => Err(SpecError::invalid(format!("unrecognized flag: '{letter}'"))),
    }
}

fn unexpected(c: char) -> SpecError {
    SpecError::invalid(format!("unexpected character: '{c}'"))
}

/// Whether all of `text` is `[A-Za-z0-9_]`; true if it is empty, as `nm_is_identifier` has it.
fn is_identifier(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A number as C's `strtol` reads it in base 10.
struct Number {
    /// The value, at most and at least what 64 bits hold; 0 without any digit.
    value: i64,
    /// Bytes read; 0 without any digit.
    read: usize,
    /// Whether the value did not fit.
    overflow: bool,
}

/// Reads blanks, a sign and digits from the start of `text`, as C's `strtol` does in base 10.
fn strtol(text: &str) -> Number {
    let blank = |c: char| matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r');
    let unsigned = text.trim_start_matches(blank);
    let (negative, digits) = match unsigned.as_bytes().first() {
        Some(b'-') => (true, &unsigned[1..]),
        Some(b'+') => (false, &unsigned[1..]),
        _ => (false, unsigned),
    };
    let rest = digits.trim_start_matches(|c: char| c.is_ascii_digit());
    if rest.len() == digits.len() {
        return Number { value: 0, read: 0, overflow: false };
    }
    let mut value = Some(0_i64);
    for byte in digits[..digits.len() - rest.len()].bytes() {
        let digit = i64::from(byte - b'0');
        let step = |v: i64| v.checked_mul(10)?.checked_add(if negative { -digit } else { digit });
        value = value.and_then(step);
    }
    let limit = if negative { i64::MIN } else { i64::MAX };
    Number { value: value.unwrap_or(limit), read: text.len() - rest.len(), overflow: value.is_none() }
}

/// A number as C's `atoi` reads it: garbage is 0, too many bits are cut off.
fn atoi(text: &str) -> i32 {
    strtol(text).value as i32
}

/// Checks a ring number. The text shows the number as read.
fn ring_number(value: i64, errno: Errno) -> Result<u16, SpecError> {
    match u16::try_from(value) {
        Ok(ring) if ring < RING_LIMIT => Ok(ring),
        _ => Err(SpecError::new(errno, format!("'{value}' out of range [0, {RING_LIMIT})"))),
    }
}
