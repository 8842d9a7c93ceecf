//! Whatever we accept, `httparse` reads alike: method, target, version, fields, body, and where the next request
//! begins. Where it accepts and we refuse, we are stricter, and that is fine.
//!
//! `httparse` gives heads, chunk sizes and field lines; how they make up a message is RFC 9112 §6.3, step by step,
//! from its fields and not from ours.

use httparse::{EMPTY_HEADER, Status};

use crate::http::Progress;
use crate::reader::{DEFAULT, End, Seen, read_whole};

pub fn check(data: &[u8]) {
    let ours = read_whole(data, DEFAULT);
    let mut start = 0;
    for seen in &ours.requests {
        let theirs = read(&data[start..]).expect("httparse accepts it too");
        compare(seen, &theirs);
        assert_eq!(start + theirs.length, seen.end, "where the next request begins (httparse left)");
        start = seen.end;
    }
    // While we wait for more, nobody else may have seen the end of it.
    if let End::Waits(progress) = ours.end {
        let rest = &data[start..];
        let theirs = read(rest);
        assert!(theirs.is_none(), "we wait for more ({progress:?}), httparse does not: {theirs:?}");
        assert_eq!(progress == Progress::Nothing, rest.iter().all(|byte| b"\r\n".contains(byte)), "begun or not");
    }
}

/// A request as httparse reads it.
#[derive(Debug)]
struct Theirs {
    method: String,
    target: String,
    is_1_1: bool,
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    length: usize,
}

#[track_caller]
fn compare(ours: &Seen, theirs: &Theirs) {
    let head = &ours.head;
    assert_eq!(head.method, theirs.method, "method (httparse right)");
    assert_eq!(head.is_1_1, theirs.is_1_1, "version (httparse right)");
    assert_eq!(head.fields, theirs.fields, "fields (httparse right)");
    assert_eq!(ours.body, theirs.body, "body (httparse right)");
    // RFC 9112 §3.2, from the target in one piece.
    let (authority, rest) = match theirs.target.split_once("://") {
        Some((_, rest)) if !theirs.target.starts_with('/') => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            (Some(&rest[..end]), &rest[end..])
        }
        _ => (None, theirs.target.as_str()),
    };
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    let path = match path {
        // RFC 9112 §3.2.4.
        "" if head.method == "OPTIONS" && query.is_none() => "*",
        "" => "/",
        path => path,
    };
    assert_eq!(head.path, path, "path (httparse right)");
    assert_eq!(head.query.as_deref(), query, "query (httparse right)");
    let host = theirs.fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
    let host = authority.map(str::as_bytes).or(host.map(|(_, value)| value.as_slice()));
    assert_eq!(head.host.as_deref().map(str::as_bytes), host, "host (httparse right)");
}

/// The place of a minor version from 2 on in the first socket, which we read as 1 (RFC 9110 §2.5), and httparse not at
/// all.
pub(crate) fn high_minor(data: &[u8]) -> Option<usize> {
    let start = data.iter().position(|byte| !b"\r\n".contains(byte))?;
    let end = start + data[start..].iter().position(|byte| *byte == b'\r')?;
    let (minor, before) = data[..end].split_last()?;
    (before.ends_with(b" HTTP/1.") && (b'2'..=b'9').contains(minor)).then_some(end - 1)
}

/// `None`: it needs more, or refuses.
fn read(data: &[u8]) -> Option<Theirs> {
    let mut data = data.to_vec();
    if let Some(minor) = high_minor(&data) {
        data[minor] = b'1';
    }
    let mut headers = [EMPTY_HEADER; 100];
    let mut request = httparse::Request::new(&mut headers);
    let Ok(Status::Complete(head_length)) = request.parse(&data) else { return None };
    let fields: Vec<_> = request.headers.iter().map(|header| (header.name.to_owned(), header.value.to_vec())).collect();
    let (body, length) = body(&data[head_length..], &fields)?;
    Some(Theirs {
        method: request.method?.to_owned(),
        target: request.path?.to_owned(),
        is_1_1: request.version? == 1,
        fields,
        body,
        length: head_length + length,
    })
}

/// RFC 9112 §6.3: a coding comes before a length, and a length before none.
fn body(data: &[u8], fields: &[(String, Vec<u8>)]) -> Option<(Vec<u8>, usize)> {
    let values = |name: &str| {
        let of_name = fields.iter().filter(|(have, _)| have.eq_ignore_ascii_case(name));
        let values: Vec<_> = of_name.map(|(_, value)| String::from_utf8_lossy(value)).collect();
        (!values.is_empty()).then(|| values.join(","))
    };
    match (values("transfer-encoding"), values("content-length")) {
        (Some(codings), _) if codings.rsplit(',').next()?.trim().eq_ignore_ascii_case("chunked") => chunks(data),
        (Some(_), _) => None,
        // std's reader takes a sign before the digits; nobody else should.
        (None, Some(digits)) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            let length = digits.parse().ok()?;
            Some((data.get(..length)?.to_vec(), length))
        }
        (None, Some(_)) => None,
        (None, None) => Some((Vec::new(), 0)),
    }
}

fn chunks(data: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let Ok(Status::Complete((socket, size))) = httparse::parse_chunk_size(&data[at..]) else { return None };
        at += socket;
        if size == 0 {
            let mut trailers = [EMPTY_HEADER; 100];
            let Ok(Status::Complete((length, _))) = httparse::parse_headers(&data[at..], &mut trailers) else {
                return None;
            };
            return Some((body, at + length));
        }
        let end = at.checked_add(usize::try_from(size).ok()?)?;
        body.extend_from_slice(data.get(at..end)?);
        if data.get(end..end + 2)? != b"\r\n" {
            return None;
        }
        at = end + 2;
    }
}
