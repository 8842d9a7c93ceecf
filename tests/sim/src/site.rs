//! What runs in a world: the group with a server, jobs and signals in it, as an embedder has them; and what must hold.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::time::Duration;

use crate::client::{Loss, pattern};
use crate::group::{CutOff, Exit, Group, MemberResult, Outcome};
use crate::http::{Request, Response};
use crate::net::Kind;
use crate::plan::{Ending, Fault, Plan};
use crate::router::Router;
use crate::server::{Config, Inherited, Notice, Server};
use crate::stop::{Cause, Stop};
use crate::sync;
use crate::world::{self, Event, MS, Nanos, SEC, Why, World, with};

/// How long after the deadline a group may take.
const LATE_MAX: Nanos = 100 * MS;
/// How much longer once, if the whole process stood.
const THAW: Nanos = 2 * SEC;
const SIGNALS: Why = Why::Condition(1);

/// What is noted on the way.
#[derive(Default)]
pub(crate) struct Diary {
    pub(crate) requests: u64,
    pub(crate) answered: u64,
    /// Of clients that do not wait for their answers.
    pub(crate) gone: u64,
    pub(crate) losses: Vec<Loss>,
    /// Something has gone wrong or the stop has come: a client may be refused.
    pub(crate) is_stopping: bool,
    pub(crate) told_at: Option<Nanos>,
    deadline: Option<Nanos>,
    ended_at: Option<Nanos>,
    report: Option<Report>,
    pub(crate) has_poller_failed: bool,
    pub(crate) was_forced: bool,
    signalled_at: Option<Nanos>,
    is_over: bool,
    handlers: usize,
    /// Of these, and of streams that have been written and are still being sent.
    pub(crate) permits_used: usize,
    /// When there was no other permit.
    pub(crate) full_at: Nanos,
    /// The thread of a member, or one of the simulation's own, ends slowly.
    pub(crate) has_slow_member: bool,
    /// Closures that block the loop that they run on.
    pub(crate) blocked_loops: usize,
    has_blocked_loop: bool,
    handlers_at_end: usize,
    /// When handlers have ended.
    ends: Vec<Nanos>,
    was_dry_at_deadline: bool,
    calls: BTreeMap<u64, u64>,
    /// Closures that were to be called once, and how often they were.
    closures: BTreeMap<u64, (u64, u64)>,
}

impl Diary {
    pub(crate) fn was_called(&self, id: u64) -> bool {
        self.calls.contains_key(&id)
    }
}

struct Report {
    code: u8,
    cause: String,
    exits: Vec<(String, Exit)>,
    /// As the server counted.
    cut_off: usize,
    /// How many handlers it names that run still.
    named: usize,
    /// It did not find out about a loop.
    is_loop_missing: bool,
}

fn ns(time: Nanos) -> Duration {
    Duration::from_nanos(time)
}

