//! A request to be sent, the answer that is due, and whether one answer is that.

use bytes::Bytes;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, DATE, TRANSFER_ENCODING};
use hyper::{HeaderMap, Method, StatusCode, Version};

/// A request, and what is due for it.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) version: Version,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Body,
    pub(crate) due: Due,
}

/// A request's body, and how it is sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body {
    pub(crate) pieces: Vec<Bytes>,
    /// Chunked, a chunk for each piece; else with its length.
    pub(crate) is_chunked: bool,
    /// Sent after the last chunk.
    pub(crate) trailers: Option<HeaderMap>,
    /// Sent only once the other side has said `100 Continue`.
    pub(crate) waits: bool,
    /// A moment's rest between the pieces.
    pub(crate) rests: bool,
}

/// The answer that is due.
#[derive(Debug)]
pub(crate) struct Due {
    pub(crate) status: u16,
    pub(crate) content_type: Option<&'static str>,
    pub(crate) body: Bytes,
    /// The answer's length is this, and it has no body.
    pub(crate) head_of: Option<usize>,
    /// The answer is made while it is sent: chunked, without a length.
    pub(crate) is_streamed: bool,
    pub(crate) headers: Vec<(&'static str, &'static str)>,
}

/// An answer, as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

pub(crate) const TEXT: &str = "text/plain; charset=utf-8";
pub(crate) const BYTES: &str = "application/octet-stream";

impl Ask {
    /// A request without a body.
    pub(crate) fn new(method: Method, target: impl Into<String>, due: Due) -> Self {
        let (target, version) = (target.into(), Version::HTTP_11);
        Self { method, target, version, headers: Vec::new(), body: Body::default(), due }
    }

    pub(crate) fn get(target: impl Into<String>, due: Due) -> Self {
        Self::new(Method::GET, target, due)
    }

    pub(crate) fn with_body(self, body: Body) -> Self {
        Self { body, ..self }
    }

    pub(crate) fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn with_version(self, version: Version) -> Self {
        Self { version, ..self }
    }

    /// One line that tells the request from others.
    pub(crate) fn describe(&self) -> String {
        let Body { pieces, is_chunked, .. } = &self.body;
        let length: usize = pieces.iter().map(Bytes::len).sum();
        let framing = if *is_chunked { "chunked" } else { "with its length" };
        let target = self.target.get(..60).unwrap_or(&self.target);
        format!("{} {target} {:?}, {length} bytes {framing} in {} pieces", self.method, self.version, pieces.len())
    }
}

impl Due {
    pub(crate) fn new(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let (content_type, body) = (Some(content_type), body.into());
        Self { status, content_type, body, head_of: None, is_streamed: false, headers: Vec::new() }
    }

    /// 200 with a text.
    pub(crate) fn text(text: &'static str) -> Self {
        Self::new(200, TEXT, text)
    }

    /// 204.
    pub(crate) fn no_content() -> Self {
        Self { content_type: None, ..Self::new(204, TEXT, Bytes::new()) }
    }

    pub(crate) fn with_header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    /// What is due for HEAD where this is due for GET.
    pub(crate) fn without_body(self) -> Self {
        Self { head_of: Some(self.body.len()), body: Bytes::new(), ..self }
    }

    /// The same, made while it is sent.
    pub(crate) fn streamed(self) -> Self {
        Self { is_streamed: true, ..self }
    }

