//! What the broker permits: parameters by netmap's names, limits per user, who is admitted.
//!
//! Read from `--config FILE`, else `/etc/ringway/ringway.toml` (a broker of root) or
//! `$XDG_CONFIG_HOME/ringway/ringway.toml` (a broker of a user), if it exists:
//!
//! ```toml
//! admit = "all"                  # "owner" (and root), "all", or a list of users by number
//! public_switches = ["vale0"]    # switches that all users may join
//! [tunables]
//! buf_num = 65536
//! [limits]
//! ports = 500
//! [interfaces]
//! users = [1000]                 # who may open network interfaces: as `admit`
//! [device]                       # a real /dev/netmap
//! group = "netmap"
//! mode = "0660"
//! ```

use ringway_core::control::{InterfaceUsers, Tunables};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Who may connect, besides the broker's own user and root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "expected \"owner\", \"all\" or a list of user numbers")]
pub enum Admit {
    /// `"owner"` or `"all"`.
    Word(AdmitWord),
    /// Users by number.
    Users(Vec<u32>),
    /// Nobody else.
    #[default]
    #[serde(skip)]
    Nobody,
}

/// The words that `admit` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdmitWord {
    /// The broker's own user, and root.
    Owner,
    /// Everybody.
    All,
}

impl Admit {
    /// True if `uid` may connect to a broker of user `own`.
    #[must_use]
    pub fn admits(&self, uid: u32, own: u32) -> bool {
        uid == own
            || uid == 0
            || match self {
                Admit::Word(AdmitWord::All) => true,
                Admit::Users(users) => users.contains(&uid),
                Admit::Word(AdmitWord::Owner) | Admit::Nobody => false,
            }
    }
}

/// Who may open network interfaces, besides the broker's own user and root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Interfaces {
    /// `"owner"`, `"all"`, or a list of users by number.
    pub users: Admit,
}

/// Limits of one user. Root has the same: a leak is a leak.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Descriptors open at once.
    pub sessions: usize,
    /// Ports.
    pub ports: usize,
    /// Bytes of regions, in MiB, as if all were touched.
    pub memory_mib: u64,
    /// Processes attached.
    pub attachments: usize,
    /// Files that wait to be closed.
    pub closing: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { sessions: 2048, ports: 1024, memory_mib: 65536, attachments: 512, closing: 1024 }
    }
}

/// The device file. Without this section there is none.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeviceConfig {
    /// Where it is.
    pub path: PathBuf,
    /// Its owner: name or number.
    pub owner: Account,
    /// Its group: name or number.
    pub group: Account,
    /// Its mode, in octal digits.
    pub mode: String,
    /// Open descriptors of one user, at most: each has a thread in the helper.
    pub descriptors: usize,
}

impl Default for DeviceConfig {
    fn default() -> Self {
        DeviceConfig {
            path: "/dev/netmap".into(),
            owner: Account::Number(0),
            group: Account::Number(0),
            mode: "0600".into(),
            descriptors: 256,
        }
    }
}

impl DeviceConfig {
    /// Number of the owner.
    ///
    /// # Errors
    /// A line for people.
    pub fn owner_number(&self) -> Result<u32, String> {
        self.owner.number("/etc/passwd")
    }

    /// Number of the group.
    ///
    /// # Errors
    /// A line for people.
    pub fn group_number(&self) -> Result<u32, String> {
        self.group.number("/etc/group")
    }

    /// The mode as a number.
    ///
    /// # Errors
    /// A line for people.
    pub fn mode_number(&self) -> Result<u16, String> {
        let mode = u16::from_str_radix(&self.mode, 8).ok().filter(|m| m & !0o666 == 0);
        mode.ok_or_else(|| {
            format!("device.mode is \"{}\": give read and write bits in octal, like \"0660\"", self.mode)
        })
    }
}

/// A user or a group.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "expected a name or a number")]
pub enum Account {
    /// By number.
    Number(u32),
    /// By name.
    Name(String),
}

