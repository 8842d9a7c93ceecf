//! How long the body is, and whether the connection persists, by the fields of a complete head.
//!
//! Wherever two readers could take the same bytes differently, this module refuses.

use super::fields::Field;
use super::grammar::{decimal, list, trim_ows};
use super::head::Head;
use super::host::is_host;
use super::method::Version;
use super::reject::Reject;

/// How the body of a request is delimited (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// This many bytes; 0 if there is no framing field.
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
/// A reject if the fields contradict each other, or RFC 9110 or 9112.
pub(crate) fn examine(head: &Head, bytes: &[u8]) -> Result<Facts, Reject> {
    let found = Found::gather(head.fields(), bytes)?;
    let version = head.version();

    // RFC 9112 §3.2: exactly one Host on 1.1; on 1.0 it may be missing, but not ambiguous.
    if found.hosts > 1 || (found.hosts == 0 && version == Version::Http11) {
        return Err(Reject::Host);
    }
    Ok(Facts {
        framing: found.framing(version)?,
        // RFC 9112 §9.3, in its order: `close` wins, then 1.1 persists, then 1.0 if it says so.
        keep_alive: !found.close && (version == Version::Http11 || found.keep_alive),
        // RFC 9110 §10.1.1: ignore an expectation in a 1.0 request.
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

/// The transfer codings in the order in which they were applied; all fields form one list (RFC 9110 §5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Codings {
    /// `chunked`, and nothing else.
    Chunked,
    /// Others, without `chunked` after them.
    Others,
    /// Others, then `chunked`.
    OthersChunked,
    /// Nobody needs to send this, and two readers could take it differently.
    Doubtful,
}

impl<'a> Found<'a> {
    fn gather(fields: &[Field], bytes: &'a [u8]) -> Result<Self, Reject> {
        let mut found = Self::default();
        for field in fields {
            // The length rules out most names before any byte is compared.
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
                // A repeated length is refused even if both are equal: RFC 9112 §6.3, step 5, leaves the choice, and a
                // repeated one means that somebody has tampered with the message, or is about to.
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

    /// RFC 9112 §6.3 for requests, in the order of its steps.
    fn framing(&self, version: Version) -> Result<Framing, Reject> {
        match (self.codings, self.length) {
            // Step 3: a Transfer-Encoding that overrides a Content-Length is the classic smuggling attempt: refuse.
            (Some(_), Some(_)) => Err(Reject::Framing),
            // RFC 9112 §6.1: a 1.0 peer does not know transfer codings, so its framing is faulty.
            (Some(_), None) if version == Version::Http10 => Err(Reject::Framing),
            // Step 4: `chunked`, once and alone; we can undo no other coding.
            (Some(Codings::Chunked), None) => Ok(Framing::Chunked),
            (Some(Codings::OthersChunked), None) => Err(Reject::TransferCoding),
            // The same step: unless `chunked` comes last, nobody can tell where the body ends.
            (Some(Codings::Others | Codings::Doubtful), None) => Err(Reject::FinalCoding),
            // Steps 5 and 6.
            (None, Some(length)) => decimal(length).map(Framing::Length).ok_or(Reject::Length),
            // Step 7: a request with neither has no body.
            (None, None) => Ok(Framing::Length(0)),
        }
    }

    fn expects_continue(&self) -> Result<bool, Reject> {
        if self.other_expected { Err(Reject::Expectation) } else { Ok(self.continue_expected) }
    }
}

impl Codings {
    /// `before`, and the codings of one more field.
    fn with(before: Option<Self>, value: &[u8]) -> Self {
        match before {
            // A list may have empty elements too (RFC 9110 §5.6.1.2). But a reader that does not skip them sees no
            // `chunked`, and another end of the body: requests could be smuggled through that difference.
            None if is(value, b"chunked") => Self::Chunked,
            Some(Self::Chunked) => Self::Doubtful,
            _ => list(value).fold(before, |codings, coding| Some(Self::and(codings, coding))).unwrap_or(Self::Doubtful),
        }
    }

    /// `transfer-coding = token *( OWS ";" OWS transfer-parameter )`. Codings other than `chunked` are not examined,
    /// since none is implemented. So it does no harm that a comma in a quoted parameter ends an element here.
    fn and(before: Option<Self>, coding: &[u8]) -> Self {
        let name = trim_ows(coding.split(|byte| *byte == b';').next().unwrap_or_default());
        let is_chunked = is(name, b"chunked");
        match before {
            None | Some(Self::Others) if !is_chunked => Self::Others,
            // RFC 9112 §7.1: `chunked` may not have parameters. §6.1: nor may it be applied twice.
            Some(Self::Others) if is_chunked && name.len() == coding.len() => Self::OthersChunked,
            _ => Self::Doubtful,
        }
    }
}

/// True if this part of a head is `word`, which is in lower case. `| 0x20` puts letters in lower case; the only other
/// bytes that it turns into bytes of `word` are control characters, which no part of a head has.
fn is(part: &[u8], word: &[u8]) -> bool {
    let differ = |sum, (have, want): (&u8, &u8)| sum | ((have | 0x20) ^ want);
    part.len() == word.len() && part.iter().zip(word).fold(0, differ) == 0
}
