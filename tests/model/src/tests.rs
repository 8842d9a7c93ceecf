//! The rules, each under as many schedules as `MODEL_SCHEDULES` says: half chosen at random, half by PCT, which bounds
//! the number of preemptions and so finds rare ones sooner.

use std::sync::atomic::Ordering;
use std::time::Duration;

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};

use crate::group::{Exit, Group};
use crate::helpers::Helpers;
use crate::http::Peer;
use crate::server::event_loop::EventLoop;
use crate::server::handoff::{Permits, supervise};
use crate::server::inbox::{Arrival, Inbox, Message};
use crate::server::poller::Waker;
use crate::server::shared::{self, LoopHandle, Shared, Totals};
use crate::server::stream::Stream;
use crate::stop::{Cause, Stop};
use crate::sync::{Arc, AtomicUsize, Mutex};

const FAR: Duration = Duration::from_secs(100_000);

fn explore(model: impl Fn() + Send + Sync + 'static) {
    let schedules = std::env::var("MODEL_SCHEDULES").ok().and_then(|count| count.parse().ok()).unwrap_or(20_000);
    let model = std::sync::Arc::new(model);
    for is_random in [true, false] {
        let mut config = Config::new();
        config.stack_size = 256 * 1024;
        let model = std::sync::Arc::clone(&model);
        let run = move || model();
        if is_random {
            Runner::new(RandomScheduler::new(schedules / 2), config).run(run);
        } else {
            Runner::new(PctScheduler::new(3, schedules / 2), config).run(run);
        }
    }
    println!("{schedules} schedules");
}

/// `requests` over two loops with at most `threads` handlers at once; `early` of them come before the stop is
/// triggered, the others race with it.
fn serve(threads: usize, requests: usize, early: usize) {
    let loops = 2;
    let wakers: Vec<Waker> = (0..loops).map(|_| Waker::new()).collect();
    let mut group = Group::new();
    let shared = Arc::new(Shared {
        config: shared::Config { stack_bytes: None },
        stop: group.stop(),
        loops: wakers
            .iter()
            .map(|waker| LoopHandle { inbox: Inbox::new(waker.clone()), counted: Mutex::new(Default::default()) })
            .collect(),
        permits: Permits::new(loops, threads),
        totals: Totals,
        looks: AtomicUsize::new(0),
        handlers_max: threads,
        handlers: AtomicUsize::new(0),
        asked: (0..2 * requests).map(|_| Default::default()).collect(),
        answered: (0..2 * requests).map(|_| Default::default()).collect(),
        broken: Default::default(),
    });
    let server = Arc::clone(&shared);
    // A stop before the start keeps the server out altogether, which is another matter.
    let started = Waker::new();
    let has_started = started.clone();
    group.add("server", move |_| {
        has_started.wake();
        let new = |(index, waker)| EventLoop::new(Arc::clone(&server), index, waker);
        supervise(wakers.into_iter().enumerate().map(new).collect(), &server)
    });
    let clients = Arc::clone(&shared);
    let clients = shuttle::thread::spawn(move || {
        started.wait();
        let send = |id: usize| {
            let arrival = Arrival { stream: Stream(id), peer: Peer, listener: 0, is_sent: false, refusals: 0 };
            // Two of three come by the first loop, so that one is busier than the other.
            clients.loops[usize::from(id % 3 == 2)].inbox.push(Message::Arrival(arrival)).is_ok()
        };
        let mut sent: Vec<bool> = (0..early).map(send).collect();
        assert!(!sent.contains(&false), "refused before the stop");
        let stop = clients.stop.clone();
        let stopper = shuttle::thread::spawn(move || stop.trigger(Cause::Signal));
        sent.extend((early..requests).map(send));
        assert!(stopper.join().unwrap());
        sent
    });
    let outcome = group.run(FAR);
    let sent = clients.join().unwrap();
    assert_eq!(*shared.broken.lock().unwrap(), None);
    assert_eq!(outcome.exit_code(), 0, "{outcome:?}");
    sent.into_iter().enumerate().filter(|(_, was_sent)| *was_sent).for_each(|(id, _)| shared.ask(id));
    for (id, (asked, answered)) in shared.asked.iter().zip(&shared.answered).enumerate() {
        let (asked, answered) = (asked.load(Ordering::SeqCst), answered.load(Ordering::SeqCst));
        assert_eq!(answered, usize::from(asked), "answers to request {id}");
    }
}

#[test]
fn each_request_is_answered_once_and_the_stop_is_not_missed() {
    explore(|| serve(8, 4, 4));
}

#[test]
fn the_same_when_requests_race_with_the_stop() {
    explore(|| serve(8, 4, 1));
}

#[test]
fn the_same_when_handlers_must_wait_for_each_other() {
    explore(|| serve(2, 7, 7));
}

