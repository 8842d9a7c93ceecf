//! A server as a member of a group: bind, configure, run.
//!
//! A request comes in by `listener` and `accept`, becomes a `connection` of an `event_loop`, is read on a `desk`, and
//! its answer leaves as `outgoing`. `poller` says when, `timeouts` until when. A stop goes the way of `drain`.

mod accept;
mod address;
mod config;
mod connection;
mod desk;
mod drain;
mod event_loop;
mod listener;
mod notice;
mod outgoing;
mod poller;
mod shared;
mod stream;
mod table;
mod timeouts;

pub use address::{Address, AddressError};
pub use config::{Config, Readiness};
pub use listener::{BindError, Bound};
pub use notice::Notice;
pub use shared::Stats;

use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::group::{CutOff, MemberResult, panic_text};
use crate::http::Handler;
use crate::stop::{Cause, Stop};
use desk::Desk;
use event_loop::{EventLoop, Turn};
use listener::{Gate, Listener};
use poller::Poller;
use shared::{Inbox, OnNotice, Seat, Shared};

/// How long after the deadline loops that are cutting off what they hold are waited for.
const SLACK: Duration = Duration::from_millis(50);

/// An HTTP/1.1 server, bound to its addresses but not yet running.
///
/// ```
/// use allout::{Config, Group, Response, Router, Server};
///
/// let mut group = Group::new();
/// let server = Server::bind(&["127.0.0.1:0".parse()?], Config::default())?;
/// let router = Router::new().get("/ping", |_: &allout::Request<'_>| Response::text("pong"));
/// group.add("http", move |stop| server.run(router, stop))?;
/// # group.stop().trigger(allout::Cause::Signal);
/// let outcome = group.run(std::time::Duration::from_secs(3));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Server {
    listeners: Vec<Listener>,
    config: Config,
    stats: Arc<Stats>,
    on_notice: OnNotice,
}

impl Server {
    /// Binds all addresses. None is listened on if one cannot be.
    ///
    /// # Errors
    ///
    /// [`BindError`] names the address and the reason.
    pub fn bind(addresses: &[Address], config: Config) -> Result<Self, BindError> {
        let mut listeners = Vec::new();
        for address in addresses {
            listeners.extend(listener::bind(address)?);
        }
        Ok(Self::with_listeners(listeners, config))
    }

    /// Takes over a socket that listens already, from a service manager for example.
    ///
    /// # Errors
    ///
    /// If it cannot be made non-blocking, or has no address.
    pub fn from_listener(socket: TcpListener, config: Config) -> std::io::Result<Self> {
        Ok(Self::with_listeners(vec![Listener::tcp(socket)?], config))
    }

    fn with_listeners(listeners: Vec<Listener>, config: Config) -> Self {
        Self { listeners, config, stats: Arc::default(), on_notice: Box::new(|_| {}) }
    }

    /// Where it listens, the ports that the system chose included.
    pub fn addresses(&self) -> impl Iterator<Item = &Bound> {
        self.listeners.iter().map(Listener::place)
    }