/// The first thread of a world.
pub(crate) fn main() {
    let plan = with(|world| world.plan.clone());
    let numbers = plan.listeners.iter().map(|kind| with(|world| world.listen(*kind)));
    let (shared, numbers): (Vec<_>, Vec<_>) = numbers.partition(|number| plan.listeners[*number] == Kind::Shared);
    let mut group = Group::new();
    group.lame_duck(ns(plan.lame_duck));
    let stop = group.stop();
    begin_signals();
    let signals = crate::signals::install_with(&stop, || {
        with(|world| {
            world.note(|| "a second signal ends the process".to_owned());
            (world.diary.was_forced, world.is_dead) = (true, true);
        });
        // The thread that waits for signals never comes back from here.
        world::block(Why::Asleep, None);
    })
    .expect("signals can be had");
    let addresses: Vec<String> = numbers.iter().map(|number| format!("sim:{number}")).collect();
    let server = Server::bind(addresses, config(&plan)).expect("bound");
    let server = server.and_listeners(shared.into_iter().map(Inherited::Simulated)).expect("taken over");
    let has_panics = plan.has(Fault::Panics);
    let server = server.on_notice(move |notice| on_notice(notice, has_panics)).on_listening(|_| {
        with(|world| {
            if !std::mem::replace(&mut world.net.is_serving, true) {
                world.note(|| "serves".to_owned());
                world.send_clients();
            }
        });
    });
    let router = routes(&stop);
    let serve = move |stop: &Stop| {
        let served = server.run(router, stop);
        with(|world| world.diary.is_stopping = true);
        served
    };
    if plan.is_nested {
        let mut inner = Group::new();
        inner.add("http", serve);
        group.add_group("inner", inner);
    } else {
        group.add("http", serve);
    }
    group.add("signals", move |stop| signals.run(stop));
    group.add("job", job);
    if has_panics {
        stop.on_stop(|| panic!("a waker"));
        stop.on_cause(|_| panic!("another waker"));
    }
    let noted = stop.clone();
    stop.wake_on_cause(move |_| with(|world| world.diary.is_stopping = true));
    stop.wake_on_stop(move || {
        let _ = &noted;
        with(|world| {
            let now = world.now;
            world.note(|| "members are told to stop".to_owned());
            world.diary.told_at = Some(now);
        });
    });
    begin_ending(&plan, &stop);
    let outcome = group.run(ns(plan.grace));
    let ended = with(|world| world.now);
    note_end(&stop, &outcome, ended);
    // A part of `main`'s own end: what the process holds goes with it.
    with(|world| {
        world.diary.is_over = true;
        world.wake_all(SIGNALS);
    });
}

fn config(plan: &Plan) -> Config {
    Config {
        handlers_max: plan.handlers_max,
        connections_max: plan.connections_max,
        head_timeout: ns(plan.head_timeout),
        body_timeout: ns(plan.body_timeout),
        idle_timeout: ns(plan.idle_timeout),
        queue_timeout: ns(plan.queue_timeout),
        write_timeout: ns(plan.write_timeout),
        idle_grace: ns(plan.idle_grace),
        ..Config::default()
    }
}

fn on_notice(notice: &Notice<'_>, has_panics: bool) {
    with(|world| {
        world.note(|| format!("notice: {notice}"));
        if matches!(notice, Notice::HandlerPanicked { .. }) {
            world.count("panics told");
        }
    });
    if has_panics && with(|world| world.luck.one_in(4)) {
        panic!("a listener to notices");
    }
}

// ---- Causes of a stop ----------------------------------------------------------------------------------------------

/// The thread that waits for signals.
fn begin_signals() {
    world::spawn("signals".to_owned(), || {
        loop {
            let (is_one, is_over) = with(|world| {
                let is_one = world.signals_to_come > 0;
                world.signals_to_come -= u64::from(is_one);
                (is_one, world.diary.is_over)
            });
            match () {
                () if is_over => return,
                () if is_one => ctrlc::raise(),
                () => _ = world::block(SIGNALS, None),
            }
        }
    });
}

fn begin_ending(plan: &Plan, stop: &Stop) {
    let (at, second) = (plan.stop_at, plan.has(Fault::Second));
    with(|world| {
        let now = world.now;
        if plan.ending == Ending::Signal {
            world.later(now + at, Event::Signal);
            // A repeat that counts as the same.
            world.later(now + at + 100 * MS, Event::Signal);
        }
        if second {
            world.later(now + at + 700 * MS, Event::Signal);
            world.later(now + at + 1300 * MS, Event::Signal);
        }
    });
    match plan.ending {
        Ending::Trigger | Ending::Request => {
            // A client's request to stop may be refused, or not come at all.
            let (stop, late) = (stop.clone(), if plan.ending == Ending::Request { 2 * SEC } else { 0 });
            world::spawn("trigger".to_owned(), move || {
                sync::sleep(ns(at + late));
                stop.trigger(Cause::Request("the simulation".to_owned()));
            });
        }
        Ending::Listener => {
            let stop = stop.clone();
            world::spawn("breaker".to_owned(), move || {
                sync::sleep(ns(at));
                with(|world| {
                    world.note(|| "a listener breaks".to_owned());
                    world.diary.is_stopping = true;
                    world.break_listener(0);
                });
                // Perhaps nobody looks at it any more.
                sync::sleep(ns(3 * SEC));
                stop.trigger(Cause::Request("the simulation".to_owned()));
            });
        }
        Ending::Signal | Ending::JobIsDone | Ending::JobFails | Ending::JobPanics => {}
    }
}

