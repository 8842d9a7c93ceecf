//! The four forms of a request target (RFC 9112 §3.2), and the host that the request is for.

use super::fields::Span;
use super::grammar::escape;
use super::head::Head;
use super::host::is_host;
use super::method::Method;
use super::reject::Reject;
use super::scan::behind_plain;

/// A target, taken apart: positions in the request's bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    /// As sent, escapes included; `*` for the asterisk-form, empty for `http://host`.
    pub(crate) path: Span,
    /// What follows the first `?`.
    pub(crate) query: Option<Span>,
    /// The authority of an absolute-form: it overrides `Host` (RFC 9112 §3.2.2).
    pub(crate) authority: Option<Span>,
}

impl Target {
    /// For a request whose head is incomplete.
    pub(crate) const NONE: Self = Self { path: Span { start: 0, end: 0 }, query: None, authority: None };
}

/// Takes a target apart.
///
/// # Errors
///
/// [`Reject::Target`]; or [`Reject::Misdirected`] for an absolute-form with a scheme other than `http`.
#[inline]
pub(crate) fn dissect(head: &Head, bytes: &[u8]) -> Result<Target, Reject> {
    let (span, method) = (head.target(), head.method());
    match span.of(bytes) {
        // origin-form = absolute-path [ "?" query ]
        [b'/', ..] if head.is_target_plain() => Ok(Target { path: span, query: None, authority: None }),
        [b'/', ..] => split_query(span, bytes, None),
        // asterisk-form, only for a server-wide OPTIONS
        [b'*'] if method == Method::Options => Ok(Target { path: span, query: None, authority: None }),
        // absolute-form, or the authority-form that only CONNECT may have
        _ => absolute(span, bytes),
    }
}

/// `absolute-URI`; only `http://authority/path` is served.
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
    // The space after the target ends the run at the latest.
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

/// True if the path's escapes are complete and stand for UTF-8 without NUL, so that handlers can get text.
fn is_text(path: &[u8]) -> bool {
    let mut rest = path;
    loop {
        rest = behind_plain(rest);
        if rest.is_empty() {
            return true;
        }
        // Unescaped bytes are ASCII here, so every other character consists of escapes alone.
        match escaped_char(rest) {
            Some(after) => rest = after,
            None => return false,
        }
    }
}

/// What follows the leading character, which must consist of escapes; `None` if it does not, or is NUL.
fn escaped_char(text: &[u8]) -> Option<&[u8]> {
    let (first, mut rest) = escape(text)?;
    let mut bytes = [first, 0, 0, 0];
    // The leading ones of a character's first UTF-8 byte say how many bytes it has.
    let length = if first.is_ascii() { 1 } else { first.leading_ones() as usize };
    for byte in bytes.get_mut(1..length)? {
        (*byte, rest) = escape(rest)?;
    }
    let is_char = std::str::from_utf8(bytes.get(..length)?).is_ok_and(|text| text.chars().count() == 1);
    (is_char && first != 0).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::super::grammar::unescaped;
    use super::*;

    #[test]
    fn a_path_is_text_if_what_it_stands_for_is() {
        let parts =
            ["a", "/", "%20", "%00", "%7f", "%80", "%bf", "%c0", "%c3", "%A9", "%e2", "%82", "%AC", "%ed", "%a0"];
        let parts = parts.into_iter().chain(["%f0", "%9f", "%98", "%f4", "%90", "%ff", "%", "%4", "%g0"]);
        let mut paths = vec![String::new()];
        for _ in 0..3 {
            let longer = paths.iter().flat_map(|path| parts.clone().map(move |part| format!("{path}{part}")));
            paths.extend(longer.collect::<Vec<_>>());
        }
        paths.extend(["/%f0%9f%98%80", "/%f4%90%80%80", "/%f0%9f%98", "/%f8%88%80%80%80"].map(str::to_owned));
        for path in paths {
            let bytes = unescaped(path.as_bytes());
            // A `%` that begins no escape is kept, and so is an escaped one: there is no escape here.
            let wanted = std::str::from_utf8(&bytes).is_ok() && !bytes.contains(&0) && !bytes.contains(&b'%');
            assert_eq!(is_text(path.as_bytes()), wanted, "{path}");
        }
    }
}
