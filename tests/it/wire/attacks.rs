//! What servers and proxies were once made to disagree about, each by the advisory that tells of it. Where a second
//! request is hidden in the first, it must never be answered.

use super::case::*;

/// A request that nobody has sent, for a proxy that reads like us.
macro_rules! hidden {
    () => {
        line!("GET /gone HTTP/1.1")
    };
}

pub(super) const CASES: &[Case] = &[
    // tiny_http RUSTSEC-2020-0031: the name of a field was trimmed, and so a coding that a proxy passes on unread.
    case(
        "RUSTSEC-2020-0031: a space before the colon of a coding, beside a length",
        post!(["Content-Length: 27", "Transfer-Encoding : chunked"] "b\r\nlogin=admin\r\n1\r\nZ\r\nQ\r\n\r\n"),
        &[BAD_FIELD],
        Closed,
    ),
    case(
        "RUSTSEC-2020-0031: the same by a tab",
        concat!(post!(["Content-Length: 5", "Transfer-Encoding\t: chunked"] "0\r\n\r\n"), hidden!()),
        &[BAD_FIELD],
        Closed,
    ),
    // hyper RUSTSEC-2020-0008: the body of a GET was read as the next request.
    case(
        "RUSTSEC-2020-0008: a request in the body of GET",
        concat!("GET /ping HTTP/1.1\r\nHost: test\r\nContent-Length: 34\r\n\r\n", hidden!()),
        &[PONG],
        Open,
    ),
    case(
        "RUSTSEC-2020-0008: a request in the chunked body of GET",
        concat!(
            "GET /ping HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n22\r\n",
            hidden!(),
            "\r\n0\r\n\r\n"
        ),
        &[PONG],
        Open,
    ),
    case(
        "RUSTSEC-2020-0008: a request in the body of HEAD",
        concat!("HEAD /ping HTTP/1.1\r\nHost: test\r\nContent-Length: 34\r\n\r\n", hidden!()),
        &[head(PONG)],
        Open,
    ),
    // hyper RUSTSEC-2021-0020: of several codings the first counted, though the last was another.
    case(
        "RUSTSEC-2021-0020: chunked, and then another coding",
        concat!(post!(["Transfer-Encoding: chunked", "Transfer-Encoding: cow"] "0\r\n\r\n"), hidden!()),
        &[BAD_CODING],
        Closed,
    ),
    // hyper RUSTSEC-2021-0078: a sign before a length was read over, as the standard library reads numbers.
    case(
        "RUSTSEC-2021-0078: a plus before a length",
        concat!(post!(["Content-Length: +34"] ""), hidden!()),
        &[BAD_LENGTH],
        Closed,
    ),
    case("RUSTSEC-2021-0078: a plus before a size", chunked!("+3\r\nabc\r\n0\r\n\r\n"), &[BAD_CHUNK], Closed),
    // hyper RUSTSEC-2021-0079: a chunk's size overflowed, and the rest of a large chunk was read as what follows it.
    case(
        "RUSTSEC-2021-0079: a size of 17 digits that wraps to 3",
        concat!(chunked!("f0000000000000003\r\nabc\r\n0\r\n\r\n"), hidden!()),
        &[BAD_CHUNK],
        Closed,
    ),
    // actix-http RUSTSEC-2021-0081: each of these was taken, or one of its two fields was.
    case(
        "RUSTSEC-2021-0081: two lengths",
        post!(["Content-Length: 4", "Content-Length: 2"] "abcd"),
        &[BAD_LENGTH],
        Closed,
    ),
    case(
        "RUSTSEC-2021-0081: two lengths, the first 0",
        post!(["Content-Length: 0", "Content-Length: 2"] "ab"),
        &[BAD_LENGTH],
        Closed,
    ),
    case(
        "RUSTSEC-2021-0081: a coding on 1.0",
        "POST /echo HTTP/1.0\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\naaa\r\n0\r\n\r\n",
        &[BAD_FRAMING],
        Closed,
    ),
    case(
        "RUSTSEC-2021-0081: a coding and a length on 1.0",
        "POST /echo HTTP/1.0\r\nHost: test\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n000",
        &[BAD_FRAMING],
        Closed,
    ),
    case(
        "RUSTSEC-2021-0081: an unknown coding, and then chunked",
        post!(["Transfer-Encoding: JUNK", "Transfer-Encoding: chunked"] "5\r\nhello\r\n0\r\n\r\n"),
        &[NO_CODING],
        Closed,
    ),
    case(
        "RUSTSEC-2021-0081: a bare LF in an extension",
        concat!(chunked!("2;x\nx\r\n26\r\n0\r\n\r\n"), hidden!()),
        &[BAD_CHUNK],
        Closed,
    ),
    // Go CVE-2023-39326: tiny chunks with long extensions made a server read far more than the body's limit.
    case(
        "CVE-2023-39326: one byte of content for 256 bytes of extension",
        chunked!(concat!(times_64!(concat!("1;", times_64!("abcd"), "\r\na\r\n")), "0\r\n\r\n")),
        &[BAD_CHUNK],
        Closed,
    ),
    // Go CVE-2025-22871: a bare LF ended the line of a chunk's size, which a proxy takes for part of an extension.
    case("CVE-2025-22871: a bare LF behind a size", concat!(chunked!("0\n\r\n"), hidden!()), &[BAD_CHUNK], Closed),
    case(
        "CVE-2025-22871: a bare LF in an extension",
        concat!(chunked!("2;\nxx\r\n26\r\n0\r\n\r\n"), hidden!()),
        &[BAD_CHUNK],
        Closed,
    ),
    // h11 CVE-2025-43859: whatever two bytes came behind a chunk were taken for its line end.
    case(
        "CVE-2025-43859: two other bytes behind a chunk",
        concat!(chunked!("5\r\nAAAAAXX2\r\n26\r\n0\r\n\r\n"), hidden!()),
        &[BAD_CHUNK],
        Closed,
    ),
    // llhttp CVE-2021-22959: a space before the colon was read over.
    case(
        "CVE-2021-22959: a space before the colon of a length",
        concat!(post!(["Content-Length : 34"] ""), hidden!()),
        &[BAD_FIELD],
        Closed,
    ),
    // llhttp CVE-2021-22960: extensions were not looked at, so that one could hide a line's end.
    case(
        "CVE-2021-22960: a CR in an extension",
        concat!(chunked!("2;\rxx\r\n26\r\n0\r\n\r\n"), hidden!()),
        &[BAD_CHUNK],
        Closed,
    ),
    // llhttp CVE-2022-32213: a coding that only ends in `chunked` was taken for it.
    case(
        "CVE-2022-32213: chunkedchunked",
        concat!(post!(["Transfer-Encoding: chunkedchunked"] "0\r\n\r\n"), hidden!()),
        &[BAD_CODING],
        Closed,
    ),
    // llhttp CVE-2022-32214: a bare LF ended a field's line.
    case(
        "CVE-2022-32214: a length behind a bare LF",
        concat!(get!("Dummy: x\nContent-Length: 34"), hidden!()),
        &[BAD_FIELD],
        Closed,
    ),
    // llhttp CVE-2022-32215: a coding that goes on in a second line was read from the first alone.
    case(
        "CVE-2022-32215: a coding of two lines",
        concat!(post!(["Transfer-Encoding: chunked", " , identity"] "0\r\n\r\n"), hidden!()),
        &[BAD_FIELD],
        Closed,
    ),
    // llhttp CVE-2023-30589: a bare CR ended a field's line.
    case(
        "CVE-2023-30589: a coding behind a bare CR",
        concat!(post!(["X-Abc:\rxTransfer-Encoding: chunked"] "0\r\n\r\n"), hidden!()),
        &[BAD_FIELD],
        Closed,
    ),
    case(
        "CVE-2023-30589: a length behind a bare CR",
        concat!(get!("Dummy: x\rContent-Length: 34"), hidden!()),
        &[BAD_FIELD],
        Closed,
    ),
    // llhttp CVE-2022-35256: an empty value that ends in a bare LF.
    case(
        "CVE-2022-35256: a coding behind an empty value",
        concat!(post!(["x:\nTransfer-Encoding: chunked"] "0\r\n\r\n"), hidden!()),
        &[BAD_FIELD],
        Closed,
    ),
    // mongoose CVE-2023-34188: a negative length moved the reader back to where it had begun, for ever.
    case(
        "CVE-2023-34188: a length of minus the head",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -48\r\n\r\n",
        &[BAD_LENGTH],
        Closed,
    ),
    // Nobody's and everybody's: memory is promised to a length before a byte of it has come.
    case(
        "a declared length of 9e18",
        concat!(post!(["Content-Length: 9000000000000000000"] "hello"), hidden!()),
        &[TOO_LARGE],
        Closed,
    ),
    case("a chunk's size of 9e18", chunked!("7ce66c50e2840000\r\nhello"), &[TOO_LARGE], Closed),
    // Its cost is counted in `src/http/head.rs`.
    case("a head of 12 KiB in small pieces", get!(times_64!(times_64!("a:b"))), &[PONG], Open),
];
