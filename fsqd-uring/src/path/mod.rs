//! Path confinement.
use std::path::PathBuf;
/// Where a file goes, relative to the two roots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Below the staging root.
    pub staging: PathBuf,
    /// Below the target root.
    pub target: PathBuf,
}
