//! What others see of a server's [`counts`](super::counts), and of what it is busy with.

use std::fmt;
use std::time::Duration;

use super::busy::{Busy, Survey};
use super::counts::{BOUNDS_US, Counter, Counts, Totals};
use super::liveness::Liveness;
use super::phase::Clock;
use crate::sync::{Arc, AtomicU64, Ordering};

/// Counts what a server does. It can be asked at any time, before, during and after the server's run; clones ask the
/// same server. See [`Server::stats`](crate::Server::stats).
///
/// ```
/// use allout::{Config, Response, Router, Server};
///
/// let server = Server::bind("127.0.0.1:0", Config::default())?;
/// let stats = server.stats();
/// // A page of a server that is for the operator alone.
/// let admin = Router::new().get("/metrics", move |_| {
///     let figures = stats.figures();
///     let mut page = String::from("# TYPE http_requests_total counter\n");
///     for (class, count) in allout::Figures::CLASSES.iter().zip(figures.answers) {
///         page += &format!("http_requests_total{{code=\"{class}\"}} {count}\n");
///     }
///     Response::bytes("text/plain; version=0.0.4", page)
/// });
/// # Ok::<(), allout::BindError>(())
/// ```
#[derive(Clone, Default)]
pub struct Stats {
    totals: Arc<Totals>,
    server: Liveness,
}

impl Stats {
    pub(crate) fn new(loops: usize, server: Liveness) -> Self {
        Self { totals: Arc::new(Totals::new(loops)), server }
    }

    pub(crate) fn totals(&self) -> &Arc<Totals> {
        &self.totals
    }

    /// All figures as they are now. It takes no lock and waits for nobody. Meanwhile the server goes on counting, so
    /// that two of the figures may be of slightly different moments.
    pub fn figures(&self) -> Figures {
        let Totals { loops, drained, cut_off, refused, panics, hand_offs, streamed_in, streamed_out } = &*self.totals;
        let [for_connections, for_handlers, for_memory] = refused.each_ref().map(read);
        let sum = |count: fn(&Counts) -> &Counter| loops.iter().map(|counts| count(counts).get()).sum::<u64>();
        let running = |clock| loops.iter().map(|counts| counts.clock(clock).get()).sum::<usize>();
        let all: usize = loops.iter().map(|counts| counts.connections.get()).sum();
        let mut connections = Connections {
            idle: running(Clock::Idle) + running(Clock::Quiet),
            reading: running(Clock::Head) + running(Clock::Body),
            waiting: running(Clock::Queue),
            writing: running(Clock::Write),
            lingering: running(Clock::Linger),
            working: 0,
        };
        connections.working = all.saturating_sub(connections.total());
        Figures {
            accepted: sum(|counts| &counts.accepted),
            connections,
            answers: total_of(loops, |counts| &counts.answers),
            handlers: self.server.with(|shared| shared.permits.running()).unwrap_or(0),
            refused_for_connections: for_connections,
            refused_for_handlers: for_handlers,
            refused_for_memory: for_memory,
            panics: read(panics),
            hand_offs: read(hand_offs),
            bytes_in: sum(|counts| &counts.bytes_in) + read(streamed_in),
            bytes_out: sum(|counts| &counts.bytes_out) + read(streamed_out),
            drained: read(drained),
            cut_off: read(cut_off),
            durations: Durations {
                counts: total_of(loops, |counts| &counts.took),
                sum: Duration::from_nanos(sum(|counts| &counts.took_ns)),
            },
        }
    }

    /// What the server's connections are in the middle of: at most `most`, the longest first. Those that are idle,
    /// within a head, or being closed are not among them.
    ///
    /// Asks every event loop, and waits for their replies, a few milliseconds as a rule, for `timeout` at most; loops
    /// that have not replied by then are left out. Do not call it where a loop would wait for it, as in routes
    /// [`at_once`](crate::Router::at_once). Empty before the server [runs](crate::Server::run) and after its end.
    ///
    /// ```
    /// # let server = allout::Server::bind("127.0.0.1:0", allout::Config::default())?;
    /// let stats = server.stats();
    /// for busy in stats.busy(10, std::time::Duration::from_millis(100)) {
    ///     println!("{busy}"); // GET /report for 127.0.0.1:4711, its handler running for 1.2 s
    /// }
    /// # Ok::<(), allout::BindError>(())
    /// ```
    pub fn busy(&self, most: usize, timeout: Duration) -> Vec<Busy> {
        self.server.with(|shared| Survey::of(shared, most)).map_or_else(Vec::new, |survey| survey.wait(timeout))
    }

