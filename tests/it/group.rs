//! The group and its stop: causes, exit codes, deadlines, wakers. No server is needed for any of it.

use std::cell::RefCell;
use std::process::{ExitCode, Termination};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use allout::{Cause, CutOff, Exit, Group, MemberResult, Outcome, Stop, Stopped};

use crate::support::{Gate, HANG};

/// A grace period that no test waits for.
const LONG: Duration = Duration::from_secs(1000);

// ---- Helpers -------------------------------------------------------------------------------------------------------

/// Runs a group, and fails if that hangs.
#[track_caller]
fn run(group: Group, grace: Duration) -> Outcome {
    let (sender, outcome) = mpsc::channel();
    thread::spawn(move || sender.send(group.run(grace)));
    outcome.recv_timeout(HANG).expect("the group ends")
}

fn request() -> Cause {
    Cause::Request("test".to_owned())
}

fn failed(who: &str, error: &str) -> Cause {
    Cause::Failed { who: who.to_owned(), error: error.to_owned() }
}

fn panicked(who: &str, text: &str) -> Cause {
    Cause::Panicked { who: who.to_owned(), text: text.to_owned() }
}

/// A member that leaves when it is told to, and then returns this.
fn leaving(result: impl FnOnce() -> MemberResult + Send + 'static) -> impl FnOnce(&Stop) -> MemberResult + Send {
    |stop: &Stop| {
        stop.wait();
        result()
    }
}

fn cut_off(owed: usize) -> MemberResult {
    Err(Box::new(CutOff { owed, details: Vec::new() }))
}

fn exits(outcome: &Outcome) -> Vec<(&str, Exit)> {
    outcome.exits().map(|(name, exit, _)| (name, exit.clone())).collect()
}

/// Opens a gate when the thread that it is given to ends: after the group has been told how its member left.
struct Farewell(Gate);

impl Drop for Farewell {
    fn drop(&mut self) {
        self.0.open();
    }
}

thread_local! {
    static FAREWELL: RefCell<Option<Farewell>> = const { RefCell::new(None) };
}

fn open_when_this_thread_ends(gate: &Gate) {
    FAREWELL.with(|farewell| *farewell.borrow_mut() = Some(Farewell(gate.clone())));
}

// ---- Causes --------------------------------------------------------------------------------------------------------

/// Runs one member beside one that waits for the stop.
#[track_caller]
fn check_cause(member: impl FnOnce(&Stop) -> MemberResult + Send + 'static, cause: &Cause, text: &str, exit: Exit) {
    let mut group = Group::new();
    group.add("waiter", leaving(|| Ok(()))).unwrap();
    group.add("job", member).unwrap();
    let outcome = run(group, LONG);
    assert_eq!(outcome.cause(), Some(cause));
    assert_eq!(outcome.cause().unwrap().to_string(), text);
    assert!(outcome.is_complete());
    let exits = exits(&outcome);
    assert_eq!(exits.len(), 2);
    assert!(exits.contains(&("waiter", Exit::Done)) && exits.contains(&("job", exit)), "{exits:?}");
}

#[test]
fn a_member_that_returns_ok_ends_the_group() {
    check_cause(|_| Ok(()), &Cause::Done("job".to_owned()), "job is done", Exit::Done);
}

#[test]
fn a_member_that_returns_an_error_ends_the_group() {
    let exit = Exit::Failed("no luck".to_owned());
    check_cause(|_| Err("no luck".into()), &failed("job", "no luck"), "job failed: no luck", exit);
}

#[test]
fn a_member_that_panics_ends_the_group() {
    let exit = Exit::Panicked("ouch".to_owned());
    check_cause(|_| panic!("ouch"), &panicked("job", "ouch"), "job panicked: ouch", exit);
    let (number, exit) = (7, Exit::Panicked("ouch 7".to_owned()));
    check_cause(move |_| panic!("ouch {number}"), &panicked("job", "ouch 7"), "job panicked: ouch 7", exit);
    let exit = Exit::Panicked("(no text)".to_owned());
    let cause = panicked("job", "(no text)");
    check_cause(|_| std::panic::panic_any(7), &cause, "job panicked: (no text)", exit);
}

#[test]
fn a_trigger_by_hand_ends_the_group() {
    for (cause, text) in [(Cause::Signal, "signal"), (request(), "test")] {
        let (mut group, gate) = (Group::new(), Gate::new());
        let (stop, passing) = (group.stop(), gate.clone());
        gate.open();
        group
            .add("waiter", move |stop| {
                passing.pass();
                stop.wait();
                Ok(())
            })
            .unwrap();
        let running = thread::spawn(move || run(group, LONG));
        gate.wait_for(1);
        assert!(stop.trigger(cause.clone()));
        let outcome = running.join().unwrap();
        assert_eq!(outcome.cause(), Some(&cause));
        assert_eq!(cause.to_string(), text);
        assert_eq!(exits(&outcome), [("waiter", Exit::Done)]);
    }
}

