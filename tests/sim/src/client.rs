//! Clients. Each follows its own script, knows which answer it is owed, byte for byte, and checks it.
//!
//! A client whose connection ends looks at what it is still owed. A request is *received* once all its bytes have come
//! to the server's system; then it must be answered, or be counted as cut off, with one exception: it came between the
//! server's last look into the socket and its close, and these lie close together. Frozen time does not count.

use std::collections::VecDeque;

use crate::answer::{self, Answer};
use crate::dice::Dice;
use crate::net::{DOWN, Done, Kind, UP};
use crate::plan::Fault;
use crate::world::{Event, MS, Nanos, SEC, US, World};

/// The longest time of its own that a server may take between its last look and what it does then.
const GAP: Nanos = 6 * MS;
/// The same for counting at the deadline.
const COUNT_TIME: Nanos = 20 * MS;

#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A request begins.
    Begin(Expected),
    Send(Vec<u8>),
    /// It has been sent whole.
    End,
    Pause(Nanos),
    /// Until nothing is owed.
    Await,
    AwaitContinue,
    HalfClose,
    Reset,
    Vanish,
    /// Reads no more.
    Sulk,
}

/// The answer that a request is owed.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub(crate) id: u64,
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    pub(crate) is_head: bool,
    /// 500, or an end before its end, are as good.
    pub(crate) may_fail: bool,
    /// The connection may close after it for reasons of the request's own.
    pub(crate) may_close: bool,
    /// It must have been answered by then.
    pub(crate) by: Option<Nanos>,
}

#[derive(Debug)]
struct Owed {
    expected: Expected,
    /// Where it ends among all that was sent.
    end: Option<u64>,
    has_continued: bool,
}

pub(crate) struct Client {
    pub(crate) latency: Nanos,
    pub(crate) is_strict: bool,
    listener: usize,
    steps: VecDeque<Step>,
    connection: Option<usize>,
    is_connected: bool,
    /// Its timer; older ones are void.
    turn: u64,
    is_pausing: bool,
    outbox: VecDeque<u8>,
    must_half_close: bool,
    owed: VecDeque<Owed>,
    got: Vec<u8>,
    /// Where `got` begins among all that has come.
    got_from: u64,
    /// Reads so much at a time, with so long between.
    pace: Option<(usize, Nanos)>,
    reads_at: Option<Nanos>,
    pub(crate) has_little_room: bool,
    is_sulking: bool,
    /// Nothing that it does counts any more.
    is_lawless: bool,
    is_over: bool,
    has_read_close: bool,
    is_turned_away: bool,
    reconnects: u32,
    /// Since when it waits although the process does nothing, and whether that has been told.
    pub(crate) undone_since: Option<(Option<u64>, Nanos)>,
    pub(crate) was_forgotten: bool,
}

/// A request that was received and is not answered.
#[derive(Clone, Debug)]
pub(crate) struct Loss {
    pub(crate) id: u64,
    pub(crate) connection: usize,
    pub(crate) at: Nanos,
    pub(crate) is_accepted: bool,
    /// Its answer was written, whole.
    pub(crate) is_written: bool,
    pub(crate) listener: usize,
    pub(crate) text: String,
}

impl Client {
    /// Its connection, as long as it takes part.
    pub(crate) fn connection(&self) -> Option<usize> {
        self.connection.filter(|_| !self.is_over)
    }

    /// How many bytes it has read.
    pub(crate) fn has_read(&self) -> u64 {
        self.got_from + self.got.len() as u64
    }

    /// The first request whose answer has not come, if it has been sent whole and has a handler: which, and where it
    /// ends.
    pub(crate) fn next_owed(&self) -> Option<(u64, u64)> {
        let owed = self.owed.front().filter(|owed| owed.expected.status != 404)?;
        Some((owed.expected.id, owed.end?))
    }
}

/// The body of so many bytes that belongs to this request. A byte that is missing, or stands in another's place, shows.
pub(crate) fn pattern(id: u64, count: usize) -> Vec<u8> {
    /// After so many, the bytes repeat.
    const PERIOD: usize = 25 * 25;
    let beginning = 0..count.min(PERIOD);
    let bytes: Vec<u8> = beginning.map(|at| b'a' + ((id as usize * 7 + at + at / 25) % 25) as u8).collect();
    let mut bytes = bytes.repeat(count.div_ceil(PERIOD));
    bytes.truncate(count);
    bytes
}

