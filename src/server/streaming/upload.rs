//! A request whose handler reads the body as it arrives.

use super::arriving::{Arriving, Fault};
use super::blocking_socket::BlockingSocket;
use crate::http::Response;
use crate::server::buffer::{Answer, Begun, Caller, Exchange, Partial};
use crate::server::notice::Notice;
use crate::server::shared::Shared;
use crate::server::stream::Stream;
use crate::server::table::Token;
use crate::sync::{Arc, Weak};

/// A request, and what has come of its body.
#[derive(Debug)]
pub(crate) struct Upload {
    caller: Caller,
    exchange: Exchange,
    /// The request's head, complete, and nothing else.
    head: Partial,
    /// Weak, so that the deadline of a stop can close it.
    client: Weak<Stream>,
    body: Arc<Arriving>,
}

impl Upload {
    pub(crate) fn new(begun: Begun, caller: Caller, stream: Arc<Stream>, shared: &Shared) -> Self {
        let Begun { exchange, head, decoder, come, awaits_continue } = begun;
        let client = Arc::downgrade(&stream);
        let socket = BlockingSocket::new(
            stream,
            Arc::clone(&shared.totals),
            shared.config.body_timeout,
            shared.config.write_timeout,
        );
        let body = Arc::new(Arriving::new(socket, decoder, shared.limits.body.of_stream(), come, awaits_continue));
        Self { caller, exchange, head, client, body }
    }

    /// The token of its connection.
    pub(crate) fn token(&self) -> Token {
        self.caller.token
    }

    /// The body, for the loop to keep.
    pub(crate) fn body(&self) -> Arc<Arriving> {
        Arc::clone(&self.body)
    }

    /// Calls the handler. Returns its answer and what has come after the body. If the body turned out to be faulty, a
    /// refusal replaces the response.
    pub(crate) fn run(self, shared: &Arc<Shared>) -> Answer {
        let Self { caller: Caller { token, peer }, mut exchange, head, client, body } = self;
        let mut response = shared.call(&head.request(&peer).of(&client).reading(&*body));
        let (rest, fault) = body.leave();
        if let Some(Fault::Reject(reject)) = fault {
            shared.tell(&Notice::Rejected { peer: &peer, reject });
            response = Response::text(reject.reason()).with_status(reject.status());
        }
        // If more of the body may be on its way, the connection closes.
        exchange.keeps_alive &= rest.is_some();
        let is_gone = matches!(fault, Some(Fault::Gone));
        Answer { token, exchange, response, partial: rest.flatten(), is_gone }
    }
}