    /// Counts that go on being updated while it runs.
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.stats)
    }

    /// Calls `listen` with everything that is worth a line in a log. It runs on the threads that serve, and should not
    /// block.
    pub fn on_notice(mut self, listen: impl Fn(&Notice<'_>) + Send + Sync + 'static) -> Self {
        self.on_notice = Box::new(listen);
        self
    }

    /// Serves until the stop, then drains, and returns at the deadline at the latest, give or take 50 ms.
    ///
    /// # Errors
    ///
    /// [`CutOff`] if at the deadline an answer was owed; else that threads or pollers could not be had, or that a
    /// listener failed.
    pub fn run(self, handler: impl Handler, stop: &Stop) -> MemberResult {
        let Self { listeners, config, stats, on_notice } = self;
        let config = config.sane();
        let pollers: Vec<Poller> =
            (0..config.loops).map(|_| Poller::new(config.readiness)).collect::<Result<_, _>>()?;
        let seat = |poller: &Poller| Seat { inbox: Inbox::new(poller.waker()), connections: AtomicUsize::new(0) };
        let shared = Arc::new(Shared {
            limits: config.limits(),
            stop: stop.clone(),
            gates: listeners.into_iter().map(Gate::new).collect(),
            seats: pollers.iter().map(seat).collect(),
            connections: AtomicUsize::new(0),
            stats,
            handler: Box::new(handler),
            on_notice,
            started: Instant::now(),
            accept_told_ms: AtomicU64::new(0),
            config,
        });
        let mut event_loops = Vec::new();
        for (number, poller) in pollers.into_iter().enumerate() {
            event_loops.push(EventLoop::new(Arc::clone(&shared), number, poller)?);
        }
        let wake = Arc::clone(&shared);
        stop.on_stop(move || wake.seats.iter().for_each(|seat| seat.inbox.wake()));
        supervise(event_loops, &shared)
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("listeners", &self.listeners)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// How one loop ended.
type LoopEnd = Result<CutOff, String>;

/// Runs each loop on a thread and waits for them, until the deadline and a little more.
fn supervise(event_loops: Vec<EventLoop>, shared: &Arc<Shared>) -> MemberResult {
    let (sender, ends) = mpsc::channel();
    let mut running = 0;
    let mut failure = None;
    for (number, event_loop) in event_loops.into_iter().enumerate() {
        let (sender, shared) = (sender.clone(), Arc::clone(shared));
        let stop = shared.stop.clone();
        let spawned = thread::Builder::new().name(format!("loop-{number}")).spawn(move || {
            let turned = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| turn(event_loop, &shared)));
            let end = turned.unwrap_or_else(|payload| Err(format!("panicked: {}", panic_text(payload.as_ref()))));
            if let Err(error) = &end {
                shared.stop.trigger(Cause::Failed { who: format!("event loop {number}"), error: error.clone() });
            }
            // Nobody listens any more once the deadline has passed.
            let _ = sender.send(end);
        });
        match spawned {
            Ok(_) => running += 1,
            Err(error) => {
                let error = format!("cannot start a thread: {error}");
                stop.trigger(Cause::Failed { who: format!("event loop {number}"), error: error.clone() });
                failure = Some(error);
            }
        }
    }
    drop(sender);
    let mut total = CutOff::default();
    for _ in 0..running {
        match wait_for_end(&ends, &shared.stop) {
            Some(Ok(cut_off)) => {
                total.owed += cut_off.owed;
                total.details.extend(cut_off.details);
            }
            Some(Err(error)) => failure = Some(error),
            None => {
                total.owed += 1;
                total.details.push("a handler that has not returned".to_owned());
            }
        }
    }
    shared.stats.add_cut_off(total.owed);
    match failure {
        Some(error) => Err(error.into()),
        None if total.owed > 0 => Err(Box::new(total)),
        None => Ok(()),
    }
}

fn wait_for_end(ends: &mpsc::Receiver<LoopEnd>, stop: &Stop) -> Option<LoopEnd> {
    // Before the stop there is no deadline; the first loop to end before it has failed, and has triggered it.
    while stop.deadline().is_none() {
        if let Ok(end) = ends.recv_timeout(Duration::from_secs(1)) {
            return Some(end);
        }
    }
    let until = stop.deadline()? + SLACK;
    ends.recv_timeout(until.saturating_duration_since(Instant::now())).ok()
}

/// The life of a loop's thread.
fn turn(mut event_loop: EventLoop, shared: &Shared) -> LoopEnd {
    let mut desk = Desk::new();
    loop {
        match event_loop.turn(&mut desk) {
            Ok(Turn::Call) => {
                let response = shared.call(&desk.request());
                event_loop.answer(response, &mut desk);
            }
            Ok(Turn::Over) => return Ok(event_loop.into_cut_off()),
            Err(error) => return Err(format!("cannot wait for readiness: {error}")),
        }
    }
}
