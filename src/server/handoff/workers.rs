//! The threads: they hold loops, run handlers, and are spare in between.

use std::collections::VecDeque;
use std::time::Duration;

use super::word::{Sight, Word};
use crate::group::CutOff;
use crate::panics::caught;
use crate::server::desk::Desk;
use crate::server::event_loop::{EventLoop, Turn};
use crate::server::inbox::{Answer, Parcel};
use crate::server::shared::Shared;
use crate::server::streaming::write_body;
use crate::stop::Cause;
use crate::sync::{
    Arc, AtomicBool, Builder, Condvar, JoinHandle, Mutex, MutexGuard, Ordering, PoisonError, sync_channel,
};

/// A spare that was not needed for so long ends, unless it is among the last, one a loop.
const SPARE_TIME: Duration = Duration::from_secs(10);

/// Loops, and the threads that turn them.
pub(super) struct Crew {
    pub(super) shared: Arc<Shared>,
    slots: Vec<Mutex<EventLoop>>,
    roster: Mutex<Roster>,
    /// For spares: there is a task, or all is over.
    tasks_changed: Condvar,
    /// For the watcher: a loop has ended, a thread has left, the bell was rung.
    pub(super) watch_changed: Condvar,
    /// The watcher sleeps, and must be woken before a handler is called.
    pub(super) is_watcher_asleep: AtomicBool,
}

pub(super) struct Roster {
    tasks: VecDeque<Task>,
    /// Threads without a task.
    idle: usize,
    /// Threads that have not ended.
    pub(super) alive: usize,
    spawned: usize,
    /// Threads by number, and the numbers of those that are done and wait to be joined.
    threads: Vec<(usize, JoinHandle<()>)>,
    left: Vec<usize>,
    is_over: bool,
    /// How loops have ended.
    pub(super) ends: Vec<LoopEnd>,
}

/// How one loop ended: what it had to cut off, or why it cannot go on.
pub(super) type LoopEnd = Result<CutOff, String>;

/// What a thread is needed for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Task {
    /// Turn a loop that nobody has turned yet.
    Start(usize),
    /// Take over a loop from a slow handler, if it still lies in its slot.
    TakeOver(usize, Sight),
}

impl Crew {
    pub(super) fn new(event_loops: Vec<EventLoop>, shared: Arc<Shared>) -> Arc<Self> {
        let roster = Roster {
            tasks: VecDeque::new(),
            idle: 0,
            alive: 0,
            spawned: 0,
            threads: Vec::new(),
            left: Vec::new(),
            is_over: false,
            ends: Vec::new(),
        };
        Arc::new(Self {
            shared,
            slots: event_loops.into_iter().map(Mutex::new).collect(),
            roster: Mutex::new(roster),
            tasks_changed: Condvar::new(),
            watch_changed: Condvar::new(),
            is_watcher_asleep: AtomicBool::new(false),
        })
    }

    /// Gives a task to a spare, or to a new thread if there is none.
    pub(super) fn dispatch(self: &Arc<Self>, task: Task) -> std::io::Result<()> {
        let mut roster = self.roster();
        if roster.idle > roster.tasks.len() {
            roster.tasks.push_back(task);
            self.tasks_changed.notify_one();
            return Ok(());
        }
        let number = roster.spawned;
        let mut builder = Builder::new().name(format!("worker-{number}"));
        if let Some(bytes) = self.shared.config.stack_bytes {
            builder = builder.stack_size(bytes);
        }
        let crew = Arc::clone(self);
        let handle = builder.spawn(move || crew.work(number, task))?;
        roster.spawned += 1;
        roster.alive += 1;
        roster.threads.push((number, handle));
        let left = roster.take_left();
        drop(roster);
        join_all(left);
        Ok(())
    }

