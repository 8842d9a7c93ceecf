//! Torture: each scenario is run once, to count the calls of the server that may fail; then again for each of them and
//! each way in which it may fail, with that one call failing. One seed: until it fails, each run is the same.
//!
//! ```text
//! cargo run --release --manifest-path tests/sim/Cargo.toml -- --torture [--scenario NAME] [--call K] [--every N]
//! ```
//!
//! Scenarios are the tables of `tests/it/wire`, taken in as they are ([`wire`]), and the situations of `tests/it/drain`
//! ([`drain`]). Each is also run with all reads and writes of one byte. [`judge`] says what must hold.
//!
//! The calls are those of the stand-ins: what `bind`, `stream` and `epoll` make of the system's errors, before the rest
//! of the server learns of them, is not run here.

mod command;
mod drain;
mod judge;
mod player;
mod site;
mod wire;

use std::cell::RefCell;

pub use command::command;

use crate::net::Kind;
use crate::plan::{Ending, Plan};
use crate::server::Config;
use crate::sync::Arc;
use crate::world::{self, MS, Nanos, SEC, US, World, with};
use judge::Ended;
use player::{Act, Player, Script};

/// All worlds have this seed.
const SEED: u64 = 1;

thread_local! {
    /// The panics of a world. Nothing here panics on purpose.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// A call that may fail; the number is a connection's or a listener's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    NewPoller,
    TakeOver(usize),
    ProveRoom(usize),
    Accept(usize),
    Refuse(usize),
    Handshakes(usize),
    Register(usize),
    RegisterListener(usize),
    AwaitRoom(usize),
    Wait,
    Read(usize),
    Write(usize),
    WaitUpTo(usize),
    NeverWait(usize),
    TakeError(usize),
    Path(usize),
    Spawn(Role),
}

/// What a thread is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Member,
    Helper,
    /// By its number.
    Worker(usize),
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// With this error of the system.
    Error(i32),
    /// EAGAIN: what had come comes a moment later, or the room does.
    WouldBlock,
    /// EINTR: a wait that finds nothing.
    Interrupted,
    /// One byte is written.
    Short,
    /// ECONNRESET or EPIPE: the peer has reset the connection.
    Reset,
    /// The system does not know.
    Unknown,
}

const EPERM: i32 = 1;
const EBADF: i32 = 9;
const EAGAIN: i32 = 11;
const ENOMEM: i32 = 12;
const EINVAL: i32 = 22;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;
const EINTR: i32 = 4;
const ECONNABORTED: i32 = 103;
const ETIMEDOUT: i32 = 110;

impl Call {
    fn ways(self) -> &'static [Way] {
        match self {
            Self::NewPoller | Self::TakeOver(_) | Self::ProveRoom(_) => &[Way::Error(EMFILE)],
            Self::Accept(_) => &[
                Way::Error(EMFILE),
                Way::Error(ENOMEM),
                Way::Error(ECONNABORTED),
                Way::Error(EINTR),
                Way::Error(EAGAIN),
                Way::Error(EINVAL),
            ],
            Self::Refuse(_) => &[Way::Error(ENOMEM)],
            Self::Handshakes(_) => &[Way::Error(EINTR), Way::Error(EAGAIN), Way::Error(EPERM)],
            Self::Register(_) => &[Way::Error(ENOMEM), Way::Error(ENOSPC)],
            Self::RegisterListener(_) | Self::AwaitRoom(_) => &[Way::Error(ENOMEM)],
            Self::Wait => &[Way::Interrupted, Way::Error(EINVAL)],
            // EINTR never gets as far as this: `stream` makes the call again. And there are timeouts of the system's
            // own: the peer is there, and learns of the end by our close.
            Self::Read(_) => &[Way::WouldBlock, Way::Error(ETIMEDOUT), Way::Reset],
            Self::Write(_) => &[Way::WouldBlock, Way::Short, Way::Error(ETIMEDOUT), Way::Reset],
            Self::WaitUpTo(_) | Self::NeverWait(_) => &[Way::Error(EBADF)],
            Self::TakeError(_) => &[Way::Error(ETIMEDOUT), Way::Reset],
            Self::Path(_) => &[Way::Unknown],
            Self::Spawn(_) => &[Way::Error(EAGAIN)],
        }
    }
}

