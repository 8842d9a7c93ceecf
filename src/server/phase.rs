//! The phases of a connection, their clocks, and the results of reading and writing. All changes of phase are in
//! `connection`.

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
    /// A handler works on its request while the loop goes on. A handler that streams has the socket.
    Away,
    /// The peer has not taken all of an answer.
    Writing,
    /// We have sent FIN, and wait for the peer's.
    Lingering,
}

/// What a connection is timed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    /// Between requests, and before the first.
    Idle,
    /// While draining: between requests or within a head, since the last byte.
    Quiet,
    /// Within a head.
    Head,
    /// Within a body.
    Body,
    /// A whole request waits for a worker thread.
    Queue,
    /// The peer is taking an answer: check its rate.
    Write,
    /// We have closed our side, and wait for the peer's end.
    Linger,
}

impl Clock {
    pub(crate) const ALL: [Self; 7] =
        [Self::Idle, Self::Quiet, Self::Head, Self::Body, Self::Queue, Self::Write, Self::Linger];
}

/// How near a connection is to its end. It never goes back: see [`Connection::end_with`].
///
/// [`Connection::end_with`]: super::connection::Connection::end_with
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// No end is in sight.
    Open,
    /// A handler has asked for a close after its response, but requests that had come already are answered first.
    Leaving,
    /// The last answer has been given. Once it is written, we send FIN and read on until the peer's FIN, so that no
    /// reset destroys the answer.
    Lingering,
    /// Nothing is in flight that a reset could destroy, or nobody is left to wait.
    AtOnce,
}

/// The result of one attempt to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    /// So many.
    Bytes(usize),
    Nothing,
    Failed,
}

/// The result of reading after the last answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Discarded {
    Nothing,
    Bytes,
    /// The peer's end of stream, or a broken connection.
    End,
}

/// The result of sending answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    All,
    Blocked,
    Failed,
}