    /// What is wrong with an answer.
    pub(crate) fn check(&self, answer: &Answer) -> Result<(), String> {
        let Answer { status, headers, body } = answer;
        if status.as_u16() != self.status {
            return Err(format!("status {status}, not {}; body {:?}", self.status, beginning(body)));
        }
        let header = |name: &str| -> Result<Option<&str>, String> {
            let mut values = headers.get_all(name).iter();
            let value = values.next().map(|value| value.to_str().unwrap_or("(not ASCII)"));
            if values.next().is_some() { Err(format!("{name} comes twice")) } else { Ok(value) }
        };
        let expect = |name: &str, due: Option<&str>| match header(name)? {
            value if value == due => Ok(()),
            value => Err(format!("{name} is {value:?}, not {due:?}")),
        };
        let length = match self.head_of {
            _ if self.status == 204 || self.is_streamed => None,
            Some(length) => Some(length.to_string()),
            None => Some(self.body.len().to_string()),
        };
        expect(CONTENT_LENGTH.as_str(), length.as_deref())?;
        expect(TRANSFER_ENCODING.as_str(), self.is_streamed.then_some("chunked"))?;
        expect(CONTENT_TYPE.as_str(), self.content_type)?;
        for (name, value) in &self.headers {
            expect(name, Some(value))?;
        }
        if !header(DATE.as_str())?.is_some_and(|date| date.len() == 29 && date.ends_with(" GMT")) {
            return Err(format!("date is {:?}", headers.get(DATE)));
        }
        if *body != self.body {
            let at = body.iter().zip(&self.body).take_while(|(a, b)| a == b).count();
            let (have, due) = (body.len(), self.body.len());
            return Err(format!("a body of {have} bytes, not {due}, and other from byte {at} on"));
        }
        Ok(())
    }
}

fn beginning(body: &Bytes) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(body.get(..80).unwrap_or(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: (&str, &str) = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
    const LENGTH: (&str, &str) = ("content-length", "4");
    const TYPE: (&str, &str) = ("content-type", TEXT);

    /// `problem` is how what is wrong begins; empty if nothing is.
    #[track_caller]
    fn check(due: &Due, status: u16, headers: &[(&'static str, &'static str)], body: &'static str, problem: &str) {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().expect("a name"), hyper::header::HeaderValue::from_static(value)));
        let status = StatusCode::from_u16(status).expect("a status");
        let answer = Answer { status, headers: headers.collect(), body: Bytes::from_static(body.as_bytes()) };
        let found = due.check(&answer).err().unwrap_or_default();
        assert!(found.starts_with(problem) && found.is_empty() == problem.is_empty(), "{found:?}");
    }

    #[test]
    fn the_right_answer_and_those_that_are_not() {
        let due = Due::text("pong");
        check(&due, 200, &[DATE, LENGTH, TYPE], "pong", "");
        check(&due, 502, &[DATE, LENGTH, TYPE], "pong", "status 502");
        check(&due, 200, &[DATE, LENGTH, TYPE], "pont", "a body of 4 bytes, not 4, and other from byte 3 on");
        check(&due, 200, &[DATE, LENGTH, TYPE], "pon", "a body of 3 bytes, not 4, and other from byte 3 on");
        check(&due, 200, &[DATE, TYPE], "pong", "content-length is None");
        check(&due, 200, &[DATE, LENGTH, LENGTH, TYPE], "pong", "content-length comes twice");
        check(&due, 200, &[DATE, LENGTH, TYPE, ("transfer-encoding", "chunked")], "pong", "transfer-encoding is");
        check(&due, 200, &[DATE, LENGTH], "pong", "content-type is None");
        check(&due, 200, &[LENGTH, TYPE], "pong", "date is None");
        check(&due, 200, &[("date", "today"), LENGTH, TYPE], "pong", "date is Some");
    }

    #[test]
    fn answers_of_other_framings() {
        let head = Due::text("pong").without_body();
        check(&head, 200, &[DATE, LENGTH, TYPE], "", "");
        check(&head, 200, &[DATE, ("content-length", "0"), TYPE], "", "content-length is");
        let none = Due::no_content().with_header("allow", "GET");
        check(&none, 204, &[DATE, ("allow", "GET")], "", "");
        check(&none, 204, &[DATE, ("allow", "GET"), ("content-length", "0")], "", "content-length is");
        check(&none, 204, &[DATE, ("allow", "PUT")], "", "allow is");
        let streamed = Due::text("pong").streamed();
        check(&streamed, 200, &[DATE, TYPE, ("transfer-encoding", "chunked")], "pong", "");
        check(&streamed, 200, &[DATE, TYPE, LENGTH], "pong", "content-length is");
    }
}
