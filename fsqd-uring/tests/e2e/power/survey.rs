//! The files of a run, and what a loss of power has left of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use fsq_wire::StorageDest;
use fsqd_uring::drain::TEMPORARY_PREFIX;
use fsqd_uring::queue::record::{FileState, SEAL};

use crate::support::content::{Random, bytes};
use crate::support::site::Site;
use crate::support::{text, tree};

/// Most files are small, as in the field where a loss is likeliest.
const LENS: [usize; 8] = [0, 1, 4096, 4096, 70_001, 262_144, 524_289, 2_300_001];

/// One upload; instants as [`crate::support::volatile::Machine::now`] counts them.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) name: String,
    seed: u64,
    pub(super) len: usize,
    pub(super) dest: StorageDest,
    /// Just before CLOSE was sent; `None`: it was not.
    pub(super) closing: Option<usize>,
    /// Just after the reply had come.
    pub(super) acknowledged: Option<usize>,
}

impl Sent {
    pub(super) fn new(seed: u64, client: u64, n: u64) -> Self {
        let seed = seed << 32 | client << 16 | n;
        let mut random = Random::new(seed);
        let len = LENS[random.below(LENS.len() as u64) as usize];
        let dest = if random.below(2) == 0 { StorageDest::Local } else { StorageDest::Lustre };
        // Some in a directory that exists by then, some in one of their own.
        let directory = if random.below(3) == 0 { format!("own/{n}") } else { "all".to_owned() };
        let name = format!("data/{directory}/{client}-{n}");
        Self { name, seed, len, dest, closing: None, acknowledged: None }
    }

    pub(super) fn content(&self) -> Vec<u8> {
        bytes(self.seed, self.len)
    }

    pub(super) fn is_acknowledged(&self, cut: usize) -> bool {
        self.acknowledged.is_some_and(|instant| instant <= cut)
    }

    /// Whether it may be there after a cut.
    fn may_be_there(&self, cut: usize) -> bool {
        self.closing.is_some_and(|instant| instant < cut)
    }
}

/// The files for one destination.
pub(super) fn of(sent: &[Sent], dest: StorageDest) -> impl Iterator<Item = &Sent> {
    sent.iter().filter(move |file| file.dest == dest)
}

/// What is wrong with a file that is there.
fn damage(path: &Path, file: &Sent) -> Option<String> {
    let found = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let content = file.content();
    if found.len() != content.len() {
        return Some(format!("{} bytes of {}", found.len(), content.len()));
    }
    let differs = found.iter().zip(&content).position(|(found, sent)| found != sent);
    differs.map(|offset| format!("another byte at {offset} of {}", content.len()))
}

/// What is wrong with the attributes of a file on staging.
fn wrong_record(path: &Path, file: &Sent) -> Option<String> {
    let attribute = |name: &str, len| {
        let mut value = vec![0; 64];
        let count = rustix::fs::getxattr(path, name, &mut value[..]).unwrap_or(0);
        value.truncate(count);
        if count == len { Ok(value) } else { Err(format!("{name} has {count} bytes of {len}")) }
    };
    let states: &[FileState] = match file.dest {
        StorageDest::Local => &[FileState::FileKeep],
        // The drain may have been at it.
        _ => &[
            FileState::LocalCopyDone,
            FileState::LustreCopyRun,
            FileState::LustreCopyError,
            FileState::LustreCopyDone,
        ],
    };
    let state = match attribute("user.fsq.state", 4) {
        Ok(value) => u32::from_ne_bytes(value.try_into().expect("four bytes")),
        Err(error) => return Some(error),
    };
    if !states.iter().any(|wanted| wanted.bits() == state) {
        return Some(format!("state {state:#x}, wanted one of {states:?}"));
    }
    let mut wanted = (file.len as u64).to_ne_bytes().to_vec();
    wanted.extend(crc32fast::hash(&file.content()).to_ne_bytes());
    wanted.extend(SEAL.to_ne_bytes());
    match attribute("user.fsq.crc", 16) {
        Ok(value) if value == wanted => None,
        Ok(value) => Some(format!("checksum attribute {value:x?}, wanted {wanted:x?}")),
        Err(error) => Some(error),
    }
}

/// Where files are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Staging,
    Target { may_have_temporaries: bool },
}

/// What is found after a loss of power.
#[derive(Debug, Default)]
pub(super) struct Survey {
    pub(super) there: usize,
    /// Acknowledged and nowhere whole.
    pub(super) lost: Vec<String>,
    /// There and incomplete, or without anybody having asked for it.
    wrong: Vec<String>,
}

impl Survey {
    /// Before a daemon is started: a file for the target is in one place or the other.
    pub(super) fn before(&mut self, site: &Site, sent: &[Sent], cut: usize) {
        let mut whole = self.look(site, Place::Staging, sent.iter(), cut);
        let target = Place::Target { may_have_temporaries: true };
        whole.extend(self.look(site, target, of(sent, StorageDest::Lustre), cut));
        self.there += whole.len();
        self.miss(sent.iter(), cut, &whole);
    }

    /// After a daemon has done its work: each file is in its one place.
    pub(super) fn after(&mut self, site: &Site, sent: &[Sent], cut: usize) {
        let target = Place::Target { may_have_temporaries: false };
        for (place, dest) in [(Place::Staging, StorageDest::Local), (target, StorageDest::Lustre)] {
            let whole = self.look(site, place, of(sent, dest), cut);
            self.there += whole.len();
            self.miss(of(sent, dest), cut, &whole);
        }
    }

    /// The names of whole files in a place where these files, and no others, may be.
    fn look<'a>(
        &mut self,
        site: &Site,
        place: Place,
        files: impl Iterator<Item = &'a Sent>,
        cut: usize,
    ) -> BTreeSet<PathBuf> {
        let known: BTreeMap<_, _> = files.map(|file| (Path::new(&file.name), file)).collect();
        let (root, may_have_temporaries) = match place {
            Place::Staging => (site.staging(), false),
            Place::Target { may_have_temporaries } => (site.target(), may_have_temporaries),
        };
        let mut whole = BTreeSet::new();
        for name in tree::files(&root) {
            let path = root.join(&name);
            if may_have_temporaries && text(&path).contains(TEMPORARY_PREFIX) {
                continue;
            }
            let wrong = match known.get(name.as_path()) {
                None => Some("does not belong here".to_owned()),
                Some(file) if !file.may_be_there(cut) => Some("CLOSE had not been sent".to_owned()),
                Some(file) if place == Place::Staging => {
                    damage(&path, file).or_else(|| wrong_record(&path, file))
                }
                Some(file) => damage(&path, file),
            };
            match wrong {
                None => drop(whole.insert(name)),
                Some(wrong) => self.wrong.push(format!("{}: {wrong}", path.display())),
            }
        }
        whole
    }

    /// Notes what was acknowledged and is not among `whole`.
    fn miss<'a>(
        &mut self,
        files: impl Iterator<Item = &'a Sent>,
        cut: usize,
        whole: &BTreeSet<PathBuf>,
    ) {
        let is_lost =
            |file: &&Sent| file.is_acknowledged(cut) && !whole.contains(Path::new(&file.name));
        let lost = files.filter(is_lost);
        self.lost.extend(lost.map(|file| format!("{} ({} bytes)", file.name, file.len)));
    }

    pub(super) fn assert_good(&self, when: &str) {
        let Self { lost, wrong, .. } = self;
        assert!(
            lost.is_empty() && wrong.is_empty(),
            "{when}: acknowledged and lost: {lost:#?}, should not be there: {wrong:#?}"
        );
    }
}