    /// The life of a thread.
    fn work(self: Arc<Self>, number: usize, first: Task) {
        let mut desk = Desk::new();
        let mut task = Some(first);
        while let Some(next) = task.take().or_else(|| self.next_task()) {
            let (Task::Start(seat) | Task::TakeOver(seat, _)) = next;
            // A loop that panics is our own fault, and the end of the server; what it says is told by `supervise`.
            if let Err(panic) = caught(|| self.perform(next, &mut desk)) {
                self.end_loop(seat, Err(format!("panicked: {panic}")));
            }
        }
        let mut roster = self.roster();
        roster.alive -= 1;
        roster.left.push(number);
        drop(roster);
        self.watch_changed.notify_all();
    }

    fn next_task(&self) -> Option<Task> {
        let mut roster = self.roster();
        roster.idle += 1;
        let task = loop {
            if let Some(task) = roster.tasks.pop_front() {
                break Some(task);
            }
            if roster.is_over {
                break None;
            }
            let waited = self.tasks_changed.wait_timeout(roster, SPARE_TIME).unwrap_or_else(PoisonError::into_inner);
            roster = waited.0;
            if waited.1.timed_out() && roster.tasks.is_empty() && roster.idle > self.slots.len() {
                break None;
            }
        };
        roster.idle -= 1;
        task
    }

    fn perform(&self, task: Task, desk: &mut Desk) {
        match task {
            Task::Start(seat) => self.hold(seat, self.slot(seat), desk),
            Task::TakeOver(seat, lending) => {
                let permits = &self.shared.permits;
                permits.displace();
                if permits.words[seat].claim(lending) {
                    // Until the claim this handler counted twice, which may have kept another from its permit.
                    self.shared.wake_next_in_line();
                    let mut event_loop = self.slot(seat);
                    event_loop.go_on_without_caller();
                    self.hold(seat, event_loop, desk);
                } else {
                    permits.replace();
                    self.shared.wake_next_in_line();
                }
            }
        }
    }

