//! The network: connections as two pipes with a length and buffers, listeners with their queues, and pollers.
//!
//! As Linux has it. What matters here: a close with unread bytes is a reset; what comes to a closed end is answered by a
//! reset; a reset takes what has not left yet with it, and at a client, by its nature, what it has not read; room to
//! write is reported once a third of the buffer is free; an edge-triggered report is made of news alone; an exclusive
//! listener wakes one of the pollers that wait.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};

use crate::plan::Fault;
use crate::world::{Event, MS, Nanos, SEC, Why, World};

/// From the client to the server, and back. Also which end: the one that sends that way.
pub(crate) const UP: usize = 0;
pub(crate) const DOWN: usize = 1;

/// EINTR, EAGAIN, ENOMEM, EINVAL, EMFILE, ECONNABORTED.
const ERRORS: [i32; 6] = [4, 11, 12, 22, 24, 103];

/// How often a client sends its SYN again.
const TRIES_MAX: u32 = 3;

#[derive(Default)]
pub(crate) struct Net {
    pub(crate) pipes: Vec<Connection>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) pollers: Vec<Poller>,
    /// Descriptors of connections that the server holds.
    pub(crate) descriptors: usize,
    /// No descriptor is to be had.
    pub(crate) is_dry: bool,
    /// The server has begun to serve: some faults make sense only then.
    pub(crate) is_serving: bool,
}

#[derive(Debug)]
enum Segment {
    Data(Vec<u8>),
    End,
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(crate) struct Half {
    /// Written, not sent yet.
    unsent: VecDeque<u8>,
    is_ending: bool,
    has_sent_end: bool,
    /// Sent or not, and not acknowledged.
    unacknowledged: usize,
    flight: VecDeque<(Nanos, Segment)>,
    last_at: Nanos,
    window: usize,
    room: usize,
    pub(crate) received: VecDeque<u8>,
    pub(crate) has_ended: bool,
    /// In all.
    pub(crate) written: u64,
    pub(crate) delivered: u64,
    pub(crate) read: u64,
}

/// One end of a connection.
#[derive(Debug, Default)]
pub(crate) struct End {
    pub(crate) is_closed: bool,
    /// A reset has come.
    pub(crate) is_reset: bool,
    /// It has not been told by a call yet.
    has_error: bool,
    pub(crate) has_shut: bool,
    pub(crate) is_deaf: bool,
    /// Does not answer any more, not even its system.
    pub(crate) is_vanished: bool,
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) client: usize,
    pub(crate) listener: usize,
    pub(crate) halves: [Half; 2],
    pub(crate) ends: [End; 2],
    pub(crate) latency: Nanos,
    tries: u32,
    pub(crate) is_accepted: bool,
    pub(crate) has_lost: bool,
    /// Left in the queue of a listener that others hold too.
    pub(crate) is_others: bool,
    registered: Option<(usize, u64)>,
    awaits_room: bool,
    lacks_room: bool,
    /// What a server's thread waits for, if its calls wait.
    pub(crate) wait: Option<Nanos>,
    /// When it came into the queue.
    queued_at: Nanos,
    /// When the server last tried to read.
    pub(crate) tried_at: Nanos,
    /// When the server ended its side or closed, and when it had tried to read last then.
    pub(crate) ended_at: Option<(Nanos, Nanos)>,
    /// Of each write of the server: from which byte on, when, and when it had tried to read last then.
    pub(crate) writes: Vec<(u64, Nanos, Nanos)>,
    /// All that the server has written.
    pub(crate) sent: Vec<u8>,
    /// How many bytes had come to the server's system, and since when.
    pub(crate) deliveries: Vec<(u64, Nanos)>,
    /// It could not be watched: it was closed for that.
    pub(crate) is_excused: bool,
    /// The server could not write all that it wanted to.
    pub(crate) was_blocked: bool,
    /// When the server's end was closed.
    pub(crate) closed_at: Option<Nanos>,
}

#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) queue: VecDeque<usize>,
    pub(crate) handshakes: Vec<usize>,
    pub(crate) is_open: bool,
    is_refusing: bool,
    pub(crate) kind: Kind,
    registered: Vec<(usize, u64)>,
    /// Errors that `accept` returns first.
    pub(crate) errors: VecDeque<i32>,
    /// It is broken.
    pub(crate) is_dead: bool,
    pub(crate) closed_at: Option<Nanos>,
    /// When an `accept` last found nobody.
    emptied_at: Nanos,
    pub(crate) reset_handshakes: Vec<(Nanos, usize)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// TCP, with a filter that keeps new handshakes out, or without.
    Filtered,
    Plain,
    Unix,
    /// Others hold it too.
    Shared,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watched {
    Connection(usize),
    Listener(usize),
}

