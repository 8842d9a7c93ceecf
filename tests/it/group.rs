//! The group and its stop: causes, exit codes, deadlines, wakers. No server is needed for any of it.

use std::cell::RefCell;
use std::collections::HashSet;
use std::process::{ExitCode, Termination};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use allout::{Cause, CutOff, Exit, Group, MemberResult, Outcome, Stop};

use crate::support::{Gate, HANG, at_once, poll};

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
    group.add("waiter", leaving(|| Ok(())));
    group.add("job", member);
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
        group.add("waiter", move |stop| {
            passing.pass();
            stop.wait();
            Ok(())
        });
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
    group.add("waiter", leaving(|| Ok(())));
    group.add("job", |_| Err(Box::new(Unspeakable)));
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
    group.add("waiter", leaving(|| Ok(())));
    group.add("job", |_| std::panic::panic_any(Grenade));
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
    for (number, (name, member, _)) in members.iter().enumerate() {
        let (member, turn, next) = (*member, turns[number].clone(), turns[number + 1].clone());
        group.add(*name, move |_| {
            turn.pass();
            open_when_this_thread_ends(&next);
            member()
        });
    }
    let outcome = run(group, LONG);
    assert_eq!(outcome.cause(), Some(&Cause::Done("first".to_owned())));
    assert_eq!(exits(&outcome), members.map(|(name, _, exit)| (name, exit)));
    assert_eq!(outcome.exit_code(), 1);
    let after: Vec<Duration> = outcome.exits().map(|(_, _, after)| after).collect();
    assert!(after.is_sorted() && *after.last().unwrap() <= outcome.took(), "{after:?}, {:?}", outcome.took());
    let text = "first is done; second failed: late; third panicked: later; fourth cut off 3 owed at the deadline; ";
    assert_eq!(without_time(&outcome), text);
}

/// An outcome's line, without how long it took.
fn without_time(outcome: &Outcome) -> String {
    let (line, took) = (outcome.to_string(), outcome.took());
    let time = format!("{}.{:02} s", took.as_secs(), took.subsec_millis() / 10);
    line.strip_suffix(&time).unwrap_or_else(|| panic!("`{line}` does not end with {time}")).to_owned()
}

#[test]
fn an_outcome_is_one_line_which_tells_nothing_twice() {
    assert_eq!(run(Group::new(), LONG).to_string(), "nothing to do; 0.00 s");
    type Job = fn() -> MemberResult;
    let cases: [(Job, &str); 4] = [
        (|| Ok(()), "job is done; "),
        (|| Err("no".into()), "job failed: no; "),
        (|| panic!("no"), "job panicked: no; "),
        (|| cut_off(1), "job is done; job cut off 1 owed at the deadline; "),
    ];
    for (job, text) in cases {
        let mut inner = Group::new();
        inner.add("job", move |_| job());
        inner.add("waiter", leaving(|| Ok(())));
        assert_eq!(without_time(&run(inner, LONG)), text);
    }
    let (mut group, mut inner) = (Group::new(), Group::new());
    inner.add("job", |_| Err("no".into()));
    group.add_group("inner", inner);
    assert_eq!(without_time(&run(group, LONG)), "inner/job failed: no; ");
}

// ---- Exit codes ----------------------------------------------------------------------------------------------------

/// The exit code of a group whose members leave one way at once, and another way because of the stop.
#[track_caller]
fn check_code(at_once: fn() -> MemberResult, when_told: fn() -> MemberResult, code: u8) {
    let mut group = Group::new();
    group.add("when told", leaving(when_told));
    group.add("at once", move |_| at_once());
    let outcome = run(group, LONG);
    assert_eq!(outcome.exit_code(), code);
    // There is no other way to look into an exit code.
    assert_eq!(format!("{:?}", outcome.report()), format!("{:?}", ExitCode::from(code)));
}

#[test]
fn the_exit_code_is_that_of_what_went_wrong_first_be_it_on_the_way_out() {
    let done: fn() -> MemberResult = || Ok(());
    let fails: fn() -> MemberResult = || Err("no".into());
    let panics: fn() -> MemberResult = || panic!("no");
    let cuts_off: fn() -> MemberResult = || cut_off(1);
    for (at_once, when_told, code) in [
        (done, done, 0),
        (fails, done, 1),
        (panics, done, 101),
        (fails, panics, 1),
        (panics, fails, 101),
        (done, fails, 1),
        (done, panics, 101),
        (cuts_off, fails, 1),
        (cuts_off, panics, 101),
    ] {
        check_code(at_once, when_told, code);
    }
}

