//! The command line: names and values, in the order given, and nothing of what they mean.
//!
//! clap splits the line. As in the C program any option may be given again, a value may start with a
//! dash, and single letters may stand together.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, Command};

/// Letter, long name, name of the value (empty: a switch), help.
type Row = (char, &'static str, &'static str, &'static str);

const TABLE: [Row; 34] = [
    ('h', "help", "", "Show this text"),
    ('i', "interface", "PORT", "Port: netmap:NAME, valeX:NAME, an interface name, or null"),
    ('f', "function", "FUNC", "What to do: rx, tx, ping, pong, txseq or rxseq [default: rx]"),
    ('n', "count", "COUNT", "Packets to move, 0: no end [default: 0]"),
    (
        'l',
        "size",
        "BYTES",
        "Frame size without CRC; given twice: the smallest of a random range [default: 60]",
    ),
    ('b', "burst", "COUNT", "Most packets in one round of a ring [default: 512; ping and pong 1]"),
    ('4', "ipv4", "", "Use IPv4 (the default)"),
    ('6', "ipv6", "", "Use IPv6"),
    (
        'd',
        "dst-ip",
        "RANGE",
        "Destination: ADDR[:PORT][-ADDR[:PORT]]; IPv6: [GROUP@]ADDR or [GROUP@][ADDR]:PORT",
    ),
    ('s', "src-ip", "RANGE", "Source, like the destination"),
    ('D', "dst-mac", "MAC", "Destination MAC address [default: ff:ff:ff:ff:ff:ff]"),
    ('S', "src-mac", "MAC", "Source MAC address [default: the interface's]"),
    ('a', "affinity", "CPU", "Bind thread I to CPU (CPU + I) modulo the value of -c"),
    ('c', "cpus", "COUNT", "CPUs to use, 0: all [default: 1]"),
    ('p', "threads", "COUNT", "Threads, each with a ring of its own [default: 1]"),
    ('T', "report-ms", "MS", "Interval of the reports, in milliseconds [default: 1000]"),
    ('w', "wait", "SECONDS", "Time to wait before the start [default: 2; vale ports 0]"),
    ('W', "exit-if-idle", "", "rx, rxseq: stop after a second without packets"),
    ('R', "rate", "PPS", "Packets per second of each thread, 0: no limit [default: 0]"),
    ('X', "dump", "", "Show the payload of every packet"),
    ('H', "vnet-header", "BYTES", "Length of the virtio-net header: 0, 10 or 12"),
    ('P', "file", "FILE", "tx: send the first packet of a capture file"),
    ('z', "random-src", "", "Random source address and port"),
    ('Z', "random-dst", "", "Random destination address and port"),
    ('N', "plain-numbers", "", "Do not shorten numbers with K, M, G"),
    ('F', "frags", "COUNT", "Slots for each packet, 1 to 63 [default: 1]"),
    ('M', "frag-size", "BYTES", "Largest fragment [default: the buffer size]"),
    ('I', "indirect", "", "Send from the program's memory (NS_INDIRECT)"),
    ('r', "rubbish", "", "Send what lies in the buffers"),
    ('v', "verbose", "", "Say more"),
    ('A', "averages", "", "Show mean and deviation of the last rates"),
    ('B', "framing", "", "Count the 24 bytes of framing of each packet in the bandwidth"),
    ('C', "config", "CONFIG", "TX_SLOTS[,RX_SLOTS[,TX_RINGS[,RX_RINGS]]] (deprecated: use PORT@conf:..)"),
    (
        'o',
        "options",
        "MASK",
        "Bits: 1 prefetch, 2 access, 4 copy, 8 memcpy, 16 ts, 32 indirect, 64 dump, 256 rubbish, 512 and 1024 random source and destination, 2048 averages, 4096 checksums with random sizes",
    ),
];

/// One option as given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Its letter, also when the long name was used.
    pub letter: char,
    /// Its value; empty for switches.
    pub value: String,
}

/// A line that cannot be split: the option at fault and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadOption {
    /// The letter, or the long name with its dashes.
    pub option: String,
    /// What is wrong with it.
    pub why: &'static str,
}

/// The options as clap has them: for help, man page and completions.
#[must_use]
pub fn command() -> Command {
    let mut command = Command::new("pkt-gen")
        .about("Sends, receives, echoes and checks packets on a netmap port")
        .disable_help_flag(true)
        .disable_version_flag(true)
        .max_term_width(100);
    for (letter, long, value, help) in TABLE {
        let arg = Arg::new(long).short(letter).long(long).help(help);
        command = command.arg(if value.is_empty() {
            arg.action(ArgAction::SetTrue).overrides_with(long)
        } else {
            arg.action(ArgAction::Append).value_name(value).allow_hyphen_values(true)
        });
    }
    command
}

