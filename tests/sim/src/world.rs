//! The world of one simulation: its threads, its clock, what is to happen, and what went wrong.
//!
//! Everything here happens on one thread of the system. A simulated thread is a stack of its own that runs until it
//! blocks or is preempted; then the scheduler, at the bottom, lets another one run. What is to happen at some time (a
//! packet arrives, a wait times out, a client moves) lies in one queue in the order of time.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use generator::{Generator, Gn};

use crate::client::Client;
use crate::dice::Dice;
use crate::net::Net;
use crate::plan::{Fault, Plan};
use crate::torture::Torture;

/// Nanoseconds of virtual time since the world began.
pub(crate) type Nanos = u64;

pub(crate) const US: Nanos = 1_000;
pub(crate) const MS: Nanos = 1_000_000;
pub(crate) const SEC: Nanos = 1_000_000_000;

/// Far more than any simulation needs.
const STEPS_MAX: u64 = 6_000_000;
/// Nothing here takes so long: who waits for it waits for ever.
const FAR: Nanos = 3600 * SEC;
/// Words of a simulated thread's stack: 256 KiB.
const STACK_WORDS: usize = 32 * 1024;
/// How far apart worlds of one process are: what is static (`signals`) sees one world after the other.
const APART: Duration = Duration::from_secs(100_000);

static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
    static STACKS: RefCell<Vec<Stack>> = const { RefCell::new(Vec::new()) };
    static WORLDS: RefCell<u32> = const { RefCell::new(0) };
}

type Stack = Generator<'static, (), ()>;

/// What a thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    Lock(usize),
    Condition(usize),
    Join(usize),
    Poller(usize),
    Socket(usize),
    Asleep,
    Stalled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Runnable,
    Blocked(Why),
    Over,
}

struct Thread {
    name: String,
    state: State,
    /// Counts its waits: a wake-up for an earlier one is none.
    waits: u64,
    has_timed_out: bool,
    stack: Option<Stack>,
    /// How likely it is to run next.
    weight: u64,
}

/// What happens at some time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    TimeOut(usize, u64),
    WakeUp(usize, u64),
    Deliver(usize, usize),
    Acknowledge(usize, usize, usize),
    Widen(usize, usize, usize),
    Syn(usize),
    SynAck(usize),
    Handshaken(usize),
    Reset(usize, usize),
    Client(usize, u64),
    Read(usize),
    Freeze(Nanos),
    Signal,
    Drought(bool),
    Calm,
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    offset: Duration,
    pub(crate) now: Nanos,
    /// How far the calendar is off.
    pub(crate) calendar_off: i64,
    pub(crate) steps: u64,
    events: BTreeMap<(Nanos, u64), Event>,
    event_count: u64,
    threads: Vec<Thread>,
    current: Option<usize>,
    /// Chance in scheduling, in faults, and in the network.
    pub(crate) order: Dice,
    pub(crate) luck: Dice,
    pub(crate) paths: Dice,
    pub(crate) net: Net,
    pub(crate) clients: Vec<Client>,
    /// When and for how long everything stood, or one thread.
    pub(crate) stood: Vec<(Nanos, Nanos)>,
    pub(crate) is_calm: bool,
    pub(crate) tally: BTreeMap<&'static str, u64>,
    pub(crate) broken: Vec<String>,
    pub(crate) trace: Option<Vec<String>>,
    pub(crate) diary: crate::site::Diary,
    pub(crate) signals_to_come: u64,
    pub(crate) is_dead: bool,
    pub(crate) is_left: bool,
    /// In a world in which one call fails.
    pub(crate) torture: Option<Box<Torture>>,
}

/// Calls `act` with the world. Must not be nested, and `act` must drop nothing that has a place in the world.
pub(crate) fn with<T>(act: impl FnOnce(&mut World) -> T) -> T {
    WORLD.with(|world| act(world.borrow_mut().as_mut().expect("within a simulation")))
}

pub(crate) fn is_there() -> bool {
    WORLD
        .with(|world| world.try_borrow().is_ok_and(|world| world.as_ref().is_some_and(|world| world.current.is_some())))
}

