//! Keeping an event on its line: strings of clients may contain line breaks, terminal sequences
//! and characters that change the direction of writing, to forge lines or to hide parts of them.

use std::fmt::{self, Write};

/// A writer that lets only harmless characters through, the others as escapes.
pub(super) struct Escaped<'a> {
    out: &'a mut dyn Write,
    json: bool,
}

impl<'a> Escaped<'a> {
    /// For a line of text.
    pub(super) fn line(out: &'a mut dyn Write) -> Self {
        Self { out, json: false }
    }

    /// For the inside of a JSON string.
    pub(super) fn json(out: &'a mut dyn Write) -> Self {
        Self { out, json: true }
    }

    /// Ends the line itself.
    pub(super) fn end(self) -> fmt::Result {
        self.out.write_char('\n')
    }

    fn escape(&mut self, char: char) -> fmt::Result {
        match char {
            '"' | '\\' => write!(self.out, "\\{char}"),
            '\n' => self.out.write_str("\\n"),
            '\r' => self.out.write_str("\\r"),
            '\t' => self.out.write_str("\\t"),
            // All that are escaped lie below U+10000, one JSON escape each.
            _ if self.json => write!(self.out, "\\u{:04x}", u32::from(char)),
            _ => write!(self.out, "\\u{{{:x}}}", u32::from(char)),
        }
    }
}

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((at, char)) = rest
            .char_indices()
            .find(|&(_, char)| forges(char) || (self.json && matches!(char, '"' | '\\')))
        {
            self.out.write_str(&rest[..at])?;
            self.escape(char)?;
            rest = &rest[at + char.len_utf8()..];
        }
        self.out.write_str(rest)
    }
}

/// Control characters, line and paragraph separators, and the marks of bidirectional text.
fn forges(char: char) -> bool {
    let steers = matches!(
        char,
        '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    steers || char.is_control()
}
