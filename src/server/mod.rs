//! A server as a member of a group: bind, configure, run.
//!
//! | module | what for |
//! |---|---|
//! | `config`, `budget` | every limit; the memory for bodies, which all loops share |
//! | `notice`, `answered`, `throttle` | what the server reports to its operator, and how often |
//! | `counts`, `stats`, `busy` | what it counts and is busy with, and what others see of that |
//! | `address`, `bind`, `listener`, `accept_error` | where to listen; accepting, and its errors |
//! | `inherited` | listeners that another process or the embedder has bound |
//! | `shared_listener`, `handshakes`, `sock_diag` | a listener that all loops share, and how it closes |
//! | `stream` | connected sockets: reading and writing |
//! | `socket_file` | the files of Unix sockets, which the process that bound them removes |
//! | `sys` | the system calls that std lacks, and all `unsafe` |
//! | `poller`, `timeouts`, `quiet`, `patience` | when something is ready; how long it may take |
//! | `event_loop` | one loop, and all that it does with its connections |
//! | `table`, `connection`, `phase` | what a loop works on: its connections and their phases |
//! | `buffer`, `outgoing` | what a loop reads, what it sends |
//! | `call` | a handler that has been called |
//! | `presence` | whether a handler's client is still there |
//! | `shared`, `inbox`, `transfer` | what all loops share, and how they reach each other |
//! | `reply` | one value from one thread to another |
//! | `network_path` | what the system knows of the network path to a peer |
//! | `liveness` | whether every loop responds |
//! | `streaming` | bodies that a handler's thread reads or writes itself |
//! | `handoff` | which thread runs a loop, and which takes it over while a handler blocks |
//!
//! A request comes in by a `shared_listener`, becomes a `connection` in a loop's `table`, is read into a `buffer` by an
//! `event_loop`, is answered by a handler on the thread that `handoff` chose, and leaves as `outgoing`. A stop takes
//! the path that `event_loop::drain` describes.

mod accept_error;
mod address;
mod answered;
mod bind;
mod budget;
mod buffer;
mod busy;
mod call;
mod config;
mod connection;
mod counts;
mod event_loop;
mod handoff;
mod handshakes;
mod inbox;
mod inherited;
mod listener;
mod liveness;
mod network_path;
mod notice;
mod outgoing;
mod patience;
mod phase;
mod poller;
mod presence;
mod quiet;
mod reply;
mod shared;
mod shared_listener;
mod sock_diag;
#[cfg(unix)]
mod socket_file;
mod stats;
mod stream;
mod streaming;
#[cfg(all(target_os = "linux", feature = "sys"))]
mod sys;
mod table;
mod throttle;
mod timeouts;
mod transfer;

pub use address::{Address, AddressError, ToAddresses};
pub use bind::BindError;
pub use busy::{Busy, Work};
pub use config::Config;
pub use listener::{Inherited, LocalAddress};
pub use liveness::Liveness;
pub use notice::{Answered, Notice, Want};
pub use stats::{Connections, Durations, Figures, Stats};

use crate::group::MemberResult;
use crate::http::Handler;
use crate::stop::Stop;
use crate::sync::{self, Arc, AtomicU64, AtomicUsize, Mutex};
use budget::Budget;
use event_loop::EventLoop;
use handoff::Permits;
use inbox::Inbox;
use listener::Listener;
use poller::Poller;
use shared::{LoopHandle, OnAnswer, OnNotice, Shared};
use shared_listener::SharedListener;
use throttle::Throttle;

type OnListening = Box<dyn Fn(&LocalAddress) + Send>;

/// An HTTP/1.1 server, bound to its addresses but not yet running.
///
/// ```
/// use allout::{Config, Group, Response, Router, Server};
///
/// let mut group = Group::new();
/// let server = Server::bind("127.0.0.1:0", Config::default())?;
/// let router = Router::new().get("/ping", |_| Response::text("pong"));
/// group.add("http", move |stop| server.run(router, stop));
/// # group.stop().trigger(allout::Cause::Signal);
/// let outcome = group.run(std::time::Duration::from_secs(3));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Server {
    listeners: Vec<Listener>,
    config: Config,
    stats: Stats,
    liveness: Liveness,
    on_notice: OnNotice,
    on_answer: Option<OnAnswer>,
    on_listening: OnListening,
}

