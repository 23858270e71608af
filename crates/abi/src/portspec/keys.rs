//! The grammar of option lists, whatever the options are.
//!
//! Which options there are, and their keys, is a table ([`OptionDef`]); [`decode_options`] reads any
//! such table, so that the C library can serve `nmreq_options_decode` with a program's own.
//!
//! ```text
//! options := ( "@" opt )*
//! opt     := name | name "=" value | name ":" key "=" value ("," key "=" value)*
//! ```

use super::{SpecError, atoi};
use crate::errno::Errno;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

/// A key of an option. Source: `libnetmap.h`, `struct nmreq_opt_key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyDef<'a> {
    /// Spelling, with `_` where users may write `-` too.
    pub name: &'a str,
    /// Index of its value in [`OptionValues`].
    pub id: usize,
    /// May stand without `=value`; its value is then its name.
    pub allow_empty: bool,
    /// Must get a value if the option is written with `:`.
    pub must_set: bool,
}

/// An option and its keys. Source: `libnetmap.h`, `struct nmreq_opt_parser`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionDef<'a> {
    /// Spelling.
    pub name: &'a str,
    /// Id of the key that takes the value of `name=value`, if that form is allowed.
    pub default_key: Option<usize>,
    /// Refused with EOPNOTSUPP.
    pub disabled: bool,
    /// May stand without `=` and `:`.
    pub allow_empty: bool,
    /// The keys.
    pub keys: &'a [KeyDef<'a>],
}

/// The values of one option as written, by key id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionValues<'a>(Vec<Option<&'a str>>);

impl<'a> OptionValues<'a> {
    /// The value of a key; `None` if not given, or given as `key=`.
    pub fn get(&self, id: usize) -> Option<&'a str> {
        self.0.get(id).copied().flatten()
    }

    fn set(&mut self, id: usize, value: &'a str) {
        if let Some(slot) = self.0.get_mut(id) {
            *slot = Some(value).filter(|text| !text.is_empty());
        }
    }

    /// The value of a key as C's `atoi` reads it.
    pub(super) fn number(&self, id: usize) -> Option<i32> {
        self.get(id).map(atoi)
    }
}

/// Reads a list of options, giving the values of each with its index in `defs` to `apply`.
///
/// What `apply` did for options before a bad one stays done. Source: userapi.md 5,
/// `nmreq_options_decode`.
///
/// # Errors
/// [`SpecError`] with libnetmap's text, or the error of `apply`.
pub fn decode_options<'a>(
    text: &'a str,
    defs: &[OptionDef<'a>],
    apply: &mut dyn FnMut(usize, &OptionValues<'a>) -> Result<(), SpecError>,
) -> Result<(), SpecError> {
    if text.is_empty() {
        return Ok(());
    }
    let Some(list) = text.strip_prefix('@') else {
        return Err(SpecError::invalid("option list does not start with '@'"));
    };
    for option in list.split('@') {
        let end = option.find([':', '=']).unwrap_or(option.len());
        let (name, body) = option.split_at(end);
        if name.is_empty() {
            return Err(SpecError::invalid("invalid empty option"));
        }
        let Some(index) = defs.iter().position(|def| def.name == name) else {
            return Err(SpecError::invalid(format!("unknown option: '{name}'")));
        };
        apply(index, &defs[index].values(body)?)?;
    }
    Ok(())
}

impl<'a> OptionDef<'a> {
    /// Reads what follows the name: nothing, `=value` or `:key=value,...`.
    fn values(&self, body: &'a str) -> Result<OptionValues<'a>, SpecError> {
        let name = self.name;
        if self.disabled {
            let text = format!("option '{name}' is not supported");
            return Err(SpecError::new(Errno::EOPNOTSUPP, text));
        }
        let ids = self.keys.iter().map(|key| key.id).chain(self.default_key);
        let mut values = OptionValues(vec![None; ids.max().map_or(0, |id| id.saturating_add(1))]);
        if let Some(value) = body.strip_prefix('=') {
            let Some(id) = self.default_key else {
                return Err(SpecError::invalid(format!("syntax error: '=' not valid after '{name}'")));
            };
            if value.is_empty() {
                return Err(SpecError::invalid(format!("missing value for option '{name}'")));
            }
            values.set(id, value);
        } else if let Some(pairs) = body.strip_prefix(':') {
            self.pairs(pairs, &mut values)?;
        } else if !self.allow_empty {
            return Err(SpecError::invalid(format!("syntax error: missing body after '{name}'")));
        }
        Ok(values)
    }

    fn pairs(&self, mut rest: &'a str, values: &mut OptionValues<'a>) -> Result<(), SpecError> {
        let name = self.name;
        let mut more = !rest.is_empty();
        while more {
            // The first character of a key is not looked at, so that even '=' and ',' can be one.
            let first = rest.chars().next().map_or(0, char::len_utf8);
            let end = rest[first..].find(['=', ',']).map_or(rest.len(), |at| first + at);
            let written = format!("{}{}", &rest[..first], rest[first..end].replace('-', "_"));
            rest = &rest[end..];

            let Some(key) = self.keys.iter().find(|key| key.name == written) else {
                return Err(SpecError::invalid(format!("unknown key: '{written}'")));
            };
            if let Some(old) = values.get(key.id) {
                let text = format!("option '{name}': duplicate key '{written}', already set to '{old}'");
                return Err(SpecError::invalid(text));
            }
            if let Some(tail) = rest.strip_prefix('=') {
                let end = tail.find(',').unwrap_or(tail.len());
                values.set(key.id, &tail[..end]);
                rest = &tail[end..];
            } else if key.allow_empty {
                values.set(key.id, key.name);
            } else {
                let text = format!("option '{name}': missing '=value' for key '{written}'");
                return Err(SpecError::invalid(text));
            }
            more = rest.starts_with(',');
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
        match self.keys.iter().find(|key| key.must_set && values.get(key.id).is_none()) {
            Some(key) => {
                let text = format!("option '{name}': mandatory key '{}' not assigned", key.name);
                Err(SpecError::invalid(text))
            }
            None => Ok(()),
        }
    }
}
