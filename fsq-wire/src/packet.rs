//! One packet as it lies in memory: a view that reads it and one that writes it.
//!
//! Invariant: a view reads and writes only bytes that a field names. All others are garbage
//! (deployed clients send what was on their stack), so they are neither judged nor relied on.

use std::fmt::{self, Write as _};

use crate::layout::{
    DATA_SIZE_OFFSET, Field, INFO_STORAGE_DEST_OFFSET, LOGIN_PORT_OFFSET, Layout, VERSION_OFFSET,
};
use crate::state::State;

/// Length of a packet, bytes, in both directions and both layouts.
pub const PACKET_BYTES: usize = 6424;
/// The protocol version that is spoken here.
pub const VERSION: u8 = 1;
/// TCP port of the server unless configured otherwise.
pub const DEFAULT_PORT: u16 = 7625;

/// What shows that an error text was cut.
const CUT_MARK: &[u8] = b"...";

/// A string field without a NUL in its array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {0} field has no NUL within its {len} bytes", len = .0.array_bytes())]
pub struct Unterminated(pub Field);

/// A string that is not UTF-8 where text is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {field} field is not UTF-8 from byte {valid_up_to} on")]
pub struct NotUtf8 {
    /// Which field.
    pub field: Field,
    /// How many bytes of it are, bytes.
    pub valid_up_to: usize,
}

/// A string that a packet cannot carry. Nothing of the packet has been changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// Longer than the field.
    #[error("the {field} is {len} bytes long, the protocol takes {max}", max = .field.len_max())]
    TooLong {
        /// Which field.
        field: Field,
        /// Length of the string, bytes.
        len: usize,
    },
    /// The other side would see the string end here.
    #[error("the {field} contains a NUL at byte {at}")]
    Nul {
        /// Which field.
        field: Field,
        /// Where, bytes from the start of the string.
        at: usize,
    },
}

impl Field {
    /// The bytes of a field as text.
    ///
    /// # Errors
    /// [`NotUtf8`], which names the field.
    pub fn utf8(self, bytes: &[u8]) -> Result<&str, NotUtf8> {
        str::from_utf8(bytes)
            .map_err(|error| NotUtf8 { field: self, valid_up_to: error.valid_up_to() })
    }
}

/// Who signs on: the union of a CONNECT. Strings without their NUL.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Login<'a> {
    /// Name of the node.
    pub node: &'a [u8],
    /// Its password; in no log, error or reply.
    pub password: &'a [u8],
    /// The server's name as the client knows it.
    pub hostname: &'a [u8],
    /// The server's port as the client knows it.
    pub port: i32,
}

impl fmt::Debug for Login<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("node", &format_args!("{}", self.node.escape_ascii()))
            .field("hostname", &format_args!("{}", self.hostname.escape_ascii()))
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// Which file and where to: the union of an OPEN. Strings without their NUL.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Info<'a> {
    /// The file system, a prefix of `fpath`.
    pub fs: &'a [u8],
    /// Full path of the file.
    pub fpath: &'a [u8],
    /// Free text for the archive.
    pub desc: &'a [u8],
    /// As sent; [`StorageDest`](crate::StorageDest) says which numbers mean something.
    pub storage_dest: i32,
}

impl fmt::Debug for Info<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Info")
            .field("fs", &format_args!("{}", self.fs.escape_ascii()))
            .field("fpath", &format_args!("{}", self.fpath.escape_ascii()))
            .field("desc", &format_args!("{}", self.desc.escape_ascii()))
            .field("storage_dest", &self.storage_dest)
            .finish()
    }
}

/// A packet to read.
#[derive(Clone, Copy)]
pub struct Packet<'a> {
    bytes: &'a [u8; PACKET_BYTES],
    layout: Layout,
}

impl<'a> Packet<'a> {
    /// Reads these bytes by this layout.
    #[must_use]
    pub const fn new(bytes: &'a [u8; PACKET_BYTES], layout: Layout) -> Self {
        Self { bytes, layout }
    }

    /// The layout it is read by.
    #[must_use]
    pub const fn layout(self) -> Layout {
        self.layout
    }

    /// Protocol version that the sender claims.
    #[must_use]
    pub const fn version(self) -> u8 {
        self.bytes[VERSION_OFFSET]
    }