fn job(stop: &Stop) -> MemberResult {
    let plan = with(|world| world.plan.clone());
    let is_ending = matches!(plan.ending, Ending::JobIsDone | Ending::JobFails | Ending::JobPanics);
    if !is_ending {
        stop.wait();
        if plan.has(Fault::Stuck) && with(|world| world.luck.one_in(3)) {
            with(|world| world.count("stuck members"));
            sync::sleep(ns(plan.grace + 2 * SEC));
        }
        return Ok(());
    }
    if stop.wait_timeout(ns(plan.stop_at)) {
        return Ok(());
    }
    match plan.ending {
        Ending::JobFails => Err("it fails".into()),
        Ending::JobPanics => panic!("it panics"),
        _ => Ok(()),
    }
}

// ---- Handlers ------------------------------------------------------------------------------------------------------

/// A permit is in use: from before a handler begins until its answer has left, if that is streamed.
struct Permit;

impl Permit {
    fn new() -> Self {
        with(|world| world.diary.permits_used += 1);
        Self
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        with(|world| {
            if world.diary.permits_used >= world.plan.permits() {
                world.diary.full_at = world.now;
            }
            world.diary.permits_used -= 1;
        });
    }
}

/// A handler at work, or the closure that writes its body.
struct AtWork;

impl AtWork {
    fn new() -> Self {
        with(|world| {
            world.diary.handlers += 1;
            let max = world.plan.permits();
            if world.diary.handlers > max {
                world.break_rule(format!("more than {max} handlers run at once"));
            }
        });
        Self
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        with(|world| {
            world.diary.handlers -= 1;
            world.diary.ends.push(world.now);
        });
    }
}

fn at_work() -> (Permit, AtWork) {
    (Permit::new(), AtWork::new())
}

fn number(request: &Request<'_>, name: &str) -> u64 {
    request.param(name).and_then(|text| text.parse().ok()).expect("a number")
}

fn called(request: &Request<'_>) -> u64 {
    let id = called_at_once(request);
    if with(|world| world.has(Fault::Stuck) && world.luck.one_in(60)) {
        with(|world| world.count("stuck handlers"));
        sync::sleep(ns(with(|world| world.luck.between(0, 6 * SEC))));
    }
    id
}

fn called_at_once(request: &Request<'_>) -> u64 {
    let id = number(request, "id");
    with(|world| {
        let calls = world.diary.calls.entry(id).or_default();
        *calls += 1;
        if *calls > 1 {
            world.break_rule(format!("the handler of {id} is called again"));
        }
        world.note(|| format!("handler of {} {}", request.method(), request.raw_path()));
    });
    id
}

