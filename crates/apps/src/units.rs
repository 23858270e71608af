//! Numbers and lines as netmap's programs print them.
//!
//! Two things: [`norm`], the `14.880 M` style of rates and counts, and the *D-line*, the one log
//! format that all those programs share: `SSS.UUUUUU function [line] text` on stderr. The format
//! is a contract (scripts parse it), so it lives in one place.

use std::collections::HashMap;
use std::fmt;
use std::io::Write;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Prefixes of [`norm`], one per factor of 1000.
const PREFIXES: [&str; 5] = ["", "K", "M", "G", "T"];

/// A number that prints with three decimals and a unit prefix. Made by [`norm`].
#[derive(Clone, Copy, Debug)]
pub struct Norm {
    value: f64,
    plain: bool,
}

/// `value` as `%.3f ` and a prefix of factor 1000 (`14.880 M`, `60.000 `), or, if `plain`, as `%.0f `.
///
/// The unit is to follow at once: `format!("{}pps", norm(60.0, false))` is `60.000 pps`.
pub fn norm(value: f64, plain: bool) -> Norm {
    Norm { value, plain }
}

impl fmt::Display for Norm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.plain {
            return write!(f, "{:.0} ", self.value);
        }
        let mut value = self.value;
        let mut prefix = 0;
        while value >= 1000.0 && prefix + 1 < PREFIXES.len() {
            value /= 1000.0;
            prefix += 1;
        }
        write!(f, "{value:.3} {}", PREFIXES[prefix])
    }
}

/// `count` things during `time`, as a rate per second; 0 for no time at all.
pub fn per_second(count: f64, time: Duration) -> f64 {
    let secs = time.as_secs_f64();
    if secs > 0.0 { count / secs } else { 0.0 }
}

/// Time since the epoch, now.
pub fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Where D-lines go: one writer, shared by the threads of a program, and the clock for the stamps.
pub struct DLog {
    state: Mutex<LogState>,
    wall: Box<dyn Fn() -> Duration + Send + Sync>,
}

struct LogState {
    sink: Box<dyn Write + Send>,
    /// For each rate-limited place (function, line): the second, and the lines printed in it.
    limits: HashMap<(&'static str, u32), (u64, u32)>,
}

/// Prints the pieces common to both kinds of line. A sink that fails is a closed terminal: no error.
fn write_line(sink: &mut dyn Write, at: Duration, func: &str, line: u32, text: fmt::Arguments<'_>) {
    let (secs, micros) = (at.as_secs() % 1000, at.subsec_micros());
    let _ = writeln!(sink, "{secs:03}.{micros:06} {func} [{line}] {text}");
    let _ = sink.flush();
}

impl DLog {
    /// A log into `sink`; `wall` tells the time since the epoch.
    pub fn new(
        sink: impl Write + Send + 'static,
        wall: impl Fn() -> Duration + Send + Sync + 'static,
    ) -> DLog {
        let state = LogState { sink: Box::new(sink), limits: HashMap::new() };
        DLog { state: Mutex::new(state), wall: Box::new(wall) }
    }

    /// Writes one D-line. Call it through [`dline!`](crate::dline), which knows the line number.
    pub fn line(&self, func: &'static str, line: u32, text: fmt::Arguments<'_>) {
        let at = (self.wall)();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        write_line(&mut *state.sink, at, func, line, text);
    }

    /// Like [`DLog::line`], but at most `per_sec` times in one second for one place in the source
    /// (`func`, `line`); what is above that is dropped silently. Call it through [`rdline!`](crate::rdline).
    pub fn limited(&self, per_sec: u32, func: &'static str, line: u32, text: fmt::Arguments<'_>) {
        let at = (self.wall)();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = state.limits.entry((func, line)).or_insert((at.as_secs(), 0));
        if entry.0 != at.as_secs() {
            *entry = (at.as_secs(), 0);
        }
        if entry.1 < per_sec {
            entry.1 += 1;
            write_line(&mut *state.sink, at, func, line, text);
        }
    }

