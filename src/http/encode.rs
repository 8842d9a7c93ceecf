//! From responses to bytes (RFC 9112 §4 and §6).

use super::date::ImfDate;
use super::method::Version;
use super::response::{ContentType, Response};
use super::status::Status;

/// The interim response that asks for a body (RFC 9110 §15.2.1).
pub(crate) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What happens to the connection after a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Persistence {
    /// Another request may follow, as is the rule on HTTP/1.1.
    Keep,
    /// Another request may follow, and the head must say so to a 1.0 client.
    KeepExplicitly,
    /// This was the last answer.
    Close,
}

/// Appends a response to `out`; only the head of a streamed one. `head_only`: it answers HEAD.
pub(crate) fn encode(
    response: &Response,
    version: Version,
    head_only: bool,
    persistence: Persistence,
    date: &ImfDate,
    out: &mut Vec<u8>,
) {
    let (status, body) = (response.status(), response.body());
    if status == Status::OK {
        // One copy for the beginning of nearly every answer.
        let mut beginning = *b"HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT";
        if let Some(place) = beginning.last_chunk_mut() {
            *place = *date;
        }
        out.extend_from_slice(&beginning);
    } else {
        encode_status_line(status, out);
        out.extend_from_slice(b"Date: ");
        out.extend_from_slice(date);
    }
    match response.content_type() {
        ContentType::None => {}
        ContentType::Text => out.extend_from_slice(b"\r\nContent-Type: text/plain; charset=utf-8"),
        ContentType::Other(text) => {
            out.extend_from_slice(b"\r\nContent-Type: ");
            out.extend_from_slice(text.as_bytes());
        }
    }
    for (name, value) in response.other_fields() {
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
    }
    // RFC 9110 §8.6: HEAD has the length that GET would have; 204 has none, 304 need not.
    match response.length() {
        _ if status.is_bodiless() => {}
        Some(length) => {
            out.extend_from_slice(b"\r\nContent-Length: ");
            encode_decimal(length, out);
        }
        None if version == Version::Http11 => out.extend_from_slice(b"\r\nTransfer-Encoding: chunked"),
        None => {}
    }
    // Each copies a length known at compile time, which takes a few instructions; so do those above.
    match persistence {
        Persistence::Keep => out.extend_from_slice(b"\r\n\r\n"),
        Persistence::KeepExplicitly => out.extend_from_slice(b"\r\nConnection: keep-alive\r\n\r\n"),
        Persistence::Close => out.extend_from_slice(b"\r\nConnection: close\r\n\r\n"),
    }
    if !head_only && !status.is_bodiless() {
        out.extend_from_slice(body);
    }
}

fn encode_status_line(status: Status, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    encode_decimal(status.code().into(), out);
    // The space is required even if the phrase is empty.
    out.push(b' ');
    out.extend_from_slice(status.reason().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// By hand: `write!` would use the formatting machinery for each response.
fn encode_decimal(number: u64, out: &mut Vec<u8>) {
    if let Ok(digit @ 0..=9) = u8::try_from(number) {
        return out.push(b'0' | digit);
    }
    let mut digits = [0; 20];
    let (mut rest, mut length) = (number, 0_usize);
    for slot in digits.iter_mut().rev() {
        *slot = b'0'.saturating_add(u8::try_from(rest % 10).unwrap_or(0));
        rest /= 10;
        length = length.saturating_add(1);
        if rest == 0 {
            break;
        }
    }
    let start = digits.len().saturating_sub(length);
    out.extend_from_slice(digits.get(start..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(response: &Response, head_only: bool, persistence: Persistence, wire: &str) {
        let mut out = Vec::new();
        encode(response, Version::Http11, head_only, persistence, b"Sun, 06 Nov 1994 08:49:37 GMT", &mut out);
        let wire = wire.replace("DATE", "Date: Sun, 06 Nov 1994 08:49:37 GMT").replace('\n', "\r\n");
        assert_eq!(String::from_utf8_lossy(&out), wire);
    }

    #[test]
    fn responses() {
        let pong = Response::text("pong");
        let text = "HTTP/1.1 200 OK\nDATE\nContent-Type: text/plain; charset=utf-8\nContent-Length: 4\n";
        check(&pong, false, Persistence::Keep, &format!("{text}\npong"));
        check(&pong, true, Persistence::Keep, &format!("{text}\n"));
        check(&pong, false, Persistence::Close, &format!("{text}Connection: close\n\npong"));
        check(&pong, false, Persistence::KeepExplicitly, &format!("{text}Connection: keep-alive\n\npong"));
        let gone = Response::new(Status::NO_CONTENT).with_field("X-A", "b");
        check(&gone, false, Persistence::Keep, "HTTP/1.1 204 No Content\nDATE\nX-A: b\n\n");
        let own = Response::new(Status::from_code(299).expect("a final status"));
        check(&own, false, Persistence::Keep, "HTTP/1.1 299 \nDATE\nContent-Length: 0\n\n");
    }

    #[test]
    fn decimals() {
        for number in [0, 9, 10, 1_234_567_890, u64::MAX] {
            let mut out = Vec::new();
            encode_decimal(number, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), number.to_string());
        }
    }
}