#[test]
fn of_those_that_go_wrong_on_the_way_out_the_first_decides() {
    for (first, second, code) in [("fails", "panics", 1), ("panics", "fails", 101)] {
        let (mut group, gate) = (Group::new(), Gate::new());
        let end = |how| if how == "fails" { Err("no".into()) } else { panic!("no") };
        let opening = gate.clone();
        group.add("first", move |stop| {
            stop.wait();
            open_when_this_thread_ends(&opening);
            end(first)
        });
        let mut inner = Group::new();
        inner.add("second", move |_| {
            gate.pass();
            end(second)
        });
        group.add_group("inner", inner);
        group.stop().trigger(Cause::Signal);
        let outcome = run(group, LONG);
        assert_eq!((outcome.cause(), outcome.exit_code()), (Some(&Cause::Signal), code), "{outcome:?}");
        assert!(outcome.is_complete(), "all were out in time");
    }
}

#[test]
fn what_was_cut_off_makes_124_if_nothing_worse_has_happened() {
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
    group.add("stuck", move |_| {
        stuck.pass();
        Ok(())
    });
    group.add("at once", move |_| at_once());
    let outcome = run(group, Duration::from_millis(20));
    gate.open();
    assert_eq!(outcome.exit_code(), code);
    assert!(!outcome.is_complete());
}

#[test]
fn a_member_that_never_leaves_makes_124_if_nothing_worse_has_happened() {
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
            group.add(name, move |stop| {
                assert!(stop.is_set());
                started.fetch_add(1, Ordering::SeqCst);
                Ok(())
            });
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
        group.add("quick", |_| Ok(()));
        for number in 0..4 {
            let left = Arc::clone(&left);
            group.add(format!("{number}"), move |stop| {
                stop.wait();
                left.fetch_add(1, Ordering::SeqCst);
                Ok(())
            });
        }
        let outcome = run(group, LONG);
        assert_eq!(outcome.cause(), Some(&Cause::Done("quick".to_owned())));
        assert_eq!(left.load(Ordering::SeqCst), 4);
        assert_eq!(outcome.exits().count(), 5);
    }
}

#[test]
fn a_member_that_is_added_after_the_stop_is_run_and_leaves() {
    let mut group = Group::new();
    group.stop().trigger(request());
    let mut inner = Group::new();
    for group in [&mut group, &mut inner] {
        group.add("late", |stop| {
            assert!(stop.is_set() && stop.cause() == Some(request()));
            Ok(())
        });
    }
    group.add_group("inner", inner);
    let outcome = run(group, LONG);
    assert_eq!((outcome.cause(), outcome.exit_code()), (Some(&request()), 0));
    let mut exits = exits(&outcome);
    exits.sort_by_key(|(name, _)| *name);
    assert_eq!(exits, [("inner/late", Exit::Done), ("late", Exit::Done)]);
}

#[test]
fn a_group_that_has_been_stopped_stops_the_one_that_it_is_added_to() {
    for is_empty in [false, true] {
        let (mut outer, mut inner) = (Group::new(), Group::new());
        outer.lame_duck(LONG);
        outer.add("waiter", leaving(|| Ok(())));
        if !is_empty {
            inner.add("job", leaving(|| Ok(())));
        }
        inner.stop().trigger(failed("bind", "no"));
        outer.add_group("inner", inner);
        assert!(outer.stop().is_set());
        let outcome = run(outer, LONG);
        assert_eq!((outcome.cause(), outcome.exit_code()), (Some(&failed("inner/bind", "no")), 1));
        assert_eq!(outcome.exits().count(), 2);
    }
}

#[test]
fn an_empty_group_inside_is_done_at_once() {
    let mut outer = Group::new();
    outer.add("waiter", leaving(|| Ok(())));
    outer.add_group("inner", Group::new());
    let outcome = run(outer, LONG);
    assert_eq!((outcome.cause(), outcome.exit_code()), (Some(&Cause::Done("inner".to_owned())), 0));
}

#[test]
fn a_member_runs_on_a_thread_of_its_name_which_is_joined() {
    let (mut group, gate) = (Group::new(), Gate::new());
    let farewell = gate.clone();
    group.add("a name", move |_| {
        open_when_this_thread_ends(&farewell);
        assert_eq!(thread::current().name(), Some("a name"));
        Ok(())
    });
    let outcome = run(group, LONG);
    assert_eq!(exits(&outcome), [("a name", Exit::Done)]);
    // The thread's last act was before the join, so that this returns at once: nobody else would open the gate.
    gate.pass();
}

