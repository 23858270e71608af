//! What the service reads out of a name by itself: switch and port, pipe parent and id.

use crate::errno::Errno;
use crate::ring::{IFNAMSIZ, NM_BDG_NAME};
use core::fmt;

/// Which end of a pipe a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PipeRole {
    /// `parent{id`.
    Master,
    /// `parent}id`.
    Slave,
}

impl PipeRole {
    /// The character of this end in names.
    pub const fn bracket(self) -> char {
        match self {
            Self::Master => '{',
            Self::Slave => '}',
        }
    }

    /// The other end.
    pub const fn peer(self) -> Self {
        match self {
            Self::Master => Self::Slave,
            Self::Slave => Self::Master,
        }
    }
}

/// Why a name is not one of a switch port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValeNameError {
    /// Does not begin with `vale`.
    Prefix,
    /// Has no colon.
    NoColon,
    /// A character other than `[A-Za-z0-9_]` before the colon, at this byte.
    Identifier(usize),
    /// The colon is at this byte, not among the first 16.
    SwitchTooLong(usize),
    /// The part after the colon has this many bytes, more than 15.
    PortTooLong(usize),
}

impl ValeNameError {
    /// EINVAL for a name that is not meant for a switch, ENOMEM for a malformed one, as upstream.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Prefix => Errno::EINVAL,
            _ => Errno::ENOMEM,
        }
    }
}

impl fmt::Display for ValeNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Prefix => write!(f, "switch names begin with '{NM_BDG_NAME}'"),
            Self::NoColon => f.write_str("no ':' after the switch name"),
            Self::Identifier(at) => write!(f, "character {at} of the switch name is no letter, digit or '_'"),
            Self::SwitchTooLong(len) => write!(f, "switch name has {len} characters, more than 15"),
            Self::PortTooLong(len) => write!(f, "port name has {len} characters, more than 15"),
        }
    }
}

impl core::error::Error for ValeNameError {}

/// Whether a name belongs to the switches. Upstream tests three letters, we test all four of `vale`,
/// so that an interface called `val3` can be opened (abi.md 9.1).
pub fn is_vale_name(name: &str) -> bool {
    name.starts_with(NM_BDG_NAME)
}

/// Splits `vale0:port` into `vale0` and `port`; either may be as short as `vale` and nothing.
///
/// Pipe names pass as they are: who accepts them calls [`split_pipe`] first. Source: semantics.md 15.
///
/// # Errors
/// [`ValeNameError`] by the limits named there.
pub fn split_vale(name: &str) -> Result<(&str, &str), ValeNameError> {
    let id = name.strip_prefix(NM_BDG_NAME).ok_or(ValeNameError::Prefix)?;
    let (id, port) = id.split_once(':').ok_or(ValeNameError::NoColon)?;
    let switch = &name[..NM_BDG_NAME.len() + id.len()];
    if let Some(at) = switch.bytes().position(|b| !b.is_ascii_alphanumeric() && b != b'_') {
        return Err(ValeNameError::Identifier(at));
    }
    if switch.len() >= IFNAMSIZ {
        return Err(ValeNameError::SwitchTooLong(switch.len()));
    }
    if port.len() >= IFNAMSIZ {
        return Err(ValeNameError::PortTooLong(port.len()));
    }
    Ok((switch, port))
}

/// Splits a pipe name into parent, end and id; `None` if it is not one.
///
/// The bracket is the last `{` if there is any, else the last `}`. Parent and id may come out empty;
/// the service refuses those. Source: semantics.md 21.
pub fn split_pipe(name: &str) -> Option<(&str, PipeRole, &str)> {
    [PipeRole::Master, PipeRole::Slave].into_iter().find_map(|role| {
        let (parent, id) = name.rsplit_once(role.bracket())?;
        Some((parent, role, id))
    })
}
