//! [`FileAuth`]: passwords from a file of `node password` lines.

use std::collections::HashMap;
use std::fmt;
use std::hint::black_box;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use super::{Authenticator, Login};
use crate::config::text::{self, FileError};
use crate::refusal::Refusal;
use crate::services::Secret;

/// Longest password, bytes: what the login packet has room for.
const PASSWORD_BYTES_MAX: usize = 64;

/// Checks passwords against a file that only its owner can read.
#[derive(Debug)]
pub struct FileAuth {
    path: PathBuf,
    passwords: RwLock<Passwords>,
}

impl FileAuth {
    /// Reads the file.
    ///
    /// # Errors
    /// If it cannot be read, others than its owner have access to it, or a line is not
    /// `node password` or repeats a node.
    pub fn load(path: &Path) -> Result<Self, FileError> {
        Ok(Self { path: path.to_path_buf(), passwords: RwLock::new(Passwords::load(path)?) })
    }
}

impl FileAuth {
    /// How many nodes have a password.
    #[must_use]
    pub fn count(&self) -> usize {
        self.passwords().by_node.len()
    }

    /// Whether a node has one.
    #[must_use]
    pub fn knows(&self, node: &str) -> bool {
        self.passwords().by_node.contains_key(node.as_bytes())
    }

    fn passwords(&self) -> RwLockReadGuard<'_, Passwords> {
        self.passwords.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Authenticator for FileAuth {
    fn sign_on(&self, login: &Login<'_>) -> Result<(), Refusal> {
        let right = self.passwords().check(login.node.as_bytes(), login.password);
        if right { Ok(()) } else { Err(super::unknown(login.node)) }
    }

    fn reload(&self) -> Result<(), FileError> {
        let passwords = Passwords::load(&self.path)?;
        *self.passwords.write().unwrap_or_else(PoisonError::into_inner) = passwords;
        Ok(())
    }
}

/// A password in a form whose comparison takes the same time for all: its bytes, zeroes, and its
/// length last.
#[derive(Clone, PartialEq, Eq)]
struct Padded([u8; PASSWORD_BYTES_MAX + 1]);

impl Padded {
    /// `None` if it is longer than any password can be.
    fn new(password: &[u8]) -> Option<Self> {
        let mut padded = [0; PASSWORD_BYTES_MAX + 1];
        padded[..PASSWORD_BYTES_MAX].get_mut(..password.len())?.copy_from_slice(password);
        padded[PASSWORD_BYTES_MAX] = u8::try_from(password.len()).ok()?;
        Some(Self(padded))
    }

    /// What no password is equal to.
    const fn nobody() -> Self {
        Self([0xff; PASSWORD_BYTES_MAX + 1])
    }

    fn equals(&self, other: &Self) -> bool {
        // Opaque at each step, or the optimiser may leave the loop at the first difference.
        let differences = self.0.iter().zip(&other.0).fold(0, |all, (a, b)| black_box(all | a ^ b));
        differences == 0
    }
}

struct Passwords {
    by_node: HashMap<Vec<u8>, Padded>,
    nobody: Padded,
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Passwords({} nodes)", self.by_node.len())
    }
}

impl Passwords {
    fn load(path: &Path) -> Result<Self, FileError> {
        let file = path.display().to_string();
        let (bytes, metadata) = text::read(path)?;
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            let text = format!("mode {mode:04o} lets others at the passwords; chmod 600 {file}");
            return Err(FileError::unfit(&file, text));
        }
        Self::parse(&bytes, &file)
    }

    /// No error shows a word of its line: what is in the wrong column may be a password.
    fn parse(text: &[u8], file: &str) -> Result<Self, FileError> {
        let mut by_node = HashMap::new();
        let mut seen_at: HashMap<Vec<u8>, usize> = HashMap::new();
        for (number, line) in text::lines(text) {
            let wrong = |text: String| Err(FileError::line(file, number, text));
            let words: Vec<&[u8]> =
                line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect();
            let &[node, password] = words.as_slice() else {
                return wrong(format!("{} columns, 2 are needed: node password", words.len()));
            };
            let Some(padded) = Padded::new(password) else {
                return wrong(format!("the password is longer than {PASSWORD_BYTES_MAX} bytes"));
            };
            if let Some(first) = seen_at.insert(node.to_vec(), number) {
                return wrong(format!("the node already has a password in line {first}"));
            }
            by_node.insert(node.to_vec(), padded);
        }
        if by_node.is_empty() {
            let text = "no password in it, so nobody could sign on; lines are: node password";
            return Err(FileError::unfit(file, text));
        }
        Ok(Self { by_node, nobody: Padded::nobody() })
    }

    fn check(&self, node: &[u8], password: &Secret) -> bool {
        let known = self.by_node.get(node);
        let right = known.unwrap_or(&self.nobody);
        // The wire has no room for a longer one; it would be wrong anyway.
        let Some(given) = Padded::new(password.expose()) else { return false };
        right.equals(&given) & known.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Passwords, String> {
        Passwords::parse(text.as_bytes(), "/etc/pw").map_err(|error| error.to_string())
    }

    #[test]
    fn passwords_are_compared_in_full() {
        let full = "x".repeat(64);
        let passwords =
            parse(&format!("# all\na secret # of a\r\nb {full}\nc pa#ss\n")).expect("good");
        let table: &[(&str, &[u8], bool)] = &[
            ("a", b"secret", true),
            ("a", b"secre", false),
            ("a", b"secret\0", false),
            ("a", b"secrets", false),
            ("a", b"Secret", false),
            ("a", b"", false),
            ("b", full.as_bytes(), true),
            ("b", &full.as_bytes()[1..], false),
            ("b", &[b'x'; 65], false),
            ("b", &[b'x'; 1000], false),
            ("c", b"pa#ss", true),
            ("d", b"secret", false),
            ("d", b"", false),
            ("d", &[0xff; 64], false),
            ("", b"", false),
            ("#", b"all", false),
        ];
        for &(node, password, right) in table {
            assert_eq!(passwords.check(node.as_bytes(), &Secret::new(password)), right, "{node}");
        }
    }

    #[test]
    fn bad_lines_name_file_and_line_but_no_word_of_it() {
        let long = format!("hidden {}", "hidden".repeat(20));
        for (line, reason) in [
            ("hidden", "1 columns, 2 are needed"),
            ("a hidden hidden", "3 columns"),
            (&long, "longer than 64 bytes"),
            ("b hidden", "already has a password in line 1"),
        ] {
            let text = parse(&format!("b ok\n\n{line}\n")).expect_err(line);
            assert!(text.starts_with("/etc/pw:3: ") && text.contains(reason), "{text}");
            assert!(!text.contains("hidden"), "{text}");
        }
        assert!(parse("# none\n").expect_err("empty").starts_with("/etc/pw: no password in it"));
    }

    #[test]
    fn debug_output_shows_no_password() {
        let auth = FileAuth {
            path: "/etc/pw".into(),
            passwords: RwLock::new(parse("a hidden\n").expect("good")),
        };
        let text = format!("{auth:?}");
        assert!(text.contains("1 nodes") && !text.contains("hidden"), "{text}");
    }
}
