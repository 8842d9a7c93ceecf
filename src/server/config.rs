//! Every limit and timeout in one place, each with its default and its reason.

use std::time::Duration;

use crate::http::{BodyLimits, HeadLimits, Limits};
use crate::stop::FAR;
use crate::sync::available_parallelism;

/// How a [`Server`](crate::Server) behaves. All fields have a default:
///
/// ```
/// use allout::Config;
///
/// let config = Config { body_bytes_max: 64 * 1024, ..Config::default() };
/// ```
///
/// Write `..Config::default()` always, even behind all fields that there are: a minor version may add one.
///
/// # Memory
///
/// [`memory_max`](Self::memory_max) says what a configuration takes at worst, when every client is hostile:
///
/// | what | how often | bytes |
/// |---|---|---|
/// | a connection's entry | `connections_max` | 1 KiB |
/// | what it has sent unanswered | `connections_max` | 2 × (`head_bytes_max` + 64 KiB) + 48 × `fields_max` |
/// | answers that it does not read | `connections_max` | 2 × (64 KiB + the largest answer) |
/// | request bodies | once | 2 × `bodies_bytes_max` |
/// | a thread | `handlers_max` + 2 × `loops` + 4 | its stack + 64 KiB |
/// | a loop's batch of answers | `loops` | 256 KiB + 2 × (64 KiB + the largest answer) |
///
/// The twos are for buffers that grow by doubling. A quiet connection takes its entry alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How many event loops, each on its own thread. Default: one per core, since a busy loop takes a whole core.
    pub loops: usize,
    /// How many handlers may run at once over all loops, each on a worker thread; at least one per loop. Default: 64,
    /// enough to wait for a slow backend, and cheap: each costs 2 MiB of address space. Further requests queue.
    pub handlers_max: usize,
    /// The stack of a worker thread, in bytes. Default: `None`, which means std's: 2 MiB, unless `RUST_MIN_STACK` is
    /// set.
    pub stack_bytes: Option<usize>,
    /// How many connections may be open at once over all loops. Default: 10,000. One more closes the connection that
    /// has been idle longest; if none is idle, it is answered 503.
    pub connections_max: usize,

    /// The most bytes of a request head. Default: 16 KiB, as in Node; Apache takes 8 KiB per line, nginx 32 KiB in all.
    /// If exceeded: 431.
    pub head_bytes_max: usize,
    /// The most header fields of a request, and the most trailer fields. Default: 100, as in Apache and hyper. If
    /// exceeded: 431.
    pub fields_max: usize,
    /// The most bytes of a request target. Default: 8 KiB; RFC 9112 §3 asks for at least 8,000 bytes. If exceeded: 414.
    pub target_bytes_max: usize,
    /// The most bytes of a request body that is held in memory. Default: 1 MiB, as in nginx. If exceeded: 413.
    pub body_bytes_max: usize,
    /// The most bytes of all request bodies held in memory together; at least `body_bytes_max`. A body counts with its
    /// whole length from the end of its head (a chunked one as it grows) until its request has been answered. One that
    /// comes together with its head, and whose handler is called at once, does not count. Default: 64 MiB, for 64 of
    /// the largest. If exceeded: 503 with `Retry-After: 1`, and the connection closes.
    pub bodies_bytes_max: usize,

    /// From the first byte of a request to the end of its head; absolute, so a trickle does not renew it. Default: 5 s.
    /// If exceeded: 408.
    pub head_timeout: Duration,
    /// From the end of the head to the end of the body; absolute. Default: 30 s. If exceeded: 408.
    pub body_timeout: Duration,
    /// How long a connection may be quiet between requests, and before the first. Default: 75 s. Not 60 s: nginx keeps
    /// an idle connection to its upstream that long, and with the same time on both sides it could send a request on a
    /// connection that we have just closed. The side that sends requests must give up first. If exceeded: the
    /// connection closes.
    pub idle_timeout: Duration,
    /// How long a peer may keep an answer waiting. Each 4 KiB that it takes earns it one more second, but never more
    /// than this time from now: a slow reader is served, one that stalls is not. Default: 30 s. If exceeded: the
    /// connection closes.
    pub write_timeout: Duration,
    /// How long a request may queue while handlers hold all worker threads. Default: 5 s. If exceeded: 503 with
    /// `Retry-After: 1`; but while draining, a request that was received is answered, or cut off at the deadline.
    pub queue_timeout: Duration,
    /// While draining: how long a connection must have been quiet before it is closed, counted from the stop or from
    /// its last byte. Default: 250 ms, which is longer than a round trip on nearly every network, so a request that was
    /// on its way when the stop came is still answered.
    ///
    /// On Linux with the feature `sys`, TCP handshakes under way at the stop may complete. They get four times this
    /// long, or half the time to the deadline if that is less. Handshakes that the system does not show are not waited
    /// for.
    pub idle_grace: Duration,
    /// How long to read on from a connection that we have closed, until the peer closes too, so that a reset cannot
    /// destroy the last answer. Renewed while the peer sends, or has yet to take what it was sent. Default: 500 ms.
    pub linger: Duration,
    /// How far `linger` may be renewed, counted from the last answer: long enough for a client in the middle of an
    /// upload to finish it and read why it was refused. Default: 5 s.
    pub linger_max: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            loops: available_parallelism().map_or(1, usize::from),
            handlers_max: 64,
            stack_bytes: None,
            connections_max: 10_000,
            head_bytes_max: 16 * 1024,
            fields_max: 100,
            target_bytes_max: 8 * 1024,
            body_bytes_max: 1024 * 1024,
            bodies_bytes_max: 64 * 1024 * 1024,
            head_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(30),
            queue_timeout: Duration::from_secs(5),
            idle_grace: Duration::from_millis(250),
            linger: Duration::from_millis(500),
            linger_max: Duration::from_secs(5),
        }
    }
}