#[test]
fn a_member_can_trigger_the_stop_itself() {
    check_cause(
        |stop| {
            stop.trigger(request());
            assert!(stop.is_set());
            Ok(())
        },
        &request(),
        "test",
        Exit::Done,
    );
}

/// An error whose text cannot be had: `Display` panics.
#[derive(Debug)]
struct Unspeakable;

impl std::fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("unspeakable")
    }
}

impl std::error::Error for Unspeakable {}

#[test]
fn an_error_that_panics_when_it_is_written_ends_the_group_too() {
    let mut group = Group::new();
    group.add("waiter", leaving(|| Ok(()))).unwrap();
    group.add("job", |_| Err(Box::new(Unspeakable))).unwrap();
    let outcome = run(group, LONG);
    assert_eq!(outcome.exit_code(), 101);
    assert_eq!(outcome.cause(), Some(&panicked("job", "unspeakable")));
}

/// A panic's payload that panics again when it is dropped.
struct Grenade;

impl Drop for Grenade {
    fn drop(&mut self) {
        panic!("once more")
    }
}

#[test]
fn a_panic_whose_payload_panics_when_it_is_dropped_ends_the_group_too() {
    let mut group = Group::new();
    group.add("waiter", leaving(|| Ok(()))).unwrap();
    group.add("job", |_| std::panic::panic_any(Grenade)).unwrap();
    assert_eq!(run(group, LONG).exit_code(), 101);
}

#[test]
fn the_first_cause_wins_whatever_comes_later_and_later_failures_are_kept_in_order() {
    // Each leaves when the one before it has: five threads, one order.
    type Member = fn() -> MemberResult;
    let members: [(&str, Member, Exit); 5] = [
        ("first", || Ok(()), Exit::Done),
        ("second", || Err("late".into()), Exit::Failed("late".to_owned())),
        ("third", || panic!("later"), Exit::Panicked("later".to_owned())),
        ("fourth", || cut_off(3), Exit::CutOff(CutOff { owed: 3, details: Vec::new() })),
        ("fifth", || Ok(()), Exit::Done),
    ];
    let turns: Vec<Gate> = (0..=members.len()).map(|_| Gate::new()).collect();
    turns[0].open();
    let mut group = Group::new();
    // The first is started last, since whoever is not started when it leaves stays out.
    for (number, (name, member, _)) in members.iter().enumerate().rev() {
        let (member, turn, next) = (*member, turns[number].clone(), turns[number + 1].clone());
        group
            .add(*name, move |_| {
                turn.pass();
                open_when_this_thread_ends(&next);
                member()
            })
            .unwrap();
    }
    let outcome = run(group, LONG);
    assert_eq!(outcome.cause(), Some(&Cause::Done("first".to_owned())));
    assert_eq!(exits(&outcome), members.map(|(name, _, exit)| (name, exit)));
    assert_eq!(outcome.exit_code(), 124);
    let after: Vec<Duration> = outcome.exits().map(|(_, _, after)| after).collect();
    assert!(after.is_sorted() && *after.last().unwrap() <= outcome.took(), "{after:?}, {:?}", outcome.took());
}

// ---- Exit codes ----------------------------------------------------------------------------------------------------

/// The exit code of a group whose members leave one way at once, and another way because of the stop.
#[track_caller]
fn check_code(at_once: fn() -> MemberResult, when_told: fn() -> MemberResult, code: u8) {
    let mut group = Group::new();
    group.add("when told", leaving(when_told)).unwrap();
    group.add("at once", move |_| at_once()).unwrap();
    let outcome = run(group, LONG);
    assert_eq!(outcome.exit_code(), code);
    // There is no other way to look into an exit code.
    assert_eq!(format!("{:?}", outcome.report()), format!("{:?}", ExitCode::from(code)));
}

#[test]
fn the_exit_code_is_that_of_the_first_cause() {
    let done = || Ok(());
    let fails = || Err("no".into());
    let panics = || panic!("no");
    check_code(done, done, 0);
    check_code(fails, done, 1);
    check_code(panics, done, 101);
    check_code(fails, panics, 1);
    check_code(panics, fails, 101);
    check_code(done, fails, 0);
}

#[test]
fn what_was_cut_off_makes_124_of_a_clean_cause_alone() {
    let cuts_off: fn() -> MemberResult = || cut_off(1);
    check_code(|| Ok(()), cuts_off, 124);
    check_code(cuts_off, || Ok(()), 124);
    check_code(|| Err("no".into()), cuts_off, 1);
    check_code(|| panic!("no"), cuts_off, 101);
}

