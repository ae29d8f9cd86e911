//! The FSQ wire protocol.
#![forbid(unsafe_code)]
/// Where a file is to end up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum StorageDest {
    /// Received and dropped.
    Null = 0,
    /// Kept on the staging file system.
    Local = 1,
    /// Copied to Lustre, the staging copy freed.
    Lustre = 2,
    /// Archived on TSM only.
    Tsm = 3,
    /// Copied to Lustre and archived.
    LustreTsm = 4,
}
