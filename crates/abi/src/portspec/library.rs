//! libnetmap's grammar: prefix, name and mode. The options are in [`options`](super::options).
//!
//! ```text
//! portspec := "netmap:" vpname [mode] [options] | "vale" [id] ":" vpname [mode] [options]
//! vpname   := base | base "{" pid | base "}" pid
//! base     := characters up to the first of - * ^ / @
//! mode     := ["^" [N] | "*" | "-" N] ["/" flags] ("@" memid ["/" flags])*
//! ```

use super::{
    Conf, Extmem, FLAG_LETTERS, NicMode, Offset, ParseOptions, SpecError, check_nul, flag_bit, is_identifier,
    is_vale_name, ring_number, strtol, unexpected,
};
use crate::errno::Errno;
use crate::option::{NETMAP_REQ_OPT_OFFSETS, nmreq_opt_offsets, nmreq_option};
use crate::request::{
    NR_REG_ALL_NIC, NR_REG_NIC_SW, NR_REG_ONE_NIC, NR_REG_ONE_SW, NR_REG_SW, nmreq_pools_info, nmreq_register,
};
use crate::ring::{NETMAP_REQ_IFNAMSIZ, NM_BDG_NAME};
use alloc::format;
use alloc::string::String;
use core::fmt;

/// A port as a user names it: `netmap:eth0-3/x@conf:slots=512`.
///
/// Shown (`Display`) in a form that reads back to the same value. Source: userapi.md 6;
/// `libnetmap/nmreq.c`, `libnetmap/nmport.c`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortSpec {
    /// Name for the service, 1..=63 bytes: without `netmap:`, but with `vale..:`, and with the pipe part.
    pub name: String,
    /// `NR_REG_*`.
    pub nr_mode: u32,
    /// Ring of the `ONE` modes, 0..4094.
    pub nr_ringid: u16,
    /// `NR_EXCLUSIVE` and its like.
    pub nr_flags: u64,
    /// Region, 0 if none is named by number.
    pub nr_mem_id: u16,
    /// Port whose region to use (`@share`), as written. Who resolves it refuses an id other than a
    /// `nr_mem_id` that is not 0 (libnetmap: EINVAL, "cannot set mem_id to N, already set to M").
    pub share: Option<String>,
    /// Ring and slot counts wanted.
    pub conf: Conf,
    /// File to use as region.
    pub extmem: Option<Extmem>,
    /// Packet offsets.
    pub offset: Option<Offset>,
    /// How to reach the NIC; not in netmap, and without meaning for other ports.
    pub nic_mode: Option<NicMode>,
}

impl PortSpec {
    /// Reads a name, `offset` not being allowed.
    ///
    /// Differs from libnetmap in that `share`, `offset` and `mode` are refused when given twice with
    /// different values: libnetmap lets the first pass if both mean one region, and fails later on the
    /// second.
    ///
    /// # Errors
    /// [`SpecError`] with libnetmap's errno and text.
    pub fn parse(spec: &str) -> Result<Self, SpecError> {
        Self::parse_with(spec, &ParseOptions::new())
    }

    /// Reads a name with a choice of options allowed.
    ///
    /// # Errors
    /// As [`PortSpec::parse`].
    pub fn parse_with(spec: &str, allowed: &ParseOptions) -> Result<Self, SpecError> {
        let (name, mode) = decode_header(spec)?;
        let (register, options) = decode_register(mode, 0)?;
        let mut parsed = Self {
            name: name.into(),
            nr_mode: register.nr_mode,
            nr_ringid: register.nr_ringid,
            nr_flags: register.nr_flags,
            nr_mem_id: register.nr_mem_id,
            ..Self::default()
        };
        parsed.apply_options(options, allowed)?;
        Ok(parsed)
    }

    /// The body of the REGISTER request for this port; `share` is left to the caller.
    pub fn register(&self) -> nmreq_register {
        nmreq_register {
            nr_tx_slots: self.conf.tx_slots,
            nr_rx_slots: self.conf.rx_slots,
            nr_tx_rings: self.conf.tx_rings,
            nr_rx_rings: self.conf.rx_rings,
            nr_host_tx_rings: self.conf.host_tx_rings,
            nr_host_rx_rings: self.conf.host_rx_rings,
            nr_mem_id: self.nr_mem_id,
            nr_ringid: self.nr_ringid,
            nr_mode: self.nr_mode,
            nr_flags: self.nr_flags,
            ..nmreq_register::default()
        }
    }
}

