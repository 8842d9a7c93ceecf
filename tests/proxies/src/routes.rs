//! What the server behind the proxies has to offer, asked of it directly.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use hyper::{Method, StatusCode};

use crate::Result;
use crate::ask::{Ask, BYTES, Due, TEXT};
use crate::client::Client;

/// The streams that requests are made for. The last is the browser's.
const STREAMS: [usize; 5] = [1, 2, 7, 30, LONG_STREAM];

/// The stream that is shown to a browser.
pub(crate) const LONG_STREAM: usize = 100;

/// How far apart the chunks of a stream are.
const STREAM_PACE: Duration = Duration::from_millis(10);

/// Routes that the server may have or not.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    /// What `/stream/{n}` answers, by n; empty if there is no such route.
    pub(crate) streams: BTreeMap<usize, Stream>,
    /// What follows the number in an answer of `/count`, if there is such a route.
    pub(crate) count: Option<String>,
}

/// What one `/stream/{n}` answers.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) content_type: &'static str,
    pub(crate) bytes: Bytes,
}

impl Routes {
    /// Asks the server itself.
    pub(crate) async fn probe(server: SocketAddr) -> Result<Self> {
        let mut client = Client::new(server);
        // What is due is not known here: the answers are looked at below.
        let ask = |method, target| Ask::new(method, target, Due::no_content());
        let mut routes = Self::default();
        let answer = client.exchange(&ask(Method::POST, "/count".to_owned())).await?;
        if answer.status != StatusCode::NOT_FOUND {
            let text = String::from_utf8_lossy(&answer.body);
            let Some(rest) = text.strip_prefix('0').filter(|_| answer.status == StatusCode::OK) else {
                return Err(format!("POST /count does not count nothing: {} {text:?}", answer.status).into());
            };
            routes.count = Some(rest.to_owned());
        }
        for n in STREAMS {
            let start = Instant::now();
            let answer = client.exchange(&ask(Method::GET, format!("/stream/{n}"))).await?;
            if answer.status == StatusCode::NOT_FOUND {
                break;
            }
            let is_chunked = answer.headers.get(TRANSFER_ENCODING).is_some_and(|value| value == "chunked");
            let content_type = answer.headers.get("content-type").and_then(|value| value.to_str().ok());
            let content_type = [TEXT, BYTES].into_iter().find(|known| content_type == Some(known));
            let too_early = start.elapsed() < STREAM_PACE * u32::try_from(n.saturating_sub(1))?;
            let has_length = answer.headers.contains_key(CONTENT_LENGTH);
            let is_stream = answer.status == StatusCode::OK && is_chunked && !has_length && answer.body.len() >= n;
            let (true, false, Some(content_type)) = (is_stream, too_early, content_type) else {
                let length = answer.body.len();
                return Err(format!(
                    "GET /stream/{n} is no stream of as many chunks, 10 ms apart: {} and {length} bytes in {:?}: {:?}",
                    answer.status,
                    start.elapsed(),
                    answer.headers
                )
                .into());
            };
            routes.streams.insert(n, Stream { content_type, bytes: answer.body });
        }
        Ok(routes)
    }
}
