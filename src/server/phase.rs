//! What a connection can be in the middle of, and what an attempt to read or write can come to. All changes of phase
//! are in `connection`.

/// What a connection is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing: between requests, or before the first.
    Idle,
    /// Part of a head has come.
    Head,
    /// The head and part of the body have come.
    Body,
    /// A request has come, whole or to be streamed, and waits for a worker thread.
    Waiting,
    /// A handler works on its request, and its loop goes on without it; if it streams, it has the socket.
    Away,
    /// The peer has not taken all of an answer.
    Writing,
    /// We have sent FIN, and wait for the peer's.
    Lingering,
}

/// How near a connection is to its end. It never goes back: see [`Connection::end_with`].
///
/// [`Connection::end_with`]: super::connection::Connection::end_with
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// No end is in snapshot.
    Open,
    /// A handler has asked for the connection to be closed after its response, and others follow that one.
    Leaving,
    /// The last answer has been given. Once it is written: FIN, and reading on until the peer's own, so that no reset
    /// destroys the answer.
    Lingering,
    /// Nothing is in flight that could be destroyed, or nobody is left to wait.
    AtOnce,
}

/// What one attempt to read came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    Bytes,
    Nothing,
    Failed,
}

/// What came of reading behind the last answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Discarded {
    Nothing,
    Bytes,
    /// The peer's end, or the connection's.
    End,
}

/// What became of the answers that were to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    All,
    Blocked,
    Failed,
}