impl World {
    /// Makes the clients, and has each begin at its time.
    pub(crate) fn send_clients(&mut self) {
        for number in 0..self.plan.clients {
            let mut dice = Dice::new(self.plan.seed, 1000 + number as u64);
            let begins_at = self.in_step(self.now + dice.below(self.plan.stop_at + 20 * MS + 1));
            let mut client = self.script(&mut dice, number);
            if self.plan.has(Fault::Slow) && Dice::new(self.plan.seed, 2000 + number as u64).one_in(10) {
                (client.steps, client.has_little_room) = (staller(number as u64 * 1000, &mut dice), true);
            }
            self.clients.push(client);
            self.later(begins_at, Event::Client(number, 0));
        }
        if self.plan.ending == crate::plan::Ending::Request {
            let stop_at = self.now + self.plan.stop_at;
            self.add_client(stop_at, "/shutdown/999001", b"stopping 999001\n".to_vec(), None);
        }
        if self.plan.is_flooded && self.plan.clients > 0 {
            let at = self.now + self.plan.stop_at.saturating_sub(5 * MS);
            let steps = flood();
            self.add_scripted(at, 700, steps);
        }
        if let Some(calm_at) = self.plan.calm_at {
            let at = self.now + calm_at + 4 * SEC;
            // Which needs no handler's permit.
            self.add_client(at, "/livez/999002", b"live 999002\n".to_vec(), Some(at + 3 * SEC));
        }
    }

    fn in_step(&self, at: Nanos) -> Nanos {
        if self.plan.is_in_step { at.next_multiple_of(5 * MS) } else { at }
    }

    fn add_client(&mut self, at: Nanos, path: &str, body: Vec<u8>, by: Option<Nanos>) {
        let id = path.rsplit('/').next().and_then(|id| id.parse().ok()).unwrap_or(0);
        let expected = Expected { id, status: 200, body, is_head: false, may_fail: false, may_close: false, by };
        let steps = VecDeque::from([
            Step::Begin(expected),
            Step::Send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").into_bytes()),
            Step::End,
        ]);
        self.add_scripted(at, 900 + id, steps);
    }

    fn add_scripted(&mut self, at: Nanos, affair: u64, steps: VecDeque<Step>) {
        let mut dice = Dice::new(self.plan.seed, affair);
        let mut client = self.script(&mut dice, 0);
        (client.steps, client.pace) = (steps, None);
        let number = self.clients.len();
        self.clients.push(client);
        self.later(at, Event::Client(number, 0));
    }

    fn script(&self, dice: &mut Dice, number: usize) -> Client {
        let plan = &self.plan;
        let mut steps = VecDeque::new();
        let is_old = dice.one_in(8);
        let is_pipelining = dice.one_in(3);
        let is_slow = plan.has(Fault::Slow) && dice.one_in(2);
        let count = dice.pick(&[1, 1, 2, 3, 5, 8, 20]);
        let mut has_closed = false;
        for nth in 0..count {
            let id = number as u64 * 1000 + nth;
            let is_last = nth + 1 == count;
            let closes = is_last && dice.one_in(3) || is_old && dice.one_in(2) && is_last;
            has_closed |= closes;
            self.request(dice, id, is_old, closes, is_slow, is_last || !is_pipelining, &mut steps);
            if !is_pipelining {
                steps.push_back(Step::Await);
                if dice.one_in(2) {
                    steps.push_back(Step::Pause(dice.between(0, if is_slow { SEC } else { 80 * MS })));
                }
            } else if dice.one_in(4) {
                steps.push_back(Step::Pause(dice.between(0, 3 * MS)));
            }
        }
        // Who has said that it asks no more does not.
        match dice.below(12) {
            2 if has_closed => {}
            0 | 1 => steps.push_back(Step::HalfClose),
            // Part of another request, that never comes whole.
            2 => steps.extend([Step::Send(b"GET /ping/1 HTTP/1.1\r\nHos".to_vec()), Step::Pause(2 * SEC)]),
            3 => steps.push_back(Step::Pause(dice.between(0, 3 * SEC))),
            _ => {}
        }
        let misdeed = match dice.below(3) {
            0 if plan.has(Fault::Resets) => Some(Step::Reset),
            1 if plan.has(Fault::Vanish) => Some(Step::Vanish),
            2 if plan.has(Fault::Slow) && dice.one_in(3) => Some(Step::Sulk),
            _ => None,
        };
        if let Some(misdeed) = misdeed {
            let at = dice.index(steps.len() + 1);
            if dice.one_in(2) {
                steps.insert(at, Step::Pause(dice.between(0, 20 * MS)));
            }
            steps.insert(at, misdeed);
        }
        if dice.one_in(20) {
            // One that only connects.
            steps = VecDeque::from([Step::Pause(dice.between(MS, 3 * SEC))]);
        }
        let reads_slowly = is_slow && dice.one_in(2);
        Client {
            latency: dice
                .between(if plan.is_in_step { plan.latency_max } else { plan.latency_max / 4 }, plan.latency_max),
            is_strict: dice.one_in(2),
            listener: dice.index(plan.listeners.len()),
            steps,
            connection: None,
            is_connected: false,
            turn: 0,
            is_pausing: false,
            outbox: VecDeque::new(),
            must_half_close: false,
            owed: VecDeque::new(),
            got: Vec::new(),
            got_from: 0,
            pace: reads_slowly.then(|| (dice.between(50, 9000) as usize, dice.between(MS, 40 * MS))),
            reads_at: None,
            has_little_room: false,
            is_sulking: false,
            is_lawless: false,
            is_over: false,
            has_read_close: false,
            is_turned_away: false,
            reconnects: 0,
            undone_since: None,
            was_forgotten: false,
        }
    }