/// The exit code of a group with a member that never leaves.
#[track_caller]
fn check_code_with_one_missing(at_once: fn() -> MemberResult, code: u8) {
    let (mut group, gate) = (Group::new(), Gate::new());
    let stuck = gate.clone();
    group
        .add("stuck", move |_| {
            stuck.pass();
            Ok(())
        })
        .unwrap();
    group.add("at once", move |_| at_once()).unwrap();
    let outcome = run(group, Duration::from_millis(20));
    gate.open();
    assert_eq!(outcome.exit_code(), code);
    assert!(!outcome.is_complete());
}

#[test]
fn a_member_that_never_leaves_makes_124_of_a_clean_cause_alone() {
    check_code_with_one_missing(|| Ok(()), 124);
    check_code_with_one_missing(|| Err("no".into()), 1);
    check_code_with_one_missing(|| panic!("no"), 101);
}

// ---- Before and after the run --------------------------------------------------------------------------------------

#[test]
fn an_empty_group_returns_at_once() {
    let outcome = run(Group::new(), Duration::MAX);
    assert_eq!((outcome.cause(), outcome.exit_code(), outcome.took()), (None, 0, Duration::ZERO));
    assert_eq!(outcome.exits().count(), 0);
}

#[test]
fn an_empty_group_that_was_stopped_knows_why() {
    for (cause, code) in [(Cause::Signal, 0), (failed("bind", "no"), 1)] {
        let group = Group::new();
        group.stop().trigger(cause.clone());
        let outcome = run(group, LONG);
        assert_eq!((outcome.cause(), outcome.exit_code()), (Some(&cause), code));
    }
}

#[test]
fn an_empty_group_took_as_long_as_its_stop_is_old() {
    let (group, old) = (Group::new(), Duration::from_millis(20));
    group.stop().trigger(request());
    thread::sleep(old);
    let outcome = run(group, LONG);
    assert!(outcome.took() >= old, "{outcome:?}");
    assert_eq!(run(Group::new(), LONG).took(), Duration::ZERO);
}

#[test]
fn a_stop_before_the_run_is_found_by_every_member() {
    for (cause, code) in [(Cause::Signal, 0), (failed("bind", "no"), 1)] {
        let mut group = Group::new();
        let started = Arc::new(AtomicUsize::new(0));
        for name in ["one", "two"] {
            let started = Arc::clone(&started);
            group
                .add(name, move |stop| {
                    assert!(stop.is_set());
                    started.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                })
                .unwrap();
        }
        group.stop().trigger(cause.clone());
        let outcome = run(group, LONG);
        assert!(outcome.exits().all(|(_, exit, _)| *exit == Exit::Done), "{outcome:?}");
        assert_eq!((outcome.cause(), outcome.exit_code()), (Some(&cause), code));
        assert_eq!(started.load(Ordering::SeqCst), 2);
        // Whoever ran has been dropped with all that it held.
        assert_eq!(Arc::strong_count(&started), 1);
    }
}

#[test]
fn a_stop_while_members_are_being_started_reaches_all_of_them() {
    for _ in 0..50 {
        let (mut group, left) = (Group::new(), Arc::new(AtomicUsize::new(0)));
        group.add("quick", |_| Ok(())).unwrap();
        for number in 0..4 {
            let left = Arc::clone(&left);
            group
                .add(format!("{number}"), move |stop| {
                    stop.wait();
                    left.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                })
                .unwrap();
        }
        let outcome = run(group, LONG);
        assert_eq!(outcome.cause(), Some(&Cause::Done("quick".to_owned())));
        assert_eq!(left.load(Ordering::SeqCst), 4);
        assert_eq!(outcome.exits().count(), 5);
    }
}

#[test]
fn adding_to_a_stopped_group_is_refused() {
    let mut group = Group::new();
    group.stop().trigger(request());
    let refused = group.add("late", |_| Ok(()));
    assert_eq!(refused, Err(Stopped(request())));
    assert_eq!(refused.unwrap_err().to_string(), "cannot add a member to a stopped group: test");
    let mut inner = Group::new();
    inner.add("job", |_| Ok(())).unwrap();
    assert_eq!(group.add_group("late", inner), Err(Stopped(request())));
    assert_eq!(run(group, LONG).exits().count(), 0);
}

#[test]
fn adding_a_stopped_group_is_refused() {
    let inner = Group::new();
    inner.stop().trigger(Cause::Signal);
    assert_eq!(Group::new().add_group("late", inner), Err(Stopped(Cause::Signal)));
}

