//! How much room the extended attributes of a staged file take.
//!
//! ext4 keeps what does not fit into the inode in one block of 4 KiB, and answers ENOSPC beyond.
//! That must be known at OPEN: at CLOSE the data would be lost. The measure is ext4's: an entry
//! header of 16 bytes, the name without its `user.` prefix rounded up to 4, and the value rounded
//! up to 4 (kernel documentation, ext4: extended attributes). The header of the block itself (32
//! bytes and an end mark of 4) belongs to the limit, not to the sum.

/// Bytes of one entry's header.
const ENTRY_HEADER_BYTES: usize = 16;
/// Longest node name, bytes; counted in full, so that the answer does not depend on who asks.
const NODE_BYTES_MAX: usize = 64;

/// What one attribute takes: `name_len` without the `user.` prefix, both in bytes.
#[must_use]
pub const fn attribute_entry_bytes(name_len: usize, value_len: usize) -> usize {
    ENTRY_HEADER_BYTES + name_len.next_multiple_of(4) + value_len.next_multiple_of(4)
}

/// What all attributes of a staged file take: state, arvid and stordest (4 bytes each), fs, fpath
/// and desc (as long as given), crc (16 bytes), and owner (uid, gid and the node's name).
#[must_use]
pub const fn attribute_bytes(fs_len: usize, fpath_len: usize, desc_len: usize) -> usize {
    attribute_entry_bytes("fsq.state".len(), 4)
        + attribute_entry_bytes("fsq.arvid".len(), 4)
        + attribute_entry_bytes("fsq.stordest".len(), 4)
        + attribute_entry_bytes("fsq.fs".len(), fs_len)
        + attribute_entry_bytes("fsq.fpath".len(), fpath_len)
        + attribute_entry_bytes("fsq.desc".len(), desc_len)
        + attribute_entry_bytes("fsq.crc".len(), 16)
        + attribute_entry_bytes("fsq.owner".len(), 8 + NODE_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_by_hand() {
        // Headers 8 * 16; names 12 + 12 + 12 + 8 + 12 + 8 + 8 + 12; values 3 * 4 + 16 + 72.
        assert_eq!(attribute_bytes(0, 0, 0), 128 + 84 + 100);
        assert_eq!(attribute_bytes(1, 4, 5), attribute_bytes(0, 0, 0) + 4 + 4 + 8);
    }

    #[test]
    fn usual_paths_fit_the_block_of_ext4() {
        assert!(attribute_bytes(64, 1024, 255) < 4096 - 36);
    }
}