#[derive(Default)]
pub(crate) struct Poller {
    watched: BTreeMap<u64, Watched>,
    ready: VecDeque<u64>,
    pub(crate) waiting: Option<usize>,
    /// Bytes in the socket that wakes it.
    pub(crate) wake_bytes: usize,
    /// The wait comes back with nothing.
    pub(crate) is_interrupted: bool,
    /// Waits in a row that found nothing although they did not wait.
    pub(crate) in_vain: u64,
}

pub(crate) const WAKER: u64 = u64::MAX;

/// The result of a call, as `Moved` has it.
pub(crate) enum Done {
    Bytes(usize),
    WouldBlock,
    Failed,
}

impl Connection {
    /// True if the server's end can send: it is not reset, and does not wait for room.
    pub(crate) fn takes_answers(&self) -> bool {
        !self.lacks_room && !self.ends[DOWN].is_reset
    }
}

impl Half {
    fn new(room: usize, window: usize) -> Self {
        Self { room, window, ..Self::default() }
    }

    fn free(&self) -> usize {
        self.room.saturating_sub(self.unacknowledged)
    }
}

impl Connection {
    /// What had come and was not read comes at that time. False if there is nothing.
    pub(crate) fn take_back(&mut self, at: Nanos) -> bool {
        let half = &mut self.halves[UP];
        if !half.received.is_empty() {
            let bytes: Vec<u8> = half.received.drain(..).collect();
            half.delivered -= bytes.len() as u64;
            half.unacknowledged += bytes.len();
            half.flight.push_front((at, Segment::Data(bytes)));
            return true;
        }
        if std::mem::take(&mut half.has_ended) {
            half.flight.push_front((at, Segment::End));
            return true;
        }
        false
    }

    /// Nothing more can be written until there is news of room.
    pub(crate) fn is_full(&mut self) {
        (self.lacks_room, self.was_blocked) = (true, true);
    }
}

impl Listener {
    pub(crate) fn is_refusing(&self) -> bool {
        self.is_refusing
    }
}

impl World {
    // ---- Connecting ------------------------------------------------------------------------------------------------

    /// A client connects. Returns the connection.
    pub(crate) fn connect(&mut self, client: usize, listener: usize) -> usize {
        let is_unix = self.net.listeners[listener].kind == Kind::Unix;
        let latency = if is_unix { 2_000 } else { self.latency_of(client) };
        let (up_room, up_window) = (self.paths.between(2_000, 60_000), self.paths.between(1_500, 120_000));
        // One byte at a time: a read finds no more.
        let is_bytewise = self.torture.as_ref().is_some_and(|torture| torture.is_sent_bytewise());
        let up_window = if is_bytewise { 1 } else { up_window };
        let small = self.plan.small_buffers || self.has_little_room(client);
        let (down_room, down_window) = if small {
            (self.paths.between(600, 8_000), self.paths.between(600, 8_000))
        } else {
            (self.paths.between(16_000, 200_000), self.paths.between(8_000, 200_000))
        };
        let number = self.net.pipes.len();
        self.net.pipes.push(Connection {
            client,
            listener,
            halves: [
                Half::new(up_room as usize, up_window as usize),
                Half::new(down_room as usize, down_window as usize),
            ],
            ends: Default::default(),
            latency,
            tries: 0,
            is_accepted: false,
            has_lost: false,
            is_others: false,
            registered: None,
            awaits_room: false,
            lacks_room: false,
            wait: None,
            queued_at: 0,
            tried_at: 0,
            ended_at: None,
            writes: Vec::new(),
            sent: Vec::new(),
            deliveries: Vec::new(),
            is_excused: false,
            was_blocked: false,
            closed_at: None,
        });
        self.note(|| format!("client {client} connects: connection {number}"));
        self.later(self.now + latency, Event::Syn(number));
        number
    }

