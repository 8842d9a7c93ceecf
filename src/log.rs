//! Lines on stderr that never hold anybody up: if stderr is closed, full or not read, that costs lines, not the server.
//! A thread of its own writes them. It drops what it cannot keep up with, oldest first, and writes how many lines were
//! dropped in their place. So the last line, which says how everything ended, is always written last.

use std::collections::VecDeque;
use std::fmt;
use std::io::{ErrorKind, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::threads;

/// How many lines may wait to be written: some hundred kilobytes at most.
const LINES_MAX: usize = 1024;
/// How long the process waits at its end while lines are being written, and how long for any one line.
const FLUSH_TIME: Duration = Duration::from_secs(1);
const LINE_TIME: Duration = Duration::from_millis(100);
/// How long to wait before writing again to a non-blocking stderr that is full.
const PAUSE: Duration = Duration::from_millis(5);

struct Log {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    has_thread: bool,
    lines: VecDeque<String>,
    /// How many lines were dropped from before those in `lines`.
    dropped: usize,
    /// The thread has taken a line and not written it yet.
    is_writing: bool,
    /// How many lines have been written.
    written: usize,
}

static LOG: Log = Log {
    state: Mutex::new(State { has_thread: false, lines: VecDeque::new(), dropped: 0, is_writing: false, written: 0 }),
    changed: Condvar::new(),
};

/// Starts the thread. Without it, `say` writes each line itself.
pub(crate) fn start() {
    let mut state = LOG.state();
    state.has_thread = threads::start("log", Box::new(|| LOG.write_all())).is_ok();
}

/// Queues one line, or writes it if there is no thread. It stays one, whatever a panic's text or a variable holds.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    let line = line.to_string().replace(char::is_control, " ") + "\n";
    let mut state = LOG.state();
    if state.has_thread {
        state.lines.push_back(line);
        state.drop_all_but(LINES_MAX);
        LOG.changed.notify_all();
    } else {
        drop(state);
        write(&line);
    }
}

/// Waits until all lines are written, while somebody reads them. Of those left, tries only the last one once more.
pub(crate) fn flush() {
    let end = Instant::now() + FLUSH_TIME;
    let mut state = LOG.state();
    loop {
        let written = state.written;
        state = LOG.wait(state, LINE_TIME, |state| state.written == written && !state.is_done());
        if state.written == written || Instant::now() >= end {
            break;
        }
    }
    state.drop_all_but(1);
    drop(LOG.wait(state, LINE_TIME, |state| !state.is_done()));
}

impl Log {
    fn write_all(&self) {
        let mut state = self.state();
        loop {
            let Some(mut line) = state.lines.pop_front() else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let dropped = std::mem::take(&mut state.dropped);
            state.is_writing = true;
            drop(state);
            if dropped > 0 {
                line = format!("({dropped} lines were dropped, since nobody read them)\n{line}");
            }
            write(&line);
            state = self.state();
            state.is_writing = false;
            state.written += 1;
            self.changed.notify_all();
        }
    }

    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        time: Duration,
        goes_on: impl Fn(&State) -> bool,
    ) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout_while(state, time, |state| goes_on(state));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    // Nothing panics while this is locked.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_done(&self) -> bool {
        self.lines.is_empty() && !self.is_writing
    }

    fn drop_all_but(&mut self, count: usize) {
        let surplus = self.lines.len().saturating_sub(count);
        self.lines.drain(..surplus);
        self.dropped += surplus;
    }
}

/// In one piece, so that lines of several processes do not mix.
fn write(text: &str) {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        match std::io::stderr().write(rest) {
            Ok(0) => return,
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
            Err(_) => return,
        }
    }
}
