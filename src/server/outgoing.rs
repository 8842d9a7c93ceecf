//! Answers on their way out: the loop's buffer for one batch, and what a connection keeps of it if the peer is slow.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::buffer::Exchange;
use super::counts::Counts;
use super::patience::Patience;
use super::stream::{Moved, Stream};
use crate::http::{AfterAnswer, ImfDate, Persistence, Response, encode, imf_date};
use crate::sync::{self, Arc, AtomicUsize, Ordering};

/// Answers that leave with one write.
#[derive(Debug)]
pub(crate) struct Outgoing {
    bytes: Vec<u8>,
    /// Where each answer ends, and what to call when it has left.
    endings: VecDeque<Ending>,
    date: Date,
    /// How long a peer may take for bytes that it does not take at once.
    patience: Duration,
    /// What the loop has done.
    counts: Arc<Counts>,
}

#[derive(Debug)]
struct Ending {
    at: usize,
    /// It answers a whole request. Nobody is owed the refusal of an incomplete one.
    is_owed: bool,
    /// Called when dropped.
    after: AfterAnswer,
}

/// What could not be written at once.
#[derive(Debug)]
pub(crate) struct Unsent {
    bytes: Vec<u8>,
    sent: usize,
    endings: VecDeque<Ending>,
    patience: Patience,
    since: Instant,
    /// When a write was tried last.
    tried_at: Instant,
    /// For the loop, which gave these answers to a handler's thread: how many of them have not left.
    shared_count: Option<Arc<AtomicUsize>>,
}

/// The result of a write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// How many answers have left in full.
    pub(crate) answers: u64,
    pub(crate) bytes: usize,
    /// The connection is broken.
    pub(crate) has_failed: bool,
}

/// How much memory a batch may have grown to and still be kept for the next one.
const KEPT_BYTES: usize = 256 * 1024;

impl Outgoing {
    pub(crate) fn new(counts: Arc<Counts>, patience: Duration, now: Instant) -> Self {
        Self { bytes: Vec::new(), endings: VecDeque::new(), date: Date::new(now), patience, counts }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Adds an answer.
    pub(crate) fn push(&mut self, mut response: Response, to: Exchange, persistence: Persistence, now: Instant) {
        self.push_head(&response, to, persistence, now);
        self.endings.push_back(Ending { at: self.bytes.len(), is_owed: true, after: response.take_after() });
    }

    /// Adds the refusal of an incomplete or unserved request. It does not count as an answer, and is the last.
    pub(crate) fn push_refusal(&mut self, response: Response, head_only: bool, now: Instant) {
        self.push(response, Exchange::last(head_only), Persistence::Close, now);
        if let Some(ending) = self.endings.back_mut() {
            ending.is_owed = false;
        }
    }

    /// Adds the head of an answer whose body a handler's thread sends.
    pub(crate) fn push_head(&mut self, response: &Response, to: Exchange, persistence: Persistence, now: Instant) {
        self.counts.answer(response.status().code());
        encode(response, to.version, to.is_head, persistence, self.date.at(now), &mut self.bytes);
    }

    /// Adds an interim response, which does not count as an answer.
    pub(crate) fn push_interim(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Writes as much as the peer takes. Returns the rest, for the connection to keep.
    pub(crate) fn write(&mut self, stream: &Stream, now: Instant) -> (Written, Option<Box<Unsent>>) {
        let mut sent = 0;
        let written = write(stream, &self.bytes, &mut sent, &mut self.endings);
        self.counts.bytes_out.add(written.bytes as u64);
        let is_partial = sent < self.bytes.len() && !written.has_failed;
        let unsent = is_partial.then(|| {
            let mut endings = std::mem::take(&mut self.endings);
            for ending in &mut endings {
                ending.at -= sent;
            }
            self.unsent(self.bytes[sent..].to_vec(), endings, now)
        });
        self.clear();
        (written, unsent)
    }

    fn unsent(&self, bytes: Vec<u8>, endings: VecDeque<Ending>, now: Instant) -> Box<Unsent> {
        Box::new(Unsent {
            bytes,
            sent: 0,
            endings,
            patience: Patience::new(self.patience),
            since: now,
            tried_at: now,
            shared_count: None,
        })
    }

    /// Appends the gathered bytes to those that a peer has not taken yet.
    pub(crate) fn append_to(&mut self, unsent: &mut Unsent) {
        let before = unsent.bytes.len();
        unsent.bytes.append(&mut self.bytes);
        unsent.endings.extend(self.endings.drain(..).map(|ending| Ending { at: before + ending.at, ..ending }));
    }

    /// Takes the gathered bytes, for a handler's thread to send.
    pub(crate) fn take(&mut self, now: Instant) -> Box<Unsent> {
        let (bytes, endings) = (std::mem::take(&mut self.bytes), std::mem::take(&mut self.endings));
        self.unsent(bytes, endings, now)
    }

    /// Drops the gathered bytes: those answers are lost. Their closures are called.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
        self.endings.clear();
    }
}

impl Unsent {
    /// Writes on. Once nothing is left, `is_done` is true.
    pub(crate) fn write(&mut self, stream: &Stream, now: Instant) -> Written {
        let written = write(stream, &self.bytes, &mut self.sent, &mut self.endings);
        self.patience.spend(now.saturating_duration_since(self.tried_at));
        self.patience.earn(written.bytes);
        self.tried_at = now;
        written
    }

