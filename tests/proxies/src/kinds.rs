//! The kinds of requests: how often each is sent, and how one of them is made.

use std::collections::BTreeMap;

use bytes::Bytes;
use fastrand::Rng;
use hyper::header::HeaderValue;
use hyper::{HeaderMap, Method, Version};

use crate::ask::{Ask, BYTES, Body, Due, TEXT};
use crate::proxy::Front;
use crate::routes::{LONG_STREAM, Routes, Stream};

/// The most that the server holds in memory of one body.
const BODY_MAX: usize = 1024 * 1024;

/// A kind of request.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// How many of it there are among the sum of all weights.
    weight: u32,
    make: fn(&mut Rng, &Material) -> Ask,
    needs: Needs,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    /// A proxy that passes `OPTIONS *` on.
    Asterisk,
    /// A route that the server may not have.
    Stream,
    Count,
}

/// What requests are made of.
pub(crate) struct Material {
    /// Bytes for bodies, which are slices of it.
    noise: Bytes,
    /// As many bytes of `/bytes/{n}` as are ever asked for.
    xs: Bytes,
    /// What `/stream/{n}` answers.
    streams: BTreeMap<usize, Stream>,
    /// What follows the number in an answer of `/count`.
    count: String,
}

/// The kinds that can be sent by one way, ready to be drawn from.
pub(crate) struct Catalogue {
    kinds: Vec<&'static Kind>,
    material: Material,
}

impl Catalogue {
    /// What can be sent to a front, behind which a server has these routes.
    pub(crate) fn new(front: &Front, routes: &Routes, seed: u64) -> Self {
        let can_be_sent = |kind: &&Kind| match kind.needs {
            Needs::Nothing => true,
            Needs::Asterisk => front.passes_asterisk,
            Needs::Stream => !routes.streams.is_empty(),
            Needs::Count => routes.count.is_some(),
        };
        Self::of(KINDS.iter().filter(can_be_sent).collect(), routes, seed)
    }

    /// What both examples answer: short requests, downloads and uploads, none longer than a tenth of the grace.
    pub(crate) fn short(routes: &Routes, seed: u64) -> Self {
        let is_short = |kind: &&Kind| ["GET /ping", "GET /stream/{n}", "POST /count"].contains(&kind.name);
        let mut catalogue = Self::of(KINDS.iter().filter(is_short).collect(), routes, seed);
        catalogue.material.streams.remove(&LONG_STREAM);
        catalogue
    }

    fn of(kinds: Vec<&'static Kind>, routes: &Routes, seed: u64) -> Self {
        let mut noise = vec![0; 4 * BODY_MAX];
        Rng::with_seed(seed).fill(&mut noise);
        let xs = Bytes::from(vec![b'x'; BODY_MAX]);
        let (streams, count) = (routes.streams.clone(), routes.count.clone().unwrap_or_default());
        let material = Material { noise: noise.into(), xs, streams, count };
        Self { kinds, material }
    }

    /// A request, its kind drawn by weight.
    pub(crate) fn draw(&self, rng: &mut Rng) -> (&'static str, Ask) {
        let mut at = rng.u32(..self.kinds.iter().map(|kind| kind.weight).sum::<u32>());
        let chosen = self.kinds.iter().find(|kind| {
            let is_here = at < kind.weight;
            at = at.saturating_sub(kind.weight);
            is_here
        });
        // Invariant: `at` is less than the sum of the weights.
        let kind = chosen.unwrap_or(&self.kinds[0]);
        (kind.name, (kind.make)(rng, &self.material))
    }
}