    fn syn(&mut self, number: usize) {
        let connection = &mut self.net.pipes[number];
        if connection.ends[UP].is_closed {
            return;
        }
        let (latency, listener) = (connection.latency, connection.listener);
        let listener = &mut self.net.listeners[listener];
        match () {
            () if listener.is_dead || !listener.is_open && listener.kind != Kind::Shared => {
                self.later(self.now + latency, Event::Reset(number, UP));
            }
            () if listener.kind == Kind::Unix && listener.is_refusing => {
                self.later(self.now + latency, Event::Reset(number, UP));
            }
            () if listener.kind == Kind::Unix => {
                self.later(self.now + 1, Event::SynAck(number));
                self.enqueue(number);
            }
            () if listener.is_refusing => {
                connection.tries += 1;
                let again = self.now + (SEC << connection.tries) / 2;
                if connection.tries <= TRIES_MAX {
                    self.later(again, Event::Syn(number));
                } else {
                    self.later(again, Event::Reset(number, UP));
                }
            }
            () => {
                listener.handshakes.push(number);
                let late = if self.has(Fault::Loss) && self.paths.one_in(12) { SEC } else { 0 };
                self.later(self.now + latency + late, Event::SynAck(number));
            }
        }
    }

    fn syn_ack(&mut self, number: usize) {
        let connection = &mut self.net.pipes[number];
        if connection.ends[UP].is_closed || connection.ends[UP].is_reset || connection.ends[UP].is_vanished {
            return;
        }
        let (latency, client) = (connection.latency, connection.client);
        if self.net.listeners[connection.listener].kind != Kind::Unix {
            let late = if self.has(Fault::Loss) && self.paths.one_in(12) { SEC } else { 0 };
            let at = self.now + latency + late;
            self.net.pipes[number].halves[UP].last_at = at;
            self.later(at, Event::Handshaken(number));
        }
        self.at_connected(client, number);
    }

    fn handshaken(&mut self, number: usize) {
        let listener = self.net.pipes[number].listener;
        let handshakes = &mut self.net.listeners[listener].handshakes;
        let before = handshakes.len();
        handshakes.retain(|other| *other != number);
        if before != handshakes.len() {
            self.enqueue(number);
        }
    }

    fn enqueue(&mut self, number: usize) {
        let listener = self.net.pipes[number].listener;
        if !self.net.listeners[listener].is_open {
            // Of those who hold it still.
            self.net.pipes[number].is_others = true;
            return;
        }
        self.net.listeners[listener].queue.push_back(number);
        self.net.pipes[number].queued_at = self.now;
        self.note(|| format!("connection {number} is in the queue"));
        self.listener_has_news(listener);
    }

    pub(crate) fn listener_has_news(&mut self, listener: usize) {
        let watching = self.net.listeners[listener].registered.clone();
        if watching.is_empty() {
            return;
        }
        let first = self.order.index(watching.len());
        for at in 0..watching.len() {
            let (poller, token) = watching[(first + at) % watching.len()];
            // One that waits takes it; those that are at work see it in their next wait.
            if self.is_ready(poller, token) {
                return;
            }
        }
    }

    // ---- Listeners -------------------------------------------------------------------------------------------------

    pub(crate) fn listen(&mut self, kind: Kind) -> usize {
        self.net.listeners.push(Listener {
            queue: VecDeque::new(),
            handshakes: Vec::new(),
            is_open: true,
            is_refusing: false,
            kind,
            registered: Vec::new(),
            errors: VecDeque::new(),
            is_dead: false,
            closed_at: None,
            emptied_at: 0,
            reset_handshakes: Vec::new(),
        });
        self.net.listeners.len() - 1
    }

    /// The next connection, or the error of the system.
    pub(crate) fn accept(&mut self, number: usize) -> Result<usize, i32> {
        let [interrupted, empty, no_memory, invalid, no_descriptor, aborted] = ERRORS;
        if self.net.listeners[number].is_dead {
            return Err(invalid);
        }
        if let Some(error) = self.net.listeners[number].errors.pop_front() {
            return Err(error);
        }
        if self.has(Fault::Accept) && self.luck.one_in(12) {
            self.count("errors of accept");
            let error = self.luck.pick(&[interrupted, no_memory, aborted, no_descriptor]);
            return Err(error);
        }
        if self.net.is_dry && !self.is_calm {
            self.count("accepts without a descriptor");
            return Err(no_descriptor);
        }
        let Some(connection) = self.net.listeners[number].queue.pop_front() else {
            self.net.listeners[number].emptied_at = self.now;
            return Err(empty);
        };
        self.net.descriptors += 1;
        self.net.pipes[connection].is_accepted = true;
        self.net.pipes[connection].tried_at = self.now;
        self.note(|| format!("accepts connection {connection}"));
        Ok(connection)
    }