    /// How many answers left in full after the stop.
    pub fn finished_while_draining(&self) -> u64 {
        read(&self.totals.drained)
    }

    /// How many requests had been received in full, but not answered in full, by the deadline.
    pub fn cut_off(&self) -> u64 {
        read(&self.totals.cut_off)
    }

    /// How many requests and connections were answered 503 because something ran out: see [`Want`](crate::Want).
    pub fn refused(&self) -> u64 {
        self.totals.refused.iter().map(read).sum()
    }
}

impl fmt::Debug for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stats").field(&self.figures()).finish()
    }
}

fn read(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

fn total_of<const N: usize>(loops: &[Arc<Counts>], counters: fn(&Counts) -> &[Counter; N]) -> [u64; N] {
    let mut totals = [0; N];
    for counts in loops {
        totals.iter_mut().zip(counters(counts)).for_each(|(total, counter)| *total += counter.get());
    }
    totals
}

/// What a server has counted: see [`Stats::figures`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Figures {
    /// Connections accepted since the start.
    pub accepted: u64,
    /// Connections that are open now.
    pub connections: Connections,
    /// Answers by class, in the order of [`CLASSES`](Self::CLASSES): those of handlers and the server's own refusals. A
    /// streamed answer counts once its head is sent. An answer counts whether or not its client gets it.
    pub answers: [u64; 4],
    /// Handlers that run now, including those that stream. One that answers [at once](crate::Handler::is_at_once)
    /// counts only if it has found room among the others.
    pub handlers: usize,
    /// Connections answered 503, or closed without an answer: [`Want::Connections`](crate::Want::Connections).
    pub refused_for_connections: u64,
    /// Requests answered 503: [`Want::Handlers`](crate::Want::Handlers).
    pub refused_for_handlers: u64,
    /// Requests answered 503: [`Want::Memory`](crate::Want::Memory).
    pub refused_for_memory: u64,
    /// Panics of handlers, and of closures of their responses.
    pub panics: u64,
    /// How often a spare thread has taken an event loop over, since a handler was slow.
    pub hand_offs: u64,
    /// Bytes read from connections, without those that are thrown away after a last answer.
    pub bytes_in: u64,
    /// Bytes written to connections.
    pub bytes_out: u64,
    /// Answers that left in full after the stop. How many connections are left to drain is in
    /// [`connections`](Self::connections).
    pub drained: u64,
    /// Requests that had been received in full, but not answered in full, by the deadline: 0 until then.
    pub cut_off: u64,
    /// How long answers took.
    pub durations: Durations,
}

impl Figures {
    /// The names of the classes in [`answers`](Self::answers).
    pub const CLASSES: [&'static str; 4] = ["2xx", "3xx", "4xx", "5xx"];
}

/// How many connections are open, by what they are in the middle of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Connections {
    /// Between two requests, or before the first. While draining, also those within a head. A request whose handler is
    /// quick, within some milliseconds, changes nothing.
    pub idle: usize,
    /// A head or a body is arriving.
    pub reading: usize,
    /// A request waits for a handler to end: [`Config::handlers_max`](crate::Config::handlers_max) run.
    pub waiting: usize,
    /// The handler has run for longer than some milliseconds, or streams.
    pub working: usize,
    /// The client has yet to take what it was answered.
    pub writing: usize,
    /// The last answer has been sent, and the server waits for the client's end.
    pub lingering: usize,
}

impl Connections {
    /// How many are open in all.
    pub fn total(&self) -> usize {
        let Self { idle, reading, waiting, working, writing, lingering } = self;
        idle + reading + waiting + working + writing + lingering
    }
}

/// How long answers took: from when a request had come until its answer was about to be sent, including the time that
/// it waited for a handler; for a streamed answer, until its end was sent. Of requests that came together, each is
/// counted as long as all took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    counts: [u64; BOUNDS_US.len() + 1],
    sum: Duration,
}

impl Durations {
    /// Upper bounds, and how many answers took so long at most: from 100 µs to 10 s. How many there are in all, however
    /// long they took, is [`count`](Self::count).
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        BOUNDS_US.into_iter().map(Duration::from_micros).zip(self.counts).scan(0, |so_far, (bound, count)| {
            *so_far += count;
            Some((bound, *so_far))
        })
    }

    /// How many answers were timed.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How long they took in all.
    pub fn sum(&self) -> Duration {
        self.sum
    }
}
