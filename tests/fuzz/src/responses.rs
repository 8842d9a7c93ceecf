//! What a server may send (RFC 9112 §4), read as strictly as it can be: a fault is the server's.

/// An answer. Its `Date` is checked and left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(have, _)| have.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "two fields `{name}`: {self:?}");
        value
    }

    /// Nothing may follow it.
    pub(crate) fn is_last(&self) -> bool {
        self.field("connection") == Some("close")
    }
}

/// All answers, without interim ones, and what is left of one that breaks off. `is_head`: an answer to HEAD, told by
/// its number and itself.
pub(crate) fn answers(mut wire: &[u8], is_head: impl Fn(usize, &Answer) -> bool) -> (Vec<Answer>, &[u8]) {
    let mut answers: Vec<Answer> = Vec::new();
    while let Some((mut answer, mut rest)) = head(wire) {
        assert!(!answers.last().is_some_and(Answer::is_last), "an answer behind the last: {answer:?}");
        if answer.status == 100 {
            assert!(answer.fields.is_empty(), "fields of an interim answer: {answer:?}");
            wire = rest;
            continue;
        }
        let dates = answer.fields.iter().filter(|(name, value)| name == "Date" && is_date(value)).count();
        assert_eq!(dates, 1, "dates of {answer:?}");
        answer.fields.retain(|(name, _)| name != "Date");
        assert_eq!(answer.field("transfer-encoding"), None, "a coding that nobody has asked for");
        if matches!(answer.status, 204 | 304) {
            assert_eq!(answer.field("content-length"), None, "a length without a body: {answer:?}");
        } else {
            let length = answer.field("content-length").map(str::parse::<usize>);
            let Some(Ok(length)) = length else { panic!("no length: {answer:?}") };
            if !is_head(answers.len(), &answer) {
                let Some((body, behind)) = rest.split_at_checked(length) else { break };
                answer.body = body.to_vec();
                rest = behind;
            }
        }
        answers.push(answer);
        wire = rest;
    }
    (answers, wire)
}

/// A status socket and its fields; `None`: it is not all there.
fn head(wire: &[u8]) -> Option<(Answer, &[u8])> {
    let end = wire.windows(4).position(|four| four == b"\r\n\r\n")?;
    let (text, rest) = (std::str::from_utf8(&wire[..end]).expect("text"), &wire[end + 4..]);
    let mut lines = text.split("\r\n");
    let socket = lines.next()?;
    let status = socket.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.split_once(' '));
    let (status, reason) = status.unwrap_or_else(|| panic!("not a status socket: {socket:?}"));
    let is_plain = |text: &str| text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    assert!(status.len() == 3 && is_plain(reason), "not a status socket: {socket:?}");
    let field = |socket: &str| {
        let (name, value) = socket.split_once(": ").unwrap_or_else(|| panic!("not a field: {socket:?}"));
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte == b'-' || byte.is_ascii_alphanumeric());
        assert!(is_name && is_plain(value), "not a field: {socket:?}");
        (name.to_owned(), value.to_owned())
    };
    let status = status.parse().unwrap_or_else(|_| panic!("not a status socket: {socket:?}"));
    Some((Answer { status, fields: lines.map(field).collect(), body: Vec::new() }, rest))
}

/// Like `Sun, 06 Nov 1994 08:49:37 GMT`.
fn is_date(text: &str) -> bool {
    let shape = |c: char| match c {
        '0'..='9' => '0',
        'a'..='z' => 'a',
        'A'..='Z' => 'A',
        other => other,
    };
    text.chars().map(shape).eq("Aaa, 00 Aaa 0000 00:00:00 AAA".chars())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Date: Sun, 06 Nov 1994 08:49:37 GMT";

    #[track_caller]
    fn parse(wire: &str) -> (Vec<Answer>, String) {
        let wire = wire.replace("DATE", DATE).replace('\n', "\r\n");
        let (answers, rest) = answers(wire.as_bytes(), |_, answer| answer.field("X-Method") == Some("HEAD"));
        (answers, String::from_utf8(rest.to_vec()).unwrap())
    }

    #[test]
    fn answers_are_told_apart() {
        let (answers, rest) = parse(concat!(
            "HTTP/1.1 200 OK\nDATE\nContent-Length: 4\n\npong",
            "HTTP/1.1 100 Continue\n\n",
            "HTTP/1.1 204 No Content\nDATE\n\n",
            "HTTP/1.1 200 OK\nDATE\nX-Method: HEAD\nContent-Length: 4\n\n",
            "HTTP/1.1 400 Bad Request\nDATE\nContent-Length: 1\nConnection: close\n\nx",
        ));
        assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200, 204, 200, 400]);
        assert_eq!((answers[0].body.as_slice(), answers[3].is_last(), rest.as_str()), (&b"pong"[..], true, ""));
        let (answers, rest) = parse("HTTP/1.1 200 OK\nDATE\nContent-Length: 4\n\npon");
        assert_eq!((answers.len(), rest.is_empty()), (0, false));
    }

    #[test]
    fn what_a_server_may_not_send_is_seen() {
        for wrong in [
            "HTTP/1.0 200 OK\nDATE\nContent-Length: 0\n\n",
            "HTTP/1.1 200\nDATE\nContent-Length: 0\n\n",
            "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
            "HTTP/1.1 200 OK\nDATE\nDATE\nContent-Length: 0\n\n",
            "HTTP/1.1 200 OK\nDate: now\nContent-Length: 0\n\n",
            "HTTP/1.1 200 OK\nDATE\n\n",
            "HTTP/1.1 200 OK\nDATE\nContent-Length: 0\nContent-Length: 0\n\n",
            "HTTP/1.1 200 OK\nDATE\nContent-Length: 0\nTransfer-Encoding: chunked\n\n",
            "HTTP/1.1 204 No Content\nDATE\nContent-Length: 0\n\n",
            "HTTP/1.1 200 OK\nDATE\nContent-Length: 1\n\nxHTTP/1.1 200 OK\nDATE\n\n",
            "HTTP/1.1 200 OK\nDATE\nContent-Length: 0\nA b: c\n\n",
            "HTTP/1.1 200 OK\nDATE\nContent-Length: 0\nA: b\rC: d\n\n",
            concat!(
                "HTTP/1.1 200 OK\nDATE\nContent-Length: 0\nConnection: close\n\n",
                "HTTP/1.1 200 OK\nDATE\nContent-Length: 0\n\n"
            ),
        ] {
            assert!(std::panic::catch_unwind(|| parse(wrong)).is_err(), "{wrong:?}");
        }
    }
}