impl Config {
    /// For a board, a router or a sidecar with 32 MB: one loop, 4 handlers with 128 KiB of stack each, 32 connections,
    /// heads of 8 KiB, bodies of 64 KiB, and of 512 KiB together. Times are those of [`default`](Self::default).
    ///
    /// With answers of at most 64 KiB it takes 17 MB at worst, when all 32 clients are hostile: see
    /// [`memory_max`](Self::memory_max).
    ///
    /// ```
    /// use allout::Config;
    ///
    /// let config = Config { connections_max: 8, ..Config::small() };
    /// assert!(config.memory_max(64 * 1024) < 8_000_000);
    /// ```
    pub fn small() -> Self {
        Self {
            loops: 1,
            handlers_max: 4,
            stack_bytes: Some(128 * 1024),
            connections_max: 32,
            head_bytes_max: 8 * 1024,
            fields_max: 50,
            body_bytes_max: 64 * 1024,
            bodies_bytes_max: 512 * 1024,
            ..Self::default()
        }
    }

    /// The most memory that a server takes with this configuration, in bytes, if no answer is larger than
    /// `answer_bytes`, head and body together: the formula of [`Config`]. What handlers take themselves comes to it,
    /// and the program. A stack that [`stack_bytes`](Self::stack_bytes) does not limit counts with 2 MiB.
    pub fn memory_max(&self, answer_bytes: usize) -> usize {
        const BUFFER: usize = 64 * 1024;
        let sum = |parts: &[usize]| parts.iter().fold(0_usize, |sum, part| sum.saturating_add(*part));
        let twice = |bytes: usize| bytes.saturating_mul(2);
        let sent = twice(sum(&[self.head_bytes_max, BUFFER]));
        let answered = twice(sum(&[BUFFER, answer_bytes]));
        let connection = sum(&[1024, sent, self.fields_max.saturating_mul(48), answered]);
        let threads = sum(&[self.handlers_max, twice(self.loops), 4]);
        sum(&[
            self.connections_max.saturating_mul(connection),
            twice(self.bodies_bytes_max.max(self.body_bytes_max)),
            threads.saturating_mul(sum(&[self.stack_bytes.unwrap_or(2 * 1024 * 1024), BUFFER])),
            self.loops.saturating_mul(sum(&[4 * BUFFER, answered])),
        ])
    }

    /// The same, without what cannot work: no loops at all, or times that would overflow the clock.
    pub(crate) fn sane(self) -> Self {
        Self {
            loops: self.loops.max(1),
            bodies_bytes_max: self.bodies_bytes_max.max(self.body_bytes_max),
            head_timeout: self.head_timeout.min(FAR),
            body_timeout: self.body_timeout.min(FAR),
            idle_timeout: self.idle_timeout.min(FAR),
            write_timeout: self.write_timeout.min(FAR),
            queue_timeout: self.queue_timeout.min(FAR),
            idle_grace: self.idle_grace.min(FAR),
            linger: self.linger.min(FAR),
            linger_max: self.linger_max.min(FAR),
            ..self
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            head: HeadLimits {
                head_bytes: self.head_bytes_max,
                target_bytes: self.target_bytes_max,
                fields: self.fields_max,
            },
            body: BodyLimits {
                body_bytes: self.body_bytes_max as u64,
                trailer_bytes: self.head_bytes_max,
                trailers: self.fields_max,
            },
        }
    }
}
