//! What the service manager is told: `NOTIFY_SOCKET` and `WATCHDOG_USEC`, as sd_notify(3) and sd_watchdog_enabled(3)
//! describe them.
//!
//! In the command and not in the crate: a manager watches a process, and the crate's groups and servers are parts of
//! one. What it takes, the crate offers to everybody: `Server::on_listening`, `Stop::on_cause`, `Server::liveness`.
//!
//! ```text
//! READY=1 ──▶ WATCHDOG=1, again and again ──▶ STOPPING=1, the cause and how long it may take
//!                                                 └──▶ STATUS=, who is still here at half the grace
//! ```

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use allout::{Cause, Liveness, MemberResult, Stop};

use crate::log::say;

/// How long a message may wait for room in the manager's queue.
#[cfg(unix)]
const SEND_TIMEOUT: Duration = Duration::from_millis(100);
/// How long the process may take after the deadline: for what still runs, and for the last lines.
const AFTER_DEADLINE: Duration = Duration::from_secs(2);
/// How much is told of a cause, or of who is still here: the manager takes no message of more than 4,096 bytes.
const STATUS_CHARS_MAX: usize = 500;

/// The service manager that has started this process, if any.
pub(crate) struct Manager {
    name: String,
    socket: Option<Socket>,
    /// How often it wants to hear from us, at least.
    watchdog: Option<Duration>,
    is_ready: AtomicBool,
    /// A message could not be sent, and that has been said.
    has_failed: AtomicBool,
}

impl Manager {
    /// What cannot be reached is told of, and then as good as none.
    pub(crate) fn from_environment(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let name = variable("NOTIFY_SOCKET").unwrap_or_default();
        let socket = if name.is_empty() { None } else { Some(Socket::to(&name)) };
        let name = name.to_string_lossy().into_owned();
        let told = |error| say(format_args!("cannot notify `{name}`: {error}"));
        let socket = socket.and_then(|socket| socket.map_err(told).ok());
        let number = |key: &str| variable(key).map(|value| value.to_string_lossy().parse::<u64>().unwrap_or(0));
        let is_ours = number("WATCHDOG_PID").is_none_or(|process| process == u64::from(std::process::id()));
        let is_wanted = |us: &u64| *us > 0 && is_ours && socket.is_some();
        let watchdog = number("WATCHDOG_USEC").filter(is_wanted).map(Duration::from_micros);
        Self { name, socket, watchdog, is_ready: AtomicBool::new(false), has_failed: AtomicBool::new(false) }
    }

    /// From now on, clients are answered.
    pub(crate) fn ready(&self) {
        self.send(format_args!("READY=1"));
        self.is_ready.store(true, Ordering::Relaxed);
    }

    /// The stop has begun, and will be over after `time` and a little more.
    pub(crate) fn stopping(&self, cause: &Cause, time: Duration) {
        let (cause, time) = (one_line(&cause.to_string()), time + AFTER_DEADLINE);
        let time_us = time.as_secs() * 1_000_000 + u64::from(time.subsec_micros());
        self.send(format_args!("STOPPING=1\nSTATUS=stopping: {cause}\nEXTEND_TIMEOUT_USEC={time_us}"));
    }

    /// What is going on.
    pub(crate) fn status(&self, text: &str) {
        self.send(format_args!("STATUS={}", one_line(text)));
    }

    /// True if it wants to hear from us again and again.
    pub(crate) fn has_watchdog(&self) -> bool {
        self.watchdog.is_some()
    }

    /// Runs as a member: tells it again and again that all event loops of these servers respond, as long as they do.
    pub(crate) fn watch(&self, servers: &[Liveness], stop: &Stop) -> MemberResult {
        // Twice as often as needed, even if all answers together take as long as they may.
        let pause = self.watchdog.unwrap_or(Duration::MAX) / 4;
        let mut was_alive = true;
        while !stop.wait_timeout(pause) {
            let asked_at = Instant::now();
            let is_alive = servers.iter().all(|server| server.check(pause.saturating_sub(asked_at.elapsed())));
            if is_alive {
                self.send(format_args!("WATCHDOG=1"));
            } else if was_alive && self.is_ready.load(Ordering::Relaxed) && !stop.is_set() {
                say(format_args!("an event loop does not respond: the watchdog is not told that all is well"));
            }
            was_alive = is_alive;
        }
        Ok(())
    }

    fn send(&self, message: fmt::Arguments<'_>) {
        let Some(socket) = &self.socket else { return };
        let Err(error) = socket.send(&message.to_string()) else { return };
        if self.has_failed.swap(true, Ordering::Relaxed) {
            return;
        }
        let name = &self.name;
        match error.kind() {
            io::ErrorKind::WouldBlock => say(format_args!("cannot notify `{name}`: its queue is full")),
            _ => say(format_args!("cannot notify `{name}`: {error}")),
        }
    }
}

/// A line of a message is a variable of its own.
fn one_line(text: &str) -> String {
    let is_one = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(is_one).take(STATUS_CHARS_MAX).collect()
}

#[cfg(unix)]
struct Socket {
    socket: std::os::unix::net::UnixDatagram,
    to: std::os::unix::net::SocketAddr,
}

#[cfg(unix)]
impl Socket {
    fn to(name: &std::ffi::OsStr) -> io::Result<Self> {
        use std::os::unix::ffi::OsStrExt;
        use std::os::unix::net::{SocketAddr, UnixDatagram};

        let to = match name.as_bytes() {
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            #[cfg(target_os = "linux")]
            [b'@', name @ ..] => <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name)?,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a path nor an abstract name")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        Ok(Self { socket, to })
    }

    /// By the address each time: the manager may have begun anew.
    fn send(&self, message: &str) -> io::Result<()> {
        self.socket.send_to_addr(message.as_bytes(), &self.to).map(|_| ())
    }
}

#[cfg(not(unix))]
enum Socket {}

#[cfg(not(unix))]
impl Socket {
    fn to(_: &std::ffi::OsStr) -> io::Result<Self> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "no Unix sockets on this system"))
    }

    fn send(&self, _: &str) -> io::Result<()> {
        match *self {}
    }
}
