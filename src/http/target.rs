//! The four forms of a request target (RFC 9112 §3.2), and the host that the request is for.

use super::fields::Span;
use super::grammar::{has_whole_escapes, is_host, unescaped};
use super::method::Method;
use super::reject::Reject;
use super::scan::behind_plain;

/// A target taken apart: positions in the request's bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Target {
    /// As sent, escapes and all; `*` for the asterisk-form, empty for `http://host`.
    pub(crate) path: Span,
    /// Behind the first `?`.
    pub(crate) query: Option<Span>,
    /// Of an absolute-form: it overrides `Host` (RFC 9112 §3.2.2).
    pub(crate) authority: Option<Span>,
}

/// Takes a target apart.
///
/// # Errors
///
/// [`Reject::Target`] or, for an absolute-form of another scheme than `http`, [`Reject::Misdirected`].
pub(crate) fn dissect(span: Span, bytes: &[u8], method: Method) -> Result<Target, Reject> {
    let text = span.of(bytes);
    match text {
        // origin-form = absolute-path [ "?" query ]
        [b'/', ..] => split_query(span, bytes, None),
        // asterisk-form, for a server-wide OPTIONS alone
        [b'*'] if method == Method::Options => Ok(Target { path: span, query: None, authority: None }),
        // absolute-form, or the authority-form that only CONNECT may have
        _ => absolute(span, bytes),
    }
}

/// `absolute-URI`, of which `http://authority/path` is served.
fn absolute(span: Span, bytes: &[u8]) -> Result<Target, Reject> {
    let text = span.of(bytes);
    let colon = text.iter().position(|byte| *byte == b':').ok_or(Reject::Target)?;
    let (scheme, rest) = text.split_at(colon);
    let rest = rest.strip_prefix(b"://").ok_or(Reject::Target)?;
    // scheme = ALPHA *( ALPHA / DIGIT / "+" / "-" / "." )
    let is_scheme = scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    if !is_scheme {
        return Err(Reject::Target);
    }
    if !scheme.eq_ignore_ascii_case(b"http") {
        return Err(Reject::Misdirected);
    }
    let length = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, _) = rest.split_at(length);
    // RFC 9110 §4.2.1: an empty host is invalid; §4.2.4: user information is an attempt to mislead.
    if authority.is_empty() || !is_host(authority) {
        return Err(Reject::Target);
    }
    let start = (span.end as usize).saturating_sub(rest.len());
    let end = start.saturating_add(length);
    split_query(Span::new(end, span.end as usize), bytes, Some(Span::new(start, end)))
}

/// Takes path and query apart.
fn split_query(span: Span, bytes: &[u8], authority: Option<Span>) -> Result<Target, Reject> {
    let (start, end) = (span.start as usize, span.end as usize);
    // The space behind the target ends the run at the latest.
    let rest = behind_plain(bytes.get(start..).unwrap_or_default());
    let mut mark = bytes.len().saturating_sub(rest.len());
    if let [b'%', ..] = rest {
        let text = span.of(bytes);
        let (path, query) = text.split_at(text.iter().position(|byte| *byte == b'?').unwrap_or(text.len()));
        if !is_text(path) {
            return Err(Reject::Target);
        }
        mark = end.saturating_sub(query.len());
    }
    let path = Span::new(start, mark);
    let query = (mark < end).then(|| Span::new(mark.saturating_add(1), end));
    Ok(Target { path, query, authority })
}

/// A path whose escapes are whole and stand for UTF-8 without NUL, so that handlers can be given text.
fn is_text(path: &[u8]) -> bool {
    let bytes = unescaped(path);
    has_whole_escapes(path) && !bytes.contains(&0) && std::str::from_utf8(&bytes).is_ok()
}
