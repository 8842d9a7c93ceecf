//! The threads: they hold loops, call handlers, and are spare in between.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::word::{Snapshot, Word};
use crate::group::CutOff;
use crate::helpers::Helpers;
use crate::panics::caught;
use crate::server::buffer::{Answer, Caller, ReadBuffer};
use crate::server::event_loop::{EventLoop, Turn};
use crate::server::inbox::Message;
use crate::server::presence::Client;
use crate::server::reply::reply;
use crate::server::shared::Shared;
use crate::server::streaming::{Streamed, Upload, write_body};
use crate::server::table::Token;
use crate::stop::Cause;
use crate::sync::{self, Arc, AtomicBool, Builder, Condvar, JoinHandle, Mutex, MutexGuard, Ordering};

/// A spare that has had no task for this long ends, unless it is among the last (one per loop).
const SPARE_TIME: Duration = if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(10) };

/// Loops, and the threads that run them.
pub(super) struct WorkerPool {
    pub(super) shared: Arc<Shared>,
    slots: Vec<Mutex<EventLoop>>,
    state: Mutex<PoolState>,
    /// For spares: there is a task, or all is over.
    tasks_changed: Condvar,
    /// For the watcher: the stop has come, a loop has ended, a thread has left, or `ring` was called.
    pub(super) watch_changed: Condvar,
    /// The watcher sleeps: wake it before calling a handler.
    pub(super) is_watcher_asleep: AtomicBool,
}

pub(super) struct PoolState {
    tasks: VecDeque<Task>,
    /// How many threads have no task.
    idle: usize,
    /// How many threads have not ended.
    pub(super) alive: usize,
    spawned: usize,
    /// The threads that run, by number.
    threads: Vec<(usize, JoinHandle<()>)>,
    /// The threads that ended after all was over.
    left: Vec<JoinHandle<()>>,
    is_over: bool,
    /// For each loop, how it ended, if it has.
    pub(super) ends: Vec<Option<LoopEnd>>,
}

/// How one loop ended.
#[derive(Debug, Default)]
pub(super) struct LoopEnd {
    pub(super) cut_off: CutOff,
    /// Why the loop could not go on.
    pub(super) error: Option<String>,
}

/// What a thread is needed for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Task {
    /// Run a loop that no thread has run yet.
    Start(usize),
    /// Take a loop over from a slow handler, if it still lies in its slot.
    TakeOver(usize, Snapshot),
}

impl WorkerPool {
    pub(super) fn new(event_loops: Vec<EventLoop>, shared: Arc<Shared>) -> Arc<Self> {
        let state = PoolState {
            tasks: VecDeque::new(),
            idle: 0,
            alive: 0,
            spawned: 0,
            threads: Vec::new(),
            left: Vec::new(),
            is_over: false,
            ends: event_loops.iter().map(|_| None).collect(),
        };
        Arc::new(Self {
            shared,
            slots: event_loops.into_iter().map(Mutex::new).collect(),
            state: Mutex::new(state),
            tasks_changed: Condvar::new(),
            watch_changed: Condvar::new(),
            is_watcher_asleep: AtomicBool::new(false),
        })
    }

    /// Gives a task to a spare, or to a new thread if there is no spare.
    pub(super) fn dispatch(self: &Arc<Self>, task: Task) -> std::io::Result<()> {
        let mut state = self.state();
        if state.idle > state.tasks.len() {
            state.tasks.push_back(task);
            self.tasks_changed.notify_one();
            return Ok(());
        }
        let number = state.spawned;
        let mut builder = Builder::new().name(format!("worker-{number}"));
        if let Some(bytes) = self.shared.config.stack_bytes {
            builder = builder.stack_size(bytes);
        }
        let pool = Arc::clone(self);
        let handle = sync::spawn(builder, Box::new(move || pool.work(number, task)))?;
        state.spawned += 1;
        state.alive += 1;
        state.threads.push((number, handle));
        Ok(())
    }