    /// True if, at `now`, the peer has taken too long.
    pub(crate) fn is_overdue(&self, now: Instant) -> bool {
        self.patience.left() <= now.saturating_duration_since(self.tried_at)
    }

    /// When the first of it could not be written.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    /// Adds bytes that do not end an answer.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Somebody else has sent all of it.
    pub(crate) fn end(self) {
        self.endings.into_iter().for_each(|ending| ending.after.end(0, true));
    }

    /// What the peer has yet to take.
    pub(crate) fn rest(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or_default()
    }

    pub(crate) fn is_done(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Makes the number of these answers known to the loop, if there are any, until they have left.
    pub(crate) fn share_count(&mut self) -> Option<Arc<AtomicUsize>> {
        self.shared_count = (self.answers() > 0).then(|| Arc::new(AtomicUsize::new(self.answers())));
        self.shared_count.clone()
    }

    /// A handler's thread has sent so many bytes of the rest.
    pub(crate) fn note_left(&self, bytes: usize) {
        if let Some(count) = &self.shared_count {
            let is_left = |ending: &&Ending| ending.is_owed && ending.at > self.sent + bytes;
            count.store(self.endings.iter().filter(is_left).count(), Ordering::Relaxed);
        }
    }

    /// How many answers have not left in full.
    pub(crate) fn answers(&self) -> usize {
        self.endings.iter().filter(|ending| ending.is_owed).count()
    }
}

/// Writes `bytes[*sent..]` until the socket would block: only then does the poller report room again.
fn write(stream: &Stream, bytes: &[u8], sent: &mut usize, endings: &mut VecDeque<Ending>) -> Written {
    let mut written = Written { answers: 0, bytes: 0, has_failed: false };
    while *sent < bytes.len() {
        match stream.write(&bytes[*sent..]) {
            Moved::Bytes(count) if count > 0 => {
                *sent += count;
                written.bytes += count;
            }
            Moved::WouldBlock => break,
            Moved::Bytes(_) | Moved::Failed => {
                written.has_failed = true;
                break;
            }
        }
    }
    while endings.front().is_some_and(|ending| ending.at <= *sent) {
        if let Some(ending) = endings.pop_front() {
            written.answers += u64::from(ending.is_owed);
            ending.after.end(0, true);
        }
    }
    written
}

/// The `Date` field, renewed once a second.
#[derive(Debug)]
struct Date {
    text: ImfDate,
    /// The clock's next full second.
    valid_until: Instant,
}

impl Date {
    fn new(now: Instant) -> Self {
        Self { text: imf_date(0), valid_until: now }
    }

    fn at(&mut self, now: Instant) -> &ImfDate {
        if now >= self.valid_until {
            let since_1970 = sync::since_1970();
            self.text = imf_date(since_1970.as_secs());
            let into_second = Duration::from_nanos(u64::from(since_1970.subsec_nanos()));
            self.valid_until = now + (Duration::from_secs(1) - into_second);
        }
        &self.text
    }
}