impl Extmem {
    /// The pools wanted, in a region of `memsize_bytes`.
    pub fn pools_info(&self, memsize_bytes: u64) -> nmreq_pools_info {
        nmreq_pools_info {
            nr_memsize: memsize_bytes,
            nr_if_pool_objtotal: self.if_num,
            nr_if_pool_objsize: self.if_size,
            nr_ring_pool_objtotal: self.ring_num,
            nr_ring_pool_objsize: self.ring_size,
            nr_buf_pool_objtotal: self.buf_num,
            nr_buf_pool_objsize: self.buf_size,
            ..nmreq_pools_info::default()
        }
    }
}

impl Offset {
    /// The option of the REGISTER request; `nro_next` is 0.
    pub fn to_option(&self) -> nmreq_opt_offsets {
        nmreq_opt_offsets {
            nro_opt: nmreq_option { nro_reqtype: NETMAP_REQ_OPT_OFFSETS, ..nmreq_option::default() },
            nro_max_offset: self.initial,
            nro_initial_offset: self.initial,
            nro_offset_bits: self.bits,
            ..nmreq_opt_offsets::default()
        }
    }
}

/// Reads prefix and name. Returns the name for the service, and what follows it.
///
/// Source: userapi.md 5, `nmreq_header_decode`.
///
/// # Errors
/// [`SpecError`] with libnetmap's text.
pub fn decode_header(spec: &str) -> Result<(&str, &str), SpecError> {
    check_nul(spec)?;
    let is_vale = spec.starts_with(NM_BDG_NAME);
    let prefix = if is_vale { NM_BDG_NAME } else { "netmap" };
    let Some(scan) = spec.strip_prefix(prefix) else {
        return Err(SpecError::invalid(format!("{spec}: invalid request, prefix unknown or missing")));
    };
    let Some((id, vpname)) = scan.split_once(':') else {
        return Err(SpecError::invalid(format!("{spec}: missing ':'")));
    };
    if !is_vale && !id.is_empty() {
        let text = format!("{spec}: no identifier allowed between '{prefix}' and ':'");
        return Err(SpecError::invalid(text));
    }
    if !is_identifier(id) {
        return Err(SpecError::invalid(format!("{spec}: invalid identifier '{id}'")));
    }

    let end = vpname.find(['-', '*', '^', '/', '@']).unwrap_or(vpname.len());
    let (port, rest) = vpname.split_at(end);
    if let Some(at) = port.find(['{', '}']) {
        let pipe = &port[at + 1..];
        // With a suffix after it an empty id passes: so does libnetmap.
        if pipe.is_empty() && rest.is_empty() {
            return Err(SpecError::invalid(format!("{spec}: invalid empty pipe name")));
        }
        if !is_identifier(pipe) {
            return Err(SpecError::invalid(format!("{spec}: invalid pipe name '{pipe}'")));
        }
    }
    let name = if is_vale { &spec[..spec.len() - rest.len()] } else { port };
    if name.is_empty() {
        return Err(SpecError::invalid(format!("{spec}: invalid empty port name")));
    }
    if name.len() >= NETMAP_REQ_IFNAMSIZ {
        return Err(SpecError::invalid(format!("name '{name}' too long")));
    }
    Ok((name, rest))
}

/// What the mode part of a name says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegisterSpec {
    /// `NR_REG_*`.
    pub nr_mode: u32,
    /// Ring of the `ONE` modes, 0..4094.
    pub nr_ringid: u16,
    /// `NR_EXCLUSIVE` and its like.
    pub nr_flags: u64,
    /// Region, 0 if none.
    pub nr_mem_id: u16,
}

#[derive(Clone, Copy)]
enum State {
    /// After the name.
    Start,
    /// After a suffix or a region: `/`, `@` or the end.
    Suffix,
    /// After `^`: a number makes it one host ring pair.
    HostRing,
    /// A number must follow.
    Number,
    /// A flag, or `@`, must follow.
    Flags,
    /// A flag, `@` or the end.
    MoreFlags,
    /// A region id, or an option.
    MemId,
}