    /// `error.rc`: 0, or a negative errno. Garbage in a request.
    #[must_use]
    pub fn rc(self) -> i32 {
        i32::from_le_bytes(self.at(self.layout.rc_offset()))
    }

    /// `error.strerror`: the reason of a refusal. Garbage in a request.
    ///
    /// # Errors
    /// [`Unterminated`].
    pub fn error_text(self) -> Result<&'a [u8], Unterminated> {
        self.string(Field::ErrorText)
    }

    /// What is asked or answered.
    #[must_use]
    pub fn state(self) -> State {
        State::from_bits(u32::from_le_bytes(self.at(self.layout.state_offset())))
    }

    /// The union as a CONNECT means it.
    ///
    /// # Errors
    /// [`Unterminated`] for the first of its strings without NUL.
    pub fn login(self) -> Result<Login<'a>, Unterminated> {
        Ok(Login {
            node: self.string(Field::Node)?,
            password: self.string(Field::Password)?,
            hostname: self.string(Field::Hostname)?,
            port: i32::from_le_bytes(self.at(self.layout.union_offset() + LOGIN_PORT_OFFSET)),
        })
    }

    /// The union as an OPEN means it.
    ///
    /// # Errors
    /// [`Unterminated`] for the first of its strings without NUL.
    pub fn info(self) -> Result<Info<'a>, Unterminated> {
        let storage_dest = self.at(self.layout.union_offset() + INFO_STORAGE_DEST_OFFSET);
        Ok(Info {
            fs: self.string(Field::Fs)?,
            fpath: self.string(Field::Fpath)?,
            desc: self.string(Field::Desc)?,
            storage_dest: i32::from_le_bytes(storage_dest),
        })
    }

    /// The union as a DATA means it: length of the payload behind the packet, bytes.
    #[must_use]
    pub fn data_size(self) -> u64 {
        u64::from_le_bytes(self.at(self.layout.union_offset() + DATA_SIZE_OFFSET))
    }

    /// A string field, up to its NUL.
    ///
    /// # Errors
    /// [`Unterminated`] if its array holds none.
    pub fn string(self, field: Field) -> Result<&'a [u8], Unterminated> {
        let array = &self.bytes[field.range(self.layout)];
        let len = array.iter().position(|&byte| byte == 0).ok_or(Unterminated(field))?;
        Ok(&array[..len])
    }

    fn at<const N: usize>(self, offset: usize) -> [u8; N] {
        *self.bytes[offset..].first_chunk().expect("every field lies within the packet")
    }
}

/// Shows only the header: the union may hold a password.
impl fmt::Debug for Packet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packet")
            .field("layout", &self.layout)
            .field("version", &self.version())
            .field("rc", &self.rc())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

/// A packet to write, in place: what is not set stays as it is.
pub struct PacketMut<'a> {
    bytes: &'a mut [u8; PACKET_BYTES],
    layout: Layout,
}

impl<'a> PacketMut<'a> {
    /// Writes to these bytes by this layout.
    #[must_use]
    pub const fn new(bytes: &'a mut [u8; PACKET_BYTES], layout: Layout) -> Self {
        Self { bytes, layout }
    }