    /// From now on every `accept` fails, and whoever waits is reset, as when somebody shuts the socket down.
    pub(crate) fn break_listener(&mut self, number: usize) {
        let listener = &mut self.net.listeners[number];
        listener.is_dead = true;
        let waiting: Vec<usize> = listener.queue.drain(..).chain(listener.handshakes.drain(..)).collect();
        for connection in waiting {
            self.later(self.now + self.net.pipes[connection].latency, Event::Reset(connection, UP));
        }
        self.listener_has_news(number);
    }

    pub(crate) fn refuse_newcomers(&mut self, number: usize) -> bool {
        let listener = &mut self.net.listeners[number];
        listener.is_refusing = matches!(listener.kind, Kind::Filtered | Kind::Unix);
        let is_filtered = listener.kind == Kind::Filtered;
        self.note(|| format!("listener {number} refuses newcomers, as far as it can"));
        is_filtered
    }

    pub(crate) fn close_listener(&mut self, number: usize) {
        self.note(|| format!("listener {number} closes"));
        let now = self.now;
        let listener = &mut self.net.listeners[number];
        (listener.is_open, listener.closed_at) = (false, Some(now));
        for (poller, token) in std::mem::take(&mut listener.registered) {
            if listener.kind != Kind::Shared {
                self.net.pollers[poller].forget(token);
            }
        }
        let (queue, handshakes) = (std::mem::take(&mut listener.queue), std::mem::take(&mut listener.handshakes));
        if listener.kind == Kind::Shared {
            queue.into_iter().chain(handshakes).for_each(|number| self.net.pipes[number].is_others = true);
            return;
        }
        // Without a filter, who comes between the last look and the close is reset.
        let (is_open_to_all, emptied_at) = (listener.kind == Kind::Plain, listener.emptied_at);
        let reset = handshakes.iter().map(|number| (now, *number));
        listener.reset_handshakes.extend(reset.filter(|(_, number)| !self.net.pipes[*number].ends[UP].is_vanished));
        for connection in queue.into_iter().chain(handshakes) {
            let latency = self.net.pipes[connection].latency;
            self.net.pipes[connection].is_excused |=
                is_open_to_all && self.net.pipes[connection].queued_at > emptied_at && emptied_at + MS > now;
            self.net.pipes[connection].ends[DOWN].is_closed = true;
            self.net.pipes[connection].ended_at.get_or_insert((now, 0));
            self.later(now + latency, Event::Reset(connection, UP));
        }
    }

    // ---- What moves ------------------------------------------------------------------------------------------------

    pub(crate) fn move_packet(&mut self, event: Event) {
        match event {
            Event::Syn(number) => self.syn(number),
            Event::SynAck(number) => self.syn_ack(number),
            Event::Handshaken(number) => self.handshaken(number),
            Event::Deliver(number, way) => self.deliver(number, way),
            Event::Acknowledge(number, way, count) => self.acknowledge(number, way, count),
            Event::Widen(number, way, count) => {
                self.net.pipes[number].halves[way].window += count;
                self.transmit(number, way);
            }
            Event::Reset(number, end) => self.reset_comes(number, end),
            other => unreachable!("{other:?}"),
        }
    }

    /// Sends what the window has room for.
    fn transmit(&mut self, number: usize, way: usize) {
        loop {
            let now = self.now;
            let latency = self.net.pipes[number].latency;
            let half = &mut self.net.pipes[number].halves[way];
            let count = half.window.min(half.unsent.len()).min(16_000);
            let segment = match count {
                0 if half.unsent.is_empty() && half.is_ending && !half.has_sent_end => {
                    half.has_sent_end = true;
                    Segment::End
                }
                0 => return,
                _ => {
                    half.window -= count;
                    let mut bytes = vec![0; count];
                    take(&mut half.unsent, &mut bytes);
                    Segment::Data(bytes)
                }
            };
            let jitter = self.paths.below(latency / 10 + 2);
            let is_lost = self.has(Fault::Loss) && self.paths.one_in(25);
            let lost = if is_lost { 200 * MS + 2 * latency } else { 0 };
            if is_lost {
                self.count("lost packets");
            }
            let connection = &mut self.net.pipes[number];
            connection.has_lost |= is_lost;
            let half = &mut connection.halves[way];
            let at = half.last_at.max(now + latency + jitter + lost);
            half.last_at = at;
            half.flight.push_back((at, segment));
            self.later(at, Event::Deliver(number, way));
        }
    }

