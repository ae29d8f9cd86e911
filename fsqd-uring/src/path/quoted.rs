//! [`Quoted`]: a string of a client in a sentence.

use std::fmt::{self, Write};

/// Longest text between the quotes, bytes; three of them fit a reply's error text of 1024.
const QUOTED_BYTES_MAX: usize = 240;

/// Shows bytes that somebody sent, in quotes, on one line, without control characters and cut to
/// a bounded length.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a>(pub &'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = String::new();
        for chunk in self.0.utf8_chunks() {
            for char in chunk.valid().chars() {
                if char.is_control() || char == '\'' || char == '\\' {
                    shown.extend(char.escape_default());
                } else {
                    shown.push(char);
                }
            }
            for byte in chunk.invalid() {
                write!(shown, "\\x{byte:02x}")?;
            }
            if shown.len() > QUOTED_BYTES_MAX {
                let mut cut = QUOTED_BYTES_MAX;
                while !shown.is_char_boundary(cut) {
                    cut -= 1;
                }
                return write!(f, "'{}...'", &shown[..cut]);
            }
        }
        write!(f, "'{shown}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_and_cut() {
        assert_eq!(Quoted(b"/a b").to_string(), "'/a b'");
        assert_eq!(Quoted(b"a\nb\x1b[1m'\\").to_string(), "'a\\nb\\u{1b}[1m\\'\\\\'");
        assert_eq!(Quoted("\u{e4}".as_bytes()).to_string(), "'\u{e4}'");
        assert_eq!(Quoted(b"\xe4/x").to_string(), "'\\xe4/x'");
        let long = Quoted("\u{20ac}".repeat(1000).as_bytes()).to_string();
        assert!(long.len() <= QUOTED_BYTES_MAX + 5 && long.ends_with("...'"), "{long}");
    }
}