    /// The packet as it stands.
    #[must_use]
    pub const fn as_packet(&self) -> Packet<'_> {
        Packet::new(self.bytes, self.layout)
    }

    /// Makes every byte 0.
    pub fn clear(&mut self) {
        self.bytes.fill(0);
    }

    /// Sets the version; a peer expects [`VERSION`].
    pub fn set_version(&mut self, version: u8) {
        self.bytes[VERSION_OFFSET] = version;
    }

    /// Sets what is asked or answered.
    pub fn set_state(&mut self, state: State) {
        self.put(self.layout.state_offset(), state.bits().to_le_bytes());
    }

    /// Sets `error.rc`: 0, or a negative errno.
    pub fn set_rc(&mut self, rc: i32) {
        self.put(self.layout.rc_offset(), rc.to_le_bytes());
    }

    /// Sets `error.strerror`.
    ///
    /// # Errors
    /// [`FieldError`]; see [`Self::set_error_sentence`] for a text that must get through.
    pub fn set_error_text(&mut self, text: &[u8]) -> Result<(), FieldError> {
        Self::fits(Field::ErrorText, text)?;
        self.put_string(Field::ErrorText, text);
        Ok(())
    }

    /// Sets `error.strerror` to as much of a sentence as it takes: a longer one is cut between two
    /// characters and ends in `...`; a NUL, which would end it early, becomes `?`.
    pub fn set_error_sentence(&mut self, sentence: impl fmt::Display) {
        let array = &mut self.bytes[Field::ErrorText.range(self.layout)];
        let mut cursor = Sentence { array, len: 0, is_cut: false };
        // The only error is the cursor's own, at the end of the array.
        let _ = write!(cursor, "{sentence}");
        cursor.finish();
    }

    /// Sets the union of a CONNECT.
    ///
    /// # Errors
    /// [`FieldError`] for the first string that does not fit.
    pub fn set_login(&mut self, login: &Login<'_>) -> Result<(), FieldError> {
        let strings = [
            (Field::Node, login.node),
            (Field::Password, login.password),
            (Field::Hostname, login.hostname),
        ];
        self.set_strings(strings)?;
        self.put(self.layout.union_offset() + LOGIN_PORT_OFFSET, login.port.to_le_bytes());
        Ok(())
    }

    /// Sets the union of an OPEN.
    ///
    /// # Errors
    /// [`FieldError`] for the first string that does not fit.
    pub fn set_info(&mut self, info: &Info<'_>) -> Result<(), FieldError> {
        let strings = [(Field::Fs, info.fs), (Field::Fpath, info.fpath), (Field::Desc, info.desc)];
        self.set_strings(strings)?;
        let offset = self.layout.union_offset() + INFO_STORAGE_DEST_OFFSET;
        self.put(offset, info.storage_dest.to_le_bytes());
        Ok(())
    }

    /// Sets the union of a DATA: length of the payload behind the packet, bytes.
    pub fn set_data_size(&mut self, size: u64) {
        self.put(self.layout.union_offset() + DATA_SIZE_OFFSET, size.to_le_bytes());
    }

    /// Makes every byte of the password 0, those behind its NUL included.
    pub fn blank_password(&mut self) {
        self.bytes[Field::Password.range(self.layout)].fill(0);
    }

    fn set_strings(&mut self, strings: [(Field, &[u8]); 3]) -> Result<(), FieldError> {
        for (field, string) in strings {
            Self::fits(field, string)?;
        }
        for (field, string) in strings {
            self.put_string(field, string);
        }
        Ok(())
    }

    fn fits(field: Field, string: &[u8]) -> Result<(), FieldError> {
        if string.len() > field.len_max() {
            return Err(FieldError::TooLong { field, len: string.len() });
        }
        match string.iter().position(|&byte| byte == 0) {
            Some(at) => Err(FieldError::Nul { field, at }),
            None => Ok(()),
        }
    }

    fn put_string(&mut self, field: Field, string: &[u8]) {
        let array = &mut self.bytes[field.range(self.layout)];
        array[..string.len()].copy_from_slice(string);
        array[string.len()] = 0;
    }

    fn put<const N: usize>(&mut self, offset: usize, value: [u8; N]) {
        self.bytes[offset..offset + N].copy_from_slice(&value);
    }
}

/// Writes text to the array of a string field, as far as it goes.
struct Sentence<'a> {
    array: &'a mut [u8],
    len: usize,
    is_cut: bool,
}

impl Sentence<'_> {
    fn finish(mut self) {
        if self.is_cut {
            // The array is full: go back to the first byte of a character that leaves room.
            let kept_max = self.len - CUT_MARK.len();
            let is_inside = |byte: u8| byte & 0xc0 == 0x80;
            self.len = (0..=kept_max).rfind(|&at| !is_inside(self.array[at])).unwrap_or(0);
            self.array[self.len..][..CUT_MARK.len()].copy_from_slice(CUT_MARK);
            self.len += CUT_MARK.len();
        }
        self.array[self.len] = 0;
    }
}

impl fmt::Write for Sentence<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = &mut self.array[self.len..];
        let taken = text.len().min(room.len() - 1);
        for (to, &from) in room.iter_mut().zip(&text.as_bytes()[..taken]) {
            *to = if from == 0 { b'?' } else { from };
        }
        self.len += taken;
        self.is_cut = taken < text.len();
        if self.is_cut { Err(fmt::Error) } else { Ok(()) }
    }
}

impl fmt::Debug for PacketMut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_packet().fmt(f)
    }
}

#[cfg(test)]
mod tests;
