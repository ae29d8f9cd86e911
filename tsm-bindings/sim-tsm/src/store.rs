//! What the server keeps: a log of committed transactions in a directory, and the catalog that
//! follows from it.
//!
//! Each transaction is one directory `log/NUMBER` with a file `index` of records and a file `data`
//! with the contents of its objects. It is written in `spool/`, synced, and renamed into the log
//! under a lock that all processes share. Invariant: numbers have no gaps and a directory in the
//! log never changes, so a catalog is brought up to date by reading on from where it stands.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::FlockOperation;

/// Object numbers begin above 32 bits, so that both halves of them are used.
const ID_BASE: u64 = 1 << 32;

/// A name in its three parts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) fs: Vec<u8>,
    pub(crate) hl: Vec<u8>,
    pub(crate) ll: Vec<u8>,
}

/// What a client says about an object.
#[derive(Clone, Debug)]
pub(crate) struct Attributes {
    pub(crate) owner: Vec<u8>,
    pub(crate) description: Vec<u8>,
    pub(crate) info: Vec<u8>,
    pub(crate) estimate: u64,
}

/// An archived object.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) node: String,
    pub(crate) name: Name,
    pub(crate) kind: u8,
    pub(crate) attributes: Attributes,
    /// Seconds since 1970.
    pub(crate) archived_s: u64,
    pub(crate) size: u64,
    /// Number of its transaction.
    pub(crate) transaction: u64,
    /// Where its data begin there.
    pub(crate) offset: u64,
}

/// A filespace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filespace {
    pub(crate) fs_type: Vec<u8>,
    pub(crate) info: Vec<u8>,
    pub(crate) occupancy: u64,
    pub(crate) capacity: u64,
}

/// One change in a transaction.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Filespace { fs: Vec<u8>, filespace: Filespace },
    DropFilespace { fs: Vec<u8> },
    Add { name: Name, kind: u8, attributes: Attributes, size: u64, offset: u64 },
    Delete { id: u64 },
    Update { id: u64, attributes: Attributes },
    Rename { id: u64, hl: Vec<u8>, ll: Vec<u8> },
    Password { password: Vec<u8> },
}

/// The state of the server.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    /// Transactions read so far.
    last: u64,
    pub(crate) objects: BTreeMap<u64, Object>,
    pub(crate) filespaces: BTreeMap<(String, Vec<u8>), Filespace>,
    pub(crate) passwords: HashMap<String, Vec<u8>>,
    pub(crate) stored_bytes: u64,
}

/// The directory.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
    catalog: Mutex<Catalog>,
}

/// A transaction's data before it is committed; removed when dropped.
#[derive(Debug)]
pub(crate) struct Spool {
    directory: PathBuf,
    data: File,
    pub(crate) bytes: u64,
}

impl Spool {
    pub(crate) fn append(&mut self, data: &[u8]) -> io::Result<()> {
        self.data.write_all(data)?;
        self.bytes += data.len() as u64;
        Ok(())
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // After a commit it is not there any more.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Store {
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        for directory in ["log", "spool", "nodes"] {
            fs::create_dir_all(root.join(directory))?;
        }
        let store = Self { root: root.to_path_buf(), catalog: Mutex::default() };
        store.sweep()?;
        Ok(store)
    }

    /// Removes what processes left that are gone.
    fn sweep(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.root.join("spool"))? {
            let entry = entry?;
            let name = entry.file_name();
            let pid = name.to_string_lossy().split('-').next().unwrap_or_default().to_owned();
            if !Path::new("/proc").join(pid).exists() {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        Ok(())
    }

    pub(crate) fn spool(&self) -> io::Result<Spool> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let directory = loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("{}-{count}", std::process::id());
            let directory = self.root.join("spool").join(name);
            match fs::create_dir(&directory) {
                Ok(()) => break directory,
                // Left by a process that is gone and had the same number.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        };
        let data = File::create(directory.join("data"))?;
        Ok(Spool { directory, data, bytes: 0 })
    }

    /// The catalog with all that any process has committed.
    pub(crate) fn catalog(&self) -> io::Result<MutexGuard<'_, Catalog>> {
        // A panic while holding it left the catalog at the end of some transaction.
        let mut catalog = self.catalog.lock().unwrap_or_else(PoisonError::into_inner);
        catalog.read_on(&self.root)?;
        Ok(catalog)
    }

    /// Appends a transaction. `check` sees the catalog as it is at that very moment and may refuse
    /// with a return code.
    pub(crate) fn commit(
        &self,
        node: &str,
        changes: &[Change],
        spool: Option<Spool>,
        check: impl FnOnce(&Catalog) -> Result<(), i16>,
    ) -> io::Result<Result<(), i16>> {
        let spool = spool.map_or_else(|| self.spool(), Ok)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut index = format!("node {node}\ntime {now}\n");
        for change in changes {
            index.push_str(&encode(change));
        }
        let mut file = File::create(spool.directory.join("index"))?;
        file.write_all(index.as_bytes())?;
        file.sync_all()?;
        spool.data.sync_all()?;
        File::open(&spool.directory)?.sync_all()?;

        let lock = File::create(self.root.join("lock"))?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
        let mut catalog = self.catalog()?;
        if let Err(code) = check(&catalog) {
            return Ok(Err(code));
        }
        let log = self.root.join("log");
        fs::rename(&spool.directory, log.join(number(catalog.last + 1)))?;
        File::open(&log)?.sync_all()?;
        catalog.read_on(&self.root)?;
        Ok(Ok(()))
    }

