//! Clients that play their part of a scenario: they send just these bytes, at these moments, and keep all that comes.

use std::collections::VecDeque;

use crate::net::{DOWN, Done, UP};
use crate::world::{Event, Nanos, US, World};

/// What the conductor, a thread of the process, does one after another. What it waits for may never come if a call has
/// failed: each wait has its end.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// So many handlers are held.
    Held(usize),
    /// A player has so many answers, or its connection has ended.
    Answers(usize, usize),
    /// All that a player has been told to send so far has come to the server's system.
    Come(usize),
    /// A player's connection has been closed by both sides.
    Over(usize),
    /// Nobody new is let in.
    Refuses,
    Sleep(Nanos),
    /// Players that wait for this may go on.
    Stage(usize),
    /// Handlers that are held may go on.
    Open,
    Stop,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Connect,
    /// Bytes that complete so many requests.
    Send(Vec<u8>, usize),
    /// Until so many answers have come.
    Answers(usize),
    Stage(usize),
    Pause(Nanos),
    /// Half-closes.
    Finish,
    Close,
    /// Reads no more, or again.
    Deaf(bool),
}

/// One client: what it does, and what it must get.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) steps: Vec<Step>,
    /// Answers, undated.
    pub(super) wanted: Vec<String>,
    pub(super) listener: usize,
    pub(super) latency: Nanos,
    /// Which answer says that it is the last is no matter: the stop comes at about that time.
    pub(super) is_either: bool,
    /// The deadline of the stop cuts it off.
    pub(super) is_cut_off: bool,
    /// It may end by a reset.
    pub(super) may_be_reset: bool,
}

impl Script {
    pub(super) fn new(steps: Vec<Step>, wanted: Vec<String>) -> Self {
        let steps = std::iter::once(Step::Connect).chain(steps).collect();
        let (listener, latency) = (0, 50 * US);
        Self { steps, wanted, listener, latency, is_either: false, is_cut_off: false, may_be_reset: false }
    }
}

/// How a connection ended for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Fin,
    Reset,
    /// It never came to be.
    Refused,
    /// By the client itself.
    Own,
}

pub(crate) struct Player {
    pub(super) script: Script,
    steps: VecDeque<Step>,
    pub(super) connection: Option<usize>,
    is_connected: bool,
    is_pausing: bool,
    is_deaf: bool,
    is_due: bool,
    must_finish: bool,
    outbox: VecDeque<u8>,
    /// Where each request ends among all that is sent.
    pub(super) requests: Vec<u64>,
    queued: u64,
    pub(super) got: Vec<u8>,
    pub(super) end: Option<End>,
}

/// How many bytes longer a date is than its stand-in.
const DATE_EXTRA: usize = "Sun, 06 Nov 1994 08:49:37 GMT".len() - "DATE".len();
const CLOSE: &str = "Connection: close\r\n";

impl Player {
    pub(super) fn new(script: &Script) -> Self {
        Self {
            steps: script.steps.iter().cloned().collect(),
            script: script.clone(),
            connection: None,
            is_connected: false,
            is_pausing: false,
            is_deaf: false,
            is_due: false,
            must_finish: false,
            outbox: VecDeque::new(),
            requests: Vec::new(),
            queued: 0,
            got: Vec::new(),
            end: None,
        }
    }

    /// True if so many answers have come, or none will come any more.
    fn has_answers(&self, count: usize) -> bool {
        let length = |answer: &String| {
            let close = if self.script.is_either && answer.contains(CLOSE) { CLOSE.len() } else { 0 };
            answer.len() - close + answer.matches("\r\nDate: DATE").count() * DATE_EXTRA
        };
        let wanted: usize = self.script.wanted.iter().take(count).map(length).sum();
        self.end.is_some() || self.got.len() >= wanted
    }

    /// What has come, comparable with what is wanted.
    pub(super) fn came(&self) -> String {
        self.comparable(super::wire::undated_text(&String::from_utf8_lossy(&self.got)))
    }

    pub(super) fn wanted(&self) -> String {
        self.comparable(self.script.wanted.concat())
    }

    fn comparable(&self, text: String) -> String {
        if self.script.is_either { text.replace(CLOSE, "") } else { text }
    }
}

impl World {
    fn player(&mut self, number: usize) -> Option<&mut Player> {
        self.torture.as_mut()?.players.get_mut(number)
    }

    fn player_count(&self) -> usize {
        self.torture.as_ref().map_or(0, |torture| torture.players.len())
    }

    /// The acts have come further, or begin.
    pub(super) fn players_go_on(&mut self) {
        (0..self.player_count()).for_each(|number| self.play(number));
    }

    pub(crate) fn latency_of(&self, client: usize) -> Nanos {
        match &self.torture {
            Some(torture) => torture.players[client].script.latency,
            None => self.clients[client].latency,
        }
    }

    /// True if the client's system takes little that the client has not read.
    pub(crate) fn has_little_room(&self, client: usize) -> bool {
        self.torture.is_none() && self.clients[client].has_little_room
    }

    /// True if a reset takes what the client has not read with it.
    pub(crate) fn is_strict(&self, client: usize) -> bool {
        self.torture.is_some() || self.clients[client].is_strict
    }

    // ---- What happens to a client, of whichever kind -----------------------------------------------------------------

    pub(crate) fn at_turn(&mut self, client: usize, turn: u64) {
        match self.player(client) {
            Some(player) => {
                player.is_pausing = false;
                self.play(client);
            }
            None => self.client_goes_on(client, turn),
        }
    }

    pub(crate) fn at_connected(&mut self, client: usize, connection: usize) {
        match self.player(client) {
            Some(player) => {
                player.is_connected = true;
                self.play(client);
            }
            None => self.client_is_connected(client, connection),
        }
    }

