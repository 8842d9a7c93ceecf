//! One event loop, and the peers of its connections as a script moves them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::budget::Budget;
use super::buffer::{Answer, Caller, ReadBuffer};
use super::config::Config;
use super::counts::Totals;
use super::event_loop::{EventLoop, Turn};
use super::handoff::Permits;
use super::inbox::{Arrival, Inbox, Message};
use super::notice::Notice;
use super::poller::{Event, Poller};
use super::shared::{LoopHandle, Shared};
use super::stream::{Pipe, Stream};
use super::streaming::Upload;
use super::throttle::Throttle;
use crate::http::{Handler, Peer};
use crate::stop::{Cause, FAR, Stop};
use crate::sync::{self, AtomicU64, AtomicUsize};

/// What a peer does, in this order, and how its requests are answered.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    /// Where its bytes are cut.
    pub(crate) cuts: Vec<usize>,
    /// Its end of stream comes together with its last bytes.
    pub(crate) ends_at_once: bool,
    /// It takes so many bytes, and so many more with each step; `None`: whatever it is sent.
    pub(crate) room: Option<usize>,
    /// One handler in so many is slow, and its answer comes by the inbox; 0: none.
    pub(crate) slow_once_in: usize,
    /// A read need not be the last because it came back short, as with the `sweep` poller.
    pub(crate) is_swept: bool,
    /// After so many steps the connection breaks.
    pub(crate) breaks_at: Option<usize>,
}

/// Everything at once, and nothing out of the ordinary.
pub(crate) const SMOOTH: Script =
    Script { cuts: Vec::new(), ends_at_once: false, room: None, slow_once_in: 0, is_swept: false, breaks_at: None };

/// What came of a connection.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The bytes that its peer was sent.
    pub(crate) taken: Vec<u8>,
    /// How many bytes its peer had sent when the server was told to stop, if it was.
    pub(crate) sent_before_stop: Option<usize>,
}

/// A loop and what it stands on.
pub(crate) struct Site {
    shared: Arc<Shared>,
    event_loop: EventLoop,
    poller: Poller,
    buffer: ReadBuffer,
    /// Of threads that are spare.
    desks: Vec<ReadBuffer>,
    /// Answers of slow handlers, until the next step.
    late: VecDeque<Answer>,
    calls: usize,
    /// It was told to stop, and has nothing left to do.
    is_over: bool,
}

