//! Every limit and timeout in one place, each with its default and its reason.

use std::time::Duration;

use crate::http::{BodyLimits, HeadLimits, Limits};
use crate::stop::FAR;
use crate::sync::available_parallelism;

/// How a [`Server`](crate::Server) behaves. All fields have a default:
///
/// ```
/// let config = allout::Config { body_bytes_max: 64 * 1024, ..allout::Config::default() };
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    /// Event loops, each on a thread of its own. Default: one per core, since a loop that has work keeps a core busy.
    pub loops: usize,
    /// Most handlers at once, over all loops, each on a worker thread; at least one a loop. Default: 64, enough to wait
    /// for a slow backend, and at 2 MiB of address space each no burden. Further requests wait their turn.
    pub threads: usize,
    /// Stack of a worker thread, in bytes. Default: `None`, std's, which is 2 MiB unless `RUST_MIN_STACK` says
    /// otherwise.
    pub stack_bytes: Option<usize>,
    /// Most connections at once, over all loops. Default: 10,000. One more closes the longest idle one to make room;
    /// with none idle it is answered 503.
    pub connections_max: usize,

    /// Bytes of a request head. Default: 16 KiB, as in Node; Apache takes 8 KiB a line, nginx 32 KiB in all. Crossed:
    /// 431.
    pub head_bytes_max: usize,
    /// Header fields of a request, and trailer fields. Default: 100, as in Apache and hyper. Crossed: 431.
    pub fields_max: usize,
    /// Bytes of a request target. Default: 8 KiB; RFC 9112 §3 asks for at least 8,000. Crossed: 414.
    pub target_bytes_max: usize,
    /// Bytes of a request body, which is held in memory. Default: 1 MiB, as in nginx. Crossed: 413.
    pub body_bytes_max: usize,
    /// Bytes of request bodies held in memory, all together; at least one of `body_bytes_max`. A body counts with its
    /// whole length from the end of its head, or as it grows if it is chunked, until its request has been answered; one
    /// that comes at once with its head, and whose handler is called at once, does not. Default: 64 MiB, for 64 of the
    /// largest at a time. Crossed: 503 with `Retry-After: 1`, and closed.
    pub bodies_bytes_max: usize,

    /// From the first byte of a request to the end of its head; absolute, so that a trickle does not renew it.
    /// Default: 5 s. Crossed: 408.
    pub head_timeout: Duration,
    /// From the end of the head to the end of the body; absolute. Default: 30 s. Crossed: 408.
    pub body_timeout: Duration,
    /// How long a connection may be quiet between requests, and before the first. Default: 75 s. Not 60 s, which is
    /// for how long nginx keeps an idle connection to its upstream: with the same time on both sides it may send a
    /// request on a connection that we have just closed. Whoever sends the requests must be the first to give up.
    /// Crossed: closed.
    pub idle_timeout: Duration,
    /// How long a peer may keep an answer waiting. Each 4 KiB that it takes give it a second more, but never more than
    /// this time from now: a slow reader is served, one that stalls is not. Default: 30 s. Crossed: closed.
    pub write_timeout: Duration,
    /// How long a request may wait for its turn when all worker threads are held by handlers. Default: 5 s. Crossed:
    /// 503 with `Retry-After: 1`, except while draining: then a request that was received is answered, or cut off at
    /// the deadline.
    pub turn_timeout: Duration,
    /// While draining: how long a connection must have been quiet to be closed, counted from the stop or from its last
    /// byte. Default: 250 ms, which is longer than a round trip on nearly every network, so that a request that was on
    /// its way when the stop came is still answered.
    ///
    /// On Linux, with the feature `sys`, TCP handshakes that are under way at the stop may complete: four times this,
    /// or half of the time to the deadline, if that is less. None is waited for that the system does not show.
    pub idle_grace: Duration,
    /// How long a connection that we have closed is read on for the peer's own end, so that a reset cannot destroy the
    /// last answer. Renewed while the peer sends, or has yet to take what it was sent. Default: 500 ms.
    pub linger: Duration,
    /// The most that `linger` is renewed to, counted from the last answer: long enough for a client in the middle of an
    /// upload to come to an end and read why it was refused. Default: 5 s.
    pub linger_max: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            loops: available_parallelism().map_or(1, usize::from),
            threads: 64,
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
            turn_timeout: Duration::from_secs(5),
            idle_grace: Duration::from_millis(250),
            linger: Duration::from_millis(500),
            linger_max: Duration::from_secs(5),
        }
    }
}

impl Config {
    /// The same without what cannot work: no loop at all, or times that would overflow the clock.
    pub(crate) fn sane(self) -> Self {
        Self {
            loops: self.loops.max(1),
            bodies_bytes_max: self.bodies_bytes_max.max(self.body_bytes_max),
            head_timeout: self.head_timeout.min(FAR),
            body_timeout: self.body_timeout.min(FAR),
            idle_timeout: self.idle_timeout.min(FAR),
            write_timeout: self.write_timeout.min(FAR),
            turn_timeout: self.turn_timeout.min(FAR),
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
