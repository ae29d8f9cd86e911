//! Where a staged file goes next, by what its attributes say.
//!
//! Invariant: `Free` is answered only for a file whose destination this daemon has made safe. The
//! old daemon's word is not taken for it (it freed on a request to the archive, not on its
//! confirmation, and did not sync): what it left as done is looked at again.

use fsq_wire::StorageDest;

use super::record::{FileState, Record};
use super::scheduler::{Phase, Stage};

/// What the archive takes a file from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveMode {
    /// There is no archive: files that want one are kept.
    Off,
    /// From the staging copy.
    FromStaging,
    /// From the copy on the target, which is made first.
    FromTarget,
}

/// What is to be done with a staged file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Copy it to the target (or find that it is there).
    Copy,
    /// Archive it.
    Archive(Phase),
    /// Its destination is safe: free the staging copy.
    Free,
    /// It stays on staging for good.
    Keep,
    /// It stays until the daemon runs with an archive.
    Hold,
    /// It was given up.
    Omitted,
}

impl Route {
    /// The lane whose worker does it; `None` if there is nothing to do.
    #[must_use]
    pub fn lane(self, dest: StorageDest) -> Option<(Stage, Phase)> {
        match self {
            Self::Copy => Some((Stage::Copy, Phase::Submit)),
            Self::Archive(phase) => Some((Stage::Archive, phase)),
            Self::Free if dest == StorageDest::Lustre => Some((Stage::Copy, Phase::Submit)),
            Self::Free => Some((Stage::Archive, Phase::Submit)),
            Self::Keep | Self::Hold | Self::Omitted => None,
        }
    }
}

/// Where a file goes next.
#[must_use]
pub fn route(record: &Record, mode: ArchiveMode) -> Route {
    // Only this daemon records a checksum, and only this daemon's DONE means confirmed.
    let ours = record.content.is_some();
    if matches!(record.dest, StorageDest::Null | StorageDest::Local) {
        return Route::Keep;
    }
    match record.state {
        FileState::FileKeep => Route::Keep,
        FileState::FileOmitted => Route::Omitted,
        FileState::TsmArchiveDone if ours => Route::Free,
        FileState::TsmArchiveDone | FileState::TsmArchiveRun => archive(mode, Phase::Confirm),
        FileState::TsmArchiveError => archive(mode, Phase::Submit),
        FileState::LustreCopyDone if ours => after_copy(record.dest, mode),
        _ => first(record.dest, mode),
    }
}

/// Where a file goes that nothing has been done with.
#[must_use]
pub fn first(dest: StorageDest, mode: ArchiveMode) -> Route {
    match dest {
        StorageDest::Null | StorageDest::Local => Route::Keep,
        StorageDest::Lustre | StorageDest::LustreTsm => Route::Copy,
        StorageDest::Tsm => match mode {
            ArchiveMode::Off => Route::Hold,
            ArchiveMode::FromStaging => Route::Archive(Phase::Submit),
            ArchiveMode::FromTarget => Route::Copy,
        },
    }
}

/// Where a file goes whose copy on the target is safe.
#[must_use]
pub fn after_copy(dest: StorageDest, mode: ArchiveMode) -> Route {
    match dest {
        StorageDest::Null | StorageDest::Local => Route::Keep,
        StorageDest::Lustre => Route::Free,
        StorageDest::Tsm | StorageDest::LustreTsm => archive(mode, Phase::Submit),
    }
}

fn archive(mode: ArchiveMode, phase: Phase) -> Route {
    match mode {
        ArchiveMode::Off => Route::Hold,
        ArchiveMode::FromStaging | ArchiveMode::FromTarget => Route::Archive(phase),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::super::record::Content;
    use super::*;

    #[test]
    fn every_state_of_every_destination_has_its_next_step() {
        use ArchiveMode::{FromStaging, FromTarget, Off};
        use FileState::*;
        use Phase::{Confirm, Submit};
        use Route::*;
        use StorageDest::{Local, Lustre, LustreTsm, Tsm};
        // Destination, archive, and the route of each state in the order of its bits.
        let table = [
            (Local, FromStaging, [Keep; 9]),
            (Lustre, Off, [Copy, Copy, Copy, Free, Hold, Hold, Free, Omitted, Keep]),
            (
                LustreTsm,
                FromStaging,
                [
                    Copy,
                    Copy,
                    Copy,
                    Archive(Submit),
                    Archive(Confirm),
                    Archive(Submit),
                    Free,
                    Omitted,
                    Keep,
                ],
            ),
            (LustreTsm, Off, [Copy, Copy, Copy, Hold, Hold, Hold, Free, Omitted, Keep]),
            (Tsm, Off, [Hold, Hold, Hold, Hold, Hold, Hold, Free, Omitted, Keep]),
            (
                Tsm,
                FromTarget,
                [
                    Copy,
                    Copy,
                    Copy,
                    Archive(Submit),
                    Archive(Confirm),
                    Archive(Submit),
                    Free,
                    Omitted,
                    Keep,
                ],
            ),
        ];
        for (dest, mode, routes) in table {
            for (state, expected) in FileState::ALL.into_iter().zip(routes) {
                let record = record(state, dest, true);
                assert_eq!(route(&record, mode), expected, "{dest:?} {mode:?} {state:?}");
            }
        }
        // What the old daemon calls done is looked at again.
        let old = |state, dest| route(&record(state, dest, false), FromStaging);
        assert_eq!(old(LustreCopyDone, Lustre), Copy);
        assert_eq!(old(TsmArchiveDone, LustreTsm), Archive(Confirm));
        assert_eq!(route(&record(TsmArchiveDone, LustreTsm, false), Off), Hold);
    }

    fn record(state: FileState, dest: StorageDest, ours: bool) -> Record {
        Record {
            state,
            archive_id: 1,
            fs: OsString::from("/lustre"),
            fpath: OsString::from("/lustre/a"),
            desc: Vec::new(),
            dest,
            content: ours.then_some(Content { len: 0, crc: 0 }),
            owner: None,
        }
    }
}
