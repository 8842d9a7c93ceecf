//! What it costs to understand a request head, beside `httparse` on the same bytes in the same run.
//!
//! ```text
//! cargo run --release --manifest-path tests/bench/Cargo.toml --bin parser [ROUNDS]
//! ```
//!
//! Instructions are counted by `valgrind --tool=callgrind`: this program runs itself for some number of requests and
//! for twice as many, and the difference belongs to the requests alone. They repeat exactly. Times are medians of
//! alternating rounds (100), and their ratios say more than they do.
//!
//! `httparse` finds the ends of a head and of its elements, and judges their characters. That is our `head`, which also
//! holds them to their limits and can go on where the bytes ended. The stages after it do what a server must do next,
//! and what `httparse` leaves to it: `target` takes the target apart and holds it to its form, `facts` tell the
//! framing, persistence and expectations, and refuse what is ambiguous. One of them is judged alone too: the value of
//! `Host`.

use std::hint::black_box;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use fields::Span;
use head::{Head, HeadLimits};

/// The parser itself: the crate's own files. Not all of each is used here, which is why this is a package of its own.
macro_rules! parser {
    ($($name:ident = $path:literal;)*) => {
        $(
            #[path = $path]
            mod $name;
        )*
    };
}

parser! {
    fields = "../../../../src/http/fields.rs";
    framing = "../../../../src/http/framing.rs";
    given = "../../../../src/http/given.rs";
    grammar = "../../../../src/http/grammar.rs";
    head = "../../../../src/http/head.rs";
    host = "../../../../src/http/host.rs";
    method = "../../../../src/http/method.rs";
    panics = "../../../../src/panics.rs";
    reject = "../../../../src/http/reject.rs";
    response = "../../../../src/http/response.rs";
    scan = "../../../../src/http/scan.rs";
    status = "../../../../src/http/status.rs";
    streamed = "../../../../src/http/streamed.rs";
    target = "../../../../src/http/target.rs";
}

/// All that those files need of the seam.
mod sync {
    #[cfg(test)]
    pub(crate) use std::sync::Arc;
    pub(crate) use std::thread::panicking;
}

/// Whatever goes wrong ends the benchmark: a figure of a failed run is none.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const ROUNDS: usize = 100;
/// Requests in one round, and in the shorter of the two counted runs.
const TIMES: usize = 2000;

/// The server's own.
const LIMITS: HeadLimits = HeadLimits { head_bytes: 16 * 1024, target_bytes: 8 * 1024, fields: 100 };

/// What clients send, with the fields and lengths of real ones.
const REQUESTS: [(&str, &str); 5] = [
    ("minimal", "GET /ping HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    ("wrk", "GET /ping HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n"),
    ("curl", "GET /ping HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: curl/8.14.1\r\nAccept: */*\r\n\r\n"),
    (
        "browser",
        concat!(
            "GET /articles/2026/11/the-price-of-a-head?from=feed&page=2 HTTP/1.1\r\n",
            "Host: www.example.com\r\n",
            "Connection: keep-alive\r\n",
            "sec-ch-ua: \"Chromium\";v=\"142\", \"Not_A Brand\";v=\"99\"\r\n",
            "sec-ch-ua-mobile: ?0\r\n",
            "sec-ch-ua-platform: \"Linux\"\r\n",
            "Upgrade-Insecure-Requests: 1\r\n",
            "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) ",
            "Chrome/142.0.0.0 Safari/537.36\r\n",
            "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,",
            "application/signed-exchange;v=b3;q=0.7\r\n",
            "Sec-Fetch-Site: same-origin\r\n",
            "Sec-Fetch-Mode: navigate\r\n",
            "Sec-Fetch-User: ?1\r\n",
            "Sec-Fetch-Dest: document\r\n",
            "Referer: https://www.example.com/articles/2026/11/\r\n",
            "Accept-Encoding: gzip, deflate, br, zstd\r\n",
            "Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n",
            "Cookie: session=6f1c2b7e9d304a58b1c0e7f2a9d48e63; theme=dark; seen=1764000000\r\n\r\n",
        ),
    ),
    (
        "long cookie",
        concat!(
            "GET /ping HTTP/1.1\r\nHost: www.example.com\r\nAccept: */*\r\nCookie: a=",
            "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef; b=",
            "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef; c=",
            "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef; d=",
            "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\r\n\r\n",
        ),
    ),
];

/// Reads a request so many times.
type Reader = fn(&[u8], usize);

/// How far a request is read, and by whom.
const READERS: [(&str, Reader); 5] =
    [("httparse", httparse), ("head", head), ("target", target), ("facts", facts), ("host", host)];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["read", reader, request, times] => {
            read(reader, request, times.parse()?)?;
            Ok(())
        }
        [] => compare(ROUNDS),
        [rounds] => compare(rounds.parse().ok().filter(|rounds| *rounds > 0).ok_or("usage: parser [ROUNDS]")?),
        _ => Err("usage: parser [ROUNDS]".into()),
    }
}

// ---- The readers ---------------------------------------------------------------------------------------------------

/// As hyper calls it: room for 100 fields on the stack, not initialised.
#[inline(never)]
fn httparse(bytes: &[u8], times: usize) {
    for _ in 0..times {
        let mut fields = [const { MaybeUninit::uninit() }; 100];
        let mut request = httparse::Request::new(&mut []);
        let status = request.parse_with_uninit_headers(black_box(bytes), &mut fields);
        assert!(status.is_ok_and(|status| status.is_complete()));
        black_box(&request);
    }
}

