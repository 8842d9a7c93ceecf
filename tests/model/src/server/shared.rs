//! What loops share, and the handler: it takes any number of steps, and counts how many run at once.

use super::handoff::Permits;
use super::inbox::Inbox;
use super::notice::Notice;
use crate::group::CutOff;
use crate::http::{Request, Response};
use crate::stop::Stop;
use crate::sync::{Arc, AtomicUsize, Mutex, Ordering};

pub(crate) struct Config {
    pub(crate) stack_bytes: Option<usize>,
}

pub(crate) struct LoopHandle {
    pub(crate) inbox: Inbox,
    pub(crate) counted: Mutex<Option<CutOff>>,
}

pub(crate) struct Totals;

impl Totals {
    pub(crate) fn add_cut_off(&self, count: usize) {
        assert_eq!(count, 0, "nothing is ever cut off here: the deadline is far away");
    }

    pub(crate) fn add_hand_off(&self) {}
}

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) stop: Stop,
    pub(crate) loops: Vec<LoopHandle>,
    pub(crate) permits: Permits,
    pub(crate) totals: Totals,
    pub(crate) looks: AtomicUsize,
    pub(crate) handlers_max: usize,
    pub(crate) handlers: AtomicUsize,
    /// Requests that were asked, and how often each was answered: those of clients, and as many that may follow them.
    /// Of std, so that looking at it is no step of a schedule.
    pub(crate) asked: Vec<std::sync::atomic::AtomicBool>,
    pub(crate) answered: Vec<std::sync::atomic::AtomicUsize>,
    /// A rule that was broken on a thread whose panics are caught.
    pub(crate) broken: std::sync::Mutex<Option<String>>,
}

impl Shared {
    pub(crate) fn call(self: &Arc<Self>, request: &Request) -> Response {
        let running = self.handlers.fetch_add(1, Ordering::SeqCst) + 1;
        if running > self.handlers_max {
            self.break_rule(format!("{running} handlers at once"));
        }
        for _ in 0..request.0 % 3 {
            shuttle::thread::yield_now();
        }
        self.handlers.fetch_sub(1, Ordering::SeqCst);
        Response(request.0, Arc::clone(self))
    }

    /// The request that follows on the connection of this one: every other client's first request has one.
    pub(crate) fn follower(&self, id: usize) -> Option<usize> {
        let clients = self.asked.len() / 2;
        (id < clients && id & 1 == 0).then_some(clients + id)
    }

    pub(crate) fn ask(&self, id: usize) {
        self.asked[id].store(true, std::sync::atomic::Ordering::SeqCst);
    }

    pub(crate) fn answer(&self, id: usize) {
        self.answered[id].fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }

    pub(crate) fn break_rule(&self, rule: String) {
        self.broken.lock().unwrap().get_or_insert(rule);
    }

    pub(crate) fn tell(&self, notice: &Notice<'_>) {
        let Notice::ThreadFailed { error } = notice;
        self.break_rule(error.to_string());
    }

    pub(crate) fn wake_next_in_line(&self) {
        if let Some(next) = self.permits.next_in_line() {
            self.loops[next].inbox.wake();
        }
    }
}