const KINDS: &[Kind] = &[
    kind("GET /ping", 18, |rng, _| {
        let query = pick(rng, &["", "?", "?a=b&c=%20d", "?%3F=/../&&"]);
        Ask::get(format!("/ping{query}"), pong())
    }),
    kind("HEAD", 6, |rng, material| {
        let count = size(rng);
        match rng.bool() {
            true => Ask::new(Method::HEAD, "/ping", pong().without_body()),
            false => Ask::new(Method::HEAD, format!("/bytes/{count}"), material.xs(count).without_body()),
        }
    }),
    kind("GET /bytes/{n}", 10, |rng, material| {
        let count = size(rng);
        Ask::get(format!("/bytes/{count}"), material.xs(count))
    }),
    kind("a path with escapes", 6, |rng, material| {
        let count = size(rng);
        let digits: String = count.to_string().bytes().map(|digit| format!("%{digit:02X}")).collect();
        match rng.bool() {
            true => Ask::get("/p%69%6eg", pong()),
            false => Ask::get(format!("/%62ytes/{digits}"), material.xs(count)),
        }
    }),
    kind("a capture that is no number: 400", 2, |rng, _| {
        let target =
            pick(rng, &["/bytes/abc", "/bytes/1%2F2", "/sleep/%20", "/bytes/%C3%A9", "/sleep/+1", "/bytes/-1"]);
        Ask::get(target, Due::new(400, TEXT, "a number that is not too large is wanted\n"))
    }),
    kind("POST /echo, with its length", 10, |rng, material| {
        let bytes = material.noise(rng);
        echo(Method::POST, whole(bytes))
    }),
    kind("PUT /echo, with its length, in pieces", 6, |rng, material| {
        let body = in_pieces(rng, material);
        let rests = body.pieces.len() < 8;
        echo(Method::PUT, Body { rests, ..body })
    }),
    kind("POST /echo, chunked", 12, |rng, material| echo(Method::POST, chunked(rng, material))),
    kind("POST /echo, chunked, a rest after each", 4, |rng, material| {
        let body = chunked(rng, material);
        let rests = body.pieces.len() < 16;
        echo(Method::POST, Body { rests, ..body })
    }),
    kind("POST /echo, chunked, with trailers", 2, |rng, material| {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("0"));
        let body = Body { trailers: Some(trailers), ..chunked(rng, material) };
        echo(Method::POST, body).with_header("trailer", "x-sum")
    }),
    kind("POST /echo, Expect: 100-continue", 5, |rng, material| {
        let body = if rng.bool() { in_pieces(rng, material) } else { chunked(rng, material) };
        // Nothing to be sent is nothing to be asked for.
        let body = if body.pieces.is_empty() { whole(Bytes::from_static(b"x")) } else { body };
        echo(Method::POST, Body { waits: true, ..body }).with_header("expect", "100-continue")
    }),
    kind("Expect: 100-continue that is refused", 1, |rng, _| {
        let body = Body { waits: true, ..whole(Bytes::from_static(b"unwanted")) };
        let ask = if rng.bool() {
            Ask::new(Method::POST, "/nowhere", not_found())
        } else {
            Ask::new(Method::POST, "/ping", not_allowed("GET, HEAD, OPTIONS"))
        };
        ask.with_body(body).with_header("expect", "100-continue")
    }),
    kind("an unknown path: 404", 4, |rng, material| {
        let target = pick(rng, &["/", "/ping/", "/Ping", "/bytes", "/bytes//", "/a/b/c?d", "/%70in", "/pin%67%2F"]);
        match rng.bool() {
            true => Ask::get(target, not_found()),
            false => Ask::new(Method::POST, target, not_found()).with_body(chunked(rng, material)),
        }
    }),
    kind("another method: 405", 4, |rng, material| {
        let method = pick(rng, &[Method::POST, Method::PUT, Method::DELETE, Method::PATCH]);
        match rng.u8(..3) {
            0 => Ask::get("/echo", not_allowed("POST, PUT, OPTIONS")),
            1 => Ask::new(method, "/ping", not_allowed("GET, HEAD, OPTIONS")).with_body(in_pieces(rng, material)),
            _ => Ask::new(method, "/sleep/5", not_allowed("GET, HEAD, OPTIONS")).with_body(chunked(rng, material)),
        }
    }),
    kind("OPTIONS", 3, |rng, _| {
        let (target, allow) = pick(rng, &[("/ping", "GET, HEAD, OPTIONS"), ("/echo", "POST, PUT, OPTIONS")]);
        Ask::new(Method::OPTIONS, target, Due::no_content().with_header("allow", allow))
    }),
    Kind {
        needs: Needs::Asterisk,
        ..kind("OPTIONS *", 1, |_, _| {
            let due = Due::no_content().with_header("allow", "GET, HEAD, POST, PUT, OPTIONS");
            Ask::new(Method::OPTIONS, "*", due)
        })
    },
    kind("an unknown method: 501", 1, |_, _| {
        let due = Due::new(501, TEXT, "method not implemented\n");
        // Invariant: a token is a method.
        Ask::new(Method::from_bytes(b"BREW").unwrap_or_default(), "/ping", due)
    }),
    kind("GET /sleep/{ms}", 3, |rng, _| {
        let ms = rng.u32(..20);
        Ask::get(format!("/sleep/{ms}"), Due::new(200, TEXT, format!("slept {ms} ms\n")))
    }),
    kind("HTTP/1.0", 4, |rng, material| {
        let count = size(rng);
        let ask = match rng.u8(..3) {
            0 => Ask::get("/ping", pong()),
            1 => Ask::get(format!("/bytes/{count}"), material.xs(count)),
            _ => echo(Method::POST, in_pieces(rng, material)),
        };
        ask.with_version(Version::HTTP_10)
    }),
    kind("Connection: close", 3, |rng, material| {
        let ask = if rng.bool() { Ask::get("/ping", pong()) } else { echo(Method::POST, chunked(rng, material)) };
        ask.with_header("connection", "close")
    }),
    kind("a big head", 4, |rng, _| match rng.u8(..3) {
        0 => Ask::get("/ping", pong()).with_header("x-long", letters(rng, 1024..12 * 1024)),
        1 => (0..60).fold(Ask::get("/ping", pong()), |ask, _| ask.with_header("x-many", letters(rng, 0..200))),
        _ => Ask::get(format!("/ping?{}", letters(rng, 1024..7 * 1024)), pong()),
    }),
    kind("a head too big: 431", 1, |rng, _| {
        let ask = Ask::get("/ping", Due::new(431, TEXT, "header fields too large\n"));
        (0..5).fold(ask, |ask, _| ask.with_header("x-long", letters(rng, 4000..5000)))
    }),
    kind("a target too long: 414", 1, |rng, _| {
        let due = Due::new(414, TEXT, "request target too long\n");
        Ask::get(format!("/ping?{}", letters(rng, 9 * 1024..12 * 1024)), due)
    }),
    kind("a body too large: 413", 1, |rng, material| {
        let pieces = vec![material.xs.slice(..BODY_MAX / 2), material.xs.slice(..BODY_MAX / 2 + rng.usize(1..9999))];
        let ask = Ask::new(Method::POST, "/echo", Due::new(413, TEXT, "request body too large\n"));
        ask.with_body(Body { pieces, is_chunked: rng.bool(), ..Body::default() })
    }),
    kind("a target in absolute form", 1, |_, _| Ask::get("http://demo.test/ping?a", pong())),
    kind("GET /panic: 500", 1, |_, _| Ask::get("/panic", Due::new(500, TEXT, "internal server error\n"))),
    Kind {
        needs: Needs::Stream,
        ..kind("GET /stream/{n}", 2, |rng, material| {
            let all: Vec<_> = material.streams.iter().collect();
            let (count, body) = pick(rng, &all);
            Ask::get(format!("/stream/{count}"), Due::new(200, body.content_type, body.bytes.clone()).streamed())
        })
    },
    Kind {
        needs: Needs::Count,
        ..kind("POST /count", 4, |rng, material| {
            let body = if rng.bool() { in_pieces(rng, material) } else { chunked(rng, material) };
            // Ten times what the server would hold in memory, every now and then.
            let body = if rng.u8(..100) == 0 { Body { pieces: vec![material.xs.clone(); 10], ..body } } else { body };
            let length: usize = body.pieces.iter().map(Bytes::len).sum();
            Ask::new(Method::POST, "/count", Due::new(200, TEXT, format!("{length}{}", material.count))).with_body(body)
        })
    },
];

