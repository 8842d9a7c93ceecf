//! The parser as a connection uses it: bytes come, requests are whole, what is left of the next one is kept.
//!
//! All targets but `connection` see `http` through this file.

use crate::http::{BodyLimits, HeadLimits, Incoming, Peer, Progress, Reject};

pub(crate) use crate::http::Limits;

/// The limits of a server that nobody has configured.
pub(crate) const DEFAULT: Limits = Limits {
    head: HeadLimits { head_bytes: 16 * 1024, target_bytes: 8 * 1024, fields: 100 },
    body: BodyLimits { body_bytes: 1024 * 1024, trailer_bytes: 16 * 1024, trailers: 100 },
};

/// Limits that short inputs cross.
pub(crate) const TIGHT: Limits = Limits {
    head: HeadLimits { head_bytes: 160, target_bytes: 24, fields: 4 },
    body: BodyLimits { body_bytes: 48, trailer_bytes: 40, trailers: 2 },
};

/// A whole request, as a handler would see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) head: SeenHead,
    pub(crate) body: Vec<u8>,
    pub(crate) keeps_alive: bool,
    /// Where the next request begins, counted from the connection's first byte.
    pub(crate) end: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SeenHead {
    pub(crate) method: &'static str,
    pub(crate) is_1_1: bool,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) fields: Vec<(String, Vec<u8>)>,
}

/// How the bytes end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// More is needed, of this.
    Waits(Progress),
    Refused(Reject),
}

pub(crate) struct Reader {
    incoming: Incoming,
    /// From the first byte of the request that is being read.
    bytes: Vec<u8>,
    limits: Limits,
    fed: usize,
    /// The head of the request that is being read, once it is complete.
    head: Option<SeenHead>,
    pub(crate) requests: Vec<Seen>,
    pub(crate) end: End,
}

impl Reader {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            incoming: Incoming::new(),
            bytes: Vec::new(),
            limits,
            fed: 0,
            head: None,
            requests: Vec::new(),
            end: End::Waits(Progress::Nothing),
        }
    }

    /// Takes a piece in. `is_put_down`: the connection rests afterwards, so that spent bytes are taken out.
    pub(crate) fn feed(&mut self, piece: &[u8], is_put_down: bool) {
        let End::Waits(mut before) = self.end else { return };
        self.fed += piece.len();
        self.bytes.extend_from_slice(piece);
        loop {
            let progress = match self.advance() {
                Ok(progress) => progress,
                Err(reject) => {
                    self.end = End::Refused(reject);
                    return;
                }
            };
            assert!(rank(progress) >= rank(before), "from {before:?} back to {progress:?}");
            self.end = End::Waits(progress);
            // Once complete, and again when the whole request is handed over.
            if progress == Progress::Whole || (progress == Progress::Body && self.head.is_none()) {
                self.look_at_head();
            }
            if progress != Progress::Whole {
                break;
            }
            self.finish();
            before = Progress::Nothing;
        }
        self.hold_limits();
        if is_put_down {
            self.incoming.compact(&mut self.bytes);
            let kept = self.limits.head.head_bytes as u64 + self.limits.body.body_bytes;
            assert!(self.bytes.len() as u64 <= kept + piece.len() as u64, "{} bytes are kept", self.bytes.len());
        }
    }

    /// Reads on, and says of each body that it is to be held.
    fn advance(&mut self) -> Result<Progress, Reject> {
        match self.incoming.advance(&mut self.bytes, &self.limits)? {
            Progress::Begun => {
                self.incoming.hold_body(&self.limits.body)?;
                self.incoming.advance(&mut self.bytes, &self.limits)
            }
            progress => Ok(progress),
        }
    }

    /// The head is what it was when it became complete, however much of the body has come.
    fn look_at_head(&mut self) {
        let request = self.incoming.request(&self.bytes, &Peer::Unix);
        let head = SeenHead {
            method: request.method().name(),
            is_1_1: request.version() == crate::http::Version::Http11,
            path: request.raw_path().to_owned(),
            query: request.query().map(str::to_owned),
            host: request.host().map(str::to_owned),
            fields: request.headers().iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect(),
        };
        match &self.head {
            None => self.head = Some(head),
            Some(before) => assert_eq!(*before, head, "the body has changed the head"),
        }
    }

    fn finish(&mut self) {
        let length = self.incoming.len();
        assert!(0 < length && length <= self.bytes.len(), "{length} of {} bytes are spent", self.bytes.len());
        assert_eq!(self.incoming.advance(&mut self.bytes, &self.limits), Ok(Progress::Whole), "whole, looked at again");
        let body = self.incoming.request(&self.bytes, &Peer::Unix).body().to_vec();
        assert!(body.len() as u64 <= self.limits.body.body_bytes, "a body of {} bytes", body.len());
        self.requests.push(Seen {
            head: self.head.take().expect("looked at before"),
            body,
            keeps_alive: self.incoming.keeps_alive(),
            end: self.fed - (self.bytes.len() - length),
        });
        self.bytes.drain(..length);
        self.incoming.clear();
    }

    fn hold_limits(&self) {
        if let Some(head) = &self.head {
            let target = head.path.len() + head.query.as_ref().map_or(0, |query| query.len() + 1);
            // A path that is not there is read as "/".
            assert!(target <= self.limits.head.target_bytes.max(1), "a target of {target} bytes");
            assert!(head.fields.len() <= self.limits.head.fields, "{} fields", head.fields.len());
            let body = self.incoming.request(&self.bytes, &Peer::Unix).body().len();
            assert!(body as u64 <= self.limits.body.body_bytes, "{body} bytes of a body");
        }
    }
}

fn rank(progress: Progress) -> u8 {
    match progress {
        Progress::Nothing => 0,
        Progress::Head => 1,
        Progress::Begun => 2,
        Progress::Body => 3,
        Progress::Whole => 4,
    }
}

/// What the bytes say when they come in these pieces.
pub(crate) fn read(data: &[u8], cuts: &[usize], limits: Limits, mut is_put_down: impl FnMut() -> bool) -> Reader {
    let mut reader = Reader::new(limits);
    for piece in crate::dice::pieces(data, cuts) {
        reader.feed(piece, is_put_down());
    }
    reader
}

/// The same bytes at once.
pub(crate) fn read_whole(data: &[u8], limits: Limits) -> Reader {
    read(data, &[], limits, || false)
}