    #[expect(clippy::too_many_arguments)]
    fn request(
        &self,
        dice: &mut Dice,
        id: u64,
        is_old: bool,
        closes: bool,
        is_slow: bool,
        is_alone: bool,
        steps: &mut VecDeque<Step>,
    ) {
        let has_panics = self.plan.has(Fault::Panics);
        let text = |what: &str| format!("{what} {id}\n").into_bytes();
        let (mut may_fail, mut may_close, mut status, mut is_head) = (false, false, 200, false);
        let mut sent: Option<Vec<u8>> = None;
        let size = match dice.below(4) {
            0 => dice.below(20),
            1 => dice.below(3_000),
            2 => dice.below(40_000),
            _ => dice.below(200_000),
        } as usize;
        let sleep = dice.below(self.plan.sleep_max) / US;
        let (path, body) = match dice.below(19) {
            0..=2 => (format!("/ping/{id}"), text("pong")),
            3 | 4 => (format!("/bytes/{size}/{id}"), pattern(id, size)),
            5 | 6 => (format!("/sleep/{sleep}/{id}"), text("slept")),
            7 | 8 => (format!("/stream/{size}/{id}"), pattern(id, size)),
            9 => (format!("/sized/{size}/{id}"), pattern(id, size)),
            10 | 11 => {
                sent = Some(pattern(id, size.min(60_000)));
                (format!("/echo/{id}"), pattern(id, size.min(60_000)))
            }
            12 | 13 => {
                sent = Some(pattern(id, size));
                (format!("/up/{id}"), text(&format!("{size}")))
            }
            14 => {
                is_head = true;
                (format!("/bytes/{size}/{id}"), pattern(id, size))
            }
            15 => (format!("/livez/{id}"), text("live")),
            16 => (format!("/after/{id}"), text("after")),
            17 if is_alone => {
                may_close = true;
                sent = Some(pattern(id, size));
                (format!("/part/{id}"), text("part"))
            }
            17 => (format!("/missing/{id}"), {
                status = 404;
                b"not found\n".to_vec()
            }),
            _ if has_panics && dice.one_in(2) => {
                (may_fail, may_close, status) = (true, true, 500);
                (format!("/panic/{id}"), b"internal server error\n".to_vec())
            }
            _ if has_panics => {
                (may_fail, may_close) = (true, true);
                (format!("/torn/{size}/{id}"), pattern(id, size))
            }
            _ => (format!("/closing/{id}"), text("closing")),
        };
        let method = if is_head {
            "HEAD"
        } else if sent.is_some() {
            "POST"
        } else {
            "GET"
        };
        let version = if is_old { "1.0" } else { "1.1" };
        let mut head = format!("{method} {path} HTTP/{version}\r\nHost: a\r\n");
        if closes {
            head.push_str("Connection: close\r\n");
        } else if is_old {
            head.push_str("Connection: keep-alive\r\n");
        }
        // A stream without a length ends with the connection on 1.0.
        may_close |= is_old || closes;
        let mut expects = false;
        let mut content = Vec::new();
        if let Some(sent) = sent {
            expects = !is_old && !sent.is_empty() && is_alone && dice.one_in(5);
            if expects {
                head.push_str("Expect: 100-continue\r\n");
            }
            if !is_old && dice.one_in(2) {
                head.push_str("Transfer-Encoding: chunked\r\n");
                for chunk in sent.chunks(dice.between(1 + sent.len() as u64 / 12, 20_000 + sent.len() as u64) as usize)
                {
                    content.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    content.extend_from_slice(chunk);
                    content.extend_from_slice(b"\r\n");
                }
                content.extend_from_slice(b"0\r\n\r\n");
            } else {
                head.push_str(&format!("Content-Length: {}\r\n", sent.len()));
                content = sent;
            }
        }
        head.push_str("\r\n");
        steps.push_back(Step::Begin(Expected { id, status, body, is_head, may_fail, may_close, by: None }));
        cut(dice, is_slow, head.into_bytes(), steps);
        if expects {
            steps.push_back(Step::AwaitContinue);
        }
        if !content.is_empty() {
            if dice.one_in(4) {
                steps.push_back(Step::Pause(dice.between(0, if is_slow { 1500 * MS } else { 20 * MS })));
            }
            cut(dice, is_slow, content, steps);
        }
        steps.push_back(Step::End);
    }

