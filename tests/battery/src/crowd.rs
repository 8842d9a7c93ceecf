//! Slow clients of four kinds, many of each, on one thread: slow heads, slow bodies, slow readers, and silent ones.
//!
//! Each is to be cut within its deadline and a second. It is a fault if it was *seen* open later than that: when exactly
//! it was cut between two looks is not known, and nothing is concluded from a look that came late.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::Result;
use crate::clients::get;
use crate::delays::Delays;

/// How late a cut may be.
const LATE_MAX: Duration = Duration::from_secs(1);
/// A slow client moves this often.
const BEAT: Duration = Duration::from_millis(500);
/// What a slow reader takes at each beat.
const SIP: usize = 64;
/// What a slow reader asks for: more than the system's buffers for a client with a small one hold.
const ANSWER_BYTES: usize = 512 * 1024;
/// The least rate of a reader that is to earn time, see `Patience`.
const RATE_MIN: f64 = 4096.0;
/// After a 408, the server waits for so long for the client's end: a look that comes later may find a reset.
const LINGER: Duration = Duration::from_millis(400);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Head,
    Body,
    Reader,
    Silent,
}

pub(crate) const KINDS: [Kind; 4] = [Kind::Head, Kind::Body, Kind::Reader, Kind::Silent];

/// The server's timeouts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadlines {
    pub(crate) head: Duration,
    pub(crate) body: Duration,
    pub(crate) write: Duration,
    pub(crate) idle: Duration,
}

impl Deadlines {
    pub(crate) fn new(seconds: [u64; 4]) -> Self {
        let [head, body, write, idle] = seconds.map(Duration::from_secs);
        Self { head, body, write, idle }
    }

    /// For `timed`.
    pub(crate) fn text(&self) -> String {
        let [head, body, write, idle] = [self.head, self.body, self.write, self.idle].map(|time| time.as_secs_f64());
        format!("head={head},body={body},write={write},idle={idle}")
    }

    fn of(&self, kind: Kind) -> Duration {
        match kind {
            Kind::Head => self.head,
            Kind::Body => self.body,
            // What it takes earns it time, and the server looks at it once a second.
            Kind::Reader => {
                let patience = self.write.as_secs_f64() / (1.0 - SIP as f64 / BEAT.as_secs_f64() / RATE_MIN);
                Duration::from_secs_f64(patience.ceil())
            }
            Kind::Silent => self.idle,
        }
    }
}

struct Slow {
    kind: Kind,
    stream: TcpStream,
    /// Its clock cannot have begun before this.
    since: Instant,
    /// When it was last seen to be open, and looked at.
    seen: Instant,
    beat: Instant,
    received: Vec<u8>,
}

/// What became of one, seen by its client.
enum Look {
    Open,
    Cut,
    Reset,
}

/// What became of all.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Of each kind: how many were cut, and how long after its deadline the last look found one open.
    pub(crate) cut: HashMap<Kind, (u64, Duration)>,
    pub(crate) faults: Vec<String>,
}

pub(crate) struct Crowd<'a> {
    address: SocketAddr,
    deadlines: Deadlines,
    delays: &'a Delays,
    slow: Vec<Slow>,
    pub(crate) tally: Tally,
}

impl<'a> Crowd<'a> {
    pub(crate) fn new(address: SocketAddr, deadlines: Deadlines, delays: &'a Delays) -> Self {
        Self { address, deadlines, delays, slow: Vec::new(), tally: Tally::default() }
    }

    pub(crate) fn count(&self) -> usize {
        self.slow.len()
    }

    pub(crate) fn count_of(&self, kind: Kind) -> usize {
        self.slow.iter().filter(|slow| slow.kind == kind).count()
    }

    /// Comes in as many of each kind as are missing, but not in more than this at once.
    pub(crate) fn fill_up(&mut self, of_each: usize, at_once: usize) -> Result<()> {
        for kind in KINDS {
            let missing = of_each.saturating_sub(self.count_of(kind));
            for _ in 0..missing.min(at_once) {
                self.slow.push(Slow::begin(kind, self.address)?);
            }
        }
        Ok(())
    }

    /// Looks at each once, and lets those move whose beat has come.
    pub(crate) fn look(&mut self) -> Result<()> {
        // Before the table is read: who is in it then was open after this.
        let now = Instant::now();
        let open = open_ports(self.address.port())?;
        for mut slow in std::mem::take(&mut self.slow) {
            let before = slow.seen;
            match slow.look(&open) {
                Look::Open => {
                    slow.seen = if slow.kind == Kind::Reader { now } else { Instant::now() };
                    if !self.is_too_late(&slow) {
                        slow.act();
                        self.slow.push(slow);
                    }
                }
                end => self.judge(&slow, matches!(end, Look::Reset), before),
            }
        }
        Ok(())
    }

