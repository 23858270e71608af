//! The options of port names: the table for [`decode_options`], and what each option means.

use super::{KeyDef, OptionDef, OptionValues, PortSpec, SpecError, decode_options};
use alloc::format;
use alloc::string::String;
use core::fmt;

/// Ring and slot counts of `@conf`, 0 for "service decides".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conf {
    /// Hardware TX rings.
    pub tx_rings: u16,
    /// Hardware RX rings.
    pub rx_rings: u16,
    /// Host TX rings.
    pub host_tx_rings: u16,
    /// Host RX rings.
    pub host_rx_rings: u16,
    /// Slots per TX ring.
    pub tx_slots: u32,
    /// Slots per RX ring.
    pub rx_slots: u32,
}

/// `@extmem`: a file to use as region, and the pools in it, 0 for "service decides".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extmem {
    /// Path, never empty.
    pub file: String,
    /// Number of `netmap_if` objects.
    pub if_num: u32,
    /// Bytes of one.
    pub if_size: u32,
    /// Number of ring objects.
    pub ring_num: u32,
    /// Bytes of one.
    pub ring_size: u32,
    /// Number of buffers.
    pub buf_num: u32,
    /// Bytes of one.
    pub buf_size: u32,
}

/// `@offset`: packets that begin further into their buffers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offset {
    /// Offset in bytes of fresh slots, and the largest that will be used.
    pub initial: u64,
    /// Bits of a slot's `ptr` that hold it, 0 for all.
    pub bits: u32,
}

/// `@mode`: how the service shall reach a NIC. Ringway's own, not in netmap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NicMode {
    /// The best that works.
    #[default]
    Auto,
    /// AF_XDP, zero-copy.
    Zerocopy,
    /// AF_XDP, the driver copies.
    Copy,
    /// AF_XDP on the generic hook.
    Generic,
    /// Packet socket.
    Packet,
}

impl NicMode {
    /// All of them, best first.
    pub const ALL: [Self; 5] = [Self::Auto, Self::Zerocopy, Self::Copy, Self::Generic, Self::Packet];

    /// The word in port names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Zerocopy => "zerocopy",
            Self::Copy => "copy",
            Self::Generic => "generic",
            Self::Packet => "packet",
        }
    }

    /// The mode of this name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// Its number in requests to the broker: its place in [`NicMode::ALL`].
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// The mode of that number, if there is one.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.number() == number)
    }
}

impl fmt::Display for NicMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

const fn key(name: &'static str, id: usize) -> KeyDef<'static> {
    KeyDef { name, id, allow_empty: false, must_set: false }
}

/// The key that takes the value of `name=value`, mandatory in all options that have one.
const fn main_key(name: &'static str) -> KeyDef<'static> {
    KeyDef { name, id: 0, allow_empty: false, must_set: true }
}

const fn option(
    name: &'static str,
    default_key: Option<usize>,
    keys: &'static [KeyDef<'static>],
) -> OptionDef<'static> {
    OptionDef { name, default_key, disabled: false, allow_empty: false, keys }
}

const SHARE: usize = 0;
const CONF: usize = 1;
const EXTMEM: usize = 2;
const OFFSET: usize = 3;
const MODE: usize = 4;

/// The options of port names, in the order of the constants above.
static OPTIONS: [OptionDef<'static>; 5] = [
    option("share", Some(0), &[main_key("port")]),
    option(
        "conf",
        None,
        &[
            key("rings", 0),
            key("tx_rings", 1),
            key("rx_rings", 2),
            key("host_rings", 3),
            key("host_tx_rings", 4),
            key("host_rx_rings", 5),
            key("slots", 6),
            key("tx_slots", 7),
            key("rx_slots", 8),
        ],
    ),
    option(
        "extmem",
        Some(0),
        &[
            main_key("file"),
            key("if_num", 1),
            key("if_size", 2),
            key("ring_num", 3),
            key("ring_size", 4),
            key("buf_num", 5),
            key("buf_size", 6),
        ],
    ),
    option("offset", Some(0), &[main_key("initial"), key("bits", 1)]),
    option("mode", Some(0), &[main_key("mode")]),
];

