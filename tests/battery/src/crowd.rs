//! Slow clients of four kinds, many of each, on one thread: slow heads, slow bodies, slow readers, and silent ones.
//!
//! Each is to be cut within its deadline and a second. It is a fault if it was *seen* open later than that: when it was
//! cut between two looks is not known, and nothing is concluded from a look that came late.

use std::collections::HashMap;
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
/// A reader earns a second with so many bytes, and the server looks at it once a second: see `Patience`.
const SECOND_BYTES: f64 = 4096.0;
const READER_LOOK: Duration = Duration::from_secs(1);
/// Until the system holds as much of an answer as it will: what it takes meanwhile earns no more time than this.
const READER_FILLS: Duration = Duration::from_millis(500);
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
            Kind::Reader => READER_FILLS + self.write + READER_LOOK,
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
    /// Of a reader: what the server's system had taken for it when it was full, and by now.
    taken: Option<(u64, u64)>,
    sipped: u64,
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
        let open = open_connections(self.address.port())?;
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
        let deadline = slow.since + self.deadlines.of(slow.kind) + slow.earned();
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
            // A thousand of them stay below what bodies may take together, 64 MiB.
            Kind::Body => stream.write_all(b"POST /echo HTTP/1.1\r\nHost: battery\r\nContent-Length: 50000\r\n\r\n")?,
            Kind::Reader => stream.write_all(&get(&format!("/bytes/{ANSWER_BYTES}")))?,
            Kind::Silent => {}
        }
        stream.set_nonblocking(true)?;
        let beat = since + BEAT;
        Ok(Self { kind, stream, since, seen: since, beat, received: Vec::new(), taken: None, sipped: 0 })
    }

    /// For what was taken after it was full: not by itself, but by the server's system, which takes in lumps.
    fn earned(&self) -> Duration {
        let (full, now) = self.taken.unwrap_or_default();
        Duration::from_secs_f64(now.saturating_sub(full) as f64 / SECOND_BYTES)
    }

    fn look(&mut self, open: &HashMap<u16, u64>) -> Look {
        let mut bytes = [0; 1024];
        if self.kind == Kind::Reader {
            let port = self.stream.local_addr().map_or(0, |address| address.port());
            let Some(queued) = open.get(&port) else { return Look::Cut };
            let now = queued + self.sipped;
            let full = self.taken.filter(|_| self.since.elapsed() > READER_FILLS).map_or(now, |(full, _)| full);
            self.taken = Some((full, now));
            return Look::Open;
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
        match self.kind {
            Kind::Head | Kind::Body => _ = self.stream.write(b"x"),
            Kind::Reader => self.sipped += self.stream.read(&mut [0; SIP]).unwrap_or_default() as u64,
            Kind::Silent => {}
        }
    }
}

/// The ports of clients whose connection the server has not closed, and how many bytes lie in both systems for each. A
/// client that does not read cannot see the end.
fn open_connections(server: u16) -> io::Result<HashMap<u16, u64>> {
    const ESTABLISHED: &str = "01";
    let (mut open, mut unread) = (HashMap::new(), HashMap::new());
    for line in fs::read_to_string("/proc/net/tcp")?.lines() {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (Some(here), Some(there), Some(state), Some(queues)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            continue;
        };
        let (Some(here), Some(there), Some((sent, received))) = (port(here), port(there), queues.split_once(':'))
        else {
            continue;
        };
        let bytes = |text| u64::from_str_radix(text, 16).unwrap_or_default();
        if here == server && state == ESTABLISHED {
            open.insert(there, bytes(sent));
        } else if there == server {
            unread.insert(here, bytes(received));
        }
    }
    for (port, queued) in &mut open {
        *queued += unread.get(port).copied().unwrap_or_default();
    }
    Ok(open)
}

/// Of an address in the system's table.
fn port(address: &str) -> Option<u16> {
    u16::from_str_radix(address.rsplit(':').next()?, 16).ok()
}
