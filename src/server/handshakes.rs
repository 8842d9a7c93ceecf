//! TCP handshakes under way: clients that have our SYN-ACK, or are about to get it, and are in no queue yet.
//!
//! The system shows them in its table of sockets alone, one line for each socket of the whole machine:
//!
//! ```text
//!   sl  local_address rem_address   st tx_queue rx_queue ...
//!    7: 0100007F:1F90 0200007F:C350 03 00000000:00000000 ...
//! ```
//!
//! A line takes a microsecond or two, and the walk through an empty table one or two milliseconds: so a look is taken
//! in steps, and has a pause after it that is longer than it was.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// How long a loop looks before it serves on. One read of an empty table can take longer.
const STEP: Duration = Duration::from_millis(1);
/// How much longer the pause between two looks is than a look.
const PAUSE_FACTOR: u32 = 4;
/// More than the system gives at a time.
const BUFFER_BYTES: usize = 8 * 1024;

/// Handshakes under way at a listener that takes no new ones.
#[derive(Debug)]
pub(crate) struct Handshakes {
    /// How the local address reads in the table: the whole of it, or, of one that stands for many, the port.
    local: String,
    tables: &'static [&'static str],
    until: Instant,
    next_at: Instant,
    sight: Option<Sight>,
}

/// A look that has begun.
#[derive(Debug)]
struct Sight {
    began: Instant,
    /// Of the tables, those that have been read.
    read: usize,
    table: BufReader<File>,
}

/// What a look came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// None is under way any more, or their time is over.
    Over,
    Again(Instant),
}

impl Handshakes {
    /// Least time from one look to the next.
    pub(crate) const INTERVAL: Duration = Duration::from_millis(5);

    /// Those of a listener, which are waited for at most until then.
    pub(crate) fn at(listener: SocketAddr, until: Instant) -> Self {
        let (local, tables) = shown(listener);
        Self { local, tables, until, next_at: Instant::now(), sight: None }
    }

    /// Looks on for a little.
    pub(crate) fn look(&mut self, now: Instant) -> Look {
        if now >= self.until {
            return Look::Over;
        }
        let look = self.look_on(now);
        if look == Look::Over {
            // No other can follow.
            self.until = now;
        }
        look
    }

    fn look_on(&mut self, now: Instant) -> Look {
        if now < self.next_at {
            return Look::Again(self.next_at);
        }
        let step_until = now + STEP;
        let mut sight = match self.sight.take() {
            Some(sight) => sight,
            None => match self.open(0, now) {
                Some(sight) => sight,
                None => return Look::Over,
            },
        };
        let mut line = Vec::new();
        while Instant::now() < step_until {
            line.clear();
            match sight.table.read_until(b'\n', &mut line) {
                Ok(count) if count > 0 => {
                    if is_handshake(&line, self.local.as_bytes()) {
                        let pause = sight.began.elapsed() * PAUSE_FACTOR;
                        self.next_at = Instant::now() + pause.max(Self::INTERVAL);
                        return Look::Again(self.next_at);
                    }
                }
                // Read to its end. One that cannot be read shows nothing.
                Ok(_) | Err(_) => match self.open(sight.read + 1, sight.began) {
                    Some(next) => sight = next,
                    None => return Look::Over,
                },
            }
        }
        self.sight = Some(sight);
        Look::Again(now)
    }

    /// The first table from this one on that there is.
    fn open(&self, from: usize, began: Instant) -> Option<Sight> {
        let mut tables = (from..).zip(self.tables.get(from..)?);
        let (read, file) = tables.find_map(|(read, path)| Some((read, File::open(path).ok()?)))?;
        Some(Sight { began, read, table: BufReader::with_capacity(BUFFER_BYTES, file) })
    }
}

/// How a listener's connections are shown, and in which tables. Whoever listens on all IPv6 addresses may have IPv4
/// clients too. Addresses are shown as the machine's own words.
fn shown(listener: SocketAddr) -> (String, &'static [&'static str]) {
    const IPV4: &str = "/proc/net/tcp";
    const IPV6: &str = "/proc/net/tcp6";
    let port = format!(":{:04X}", listener.port());
    match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (port, &[IPV4]),
        IpAddr::V4(ip) => (format!("{:08X}{port}", u32::from_ne_bytes(ip.octets())), &[IPV4]),
        IpAddr::V6(ip) if ip.is_unspecified() || ip.to_ipv4_mapped().is_some() => (port, &[IPV4, IPV6]),
        IpAddr::V6(ip) => {
            let mut local = String::new();
            for word in ip.octets().chunks_exact(4) {
                let word = u32::from_ne_bytes(word.try_into().unwrap_or_default());
                local += &format!("{word:08X}");
            }
            (local + &port, &[IPV6])
        }
    }
}

fn is_handshake(line: &[u8], local: &[u8]) -> bool {
    const SYN_RECV: &[u8] = b"03";
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).skip(1);
    words.next().is_some_and(|word| word.ends_with(local)) && words.nth(1) == Some(SYN_RECV)
}