    fn deliver(&mut self, number: usize, way: usize) {
        let now = self.now;
        let receiver = 1 - way;
        let connection = &mut self.net.pipes[number];
        let latency = connection.latency;
        let Some((_, segment)) = connection.halves[way].flight.pop_front() else { return };
        if connection.ends[receiver].is_vanished {
            return;
        }
        if connection.ends[receiver].is_closed || connection.ends[receiver].is_reset {
            if matches!(segment, Segment::Data(_)) && !connection.ends[receiver].is_reset {
                self.later(now + latency, Event::Reset(number, way));
            }
            return;
        }
        let half = &mut connection.halves[way];
        match segment {
            Segment::Data(bytes) => {
                half.received.extend(&bytes);
                half.delivered += bytes.len() as u64;
                let delivered = half.delivered;
                if way == UP {
                    connection.deliveries.push((delivered, now));
                }
                self.later(now + latency, Event::Acknowledge(number, way, bytes.len()));
            }
            Segment::End => half.has_ended = true,
        }
        self.has_news(number, receiver);
    }

    fn acknowledge(&mut self, number: usize, way: usize, count: usize) {
        let connection = &mut self.net.pipes[number];
        let half = &mut connection.halves[way];
        half.unacknowledged = half.unacknowledged.saturating_sub(count);
        if half.free() * 3 < half.room {
            return;
        }
        if way == DOWN {
            if std::mem::take(&mut connection.lacks_room) {
                self.server_has_room(number);
            }
        } else {
            let client = connection.client;
            self.at_room(client, number);
        }
    }

    fn reset_comes(&mut self, number: usize, end: usize) {
        let connection = &mut self.net.pipes[number];
        if connection.ends[end].is_closed || connection.ends[end].is_reset || connection.ends[end].is_vanished {
            return;
        }
        connection.ends[end].is_reset = true;
        connection.ends[end].has_error = true;
        connection.halves[end].unsent.clear();
        connection.halves[end].flight.clear();
        self.note(|| format!("connection {number} is reset at the {}", if end == UP { "client" } else { "server" }));
        if end == UP {
            let client = self.net.pipes[number].client;
            if self.is_strict(client) {
                self.net.pipes[number].halves[DOWN].received.clear();
            }
        }
        self.has_news(number, end);
    }

    fn has_news(&mut self, number: usize, end: usize) {
        if end == UP {
            let client = self.net.pipes[number].client;
            self.at_news(client, number);
            return;
        }
        self.wake_all(Why::Socket(number));
        if let Some((poller, token)) = self.net.pipes[number].registered {
            self.is_ready(poller, token);
        }
    }

    fn server_has_room(&mut self, number: usize) {
        self.wake_all(Why::Socket(number));
        let connection = &self.net.pipes[number];
        if let Some((poller, token)) = connection.registered.filter(|_| connection.awaits_room) {
            self.is_ready(poller, token);
        }
    }

    // ---- What either end does --------------------------------------------------------------------------------------

    /// Writes what there is room for.
    pub(crate) fn write(&mut self, number: usize, end: usize, bytes: &[u8]) -> Done {
        let connection = &mut self.net.pipes[number];
        if connection.ends[end].is_reset || connection.ends[end].has_shut || connection.ends[end].is_closed {
            connection.ends[end].has_error = false;
            return Done::Failed;
        }
        let half = &mut connection.halves[end];
        let count = half.free().min(bytes.len());
        if count < bytes.len() && end == DOWN {
            (connection.lacks_room, connection.was_blocked) = (true, true);
        }
        if count == 0 {
            return Done::WouldBlock;
        }
        if end == DOWN {
            let (from, tried_at) = (half.written, connection.tried_at);
            connection.writes.push((from, self.now, tried_at));
            connection.sent.extend_from_slice(&bytes[..count]);
        }
        half.unsent.extend(&bytes[..count]);
        half.unacknowledged += count;
        half.written += count as u64;
        self.transmit(number, end);
        Done::Bytes(count)
    }