    /// Reads data of an object; short at its end.
    pub(crate) fn read(&self, object: &Object, from: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let left = object.size.saturating_sub(from);
        let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let path = self.root.join("log").join(number(object.transaction)).join("data");
        File::open(path)?.read_exact_at(&mut buffer[..want], object.offset + from)?;
        Ok(want)
    }
}

fn number(transaction: u64) -> String {
    format!("{transaction:012}")
}

impl Catalog {
    fn read_on(&mut self, root: &Path) -> io::Result<()> {
        loop {
            let path = root.join("log").join(number(self.last + 1)).join("index");
            let text = match fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            };
            let damaged = || {
                let why = format!("{} is damaged", path.display());
                io::Error::new(io::ErrorKind::InvalidData, why)
            };
            self.apply(self.last + 1, &text).ok_or_else(damaged)?;
            self.last += 1;
        }
    }

    fn apply(&mut self, transaction: u64, text: &str) -> Option<()> {
        let mut lines = text.lines();
        let node = lines.next()?.strip_prefix("node ")?;
        let archived_s = lines.next()?.strip_prefix("time ")?.parse().ok()?;
        for (position, line) in (0..).zip(lines) {
            match decode(line)? {
                Change::Filespace { fs, filespace } => {
                    self.filespaces.insert((node.to_owned(), fs), filespace);
                }
                Change::DropFilespace { fs } => {
                    self.filespaces.remove(&(node.to_owned(), fs.clone()));
                    let stored_bytes = &mut self.stored_bytes;
                    self.objects.retain(|_, object| {
                        let keep = object.node != node || object.name.fs != fs;
                        *stored_bytes -= if keep { 0 } else { object.size };
                        keep
                    });
                }
                Change::Add { name, kind, attributes, size, offset } => {
                    let id = ID_BASE + (transaction << 16) + position;
                    let node = node.to_owned();
                    self.stored_bytes += size;
                    let object = Object {
                        node,
                        name,
                        kind,
                        attributes,
                        archived_s,
                        size,
                        transaction,
                        offset,
                    };
                    self.objects.insert(id, object);
                }
                Change::Delete { id } => {
                    let size = self.objects.remove(&id).map_or(0, |object| object.size);
                    self.stored_bytes -= size;
                }
                Change::Update { id, attributes } => {
                    self.objects.get_mut(&id)?.attributes = attributes;
                }
                Change::Rename { id, hl, ll } => {
                    let object = self.objects.get_mut(&id)?;
                    (object.name.hl, object.name.ll) = (hl, ll);
                }
                Change::Password { password } => {
                    self.passwords.insert(node.to_owned(), password);
                }
            }
        }
        Some(())
    }
}

fn encode(change: &Change) -> String {
    let text = |bytes: &[u8]| {
        let mut out = String::with_capacity(bytes.len() + 1);
        for &byte in bytes {
            match byte {
                b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'/' | b'.' | b'_' => {
                    out.push(char::from(byte));
                }
                _ => out.push_str(&format!("%{byte:02x}")),
            }
        }
        // An empty word would vanish between blanks.
        if out.is_empty() { "-".to_owned() } else { out }
    };
    let attributes = |a: &Attributes| {
        let [owner, description, info] = [&a.owner, &a.description, &a.info].map(|t| text(t));
        format!("{owner} {description} {info} {}", a.estimate)
    };
    match change {
        Change::Filespace { fs, filespace: f } => {
            let (fs, kind, info) = (text(fs), text(&f.fs_type), text(&f.info));
            format!("filespace {fs} {kind} {info} {} {}\n", f.occupancy, f.capacity)
        }
        Change::DropFilespace { fs } => format!("drop-filespace {}\n", text(fs)),
        Change::Add { name, kind, attributes: a, size, offset } => {
            let (fs, hl, ll) = (text(&name.fs), text(&name.hl), text(&name.ll));
            format!("add {fs} {hl} {ll} {kind} {} {size} {offset}\n", attributes(a))
        }
        Change::Delete { id } => format!("delete {id}\n"),
        Change::Update { id, attributes: a } => format!("update {id} {}\n", attributes(a)),
        Change::Rename { id, hl, ll } => format!("rename {id} {} {}\n", text(hl), text(ll)),
        Change::Password { password } => format!("password {}\n", text(password)),
    }
}