fn routes(stop: &Stop) -> Router {
    let stop = stop.clone();
    Router::new()
        .get("/ping/{id}", |request| {
            let _at_work = at_work();
            Response::text(format!("pong {}\n", called(request)))
        })
        .get("/bytes/{n}/{id}", |request| {
            let _at_work = at_work();
            Response::bytes("text/plain", pattern(called(request), number(request, "n") as usize))
        })
        .get("/sleep/{us}/{id}", |request| {
            let _at_work = at_work();
            let id = called(request);
            sync::sleep(Duration::from_micros(number(request, "us")));
            Response::text(format!("slept {id}\n"))
        })
        .get("/stream/{n}/{id}", |request| streamed(request, false))
        .get("/sized/{n}/{id}", |request| {
            let length = number(request, "n");
            streamed(request, false).with_length(length)
        })
        .get("/torn/{n}/{id}", |request| streamed(request, true))
        .get("/panic/{id}", |request| -> Response {
            let _at_work = at_work();
            panic!("handler of {}", called(request))
        })
        .post("/echo/{id}", |request| {
            let _at_work = at_work();
            called(request);
            Response::bytes("text/plain", request.body().to_vec())
        })
        .stream(crate::http::Method::Post, "/up/{id}", |request, body| {
            let _at_work = at_work();
            let id = called(request);
            let (mut count, mut buffer) = (0, [0; 5000]);
            loop {
                match body.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(more) => {
                        let wanted = pattern(id, count + more).split_off(count);
                        if wanted != buffer[..more] {
                            with(|world| world.break_rule(format!("the handler of {id} reads a wrong body")));
                        }
                        count += more;
                    }
                    Err(_) => break,
                }
                maybe_sleep();
            }
            Response::text(format!("{count} {id}\n"))
        })
        .stream(crate::http::Method::Post, "/part/{id}", |request, body| {
            let _at_work = at_work();
            let id = called(request);
            let _ = body.read(&mut [0; 100]);
            Response::text(format!("part {id}\n"))
        })
        .get("/closing/{id}", |request| {
            let _at_work = at_work();
            Response::text(format!("closing {}\n", called(request))).closing()
        })
        .get("/after/{id}", |request| {
            let _at_work = at_work();
            let id = called(request);
            with(|world| world.diary.closures.entry(id).or_default().0 += 1);
            let panics = with(|world| world.has(Fault::Panics) && world.luck.one_in(2));
            Response::text(format!("after {id}\n"))
                .on_sent(move || {
                    with(|world| world.diary.closures.entry(id).or_default().1 += 1);
                    maybe_block();
                    if panics {
                        panic!("a closure after an answer");
                    }
                })
                .on_sent(move || {
                    if panics {
                        panic!("another closure after an answer");
                    }
                })
        })
        .at_once(crate::http::Method::Get, "/livez/{id}", |request| {
            // Which needs no permit.
            Response::text(format!("live {}\n", called_at_once(request)))
        })
        .get("/shutdown/{id}", move |request| {
            let _at_work = at_work();
            let id = called(request);
            let stop = stop.clone();
            Response::text(format!("stopping {id}\n")).on_sent(move || {
                stop.trigger(Cause::Request("/shutdown".to_owned()));
            })
        })
}

/// A closure that runs on a loop, and should not block, does.
fn maybe_block() {
    if with(|world| world.has(Fault::Stuck) && world.luck.one_in(10)) {
        let time = with(|world| {
            world.count("blocked loops");
            let time = world.luck.between(0, 6 * SEC);
            let now = world.now;
            world.stood.push((now, time));
            world.diary.blocked_loops += 1;
            world.diary.has_blocked_loop = true;
            time
        });
        sync::sleep(ns(time));
        with(|world| world.diary.blocked_loops -= 1);
    }
}

fn maybe_sleep() {
    if with(|world| world.order.one_in(20)) {
        let time = with(|world| {
            let max = world.plan.sleep_max;
            world.order.below(max)
        });
        sync::sleep(ns(time / 4));
    }
}

/// Panics when it is dropped.
struct Grenade(bool);

impl Drop for Grenade {
    fn drop(&mut self) {
        if self.0 && !std::thread::panicking() {
            panic!("a destructor");
        }
    }
}

fn streamed(request: &Request<'_>, is_torn: bool) -> Response {
    let permit = Permit::new();
    let at_work = AtWork::new();
    let (id, count) = (called(request), number(request, "n") as usize);
    let grenade = Grenade(with(|world| is_torn && world.luck.one_in(3)));
    drop(at_work);
    let streamed = Response::stream("text/plain", move |out| {
        let _at_work = AtWork::new();
        let _grenade = grenade;
        let bytes = pattern(id, count);
        for (nth, piece) in bytes.chunks(1 + count / 3).enumerate() {
            if is_torn && nth == 2 {
                panic!("the writer of {id}");
            }
            // Not after the last piece: who has the whole of a body whose length it knows may ask on at once.
            maybe_sleep();
            out.write_all(piece)?;
            if with(|world| world.order.one_in(3)) {
                out.flush()?;
            }
        }
        if is_torn { Err(std::io::Error::other("torn")) } else { Ok(()) }
    });
    streamed.on_sent(move || drop(permit))
}