/// What a scenario is made of.
#[derive(Clone)]
pub(crate) struct Scenario {
    name: String,
    config: Config,
    routes: site::Routes,
    listeners: Vec<Kind>,
    is_swept: bool,
    /// All reads and writes are of one byte.
    is_bytewise: bool,
    /// It needs bytes to come that nobody reads yet.
    is_behind: bool,
    grace: Nanos,
    lame_duck: Nanos,
    scripts: Vec<Script>,
    acts: Vec<Act>,
    /// The exit code, and how many are cut off.
    code: u8,
    cut_off: usize,
}

impl Scenario {
    fn new(name: impl Into<String>, routes: site::Routes) -> Self {
        Self {
            name: name.into(),
            config: Config { loops: 1, ..Config::default() },
            routes,
            listeners: vec![Kind::Filtered],
            is_swept: false,
            is_bytewise: false,
            is_behind: false,
            grace: 20 * SEC,
            lame_duck: 0,
            scripts: Vec::new(),
            acts: Vec::new(),
            code: 0,
            cut_off: 0,
        }
    }

    /// One of a table: others make the same calls.
    fn is_one_of_many(&self) -> bool {
        self.routes != site::Routes::Drain
    }

    fn plan(&self) -> Plan {
        Plan {
            seed: SEED,
            faults: 0,
            clients: 0,
            loops: self.config.loops,
            handlers_max: self.config.handlers_max,
            slowness: 4,
            preempted_of_1024: (1, 8),
            is_uneven: false,
            is_swept: self.is_swept,
            events_max: 256,
            small_buffers: self.is_bytewise,
            listeners: self.listeners.clone(),
            latency_max: 50 * US,
            ending: Ending::Trigger,
            stop_at: 0,
            grace: self.grace,
            lame_duck: self.lame_duck,
            calm_at: None,
            is_nested: false,
            ..Plan::of(SEED, 0, 0)
        }
    }
}

/// All of them, in their order.
fn scenarios() -> Vec<Scenario> {
    let mut all = drain::scenarios();
    all.extend(wire::scenarios());
    all
}

/// Which call fails, and how: in the order of [`Call::ways`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failing {
    call: usize,
    way: usize,
}

/// A call that has failed.
#[derive(Clone, Copy, Debug)]
struct Failed {
    call: Call,
    way: Way,
    at: Nanos,
    /// The server had all that it needs.
    was_serving: bool,
    was_stopping: bool,
}

/// What a world of this kind has beside the network and the threads.
pub(crate) struct Torture {
    scenario: Arc<Scenario>,
    failing: Option<Failing>,
    /// All calls so far that may fail.
    calls: Vec<Call>,
    failed: Option<Failed>,
    players: Vec<Player>,
    /// How far the acts have come, for players that wait for it.
    stage: usize,
    /// Handlers that have come to where they are held, and whether they are let go.
    held: usize,
    opened_at: Option<Nanos>,
    is_serving: bool,
    is_stopping: bool,
    notices: Vec<String>,
    /// Requests whose handlers were called, and answers whose end was told.
    called: Vec<String>,
    answered: Vec<String>,
    ended: Option<Ended>,
}

impl Torture {
    fn new(scenario: Arc<Scenario>, failing: Option<Failing>) -> Self {
        let players = scenario.scripts.iter().map(Player::new).collect();
        Self {
            scenario,
            failing,
            calls: Vec::new(),
            failed: None,
            players,
            stage: 0,
            held: 0,
            opened_at: None,
            is_serving: false,
            is_stopping: false,
            notices: Vec::new(),
            called: Vec::new(),
            answered: Vec::new(),
            ended: None,
        }
    }

    fn ask(&mut self, call: Call, now: Nanos) -> Option<Way> {
        let number = self.calls.len();
        self.calls.push(call);
        let failing = self.failing.filter(|failing| failing.call == number)?;
        let way = *call.ways().get(failing.way)?;
        self.failed = Some(Failed { call, way, at: now, was_serving: self.is_serving, was_stopping: self.is_stopping });
        Some(way)
    }