impl Site {
    pub(crate) fn new(handler: impl Handler, on_reject: impl Fn() + Send + Sync + 'static) -> Self {
        // No clock may run out, however slow the machine is.
        let config = Config {
            loops: 1,
            head_timeout: FAR,
            body_timeout: FAR,
            idle_timeout: FAR,
            write_timeout: FAR,
            queue_timeout: FAR,
            idle_grace: FAR,
            linger: FAR,
            ..Config::default()
        };
        let stop = Stop::new();
        stop.start(FAR, Duration::ZERO);
        let poller = Poller::default();
        let shared = Arc::new(Shared {
            limits: config.limits(),
            stop,
            listeners: Vec::new(),
            loops: vec![LoopHandle {
                inbox: Inbox::new(poller.waker()),
                connections: AtomicUsize::new(0),
                idle_since_us: AtomicU64::new(u64::MAX),
                counted: sync::Mutex::default(),
            }],
            permits: Permits::new(1, config.handlers_max),
            looks: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            totals: Arc::new(Totals::new(1)),
            handler: Box::new(handler),
            on_answer: None,
            on_notice: Box::new(move |notice: &Notice<'_>| match notice {
                Notice::Rejected { .. } => on_reject(),
                other => panic!("{other}"),
            }),
            started: Instant::now(),
            accept_failed: Throttle::default(),
            refused: Default::default(),
            bodies: Budget::new(config.bodies_bytes_max),
            config,
        });
        let event_loop = EventLoop::new(Arc::clone(&shared), 0, poller.clone()).expect("no system call is made");
        Self {
            shared,
            event_loop,
            poller,
            buffer: ReadBuffer::new(),
            desks: Vec::new(),
            late: VecDeque::new(),
            calls: 0,
            is_over: false,
        }
    }

    /// Plays the same input by several scripts at once, step by step in turn. After `stops_at` steps the server is told
    /// to stop, and nothing can be played any more.
    pub(crate) fn play(&mut self, input: &[u8], scripts: &[Script], stops_at: Option<usize>) -> Vec<Outcome> {
        let streams: Vec<Stream> = scripts.iter().map(|script| self.connect(input, script)).collect();
        let tokens: Vec<u64> = self.poller.reports().added.drain(..).collect();
        let slow_once_in = scripts.iter().map(|script| script.slow_once_in).max().unwrap_or(0);
        let mut players: Vec<Player<'_>> = scripts
            .iter()
            .zip(&streams)
            .zip(tokens)
            .map(|((script, stream), token)| Player { stream, token, is_swept: script.is_swept })
            .collect();
        let mut sent_before_stop = vec![None; streams.len()];
        let mut is_moving = true;
        for round in 0.. {
            if !is_moving {
                break;
            }
            is_moving = false;
            if stops_at == Some(round) {
                for (sent, stream) in sent_before_stop.iter_mut().zip(&streams) {
                    *sent = Some(stream.pipe().sent());
                }
                self.shared.stop.trigger(Cause::Signal);
                self.turn(slow_once_in);
            }
            for player in &mut players {
                let awaits_room = self.poller.reports().await_room.contains(&player.token);
                if let Some(event) = player.step(awaits_room) {
                    self.poller.reports().events.push_back(event);
                    is_moving = true;
                    self.turn(slow_once_in);
                }
            }
            if let Some(answer) = self.late.pop_front() {
                is_moving = true;
                let pushed = self.shared.loops[0].inbox.push(Message::Answer(answer));
                assert!(pushed.is_ok() || self.is_over, "the inbox is closed");
                self.shared.permits.replace();
                self.turn(slow_once_in);
            }
        }
        let connections = self.shared.connections.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(connections, 0, "connections whose peers have ended are still there");
        let outcome = |(Stream(pipe), sent_before_stop)| {
            let pipe = Arc::into_inner(pipe).expect("closed").into_inner().expect("no panic");
            Outcome { taken: pipe.taken, sent_before_stop }
        };
        streams.into_iter().zip(sent_before_stop).map(outcome).collect()
    }

    fn connect(&mut self, input: &[u8], script: &Script) -> Stream {
        let stream = Stream(Arc::new(Mutex::new(Pipe::new(input, script))));
        let index = &self.shared.loops[0];
        index.connections.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let arrival = Arrival { stream: stream.clone(), peer: Peer::Unix, listener: 0, is_sent: false, refusals: 0 };
        assert!(index.inbox.push(Message::Arrival(arrival)).is_ok(), "the inbox is closed");
        self.turn(0);
        stream
    }

    /// Turns the loop until it would wait, and calls handlers as `handoff` does.
    fn turn(&mut self, slow_once_in: usize) {
        self.poller.reports().is_woken = true;
        while !self.is_over {
            match self.event_loop.turn(&mut self.buffer) {
                Err(_) => return,
                Ok(Turn::Over) => {
                    assert!(self.shared.stop.is_set(), "over without a stop");
                    self.is_over = true;
                }
                Ok(Turn::Call(caller)) => {
                    let is_slow = self.is_slow(slow_once_in);
                    self.call(&caller, is_slow);
                }
                Ok(Turn::Stream(upload)) => {
                    let is_slow = self.is_slow(slow_once_in);
                    self.stream(*upload, is_slow);
                }
            }
        }
    }

    fn is_slow(&mut self, slow_once_in: usize) -> bool {
        self.calls += 1;
        slow_once_in > 0 && self.calls % slow_once_in == 0
    }
}

impl Site {
    fn stream(&mut self, upload: Upload, is_slow: bool) {
        let permits = &self.shared.permits;
        let answer = upload.run(&self.shared);
        permits.words[0].withdraw();
        self.event_loop.go_on_without_caller();
        if is_slow {
            permits.displace();
            self.late.push_back(answer);
        } else {
            self.event_loop.take_message(Message::Answer(answer), &mut self.buffer);
        }
    }

    fn call(&mut self, caller: &Caller, is_slow: bool) {
        let permits = &self.shared.permits;
        let response = self.shared.call(&self.buffer.request(&caller.peer));
        if !is_slow {
            permits.words[0].withdraw();
            self.event_loop.answer(response, &mut self.buffer);
            return;
        }
        // A spare takes the loop over, with a buffer of its own.
        permits.displace();
        permits.words[0].withdraw();
        let mut buffer = std::mem::replace(&mut self.buffer, self.desks.pop().unwrap_or_else(ReadBuffer::new));
        self.event_loop.go_on_without_caller();
        self.late.push_back(buffer.take_answer(caller.token, response));
        self.desks.push(buffer);
    }
}

struct Player<'a> {
    stream: &'a Stream,
    token: u64,
    is_swept: bool,
}

impl Player<'_> {
    /// The next thing that its peer does; `None`: it has nothing more to do.
    fn step(&mut self, awaits_room: bool) -> Option<Event> {
        let mut pipe = self.stream.pipe();
        let is_news = pipe.step(self.is_swept || awaits_room);
        let is_hangup = self.is_swept || pipe.has_ended || pipe.is_broken;
        let is_over = !self.is_swept && (pipe.is_broken || pipe.has_ended && pipe.is_shut);
        is_news.then_some(Event { token: self.token, is_hangup, is_over })
    }
}