/// Reads mode, flags and region. Returns them, and the options that follow (with their `@`).
///
/// A `nr_mem_id` other than 0 counts as named before. Source: userapi.md 5, `nmreq_register_decode`.
///
/// # Errors
/// [`SpecError`] with libnetmap's text; ERANGE if a number does not fit 64 bits, else EINVAL.
pub fn decode_register(text: &str, nr_mem_id: u16) -> Result<(RegisterSpec, &str), SpecError> {
    let mut spec = RegisterSpec { nr_mode: NR_REG_ALL_NIC, nr_mem_id, ..RegisterSpec::default() };
    let mut state = State::Start;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let next = &rest[c.len_utf8()..];
        match state {
            State::Start => {
                (spec.nr_mode, state) = match c {
                    '^' => (NR_REG_SW, State::HostRing),
                    '*' => (NR_REG_NIC_SW, State::Suffix),
                    '-' => (NR_REG_ONE_NIC, State::Number),
                    '/' => (NR_REG_ALL_NIC, State::Flags),
                    '@' => (NR_REG_ALL_NIC, State::MemId),
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
            State::HostRing if c.is_ascii_digit() => {
                spec.nr_mode = NR_REG_ONE_SW;
                state = State::Number;
            }
            State::HostRing => state = State::Suffix,
            State::Number if !c.is_ascii_digit() => {
                return Err(SpecError::invalid(format!("got '{rest}' while expecting a number")));
            }
            State::Number => {
                let number = strtol(rest);
                let errno = if number.overflow { Errno::ERANGE } else { Errno::EINVAL };
                spec.nr_ringid = ring_number(number.value, errno)?;
                rest = &rest[number.read..];
                state = State::Suffix;
            }
            State::Flags | State::MoreFlags if c == '@' => {
                rest = next;
                state = State::MemId;
            }
            State::Flags | State::MoreFlags => {
                spec.nr_flags |= flag_bit(c)?;
                rest = next;
                state = State::MoreFlags;
            }
            // Not a region but an option: give the '@' back.
            State::MemId if !c.is_ascii_digit() => {
                return Ok((spec, &text[text.len() - rest.len() - 1..]));
            }
            State::MemId => {
                let number = strtol(rest);
                let mem_id = number.value;
                if mem_id <= 0 {
                    return Err(SpecError::invalid(format!("invalid mem_id: '{mem_id}'")));
                }
                let old = spec.nr_mem_id;
                if old != 0 && i64::from(old) != mem_id {
                    let errno = if number.overflow { Errno::ERANGE } else { Errno::EINVAL };
                    let message = format!("invalid setting of mem_id to {mem_id} (already set to {old})");
                    return Err(SpecError::new(errno, message));
                }
                spec.nr_mem_id = mem_id as u16;
                rest = &rest[number.read..];
                state = State::Suffix;
            }
        }
    }
    match state {
        State::MemId => Err(SpecError::invalid("invalid empty mem_id")),
        State::Number | State::Flags => Err(SpecError::invalid("unexpected end of request")),
        _ => Ok((spec, rest)),
    }
}

impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !is_vale_name(&self.name) || decode_header(&self.name).is_err() {
            f.write_str("netmap:")?;
        }
        f.write_str(&self.name)?;
        let mut suffix = String::new();
        self.write_suffix(&mut suffix)?;
        // A pipe without id is only accepted with something behind it.
        if suffix.is_empty() && self.name.ends_with(['{', '}']) {
            suffix.push_str("@conf:");
        }
        f.write_str(&suffix)
    }
}

impl PortSpec {
    /// Writes all that follows the name.
    fn write_suffix(&self, out: &mut impl fmt::Write) -> fmt::Result {
        let ring = self.nr_ringid;
        match self.nr_mode {
            NR_REG_SW => out.write_str("^")?,
            NR_REG_NIC_SW => out.write_str("*")?,
            NR_REG_ONE_NIC => write!(out, "-{ring}")?,
            NR_REG_ONE_SW => write!(out, "^{ring}")?,
            _ => {}
        }
        let mut slash = "/";
        for (letter, bit) in FLAG_LETTERS {
            if self.nr_flags & bit != 0 {
                write!(out, "{slash}{letter}")?;
                slash = "";
            }
        }
        if self.nr_mem_id != 0 {
            write!(out, "@{}", self.nr_mem_id)?;
        }
        if let Some(port) = &self.share {
            write!(out, "@share={port}")?;
        }
        self.conf.write_option(out)?;
        if let Some(extmem) = &self.extmem {
            extmem.write_option(out)?;
        }
        match self.offset {
            // As the int it was read as, see `atoi`.
            Some(Offset { initial, bits: 0 }) => write!(out, "@offset={}", initial as i64)?,
            Some(Offset { initial, bits }) => write!(out, "@offset:initial={},bits={bits}", initial as i64)?,
            None => {}
        }
        match self.nic_mode {
            Some(mode) => write!(out, "@mode={mode}"),
            None => Ok(()),
        }
    }
}
