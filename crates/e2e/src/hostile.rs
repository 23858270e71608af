//! What tests of hostile clients share: another user in a thread, all that a client may write, and somebody else who asks meanwhile.
//! Their requests by hand: [`raw`](crate::raw).

use crate::raw::answer;
use ringway_abi::wire::{self, Kind};
use ringway_core::lease::{Grant, GrantKind};
use ringway_os::mem::{Map, SharedSlice};
use rustix::net::sockopt;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A small generator of numbers, the same in every run.
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next one.
    #[allow(clippy::should_implement_trait)] // It never ends.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// One below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// Runs `work` in a thread of user `uid`, whom the kernel names to whoever the thread connects and writes to.
///
/// # Panics
/// If we may not become that user, or `work` panics.
pub fn as_user<T: Send>(uid: u32, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|s| {
        let thread = s.spawn(|| {
            become_user(uid);
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Makes this thread one of user `uid`, for good.
///
/// # Panics
/// If it may not.
pub fn become_user(uid: u32) {
    let (gid, uid) = (rustix::fs::Gid::from_raw(uid), rustix::fs::Uid::from_raw(uid));
    rustix::thread::set_thread_res_gid(gid, gid, gid).expect("root may");
    rustix::thread::set_thread_res_uid(uid, uid, uid).expect("root may");
}

/// A map as words that anybody may write.
///
/// # Panics
/// Never: a map holds its own words.
#[must_use]
pub fn words(map: &Arc<Map>) -> SharedSlice<AtomicU64> {
    SharedSlice::new(map, 0, map.len_bytes() / 8).expect("it holds its words")
}

/// All that a client may write of what it was granted.
#[must_use]
pub fn maps(grant: &Grant) -> Vec<Arc<Map>> {
    let mut maps = vec![grant.region.map.clone(), grant.state.map.clone()];
    match &grant.kind {
        GrantKind::Vale { page, .. } => maps.push(page.map.clone()),
        GrantKind::Pipe { peer_state, .. } => maps.push(peer_state.map.clone()),
        _ => {}
    }
    maps
}

/// A TCP socket with bytes that the other end does not read: closing its last copy waits for a day, or until that end is gone.
#[derive(Debug)]
pub struct Lingering {
    /// To be sent away; closed here before it may be closed there.
    pub socket: TcpStream,
    /// Keeps it waiting.
    pub other: TcpStream,
}

impl Lingering {
    /// A new one.
    ///
    /// # Errors
    /// What TCP over loopback answers.
    pub fn new(listener: &TcpListener) -> io::Result<Self> {
        let mut socket = TcpStream::connect(listener.local_addr()?)?;
        let (other, _) = listener.accept()?;
        sockopt::set_socket_recv_buffer_size(&other, 1)?;
        sockopt::set_socket_send_buffer_size(&socket, 1)?;
        sockopt::set_socket_linger(&socket, Some(Duration::from_secs(86_400)))?;
        socket.set_nonblocking(true)?;
        // Until neither side has room.
        let full = |e: &io::Error| e.kind() == io::ErrorKind::WouldBlock;
        let end = Instant::now() + Duration::from_millis(20);
        while Instant::now() < end {
            match io::Write::write(&mut socket, &[0; 65_536]) {
                Err(e) if full(&e) => std::thread::yield_now(),
                Err(e) => return Err(e),
                Ok(_) => {}
            }
        }
        Ok(Lingering { socket, other })
    }
}

/// Answers to somebody, in the order of how long they took.
#[derive(Debug)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    /// The one in the middle.
    #[must_use]
    pub fn median(&self) -> Duration {
        self.0[self.0.len() / 2]
    }

    /// Says what they are.
    ///
    /// # Panics
    /// If the broker is slow: the middle at 10 ms or more, or the 99th of a hundred at 50.
    pub fn check(&self, what: &str) {
        let p99 = self.0[self.0.len() * 99 / 100];
        let (median, max, n) = (self.median(), self.0[self.0.len() - 1], self.0.len());
        println!("{what}: {n} answers to somebody else: median {median:?}, 99% {p99:?}, max {max:?}");
        assert!(median < Duration::from_millis(10), "{what}: median {median:?}");
        assert!(p99 < Duration::from_millis(50), "{what}: 99% {p99:?}");
    }
}

/// How long `n` questions take, each over a connection of its own.
///
/// # Panics
/// If one gets no answer.
#[must_use]
pub fn latencies(socket: &Path, n: usize) -> Latencies {
    let ask = wire::message(Kind::Status, 0, &[]);
    let once = |_| {
        let began = Instant::now();
        answer(socket, &ask, &[]).expect("an answer");
        began.elapsed()
    };
    let mut times: Vec<Duration> = (0..n).map(once).collect();
    times.sort();
    Latencies(times)
}

/// Somebody who asks again and again, from a thread of his own.
#[derive(Debug)]
pub struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Probe {
    /// Begins.
    #[must_use]
    pub fn start(socket: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut times = vec![];
            while !flag.load(Relaxed) {
                times.push(latencies(&socket, 1).0[0]);
                std::thread::sleep(Duration::from_millis(1));
            }
            times
        });
        Probe { stop, thread }
    }

    /// Ends.
    ///
    /// # Panics
    /// If a question got no answer.
    #[must_use]
    pub fn finish(self) -> Latencies {
        self.stop.store(true, Relaxed);
        let mut times = self.thread.join().expect("every question got an answer");
        times.sort();
        Latencies(times)
    }
}
