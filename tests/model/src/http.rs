//! Stand-ins: a request and its response are a number.

use crate::server::presence::Client;
use crate::server::shared::Shared;
use crate::sync::Arc;

#[derive(Clone, Debug)]
pub(crate) struct Peer;

pub(crate) struct Request(pub(crate) usize);

impl Request {
    pub(crate) fn of(self, _: &Client) -> Self {
        self
    }
}

pub(crate) struct Response(pub(crate) usize, pub(crate) Arc<Shared>);

/// Every other response writes its body itself, which counts as its handler.
pub(crate) struct WriteBody(usize, Arc<Shared>);

impl WriteBody {
    pub(crate) fn call(&self) {
        self.1.call(&Request(self.0));
    }
}

impl Response {
    pub(crate) fn is_streamed(&self) -> bool {
        self.0 % 2 == 1
    }

    pub(crate) fn needs_writing(&self, _: bool) -> bool {
        self.is_streamed()
    }

    pub(crate) fn take_write(&mut self) -> Option<WriteBody> {
        Some(WriteBody(self.0, Arc::clone(&self.1)))
    }
}