    pub(crate) fn is_bytewise(&self) -> bool {
        self.scenario.is_bytewise
    }

    pub(crate) fn is_sent_bytewise(&self) -> bool {
        self.scenario.is_bytewise && !self.scenario.is_swept
    }
}

/// Whether this call fails, and how. For every call that may.
pub(crate) fn fails(call: Call) -> Option<Way> {
    with(|world| {
        let now = world.now;
        let way = world.torture.as_mut()?.ask(call, now)?;
        world.note(|| format!("FAILS: {call:?}, {way:?}"));
        Some(way)
    })
}

/// The error of a call that has no other way to fail.
pub(crate) fn error_of(call: Call) -> std::io::Result<()> {
    match fails(call) {
        Some(Way::Error(error)) => Err(std::io::Error::from_raw_os_error(error)),
        _ => Ok(()),
    }
}

/// For a thread of this name, that is to be started.
pub(crate) fn refuses_thread(name: &str) -> std::io::Result<()> {
    let role = match name.strip_prefix("worker-").map(str::parse) {
        Some(Ok(number)) => Role::Worker(number),
        _ if name == "helper" => Role::Helper,
        _ => Role::Member,
    };
    error_of(Call::Spawn(role))
}

/// What came of one world.
struct Run {
    calls: Vec<Call>,
    broken: Vec<String>,
    trace: Vec<String>,
    report: judge::Report,
    is_left: bool,
}

/// Runs one world. `before`: what came of it without a failure.
fn run(scenario: &Arc<Scenario>, failing: Option<Failing>, before: Option<&judge::Report>, is_traced: bool) -> Run {
    PANICS.with(|panics| panics.borrow_mut().clear());
    let torture = Torture::new(Arc::clone(scenario), failing);
    let mut world = world::run(scenario.plan(), Some(Box::new(torture)), is_traced, site::main);
    let report = world.report();
    let mut broken = std::mem::take(&mut world.broken);
    broken.extend(world.judge_torture(&report, before));
    broken.extend(PANICS.with(|panics| panics.take()).into_iter().map(|text| format!("a panic: {text}")));
    let calls = world.torture.take().map(|torture| torture.calls).unwrap_or_default();
    let trace = world.trace.take().unwrap_or_default();
    Run { calls, broken, trace, report, is_left: world.is_left }
}

impl World {
    /// What had come to a connection comes a moment later.
    pub(crate) fn hold_back(&mut self, number: usize) {
        let at = self.now + 40 * US;
        if self.net.pipes[number].take_back(at) {
            self.later(at, world::Event::Deliver(number, crate::net::UP));
        }
    }

    /// Who waits in a queue completes the handshake a moment later.
    pub(crate) fn hold_queue_back(&mut self, number: usize) {
        let listener = &mut self.net.listeners[number];
        let waiting: Vec<usize> = listener.queue.drain(..).collect();
        listener.handshakes.extend(&waiting);
        for connection in waiting {
            self.later(self.now + 40 * US, world::Event::Handshaken(connection));
        }
    }

    /// There is no room to write, and will be in a moment.
    pub(crate) fn fill_up(&mut self, number: usize) {
        self.net.pipes[number].is_full();
        self.later(self.now + 40 * US, world::Event::Acknowledge(number, crate::net::DOWN, 0));
    }
}

/// The same with all reads and writes of one byte.
fn bytewise(scenario: &Scenario, is_swept: bool) -> Scenario {
    let poller = if is_swept { ", swept" } else { "" };
    Scenario { name: format!("{}{poller}, one byte", scenario.name), is_bytewise: true, is_swept, ..scenario.clone() }
}

/// How many bytes its players send, and get, at most.
fn sent(scenario: &Scenario) -> usize {
    let of = |step: &player::Step| if let player::Step::Send(bytes, _) = step { bytes.len() } else { 0 };
    let sums = scenario.scripts.iter().map(|script| {
        let sent: usize = script.steps.iter().map(of).sum();
        sent + script.wanted.iter().map(String::len).sum::<usize>()
    });
    sums.max().unwrap_or(0)
}

/// How long the conductor waits for what may never come, and how often it looks.
const PATIENCE: Nanos = 4 * SEC;
const TICK: Nanos = MS / 2;
