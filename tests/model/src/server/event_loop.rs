//! A loop without sockets: arrivals are requests, and calls are made as `server/event_loop/calls.rs` makes them. Some
//! come on connections that another follows on; those change their loop in between, as in
//! `server/event_loop/accept.rs`.

use std::collections::VecDeque;
use std::time::Instant;

use super::buffer::{Answer, Caller, ReadBuffer};
use super::inbox::Message;
use super::poller::Waker;
use super::shared::Shared;
use super::stream::Stream;
use super::streaming::{Download, Upload, is_upload};
use super::table::Token;
use super::transfer::Transfer;
use crate::group::CutOff;
use crate::http::{Peer, Response};
use crate::sync::Arc;

pub(crate) enum Turn {
    Call(Caller),
    Stream(Box<Upload>),
    Over,
}

pub(crate) struct EventLoop {
    shared: Arc<Shared>,
    index: usize,
    poller: Waker,
    messages: VecDeque<Message>,
    service: Option<(usize, bool)>,
    waiting: VecDeque<(usize, Instant)>,
    away: Vec<usize>,
}

impl EventLoop {
    pub(crate) fn new(shared: Arc<Shared>, index: usize, poller: Waker) -> Self {
        Self {
            shared,
            index,
            poller,
            messages: VecDeque::new(),
            service: None,
            waiting: VecDeque::new(),
            away: Vec::new(),
        }
    }

    pub(crate) fn turn(&mut self, buffer: &mut ReadBuffer) -> std::io::Result<Turn> {
        loop {
            if let Some((id, has_permit)) = self.service {
                if has_permit || (self.waiting.is_empty() && self.shared.permits.enter(self.index)) {
                    if is_upload(id) {
                        self.go_on_without_caller();
                        return Ok(Turn::Stream(Box::new(Upload(id))));
                    }
                    buffer.request = id;
                    return Ok(Turn::Call(Caller { token: Token(id), peer: Peer }));
                }
                self.service = None;
                self.waiting.push_back((id, Instant::now()));
            } else if let Some(message) = self.messages.pop_front() {
                self.take_message(message, buffer);
            } else if !self.begin_waiting() {
                self.messages.extend(self.shared.loops[self.index].inbox.take());
                let is_empty = self.messages.is_empty() && self.waiting.is_empty() && self.away.is_empty();
                let index = &self.shared.loops[self.index];
                if self.shared.stop.is_set() && is_empty && index.inbox.close_if_empty() {
                    return Ok(Turn::Over);
                }
                if self.messages.is_empty() {
                    self.poller.wait();
                }
            }
        }
    }

    fn begin_waiting(&mut self) -> bool {
        let permits = &self.shared.permits;
        let is_news = permits.publish(self.index, self.waiting.front().map(|(_, since)| *since));
        let Some((id, _)) = self.waiting.front().copied() else {
            if is_news {
                self.shared.wake_next_in_line();
            }
            return false;
        };
        match permits.enter_waiting(self.index) {
            Ok(()) => {
                self.waiting.pop_front();
                self.service = Some((id, true));
                true
            }
            Err(next) => {
                if let Some(next) = next {
                    self.shared.loops[next].inbox.wake();
                }
                false
            }
        }
    }

    pub(crate) fn take_message(&mut self, message: Message, buffer: &mut ReadBuffer) {
        match message {
            Message::Arrival(arrival) => self.service = Some((arrival.stream.0, false)),
            Message::Transfer(transfer) => self.service = Some((transfer.stream.0, false)),
            Message::Answer(answer) => self.finish(answer.token.0),
            Message::Streamed(streamed) => self.finish(streamed.0),
            Message::Asked(answer, reply) => {
                let download = self.start_download(*answer, buffer).expect("nobody goes away here");
                reply.send(download);
            }
            Message::Ask(_) => panic!("nobody asks a loop anything here"),
        }
    }

    pub(crate) fn start_download(&mut self, answer: Answer, _: &mut ReadBuffer) -> Option<Download> {
        if !self.away.contains(&answer.token.0) {
            self.shared.break_rule(format!("{:?} streams, and is not away", answer.token));
        }
        Some(Download(answer.token.0))
    }

    fn finish(&mut self, id: usize) {
        let Some(at) = self.away.iter().position(|away| *away == id) else {
            return self.shared.break_rule(format!("an answer for {id}, which is not away"));
        };
        self.away.swap_remove(at);
        self.shared.answer(id);
        self.find_place(id);
    }

    pub(crate) fn answer(&mut self, response: Response, buffer: &mut ReadBuffer) {
        if self.service.take().map(|(id, _)| id) != Some(response.0) || buffer.request != response.0 {
            self.shared.break_rule(format!("an answer to {} in another's place", response.0));
        }
        self.shared.answer(response.0);
        self.find_place(response.0);
    }

    /// Gives a connection to the next loop, whose request is the one that follows. If that loop has left, it stays.
    fn find_place(&mut self, id: usize) {
        let Some(follower) = self.shared.follower(id).filter(|_| !self.shared.stop.is_set()) else { return };
        self.shared.ask(follower);
        let next = (self.index + 1) % self.shared.loops.len();
        let transfer = Transfer { stream: Arc::new(Stream(follower)), peer: Peer, since: Instant::now() };
        if let Err(refused) = self.shared.loops[next].inbox.push(Message::Transfer(transfer)) {
            self.messages.push_back(refused);
        }
    }

    pub(crate) fn go_on_without_caller(&mut self) {
        // Nothing if its caller has the socket: then it is away already.
        self.away.extend(self.service.take().map(|(id, _)| id));
    }

    pub(crate) fn cut_off(&mut self, _: &mut ReadBuffer) {
        self.shared.break_rule("cut off before the deadline".to_owned());
    }

    /// Whatever it holds is lost.
    pub(crate) fn die(&mut self, _: &mut ReadBuffer) {
        self.shared.loops[self.index].inbox.close();
        (self.service, self.messages, self.waiting, self.away) = Default::default();
    }

    pub(crate) fn take_cut_off(&mut self) -> CutOff {
        CutOff::default()
    }
}