fn decode(line: &str) -> Option<Change> {
    fn text(word: &str) -> Option<Vec<u8>> {
        let mut bytes = word.bytes();
        let mut out = Vec::with_capacity(word.len());
        if word == "-" {
            return Some(out);
        }
        while let Some(byte) = bytes.next() {
            if byte == b'%' {
                let pair = [bytes.next()?, bytes.next()?];
                out.push(u8::from_str_radix(str::from_utf8(&pair).ok()?, 16).ok()?);
            } else {
                out.push(byte);
            }
        }
        Some(out)
    }
    let attributes = |words: &[&str]| {
        let [owner, description, info, estimate] = words else { return None };
        Some(Attributes {
            owner: text(owner)?,
            description: text(description)?,
            info: text(info)?,
            estimate: estimate.parse().ok()?,
        })
    };
    let words: Vec<&str> = line.split(' ').collect();
    Some(match &words[..] {
        ["filespace", fs, fs_type, info, occupancy, capacity] => Change::Filespace {
            fs: text(fs)?,
            filespace: Filespace {
                fs_type: text(fs_type)?,
                info: text(info)?,
                occupancy: occupancy.parse().ok()?,
                capacity: capacity.parse().ok()?,
            },
        },
        ["drop-filespace", fs] => Change::DropFilespace { fs: text(fs)? },
        ["add", fs, hl, ll, kind, about @ .., size, offset] => Change::Add {
            name: Name { fs: text(fs)?, hl: text(hl)?, ll: text(ll)? },
            kind: kind.parse().ok()?,
            attributes: attributes(about)?,
            size: size.parse().ok()?,
            offset: offset.parse().ok()?,
        },
        ["delete", id] => Change::Delete { id: id.parse().ok()? },
        ["update", id, about @ ..] => {
            Change::Update { id: id.parse().ok()?, attributes: attributes(about)? }
        }
        ["rename", id, hl, ll] => {
            Change::Rename { id: id.parse().ok()?, hl: text(hl)?, ll: text(ll)? }
        }
        ["password", password] => Change::Password { password: text(password)? },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(ll: &[u8], size: u64, offset: u64) -> Change {
        Change::Add {
            name: Name { fs: b"/fs".into(), hl: b"/a b%".into(), ll: ll.into() },
            kind: 1,
            attributes: Attributes {
                owner: Vec::new(),
                description: b"-".into(),
                info: (0..=255).collect(),
                estimate: size,
            },
            size,
            offset,
        }
    }

    #[test]
    fn another_process_sees_a_transaction_whole_and_only_after_its_commit() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let (one, two) = [(); 2].map(|()| Store::open(root.path()).expect("opened")).into();
        let mut spool = one.spool().expect("spool");
        spool.append(b"hello").expect("written");
        spool.append(b"world!").expect("written");
        assert!(two.catalog().expect("read").objects.is_empty());
        let changes = [add(b"/x", 5, 0), add(b"/\xff\n", 6, 5)];
        one.commit("N", &changes, Some(spool), |_| Ok(())).expect("io").expect("accepted");
        let objects: Vec<Object> = two.catalog().expect("read").objects.values().cloned().collect();
        assert_eq!(objects.len(), 2);
        assert_eq!(objects[1].name.ll, b"/\xff\n");
        assert_eq!(objects[1].attributes.description, b"-");
        assert_eq!(objects[1].attributes.info, (0..=255).collect::<Vec<u8>>());
        let mut buffer = [0; 10];
        let bytes = two.read(&objects[1], 1, &mut buffer).expect("read");
        assert_eq!(&buffer[..bytes], b"orld!");
    }

    #[test]
    fn a_refused_or_dropped_transaction_leaves_nothing() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(root.path()).expect("opened");
        let spool = store.spool().expect("spool");
        let refused = store.commit("N", &[add(b"/x", 0, 0)], Some(spool), |_| Err(11));
        assert_eq!(refused.expect("io"), Err(11));
        drop(store.spool().expect("spool"));
        assert!(store.catalog().expect("read").objects.is_empty());
        for directory in ["log", "spool"] {
            let left = fs::read_dir(root.path().join(directory)).expect("listed").count();
            assert_eq!(left, 0, "{directory}");
        }
    }

    #[test]
    fn two_processes_at_once_lose_nothing() {
        const EACH: usize = 30;
        let root = tempfile::tempdir().expect("a temporary directory");
        let stores = [(); 2].map(|()| Store::open(root.path()).expect("opened"));
        std::thread::scope(|scope| {
            for store in &stores {
                scope.spawn(move || {
                    for _ in 0..EACH {
                        let done = store.commit("N", &[add(b"/x", 0, 0)], None, |_| Ok(()));
                        assert_eq!(done.expect("io"), Ok(()));
                    }
                });
            }
        });
        for store in &stores {
            assert_eq!(store.catalog().expect("read").objects.len(), 2 * EACH);
        }
    }

    #[test]
    fn what_a_dead_process_left_is_removed_and_a_living_one_s_is_not() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(root.path()).expect("opened");
        let spool = store.spool().expect("spool");
        // Beyond the largest process id there can be.
        let dead = root.path().join("spool/4194305-0");
        fs::create_dir(&dead).expect("created");
        Store::open(root.path()).expect("opened again");
        assert!(!dead.exists() && spool.directory.exists());
    }
}
