//! The grammar of `nm_open` and `nm_parse`.
//!
//! ```text
//! name := "netmap:" base [mod] | "vale" id ":" base [mod]
//! base := characters up to the first of - * ^ { } / @
//! mod  := ["^" | "*" | "-" N | "{" N | "}" N] ["/" flags] ["@" memid ["/" flags]]
//! ```

use super::{SpecError, check_nul, flag_bit, is_identifier, ring_number, strtol, unexpected};
use crate::errno::Errno;
use crate::request::{
    NR_REG_ALL_NIC, NR_REG_NIC_SW, NR_REG_ONE_NIC, NR_REG_PIPE_MASTER, NR_REG_PIPE_SLAVE, NR_REG_SW,
};
use crate::ring::{IFNAMSIZ, NM_BDG_NAME};
use alloc::format;
use alloc::string::String;

/// A name in the grammar of `nm_open`, as it goes into a [`nmreq`](crate::nmreq).
///
/// Source: userapi.md 3; `sys/net/netmap_user.h`, `nm_parse()`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LegacySpec {
    /// Name for the service: the base, with switch and colon for `vale`. At most 15 bytes.
    pub nr_name: String,
    /// Ring or pipe number, 0..4094.
    pub nr_ringid: u16,
    /// Mode in the low 4 bits, flags above.
    pub nr_flags: u32,
    /// Region, 0 if none is named.
    pub nr_arg2: u16,
}

#[derive(Clone, Copy)]
enum State {
    /// After the base.
    Start,
    /// After a suffix or a region: `/`, `@` or the end.
    Suffix,
    /// A number must follow.
    Number,
    /// A flag, or `@`, must follow.
    Flags,
    /// A flag, `@` or the end.
    MoreFlags,
    /// A region id must follow.
    MemId,
}

impl LegacySpec {
    /// Reads a name.
    ///
    /// # Errors
    /// [`SpecError`] with EINVAL and netmap's text. If the name begins with neither `netmap:` nor
    /// `vale` the errno is 0, which is how `nm_open` says "not for me".
    pub fn parse(spec: &str) -> Result<Self, SpecError> {
        check_nul(spec)?;
        let is_vale = spec.starts_with(NM_BDG_NAME);
        let Some(whole) = (if is_vale { Some(spec) } else { spec.strip_prefix("netmap:") }) else {
            return Err(SpecError::new(Errno(0), format!("{spec}: not a netmap port name")));
        };
        let base_at = if is_vale { end_of_switch(spec)? } else { 0 };
        let base = &whole[base_at..];
        let end = base.find(['-', '*', '^', '{', '}', '/', '@']).unwrap_or(base.len());
        if is_vale && !is_identifier(&base[..end]) {
            return Err(SpecError::invalid("invalid bridge port name"));
        }
        let (name, modifiers) = whole.split_at(base_at + end);
        if name.len() >= IFNAMSIZ {
            return Err(SpecError::invalid("name too long"));
        }
        let mut parsed = Self { nr_name: name.into(), ..Self::default() };
        parsed.modifiers(modifiers)?;
        Ok(parsed)
    }

    fn modifiers(&mut self, mut rest: &str) -> Result<(), SpecError> {
        let mut mode = NR_REG_ALL_NIC;
        let mut state = State::Start;
        while let Some(c) = rest.chars().next() {
            let next = &rest[c.len_utf8()..];
            match state {
                State::Start => {
                    (mode, state) = match c {
                        '^' => (NR_REG_SW, State::Suffix),
                        '*' => (NR_REG_NIC_SW, State::Suffix),
                        '-' => (NR_REG_ONE_NIC, State::Number),
                        '{' => (NR_REG_PIPE_MASTER, State::Number),
                        '}' => (NR_REG_PIPE_SLAVE, State::Number),
                        '/' => (mode, State::Flags),
                        '@' => (mode, State::MemId),
                        _ => return Err(SpecError::invalid(format!("unknown modifier: '{c}'"))),
                    };
                    rest = next;
                }
                State::Suffix => {
                    state = match c {
                        '/' => State::Flags,
                        '@' => State::MemId,
                        _ => return Err(unexpected(c)),
                    };
                    rest = next;
                }
                State::Number => {
                    let number = strtol(rest);
                    self.nr_ringid = ring_number(number.value, Errno::EINVAL)?;
                    rest = &rest[number.read..];
                    state = State::Suffix;
                }
                State::Flags | State::MoreFlags if c == '@' => {
                    rest = next;
                    state = State::MemId;
                }
                State::Flags | State::MoreFlags => {
                    // All letters stand for bits of the low 32.
                    self.nr_flags |= flag_bit(c)? as u32;
                    rest = next;
                    state = State::MoreFlags;
                }
                State::MemId => {
                    if self.nr_arg2 != 0 {
                        return Err(SpecError::invalid("double setting of memid"));
                    }
                    let number = strtol(rest);
                    if number.value <= 0 {
                        let value = number.value;
                        return Err(SpecError::invalid(format!("invalid memid {value}, must be >0")));
                    }
                    self.nr_arg2 = number.value as u16;
                    rest = &rest[number.read..];
                    state = State::Suffix;
                }
            }
        }
        if matches!(state, State::Number | State::Flags | State::MemId) {
            return Err(SpecError::invalid("unexpected end of port name"));
        }
        self.nr_flags |= mode;
        Ok(())
    }
}

/// Where the port part of a `vale` name begins.
fn end_of_switch(spec: &str) -> Result<usize, SpecError> {
    let colon = spec.find(':').ok_or_else(|| SpecError::invalid("missing ':' in vale name"))?;
    if !is_identifier(&spec[..colon]) {
        return Err(SpecError::invalid("invalid bridge name"));
    }
    Ok(colon + 1)
}