#[test]
fn two_members_may_have_one_name() {
    let mut group = Group::new();
    group.add("twin", leaving(|| Ok(())));
    group.add("twin", |_| Err("no".into()));
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
    group.add("stuck", move |_| {
        stuck.pass();
        Ok(())
    });
    let (stop, coming) = (group.stop(), gate.clone());
    group.add("quick", move |_| {
        coming.wait_for(1);
        Err("no".into())
    });
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
#[derive(Debug)]
struct Clinging(Gate);

impl Drop for Clinging {
    fn drop(&mut self) {
        self.0.pass();
    }
}

#[test]
fn of_threads_that_have_left_only_those_that_cling_to_life_are_missing() {
    thread_local! {
        static CLINGING: RefCell<Option<Clinging>> = const { RefCell::new(None) };
    }

    let (mut group, gate) = (Group::new(), Gate::new());
    for number in 0..6 {
        let clinging = (number % 2 == 0).then(|| Clinging(gate.clone()));
        group.add(number.to_string(), move |_| {
            CLINGING.set(clinging);
            Ok(())
        });
    }
    let outcome = run(group, Duration::from_millis(500));
    gate.open();
    let mut exits = exits(&outcome);
    exits.sort_by_key(|(name, _)| *name);
    let wanted = ["0", "1", "2", "3", "4", "5"].map(|name| (name, name.parse::<u32>().unwrap() % 2 == 0));
    assert_eq!(exits, wanted.map(|(name, clings)| (name, if clings { Exit::Missing } else { Exit::Done })));
    assert_eq!(outcome.exit_code(), 124);
}

#[test]
fn a_member_that_left_in_time_is_not_missing_because_another_is() {
    let (mut group, gate) = (Group::new(), Gate::new());
    for number in 0..5 {
        group.add(number.to_string(), leaving(|| Ok(())));
    }
    group.add("stuck", stuck(&gate));
    let stop = group.stop();
    let running = thread::spawn(move || run(group, Duration::from_millis(500)));
    gate.wait_for(1);
    stop.trigger(request());
    let outcome = running.join().unwrap();
    gate.open();
    let mut exits = exits(&outcome);
    assert_eq!(exits.pop(), Some(("stuck", Exit::Missing)));
    assert!(exits.len() == 5 && exits.iter().all(|(_, exit)| *exit == Exit::Done), "{exits:?}");
}

impl std::fmt::Display for Clinging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("clinging")
    }
}

impl std::error::Error for Clinging {}

#[test]
fn an_error_or_a_panic_that_blocks_when_it_is_dropped_is_reported_all_the_same() {
    let gate = Gate::new();
    at_once([false, true], |is_panic| {
        let (mut group, clinging) = (Group::new(), Clinging(gate.clone()));
        group.add("waiter", leaving(|| Ok(())));
        group.add("job", move |_| if is_panic { std::panic::panic_any(clinging) } else { Err(Box::new(clinging)) });
        let outcome = run(group, Duration::from_millis(500));
        let (cause, code) = if is_panic { (panicked("job", "(no text)"), 101) } else { (failed("job", "clinging"), 1) };
        assert_eq!((outcome.cause(), outcome.exit_code()), (Some(&cause), code));
    });
    gate.open();
}

#[test]
fn a_member_that_leaves_before_the_deadline_ends_the_wait() {
    let slowness = Duration::from_millis(100);
    let mut group = Group::new();
    group.add("slow", move |stop| {
        stop.wait();
        // What it still has to do takes its time, as seen by the durations in the outcome.
        thread::sleep(slowness);
        Ok(())
    });
    group.add("quick", |_| Ok(()));
    let outcome = run(group, LONG);
    assert_eq!(exits(&outcome), [("quick", Exit::Done), ("slow", Exit::Done)]);
    let after = outcome.exits().last().unwrap().2;
    assert!(after >= slowness && after <= outcome.took() && outcome.took() < HANG, "{after:?}, {:?}", outcome.took());
}

#[test]
fn the_largest_times_there_are_can_be_given() {
    let mut group = Group::new();
    let stop = group.stop();
    group.add("job", |stop| {
        let waker = stop.clone();
        let waiting = thread::spawn(move || waker.wait_timeout(Duration::MAX));
        stop.trigger(request());
        assert!(waiting.join().unwrap());
        Ok(())
    });
    assert_eq!(run(group, Duration::MAX).exit_code(), 0);
    assert!(stop.deadline().unwrap() > Instant::now() + LONG);

    let mut group = Group::new();
    group.lame_duck(Duration::MAX);
    group.add("job", |_| Ok(()));
    assert_eq!(run(group, Duration::MAX).exit_code(), 0);
}