impl Server {
    /// Binds all [addresses](ToAddresses); text is parsed as an [`Address`]. If one of them cannot be bound, the server
    /// listens on none.
    ///
    /// ```
    /// use allout::{Config, Server};
    ///
    /// let server = Server::bind("127.0.0.1:0", Config::default())?;
    /// assert_ne!(server.port(), Some(0)); // the one that the system has chosen
    /// # Ok::<(), allout::BindError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`BindError`] names the address and the reason.
    pub fn bind(addresses: impl ToAddresses, config: Config) -> Result<Self, BindError> {
        Ok(Self::with_listeners(bind::bind(&addresses)?, config))
    }

    /// Takes over sockets that listen already, from a service manager for example. Others may hold them too: the
    /// sockets become non-blocking for those holders as well, but are not closed for them. At the stop, the server
    /// answers its share of their queues, and leaves what comes later to the other holders; the file of a Unix socket
    /// stays. Processes that a handler starts do not inherit the sockets.
    ///
    /// ```
    /// use std::net::TcpListener;
    /// use allout::{Config, Server};
    ///
    /// let socket = TcpListener::bind("127.0.0.1:0")?;
    /// let server = Server::from_listeners([socket], Config::default())?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If a socket cannot be duplicated or made non-blocking, or has no address.
    pub fn from_listeners(
        sockets: impl IntoIterator<Item = impl Into<Inherited>>,
        config: Config,
    ) -> std::io::Result<Self> {
        Self::with_listeners(Vec::new(), config).and_listeners(sockets)
    }

    /// Takes over more sockets, as [`from_listeners`](Self::from_listeners) does.
    ///
    /// # Errors
    ///
    /// Those of [`from_listeners`](Self::from_listeners).
    pub fn and_listeners(mut self, sockets: impl IntoIterator<Item = impl Into<Inherited>>) -> std::io::Result<Self> {
        for socket in sockets {
            self.listeners.push(Listener::take_over(socket.into())?);
        }
        Ok(self)
    }

    fn with_listeners(listeners: Vec<Listener>, config: Config) -> Self {
        let (config, liveness) = (config.sane(), Liveness::default());
        Self {
            listeners,
            stats: Stats::new(config.loops, liveness.clone()),
            liveness,
            config,
            on_notice: Box::new(|_| {}),
            on_answer: None,
            on_listening: Box::new(|_| {}),
        }
    }

    /// Where the server listens, including ports that the system chose.
    pub fn addresses(&self) -> impl Iterator<Item = &LocalAddress> {
        self.listeners.iter().map(Listener::local_address)
    }

    /// The port of the first TCP listener; for `:0`, the port that the system chose. `None` if all listeners are Unix
    /// sockets.
    pub fn port(&self) -> Option<u16> {
        self.addresses().find_map(|address| match address {
            LocalAddress::Tcp(address) => Some(address.port()),
            LocalAddress::Unix(_) => None,
        })
    }

    /// What the server counts and is busy with, for whoever asks: before, during and after its run.
    pub fn stats(&self) -> Stats {
        self.stats.clone()
    }

    /// Asks whether the event loops respond, until the stop: for a watchdog.
    ///
    /// ```
    /// use std::time::Duration;
    /// use allout::{Config, Group, Server};
    ///
    /// # fn feed_the_watchdog() {}
    /// let mut group = Group::new();
    /// let server = Server::bind("127.0.0.1:0", Config::default())?;
    /// let liveness = server.liveness();
    /// group.add("watchdog", move |stop| {
    ///     while !stop.wait_timeout(Duration::from_secs(10)) {
    ///         if liveness.check(Duration::from_secs(5)) {
    ///             feed_the_watchdog();
    ///         }
    ///     }
    ///     Ok(())
    /// });
    /// # Ok::<(), allout::BindError>(())
    /// ```
    pub fn liveness(&self) -> Liveness {
        self.liveness.clone()
    }