/// Runs a world until all its threads are over and nothing more is to happen. Returns it as it is then.
pub(crate) fn run(
    plan: Plan,
    torture: Option<Box<Torture>>,
    is_traced: bool,
    main: impl FnOnce() + Send + 'static,
) -> World {
    let number = WORLDS.with(|worlds| {
        let mut worlds = worlds.borrow_mut();
        *worlds += 1;
        *worlds
    });
    let seed = plan.seed;
    let mut world = World {
        offset: APART * number,
        now: 0,
        calendar_off: 0,
        steps: 0,
        events: BTreeMap::new(),
        event_count: 0,
        threads: Vec::new(),
        current: None,
        order: Dice::new(seed, 1),
        luck: Dice::new(seed, 2),
        paths: Dice::new(seed, 3),
        net: Net::default(),
        clients: Vec::new(),
        stood: Vec::new(),
        is_calm: false,
        tally: BTreeMap::new(),
        broken: Vec::new(),
        trace: is_traced.then(Vec::new),
        diary: crate::site::Diary::default(),
        signals_to_come: 0,
        is_dead: false,
        is_left: false,
        torture,
        plan,
    };
    world.prepare();
    WORLD.with(|place| *place.borrow_mut() = Some(world));
    spawn("main".to_owned(), main);
    while let Some((number, mut stack)) = with(World::choose) {
        stack.resume();
        with(|world| {
            world.current = None;
            let thread = &mut world.threads[number];
            if stack.is_done() {
                thread.state = State::Over;
                STACKS.with(|stacks| stacks.borrow_mut().push(stack));
                world.wake_all(Why::Join(number));
            } else {
                thread.stack = Some(stack);
            }
        });
    }
    let mut world = WORLD.with(|place| place.borrow_mut().take()).expect("it was there");
    if world.torture.is_none() {
        world.look_back();
    }
    // A thread that is stuck keeps its stack for ever: to unwind it would run code of a world that is gone.
    world.is_left = world.threads.iter().any(|thread| thread.stack.is_some());
    world.threads.iter_mut().filter_map(|thread| thread.stack.take()).for_each(std::mem::forget);
    world
}

/// Starts a thread, and returns its number.
pub(crate) fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> usize {
    let stack = match STACKS.with(|stacks| stacks.borrow_mut().pop()) {
        Some(mut stack) => {
            stack.init_code(body);
            stack
        }
        None => Gn::new_opt(STACK_WORDS, body),
    };
    with(|world| {
        let weight = if world.plan.is_uneven && world.order.one_in(3) { 1 } else { 16 };
        world.note(|| format!("starts thread {name}"));
        world.threads.push(Thread {
            name,
            state: State::Runnable,
            waits: 0,
            has_timed_out: false,
            stack: Some(stack),
            weight,
        });
        world.threads.len() - 1
    })
}

/// A step of the thread that runs: it takes some time, and others may come in between.
pub(crate) fn step(cost: Nanos) {
    if !is_there() {
        return;
    }
    let is_preempted = with(|world| {
        world.steps += 1;
        world.now += cost * world.plan.slowness / 4 + 1;
        if world.steps >= STEPS_MAX && !world.is_dead {
            world.broken.push(format!("it goes on without end: {STEPS_MAX} steps"));
            world.is_dead = true;
        }
        world.happen();
        world.is_dead || world.order.below(world.plan.preempted_of_1024.1) < world.plan.preempted_of_1024.0
    });
    // While a panic unwinds, the thread that panics is the only one: std counts panics by the system's thread.
    if is_preempted && !std::thread::panicking() {
        if with(|world| world.has(Fault::Stalls) && world.luck.one_in(3000)) {
            let time = with(|world| {
                world.count("stalled threads");
                let time = world.luck.between(50 * US, 15 * MS);
                let now = world.now;
                world.stood.push((now, time));
                time
            });
            block(Why::Stalled, Some(with(|world| world.now + time)));
        } else {
            suspend();
        }
    }
}

/// Waits until somebody wakes this thread, or until then. Returns true if that time has come.
pub(crate) fn block(why: Why, until: Option<Nanos>) -> bool {
    let me = with(|world| {
        let me = world.current.expect("a thread");
        let thread = &mut world.threads[me];
        thread.state = State::Blocked(why);
        thread.waits += 1;
        thread.has_timed_out = false;
        let waits = thread.waits;
        if let Some(until) = until {
            let late = match () {
                () if why == Why::Stalled => 0,
                () if world.has(Fault::Late) && world.luck.one_in(50) => world.luck.between(0, 4 * MS),
                () => world.luck.between(0, 60 * US),
            };
            let at = until.max(world.now) + late;
            world.later(at, Event::TimeOut(me, waits));
        }
        if matches!(why, Why::Condition(_)) && world.has(Fault::Spurious) && world.luck.one_in(40) {
            let at = world.now + world.luck.between(0, MS);
            world.later(at, Event::WakeUp(me, waits));
        }
        me
    });
    suspend();
    with(|world| world.threads[me].has_timed_out)
}

#[expect(deprecated)] // Its successor must be handed through all that the thread calls.
fn suspend() {
    generator::yield_with(());
}

impl World {
    pub(crate) fn instant(&self) -> Instant {
        *BEGINNING + self.offset + Duration::from_nanos(self.now)
    }

    pub(crate) fn nanos(&self, instant: Instant) -> Nanos {
        let since = instant.saturating_duration_since(*BEGINNING + self.offset);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.plan.has(fault) && !self.is_calm
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    pub(crate) fn me(&self) -> usize {
        self.current.expect("a thread")
    }

    pub(crate) fn later(&mut self, at: Nanos, event: Event) {
        self.event_count += 1;
        self.events.insert((at, self.event_count), event);
    }

    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        if self.trace.is_some() {
            let who = self.current.map_or("", |current| &self.threads[current].name);
            let mut line = format!("{:>13.6} {who:<10} ", self.now as f64 / 1e9);
            let _ = write!(line, "{}", text());
            self.trace.get_or_insert_default().push(line);
        }
    }