    // ---- As time goes on -------------------------------------------------------------------------------------------

    pub(crate) fn client_goes_on(&mut self, number: usize, turn: u64) {
        let client = &mut self.clients[number];
        if client.turn != turn || client.is_over {
            return;
        }
        client.is_pausing = false;
        match client.connection {
            None => {
                let listener = client.listener;
                let connection = self.connect(number, listener);
                self.clients[number].connection = Some(connection);
            }
            Some(_) => self.follow_script(number),
        }
    }

    pub(crate) fn client_is_connected(&mut self, number: usize, connection: usize) {
        if self.clients[number].connection == Some(connection) && !self.clients[number].is_over {
            self.clients[number].is_connected = true;
            self.note(|| format!("client {number} is connected"));
            self.follow_script(number);
        }
    }

    pub(crate) fn client_has_room(&mut self, number: usize, connection: usize) {
        if self.clients[number].connection == Some(connection) && !self.clients[number].is_over {
            self.follow_script(number);
        }
    }

    fn follow_script(&mut self, number: usize) {
        loop {
            let client = &mut self.clients[number];
            let Some(connection) = client.connection else { return };
            if !client.is_connected || client.is_pausing || client.is_over {
                return;
            }
            if !client.outbox.is_empty() {
                let bytes: Vec<u8> = client.outbox.iter().copied().take(20_000).collect();
                match self.write(connection, UP, &bytes) {
                    Done::Bytes(count) => {
                        self.clients[number].outbox.drain(..count);
                        continue;
                    }
                    Done::WouldBlock => return,
                    Done::Failed => {
                        self.clients[number].outbox.clear();
                        // What it is told by reading counts.
                        return self.client_has_news(number, connection);
                    }
                }
            }
            if std::mem::take(&mut client.must_half_close) {
                self.shut(connection, UP, false);
                continue;
            }
            let sent = self.net.pipes[connection].halves[UP].written;
            let client = &mut self.clients[number];
            match client.steps.front() {
                None => {
                    if client.owed.is_empty() && !client.is_sulking {
                        self.close(connection, UP, false);
                        self.client_is_over(number);
                    }
                    return;
                }
                Some(Step::Await) if !client.owed.is_empty() => return,
                Some(Step::AwaitContinue) if !client.owed.back().is_none_or(|owed| owed.has_continued) => return,
                // The server has said that it closes: there is nothing more to ask here.
                Some(Step::Begin(_)) if client.has_read_close => return,
                _ => {}
            }
            let Some(step) = client.steps.pop_front() else { return };
            match step {
                Step::Begin(expected) => {
                    self.diary.requests += 1;
                    client.owed.push_back(Owed { expected, end: None, has_continued: false });
                }
                Step::Send(bytes) => client.outbox.extend(bytes),
                Step::End => {
                    if let Some(owed) = client.owed.back_mut() {
                        owed.end = Some(sent);
                    }
                }
                Step::Pause(time) => {
                    (client.is_pausing, client.turn) = (true, client.turn + 1);
                    let turn = client.turn;
                    let is_in_between = client.owed.back().is_some_and(|owed| owed.end.is_none());
                    let mut at = self.in_step(self.now + time);
                    if is_in_between && self.has(Fault::Freezes) && self.luck.one_in(6) {
                        // What is left of it comes while the process stands, which has long read the rest.
                        let freezes_at = self.now + 2 * self.clients[number].latency + 2 * GAP;
                        at = freezes_at + MS;
                        let time = self.luck.pick(&[SEC, 7 * SEC]);
                        self.later(freezes_at, Event::Freeze(time));
                    }
                    self.later(at, Event::Client(number, turn));
                    return;
                }
                Step::Await | Step::AwaitContinue => {}
                Step::HalfClose => client.must_half_close = true,
                Step::Reset => {
                    self.count("resets by clients");
                    self.clients[number].is_lawless = true;
                    self.close(connection, UP, true);
                    self.client_is_over(number);
                    return;
                }
                Step::Vanish => {
                    self.count("vanished clients");
                    self.clients[number].is_lawless = true;
                    self.net.pipes[connection].ends[UP].is_vanished = true;
                    self.client_is_over(number);
                    return;
                }
                Step::Sulk => {
                    self.count("clients that do not read");
                    (self.clients[number].is_lawless, self.clients[number].is_sulking) = (true, true);
                    // It holds its connection for a while.
                    self.clients[number].steps.push_back(Step::Pause(20 * SEC));
                    self.clients[number].steps.push_back(Step::Reset);
                }
            }
        }
    }