    /// Reads what has come.
    pub(crate) fn read(&mut self, number: usize, end: usize, buffer: &mut [u8]) -> Done {
        let way = 1 - end;
        let now = self.now;
        let connection = &mut self.net.pipes[number];
        if end == DOWN {
            connection.tried_at = now;
        }
        let half = &mut connection.halves[way];
        let count = half.received.len().min(buffer.len());
        if count > 0 {
            take(&mut half.received, &mut buffer[..count]);
            half.read += count as u64;
            let latency = connection.latency;
            self.later(now + latency, Event::Widen(number, way, count));
            return Done::Bytes(count);
        }
        match () {
            () if connection.ends[end].has_error => {
                connection.ends[end].has_error = false;
                Done::Failed
            }
            () if half.has_ended || connection.ends[end].is_reset || connection.ends[end].is_deaf => Done::Bytes(0),
            () => Done::WouldBlock,
        }
    }

    /// True if a read would not wait.
    pub(crate) fn is_readable(&self, number: usize) -> bool {
        let (half, end) = (&self.net.pipes[number].halves[UP], &self.net.pipes[number].ends[DOWN]);
        !half.received.is_empty() || half.has_ended || end.is_reset || end.is_deaf
    }

    /// True if a write would not wait.
    pub(crate) fn is_writable(&self, number: usize) -> bool {
        let (half, end) = (&self.net.pipes[number].halves[DOWN], &self.net.pipes[number].ends[DOWN]);
        half.free() * 3 >= half.room || end.is_reset || end.has_shut
    }

    /// True if a reset has come that no call has told.
    pub(crate) fn take_error(&mut self, number: usize) -> bool {
        std::mem::take(&mut self.net.pipes[number].ends[DOWN].has_error)
    }

    pub(crate) fn shut(&mut self, number: usize, end: usize, is_deaf: bool) {
        let connection = &mut self.net.pipes[number];
        if end == DOWN {
            let marks = (self.now, connection.tried_at);
            connection.ended_at.get_or_insert(marks);
        }
        connection.ends[end].has_shut = true;
        connection.halves[end].is_ending = true;
        if is_deaf {
            connection.ends[end].is_deaf = true;
        }
        let who = if end == UP { "client" } else { "server" };
        self.note(|| format!("the {who} shuts down connection {number}"));
        if !self.net.pipes[number].ends[end].is_reset {
            self.transmit(number, end);
        }
        if is_deaf {
            self.has_news(number, end);
        }
    }

    pub(crate) fn close(&mut self, number: usize, end: usize, is_abrupt: bool) {
        let connection = &mut self.net.pipes[number];
        if connection.ends[end].is_closed {
            return;
        }
        if end == DOWN {
            let marks = (self.now, connection.tried_at);
            connection.ended_at.get_or_insert(marks);
            connection.closed_at = Some(self.now);
        }
        connection.ends[end].is_closed = true;
        let was_reset = connection.ends[end].is_reset;
        let must_reset = is_abrupt || !connection.halves[1 - end].received.is_empty();
        let (latency, last_at) = (connection.latency, connection.halves[end].last_at);
        let registered = if end == DOWN { connection.registered.take() } else { None };
        if must_reset {
            connection.halves[end].unsent.clear();
        }
        if let Some((poller, token)) = registered {
            self.net.pollers[poller].forget(token);
        }
        let who = if end == UP { "client" } else { "server" };
        self.note(|| format!("the {who} closes connection {number}{}", if must_reset { ", by a reset" } else { "" }));
        if was_reset {
            return;
        }
        if must_reset {
            self.later(last_at.max(self.now + latency), Event::Reset(number, 1 - end));
        } else {
            self.net.pipes[number].halves[end].is_ending = true;
            self.transmit(number, end);
        }
    }

    /// The client's system resets the connection, and this end knows it already.
    pub(crate) fn is_reset_by_peer(&mut self, number: usize) {
        let connection = &mut self.net.pipes[number];
        (connection.ends[UP].is_closed, connection.ends[UP].is_reset) = (true, true);
        for half in &mut connection.halves {
            half.unsent.clear();
            half.received.clear();
            half.flight.clear();
        }
        connection.ends[DOWN].is_reset = true;
        self.note(|| format!("connection {number} is reset by the client"));
        self.has_news(number, DOWN);
        let client = self.net.pipes[number].client;
        self.at_news(client, number);
    }