    /// Turns a loop until it is over or taken over.
    fn hold<'a>(&'a self, seat: usize, mut event_loop: MutexGuard<'a, EventLoop>, desk: &mut Desk) {
        loop {
            match event_loop.turn(desk) {
                // For the benchmark alone: what the hand-off costs is the difference.
                Ok(Turn::Call) if cfg!(allout_no_handoff) => {
                    let response = self.shared.call(&desk.request());
                    self.word(seat).withdraw();
                    event_loop.answer(response, desk);
                }
                Ok(Turn::Call) => match self.serve(seat, event_loop, desk) {
                    Some(taken_back) => event_loop = taken_back,
                    None => return,
                },
                Ok(Turn::Over) => return self.end_loop(seat, Ok(event_loop.take_cut_off())),
                Err(error) => return self.end_loop(seat, Err(format!("cannot wait for readiness: {error}"))),
            }
        }
    }

    /// At the deadline: cuts off what a loop holds that lies in its slot still, for want of a thread that could have
    /// taken it over from its handler.
    pub(super) fn cut_off_lent(&self, seat: usize) -> Option<CutOff> {
        let (permits, lending) = (&self.shared.permits, self.shared.permits.words[seat].look());
        if !lending.is_lent() {
            return None;
        }
        permits.displace();
        if !permits.words[seat].claim(lending) {
            permits.replace();
            return None;
        }
        let mut event_loop = self.slot(seat);
        event_loop.go_on_without_caller();
        event_loop.cut_off(&mut Desk::new());
        Some(event_loop.take_cut_off())
    }

    /// Calls the handler for the request on the desk, and lets go of the loop meanwhile. `None`: it was taken over.
    fn serve<'a>(
        &'a self,
        seat: usize,
        mut event_loop: MutexGuard<'a, EventLoop>,
        desk: &mut Desk,
    ) -> Option<MutexGuard<'a, EventLoop>> {
        let upload = event_loop.take_upload(desk);
        let lending = self.let_go(seat, event_loop);
        let answer = match upload {
            Some(upload) => upload.run(&self.shared),
            None => {
                let response = self.shared.call(&desk.request());
                if !response.is_streamed() && self.word(seat).claim(lending) {
                    let mut event_loop = self.take_back(seat);
                    event_loop.answer(response, desk);
                    return Some(event_loop);
                }
                desk.take_answer(response)
            }
        };
        let mut lending = lending;
        let parcel = self.finish(seat, &mut lending, answer, desk);
        if self.word(seat).claim(lending) {
            let mut event_loop = self.take_back(seat);
            event_loop.go_on_without_caller();
            if let Some(parcel) = parcel {
                event_loop.take_parcel(parcel, desk);
            }
            return Some(event_loop);
        }
        // Before the loop hears of it: the end may follow at once, and waits for threads without a handler alone.
        self.shared.permits.replace();
        // Refused if the loop has ended: the connection was cut off at the deadline.
        let _ = parcel.map(|parcel| self.shared.seats[seat].inbox.push(parcel));
        self.shared.wake_next_in_line();
        None
    }

    /// Writes the body of an answer if it is streamed. Gives what is left to tell the loop, nothing if it has no such
    /// connection any more.
    fn finish(&self, seat: usize, lending: &mut Sight, mut answer: Answer, desk: &mut Desk) -> Option<Parcel> {
        let Some(write) = answer.take_write() else { return Some(Parcel::Answer(answer)) };
        write_body(answer, write, |answer| {
            if self.word(seat).borrow(*lending) {
                let mut event_loop = self.slot(seat);
                event_loop.go_on_without_caller();
                let download = event_loop.start_download(answer, desk);
                *lending = self.let_go(seat, event_loop);
                return download;
            }
            let (reply, download) = sync_channel(1);
            let _ = self.shared.seats[seat].inbox.push(Parcel::Asked(Box::new(answer), reply));
            download.recv().ok()
        })
    }

    /// From here on the loop may be taken over.
    fn let_go(&self, seat: usize, event_loop: MutexGuard<'_, EventLoop>) -> Sight {
        let lending = self.word(seat).lend();
        drop(event_loop);
        self.ring();
        lending
    }

    /// The loop has been claimed.
    fn take_back(&self, seat: usize) -> MutexGuard<'_, EventLoop> {
        let event_loop = self.slot(seat);
        self.shared.wake_next_in_line();
        event_loop
    }

    fn word(&self, seat: usize) -> &Word {
        &self.shared.permits.words[seat]
    }

    /// Wakes the watcher if it sleeps.
    fn ring(&self) {
        if self.is_watcher_asleep.load(Ordering::SeqCst) && self.is_watcher_asleep.swap(false, Ordering::SeqCst) {
            drop(self.roster());
            self.watch_changed.notify_all();
        }
    }

    pub(super) fn end_loop(&self, seat: usize, end: LoopEnd) {
        if let Err(error) = &end {
            let who = format!("event loop {seat}");
            self.shared.stop.trigger(Cause::Failed { who, error: error.clone() });
        }
        self.roster().ends.push(end);
        self.watch_changed.notify_all();
    }

    /// All loops have ended: spares may go.
    pub(super) fn dismiss(&self) {
        self.roster().is_over = true;
        self.tasks_changed.notify_all();
    }

    /// Joins the threads that are done.
    pub(super) fn join(&self) {
        let left = self.roster().take_left();
        join_all(left);
    }

    pub(super) fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, seat: usize) -> MutexGuard<'_, EventLoop> {
        self.slots[seat].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Roster {
    fn take_left(&mut self) -> Vec<JoinHandle<()>> {
        let left = std::mem::take(&mut self.left);
        let (done, threads) =
            std::mem::take(&mut self.threads).into_iter().partition(|(number, _)| left.contains(number));
        self.threads = threads;
        let done: Vec<(usize, JoinHandle<()>)> = done;
        done.into_iter().map(|(_, handle)| handle).collect()
    }
}

/// They have nothing more to do but to end.
fn join_all(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        let _ = thread.join();
    }
}
