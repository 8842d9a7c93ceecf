//! The hand-off and the inbox as they are, between stand-ins for the rooms around them.

#[path = "../../../../src/server/handoff/mod.rs"]
pub(crate) mod handoff;
#[path = "../../../../src/server/inbox.rs"]
pub(crate) mod inbox;
#[path = "../../../../src/server/reply.rs"]
pub(crate) mod reply;
#[path = "../../../../src/server/transfer.rs"]
pub(crate) mod transfer;

pub(crate) mod event_loop;
pub(crate) mod shared;

/// A connection is its number.
pub(crate) mod stream {
    pub(crate) struct Stream(pub(crate) usize);
}

pub(crate) mod table {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Token(pub(crate) usize);

    pub(crate) struct Table<T>(std::marker::PhantomData<T>);
}

pub(crate) mod connection {
    pub(crate) struct Connection;
}

pub(crate) mod notice {
    pub(crate) enum Notice<'a> {
        ThreadFailed { error: &'a std::io::Error },
    }
}

/// What a thread has read: here, whose request it is.
pub(crate) mod buffer {
    use super::table::Token;
    use crate::http::{Peer, Request, Response, WriteBody};

    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Exchange {
        pub(crate) is_head: bool,
    }

    #[derive(Debug)]
    pub(crate) struct Partial;

    pub(crate) struct Caller {
        pub(crate) token: Token,
        pub(crate) peer: Peer,
    }

    pub(crate) struct Answer {
        pub(crate) token: Token,
        pub(crate) exchange: Exchange,
        pub(crate) response: Response,
        pub(crate) partial: Option<Box<Partial>>,
        pub(crate) is_gone: bool,
    }

    impl Answer {
        pub(crate) fn take_write(&mut self) -> Option<WriteBody> {
            if self.response.needs_writing(self.exchange.is_head) { self.response.take_write() } else { None }
        }
    }

    pub(crate) struct ReadBuffer {
        pub(crate) request: usize,
    }

    impl ReadBuffer {
        pub(crate) fn new() -> Self {
            Self { request: usize::MAX }
        }

        pub(crate) fn request(&self, _: &Peer) -> Request {
            Request(self.request)
        }

        pub(crate) fn take_answer(&mut self, token: Token, response: Response) -> Answer {
            assert_eq!(std::mem::replace(&mut self.request, usize::MAX), token.0, "another's request");
            Answer { token, exchange: Exchange { is_head: false }, response, partial: None, is_gone: false }
        }
    }
}

/// A body takes its steps, as a handler does.
pub(crate) mod streaming {
    use super::buffer::{Answer, Exchange};
    use super::shared::Shared;
    use super::table::Token;
    use crate::http::{Request, WriteBody};
    use crate::sync::Arc;

    pub(crate) struct Upload(pub(crate) usize);

    impl Upload {
        pub(crate) fn token(&self) -> Token {
            Token(self.0)
        }

        pub(crate) fn run(self, shared: &Arc<Shared>) -> Answer {
            let response = shared.call(&Request(self.0));
            let exchange = Exchange { is_head: false };
            Answer { token: Token(self.0), exchange, response, partial: None, is_gone: false }
        }
    }

    #[derive(Debug)]
    pub(crate) struct Download(pub(crate) usize);

    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Streamed(pub(crate) usize);

    impl Streamed {
        pub(crate) fn lost(_: Token) -> Self {
            panic!("only a fault of our own loses a connection");
        }
    }

    /// Some fail before they have anything to send.
    pub(crate) fn write_body(
        answer: Answer,
        write: WriteBody,
        mut start: impl FnMut(Answer) -> Option<Download>,
    ) -> Option<Result<Streamed, Box<Answer>>> {
        write.call();
        if answer.token.0 % 8 == 3 {
            return Some(Err(Box::new(answer)));
        }
        let download = start(answer).expect("nobody goes away here");
        write.call();
        Some(Ok(Streamed(download.0)))
    }

    /// Half of the requests are those whose body their handler reads.
    pub(crate) fn is_upload(request: usize) -> bool {
        request % 4 >= 2
    }
}

/// Nobody goes away here.
pub(crate) mod presence {
    use super::shared::Shared;
    use super::table::Token;

    pub(crate) struct Client;

    impl Client {
        pub(crate) fn of(_: &Shared, _: usize, _: Token) -> Self {
            Self
        }
    }
}

/// A thread can always be started here.
pub(crate) mod throttle {
    use std::time::{Duration, Instant};

    #[derive(Debug)]
    pub(crate) struct Backoff;

    impl Backoff {
        pub(crate) fn new() -> Self {
            Self
        }

        pub(crate) fn next(&mut self) -> Duration {
            Duration::ZERO
        }

        pub(crate) fn reset(&mut self) {}
    }

    #[derive(Debug, Default)]
    pub(crate) struct Throttle {}

    impl Throttle {
        pub(crate) fn count(&self, _: Instant, _: Instant) -> Option<usize> {
            None
        }
    }
}

/// A wait that only a waker ends.
pub(crate) mod poller {
    use crate::sync::{Arc, Condvar, Mutex};

    #[derive(Clone, Debug)]
    pub(crate) struct Waker(Arc<(Mutex<bool>, Condvar)>);

    impl Waker {
        pub(crate) fn new() -> Self {
            Self(Arc::new((Mutex::new(false), Condvar::new())))
        }

        pub(crate) fn wake(&self) {
            *self.0.0.lock() = true;
            self.0.1.notify_all();
        }

        pub(crate) fn wait(&self) {
            let mut is_awake = self.0.0.lock();
            while !*is_awake {
                is_awake = self.0.1.wait(is_awake);
            }
            *is_awake = false;
        }
    }
}