    pub(crate) fn at_room(&mut self, client: usize, connection: usize) {
        if self.torture.is_some() { self.play(client) } else { self.client_has_room(client, connection) }
    }

    pub(crate) fn at_news(&mut self, client: usize, connection: usize) {
        match self.player(client) {
            Some(player) if player.end.is_some() || player.is_deaf || player.is_due => {}
            Some(player) => {
                player.is_due = true;
                self.later(self.now + US, Event::Read(client));
            }
            None => self.client_has_news(client, connection),
        }
    }

    pub(crate) fn at_read(&mut self, client: usize) {
        if self.torture.is_some() { self.read_as_player(client) } else { self.client_reads(client) }
    }

    // ---- What it does ------------------------------------------------------------------------------------------------

    fn play(&mut self, number: usize) {
        while self.play_on(number).is_some() {}
    }

    /// One step. `None`: it waits, or has nothing more to do.
    fn play_on(&mut self, number: usize) -> Option<()> {
        let stage = self.torture.as_ref()?.stage;
        let player = self.player(number)?;
        if player.end.is_some() || player.is_pausing {
            return None;
        }
        let Some(connection) = player.connection else {
            match player.steps.front()? {
                Step::Stage(wanted) if *wanted > stage => return None,
                Step::Stage(_) => _ = player.steps.pop_front(),
                Step::Pause(time) => {
                    let time = *time;
                    player.steps.pop_front();
                    self.pause(number, time);
                }
                _ => {
                    player.steps.pop_front();
                    let listener = player.script.listener;
                    let connection = self.connect(number, listener);
                    self.player(number)?.connection = Some(connection);
                }
            }
            return Some(());
        };
        if !player.is_connected {
            return None;
        }
        if !player.outbox.is_empty() {
            let bytes: Vec<u8> = player.outbox.iter().copied().take(20_000).collect();
            return match self.write(connection, UP, &bytes) {
                Done::Bytes(count) => {
                    self.player(number)?.outbox.drain(..count);
                    Some(())
                }
                Done::WouldBlock => None,
                Done::Failed => {
                    self.player(number)?.outbox.clear();
                    self.at_news(number, connection);
                    Some(())
                }
            };
        }
        if std::mem::take(&mut player.must_finish) {
            self.shut(connection, UP, false);
            return Some(());
        }
        match player.steps.front()? {
            Step::Stage(wanted) if *wanted > stage => return None,
            Step::Answers(count) if !player.has_answers(*count) => return None,
            _ => {}
        }
        match player.steps.pop_front()? {
            Step::Send(bytes, requests) => {
                player.queued += bytes.len() as u64;
                let end = player.queued;
                player.requests.extend(std::iter::repeat_n(end, requests));
                player.outbox.extend(bytes);
            }
            Step::Pause(time) => self.pause(number, time),
            Step::Finish => player.must_finish = true,
            Step::Close => {
                player.end = Some(End::Own);
                self.close(connection, UP, false);
            }
            Step::Deaf(is_deaf) => {
                player.is_deaf = is_deaf;
                self.at_news(number, connection);
            }
            Step::Connect | Step::Stage(_) | Step::Answers(_) => {}
        }
        Some(())
    }

    fn pause(&mut self, number: usize, time: Nanos) {
        if let Some(player) = self.player(number) {
            player.is_pausing = true;
        }
        self.later(self.now + time, Event::Client(number, 0));
    }

    fn read_as_player(&mut self, number: usize) {
        let Some(player) = self.player(number) else { return };
        player.is_due = false;
        let Some(connection) = player.connection.filter(|_| player.end.is_none() && !player.is_deaf) else { return };
        let is_connected = player.is_connected;
        let mut buffer = [0; 16 * 1024];
        let end = loop {
            match self.read(connection, UP, &mut buffer) {
                Done::Bytes(0) if self.net.pipes[connection].ends[UP].is_reset => break Some(End::Reset),
                Done::Bytes(0) => break Some(End::Fin),
                Done::Bytes(count) => {
                    if let Some(player) = self.player(number) {
                        player.got.extend_from_slice(&buffer[..count]);
                    }
                }
                Done::Failed => break Some(if is_connected { End::Reset } else { End::Refused }),
                Done::WouldBlock => break None,
            }
        };
        if let Some(end) = end {
            self.note(|| format!("the connection of player {number} ends: {end:?}"));
            if let Some(player) = self.player(number) {
                player.end = Some(end);
            }
            self.close(connection, UP, false);
        }
        self.play(number);
    }

    // ---- What the conductor waits for --------------------------------------------------------------------------------

    pub(super) fn is_done(&self, act: &Act) -> bool {
        let Some(torture) = &self.torture else { return true };
        match *act {
            Act::Held(count) => torture.held >= count,
            Act::Answers(number, count) => torture.players[number].has_answers(count),
            Act::Come(number) => {
                let player = &torture.players[number];
                let has_come = |connection: usize| {
                    let half = &self.net.pipes[connection].halves[UP];
                    player.outbox.is_empty() && half.delivered >= player.queued
                };
                player.end.is_some() || player.is_connected && player.connection.is_some_and(has_come)
            }
            Act::Over(number) => {
                let player = &torture.players[number];
                let is_closed = |connection: usize| {
                    let pipe = &self.net.pipes[connection];
                    pipe.ends[DOWN].is_closed || !pipe.is_accepted
                };
                player.end.is_some() && player.connection.is_none_or(is_closed)
            }
            Act::Refuses => self.net.listeners.iter().all(|listener| !listener.is_open || listener.is_refusing()),
            Act::Sleep(_) | Act::Stage(_) | Act::Open | Act::Stop => true,
        }
    }
}