impl Account {
    /// Its number; a name is looked up in `file`, of whose lines it is the first field and the number the third.
    fn number(&self, file: &str) -> Result<u32, String> {
        let name = match self {
            Account::Number(number) => return Ok(*number),
            Account::Name(name) => name,
        };
        let text = std::fs::read_to_string(file).map_err(|e| format!("cannot read {file}: {e}"))?;
        let found = text.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
        });
        found.ok_or_else(|| format!("[device]: {file} has no {name}"))
    }
}

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Who may connect.
    pub admit: Admit,
    /// Switches that all users may join.
    pub public_switches: Vec<String>,
    /// Limits per user.
    pub limits: Limits,
    /// Who may open network interfaces.
    pub interfaces: Interfaces,
    /// The device file.
    pub device: Option<DeviceConfig>,
    /// Stay although nobody uses it (a service).
    pub stay: bool,
    tunables: BTreeMap<String, i32>,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// A line for people: which file, where, what.
    pub fn read(path: &Path) -> Result<Config, String> {
        let text =
            std::fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        let config: Config = toml::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        config.check().map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(config)
    }

    /// Where the file is looked for when none is named.
    #[must_use]
    pub fn default_path(uid: u32) -> Option<PathBuf> {
        let path = if uid == 0 {
            PathBuf::from("/etc/ringway/ringway.toml")
        } else {
            let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".config"));
            std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home)?.join("ringway/ringway.toml")
        };
        path.exists().then_some(path)
    }

    /// Who may open network interfaces, in a broker of user `own`.
    #[must_use]
    pub fn interface_users(&self, own: u32) -> InterfaceUsers {
        match &self.interfaces.users {
            Admit::Word(AdmitWord::All) => InterfaceUsers::All,
            Admit::Users(users) => InterfaceUsers::Some(users.iter().copied().chain([own]).collect()),
            Admit::Word(AdmitWord::Owner) | Admit::Nobody => InterfaceUsers::Some([own].into()),
        }
    }

    /// What the types do not say.
    fn check(&self) -> Result<(), String> {
        self.tunables()?;
        let is_switch = |name: &String| name.starts_with("vale") && !name.contains(':');
        match self.public_switches.iter().find(|name| !is_switch(name)) {
            Some(name) => Err(format!(
                "public_switches: \"{name}\" is no name of a switch: give \"vale0\" and the like"
            )),
            None => Ok(()),
        }
    }

    /// The parameters, over the defaults.
    ///
    /// # Errors
    /// The name of one that does not exist.
    pub fn tunables(&self) -> Result<Tunables, String> {
        let mut out = Tunables::default();
        for (name, value) in &self.tunables {
            if !out.set(name, *value) {
                return Err(format!("there is no tunable {name}; known: {}", Tunables::NAMES.join(" ")));
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_understood_and_mistakes_are_named() {
        let c: Config = toml::from_str(
            "admit = \"all\"\npublic_switches = [\"vale0\"]\n[tunables]\nbuf_num = 9\n[limits]\nports = 3",
        )
        .unwrap();
        assert!(c.admit.admits(77, 5) && c.limits.ports == 3 && c.limits.sessions == 2048);
        assert_eq!(c.tunables().unwrap().buf_num, 9);
        let c: Config = toml::from_str("admit = [3]").unwrap();
        assert!(
            c.admit.admits(3, 5) && c.admit.admits(5, 5) && c.admit.admits(0, 5) && !c.admit.admits(4, 5)
        );
        assert!(toml::from_str::<Config>("prots = 3").is_err());
        let c: Config = toml::from_str("[tunables]\nbufnum = 9").unwrap();
        assert!(c.tunables().unwrap_err().contains("bufnum"));
        assert!(!Config::default().admit.admits(1, 5));
        for bad in ["admit = \"foo\"", "admit = [-1]", "[interfaces]\nusers = 3"] {
            let text = toml::from_str::<Config>(bad).unwrap_err().to_string();
            assert!(text.contains("\"owner\", \"all\" or a list of user numbers"), "{text}");
        }
        for bad in ["eth0", "", "vale0:a"] {
            let c = Config { public_switches: vec![bad.into()], ..Config::default() };
            assert!(c.check().unwrap_err().contains(&format!("\"{bad}\"")), "{bad}");
        }
    }

    #[test]
    fn the_device_file_is_off_by_default_and_roots_alone_unless_told() {
        assert_eq!(Config::default().device, None);
        let device = |text: &str| toml::from_str::<Config>(text).unwrap().device.unwrap();
        let d = device("[device]");
        assert_eq!((d.owner_number(), d.group_number(), d.mode_number()), (Ok(0), Ok(0), Ok(0o600)));
        let d = device("[device]\ngroup = \"root\"\nmode = \"0660\"\nowner = 7");
        assert_eq!((d.owner_number(), d.group_number(), d.mode_number()), (Ok(7), Ok(0), Ok(0o660)));
        let d = device("[device]\ngroup = \"no such group\"\nmode = \"4755\"");
        assert!(d.group_number().unwrap_err().contains("no such group") && d.mode_number().is_err());
    }
}