/// Which options a name may use. All but `offset` at first, as in libnetmap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseOptions {
    /// How many of [`OPTIONS`] exist at all.
    known: usize,
    disabled: [bool; OPTIONS.len()],
}

impl Default for ParseOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl ParseOptions {
    /// All but `offset`.
    pub const fn new() -> Self {
        let mut disabled = [false; OPTIONS.len()];
        disabled[OFFSET] = true;
        Self { known: OPTIONS.len(), disabled }
    }

    /// All that libnetmap has, but `offset`; Ringway's own (`mode`) are unknown.
    pub const fn libnetmap() -> Self {
        Self { known: MODE, ..Self::new() }
    }

    /// Allows an option; false if there is none of this name.
    pub fn enable(&mut self, name: &str) -> bool {
        self.set(name, false)
    }

    /// Refuses an option from now on; false if there is none of this name.
    pub fn disable(&mut self, name: &str) -> bool {
        self.set(name, true)
    }

    fn set(&mut self, name: &str, disabled: bool) -> bool {
        match OPTIONS[..self.known].iter().position(|def| def.name == name) {
            Some(index) => {
                self.disabled[index] = disabled;
                true
            }
            None => false,
        }
    }
}

/// One option of a port name, as read. What it asks for is not done yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortOption<'a> {
    /// `@share`: port whose region to use, as written; never empty.
    Share(&'a str),
    /// `@conf`.
    Conf(ConfValues<'a>),
    /// `@extmem`.
    Extmem(Extmem),
    /// `@offset`.
    Offset(Offset),
    /// `@mode`.
    Mode(NicMode),
}

/// The counts that one `@conf` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfValues<'a>(OptionValues<'a>);

/// Reads the options of a port name, giving each to `apply` in its turn.
///
/// What `apply` did for options before a bad one stays done. Source: userapi.md 6.
///
/// # Errors
/// [`SpecError`] with libnetmap's text, or the error of `apply`.
pub fn decode_port_options<'a>(
    text: &'a str,
    allowed: &ParseOptions,
    apply: &mut dyn FnMut(PortOption<'a>) -> Result<(), SpecError>,
) -> Result<(), SpecError> {
    let mut defs = OPTIONS;
    for (def, disabled) in defs.iter_mut().zip(allowed.disabled) {
        def.disabled = disabled;
    }
    decode_options(text, &defs[..allowed.known], &mut |index, values| {
        apply(match index {
            SHARE => PortOption::Share(values.get(0).unwrap_or_default()),
            CONF => PortOption::Conf(ConfValues(values.clone())),
            EXTMEM => PortOption::Extmem(Extmem::from_values(values)),
            OFFSET => {
                // atoi gives an int; C then widens it with its sign.
                let initial = i64::from(values.number(0).unwrap_or(0)) as u64;
                PortOption::Offset(Offset { initial, bits: values.number(1).unwrap_or(0) as u32 })
            }
            // MODE, the last one.
            _ => {
                let name = values.get(0).unwrap_or_default();
                let mode = NicMode::from_name(name)
                    .ok_or_else(|| SpecError::invalid(format!("unknown mode: '{name}'")))?;
                PortOption::Mode(mode)
            }
        })
    })
}

impl PortSpec {
    /// Reads the options of a name into `self`.
    pub(super) fn apply_options(&mut self, text: &str, allowed: &ParseOptions) -> Result<(), SpecError> {
        decode_port_options(text, allowed, &mut |option| match option {
            PortOption::Share(port) => set_once(&mut self.share, "share", port.into()),
            PortOption::Conf(values) => {
                self.conf.apply(&values);
                Ok(())
            }
            PortOption::Extmem(_) if self.extmem.is_some() => {
                Err(SpecError::invalid(format!("{}: extmem already in use", self.name)))
            }
            PortOption::Extmem(extmem) => set_once(&mut self.extmem, "extmem", extmem),
            PortOption::Offset(offset) => set_once(&mut self.offset, "offset", offset),
            PortOption::Mode(mode) => set_once(&mut self.nic_mode, "mode", mode),
        })
    }
}

/// Stores what may be said twice only if it says the same.
fn set_once<T: PartialEq>(slot: &mut Option<T>, name: &str, value: T) -> Result<(), SpecError> {
    if slot.as_ref().is_some_and(|old| *old != value) {
        return Err(SpecError::invalid(format!("option '{name}' given twice")));
    }
    *slot = Some(value);
    Ok(())
}

impl Conf {
    /// Overwrites what is given; the specific keys win over the general ones.
    pub fn apply(&mut self, values: &ConfValues<'_>) {
        let values = &values.0;
        let number = |specific, general| values.number(specific).or_else(|| values.number(general));
        let rings = |count: &mut u16, specific, general| {
            *count = number(specific, general).map_or(*count, |n| n as u16);
        };
        rings(&mut self.tx_rings, 1, 0);
        rings(&mut self.rx_rings, 2, 0);
        rings(&mut self.host_tx_rings, 4, 3);
        rings(&mut self.host_rx_rings, 5, 3);
        let slots = |count: &mut u32, specific, general| {
            *count = number(specific, general).map_or(*count, |n| n as u32);
        };
        slots(&mut self.tx_slots, 7, 6);
        slots(&mut self.rx_slots, 8, 6);
    }
}

impl Conf {
    /// Writes `@conf:...` as short as it goes; nothing if nothing is wanted.
    pub(super) fn write_option(&self, out: &mut impl fmt::Write) -> fmt::Result {
        let pairs = [
            ("rings", "tx-rings", u32::from(self.tx_rings), "rx-rings", u32::from(self.rx_rings)),
            (
                "host-rings",
                "host-tx-rings",
                u32::from(self.host_tx_rings),
                "host-rx-rings",
                u32::from(self.host_rx_rings),
            ),
            ("slots", "tx-slots", self.tx_slots, "rx-slots", self.rx_slots),
        ];
        let keys = pairs.into_iter().flat_map(|(both, tx_key, tx, rx_key, rx)| match tx == rx {
            true => [(both, tx), ("", 0)],
            false => [(tx_key, tx), (rx_key, rx)],
        });
        write_keys(out, "@conf:", keys)
    }
}

/// Writes `key=number` for every number other than 0, with `start` before the first, commas between.
fn write_keys(
    out: &mut impl fmt::Write,
    start: &str,
    keys: impl Iterator<Item = (&'static str, u32)>,
) -> fmt::Result {
    let mut separator = start;
    for (key, number) in keys.filter(|(_, number)| *number != 0) {
        write!(out, "{separator}{key}={number}")?;
        separator = ",";
    }
    Ok(())
}

impl Extmem {
    /// Writes `@extmem=file`, or the long form where there are numbers.
    pub(super) fn write_option(&self, out: &mut impl fmt::Write) -> fmt::Result {
        let keys = [
            ("if-num", self.if_num),
            ("if-size", self.if_size),
            ("ring-num", self.ring_num),
            ("ring-size", self.ring_size),
            ("buf-num", self.buf_num),
            ("buf-size", self.buf_size),
        ];
        // The short form takes commas in the name, the long one numbers; names are never read with both.
        let delimiter = if keys.iter().all(|(_, number)| *number == 0) { "=" } else { ":file=" };
        write!(out, "@extmem{delimiter}{}", self.file)?;
        write_keys(out, ",", keys.into_iter())
    }

    fn from_values(values: &OptionValues<'_>) -> Self {
        let number = |id| values.number(id).unwrap_or(0) as u32;
        Self {
            file: values.get(0).unwrap_or_default().into(),
            if_num: number(1),
            if_size: number(2),
            ring_num: number(3),
            ring_size: number(4),
            buf_num: number(5),
            buf_size: number(6),
        }
    }
}
