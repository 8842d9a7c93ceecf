//! How long the body is and what becomes of the connection, told by the fields of a complete head.
//!
//! Every rule that two readers of the same bytes could take differently is decided here, and by refusing.

use super::fields::Field;
use super::grammar::{decimal, list, trim_ows};
use super::head::Head;
use super::host::is_host;
use super::method::Version;
use super::reject::Reject;

/// How the body of a request is delimited (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// This many bytes; 0 if no framing field was there.
    Length(u64),
    Chunked,
}

/// What the fields of a head say about the message and its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) framing: Framing,
    /// The client is willing to send another request on this connection.
    pub(crate) keep_alive: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub(crate) expects_continue: bool,
}

/// Reads the facts off a complete head.
///
/// # Errors
///
/// A reject if the fields contradict each other or RFC 9110 and 9112.
pub(crate) fn examine(head: &Head, bytes: &[u8]) -> Result<Facts, Reject> {
    let found = Found::gather(head.fields(), bytes)?;
    let version = head.version();

    // RFC 9112 §3.2: exactly one Host on 1.1; on 1.0 it may be missing, but not be ambiguous.
    if found.hosts > 1 || (found.hosts == 0 && version == Version::Http11) {
        return Err(Reject::Host);
    }
    Ok(Facts {
        framing: found.framing(version)?,
        // RFC 9112 §9.3, in its order: `close` wins, then 1.1 persists, then 1.0 if it says so.
        keep_alive: !found.close && (version == Version::Http11 || found.keep_alive),
        // RFC 9110 §10.1.1: an expectation in a 1.0 request is ignored.
        expects_continue: version == Version::Http11 && found.expects_continue()?,
    })
}

#[derive(Default)]
struct Found<'a> {
    hosts: u32,
    length: Option<&'a [u8]>,
    codings: Option<Codings>,
    close: bool,
    keep_alive: bool,
    continue_expected: bool,
    other_expected: bool,
}

/// What the transfer codings come to, in the order in which they were applied: all fields are one list (RFC 9110 §5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Codings {
    /// `chunked`, and nothing else at all.
    Chunked,
    /// Others, and no `chunked` behind them.
    Others,
    /// Others, and `chunked` behind them.
    OthersChunked,
    /// What nobody needs to send, and two readers could take differently.
    Doubtful,
}

impl<'a> Found<'a> {
    fn gather(fields: &[Field], bytes: &'a [u8]) -> Result<Self, Reject> {
        let mut found = Self::default();
        for field in fields {
            // The length tells most names apart before a byte is looked at.
            let has_name = |name| is(field.name.of(bytes), name);
            let value = || field.value.of(bytes);
            match field.name.len() {
                4 if has_name(b"host") => {
                    found.hosts = found.hosts.saturating_add(1);
                    if !is_host(value()) {
                        return Err(Reject::Host);
                    }
                }
                6 if has_name(b"expect") => {
                    for expectation in list(value()) {
                        let is_met = is(expectation, b"100-continue");
                        found.continue_expected |= is_met;
                        found.other_expected |= !is_met;
                    }
                }
                10 if has_name(b"connection") => {
                    for option in list(value()) {
                        found.close |= is(option, b"close");
                        found.keep_alive |= is(option, b"keep-alive");
                    }
                }
                // A repeated length is refused even if it is the same: RFC 9112 §6.3, step 5, leaves the choice, and
                // a peer that repeats it has been tampered with or is about to.
                14 if has_name(b"content-length") && found.length.replace(value()).is_some() => {
                    return Err(Reject::Length);
                }
                17 if has_name(b"transfer-encoding") => {
                    found.codings = Some(Codings::with(found.codings, value()));
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// RFC 9112 §6.3 for requests, in its own order of steps.
    fn framing(&self, version: Version) -> Result<Framing, Reject> {
        match (self.codings, self.length) {
            // Step 3: a Transfer-Encoding that overrides a Content-Length is the classic smuggling attempt: refuse.
            (Some(_), Some(_)) => Err(Reject::Framing),
            // RFC 9112 §6.1: a 1.0 peer does not know the coding, so its framing is faulty.
            (Some(_), None) if version == Version::Http10 => Err(Reject::Framing),
            // Step 4: chunked, once and alone; we have no other coding to undo.
            (Some(Codings::Chunked), None) => Ok(Framing::Chunked),
            (Some(Codings::OthersChunked), None) => Err(Reject::TransferCoding),
            // The same step: where chunked is not the last, nobody can tell where the body ends.
            (Some(Codings::Others | Codings::Doubtful), None) => Err(Reject::FinalCoding),
            // Steps 5 and 6.
            (None, Some(length)) => decimal(length).map(Framing::Length).ok_or(Reject::Length),
            // Step 7: a request without either has no body.
            (None, None) => Ok(Framing::Length(0)),
        }
    }

    fn expects_continue(&self) -> Result<bool, Reject> {
        if self.other_expected { Err(Reject::Expectation) } else { Ok(self.continue_expected) }
    }
}

impl Codings {
    /// These and those of one field more.
    fn with(before: Option<Self>, value: &[u8]) -> Self {
        match before {
            // A list may have empty elements too (RFC 9110 §5.6.1.2). But a reader that does not pass over them sees no
            // `chunked`, and another end of the body: a difference that requests could be smuggled by.
            None if is(value, b"chunked") => Self::Chunked,
            Some(Self::Chunked) => Self::Doubtful,
            _ => list(value).fold(before, |codings, coding| Some(Self::and(codings, coding))).unwrap_or(Self::Doubtful),
        }
    }

    /// `transfer-coding = token *( OWS ";" OWS transfer-parameter )`. What is not `chunked` is not looked at: it is not
    /// implemented, whatever it is, and so a comma in a quoted parameter may well end an element here.
    fn and(before: Option<Self>, coding: &[u8]) -> Self {
        let name = trim_ows(coding.split(|byte| *byte == b';').next().unwrap_or_default());
        let is_chunked = is(name, b"chunked");
        match before {
            None | Some(Self::Others) if !is_chunked => Self::Others,
            // RFC 9112 §7.1: parameters of `chunked` are an error. §6.1: nor may it be applied twice.
            Some(Self::Others) if is_chunked && name.len() == coding.len() => Self::OthersChunked,
            _ => Self::Doubtful,
        }
    }
}

/// True if this part of a head is the given word, which is written in lower case. `| 0x20` makes lower case of letters;
/// what else it makes bytes of the word of are control characters, which no part of a head has.
fn is(part: &[u8], word: &[u8]) -> bool {
    let differ = |sum, (have, want): (&u8, &u8)| sum | ((have | 0x20) ^ want);
    part.len() == word.len() && part.iter().zip(word).fold(0, differ) == 0
}