/// As the server does: one machine, used again.
#[inline(never)]
fn head(bytes: &[u8], times: usize) {
    let mut head = Head::new();
    for _ in 0..times {
        head.clear();
        assert!(head.advance(black_box(bytes), &LIMITS) == Ok(true));
        black_box(&head);
    }
}

#[inline(never)]
fn target(bytes: &[u8], times: usize) {
    let mut head = Head::new();
    for _ in 0..times {
        head.clear();
        let bytes = black_box(bytes);
        assert!(head.advance(bytes, &LIMITS) == Ok(true));
        let target = target::dissect(&head, bytes);
        assert!(target.is_ok_and(|target| target.path != Span::default()));
        black_box((&head, &target));
    }
}

#[inline(never)]
fn facts(bytes: &[u8], times: usize) {
    let mut head = Head::new();
    for _ in 0..times {
        head.clear();
        let bytes = black_box(bytes);
        assert!(head.advance(bytes, &LIMITS) == Ok(true));
        let target = target::dissect(&head, bytes);
        assert!(target.is_ok_and(|target| target.path != Span::default()));
        let facts = framing::examine(&head, bytes);
        assert!(facts.is_ok());
        black_box((&head, &target, &facts));
    }
}

#[inline(never)]
fn host(bytes: &[u8], times: usize) {
    let mut head = Head::new();
    assert!(head.advance(bytes, &LIMITS) == Ok(true));
    let host = head.fields().iter().find(|field| field.name.of(bytes) == b"Host");
    let host = host.map_or(&b""[..], |field| field.value.of(bytes));
    for _ in 0..times {
        assert!(host::is_host(black_box(host)));
    }
}

fn read(reader: &str, request: &str, times: usize) -> Result<()> {
    let (_, read) = READERS.iter().find(|(name, _)| *name == reader).ok_or("no such reader")?;
    let (_, bytes) = REQUESTS.iter().find(|(name, _)| *name == request).ok_or("no such request")?;
    read(bytes.as_bytes(), times);
    Ok(())
}

// ---- The comparison ------------------------------------------------------------------------------------------------

fn compare(rounds: usize) -> Result<()> {
    let own = std::env::current_exe()?;
    let plain = without_simd()?;
    println!("Instructions per request:\n");
    println!(
        "| request | bytes | fields | httparse | without SIMD | head | of httparse | + target | + facts | for Host |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for (request, bytes) in REQUESTS {
        let fields = bytes.matches("\r\n").count() - 2;
        let httparse = instructions(&own, "httparse", request)?;
        let without_simd = instructions(&plain, "httparse", request)?;
        let head = instructions(&own, "head", request)?;
        let target = instructions(&own, "target", request)?;
        let facts = instructions(&own, "facts", request)?;
        let host = instructions(&own, "host", request)?;
        let bytes = bytes.len();
        let of_httparse = head / httparse;
        let (and_target, and_facts) = (target - head, facts - target);
        println!(
            "| {request} | {bytes} | {fields} | {httparse:.0} | {without_simd:.0} | {head:.0} | {of_httparse:.2} \
             | {and_target:.0} | {and_facts:.0} | {host:.0} |"
        );
    }
    println!("\nNanoseconds per request, medians of {rounds} alternating rounds:\n");
    println!("| request | httparse | head | of it | + target | + facts | for Host |");
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for (request, bytes) in REQUESTS {
        let [httparse, head, target, facts, host] = nanoseconds(bytes.as_bytes(), rounds);
        let of_httparse = head / httparse;
        let (and_target, and_facts) = (target - head, facts - target);
        println!(
            "| {request} | {httparse:.0} | {head:.0} | {of_httparse:.2} | {and_target:.0} | {and_facts:.0} | {host:.0} |"
        );
    }
    Ok(())
}

/// Counted for `TIMES` requests and for twice as many, so that start and end fall out.
fn instructions(program: &Path, reader: &str, request: &str) -> Result<f64> {
    let count = |times: usize| -> Result<f64> {
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(program)
            .args(["read", reader, request, &times.to_string()])
            .output()
            .map_err(|error| format!("cannot run valgrind: {error}"))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            return Err(format!("valgrind failed: {said}").into());
        }
        let line = said.lines().find(|line| line.contains("Collected")).ok_or("valgrind has counted nothing")?;
        Ok(line.rsplit(' ').next().unwrap_or_default().parse()?)
    };
    Ok((count(2 * TIMES)? - count(TIMES)?) / TIMES as f64)
}

/// For each reader.
fn nanoseconds(bytes: &[u8], rounds: usize) -> [f64; READERS.len()] {
    let mut times = [const { Vec::new() }; READERS.len()];
    for _ in 0..rounds {
        for ((_, read), times) in READERS.iter().zip(&mut times) {
            let start = Instant::now();
            read(bytes, TIMES);
            times.push(start.elapsed().as_nanos() as f64 / TIMES as f64);
        }
    }
    times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    })
}

/// This program once more, built with a `httparse` that leaves SIMD alone.
fn without_simd() -> Result<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = own.with_file_name("target").join("no-simd");
    let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--release", "--locked", "--quiet", "--bin", "parser", "--manifest-path"])
        .arg(own.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .env("CARGO_CFG_HTTPARSE_DISABLE_SIMD", "1")
        .status()?;
    if !built.success() {
        return Err("cannot build `parser` without SIMD".into());
    }
    Ok(target.join("release").join(format!("parser{}", std::env::consts::EXE_SUFFIX)))
}