    pub(crate) fn is_delivered(&self, number: usize) -> bool {
        self.net.pipes[number].halves[DOWN].unacknowledged == 0
    }

    pub(crate) fn peer_of(&self, number: usize) -> SocketAddr {
        let connection = &self.net.pipes[number];
        let ip = if connection.latency < MS { Ipv4Addr::LOCALHOST } else { Ipv4Addr::new(192, 0, 2, 1) };
        (ip, 10_000 + (number % 50_000) as u16).into()
    }

    // ---- Pollers ---------------------------------------------------------------------------------------------------

    pub(crate) fn watch(&mut self, poller: usize, token: u64, number: usize) {
        self.net.pipes[number].registered = Some((poller, token));
        self.net.pollers[poller].watched.insert(token, Watched::Connection(number));
        if self.readiness(poller, token).is_some() {
            self.is_ready(poller, token);
        }
    }

    pub(crate) fn watch_room(&mut self, poller: usize, token: u64, number: usize) {
        self.net.pipes[number].awaits_room = true;
        if self.readiness(poller, token).is_some() {
            self.is_ready(poller, token);
        }
    }

    pub(crate) fn unwatch(&mut self, poller: usize, token: u64, number: usize) {
        self.net.pipes[number].registered.take_if(|registered| *registered == (poller, token));
        self.net.pipes[number].awaits_room = false;
        self.net.pollers[poller].forget(token);
    }

    pub(crate) fn watch_listener(&mut self, poller: usize, token: u64, number: usize) {
        self.net.listeners[number].registered.push((poller, token));
        self.net.pollers[poller].watched.insert(token, Watched::Listener(number));
        self.is_ready(poller, token);
    }

    pub(crate) fn unwatch_listener(&mut self, poller: usize, token: u64, number: usize) {
        self.net.listeners[number].registered.retain(|registered| *registered != (poller, token));
        self.net.pollers[poller].forget(token);
    }

    /// Notes that there may be news. Returns true if that has woken somebody.
    pub(crate) fn is_ready(&mut self, poller: usize, token: u64) -> bool {
        let poller = &mut self.net.pollers[poller];
        if !poller.ready.contains(&token) {
            poller.ready.push_back(token);
        }
        let Some(thread) = poller.waiting.take() else { return false };
        self.wake(thread);
        true
    }

    /// What there is to report; the value is true for a hang-up.
    fn readiness(&self, poller: usize, token: u64) -> Option<bool> {
        if token == WAKER {
            return (self.net.pollers[poller].wake_bytes > 0).then_some(false);
        }
        match *self.net.pollers[poller].watched.get(&token)? {
            Watched::Listener(number) => {
                let listener = &self.net.listeners[number];
                let is_ready = !listener.queue.is_empty() || listener.is_dead || !listener.errors.is_empty();
                is_ready.then_some(false)
            }
            Watched::Connection(number) => {
                let connection = &self.net.pipes[number];
                let end = &connection.ends[DOWN];
                let is_hung_up = connection.halves[UP].has_ended || end.is_reset || end.is_deaf;
                let has_room = connection.awaits_room && self.is_writable(number);
                (is_hung_up || has_room || self.is_readable(number)).then_some(is_hung_up)
            }
        }
    }

    /// What a wait finds.
    pub(crate) fn found(&mut self, poller: usize, max: usize) -> Vec<(u64, bool)> {
        let mut found = Vec::new();
        let mut again = Vec::new();
        while let Some(token) = self.net.pollers[poller].ready.pop_front() {
            if found.len() >= max {
                again.push(token);
                continue;
            }
            let Some(is_hangup) = self.readiness(poller, token) else { continue };
            found.push((token, is_hangup));
            // Level-triggered, as long as there is something.
            if token == WAKER || matches!(self.net.pollers[poller].watched.get(&token), Some(Watched::Listener(_))) {
                again.push(token);
            }
        }
        // Those that found no room come first the next time.
        self.net.pollers[poller].ready.extend(again);
        found
    }
}

impl Poller {
    fn forget(&mut self, token: u64) {
        self.watched.remove(&token);
        self.ready.retain(|other| *other != token);
    }
}

/// Fills `bytes` from a queue that has as many.
fn take(queue: &mut VecDeque<u8>, bytes: &mut [u8]) {
    queue.read_exact(bytes).expect("the queue has as many");
}