    /// Something has come.
    pub(crate) fn client_has_news(&mut self, number: usize, connection: usize) {
        let client = &mut self.clients[number];
        if client.connection != Some(connection) || client.is_over || client.is_sulking || client.reads_at.is_some() {
            return;
        }
        let delay = client.pace.map_or(US, |(_, interval)| interval);
        client.reads_at = Some(self.now + delay);
        self.later(self.now + delay, Event::Read(number));
    }

    pub(crate) fn client_reads(&mut self, number: usize) {
        let client = &mut self.clients[number];
        client.reads_at = None;
        let Some(connection) = client.connection.filter(|_| !client.is_over && !client.is_sulking) else { return };
        let room = client.pace.map_or(64 * 1024, |(bytes, _)| bytes);
        let mut buffer = vec![0; room];
        let (mut has_ended, mut has_read) = (false, false);
        match self.read(connection, UP, &mut buffer) {
            Done::Bytes(0) | Done::Failed => has_ended = true,
            Done::Bytes(count) => {
                has_read = true;
                self.clients[number].got.extend_from_slice(&buffer[..count]);
            }
            Done::WouldBlock => {}
        }
        self.take_answers(number, connection, has_ended);
        if self.clients[number].is_over || self.clients[number].connection != Some(connection) {
            return;
        }
        if has_ended {
            return self.connection_ended(number, connection);
        }
        let (half, end) = (&self.net.pipes[connection].halves[DOWN], &self.net.pipes[connection].ends[UP]);
        if has_read && (!half.received.is_empty() || half.has_ended || end.is_reset) {
            self.client_has_news(number, connection);
        }
        self.follow_script(number);
    }

    fn take_answers(&mut self, number: usize, connection: usize, has_ended: bool) {
        loop {
            let client = &mut self.clients[number];
            if client.got.is_empty() {
                return;
            }
            if client.has_read_close && client.is_turned_away {
                // Who has asked by HEAD and was turned away unread is sent a body all the same.
                return client.got.clear();
            }
            if client.has_read_close {
                let text = String::from_utf8_lossy(&client.got[..client.got.len().min(80)]).into_owned();
                return self.client_breaks(number, format!("bytes after the last answer: {text:?}"));
            }
            let is_to_head = client.owed.front().is_some_and(|owed| owed.expected.is_head);
            let is_reset = self.net.pipes[connection].ends[UP].is_reset;
            let answer = match answer::first(&client.got, is_to_head, has_ended && !is_reset) {
                Ok(Some(answer)) => answer,
                Ok(None) => return,
                Err(text) => return self.client_breaks(number, format!("is sent {text}")),
            };
            let from = client.got_from;
            client.got.drain(..answer.bytes);
            client.got_from += answer.bytes as u64;
            if answer.status == 100 {
                match client.owed.back_mut() {
                    Some(owed) => owed.has_continued = true,
                    None => return self.client_breaks(number, "100 Continue for nothing".to_owned()),
                }
                self.follow_script(number);
                continue;
            }
            client.has_read_close = answer.closes;
            client.is_turned_away = is_to_head && answer.closes && matches!(answer.status, 503 | 408);
            let owed = client.owed.pop_front();
            if let Some(owed) = &owed {
                self.note(|| format!("client {number} has {} for {}", answer.status, owed.expected.id));
            }
            self.judge(number, connection, from, &answer, owed.as_ref());
            if answer.closes
                && owed.is_some_and(|owed| !owed.expected.may_close && answer.status == owed.expected.status)
            {
                self.settle(number, connection, Some(from));
            } else if answer.closes {
                // It closes for its own reasons: what comes after is not read.
                self.clients[number].owed.clear();
            }
        }
    }