#[test]
fn a_member_runs_on_a_thread_of_its_name_which_is_joined() {
    let (mut group, gate) = (Group::new(), Gate::new());
    let farewell = gate.clone();
    group
        .add("a name", move |_| {
            open_when_this_thread_ends(&farewell);
            assert_eq!(thread::current().name(), Some("a name"));
            Ok(())
        })
        .unwrap();
    let outcome = run(group, LONG);
    assert_eq!(exits(&outcome), [("a name", Exit::Done)]);
    // The thread's last act was before the join, so that this returns at once: nobody else would open the gate.
    gate.pass();
}

#[test]
fn two_members_may_have_one_name() {
    let mut group = Group::new();
    group.add("twin", leaving(|| Ok(()))).unwrap();
    group.add("twin", |_| Err("no".into())).unwrap();
    let outcome = run(group, LONG);
    assert_eq!(outcome.cause(), Some(&failed("twin", "no")));
    assert_eq!(outcome.exits().filter(|(name, ..)| *name == "twin").count(), 2);
}

// ---- Deadlines -----------------------------------------------------------------------------------------------------

#[test]
fn a_stuck_member_is_waited_for_until_the_deadline_and_named() {
    let grace = Duration::from_millis(150);
    let (mut group, gate) = (Group::new(), Gate::new());
    let stuck = gate.clone();
    group
        .add("stuck", move |_| {
            stuck.pass();
            Ok(())
        })
        .unwrap();
    let (stop, coming) = (group.stop(), gate.clone());
    group
        .add("quick", move |_| {
            coming.wait_for(1);
            Err("no".into())
        })
        .unwrap();
    let started = Instant::now();
    let outcome = run(group, grace);
    let took = started.elapsed();
    gate.open();
    assert_eq!(exits(&outcome), [("quick", Exit::Failed("no".to_owned())), ("stuck", Exit::Missing)]);
    assert_eq!(Exit::Missing.to_string(), "did not leave in time");
    assert!(outcome.took() >= grace && took >= grace, "{:?} and {took:?}", outcome.took());
    // Far more than the 100 ms that are promised, for the sake of slow machines.
    assert!(outcome.took() < HANG / 2, "{:?}", outcome.took());
    let missing_for = outcome.exits().find(|(name, ..)| *name == "stuck").unwrap().2;
    assert!(missing_for >= grace, "{missing_for:?}");
    assert!(stop.deadline().unwrap() >= started + grace);
}

/// Blocks the thread that drops it, until the gate is opened.
struct Clinging(Gate);

impl Drop for Clinging {
    fn drop(&mut self) {
        self.0.pass();
    }
}

#[test]
fn a_thread_that_clings_to_life_holds_nobody_up() {
    thread_local! {
        static CLINGING: RefCell<Option<Clinging>> = const { RefCell::new(None) };
    }

    let (mut group, gate) = (Group::new(), Gate::new());
    let clinging = gate.clone();
    let body = move |_: &Stop| {
        CLINGING.set(Some(Clinging(clinging)));
        Ok(())
    };
    group.add("clinging", body).unwrap();
    group.add("other", leaving(|| Ok(()))).unwrap();
    let outcome = run(group, Duration::from_millis(50));
    gate.open();
    assert_eq!(outcome.cause(), Some(&Cause::Done("clinging".to_owned())));
    let mut exits = exits(&outcome);
    exits.sort_by_key(|(name, _)| *name);
    assert_eq!(exits, [("clinging", Exit::Missing), ("other", Exit::Done)]);
    assert_eq!(outcome.exit_code(), 124);
}

#[test]
fn a_member_that_leaves_before_the_deadline_ends_the_wait() {
    let slowness = Duration::from_millis(100);
    let mut group = Group::new();
    group
        .add("slow", move |stop| {
            stop.wait();
            // What it still has to do takes its time, as seen by the durations in the outcome.
            thread::sleep(slowness);
            Ok(())
        })
        .unwrap();
    group.add("quick", |_| Ok(())).unwrap();
    let outcome = run(group, LONG);
    assert_eq!(exits(&outcome), [("quick", Exit::Done), ("slow", Exit::Done)]);
    let after = outcome.exits().last().unwrap().2;
    assert!(after >= slowness && after <= outcome.took() && outcome.took() < HANG, "{after:?}, {:?}", outcome.took());
}

#[test]
fn the_largest_times_there_are_can_be_given() {
    let mut group = Group::new();
    let stop = group.stop();
    group
        .add("job", |stop| {
            let waker = stop.clone();
            let waiting = thread::spawn(move || waker.wait_timeout(Duration::MAX));
            stop.trigger(request());
            assert!(waiting.join().unwrap());
            Ok(())
        })
        .unwrap();
    assert_eq!(run(group, Duration::MAX).exit_code(), 0);
    assert!(stop.deadline().unwrap() > Instant::now() + LONG);

    let mut group = Group::new();
    group.lame_duck(Duration::MAX);
    group.add("job", |_| Ok(())).unwrap();
    assert_eq!(run(group, Duration::MAX).exit_code(), 0);
}

