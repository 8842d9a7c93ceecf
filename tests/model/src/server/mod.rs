//! The hand-off and the inbox as they are, between stand-ins for the rooms around them.

#[path = "../../../../src/server/handoff/mod.rs"]
pub(crate) mod handoff;
#[path = "../../../../src/server/inbox.rs"]
pub(crate) mod inbox;

pub(crate) mod event_loop;
pub(crate) mod shared;

/// A connection is its number.
pub(crate) mod stream {
    pub(crate) struct Stream(pub(crate) usize);
}

pub(crate) mod table {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Token(pub(crate) usize);
}

pub(crate) mod notice {
    pub(crate) enum Notice<'a> {
        ThreadFailed { error: &'a std::io::Error },
    }
}

/// What a thread has read: here, whose request it is.
pub(crate) mod desk {
    use super::table::Token;
    use crate::http::Request;

    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Exchange;

    #[derive(Debug)]
    pub(crate) struct Unfinished;

    pub(crate) struct Desk {
        pub(crate) request: usize,
    }

    impl Desk {
        pub(crate) fn new() -> Self {
            Self { request: usize::MAX }
        }

        pub(crate) fn request(&self) -> Request {
            Request(self.request)
        }

        pub(crate) fn called_for(&self) -> Token {
            Token(self.request)
        }

        pub(crate) fn exchange(&self) -> Exchange {
            Exchange
        }

        pub(crate) fn finish_request(&mut self) {
            self.request = usize::MAX;
        }

        pub(crate) fn put_down(&mut self) -> Option<Box<Unfinished>> {
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
            *self.0.0.lock().unwrap() = true;
            self.0.1.notify_all();
        }

        pub(crate) fn wait(&self) {
            let mut is_awake = self.0.0.lock().unwrap();
            while !*is_awake {
                is_awake = self.0.1.wait(is_awake).unwrap();
            }
            *is_awake = false;
        }
    }
}