    fn judge(&mut self, number: usize, connection: usize, from: u64, answer: &Answer, owed: Option<&Owed>) {
        let now = self.now;
        let body = String::from_utf8_lossy(&answer.body[..answer.body.len().min(60)]).into_owned();
        let (written_at, looked_at) = self.written(connection, from);
        if let Some(Owed { expected, .. }) = owed {
            let is_right_length = answer.length.is_none_or(|length| length == expected.body.len());
            let is_right = answer.body == expected.body || expected.is_head && answer.body.is_empty();
            if answer.status == expected.status && is_right && is_right_length {
                self.diary.answered += 1;
                if expected.by.is_some_and(|by| now > by + self.stood_between(0, now)) {
                    self.client_breaks(number, format!("{} is answered late: it should be well by now", expected.id));
                }
                return;
            }
            // On 1.0 the end of the connection is the end of the body.
            let is_prefix = answer.length.is_none() && answer.closes && expected.body.starts_with(&answer.body);
            if answer.status == expected.status
                && is_prefix
                && from + answer.bytes as u64 >= self.clients[number].got_from
            {
                if !expected.may_fail {
                    let at = self.net.pipes[connection].ended_at.map_or(now, |(at, _)| at);
                    self.lose(number, connection, expected, at, false, "came in part");
                }
                return;
            }
            if expected.may_fail && answer.status == 500 {
                self.diary.answered += 1;
                return;
            }
        }
        match answer.status {
            503 => {
                self.count("503");
                let after = self.diary.told_at.map(|told| told + 60 * MS + self.stood_between(told, written_at));
                if owed.is_some() && body.contains("worker thread") && after.is_some_and(|after| written_at > after) {
                    self.client_breaks(number, "is refused while the server drains".to_owned());
                }
                if owed.is_some_and(|owed| owed.expected.by.is_some()) {
                    self.client_breaks(number, "is refused: it should be well by now".to_owned());
                }
            }
            408 => {
                self.count("408");
                let end = owed.and_then(|owed| owed.end);
                let delivered_at = end.and_then(|end| self.delivered(connection, end));
                let is_gap = written_at.saturating_sub(looked_at + self.stood_between(looked_at, written_at)) <= GAP;
                // At the deadline, or when it dies, a loop first counts what it owes and then refuses what is not whole.
                let may_die = self.diary.has_poller_failed || self.has(Fault::Threads);
                let is_after = may_die || self.diary.told_at.is_some_and(|told| written_at >= told + self.plan.grace);
                let has_just_come = is_after && delivered_at.is_some_and(|at| at + COUNT_TIME >= written_at);
                if !has_just_come && delivered_at.is_some_and(|at| at <= looked_at || at <= written_at && !is_gap) {
                    let text = format!(
                        "gets 408, and its request had come at {:.6}: the server looked at {:.6} and wrote at {:.6}",
                        delivered_at.unwrap_or(0) as f64 / 1e9,
                        looked_at as f64 / 1e9,
                        written_at as f64 / 1e9
                    );
                    self.client_breaks(number, text);
                }
            }
            status => {
                let text = owed.map(|Owed { expected, .. }| {
                    let differs = answer.body.iter().zip(&expected.body).position(|(got, wanted)| got != wanted);
                    let (id, wanted) = (expected.id, expected.body.len());
                    format!("{id} of {wanted} bytes, which differs at {differs:?}")
                });
                let (count, length) = (answer.body.len(), answer.length);
                let text = format!("gets a wrong answer for {text:?}: {status} {body:?}, {count} of {length:?} bytes");
                self.client_breaks(number, text);
            }
        }
    }

    /// When the answer that begins there was written, and when the server had looked last then.
    fn written(&self, connection: usize, from: u64) -> (Nanos, Nanos) {
        let writes = &self.net.pipes[connection].writes;
        let at = writes.partition_point(|(begin, _, _)| *begin <= from).saturating_sub(1);
        writes.get(at).map_or((0, 0), |(_, written_at, looked_at)| (*written_at, *looked_at))
    }

    /// When the byte before this one had come to the server's system, if it has.
    pub(crate) fn delivered(&self, connection: usize, end: u64) -> Option<Nanos> {
        let deliveries = &self.net.pipes[connection].deliveries;
        let at = deliveries.partition_point(|(sum, _)| *sum < end);
        deliveries.get(at).map(|(_, at)| *at)
    }