#[test]
fn no_grace_at_all_can_be_given() {
    let (mut group, gate) = (Group::new(), Gate::new());
    let stuck = gate.clone();
    group.add("stuck", move |_| {
        stuck.pass();
        Ok(())
    });
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

// ---- Half the grace ------------------------------------------------------------------------------------------------

/// What the group of this member hears at half of this grace: its members' names, and when, after the stop.
type Heard = mpsc::Receiver<(Vec<String>, Duration)>;

fn listen(group: &mut Group) -> Heard {
    let (stop, (sender, heard)) = (group.stop(), mpsc::channel());
    group.on_half_grace(move |members| {
        let left = stop.deadline().unwrap().saturating_duration_since(Instant::now());
        let _ = sender.send((members.to_vec(), left));
    });
    heard
}

#[test]
fn at_half_the_grace_the_group_says_who_is_still_there() {
    let (mut group, gate, grace) = (Group::new(), Gate::new(), Duration::from_secs(1));
    group.lame_duck(Duration::from_millis(200));
    let heard = listen(&mut group);
    group.add("quick", leaving(|| Ok(())));
    group.add("slow", stuck(&gate));
    group.add("slower", stuck(&gate));
    let stop = group.stop();
    let running = thread::spawn(move || run(group, grace));
    gate.wait_for(2);
    stop.trigger(request());
    let (members, left) = heard.recv_timeout(HANG).unwrap();
    assert_eq!(members, ["slow", "slower"]);
    // Not before half of the grace, which begins after the lame-duck time.
    assert!(left <= grace / 2, "{left:?}");
    gate.open();
    let _ = running.join().unwrap();
    assert!(heard.recv().is_err(), "it is called once");
}

#[test]
fn nobody_is_told_of_half_the_grace_if_all_have_left_or_there_is_none() {
    let mut group = Group::new();
    let heard = listen(&mut group);
    group.add("quick", leaving(|| Ok(())));
    group.add("job", |_| Ok(()));
    assert_eq!(run(group, LONG).exit_code(), 0);
    assert!(heard.recv().is_err());

    let mut group = Group::new();
    let heard = listen(&mut group);
    assert_eq!(run(group, LONG).exit_code(), 0);
    assert!(heard.recv().is_err());

    let (mut group, gate) = (Group::new(), Gate::new());
    let heard = listen(&mut group);
    group.add("stuck", stuck(&gate));
    group.add("job", |_| Ok(()));
    assert_eq!(run(group, Duration::ZERO).exit_code(), 124);
    gate.open();
    assert!(heard.recv().is_err());
}

#[test]
fn at_half_the_grace_each_group_hears_of_its_own_members() {
    let (mut outer, mut middle, mut inner) = (Group::new(), Group::new(), Group::new());
    let (gate, heard) = (Gate::new(), [listen(&mut outer), listen(&mut middle), listen(&mut inner)]);
    let mut idle = Group::new();
    let nothing = listen(&mut idle);
    outer.add("a", stuck(&gate));
    middle.add("b", leaving(|| Ok(())));
    inner.add("c", stuck(&gate));
    idle.add("d", leaving(|| Ok(())));
    middle.add_group("inner", inner);
    outer.add_group("middle", middle);
    outer.add_group("idle", idle);
    let stop = outer.stop();
    let running = thread::spawn(move || run(outer, Duration::from_millis(500)));
    gate.wait_for(2);
    stop.trigger(request());
    let heard = heard.map(|heard| heard.recv_timeout(HANG).unwrap().0);
    assert_eq!(heard[0], ["a", "middle/inner/c"]);
    assert_eq!(heard[1], ["inner/c"]);
    assert_eq!(heard[2], ["c"]);
    gate.open();
    let _ = running.join().unwrap();
    assert!(nothing.recv().is_err(), "it has none");
}

#[test]
fn a_listener_of_half_the_grace_that_blocks_or_panics_holds_up_no_deadline() {
    let (mut group, gate) = (Group::new(), Gate::new());
    let (stuck_here, blocked) = (gate.clone(), gate.clone());
    group.on_half_grace(|_| panic!("on purpose"));
    group.on_half_grace(move |_| blocked.pass());
    let heard = listen(&mut group);
    group.add("stuck", stuck(&stuck_here));
    group.add("job", |_| Ok(()));
    let outcome = run(group, Duration::from_millis(400));
    assert_eq!(heard.recv_timeout(HANG).unwrap().0, ["stuck"]);
    gate.open();
    assert_eq!(outcome.exit_code(), 124);
    assert!(outcome.took() < HANG, "{:?}", outcome.took());
}

// ---- A group inside a group ----------------------------------------------------------------------------------------

/// Runs a job in a group in a group, beside others that wait in either, and returns the outer outcome.
fn run_nested(job: impl FnOnce(&Stop) -> MemberResult + Send + 'static) -> Outcome {
    let (mut outer, mut inner) = (Group::new(), Group::new());
    outer.add("waiter", leaving(|| Ok(())));
    inner.add("waiter", leaving(|| Ok(())));
    inner.add("job", job);
    outer.add_group("inner", inner);
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
    inner.add("job", |_| Err("no".into()));
    middle.add_group("inner", inner);
    middle.add("waiter", leaving(|| Ok(())));
    outer.add_group("middle", middle);
    outer.add("waiter", leaving(|| Ok(())));
    assert_eq!(run(outer, LONG).cause(), Some(&failed("middle/inner/job", "no")));
}

#[test]
fn a_cause_outside_stops_the_inner_group_which_shares_the_deadline() {
    let (mut outer, mut inner) = (Group::new(), Group::new());
    let (sender, seen) = mpsc::channel();
    inner.add("waiter", move |stop| {
        stop.wait();
        sender.send((stop.cause(), stop.deadline())).unwrap();
        Ok(())
    });
    let stop = outer.stop();
    outer.add_group("inner", inner);
    outer.add("job", |_| Err("no".into()));
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

/// A member that waits for the gate, whatever it is told.
fn stuck(gate: &Gate) -> impl FnOnce(&Stop) -> MemberResult + Send + use<> {
    let gate = gate.clone();
    move |_| {
        gate.pass();
        Ok(())
    }
}

#[test]
fn the_stuck_member_is_named_alone_however_deep_it_is() {
    at_once([0, 1, 4], |depth| {
        let gate = Gate::new();
        let mut group = Group::new();
        group.add("quick", leaving(|| Ok(())));
        group.add("stuck", stuck(&gate));
        for _ in 0..depth {
            let mut outer = Group::new();
            outer.add("quick", leaving(|| Ok(())));
            outer.add_group("in", group);
            group = outer;
        }
        let stop = group.stop();
        let running = thread::spawn(move || run(group, Duration::from_millis(500)));
        gate.wait_for(1);
        stop.trigger(request());
        let outcome = running.join().unwrap();
        gate.open();
        let path = format!("{}stuck", "in/".repeat(depth));
        let missing: Vec<_> = outcome.exits().filter(|(_, exit, _)| **exit != Exit::Done).collect();
        assert_eq!(outcome.exits().count(), depth + 2);
        assert_eq!(missing.len(), 1, "{outcome:?}");
        assert_eq!((missing[0].0, missing[0].1), (path.as_str(), &Exit::Missing));
        assert_eq!(outcome.exit_code(), 124);
    });
}

#[test]
fn what_fails_later_inside_is_kept_outside() {
    let (mut outer, mut inner, gate) = (Group::new(), Group::new(), Gate::new());
    let coming = gate.clone();
    gate.open();
    inner.add("sore loser", move |stop| {
        coming.pass();
        stop.wait();
        Err("too late".into())
    });
    outer.add_group("inner", inner);
    outer.add("job", move |_| {
        gate.wait_for(1);
        Ok(())
    });
    let outcome = run(outer, LONG);
    assert_eq!((outcome.cause(), outcome.exit_code()), (Some(&Cause::Done("job".to_owned())), 1));
    assert!(exits(&outcome).contains(&("inner/sore loser", Exit::Failed("too late".to_owned()))), "{outcome:?}");
}

#[test]
fn groups_that_are_nested_and_never_run_leave_nothing_behind() {
    let held = Arc::new(());
    let (mut outer, inner) = (Group::new(), Group::new());
    for stop in [outer.stop(), inner.stop()] {
        let held = Arc::clone(&held);
        stop.on_cause(move |_| drop(held));
    }
    outer.add_group("inner", inner);
    drop(outer);
    assert_eq!(Arc::strong_count(&held), 1);
}

#[test]
fn an_inner_group_whose_outer_one_was_dropped_can_still_be_stopped() {
    let (mut outer, inner) = (Group::new(), Group::new());
    let stop = inner.stop();
    outer.add_group("inner", inner);
    drop(outer);
    assert!(!stop.is_set() && stop.trigger(request()));
    assert!(stop.is_set() && stop.cause() == Some(request()));
}

#[test]
fn a_group_shows_its_members_and_how_far_it_is() {
    let (mut outer, mut inner) = (Group::new(), Group::new());
    inner.add("job", |_| Ok(()));
    outer.add("job", |_| Ok(()));
    outer.add_group("inner", inner);
    let stop = "Stop { is_set: false, cause: None }";
    assert_eq!(format!("{outer:?}"), format!("Group {{ stop: {stop}, members: [\"job\", \"inner/job\"] }}"));
    outer.stop().trigger(Cause::Signal);
    assert_eq!(format!("{:?}", outer.stop()), "Stop { is_set: true, cause: Some(Signal) }");
}

#[test]
fn an_inner_group_that_is_stopped_before_the_run_stops_the_outer_one_too() {
    let (mut outer, mut inner) = (Group::new(), Group::new());
    let started = Arc::new(AtomicUsize::new(0));
    for group in [&mut outer, &mut inner] {
        let started = Arc::clone(&started);
        group.add("job", move |stop| {
            assert!(stop.is_set());
            started.fetch_add(1, Ordering::SeqCst);
            Ok(())
        });
    }
    let stop = inner.stop();
    outer.add_group("inner", inner);
    stop.trigger(request());
    let outcome = run(outer, LONG);
    assert_eq!((outcome.cause(), outcome.exit_code()), (Some(&request()), 0));
    assert_eq!(started.load(Ordering::SeqCst), 2);
}

#[test]
fn an_outer_group_that_is_stopped_before_the_run_stops_the_inner_one_too() {
    let (mut outer, mut inner) = (Group::new(), Group::new());
    inner.add("job", |stop| {
        assert!(stop.is_set());
        Ok(())
    });
    let inner_stop = inner.stop();
    outer.add_group("inner", inner);
    outer.stop().trigger(request());
    let outcome = run(outer, LONG);
    assert_eq!((outcome.cause(), outcome.exit_code()), (Some(&request()), 0));
    assert_eq!(exits(&outcome), [("inner/job", Exit::Done)]);
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

/// Counts calls of wakers, which come when they come.
#[derive(Clone, Default)]
struct Calls(Arc<AtomicUsize>);

impl Calls {
    /// A waker that counts as so many.
    fn waker(&self, by: usize) -> impl FnOnce() + Send + use<> {
        let calls = Arc::clone(&self.0);
        move || _ = calls.fetch_add(by, Ordering::SeqCst)
    }

    #[track_caller]
    fn wait_for(&self, count: usize) {
        let called = || self.0.load(Ordering::SeqCst);
        poll(|| (called() >= count).then_some(())).unwrap_or_else(|| panic!("{} for {count}", called()));
        assert_eq!(called(), count);
    }
}

#[test]
fn wakers_are_called_once_and_with_the_cause() {
    let (stop, calls) = (Stop::new(), Calls::default());
    let (in_cause, in_stop) = (calls.waker(1), calls.waker(100));
    let flag = stop.clone();
    stop.on_cause(move |cause| {
        assert_eq!(*cause, request());
        assert_eq!(flag.cause(), Some(request()));
        in_cause();
    });
    let flag = stop.clone();
    stop.on_stop(move || {
        assert!(flag.is_set());
        in_stop();
    });
    calls.wait_for(0);
    stop.trigger(request());
    stop.trigger(Cause::Signal);
    calls.wait_for(101);
}

#[test]
fn wakers_that_come_after_the_stop_are_called_at_once() {
    let (stop, calls) = (Stop::new(), Calls::default());
    stop.trigger(request());
    let in_cause = calls.waker(1);
    stop.on_cause(move |cause| {
        assert_eq!(*cause, request());
        in_cause();
    });
    assert_eq!(calls.0.load(Ordering::SeqCst), 1);
    stop.on_stop(calls.waker(100));
    assert_eq!(calls.0.load(Ordering::SeqCst), 101);
}

#[test]
fn wakers_registered_while_the_stop_is_triggered_are_called_once_each() {
    for _ in 0..50 {
        let (stop, calls) = (Stop::new(), Calls::default());
        let triggering = {
            let stop = stop.clone();
            thread::spawn(move || stop.trigger(request()))
        };
        for _ in 0..20 {
            let (in_cause, in_stop) = (calls.waker(1), calls.waker(1000));
            stop.on_cause(move |_| in_cause());
            stop.on_stop(in_stop);
        }
        assert!(triggering.join().unwrap());
        calls.wait_for(20 * 1001);
    }
}

#[test]
fn a_waker_that_panics_does_not_keep_the_others_asleep() {
    let (stop, calls) = (Stop::new(), Calls::default());
    for before_or_after in [calls.waker(1), calls.waker(10)] {
        stop.on_cause(move |_| before_or_after());
        stop.on_cause(|_| std::panic::panic_any(Grenade));
    }
    for before_or_after in [calls.waker(100), calls.waker(1000)] {
        stop.on_stop(before_or_after);
        stop.on_stop(|| panic!("a waker"));
    }
    assert!(stop.trigger(request()));
    calls.wait_for(1111);
    assert!(stop.is_set());
}

#[test]
fn wakers_that_panic_when_they_are_dropped_uncalled_do_no_harm() {
    let stop = Stop::new();
    for _ in 0..2 {
        let grenade = Grenade;
        stop.on_cause(move |_| drop(grenade));
        let grenade = Grenade;
        stop.on_stop(move || drop(grenade));
    }
    drop(stop);
    let mut group = Group::new();
    for name in ["one", "two"] {
        let grenade = Grenade;
        group.add(name, move |_| {
            drop(grenade);
            Ok(())
        });
        let grenade = Grenade;
        group.on_half_grace(move |_| drop(grenade));
    }
    drop(group);
}

#[test]
fn a_waker_may_use_the_stop_that_woke_it() {
    let (stop, calls) = (Stop::new(), Calls::default());
    let (again, inner) = (stop.clone(), calls.waker(1));
    stop.on_cause(move |_| {
        assert!(!again.trigger(Cause::Signal));
        again.on_cause(move |_| inner());
    });
    let again = stop.clone();
    stop.on_stop(move || again.wait());
    assert!(stop.trigger(request()));
    calls.wait_for(1);
}

/// Wakers that block, and behind each one that counts: 2 in all.
fn block(stop: &Stop, gate: &Gate) -> Calls {
    let calls = Calls::default();
    let (blocked, called) = (gate.clone(), calls.waker(1));
    stop.on_cause(move |_| blocked.pass());
    stop.on_cause(move |_| called());
    let (blocked, called) = (gate.clone(), calls.waker(1));
    stop.on_stop(move || blocked.pass());
    stop.on_stop(called);
    calls
}

#[test]
fn a_waker_that_blocks_holds_up_neither_who_triggers_nor_the_flag_nor_other_wakers() {
    let (stop, gate) = (Stop::new(), Gate::new());
    let calls = block(&stop, &gate);
    let (sender, has_triggered) = mpsc::channel();
    let triggering = stop.clone();
    thread::spawn(move || sender.send(triggering.trigger(request())));
    assert_eq!(has_triggered.recv_timeout(HANG / 2), Ok(true));
    assert!(stop.is_set() && stop.deadline().is_some());
    calls.wait_for(2);
    // Both are in the middle of it.
    gate.wait_for(2);
    gate.open();
}

#[test]
fn thousands_of_wakers_share_a_few_threads() {
    let (stop, threads, calls) = (Stop::new(), Arc::new(Mutex::new(HashSet::new())), Calls::default());
    for _ in 0..5_000 {
        let (threads, called) = (Arc::clone(&threads), calls.waker(1));
        stop.on_stop(move || {
            threads.lock().unwrap().insert(thread::current().id());
            called();
        });
    }
    stop.trigger(request());
    calls.wait_for(5_000);
    let count = threads.lock().unwrap().len();
    assert!((1..2_500).contains(&count), "{count} threads");
}

/// Who triggers a group's stop.
#[derive(Clone, Copy, Debug)]
enum Trigger {
    BeforeTheRun,
    ByHand,
    ByMember,
    ByWaker,
    FromInside,
}

#[test]
fn a_waker_that_blocks_holds_up_no_deadline_whoever_triggers() {
    use Trigger::{BeforeTheRun, ByHand, ByMember, ByWaker, FromInside};

    let duck = Duration::from_millis(50);
    let cases = [
        (BeforeTheRun, Duration::ZERO),
        (ByHand, Duration::ZERO),
        (ByHand, duck),
        (ByMember, duck),
        (ByWaker, Duration::ZERO),
        (FromInside, duck),
    ];
    at_once(cases, |(trigger, lame_duck)| {
        let (mut group, mut inner, gate, running) = (Group::new(), Group::new(), Gate::new(), Gate::new());
        running.open();
        group.lame_duck(lame_duck);
        let (stop, inner_stop, coming) = (group.stop(), inner.stop(), running.clone());
        let calls = [block(&stop, &gate), block(&inner_stop, &gate)];
        group.add("waiter", move |stop| {
            coming.pass();
            stop.wait();
            Ok(())
        });
        if let ByMember = trigger {
            group.add("job", |_| Ok(()));
        }
        inner.add("inside", leaving(|| Ok(())));
        group.add_group("inner", inner);
        if let BeforeTheRun = trigger {
            stop.trigger(request());
        }
        let (sender, outcome) = mpsc::channel();
        thread::spawn(move || sender.send(group.run(Duration::from_millis(300))));
        running.wait_for(1);
        match trigger {
            BeforeTheRun | ByMember => {}
            ByHand => _ = stop.trigger(request()),
            FromInside => _ = inner_stop.trigger(request()),
            ByWaker => {
                let (other, stop) = (Stop::new(), stop.clone());
                other.on_cause(move |_| _ = stop.trigger(request()));
                other.trigger(request());
            }
        }
        let outcome = outcome.recv_timeout(HANG / 2).unwrap_or_else(|_| panic!("{trigger:?}: it never ends"));
        assert_eq!(outcome.exit_code(), 0, "{trigger:?}: {outcome:?}");
        assert!(outcome.exits().all(|(_, exit, _)| *exit == Exit::Done), "{trigger:?}: {outcome:?}");
        calls.iter().for_each(|calls| calls.wait_for(2));
        gate.open();
    });
}

#[test]
fn what_wakers_do_is_done_before_the_run_is_over_if_the_deadline_lets_them() {
    for is_empty in [false, true] {
        for inside in [false, true] {
            let (mut group, mut inner, calls) = (Group::new(), Group::new(), Calls::default());
            let stop = if inside { inner.stop() } else { group.stop() };
            for _ in 0..2 {
                let (in_cause, in_stop) = (calls.waker(1), calls.waker(100));
                stop.on_cause(move |_| {
                    // Long enough for the members to have left.
                    thread::sleep(Duration::from_millis(50));
                    in_cause();
                });
                stop.on_stop(in_stop);
            }
            if !is_empty {
                inner.add("job", |_| Ok(()));
            }
            group.add_group("inner", inner);
            if is_empty {
                group.stop().trigger(request());
            }
            assert_eq!(run(group, LONG).exit_code(), 0);
            assert_eq!(calls.0.load(Ordering::SeqCst), 202);
        }
    }
}

// ---- The lame duck -------------------------------------------------------------------------------------------------

#[test]
fn a_lame_duck_knows_the_cause_before_it_is_told() {
    let mut group = Group::new();
    group.lame_duck(LONG);
    let (stop, (sender, seen)) = (group.stop(), mpsc::channel());
    let flag = stop.clone();
    stop.on_cause(move |cause| sender.send((cause.clone(), flag.cause(), flag.is_set(), flag.deadline())).unwrap());
    let gate = Gate::new();
    group.add("duck", stuck(&gate));
    let running = thread::spawn(move || run(group, LONG));
    gate.wait_for(1);
    assert!(stop.trigger(request()));
    assert_eq!(seen.recv_timeout(HANG).unwrap(), (request(), Some(request()), false, None));
    assert!(!stop.is_set());
    gate.open();
    assert_eq!(running.join().unwrap().exit_code(), 0);
}

#[test]
fn a_lame_duck_has_its_grace_from_the_moment_at_which_it_is_told() {
    let time = Duration::from_millis(200);
    let (mut group, gate) = (Group::new(), Gate::new());
    gate.open();
    group.lame_duck(time);
    let (stop, coming) = (group.stop(), gate.clone());
    group.add("duck", move |stop| {
        coming.pass();
        stop.wait();
        Ok(())
    });
    let running = thread::spawn(move || run(group, LONG));
    gate.wait_for(1);
    let triggered = Instant::now();
    assert!(stop.trigger(request()));
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
    group.add("job", |_| Ok(()));
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
    group.add("job", |_| Ok(()));
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
    group.add("stuck", move |_| {
        stuck.pass();
        Ok(())
    });
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
        inner.add("duck", move |stop| {
            coming.pass();
            stop.wait();
            Ok(())
        });
        outer.add_group("inner", inner);
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