/// The usage text.
pub fn usage() -> String {
    command().render_help().to_string()
}

/// Splits the line `args` (the first is the program's name) into options, in the order given. Of a switch that
/// is given more than once only the last place counts.
///
/// # Errors
/// [`BadOption`] for an unknown option, a missing value, or a word that belongs to no option.
pub fn split(args: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Vec<Given>, BadOption> {
    let matches = command().try_get_matches_from(args).map_err(|error| bad_option(&error))?;
    let mut given = Vec::new();
    for (letter, id, value, _) in TABLE {
        if matches.value_source(id) != Some(ValueSource::CommandLine) {
            continue;
        }
        let places = matches.indices_of(id).into_iter().flatten();
        if value.is_empty() {
            given.extend(places.last().map(|at| (at, Given { letter, value: String::new() })));
        } else {
            let values = matches.get_many::<String>(id).into_iter().flatten().cloned();
            given.extend(places.zip(values).map(|(at, value)| (at, Given { letter, value })));
        }
    }
    given.sort_by_key(|(at, _)| *at);
    Ok(given.into_iter().map(|(_, given)| given).collect())
}

fn bad_option(error: &clap::Error) -> BadOption {
    let why = match error.kind() {
        ErrorKind::UnknownArgument => "unknown",
        ErrorKind::InvalidValue => "needs a value",
        ErrorKind::InvalidUtf8 => "not UTF-8",
        ErrorKind::TooManyValues => "takes no value",
        _ => "not understood",
    };
    let option = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(arg)) => arg.as_str(),
        _ => "?",
    };
    // clap shows `-i <PORT>` or `--interface <PORT>`; the contract's form is the bare letter.
    let option = option.split(' ').next().unwrap_or_default();
    let row = TABLE.iter().find(|row| option.strip_prefix("--").is_some_and(|name| name == row.1));
    let option = match row {
        Some(row) => row.0.to_string(),
        None if option.starts_with("--") => option.to_owned(),
        None => option.strip_prefix('-').unwrap_or(option).to_owned(),
    };
    BadOption { option, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Result<String, BadOption> {
        let given = split(text.split(' ').map(Into::into))?;
        Ok(given.iter().map(|g| format!("{}{}", g.letter, g.value)).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn options_come_in_the_order_given() {
        assert_eq!(line("pkt-gen -l 100 -ftx -rXi vale0:1 -l 60").unwrap(), "l100 ftx r X ivale0:1 l60");
        assert_eq!(line("pkt-gen -4 -6 -4").unwrap(), "6 4");
        assert_eq!(line("pkt-gen -a -1 -n -f --size=9").unwrap(), "a-1 n-f l9");
        assert_eq!(line("pkt-gen").unwrap(), "");
    }

    #[test]
    fn every_letter_of_the_contract_is_there() {
        let wanted = "46a:f:F:Nn:i:Il:d:s:D:S:b:c:o:p:T:w:WvR:XC:H:rP:zZAhBM:";
        let mut letters = wanted.chars().peekable();
        let mut count = 0;
        while let Some(letter) = letters.next() {
            let takes_value = letters.next_if_eq(&':').is_some();
            let row = TABLE.iter().find(|row| row.0 == letter);
            assert_eq!(row.map(|row| !row.2.is_empty()), Some(takes_value), "{letter}");
            count += 1;
        }
        assert_eq!(count, TABLE.len());
    }

    #[test]
    fn bad_lines_name_the_option() {
        let bad = |text| line(text).map_err(|bad| (bad.option, bad.why));
        assert_eq!(bad("pkt-gen -q"), Err(("q".into(), "unknown")));
        assert_eq!(bad("pkt-gen -i"), Err(("i".into(), "needs a value")));
        assert_eq!(bad("pkt-gen --rate"), Err(("R".into(), "needs a value")));
        assert_eq!(bad("pkt-gen --quick"), Err(("--quick".into(), "unknown")));
        assert_eq!(bad("pkt-gen word"), Err(("word".into(), "unknown")));
    }

    #[test]
    fn the_usage_text_names_all_options() {
        let usage = usage();
        assert!(TABLE.iter().all(|row| usage.contains(&format!("-{}, --{}", row.0, row.1))), "{usage}");
    }
}
