//! What there is to see, as plain text or as HTML in one line: headings and rows, written once for both.

use std::fmt;
use std::fmt::Write as _;

/// Text or HTML that is being written.
pub(crate) struct Markup {
    out: String,
    is_html: bool,
}

impl Markup {
    pub(crate) fn new(is_html: bool) -> Self {
        Self { out: String::new(), is_html }
    }

    pub(crate) fn into_text(self) -> String {
        self.out
    }

    /// HTML as it is, for the page alone.
    #[inline(never)]
    pub(crate) fn html(&mut self, html: &str) {
        if self.is_html {
            self.out += html;
        }
    }

    /// What anybody may have written: clients send paths. In HTML no character of it is markup.
    #[inline(never)]
    pub(crate) fn text(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                // An event of the stream, and a row of the text, is one line.
                _ if c.is_control() => self.out.push(' '),
                '&' | '<' | '>' | '"' | '\'' if self.is_html => _ = write!(self.out, "&#{};", u32::from(c)),
                _ => self.out.push(c),
            }
        }
    }

    pub(crate) fn table(&mut self, caption: &str, class: &str) {
        self.html("<table class='");
        self.html(class);
        self.html("'><caption>");
        self.plain("\n");
        self.text(caption);
        self.html("</caption><tbody>");
        self.plain("\n");
    }

    #[inline(never)]
    pub(crate) fn row(&mut self, name: &dyn fmt::Display, value: &dyn fmt::Display) {
        self.cells(&name.to_string(), &value.to_string());
    }

    fn cells(&mut self, name: &str, value: &str) {
        self.html("<tr><th scope=row>");
        self.plain("  ");
        self.text(name);
        self.html("<td>");
        if !self.is_html && !value.is_empty() {
            let width = name.chars().count();
            self.out.extend(std::iter::repeat_n(' ', 24_usize.saturating_sub(width).max(1)));
        }
        self.text(value);
        self.plain("\n");
    }

    pub(crate) fn end_table(&mut self) {
        self.html("</table>");
    }

    /// Plain text as it is, for the text alone.
    #[inline(never)]
    pub(crate) fn plain(&mut self, text: &str) {
        if !self.is_html {
            self.out += text;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_has_sent_is_never_markup_and_never_a_line() {
        for (is_html, wanted) in [
            (
                true,
                concat!(
                    "<table class='b'><caption>a</caption><tbody>",
                    "<tr><th scope=row>&#60;b&#62;&#38;&#34;&#39; ü<td>x  y</table>"
                ),
            ),
            (false, "\na\n  <b>&\"' ü                x  y\n"),
        ] {
            let mut out = Markup::new(is_html);
            out.table("a", "b");
            out.row(&"<b>&\"'\nü", &"x\r\ny");
            out.end_table();
            assert_eq!(out.into_text(), wanted);
        }
    }
}
