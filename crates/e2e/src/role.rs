//! How the other processes of a test speak: lines on standard output; an error is one, too.

use std::io::Write;
use std::process::ExitCode;

/// What came of something.
pub type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// One line, at once.
pub fn say(text: &str) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

/// How the process ends, with what is to be said of it.
pub fn end(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            say(&format!("error: {e}"));
            ExitCode::FAILURE
        }
    }
}