const fn kind(name: &'static str, weight: u32, make: fn(&mut Rng, &Material) -> Ask) -> Kind {
    Kind { name, weight, make, needs: Needs::Nothing }
}

// ---- Answers that are due ------------------------------------------------------------------------------------------

fn pong() -> Due {
    Due::text("pong")
}

fn not_found() -> Due {
    Due::new(404, TEXT, "not found\n")
}

fn not_allowed(allow: &'static str) -> Due {
    Due::new(405, TEXT, "method not allowed\n").with_header("allow", allow)
}

/// A request of `/echo`: its body is due back.
fn echo(method: Method, body: Body) -> Ask {
    let due = Due::new(200, BYTES, Bytes::from(body.pieces.concat()));
    Ask::new(method, "/echo", due).with_body(body)
}

// ---- Bodies --------------------------------------------------------------------------------------------------------

impl Material {
    /// What is due from `/bytes/{count}`.
    fn xs(&self, count: usize) -> Due {
        Due::new(200, BYTES, self.xs.slice(..count))
    }

    /// A body of some size.
    fn noise(&self, rng: &mut Rng) -> Bytes {
        let count = size(rng);
        let start = rng.usize(..self.noise.len() - BODY_MAX);
        self.noise.slice(start..start + count)
    }
}

/// Most bodies are small, and some as large as the server takes; where buffers end, and one byte beside it, comes up.
fn size(rng: &mut Rng) -> usize {
    match rng.u8(..100) {
        0..10 => 0,
        10..60 => rng.usize(..256),
        60..80 => rng.usize(..16 * 1024),
        80..90 => (1 << rng.u32(9..18)) + rng.usize(..3) - 1,
        90..97 => rng.usize(..128 * 1024),
        97..99 => rng.usize(..BODY_MAX),
        _ => BODY_MAX,
    }
}

fn whole(bytes: Bytes) -> Body {
    Body { pieces: if bytes.is_empty() { Vec::new() } else { vec![bytes] }, ..Body::default() }
}

/// A body with its length, cut at random places.
fn in_pieces(rng: &mut Rng, material: &Material) -> Body {
    let mut rest = material.noise(rng);
    let mut pieces = Vec::new();
    // The longest piece is of another order in each body; and no body has thousands of pieces.
    let longest = (1 << rng.u32(..17)).max(rest.len() / 200);
    while !rest.is_empty() {
        pieces.push(rest.split_to(rng.usize(1..=longest).min(rest.len())));
    }
    Body { pieces, ..Body::default() }
}

fn chunked(rng: &mut Rng, material: &Material) -> Body {
    Body { is_chunked: true, ..in_pieces(rng, material) }
}

// ---- Odds and ends -------------------------------------------------------------------------------------------------

fn pick<T: Clone>(rng: &mut Rng, all: &[T]) -> T {
    all[rng.usize(..all.len())].clone()
}

fn letters(rng: &mut Rng, count: std::ops::Range<usize>) -> String {
    let count = rng.usize(count);
    std::iter::repeat_with(|| rng.alphanumeric()).take(count).collect()
}