    /// Writes `text` as it stands, between the D-lines (a usage text, a library's own message).
    pub fn raw(&self, text: fmt::Arguments<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = state.sink.write_fmt(text);
        let _ = state.sink.flush();
    }
}

impl fmt::Debug for DLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DLog").finish_non_exhaustive()
    }
}

/// A writer that threads share, for stdout. What fails is not told: a closed pipe is no error.
pub struct Output(Mutex<Box<dyn Write + Send>>);

impl Output {
    /// Shares `sink`.
    pub fn new(sink: impl Write + Send + 'static) -> Output {
        Output(Mutex::new(Box::new(sink)))
    }

    /// Writes `text` in one piece and hands it on at once.
    pub fn print(&self, text: &str) {
        let mut sink = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = sink.write_all(text.as_bytes());
        let _ = sink.flush();
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").finish_non_exhaustive()
    }
}

/// Bytes in memory that can be written to through one handle and read through another: the sink of tests.
#[derive(Clone, Debug, Default)]
pub struct SharedBytes(Arc<Mutex<Vec<u8>>>);

impl SharedBytes {
    /// What was written, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for SharedBytes {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(data)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The log of the process: stderr, and the system's clock.
pub fn stderr_log() -> &'static DLog {
    static LOG: LazyLock<DLog> = LazyLock::new(|| DLog::new(std::io::stderr(), wall_clock));
    &LOG
}

/// Prints a D-line: `dline!("main", "interface is {}", name)` on stderr, or
/// `dline!(log, "main", ...)` into a given [`DLog`].
#[macro_export]
macro_rules! dline {
    ($func:literal, $($text:tt)+) => {
        $crate::units::stderr_log().line($func, line!(), format_args!($($text)+))
    };
    ($log:expr, $func:literal, $($text:tt)+) => {
        $log.line($func, line!(), format_args!($($text)+))
    };
}

/// Prints a D-line at most so many times a second: `rdline!(log, 5, "sender_body", "...")`.
#[macro_export]
macro_rules! rdline {
    ($log:expr, $per_sec:expr, $func:literal, $($text:tt)+) => {
        $log.limited($per_sec, $func, line!(), format_args!($($text)+))
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn norm_matches_the_examples_of_the_contract() {
        for (value, want) in [
            (0.0, "0.000 "),
            (60.0, "60.000 "),
            (999.0, "999.000 "),
            (1000.0, "1.000 K"),
            (14_880_000.0, "14.880 M"),
            (7.15e9, "7.150 G"),
            (1e12, "1.000 T"),
            (1e16, "10000.000 T"),
        ] {
            assert_eq!(norm(value, false).to_string(), want);
        }
        assert_eq!(norm(14_880_000.4, true).to_string(), "14880000 ");
    }

    #[test]
    fn a_rate_over_no_time_is_not_infinite() {
        assert_eq!(per_second(5.0, Duration::ZERO), 0.0);
        assert_eq!(per_second(5.0, Duration::from_millis(500)), 10.0);
    }

    #[test]
    fn d_lines_have_padded_seconds_and_microseconds() {
        let out = SharedBytes::default();
        let log = DLog::new(out.clone(), || Duration::new(1_700_000_007, 42_000));
        log.line("main", 12, format_args!("interface is {}", "x"));
        log.raw(format_args!("plain\n"));
        assert_eq!(out.text(), "007.000042 main [12] interface is x\nplain\n");
    }

    #[test]
    fn limited_lines_are_counted_per_place_and_second() {
        let out = SharedBytes::default();
        let now = Arc::new(AtomicU64::new(10));
        let clock = Arc::clone(&now);
        let log = DLog::new(out.clone(), move || Duration::from_secs(clock.load(Ordering::Relaxed)));
        for second in [10, 10, 10, 11] {
            now.store(second, Ordering::Relaxed);
            log.limited(2, "f", 1, format_args!("a"));
            rdline!(log, 1, "g", "b");
        }
        let out = out.text();
        assert_eq!(out.matches("f [1] a").count(), 3);
        assert_eq!(out.matches("] b").count(), 2);
    }
}