    /// The life of a thread.
    fn work(self: Arc<Self>, number: usize, first: Task) {
        let mut buffer = ReadBuffer::new();
        let mut task = Some(first);
        while let Some(next) = task.take().or_else(|| self.next_task()) {
            let (Task::Start(index) | Task::TakeOver(index, _)) = next;
            // `answer_late` catches panics in what the thread does without the loop.
            if let Err(panic) = caught(|| self.perform(next, &mut buffer)) {
                self.bury(index, format!("panicked: {panic}"));
                buffer = ReadBuffer::new();
            }
        }
        let mut state = self.state();
        state.alive -= 1;
        let handle = state.take_handle(number);
        if state.is_over {
            state.left.extend(handle);
            drop(state);
        } else {
            // Nobody joins it: ending may take any time, if a handler's thread-local value blocks when dropped.
            drop((state, handle));
        }
        self.watch_changed.notify_all();
    }

    fn next_task(&self) -> Option<Task> {
        let mut state = self.state();
        state.idle += 1;
        let task = loop {
            if let Some(task) = state.tasks.pop_front() {
                break Some(task);
            }
            if state.is_over {
                break None;
            }
            let waited = self.tasks_changed.wait_timeout(state, SPARE_TIME);
            state = waited.0;
            if waited.1 && state.tasks.is_empty() && state.idle > self.slots.len() {
                break None;
            }
        };
        state.idle -= 1;
        task
    }

    fn perform(&self, task: Task, buffer: &mut ReadBuffer) {
        match task {
            Task::Start(index) => self.hold(index, self.slot(index), buffer),
            Task::TakeOver(index, lending) => {
                let permits = &self.shared.permits;
                permits.displace();
                if permits.words[index].claim(lending) {
                    self.shared.totals.add_hand_off();
                    // Until the claim, this handler counted twice, which may have denied another a permit.
                    self.shared.wake_next_in_line();
                    let mut event_loop = self.slot(index);
                    event_loop.go_on_without_caller();
                    self.hold(index, event_loop, buffer);
                } else {
                    permits.replace();
                    self.shared.wake_next_in_line();
                }
            }
        }
    }

