//! Control-C: asks a program to end in order, so that it tells what it has done.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// `timeout -s INT` and its like send the signal twice, to the process and to its group; so do terminals with
/// shells in between. That is one control-C.
const SAME_PRESS: Duration = Duration::from_millis(200);

/// Sets `cancel` on control-C. A later second one ends the process at once.
///
/// # Errors
/// What the system refuses.
pub fn handle_control_c(cancel: &Arc<AtomicBool>) -> io::Result<()> {
    let signal = signal_hook::consts::SIGINT;
    let again = Arc::new(AtomicBool::new(false));
    // The order matters: what is registered first runs first.
    signal_hook::flag::register_conditional_default(signal, Arc::clone(&again))?;
    signal_hook::flag::register(signal, Arc::clone(cancel))?;
    let (mut pressed, wake) = UnixStream::pair()?;
    signal_hook::low_level::pipe::register(signal, wake)?;
    std::thread::Builder::new().name("control-C".into()).spawn(move || {
        if pressed.read_exact(&mut [0]).is_ok() {
            std::thread::sleep(SAME_PRESS);
            again.store(true, Ordering::Relaxed);
        }
    })?;
    Ok(())
}