#[test]
fn no_grace_at_all_can_be_given() {
    let (mut group, gate) = (Group::new(), Gate::new());
    let stuck = gate.clone();
    group
        .add("stuck", move |_| {
            stuck.pass();
            Ok(())
        })
        .unwrap();
    group.stop().on_stop(|| {});
    let (stop, coming) = (group.stop(), gate.clone());
    let running = thread::spawn(move || run(group, Duration::ZERO));
    coming.wait_for(1);
    stop.trigger(request());
    let outcome = running.join().unwrap();
    gate.open();
    assert_eq!(exits(&outcome), [("stuck", Exit::Missing)]);
    assert_eq!(outcome.exit_code(), 124);
}

// ---- A group inside a group ----------------------------------------------------------------------------------------

/// Runs a job in a group in a group, beside others that wait in either, and returns the outer outcome.
fn run_nested(job: impl FnOnce(&Stop) -> MemberResult + Send + 'static) -> Outcome {
    let (mut outer, mut inner) = (Group::new(), Group::new());
    outer.add("waiter", leaving(|| Ok(()))).unwrap();
    inner.add("waiter", leaving(|| Ok(()))).unwrap();
    inner.add("job", job).unwrap();
    outer.add_group("inner", inner).unwrap();
    run(outer, LONG)
}

#[test]
fn a_cause_inside_stops_the_outer_group_and_bears_the_inner_ones_name() {
    let outcome = run_nested(|_| Ok(()));
    assert_eq!(outcome.cause(), Some(&Cause::Done("inner/job".to_owned())));
    assert_eq!(outcome.exit_code(), 0);

    let outcome = run_nested(|_| Err("no".into()));
    assert_eq!(outcome.cause(), Some(&failed("inner/job", "no")));
    assert_eq!(outcome.exit_code(), 1);

    let outcome = run_nested(|_| panic!("no"));
    assert_eq!(outcome.cause(), Some(&panicked("inner/job", "no")));
    assert_eq!(outcome.exit_code(), 101);

    // A request is nobody's own.
    let outcome = run_nested(|stop| {
        stop.trigger(request());
        Ok(())
    });
    assert_eq!(outcome.cause(), Some(&request()));
    assert_eq!(outcome.exit_code(), 0);
}

#[test]
fn a_cause_comes_up_through_two_groups() {
    let (mut outer, mut middle, mut inner) = (Group::new(), Group::new(), Group::new());
    inner.add("job", |_| Err("no".into())).unwrap();
    middle.add_group("inner", inner).unwrap();
    middle.add("waiter", leaving(|| Ok(()))).unwrap();
    outer.add_group("middle", middle).unwrap();
    outer.add("waiter", leaving(|| Ok(()))).unwrap();
    assert_eq!(run(outer, LONG).cause(), Some(&failed("middle/inner/job", "no")));
}

#[test]
fn a_cause_outside_stops_the_inner_group_which_shares_the_deadline() {
    let (mut outer, mut inner) = (Group::new(), Group::new());
    let (sender, seen) = mpsc::channel();
    inner
        .add("waiter", move |stop| {
            stop.wait();
            sender.send((stop.cause(), stop.deadline())).unwrap();
            Ok(())
        })
        .unwrap();
    let stop = outer.stop();
    outer.add_group("inner", inner).unwrap();
    outer.add("job", |_| Err("no".into())).unwrap();
    let outcome = run(outer, LONG);
    assert_eq!(outcome.cause(), Some(&failed("job", "no")));
    // It may have come too late to be started.
    if let Ok((cause, deadline)) = seen.try_recv() {
        assert_eq!(cause, Some(failed("job", "no")));
        let deadlines = [deadline.unwrap(), stop.deadline().unwrap()];
        let apart = deadlines[0].max(deadlines[1]) - deadlines[0].min(deadlines[1]);
        assert!(apart < HANG, "the grace period is much longer, and yet they are {apart:?} apart");
    }
}

#[test]
fn a_member_that_is_stuck_inside_is_told_outside() {
    let (mut outer, mut inner, gate) = (Group::new(), Group::new(), Gate::new());
    let stuck = gate.clone();
    inner
        .add("stuck", move |_| {
            stuck.pass();
            Ok(())
        })
        .unwrap();
    outer.add_group("inner", inner).unwrap();
    let coming = gate.clone();
    outer
        .add("job", move |_| {
            coming.wait_for(1);
            Ok(())
        })
        .unwrap();
    let grace = Duration::from_millis(100);
    let outcome = run(outer, grace);
    gate.open();
    assert_eq!(outcome.exit_code(), 124);
    assert!(outcome.took() >= grace, "{:?}", outcome.took());
    // On a machine that is so slow that the inner group is late itself, it is what is missing.
    match exits(&outcome).into_iter().find(|(name, _)| *name == "inner") {
        Some((_, Exit::CutOff(cut_off))) => {
            assert_eq!(cut_off.details, ["stuck: did not leave in time"]);
            assert_eq!(cut_off.owed, 1);
        }
        other => assert_eq!(other, Some(("inner", Exit::Missing))),
    }
}