// ---- The end -------------------------------------------------------------------------------------------------------

fn note_end(stop: &Stop, outcome: &Outcome, ended: Nanos) {
    let exits: Vec<(String, Exit)> = outcome.exits().map(|(name, exit, _)| (name.to_owned(), exit.clone())).collect();
    let (mut cut_off, mut named, mut is_loop_missing) = (0, 0, false);
    for (_, exit) in &exits {
        match exit {
            Exit::CutOff(CutOff { owed, details }) => {
                cut_off += owed;
                named += details.iter().filter(|detail| detail.contains("its handler running")).count();
                is_loop_missing |= details.iter().any(|detail| detail.contains("did not end in time"));
            }
            Exit::Failed(text) => cut_off += counted(text),
            _ => {}
        }
    }
    let cause = outcome.cause().map(ToString::to_string).unwrap_or_default();
    let report = Report { code: outcome.exit_code(), cause, exits, cut_off, named, is_loop_missing };
    let deadline = stop.deadline();
    with(|world| {
        world.note(|| format!("the group ends: code {}, {}, {:?}", report.code, report.cause, report.exits));
        let deadline = deadline.map(|deadline| world.nanos(deadline));
        world.diary.deadline = deadline;
        world.diary.ended_at = Some(ended);
        world.diary.handlers_at_end = world.diary.handlers;
        world.diary.report = Some(report);
    });
}

