//! The kinds of clients. Each works until its server has gone, and judges what becomes of its requests.
//!
//! What is owed: every request that was wholly sent on a connection that stood. A connection stands unless it may have
//! been quiet for the idle grace; for how long it can have been, at most, the client knows by its own clock. A batch is
//! sent in one piece that is small enough to arrive in one.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use fastrand::Rng;

use crate::ask::{Ask, noise};
use crate::client::{Client, Place};
use crate::plan::{Cause, Plan};
use crate::tally::Tally;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    KeepAlive,
    Rhythm,
    OneShot,
    Pipelining,
    HeldUpload,
    StreamedUpload,
    Download,
    SlowDownload,
    Head,
    HalfCloser,
    Panicker,
    Resetter,
    Goner,
    Idle,
    HalfHead,
    Stuck,
}

pub(crate) const KINDS: [Kind; 15] = [
    Kind::KeepAlive,
    Kind::Rhythm,
    Kind::OneShot,
    Kind::Pipelining,
    Kind::HeldUpload,
    Kind::StreamedUpload,
    Kind::Download,
    Kind::SlowDownload,
    Kind::Head,
    Kind::HalfCloser,
    Kind::Panicker,
    Kind::Resetter,
    Kind::Goner,
    Kind::Idle,
    Kind::HalfHead,
];

pub(crate) struct Worker {
    pub(crate) kind: Kind,
    pub(crate) place: Place,
    pub(crate) plan: Arc<Plan>,
    pub(crate) tally: Arc<Tally>,
    pub(crate) rng: Rng,
}

/// True as long as the connection may be used on.
type Stands = bool;

impl Worker {
    /// Comes again and again, until nobody is there.
    pub(crate) fn run(mut self) {
        while let Ok(mut client) = Client::connect(&self.place) {
            while self.turn(&mut client) {}
        }
    }

    fn turn(&mut self, client: &mut Client) -> Stands {
        let rng = &mut self.rng;
        match self.kind {
            Kind::KeepAlive => {
                let ask = Ask::small(rng);
                self.exchange(client, &[ask])
            }
            Kind::Rhythm => {
                let pause = Duration::from_millis(rng.u64(..60));
                let stands = self.exchange(client, &[Ask::ping()]);
                thread::sleep(if stands { pause } else { Duration::ZERO });
                stands
            }
            Kind::OneShot => {
                let ask = if rng.bool() { Ask::closing(rng) } else { Ask::small(rng) };
                self.exchange(client, &[ask]);
                false
            }
            Kind::Pipelining => {
                let asks: Vec<_> = (0..rng.usize(2..12)).map(|_| Ask::small(rng)).collect();
                self.exchange(client, &asks)
            }
            Kind::HeldUpload => self.upload(client, true),
            Kind::StreamedUpload => self.upload(client, false),
            Kind::Download => {
                let ask = if rng.bool() { Ask::bytes(rng.usize(..400_000)) } else { Ask::stream(rng) };
                self.exchange(client, &[ask])
            }
            Kind::SlowDownload => {
                client.pause = Some(Duration::from_micros(rng.u64(..2000)));
                let ask = Ask::bytes(rng.usize(100_000..600_000));
                self.exchange(client, &[ask])
            }
            Kind::Head => {
                let asks: Vec<_> = (0..rng.usize(1..4)).map(|_| Ask::head(rng)).collect();
                self.exchange(client, &asks)
            }
            Kind::HalfCloser => {
                let asks: Vec<_> = (0..rng.usize(1..5)).map(|_| Ask::small(rng)).collect();
                self.half_close(client, &asks);
                false
            }
            Kind::Panicker => {
                let mut asks: Vec<_> = (0..rng.usize(0..3)).map(|_| Ask::small(rng)).collect();
                asks.push(Ask::panic());
                self.exchange(client, &asks)
            }
            Kind::Resetter => {
                // What has come and is not read makes a reset of the close.
                let ask = Ask::bytes(rng.usize(50_000..500_000));
                if client.send(&ask.bytes).1.is_ok() && rng.bool() {
                    thread::sleep(Duration::from_micros(rng.u64(..3000)));
                }
                false
            }
            Kind::Goner => {
                // In the middle of a body.
                let ask = Ask::upload(rng.bool(), 10_000, false);
                let _ = client.send(&[&ask.bytes[..], &noise(0, rng.usize(..9_000))].concat());
                thread::sleep(Duration::from_micros(rng.u64(..3000)));
                false
            }
            Kind::Idle => {
                if rng.bool() && !self.exchange(client, &[Ask::ping()]) {
                    return false;
                }
                self.expect_end(client, "an idle connection");
                false
            }
            Kind::HalfHead => {
                self.half_head(client);
                false
            }
            Kind::Stuck => self.exchange(client, &[Ask::stuck()]),
        }
    }

    /// Sends them in one piece, and reads what is due.
    fn exchange(&self, client: &mut Client, asks: &[Ask]) -> Stands {
        self.sends(client, asks) && self.answers(client, asks)
    }