#[test]
fn what_fails_later_inside_is_kept_outside() {
    let (mut outer, mut inner, gate) = (Group::new(), Group::new(), Gate::new());
    let coming = gate.clone();
    gate.open();
    inner
        .add("sore loser", move |stop| {
            coming.pass();
            stop.wait();
            Err("too late".into())
        })
        .unwrap();
    outer.add_group("inner", inner).unwrap();
    outer
        .add("job", move |_| {
            gate.wait_for(1);
            Ok(())
        })
        .unwrap();
    let outcome = run(outer, LONG);
    assert_eq!(outcome.cause(), Some(&Cause::Done("job".to_owned())));
    assert!(exits(&outcome).contains(&("inner", Exit::Failed("sore loser failed: too late".to_owned()))));
}

#[test]
fn groups_that_are_nested_and_never_run_leave_nothing_behind() {
    let held = Arc::new(());
    let (mut outer, inner) = (Group::new(), Group::new());
    for stop in [outer.stop(), inner.stop()] {
        let held = Arc::clone(&held);
        stop.on_cause(move |_| drop(held));
    }
    outer.add_group("inner", inner).unwrap();
    drop(outer);
    assert_eq!(Arc::strong_count(&held), 1);
}

#[test]
fn an_inner_group_that_is_stopped_before_the_run_stops_the_outer_one_too() {
    let (mut outer, mut inner) = (Group::new(), Group::new());
    let started = Arc::new(AtomicUsize::new(0));
    for group in [&mut outer, &mut inner] {
        let started = Arc::clone(&started);
        group
            .add("job", move |stop| {
                assert!(stop.is_set());
                started.fetch_add(1, Ordering::SeqCst);
                Ok(())
            })
            .unwrap();
    }
    let stop = inner.stop();
    outer.add_group("inner", inner).unwrap();
    stop.trigger(request());
    let outcome = run(outer, LONG);
    assert_eq!((outcome.cause(), outcome.exit_code()), (Some(&request()), 0));
    assert_eq!(started.load(Ordering::SeqCst), 2);
}

#[test]
fn an_outer_group_that_is_stopped_before_the_run_stops_the_inner_one_too() {
    let (mut outer, mut inner) = (Group::new(), Group::new());
    inner
        .add("job", |stop| {
            assert!(stop.is_set());
            Ok(())
        })
        .unwrap();
    let inner_stop = inner.stop();
    outer.add_group("inner", inner).unwrap();
    outer.stop().trigger(request());
    let outcome = run(outer, LONG);
    assert_eq!((outcome.cause(), outcome.exit_code()), (Some(&request()), 0));
    assert_eq!(exits(&outcome), [("inner", Exit::Done)]);
    assert_eq!(inner_stop.cause(), Some(request()));
}

// ---- The stop ------------------------------------------------------------------------------------------------------

#[test]
fn only_the_first_trigger_counts() {
    let stop = Stop::new();
    assert!(!stop.is_set());
    assert_eq!((stop.cause(), stop.deadline()), (None, None));
    assert!(stop.trigger(request()));
    let deadline = stop.deadline();
    assert!(stop.is_set() && deadline.is_some());
    assert!(!stop.trigger(failed("x", "y")));
    assert!(!stop.clone().trigger(Cause::Signal));
    assert_eq!((stop.cause(), stop.deadline()), (Some(request()), deadline));
}

#[test]
fn of_many_threads_that_trigger_exactly_one_is_the_first() {
    for _ in 0..20 {
        let (stop, gate) = (Stop::new(), Gate::new());
        let triggering = (0..16).map(|number| {
            let (stop, gate) = (stop.clone(), gate.clone());
            thread::spawn(move || {
                gate.pass();
                (stop.trigger(Cause::Request(number.to_string())), number)
            })
        });
        let triggering: Vec<_> = triggering.collect();
        gate.wait_for(16);
        gate.open();
        let results: Vec<_> = triggering.into_iter().map(|thread| thread.join().unwrap()).collect();
        let first: Vec<_> = results.iter().filter(|(is_first, _)| *is_first).collect();
        assert_eq!(first.len(), 1, "{results:?}");
        assert_eq!(stop.cause(), Some(Cause::Request(first[0].1.to_string())));
    }
}