    /// The connection has ended, in whatever way.
    fn connection_ended(&mut self, number: usize, connection: usize) {
        let client = &mut self.clients[number];
        if let Some(owed) = client.owed.front() {
            // An answer of which a part has come.
            if owed.expected.may_fail {
                let count = client.owed.len() as u64;
                client.owed.clear();
                self.diary.gone += count;
            }
        }
        let client = &mut self.clients[number];
        let is_clean = client.owed.is_empty() && client.outbox.is_empty();
        self.settle(number, connection, None);
        self.close(connection, UP, false);
        let is_refused = !self.clients[number].is_connected;
        if is_refused && !self.diary.is_stopping && !self.net.pipes[connection].is_others {
            self.client_breaks(number, "is refused although nothing has stopped".to_owned());
        }
        let client = &mut self.clients[number];
        let wants_more = matches!(client.steps.front(), Some(Step::Begin(_) | Step::Await | Step::Pause(_)));
        if is_clean && wants_more && !is_refused && client.reconnects < 30 {
            client.reconnects += 1;
            (client.connection, client.is_connected, client.is_pausing) = (None, false, false);
            (client.got_from, client.has_read_close) = (0, false);
            client.got.clear();
            client.turn += 1;
            let turn = client.turn;
            self.later(self.now + MS, Event::Client(number, turn));
        } else {
            self.client_is_over(number);
        }
    }

    /// What is still owed was lost, or need not have been answered. `closing_from`: where the answer begins that says so.
    fn settle(&mut self, number: usize, connection: usize, closing_from: Option<u64>) {
        let mut owed = std::mem::take(&mut self.clients[number].owed);
        let mut closing_from = closing_from;
        // What fails closes the connection: what comes behind it is not read. Nor is it behind a refusal.
        let mut is_torn = false;
        // Whole answers that were written, and that the client has not got.
        let mut from = self.clients[number].got_from;
        while closing_from.is_none() && !owed.is_empty() {
            let sent = self.net.pipes[connection].sent.get(from as usize..).unwrap_or_default();
            let Ok(Some(answer)) = answer::first(sent, owed[0].expected.is_head, true) else { break };
            let is_to_the_end = answer.length.is_none() && answer.bytes == sent.len() && answer.status == 200;
            if is_to_the_end && !owed[0].expected.is_head && answer.body != owed[0].expected.body {
                break;
            }
            if answer.status != 100 {
                let Some(written) = owed.pop_front() else { break };
                // What was lingering at the deadline was cut off then.
                let at = self.net.pipes[connection].closed_at.unwrap_or(self.now);
                // A refusal is owed to nobody.
                if answer.status == written.expected.status {
                    self.lose(number, connection, &written.expected, at, true, "was written, and did not come");
                }
                is_torn |= written.expected.may_fail || written.expected.may_close;
                if answer.closes {
                    closing_from = Some(from);
                    is_torn |= answer.status != written.expected.status;
                }
            }
            from += answer.bytes as u64;
        }
        let is_lawless = self.clients[number].is_lawless;
        let pipe = &self.net.pipes[connection];
        let (mark, looked_at) = match closing_from {
            Some(from) => self.written(connection, from),
            None => pipe.ended_at.unwrap_or((self.now, self.now)),
        };
        let (was_blocked, is_excused) = (pipe.was_blocked, pipe.is_excused || pipe.is_others);
        // A slow reader may have been given up; and an answer that says that it is the last may not have been read.
        let is_slow = was_blocked && self.plan.write_timeout < 30 * SEC;
        let (is_accepted, listener, tried_at) = (pipe.is_accepted, pipe.listener, pipe.tried_at);
        let mut may_close = false;
        for Owed { expected, end, .. } in owed {
            is_torn |= expected.may_fail || may_close;
            may_close |= expected.may_close;
            let Some(delivered_at) = end.and_then(|end| self.delivered(connection, end)) else { continue };
            let is_behind = was_blocked && delivered_at > looked_at && closing_from.is_none();
            if is_lawless || is_excused || is_slow || is_behind || is_torn {
                self.diary.gone += 1;
                continue;
            }
            let took = mark.saturating_sub(looked_at + self.stood_between(looked_at, mark));
            let is_gap =
                is_accepted && delivered_at > looked_at && (took <= GAP || closing_from.is_some() && was_blocked);
            if delivered_at > mark || is_gap {
                self.count("requests that crossed a close");
                continue;
            }
            let text = format!(
                "request {} on connection {connection} had come at {:.6}, the server looked at {:.6} (at last {:.6}) and \
                 closed at {:.6}",
                expected.id,
                delivered_at as f64 / 1e9,
                looked_at as f64 / 1e9,
                tried_at as f64 / 1e9,
                mark as f64 / 1e9
            );
            self.note(|| format!("not answered: {text}"));
            self.diary.losses.push(Loss {
                id: expected.id,
                connection,
                at: mark,
                is_accepted,
                is_written: false,
                listener,
                text,
            });
        }
    }