    /// Runs a loop until it is over or taken over.
    fn hold<'a>(&'a self, index: usize, mut event_loop: MutexGuard<'a, EventLoop>, buffer: &mut ReadBuffer) {
        loop {
            let taken_back = match event_loop.turn(buffer) {
                // For the benchmark only: the difference is the cost of the hand-off.
                Ok(Turn::Call(ref caller)) if cfg!(allout_no_handoff) => {
                    let response = self.shared.call(&buffer.request(&caller.peer));
                    self.word(index).withdraw();
                    event_loop.answer(response, buffer);
                    Some(event_loop)
                }
                Ok(Turn::Call(ref caller)) => self.serve(index, event_loop, caller, buffer),
                Ok(Turn::Stream(upload)) => self.stream(index, event_loop, *upload, buffer),
                Ok(Turn::Over) => {
                    return self.end_loop(index, LoopEnd { cut_off: event_loop.take_cut_off(), error: None });
                }
                Err(error) => {
                    drop(event_loop);
                    return self.bury(index, format!("cannot wait for readiness: {error}"));
                }
            };
            match taken_back {
                Some(taken_back) => event_loop = taken_back,
                None => return,
            }
        }
    }

    /// A loop that this thread holds cannot go on, by a fault of our own, so the server ends. In whatever state the
    /// loop is, nobody gives it anything or waits for it any more, and its clients see their connections end.
    pub(super) fn bury(&self, index: usize, error: String) {
        let who = format!("event loop {index}");
        self.shared.stop.trigger(Cause::Failed { who, error: error.clone() });
        let cut_off = caught(|| {
            let mut event_loop = self.slot(index);
            event_loop.die(&mut ReadBuffer::new());
            event_loop.take_cut_off()
        });
        self.word(index).withdraw();
        self.end_loop(index, LoopEnd { cut_off: cut_off.unwrap_or_default(), error: Some(error) });
    }

    /// At the deadline: cuts off the connections of a loop that still lies in its slot, because no thread could take it
    /// over from its handler.
    pub(super) fn cut_off_lent(&self, index: usize) {
        let (permits, lending) = (&self.shared.permits, self.shared.permits.words[index].load());
        if !lending.is_lent() {
            return;
        }
        permits.displace();
        if !permits.words[index].claim(lending) {
            permits.replace();
            return;
        }
        let mut event_loop = self.slot(index);
        event_loop.go_on_without_caller();
        let mut buffer = ReadBuffer::new();
        event_loop.cut_off(&mut buffer);
        event_loop.die(&mut buffer);
        self.end_loop(index, LoopEnd { cut_off: event_loop.take_cut_off(), error: None });
    }

    /// Calls the handler for the request in the buffer, and lets go of the loop meanwhile. `None`: a spare has taken
    /// over the loop.
    fn serve<'a>(
        &'a self,
        index: usize,
        event_loop: MutexGuard<'a, EventLoop>,
        caller: &Caller,
        buffer: &mut ReadBuffer,
    ) -> Option<MutexGuard<'a, EventLoop>> {
        let lending = self.let_go(index, event_loop);
        let client = Client::of(&self.shared, index, caller.token);
        let response = self.shared.call(&buffer.request(&caller.peer).of(&client));
        if !response.is_streamed() && self.word(index).claim(lending) {
            let mut event_loop = self.take_back(index);
            event_loop.answer(response, buffer);
            return Some(event_loop);
        }
        let token = caller.token;
        self.answer_late(index, lending, token, buffer, |buffer| buffer.take_answer(token, response))
    }

    /// The same for a handler that reads the request's body itself.
    fn stream<'a>(
        &'a self,
        index: usize,
        event_loop: MutexGuard<'a, EventLoop>,
        upload: Upload,
        buffer: &mut ReadBuffer,
    ) -> Option<MutexGuard<'a, EventLoop>> {
        let lending = self.let_go(index, event_loop);
        self.answer_late(index, lending, upload.token(), buffer, |_| upload.run(&self.shared))
    }

    /// Gives the loop an answer that is streamed, or whose connection is away.
    fn answer_late(
        &self,
        index: usize,
        mut lending: Snapshot,
        token: Token,
        buffer: &mut ReadBuffer,
        answer: impl FnOnce(&mut ReadBuffer) -> Answer,
    ) -> Option<MutexGuard<'_, EventLoop>> {
        let mut is_buried = false;
        let finished = caught(|| {
            let answer = answer(buffer);
            self.finish(index, &mut lending, &mut is_buried, answer, buffer)
        });
        let message = finished.unwrap_or_else(|panic| {
            // A fault of our own, on a thread without a loop. The connection is lost, and the server ends.
            let who = format!("a worker of event loop {index}");
            self.shared.stop.trigger(Cause::Failed { who, error: format!("panicked: {panic}") });
            *buffer = ReadBuffer::new();
            Some(Message::Streamed(Streamed::lost(token)))
        });
        if is_buried {
            return None;
        }
        if self.word(index).claim(lending) {
            let mut event_loop = self.take_back(index);
            event_loop.go_on_without_caller();
            if let Some(message) = message {
                event_loop.take_message(message, buffer);
            }
            return Some(event_loop);
        }
        // Before the loop gets the message: the server's end may follow at once, and waits only for threads without a
        // handler.
        self.shared.permits.replace();
        // The inbox refuses it if the loop has ended: then the connection was cut off at the deadline.
        let _ = message.map(|message| self.shared.loops[index].inbox.push(message));
        self.shared.wake_next_in_line();
        None
    }

    /// Writes an answer's body if it is streamed. Returns the message for the loop; `None` if the loop no longer has
    /// the connection.
    fn finish(
        &self,
        index: usize,
        lending: &mut Snapshot,
        is_buried: &mut bool,
        mut answer: Answer,
        buffer: &mut ReadBuffer,
    ) -> Option<Message> {
        let Some(write) = answer.take_write() else { return Some(Message::Answer(answer)) };
        let end = write_body(answer, write, |answer| {
            if self.word(index).borrow(*lending) {
                let started = caught(|| {
                    let mut event_loop = self.slot(index);
                    event_loop.go_on_without_caller();
                    let download = event_loop.start_download(answer, buffer);
                    (self.let_go(index, event_loop), download)
                });
                return match started {
                    Ok((again, download)) => {
                        *lending = again;
                        download
                    }
                    Err(panic) => {
                        *is_buried = true;
                        self.bury(index, format!("panicked: {panic}"));
                        None
                    }
                };
            }
            let (reply, download) = reply();
            let _ = self.shared.loops[index].inbox.push(Message::Asked(Box::new(answer), reply));
            download.wait(None)
        });
        end.map(|end| end.map_or_else(|answer| Message::Answer(*answer), Message::Streamed))
    }

    /// Lends the loop: from here on a spare may take it over.
    fn let_go(&self, index: usize, event_loop: MutexGuard<'_, EventLoop>) -> Snapshot {
        let lending = self.word(index).lend();
        drop(event_loop);
        self.ring();
        lending
    }

    /// Locks a loop that this thread has claimed.
    fn take_back(&self, index: usize) -> MutexGuard<'_, EventLoop> {
        let event_loop = self.slot(index);
        self.shared.wake_next_in_line();
        event_loop
    }

    fn word(&self, index: usize) -> &Word {
        &self.shared.permits.words[index]
    }

    /// Wakes the watcher if it sleeps.
    fn ring(&self) {
        if self.is_watcher_asleep.load(Ordering::SeqCst) && self.is_watcher_asleep.swap(false, Ordering::SeqCst) {
            drop(self.state());
            self.watch_changed.notify_all();
        }
    }

    pub(super) fn end_loop(&self, index: usize, end: LoopEnd) {
        // The loop may have had no time in its last pass to publish its queue: no request may queue behind one that has
        // gone.
        self.shared.permits.publish(index, None);
        self.shared.wake_next_in_line();
        self.state().ends[index].get_or_insert(end);
        self.watch_changed.notify_all();
    }

    /// All loops have ended: spares may go.
    pub(super) fn dismiss(&self) {
        self.state().is_over = true;
        self.tasks_changed.notify_all();
    }

    /// Joins the threads that ended after all was over, but not past `until`. They only have to end, which takes no
    /// time unless a thread-local value blocks when dropped. std cannot give up a join, and its `is_finished` does not
    /// wait for such values. So a helper joins: it stays stuck with a thread that does not end, and nobody waits for
    /// the helper.
    pub(super) fn join(&self, until: Instant) {
        if until <= sync::now() {
            return;
        }
        let threads = std::mem::take(&mut self.state().left);
        let helpers = Helpers::new();
        helpers.put(move || threads.into_iter().for_each(|thread| _ = thread.join()));
        helpers.begin();
        if helpers.wait(|_| until) {
            helpers.join();
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock()
    }

    fn slot(&self, index: usize) -> MutexGuard<'_, EventLoop> {
        self.slots[index].lock()
    }
}

impl PoolState {
    pub(super) fn are_all_over(&self) -> bool {
        self.ends.iter().all(Option::is_some)
    }

    fn take_handle(&mut self, number: usize) -> Option<JoinHandle<()>> {
        let at = self.threads.iter().position(|(of, _)| *of == number)?;
        Some(self.threads.swap_remove(at).1)
    }
}