#[test]
fn whoever_waits_is_woken() {
    let (stop, gate) = (Stop::new(), Gate::new());
    gate.open();
    let waiting: Vec<_> = (0..8)
        .map(|number| {
            let (stop, gate) = (stop.clone(), gate.clone());
            thread::spawn(move || {
                gate.pass();
                if number % 2 == 0 {
                    stop.wait();
                } else {
                    assert!(stop.wait_timeout(LONG));
                }
                assert!(stop.is_set());
            })
        })
        .collect();
    gate.wait_for(8);
    stop.trigger(request());
    waiting.into_iter().for_each(|thread| thread.join().unwrap());
    // And does not wait at all once it has been triggered.
    stop.wait();
    assert!(stop.wait_timeout(LONG) && stop.wait_timeout(Duration::ZERO));
}

#[test]
fn a_wait_with_a_timeout_ends_without_a_stop() {
    let (stop, timeout) = (Stop::new(), Duration::from_millis(30));
    let started = Instant::now();
    assert!(!stop.wait_timeout(timeout));
    assert!(started.elapsed() >= timeout);
    assert!(!stop.wait_timeout(Duration::ZERO));
}

#[test]
fn wakers_are_called_once_and_with_the_cause() {
    let (stop, called) = (Stop::new(), Arc::new(AtomicUsize::new(0)));
    let (in_cause, in_stop) = (Arc::clone(&called), Arc::clone(&called));
    let flag = stop.clone();
    stop.on_cause(move |cause| {
        assert_eq!(*cause, request());
        assert_eq!(flag.cause(), Some(request()));
        in_cause.fetch_add(1, Ordering::SeqCst);
    });
    let flag = stop.clone();
    stop.on_stop(move || {
        assert!(flag.is_set());
        in_stop.fetch_add(100, Ordering::SeqCst);
    });
    assert_eq!(called.load(Ordering::SeqCst), 0);
    stop.trigger(request());
    stop.trigger(Cause::Signal);
    assert_eq!(called.load(Ordering::SeqCst), 101);
}

#[test]
fn wakers_that_come_after_the_stop_are_called_at_once() {
    let (stop, called) = (Stop::new(), Arc::new(AtomicUsize::new(0)));
    stop.trigger(request());
    let (in_cause, in_stop) = (Arc::clone(&called), Arc::clone(&called));
    stop.on_cause(move |cause| {
        assert_eq!(*cause, request());
        in_cause.fetch_add(1, Ordering::SeqCst);
    });
    assert_eq!(called.load(Ordering::SeqCst), 1);
    stop.on_stop(move || {
        in_stop.fetch_add(100, Ordering::SeqCst);
    });
    assert_eq!(called.load(Ordering::SeqCst), 101);
}

#[test]
fn wakers_registered_while_the_stop_is_triggered_are_called_once_each() {
    for _ in 0..50 {
        let (stop, called) = (Stop::new(), Arc::new(AtomicUsize::new(0)));
        let triggering = {
            let stop = stop.clone();
            thread::spawn(move || stop.trigger(request()))
        };
        for _ in 0..20 {
            let (in_cause, in_stop) = (Arc::clone(&called), Arc::clone(&called));
            stop.on_cause(move |_| {
                in_cause.fetch_add(1, Ordering::SeqCst);
            });
            stop.on_stop(move || {
                in_stop.fetch_add(1000, Ordering::SeqCst);
            });
        }
        assert!(triggering.join().unwrap());
        assert_eq!(called.load(Ordering::SeqCst), 20 * 1001);
    }
}

#[test]
fn a_waker_that_panics_does_not_keep_the_others_asleep() {
    let (stop, called) = (Stop::new(), Arc::new(AtomicUsize::new(0)));
    let count = |by: usize| {
        let called = Arc::clone(&called);
        move || {
            called.fetch_add(by, Ordering::SeqCst);
        }
    };
    let counts = [count(1), count(10)];
    for before_or_after in counts {
        stop.on_cause(move |_| before_or_after());
        stop.on_cause(|_| panic!("a waker"));
    }
    let counts = [count(100), count(1000)];
    for before_or_after in counts {
        stop.on_stop(before_or_after);
        stop.on_stop(|| panic!("a waker"));
    }
    assert!(stop.trigger(request()));
    assert_eq!(called.load(Ordering::SeqCst), 1111);
    assert!(stop.is_set());
}

#[test]
fn a_waker_may_use_the_stop_that_woke_it() {
    let (stop, called) = (Stop::new(), Arc::new(AtomicUsize::new(0)));
    let (again, inner) = (stop.clone(), Arc::clone(&called));
    stop.on_cause(move |_| {
        assert!(!again.trigger(Cause::Signal));
        again.on_cause(move |_| {
            inner.fetch_add(1, Ordering::SeqCst);
        });
    });
    let again = stop.clone();
    stop.on_stop(move || again.wait());
    assert!(stop.trigger(request()));
    assert_eq!(called.load(Ordering::SeqCst), 1);
}