    /// An answer was written and destroyed on its way, or came in part.
    fn lose(&mut self, number: usize, connection: usize, expected: &Expected, at: Nanos, is_written: bool, how: &str) {
        let pipe = &self.net.pipes[connection];
        let is_slow = pipe.was_blocked && self.plan.write_timeout < 30 * SEC;
        // Where nobody knows how long the way is, a request that crosses the close of a quiet connection resets it.
        let is_unknown = matches!(self.net.listeners[pipe.listener].kind, Kind::Plain | Kind::Shared | Kind::Unix);
        let is_far = is_unknown && 2 * pipe.latency > self.plan.idle_grace && self.diary.told_at.is_some();
        // So does one that comes although its client could know of the close long since.
        let written_at = pipe.writes.last().map_or(0, |(_, at, _)| *at);
        let quiet = self.plan.idle_grace.min(self.plan.idle_timeout) / 2;
        let was_quiet = is_written && pipe.closed_at.is_some_and(|closed| closed >= written_at + quiet);
        // And one of a client that reads too slowly to see the close, or whose place another had to have.
        let is_late = is_written && self.clients[number].pace.is_some() && self.diary.told_at.is_some();
        let had_to_go = is_written && self.plan.connections_max < 10_000;
        let is_excused = pipe.is_excused || is_slow || is_far || was_quiet || is_late || had_to_go;
        if self.clients[number].is_lawless || is_excused || expected.may_fail {
            self.diary.gone += 1;
            return;
        }
        let (id, listener) = (expected.id, pipe.listener);
        let text = format!("the answer to {id} on connection {connection} {how}");
        self.note(|| format!("not answered: {text}"));
        self.diary.losses.push(Loss { id, connection, at, is_accepted: true, is_written, listener, text });
    }

    fn client_is_over(&mut self, number: usize) {
        if self.clients[number].is_lawless {
            // What it had asked counts neither as lost nor as answered.
            let left = std::mem::take(&mut self.clients[number].owed).len() as u64;
            self.diary.gone += left;
        }
        self.clients[number].is_over = true;
    }

    fn client_breaks(&mut self, number: usize, text: String) {
        self.break_rule(format!("client {number} {text}"));
        self.clients[number].is_over = true;
    }

    /// How many answers clients are owed that do not wait for them.
    pub(crate) fn unwanted(&self) -> u64 {
        self.clients.iter().filter(|client| client.is_lawless).map(|client| client.owed.len() as u64).sum()
    }

    /// Clients that wait for an answer, and for which nothing more can happen.
    pub(crate) fn waiting_clients(&self) -> Vec<String> {
        let is_others =
            |client: &Client| client.connection.is_some_and(|connection| self.net.pipes[connection].is_others);
        let waits =
            |client: &&Client| !client.is_over && !client.is_lawless && !client.owed.is_empty() && !is_others(client);
        self.clients.iter().filter(waits).map(|client| format!("request {}", client.owed[0].expected.id)).collect()
    }
}

fn get(path: &str, id: u64, body: Vec<u8>, steps: &mut VecDeque<Step>) {
    let expected = Expected { id, status: 200, body, is_head: false, may_fail: false, may_close: false, by: None };
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes();
    steps.extend([Step::Begin(expected), Step::Send(request), Step::End]);
}

/// Asks for more than it has room for, and for something that takes long, and reads nothing. The first answer still
/// goes into one batch with what may follow.
fn staller(id: u64, dice: &mut Dice) -> VecDeque<Step> {
    let mut steps = VecDeque::new();
    get(&format!("/bytes/60000/{id}"), id, pattern(id, 60_000), &mut steps);
    let (id, us) = (id + 1, dice.between(500 * MS, 4 * SEC) / US);
    get(&format!("/sleep/{us}/{id}"), id, format!("slept {id}\n").into_bytes(), &mut steps);
    steps.push_back(Step::Sulk);
    steps
}

/// Asks without end.
fn flood() -> VecDeque<Step> {
    let mut steps = VecDeque::new();
    for id in 5_000_000..5_004_000 {
        get(&format!("/ping/{id}"), id, format!("pong {id}\n").into_bytes(), &mut steps);
    }
    steps
}

/// Sends bytes, perhaps in pieces.
fn cut(dice: &mut Dice, is_slow: bool, bytes: Vec<u8>, steps: &mut VecDeque<Step>) {
    let mut rest = &bytes[..];
    let pieces = if is_slow { dice.between(0, 6) } else { dice.below(3) / 2 };
    for _ in 0..pieces {
        if rest.len() < 2 {
            break;
        }
        let (piece, more) = rest.split_at(1 + dice.index(rest.len() - 1));
        steps.push_back(Step::Send(piece.to_vec()));
        steps.push_back(Step::Pause(dice.between(0, if is_slow { 300 * MS } else { 2 * MS })));
        rest = more;
    }
    steps.push_back(Step::Send(rest.to_vec()));
}