/// `…; cut off 3 owed at the deadline…`
fn counted(text: &str) -> usize {
    let number = text.split("cut off ").nth(1).and_then(|rest| rest.split(' ').next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

impl World {
    /// What is to come whatever happens.
    pub(crate) fn prepare(&mut self) {
        let end = self.plan.stop_at + self.plan.grace + SEC;
        if self.has(Fault::Freezes) {
            for _ in 0..self.luck.between(1, 3) {
                let at = match self.luck.below(3) {
                    0 => self.plan.stop_at.saturating_sub(MS) + self.luck.below(3 * MS),
                    1 => self.plan.stop_at + self.luck.below(self.plan.grace + 50 * MS),
                    _ => self.luck.below(end),
                };
                let time = self.luck.pick(&[20 * MS, 300 * MS, 2 * SEC, 7 * SEC]);
                self.later(at, Event::Freeze(time));
            }
        }
        if self.has(Fault::Drought) {
            let from = self.luck.below(end);
            let time = self.luck.between(10 * MS, 2 * SEC);
            self.later(from, Event::Drought(true));
            self.later(from + time, Event::Drought(false));
        }
        if let Some(calm_at) = self.plan.calm_at {
            self.later(calm_at, Event::Calm);
        }
    }

    pub(crate) fn signal(&mut self) {
        if !self.diary.is_over && self.diary.report.is_none() {
            self.signals_to_come += 1;
            let now = self.now;
            self.diary.signalled_at.get_or_insert(now);
            self.diary.is_stopping = true;
            self.note(|| "a signal".to_owned());
            self.wake_all(SIGNALS);
        }
    }

    /// What must hold when all is over.
    pub(crate) fn look_back(&mut self) {
        if self.is_dead {
            return self.look_at_force();
        }
        let stuck = self.stuck();
        if !stuck.is_empty() {
            self.break_rule(format!("nothing can happen any more: {}", stuck.join(", ")));
            return;
        }
        if self.diary.report.is_none() {
            self.break_rule("the group did not end".to_owned());
            return;
        }
        self.look_at_time();
        self.look_at_losses();
        self.look_at_report();
        let waiting = self.waiting_clients();
        if !waiting.is_empty() {
            self.break_rule(format!("clients wait for ever: {}", waiting.join(", ")));
        }
        if self.net.descriptors > 0 || self.net.listeners.iter().any(|listener| listener.is_open) {
            let text = format!("{} descriptors are open at the end, and listeners perhaps", self.net.descriptors);
            self.break_rule(text);
        }
        let wrong: Vec<_> = self.diary.closures.iter().filter(|(_, (due, called))| due != called).collect();
        if !wrong.is_empty() {
            let text = format!("closures after answers (due, called): {wrong:?}");
            self.break_rule(text);
        }
    }

    fn look_at_force(&mut self) {
        if self.diary.was_forced && !(self.plan.has(Fault::Second) || self.plan.has(Fault::Freezes)) {
            self.break_rule("the process was ended by force without a second signal".to_owned());
        }
    }

    fn look_at_time(&mut self) {
        let (Some(deadline), Some(ended)) = (self.diary.deadline, self.diary.ended_at) else { return };
        let stood = self.stood_between(deadline.saturating_sub(self.plan.grace), ended);
        let has_frozen = self.stood.iter().any(|(_, time)| *time > 15 * MS);
        let allowed = LATE_MAX + stood + if has_frozen { THAW } else { 0 };
        if ended > deadline + allowed && !self.plan.may_join() {
            let late = (ended - deadline) as f64 / 1e6;
            self.break_rule(format!("the group ends {late} ms after its deadline"));
        }
    }

    fn look_at_losses(&mut self) {
        let losses = std::mem::take(&mut self.diary.losses);
        let Some(report) = &self.diary.report else { return };
        let has_died = self.diary.has_poller_failed || self.plan.has(Fault::Threads);
        let deadline = self.diary.deadline.unwrap_or(Nanos::MAX);
        let was_frozen = self.stood_between(deadline, deadline + 10 * SEC) > 0;
        let is_missing = report.exits.iter().any(|(name, exit)| name.ends_with("http") && *exit == Exit::Missing);
        let is_unknown = report.exits.iter().any(|(_, exit)| match exit {
            Exit::CutOff(cut_off) => {
                let is_vague = |detail: &String| {
                    detail.contains("whoever else") || detail.contains("whatever else") || detail.contains("unknown")
                };
                cut_off.details.iter().any(is_vague)
            }
            _ => false,
        });
        let cut_off = report.cut_off;
        let mut at_the_deadline = 0;
        let mut texts = Vec::new();
        for loss in losses {
            let listener = &self.net.listeners[loss.listener];
            match () {
                // A broken listener cannot be emptied.
                () if !loss.is_accepted && listener.is_dead => {}
                // At the deadline, what has been written is cut off all the same, and not counted.
                () if loss.is_written && loss.at + MS / 10 >= deadline => {}
                () if has_died || loss.at + MS / 10 >= deadline => at_the_deadline += 1,
                () => texts.push(format!("LOST: {}", loss.text)),
            }
        }
        let is_uncountable = is_missing && was_frozen || is_unknown || has_died;
        if at_the_deadline > cut_off && !is_uncountable {
            texts.push(format!("{at_the_deadline} were cut off at the deadline, and {cut_off} were counted"));
        }
        let gone = (self.diary.gone + self.unwanted()) as usize;
        if cut_off > at_the_deadline + gone + self.tally.get("503").map_or(0, |count| *count as usize) && !has_died {
            let crossed = self.tally.get("requests that crossed a close").map_or(0, |count| *count as usize);
            let plan_is_patient = self.plan.write_timeout >= 30 * SEC;
            // A handler may still run although its client has all; or its thread has yet to tell the loop of its end.
            let just_ended = self.diary.ends.iter().filter(|at| (deadline..).contains(&(**at + MS))).count();
            let at_most = at_the_deadline + gone + crossed + self.diary.handlers_at_end + just_ended;
            if cut_off > at_most && !is_unknown && plan_is_patient {
                texts.push(format!("{cut_off} were counted as cut off, and {at_the_deadline} were, {gone} at most"));
            }
        }
        let told = self.diary.told_at.unwrap_or(0);
        let until = told + (4 * self.plan.idle_grace).min(self.plan.grace / 2);
        for (number, listener) in self.net.listeners.iter().enumerate() {
            let is_early = |(at, _): &&(Nanos, usize)| {
                listener.kind == Kind::Filtered && *at + MS < until && !listener.is_dead && !has_died
            };
            if let Some((at, connection)) = listener.reset_handshakes.iter().find(is_early) {
                texts.push(format!(
                    "listener {number} closed at {:.6} with the handshake of connection {connection} under way",
                    *at as f64 / 1e9
                ));
            }
        }
        *self.tally.entry("cut off").or_default() += cut_off as u64;
        texts.into_iter().for_each(|text| self.break_rule(text));
    }

    /// The process, or one thread, stood at the end.
    fn has_stood(&self) -> bool {
        let deadline = self.diary.deadline.unwrap_or(0);
        self.stood_between(deadline, deadline + SEC) > 0
    }

    fn look_at_report(&mut self) {
        let Some(report) = &self.diary.report else { return };
        let plan = &self.plan;
        let mut texts = Vec::new();
        let has = |wanted: fn(&Exit) -> bool| report.exits.iter().any(|(_, exit)| wanted(exit));
        let has_failed = has(|exit| matches!(exit, Exit::Failed(_) | Exit::NotStarted));
        let has_panicked = has(|exit| matches!(exit, Exit::Panicked(_)));
        let is_incomplete = has(|exit| matches!(exit, Exit::CutOff(_) | Exit::Missing));
        let may = |code: u8| match code {
            0 => !has_failed && !has_panicked && !is_incomplete,
            1 => has_failed || report.cause.contains("failed"),
            101 => has_panicked,
            124 => !has_failed && !has_panicked && is_incomplete,
            _ => false,
        };
        if !may(report.code) {
            texts.push(format!("code {} for {}, {:?}", report.code, report.cause, report.exits));
        }
        if report.code == 0 && self.diary.handlers_at_end > 0 {
            texts.push(format!("code 0, and {} handlers still run", self.diary.handlers_at_end));
        }
        let is_expected = |exit: &Exit| match exit {
            Exit::Failed(text) => plan.ending == Ending::JobFails && text == "it fails",
            Exit::Panicked(text) => plan.ending == Ending::JobPanics && text == "it panics",
            Exit::NotStarted => plan.has(Fault::Threads),
            Exit::Missing => plan.has(Fault::Stuck) || plan.has(Fault::Freezes) || plan.has(Fault::SlowEnds),
            Exit::Done | Exit::CutOff(_) => true,
        };
        for (name, exit) in &report.exits {
            let is_server = name.ends_with("http");
            let may_fail = is_server && (self.diary.has_poller_failed || plan.has(Fault::Threads));
            let is_allowed = is_expected(exit) || may_fail && matches!(exit, Exit::Failed(_));
            if !is_allowed {
                texts.push(format!("{name}: {exit}"));
            }
            let may_be_late = plan.has(Fault::Freezes) || self.diary.has_slow_member || plan.may_join();
            if is_server && *exit == Exit::Missing && !may_be_late {
                texts.push(format!("the server did not leave in time: {exit}"));
            }
        }
        let is_well = !plan.has(Fault::Threads) && !self.diary.has_poller_failed;
        let may_be_late = self.has_stood() || self.diary.has_slow_member || self.diary.has_blocked_loop;
        // A freeze between a look at the time and the wait until the deadline makes that wait longer.
        let told = self.diary.told_at.unwrap_or(0);
        let may_oversleep = self.plan.has(Fault::Freezes) && self.stood_between(told, Nanos::MAX) > 0;
        if is_well && !may_be_late && !may_oversleep && report.is_loop_missing {
            texts.push(format!("a loop did not end in time: {:?}", report.exits));
        }
        let running = self.diary.handlers_at_end;
        if is_well && !may_be_late && running > report.named {
            texts.push(format!("{running} handlers still run: {:?}", report.exits));
        }
        texts.into_iter().for_each(|text| self.break_rule(text));
    }
}