    /// It was seen open: notes it if that was too late.
    fn is_too_late(&mut self, slow: &Slow) -> bool {
        let deadline = slow.since + self.deadlines.of(slow.kind);
        let late = slow.seen.saturating_duration_since(deadline);
        let worst = &mut self.tally.cut.entry(slow.kind).or_default().1;
        *worst = late.max(*worst);
        if late <= LATE_MAX {
            return false;
        }
        let given_back = self.delays.between(deadline, slow.seen);
        let is_too_late = late > LATE_MAX + given_back;
        if is_too_late {
            let age = slow.seen - slow.since;
            self.tally.faults.push(format!("{:?} was open after {age:?}; {given_back:?} are given back", slow.kind));
        }
        is_too_late
    }

    fn judge(&mut self, slow: &Slow, is_reset: bool, seen: Instant) {
        let (age, deadline) = (slow.since.elapsed(), self.deadlines.of(slow.kind));
        self.tally.cut.entry(slow.kind).or_default().0 += 1;
        let fault = |what: &str| format!("{:?} was cut after {age:?}, {what}", slow.kind);
        if age < deadline / 2 {
            self.tally.faults.push(fault("too early"));
        }
        let told = slow.received.starts_with(b"HTTP/1.1 408 ");
        let may_be_reset = is_reset && seen.elapsed() > LINGER;
        match slow.kind {
            Kind::Head | Kind::Body if !told && !may_be_reset => {
                let text = String::from_utf8_lossy(&slow.received).into_owned();
                self.tally.faults.push(fault(&format!("reset {is_reset}, and told: {text:?}")));
            }
            Kind::Silent if !slow.received.is_empty() => self.tally.faults.push(fault("and was told something")),
            _ => {}
        }
    }
}

impl Slow {
    fn begin(kind: Kind, address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        if kind == Kind::Reader {
            // With short packets, too: the server's system keeps room for twenty, and on loopback one has 64 KiB.
            socket.set_recv_buffer_size(4096)?;
            socket.set_tcp_mss(536)?;
        }
        let since = Instant::now();
        socket.connect(&address.into())?;
        let mut stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        match kind {
            Kind::Head => stream.write_all(b"GET /ping HTTP/1.1\r\nHost: battery\r\nX-Slow: ")?,
            Kind::Body => {
                stream.write_all(b"POST /echo HTTP/1.1\r\nHost: battery\r\nContent-Length: 100000\r\n\r\n")?;
            }
            Kind::Reader => stream.write_all(&get(&format!("/bytes/{ANSWER_BYTES}")))?,
            Kind::Silent => {}
        }
        stream.set_nonblocking(true)?;
        Ok(Self { kind, stream, since, seen: since, beat: since + BEAT, received: Vec::new() })
    }

    fn look(&mut self, open: &HashSet<u16>) -> Look {
        let mut bytes = [0; 1024];
        if self.kind == Kind::Reader {
            let is_open = self.stream.local_addr().is_ok_and(|address| open.contains(&address.port()));
            return if is_open { Look::Open } else { Look::Cut };
        }
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Look::Cut,
                Ok(count) => self.received.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Look::Open,
                Err(_) => return Look::Reset,
            }
        }
    }

    /// Does a little, if its time has come. That it fails shows at the next look.
    fn act(&mut self) {
        if Instant::now() < self.beat {
            return;
        }
        self.beat = Instant::now() + BEAT;
        let _ = match self.kind {
            Kind::Head | Kind::Body => self.stream.write(b"x"),
            Kind::Reader => self.stream.read(&mut [0; SIP]),
            Kind::Silent => Ok(0),
        };
    }
}

/// The ports of clients whose connection the server has not closed, as its system's table has them. A client that does
/// not read cannot see the end.
fn open_ports(server: u16) -> io::Result<HashSet<u16>> {
    const ESTABLISHED: &str = "01";
    let local = format!(":{server:04X}");
    let table = fs::read_to_string("/proc/net/tcp")?;
    let port = |line: &str| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (here, there, state) = (words.next()?, words.next()?, words.next()?);
        let is_open = here.ends_with(&local) && state == ESTABLISHED;
        u16::from_str_radix(there.rsplit(':').next()?, 16).ok().filter(|_| is_open)
    };
    Ok(table.lines().filter_map(port).collect())
}
