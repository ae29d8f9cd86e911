//! The object information that travels with each archive object, in the form of `ltsm`.
//!
//! Invariant: 48 bytes, all written, little-endian; `ltsm` copies whatever length it is given into
//! a buffer of 48, so more would harm it.

/// Length of the encoded form, bytes.
pub const OBJECT_INFO_BYTES: usize = 48;

const MAGIC: u32 = 71_147;

/// What is stored beside an object's data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Length of the file, bytes.
    pub size: u64,
    /// `st_mode` with the type bits.
    pub mode: u32,
    /// CRC-32 (zlib polynomial) of the whole content; 0 for an empty file or a directory.
    pub crc: u32,
    /// Lustre FID: sequence; 0 without Lustre.
    pub fid_seq: u64,
    /// Lustre FID: object.
    pub fid_oid: u32,
    /// Lustre FID: version.
    pub fid_ver: u32,
    /// Stripe size, bytes; 0: not to be restored.
    pub stripe_size: u32,
    /// Number of stripes.
    pub stripe_count: u16,
}

/// Why bytes are not object information of `ltsm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InfoError {
    /// Another program wrote it.
    #[error("object information does not begin with ltsm's magic number; another program wrote it")]
    Magic,
    /// A length that only versions of 2016 wrote, or none at all.
    #[error("object information has {bytes} bytes; known are 40, 48 and 64")]
    Length {
        /// How many.
        bytes: usize,
    },
}

impl ObjectInfo {
    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> [u8; OBJECT_INFO_BYTES] {
        let mut bytes = [0; OBJECT_INFO_BYTES];
        let mut put = |offset: usize, field: &[u8]| {
            bytes[offset..offset + field.len()].copy_from_slice(field);
        };
        put(0, &MAGIC.to_le_bytes());
        put(4, &((self.size >> 32) as u32).to_le_bytes());
        put(8, &(self.size as u32).to_le_bytes());
        put(12, &self.mode.to_le_bytes());
        put(16, &self.crc.to_le_bytes());
        put(24, &self.fid_seq.to_le_bytes());
        put(32, &self.fid_oid.to_le_bytes());
        put(36, &self.fid_ver.to_le_bytes());
        put(40, &self.stripe_size.to_le_bytes());
        put(44, &self.stripe_count.to_le_bytes());
        bytes
    }

    /// Reads the stored form: 48 bytes, 64 (with a pool name, which is ignored), or the 40 of
    /// spring 2017, which end before the stripes.
    ///
    /// # Errors
    /// Another program wrote it, or an `ltsm` of 2016 whose layouts cannot be told apart.
    pub fn decode(bytes: &[u8]) -> Result<Self, InfoError> {
        let u16_at = |at: usize| u16::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        if bytes.len() >= 4 && u32_at(0) != MAGIC {
            return Err(InfoError::Magic);
        }
        if !matches!(bytes.len(), 40 | 48 | 64) {
            return Err(InfoError::Length { bytes: bytes.len() });
        }
        let striped = bytes.len() > 40;
        Ok(Self {
            size: u64::from(u32_at(4)) << 32 | u64::from(u32_at(8)),
            mode: u32_at(12),
            crc: u32_at(16),
            fid_seq: u64_at(24),
            fid_oid: u32_at(32),
            fid_ver: u32_at(36),
            stripe_size: if striped { u32_at(40) } else { 0 },
            stripe_count: if striped { u16_at(44) } else { 0 },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_that_ltsm_writes() {
        // Seen on the wire: a file of 700000 bytes, mode 0100644, outside Lustre.
        let info =
            ObjectInfo { size: 700_000, mode: 0o100_644, crc: 0x5c72_014a, ..Default::default() };
        let mut expected = [0; 48];
        expected[..20].copy_from_slice(&[
            0xeb, 0x15, 0x01, 0x00, 0, 0, 0, 0, 0x60, 0xae, 0x0a, 0x00, 0xa4, 0x81, 0, 0, 0x4a,
            0x01, 0x72, 0x5c,
        ]);
        assert_eq!(info.encode(), expected);
    }

    #[test]
    fn every_field_survives() {
        let info = ObjectInfo {
            size: 0x0123_4567_89ab_cdef,
            mode: 0o100_640,
            crc: 0xdead_beef,
            fid_seq: 0x0002_0000_0401,
            fid_oid: 17,
            fid_ver: 3,
            stripe_size: 1 << 20,
            stripe_count: 4,
        };
        let bytes = info.encode();
        assert_eq!(ObjectInfo::decode(&bytes), Ok(info));
        let mut longer = [0xff; 64];
        longer[..48].copy_from_slice(&bytes);
        assert_eq!(ObjectInfo::decode(&longer), Ok(info));
        let shorter = ObjectInfo { stripe_size: 0, stripe_count: 0, ..info };
        assert_eq!(ObjectInfo::decode(&bytes[..40]), Ok(shorter));
    }

    #[test]
    fn foreign_bytes_are_refused() {
        assert_eq!(ObjectInfo::decode(&[0; 48]), Err(InfoError::Magic));
        assert_eq!(ObjectInfo::decode(b"fsinfo"), Err(InfoError::Magic));
        for bytes in 0..200 {
            let mut stored = vec![0; bytes];
            let magic = MAGIC.to_le_bytes();
            for (at, byte) in stored.iter_mut().zip(magic) {
                *at = byte;
            }
            let known = matches!(bytes, 40 | 48 | 64);
            assert_eq!(ObjectInfo::decode(&stored).is_ok(), known, "{bytes} bytes");
        }
    }
}
