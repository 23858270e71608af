//! What is mapped where in this process. Source: proc_pid_maps(5).

use std::io::{BufRead, BufReader};

/// One mapping, or the part of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    pub start: u64,
    pub end: u64,
    pub is_readable: bool,
    pub is_writable: bool,
    pub is_executable: bool,
    /// Others may see what is written.
    pub is_shared: bool,
    /// Where in the file it begins.
    pub offset: u64,
    /// Of the file; 0 and 0: none.
    pub dev: (u32, u32),
    pub ino: u64,
    pub path: String,
}

impl Range {
    /// Reads one line.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.splitn(6, ' ');
        let (start, end) = fields.next()?.split_once('-')?;
        let hex = |s: &str| u64::from_str_radix(s, 16).ok();
        let flags = fields.next()?.as_bytes();
        let offset = hex(fields.next()?)?;
        let (major, minor) = fields.next()?.split_once(':')?;
        let ino = fields.next()?.parse().ok()?;
        Some(Range {
            start: hex(start)?,
            end: hex(end)?,
            is_readable: flags.first() == Some(&b'r'),
            is_writable: flags.get(1) == Some(&b'w'),
            is_executable: flags.get(2) == Some(&b'x'),
            is_shared: flags.get(3) == Some(&b's'),
            offset,
            dev: (hex(major)? as u32, hex(minor)? as u32),
            ino,
            path: fields.next().unwrap_or("").trim_start().to_owned(),
        })
    }
}

/// What is mapped from `start` on, upwards without a gap, up to `end`, cut to these bounds. None if the kernel does not tell.
pub fn mapped(start: u64, end: u64) -> Option<Vec<Range>> {
    let maps = std::fs::File::open("/proc/self/maps").ok()?;
    let mut out = vec![];
    let mut at = start;
    for line in BufReader::new(maps).split(b'\n') {
        let line = line.ok()?;
        let Some(mut range) = Range::parse(&String::from_utf8_lossy(&line)) else { continue };
        if range.end <= at {
            continue;
        }
        if range.start > at || at >= end {
            break;
        }
        range.offset += at - range.start;
        range.start = at;
        range.end = range.end.min(end);
        at = range.end;
        out.push(range);
    }
    Some(out)
}

/// How many bytes from `at` on can be read and written, up to `max`.
pub fn writable_bytes(at: u64, max: u64) -> u64 {
    match mapped(at, at.saturating_add(max)) {
        Some(ranges) => {
            ranges.iter().take_while(|r| r.is_readable && r.is_writable).map(|r| r.end - r.start).sum()
        }
        // Then what can be read must do.
        None => {
            let mut byte = [0];
            let there = |n: &u64| crate::user::read_bytes(at + n - 1, &mut byte).is_ok();
            (64..=max).step_by(64).take_while(there).last().unwrap_or(0)
        }
    }
}