    /// Calls `listen` with everything that is worth a line in a log. The closure runs on the threads that serve, and
    /// should not block.
    ///
    /// ```
    /// use allout::{Config, Server};
    ///
    /// let server = Server::bind("127.0.0.1:0", Config::default())?
    ///     .on_listening(|address| eprintln!("listening on {address}"))
    ///     .on_notice(|notice| {
    ///         // What clients can cause at will is not for every log.
    ///         if !notice.is_verbose() {
    ///             eprintln!("{notice}");
    ///         }
    ///     });
    /// # Ok::<(), allout::BindError>(())
    /// ```
    pub fn on_notice(mut self, listen: impl Fn(&Notice<'_>) + Send + Sync + 'static) -> Self {
        self.on_notice = Box::new(listen);
        self
    }

    /// Calls `listen` for each answer, once it has left or is lost: those of handlers, and the server's own refusals.
    /// Access logs, metrics and traces are built on it. While nobody listens, it costs nothing.
    ///
    /// The closure runs on the threads that serve, after [`on_sent`](crate::Response::on_sent), and should not block.
    /// If it panics, that is [reported](Notice::OnAnswerPanicked). A request whose handler still runs at the deadline
    /// of a stop has no answer: [`CutOff`](crate::CutOff) names it.
    ///
    /// ```
    /// use allout::{Config, Server};
    ///
    /// let server = Server::bind("127.0.0.1:0", Config::default())?.on_answer(|answered| {
    ///     let method = answered.method.map_or("-".to_owned(), |method| method.to_string());
    ///     let (status, bytes) = (answered.status.code(), answered.bytes);
    ///     println!("{} {method} {} {status} {bytes}", answered.peer, answered.path);
    /// });
    /// # Ok::<(), allout::BindError>(())
    /// ```
    pub fn on_answer(mut self, listen: impl Fn(&Answered<'_>) + Send + Sync + 'static) -> Self {
        self.on_answer = Some(Box::new(listen));
        self
    }

    /// Calls `listen` for each listener, once [`run`](Self::run) has all that it needs to serve: a client that connects
    /// from then on is answered, even if the stop comes before the first `accept`.
    pub fn on_listening(mut self, listen: impl Fn(&LocalAddress) + Send + 'static) -> Self {
        self.on_listening = Box::new(listen);
        self
    }

    /// Serves until the stop, then drains, and returns at the deadline at the latest, give or take 50 ms.
    ///
    /// The handler is a [`Router`](crate::Router) as a rule. A closure has to say here what it takes,
    /// `|request: &Request<'_>| …`.
    ///
    /// # Errors
    ///
    /// [`CutOff`](crate::CutOff) if, at the deadline, an answer was owed or a handler still ran. Another error if an
    /// event loop failed, or if threads, pollers or a descriptor for one connection could not be had.
    pub fn run(self, handler: impl Handler, stop: &Stop) -> MemberResult {
        let (event_loops, shared) = self.assemble(handler, stop)?;
        handoff::supervise(event_loops, &shared)
    }

    /// Builds all that serving needs.
    fn assemble(self, handler: impl Handler, stop: &Stop) -> Result<(Vec<EventLoop>, Arc<Shared>), String> {
        let Self { listeners, config, stats, liveness, on_notice, on_answer, on_listening } = self;
        let pollers: Vec<Poller> = (0..config.loops)
            .map(|_| Poller::new())
            .collect::<Result<_, _>>()
            .map_err(|error: std::io::Error| format!("cannot create a poller: {error}"))?;
        let handle = |poller: &Poller| LoopHandle {
            inbox: Inbox::new(poller.waker()),
            connections: AtomicUsize::new(0),
            idle_since_us: AtomicU64::new(u64::MAX),
            counted: Mutex::default(),
        };
        let shared = Arc::new(Shared {
            limits: config.limits(),
            stop: stop.clone(),
            listeners: listeners.into_iter().map(|listener| SharedListener::new(listener, config.loops)).collect(),
            loops: pollers.iter().map(handle).collect(),
            permits: Permits::new(config.loops, config.handlers_max),
            looks: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            totals: Arc::clone(stats.totals()),
            handler: Box::new(handler),
            on_notice,
            on_answer,
            started: sync::now(),
            accept_failed: Throttle::default(),
            refused: Default::default(),
            bodies: Budget::new(config.bodies_bytes_max),
            config,
        });
        let mut event_loops = Vec::new();
        for (index, poller) in pollers.into_iter().enumerate() {
            event_loops.push(EventLoop::new(Arc::clone(&shared), index, poller)?);
        }
        for listener in &shared.listeners {
            // Before `on_listening` is called, proves that a descriptor is free: a client that then connects must be
            // answered.
            listener
                .with(Listener::prove_room)
                .unwrap_or(Ok(()))
                .map_err(|error| format!("cannot accept on `{}`: {error}", listener.local_address()))?;
        }
        liveness.of(&shared);
        shared.listeners.iter().for_each(|listener| on_listening(listener.local_address()));
        Ok((event_loops, shared))
    }
}

/// Removes the files of all Unix sockets that this process listens on, as dropping the servers would. Call it right
/// before [`std::process::exit`], which drops nothing. After the call, no Unix socket can be bound.
pub fn remove_socket_files() {
    #[cfg(unix)]
    socket_file::remove_all();
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("listeners", &self.listeners)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
