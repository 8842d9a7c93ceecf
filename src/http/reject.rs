//! What a peer can do wrong, each with its status.

use std::fmt;

use super::status::Status;

/// Why a request was refused before any handler saw it.
///
/// Each of them closes the connection: we and the peer no longer agree where the next request begins, or the peer has
/// learnt that its request is refused while its body may still be on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reject {
    /// The request line breaks RFC 9112 §3.
    RequestLine,
    /// The target has a bad escape, a NUL or a path that is not UTF-8, or its form does not fit the method (RFC 9112
    /// §3.2).
    Target,
    /// The target is absolute, with a scheme that is not served here (RFC 9110 §7.4).
    Misdirected,
    /// The target is longer than the limit (RFC 9110 §15.5.15).
    TargetTooLong,
    /// A field line breaks RFC 9112 §5: a bad name, a space before the colon, a control character, a folded line.
    Field,
    /// The head, or a trailer section, is larger than the limit or has too many fields (RFC 6585 §5).
    HeadTooLarge,
    /// `Host` is missing on HTTP/1.1, sent twice, or not a host (RFC 9112 §3.2).
    Host,
    /// `Content-Length` is not one decimal number (RFC 9112 §6.3).
    Length,
    /// Both framings at once, or a transfer coding on HTTP/1.0 (RFC 9112 §6.1).
    Framing,
    /// The transfer codings are not a plain list that ends in exactly one `chunked` without parameters, so nobody can
    /// tell where the body ends (RFC 9112 §6.3).
    FinalCoding,
    /// Another transfer coding was applied before `chunked` (RFC 9112 §6.1).
    TransferCoding,
    /// The chunked coding of the body is broken (RFC 9112 §7.1).
    Chunk,
    /// The body is larger than the limit (RFC 9110 §15.5.14).
    BodyTooLarge,
    /// An expectation other than `100-continue` (RFC 9110 §10.1.1).
    Expectation,
    /// A method that this server does not have, CONNECT and TRACE among them (RFC 9110 §15.6.2).
    Method,
    /// A major version other than 1, whatever else the request line says (RFC 9110 §15.6.6).
    Version,
    /// The head or the body did not arrive in time (RFC 9110 §15.5.9).
    Timeout,
}

impl Reject {
    /// The status of the answer.
    pub const fn status(self) -> Status {
        match self {
            Self::RequestLine
            | Self::Target
            | Self::Field
            | Self::Host
            | Self::Length
            | Self::Framing
            | Self::FinalCoding
            | Self::Chunk => Status::BAD_REQUEST,
            Self::Timeout => Status::REQUEST_TIMEOUT,
            Self::BodyTooLarge => Status::CONTENT_TOO_LARGE,
            Self::TargetTooLong => Status::URI_TOO_LONG,
            Self::Expectation => Status::EXPECTATION_FAILED,
            Self::Misdirected => Status::MISDIRECTED_REQUEST,
            Self::HeadTooLarge => Status::HEAD_TOO_LARGE,
            Self::Method | Self::TransferCoding => Status::NOT_IMPLEMENTED,
            Self::Version => Status::VERSION_NOT_SUPPORTED,
        }
    }

    /// One line for the peer, with its line feed.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::RequestLine => "malformed request line\n",
            Self::Target => "malformed request target\n",
            Self::Misdirected => "this scheme is not served here\n",
            Self::TargetTooLong => "request target too long\n",
            Self::Field => "malformed header field\n",
            Self::HeadTooLarge => "header fields too large\n",
            Self::Host => "missing, repeated or malformed Host\n",
            Self::Length => "malformed or repeated Content-Length\n",
            Self::Framing => "contradictory message framing\n",
            Self::FinalCoding => "transfer coding is not one final chunked\n",
            Self::TransferCoding => "transfer coding not implemented\n",
            Self::Chunk => "malformed chunked body\n",
            Self::BodyTooLarge => "request body too large\n",
            Self::Expectation => "expectation not supported\n",
            Self::Method => "method not implemented\n",
            Self::Version => "HTTP version not supported\n",
            Self::Timeout => "request not received in time\n",
        }
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason().trim_end())
    }
}

impl std::error::Error for Reject {}