#[test]
fn the_same_when_they_wait_and_race_with_the_stop() {
    explore(|| serve(3, 6, 2));
}

#[test]
fn the_first_of_many_triggers_wins_and_everybody_is_told() {
    explore(|| {
        let mut group = Group::new();
        let stop = group.stop();
        let heard = Arc::new(AtomicUsize::new(0));
        for name in ["one", "two"] {
            group.add(name, |stop: &Stop| {
                stop.wait();
                Ok(())
            });
        }
        let triggers: Vec<_> = (0..3)
            .map(|number| {
                let (stop, heard) = (stop.clone(), Arc::clone(&heard));
                shuttle::thread::spawn(move || {
                    let counted = Arc::clone(&heard);
                    stop.on_stop(move || _ = counted.fetch_add(1, Ordering::SeqCst));
                    stop.trigger(Cause::Request(number.to_string()))
                })
            })
            .collect();
        let outcome = group.run(FAR);
        let won: Vec<bool> = triggers.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(won.iter().filter(|won| **won).count(), 1);
        let first = won.iter().position(|won| *won).unwrap();
        assert_eq!(outcome.cause(), Some(&Cause::Request(first.to_string())));
        assert_eq!(heard.load(Ordering::SeqCst), 3, "each waker is called once");
    });
}

#[test]
fn a_group_inside_a_group_goes_down_with_it_and_takes_it_down() {
    explore(|| {
        let mut inner = Group::new();
        inner.add("job", |_: &Stop| Ok(()));
        let mut outer = Group::new();
        outer.add("waiter", |stop: &Stop| {
            stop.wait();
            Ok(())
        });
        outer.add_group("inner", inner);
        let stop = outer.stop();
        let other = shuttle::thread::spawn(move || stop.trigger(Cause::Signal));
        let outcome = outer.run(FAR);
        let was_first = other.join().unwrap();
        let cause = if was_first { Cause::Signal } else { Cause::Done("inner/job".to_owned()) };
        assert_eq!((outcome.cause(), outcome.exit_code()), (Some(&cause), 0));
    });
}

/// Calls that wait for one that is put behind them, and others that do not, from two threads.
#[test]
fn helpers_make_every_call_once_although_some_wait_for_others() {
    explore(|| {
        let (helpers, calls, last) = (Helpers::new(), Arc::new(AtomicUsize::new(0)), Waker::new());
        let put = |helpers: &Helpers, calls: &Arc<AtomicUsize>, waits: Option<Waker>| {
            let calls = Arc::clone(calls);
            helpers.put(move || {
                waits.iter().for_each(Waker::wait);
                calls.fetch_add(1, Ordering::SeqCst);
            });
        };
        let (other, others, others_last) = (helpers.clone(), Arc::clone(&calls), last.clone());
        let other = shuttle::thread::spawn(move || {
            put(&other, &others, None);
            put(&other, &others, Some(others_last));
            other.begin();
        });
        put(&helpers, &calls, None);
        helpers.begin();
        let ends = Arc::clone(&calls);
        helpers.put(move || {
            ends.fetch_add(1, Ordering::SeqCst);
            last.wake();
        });
        helpers.begin();
        other.join().unwrap();
        assert!(helpers.wait(|now| now + FAR));
        assert_eq!(calls.load(Ordering::SeqCst), 4);
        helpers.join();
    });
}

/// A group inside a group, with wakers of both or of the inner one alone: then none of the outer one's is waited for,
/// while the triggering thread may not have told the inner one yet.
fn say_all(is_inner_alone: bool) {
    explore(move || {
        let (mut outer, mut inner, heard) = (Group::new(), Group::new(), Arc::new(AtomicUsize::new(0)));
        inner.add("job", |_: &Stop| Ok(()));
        let stops = if is_inner_alone { vec![inner.stop()] } else { vec![outer.stop(), inner.stop()] };
        let calls = 2 * stops.len();
        for stop in stops {
            let (on_cause, on_stop) = (Arc::clone(&heard), Arc::clone(&heard));
            stop.on_cause(move |_| _ = on_cause.fetch_add(1, Ordering::SeqCst));
            stop.on_stop(move || _ = on_stop.fetch_add(1, Ordering::SeqCst));
        }
        outer.add_group("inner", inner);
        let stop = outer.stop();
        let other = shuttle::thread::spawn(move || stop.trigger(Cause::Signal));
        let outcome = outer.run(FAR);
        assert_eq!(heard.load(Ordering::SeqCst), calls);
        assert_eq!(outcome.exits().map(|(_, exit, _)| exit).collect::<Vec<_>>(), [&Exit::Done]);
        other.join().unwrap();
    });
}

#[test]
fn a_group_says_all_it_has_to_say_before_its_run_is_over() {
    say_all(false);
}

#[test]
fn the_same_when_only_the_group_inside_has_something_to_say() {
    say_all(true);
}
