//! Lines on stderr that never hold anybody up: one that is closed, full or read by nobody costs its lines, not the
//! server. A thread of its own writes them; what it cannot keep up with is dropped, and the number is told.

use std::fmt;
use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

/// Lines that may wait to be written: some hundred kilobytes at most.
const LINES_MAX: usize = 1024;
/// How long the end of the process waits for the last lines.
const FLUSH: Duration = Duration::from_millis(200);

enum Entry {
    Line(String),
    /// All before it has been written: answer.
    Flush(SyncSender<()>),
}

static QUEUE: OnceLock<SyncSender<Entry>> = OnceLock::new();
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Starts the thread. Without one, lines are written by whoever says them.
pub(crate) fn start() {
    let (sender, receiver) = sync_channel(LINES_MAX);
    if thread::Builder::new().name("log".to_owned()).spawn(move || write_all(&receiver)).is_ok() {
        let _ = QUEUE.set(sender);
    }
}

/// Says one line.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    let line = format!("{line}\n");
    match QUEUE.get() {
        None => write(&line),
        Some(queue) => {
            if queue.try_send(Entry::Line(line)).is_err() {
                DROPPED.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Waits until all that was said is written, but not for long.
pub(crate) fn flush() {
    let (sender, written) = sync_channel(1);
    if QUEUE.get().is_some_and(|queue| queue.try_send(Entry::Flush(sender)).is_ok()) {
        let _ = written.recv_timeout(FLUSH);
    }
}

fn write_all(entries: &Receiver<Entry>) {
    for entry in entries {
        match entry {
            Entry::Line(line) => write(&line),
            Entry::Flush(sender) => _ = sender.try_send(()),
        }
        match DROPPED.swap(0, Ordering::Relaxed) {
            0 => {}
            count => write(&format!("({count} lines were dropped, since nobody read them)\n")),
        }
    }
}

/// In one piece, so that lines of several processes do not mix.
fn write(line: &str) {
    let _ = std::io::stderr().write_all(line.as_bytes());
}