    pub(crate) fn break_rule(&mut self, text: String) {
        self.note(|| format!("BROKEN: {text}"));
        self.broken.push(text);
    }

    /// Does what is due.
    fn happen(&mut self) {
        while let Some((&(at, _), _)) = self.events.first_key_value() {
            if at > self.now {
                return;
            }
            let Some((_, event)) = self.events.pop_first() else { return };
            self.apply(event);
        }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::TimeOut(thread, waits) => self.wake_if(thread, waits, true),
            Event::WakeUp(thread, waits) => self.wake_if(thread, waits, false),
            Event::Freeze(time) => self.freeze(time),
            Event::Signal => self.signal(),
            Event::Drought(is_dry) => self.net.is_dry = is_dry,
            Event::Calm => {
                self.note(|| "faults end".to_owned());
                self.is_calm = true;
            }
            Event::Client(client, turn) => self.at_turn(client, turn),
            Event::Read(client) => self.at_read(client),
            other => self.move_packet(other),
        }
    }

    fn freeze(&mut self, time: Nanos) {
        self.count("freezes");
        self.note(|| format!("the process stands for {} ms", time / MS));
        self.stood.push((self.now, time));
        // Packets go on arriving, in their order of time; nothing of the process runs.
        let mut until = self.now + time;
        while let Some((&(at, count), event)) = self.events.first_key_value() {
            if at > until {
                break;
            }
            let event = *event;
            self.events.remove(&(at, count));
            self.now = self.now.max(at);
            match event {
                // It stands already.
                Event::Freeze(time) => {
                    self.stood.push((until, (at + time).saturating_sub(until)));
                    until = until.max(at + time);
                }
                other => self.apply(other),
            }
        }
        self.now = self.now.max(until);
        // As Linux has it: a process that was stopped finds its waits for readiness interrupted.
        let waiting = self.net.pollers.iter_mut().filter_map(|poller| {
            poller.is_interrupted = poller.waiting.is_some();
            poller.waiting.take()
        });
        waiting.collect::<Vec<_>>().into_iter().for_each(|thread| self.wake(thread));
    }

    /// How long of this span everything or one thread stood.
    pub(crate) fn stood_between(&self, from: Nanos, to: Nanos) -> Nanos {
        let overlap = |(at, time): &(Nanos, Nanos)| to.min(at + time).saturating_sub(from.max(*at));
        self.stood.iter().map(overlap).sum()
    }

    fn wake_if(&mut self, number: usize, waits: u64, has_timed_out: bool) {
        let thread = &mut self.threads[number];
        if thread.waits == waits && matches!(thread.state, State::Blocked(_)) {
            thread.state = State::Runnable;
            thread.has_timed_out = has_timed_out;
        }
    }

    pub(crate) fn wake(&mut self, number: usize) {
        let waits = self.threads[number].waits;
        self.wake_if(number, waits, false);
    }

    pub(crate) fn wake_all(&mut self, why: Why) {
        for thread in &mut self.threads {
            if thread.state == State::Blocked(why) {
                thread.state = State::Runnable;
            }
        }
    }

    /// Wakes one of those that wait, whichever.
    pub(crate) fn wake_one(&mut self, why: Why) {
        let waiting = self.threads.iter().filter(|thread| thread.state == State::Blocked(why)).count();
        if waiting == 0 {
            return;
        }
        let nth = self.order.index(waiting);
        if let Some(thread) = self.threads.iter_mut().filter(|thread| thread.state == State::Blocked(why)).nth(nth) {
            thread.state = State::Runnable;
        }
    }

    pub(crate) fn is_any(&self, why: Why) -> bool {
        self.threads.iter().any(|thread| thread.state == State::Blocked(why))
    }

    pub(crate) fn is_over(&self, number: usize) -> bool {
        self.threads[number].state == State::Over
    }

    pub(crate) fn is_waiting(&self, number: usize) -> bool {
        matches!(self.threads[number].state, State::Blocked(_))
    }

    /// Who runs next. `None`: all is over, or nothing can happen any more.
    fn choose(&mut self) -> Option<(usize, Stack)> {
        loop {
            if self.is_dead {
                return None;
            }
            self.happen();
            let runnable = |thread: &&Thread| thread.state == State::Runnable;
            let total: u64 = self.threads.iter().filter(runnable).map(|thread| thread.weight).sum();
            if total > 0 {
                let mut at = self.order.below(total);
                for (number, thread) in self.threads.iter_mut().enumerate() {
                    if thread.state != State::Runnable {
                        continue;
                    }
                    if at < thread.weight {
                        self.current = Some(number);
                        return Some((number, thread.stack.take()?));
                    }
                    at -= thread.weight;
                }
            }
            let (&(at, _), _) = self.events.first_key_value()?;
            if at > self.now + FAR {
                return None;
            }
            self.look_at_rest();
            self.now = self.now.max(at);
        }
    }

    /// Who is not over, and what each waits for.
    pub(crate) fn stuck(&self) -> Vec<String> {
        let left = self.threads.iter().filter(|thread| thread.state != State::Over);
        left.map(|thread| format!("{} is {:?}", thread.name, thread.state)).collect()
    }
}
