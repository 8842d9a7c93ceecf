//! The extensions after a chunk's size (RFC 9112 §7.1.1), checked against the grammar and dropped:
//!
//! ```text
//! chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )
//! chunk-ext-name = token
//! chunk-ext-val  = token / quoted-string
//! ```
//!
//! We use nothing in them. But they decide where a size line ends: a reader that lets a line end inside quotes would
//! find other requests in the same bytes than one that does not. So whatever does not match the grammar is refused. The
//! grammar allows blanks only before something else of the extension, never before the line's end.
//!
//! ```text
//! Start ──tchar──▶ Name ─────"="─────▶ Equals ──tchar──▶ Value
//!                   └BWS▶ NameBlank ─"="─┘ └──'"'──▶ Quoted ──'"'──▶ Closed
//!                                                     └──"\"──▶ Escaped ──▶ Quoted
//! Name, NameBlank, Value, Closed, Blank ──";"──▶ Start        Value, Closed ──BWS──▶ Blank ──BWS──▶ Blank
//! Name, Value, Closed: the line may end here
//! ```

use super::grammar::{is_tchar, is_value};

/// What has been read of the extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extension {
    /// Blanks after the size or a value.
    Blank,
    /// The semicolon, and perhaps blanks.
    Start,
    Name,
    NameBlank,
    /// The equals sign, and perhaps blanks.
    Equals,
    Value,
    Quoted,
    Escaped,
    /// The closing quote.
    Closed,
}

impl Extension {
    /// The state after the first byte behind the size.
    pub(crate) fn begun(byte: u8) -> Option<Self> {
        match byte {
            b';' => Some(Self::Start),
            b' ' | b'\t' => Some(Self::Blank),
            _ => None,
        }
    }

    /// The state after one more byte; `None` if the grammar does not allow it.
    pub(crate) fn with(self, byte: u8) -> Option<Self> {
        match (self, byte) {
            // quoted-string = DQUOTE *( qdtext / quoted-pair ) DQUOTE (RFC 9110 §5.6.4)
            (Self::Quoted, b'"') => Some(Self::Closed),
            (Self::Quoted, b'\\') => Some(Self::Escaped),
            (Self::Quoted | Self::Escaped, _) => is_value(byte).then_some(Self::Quoted),

            (Self::Start | Self::Name, _) if is_tchar(byte) => Some(Self::Name),
            (Self::Equals | Self::Value, _) if is_tchar(byte) => Some(Self::Value),
            (Self::Equals, b'"') => Some(Self::Quoted),
            (Self::Start | Self::Equals, b' ' | b'\t') => Some(self),

            (Self::Name | Self::NameBlank, b' ' | b'\t') => Some(Self::NameBlank),
            (Self::Name | Self::NameBlank, b'=') => Some(Self::Equals),
            (Self::Name | Self::NameBlank, b';') => Some(Self::Start),
            (Self::Blank | Self::Value | Self::Closed, _) => Self::begun(byte),
            _ => None,
        }
    }

    /// True if the line may end here.
    pub(crate) fn is_whole(self) -> bool {
        matches!(self, Self::Name | Self::Value | Self::Closed)
    }
}