// ---- The lame duck -------------------------------------------------------------------------------------------------

#[test]
fn a_lame_duck_knows_the_cause_before_it_is_told_and_has_its_grace_from_then() {
    let time = Duration::from_millis(200);
    let (mut group, gate) = (Group::new(), Gate::new());
    gate.open();
    group.lame_duck(time);
    let (stop, coming) = (group.stop(), gate.clone());
    group
        .add("duck", move |stop| {
            coming.pass();
            stop.wait();
            Ok(())
        })
        .unwrap();
    let (sender, seen) = mpsc::channel();
    let flag = stop.clone();
    stop.on_cause(move |cause| {
        // On the triggering thread and before anything else, so that this is no race.
        sender.send((cause.clone(), flag.cause(), flag.is_set(), flag.deadline())).unwrap();
    });
    let running = thread::spawn(move || run(group, LONG));
    gate.wait_for(1);
    let triggered = Instant::now();
    assert!(stop.trigger(request()));
    assert_eq!(seen.recv().unwrap(), (request(), Some(request()), false, None));
    let outcome = running.join().unwrap();
    assert!(stop.is_set());
    assert!(outcome.took() >= time, "{:?}", outcome.took());
    assert!(stop.deadline().unwrap() >= triggered + time + LONG);
    assert_eq!((outcome.exit_code(), exits(&outcome)), (0, vec![("duck", Exit::Done)]));
    let after = outcome.exits().next().unwrap().2;
    assert!(after >= time, "{after:?}");
}

#[test]
fn a_lame_duck_is_not_waited_for_when_all_have_left() {
    let mut group = Group::new();
    group.lame_duck(LONG);
    group.add("job", |_| Ok(())).unwrap();
    let stop = group.stop();
    let outcome = run(group, LONG);
    assert_eq!(outcome.cause(), Some(&Cause::Done("job".to_owned())));
    // Nobody is left who could tell later, and somebody outside the group may wait for it.
    assert!(stop.is_set(), "the group is over, but its stop was never set");
}

#[test]
fn a_stop_before_the_run_has_no_lame_duck() {
    let mut group = Group::new();
    group.lame_duck(LONG);
    group.add("job", |_| Ok(())).unwrap();
    let stop = group.stop();
    stop.trigger(request());
    assert!(stop.is_set());
    assert_eq!(exits(&run(group, LONG)), [("job", Exit::Done)]);
}

#[test]
fn a_lame_duck_ends_with_its_deadline_like_anybody() {
    let (mut group, gate) = (Group::new(), Gate::new());
    group.lame_duck(Duration::from_millis(50));
    let (stop, stuck) = (group.stop(), gate.clone());
    group
        .add("stuck", move |_| {
            stuck.pass();
            Ok(())
        })
        .unwrap();
    let running = thread::spawn(move || run(group, Duration::from_millis(50)));
    gate.wait_for(1);
    stop.trigger(request());
    let outcome = running.join().unwrap();
    gate.open();
    assert_eq!((outcome.exit_code(), exits(&outcome)), (124, vec![("stuck", Exit::Missing)]));
    assert!(outcome.took() >= Duration::from_millis(100), "{:?}", outcome.took());
}

#[test]
fn a_group_inside_a_lame_duck_learns_of_the_cause_and_is_told_with_the_rest() {
    let time = Duration::from_millis(200);
    for from_inside in [false, true] {
        let (mut outer, mut inner, gate) = (Group::new(), Group::new(), Gate::new());
        outer.lame_duck(time);
        let (outer_stop, inner_stop) = (outer.stop(), inner.stop());
        let coming = gate.clone();
        gate.open();
        inner
            .add("duck", move |stop| {
                coming.pass();
                stop.wait();
                Ok(())
            })
            .unwrap();
        outer.add_group("inner", inner).unwrap();
        let running = thread::spawn(move || run(outer, LONG));
        gate.wait_for(1);
        let triggered = Instant::now();
        let (sender, seen) = mpsc::channel();
        let (flag, was_set) = (inner_stop.clone(), inner_stop.clone());
        inner_stop.on_cause(move |_| sender.send((flag.cause(), was_set.is_set())).unwrap());
        if from_inside { &inner_stop } else { &outer_stop }.trigger(request());
        let outcome = running.join().unwrap();
        assert_eq!(outcome.cause(), Some(&request()));
        assert_eq!(seen.recv_timeout(HANG), Ok((Some(request()), false)));
        // Told at the end of the lame-duck time, not at once: the deadlines are the same.
        assert!(outcome.took() >= time, "from inside: {from_inside}, {:?}", outcome.took());
        for stop in [&inner_stop, &outer_stop] {
            assert!(stop.deadline().unwrap() >= triggered + time + LONG, "from inside: {from_inside}");
        }
    }
}
