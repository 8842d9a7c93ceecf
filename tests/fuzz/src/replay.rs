//! All seeds through all targets, at every cut, without a fuzzer. Whatever fuzzing finds becomes a seed.

use std::fs;
use std::path::Path;

use crate::dice::Dice;
use crate::reader::{DEFAULT, End, TIGHT, read_whole};
use crate::server::play::{SMOOTH, Script};
use crate::{chunked, connection, differential, head, hyper};

/// The seeds of a folder, by name.
fn seeds(folder: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(folder);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("cannot read {}: {error}", folder.display()));
    let mut seeds: Vec<_> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap())
        })
        .collect();
    seeds.sort();
    assert!(seeds.len() >= 20, "only {} seeds in {}", seeds.len(), folder.display());
    seeds
}

/// Runs a check on each seed, and names those that fail.
#[track_caller]
fn all(folder: &str, check: impl Fn(&[u8]) + std::panic::RefUnwindSafe) {
    let failed = |seed: &(String, Vec<u8>)| std::panic::catch_unwind(|| check(&seed.1)).is_err();
    let failed: Vec<String> = seeds(folder).into_iter().filter(failed).map(|(name, _)| name).collect();
    assert!(failed.is_empty(), "{folder}: {failed:?}");
}

/// Every cut in two, byte by byte, and not at all.
fn every_cut(length: usize) -> impl Iterator<Item = Vec<usize>> {
    (1..length).map(|at| vec![at]).chain([(1..length).collect(), Vec::new()])
}

#[test]
fn requests_are_read_alike_at_every_cut() {
    all("requests", |data| {
        for cuts in every_cut(data.len()) {
            for (limits, is_put_down) in [(DEFAULT, true), (DEFAULT, false), (TIGHT, true), (TIGHT, false)] {
                head::check_cuts(data, &cuts, limits, is_put_down);
            }
        }
    });
}

#[test]
fn chunked_bodies_are_read_alike_at_every_cut() {
    all("chunked", |data| {
        for cuts in every_cut(data.len()) {
            for limits in [DEFAULT, TIGHT] {
                chunked::check_cuts(data, &cuts, limits, &mut Dice::of(data));
            }
        }
    });
}

#[test]
fn connections_answer_alike_at_every_cut() {
    all("requests", |data| {
        for cuts in every_cut(data.len()) {
            connection::check_scripts(data, &[Script { cuts, ..SMOOTH }], None);
        }
        let bytewise: Vec<usize> = (1..data.len()).collect();
        for room in [None, Some(1)] {
            let script = Script { cuts: bytewise.clone(), room, slow_once_in: 2, ends_at_once: true, ..SMOOTH };
            connection::check_scripts(data, &[Script { is_swept: true, ..script.clone() }, script], None);
        }
        for breaks_at in 0..4 {
            let script = Script { breaks_at: Some(breaks_at), slow_once_in: 1, ..SMOOTH };
            connection::check_scripts(data, &[script], None);
        }
    });
}

#[test]
fn a_stop_at_any_byte_takes_no_answer_away() {
    all("requests", |data| {
        let bytewise: Vec<usize> = (1..data.len()).collect();
        for stops_at in (0..data.len() + 2).step_by(if data.len() <= 200 { 1 } else { 37 }) {
            let script = Script { cuts: bytewise.clone(), ..SMOOTH };
            connection::check_scripts(data, &[script.clone(), Script { slow_once_in: 2, ..script }], Some(stops_at));
        }
    });
}

#[test]
fn httparse_reads_alike_what_is_accepted() {
    all("requests", differential::check);
}

#[test]
fn hyper_reads_alike_what_is_accepted() {
    all("requests", hyper::check);
}

#[test]
fn seeds_are_accepted_refused_and_cut_short() {
    let ends: Vec<_> = seeds("requests").iter().map(|(_, data)| read_whole(data, DEFAULT)).collect();
    let accepted = ends.iter().filter(|read| !read.requests.is_empty()).count();
    let refused = ends.iter().filter(|read| matches!(read.end, End::Refused(_))).count();
    let waiting = ends.iter().filter(|read| read.requests.is_empty() && matches!(read.end, End::Waits(_))).count();
    assert!(accepted >= 10 && refused >= 10 && waiting >= 3, "{accepted} accepted, {refused} refused, {waiting} wait");
}

#[test]
fn a_byte_at_a_time_is_linear_work() {
    for (start, stretch) in [
        ("", "\r\n"),
        ("", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("GET /", "a"),
        ("GET /", "%20"),
        ("GET / HTTP/1.1\r\n", "a"),
        ("GET / HTTP/1.1\r\na:", " "),
        ("GET / HTTP/1.1\r\na:", "b"),
        ("GET / HTTP/1.1\r\n", "a: b\r\n"),
        ("GET / HTTP/1.1\r\n", "a:\r\n"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n", "a"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\na\r\n"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", "1 ;a=\"\\b\"\r\na\r\n"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:", "gzip,"),
        ("POST / HTTP/1.1\r\nHost: a\r\n", "Expect: 100-continue,\r\nTransfer-Encoding: chunked\r\n"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n", "a"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "a: b\r\n"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "a"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\na:", "\t"),
    ] {
        head::assert_linear(start.as_bytes(), stretch.as_bytes());
    }
}