    fn half_close(&self, client: &mut Client, asks: &[Ask]) {
        if !self.sends(client, asks) {
            return;
        }
        // It fails if the server has answered and gone.
        let _ = client.half_close();
        if self.answers(client, asks) {
            self.expect_end(client, "a connection whose client has half-closed it");
        }
    }

    fn sends(&self, client: &mut Client, asks: &[Ask]) -> bool {
        let bytes = asks.iter().flat_map(|ask| ask.bytes.iter().copied()).collect::<Vec<u8>>();
        let (quiet, sent) = client.send(&bytes);
        if quiet < self.plan.idle_grace && sent.is_ok() {
            return true;
        }
        // It may have been closed. If it was not, all is well.
        match sent.and_then(|()| client.answer(asks[0].is_head)) {
            Ok(answer) => {
                if let Err(wrong) = asks[0].check(&answer) {
                    self.tally.fault(wrong);
                }
                self.tally.answered();
                if !answer.is_last {
                    self.answers(client, &asks[1..]);
                }
            }
            Err(_) if quiet >= self.plan.idle_grace => self.tally.crossed(),
            Err(error) => self.broke(client, &error, &format!("{}, not sent after {quiet:?}", asks[0])),
        }
        false
    }

    fn answers(&self, client: &mut Client, asks: &[Ask]) -> Stands {
        for (number, ask) in asks.iter().enumerate() {
            let behind = asks.len() - number - 1;
            let is_begun = client.has_begun();
            let answer = match client.answer(ask.is_head) {
                Ok(answer) => answer,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    self.tally.fault(format!("{ask}: {error}"));
                    return false;
                }
                Err(error) => {
                    for ask in &asks[number..] {
                        self.broke(client, &error, &format!("{ask}, {number} answered before, begun {is_begun}"));
                    }
                    return false;
                }
            };
            if let Err(wrong) = ask.check(&answer) {
                self.tally.fault(wrong);
                return false;
            }
            self.tally.answered();
            if answer.is_last {
                if behind > 0 && !ask.ends() {
                    asks[number + 1..].iter().for_each(|left| {
                        self.tally.unanswered(format!("{left}: behind {ask}, which says that it is the last"));
                    });
                }
                self.expect_end(client, &format!("behind the last answer, to {ask},"));
                return false;
            }
        }
        true
    }

    fn upload(&mut self, client: &mut Client, is_held: bool) -> Stands {
        let rng = &mut self.rng;
        let (length, is_chunked) = (rng.usize(..200_000), rng.bool());
        let ask = Ask::upload(is_held, length, is_chunked);
        let body = noise(0, length);
        let pieces = body.chunks(rng.usize(5_000..100_000)).collect::<Vec<_>>();
        let mut pieces = pieces.iter().map(|piece| match is_chunked {
            true => [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat(),
            false => piece.to_vec(),
        });
        let mut first = ask.bytes.clone();
        if rng.bool() {
            first.extend(pieces.next().unwrap_or_default());
        }
        let (quiet, mut sent) = client.send(&first);
        let pauses = rng.clone().u64(..3000);
        for piece in pieces.chain(is_chunked.then(|| b"0\r\n\r\n".to_vec())) {
            thread::sleep(Duration::from_micros(pauses));
            sent = sent.and_then(|()| client.send(&piece).1);
        }
        match sent {
            Ok(()) if quiet < self.plan.idle_grace => self.answers(client, &[ask]),
            // It may have been closed.
            _ if quiet >= self.plan.idle_grace => {
                self.tally.crossed();
                false
            }
            Ok(()) => unreachable!("either quiet or not"),
            // At the deadline the body had not wholly come.
            Err(_) if self.plan.is_stuck => false,
            Err(error) => {
                self.broke(client, &error, &format!("{ask}: {length} bytes, chunked {is_chunked}, could not be sent"));
                false
            }
        }
    }

    fn half_head(&self, client: &mut Client) {
        let (quiet, sent) = client.send(b"GET /ping HTTP/1.1\r\nHos");
        match sent.and_then(|()| client.answer(false)) {
            Ok(answer) if answer.status == 408 && answer.is_last => self.expect_end(client, "behind 408,"),
            Ok(answer) => self.tally.fault(format!("half a head is answered {}", answer.status)),
            // At the deadline.
            Err(_) if self.plan.is_stuck || quiet >= self.plan.idle_grace => {}
            Err(error) => self.broke(client, &error, "half a head, to be answered 408"),
        }
    }

    /// The server's end, and nothing before it.
    fn expect_end(&self, client: &mut Client, what: &str) {
        match client.rest() {
            Ok(0) => {}
            Ok(count) => self.tally.fault(format!("{what} has {count} bytes more")),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.tally.fault(format!("{what} is not closed"))
            }
            Err(error) => self.broke(client, &error, what),
        }
    }

    /// Something that is owed did not come.
    fn broke(&self, client: &Client, error: &io::Error, what: &str) {
        if self.plan.cause == Cause::Broken && !client.is_accepted {
            self.tally.queued();
        } else {
            self.tally.unanswered(format!("{what}: {error}"));
        }
    }
}
