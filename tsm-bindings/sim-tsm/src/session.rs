//! One session: which calls are allowed when, and what they do.
//!
//! Invariant: a call that fails leaves the state as it was, and nothing of a transaction is
//! visible before its commit. Knows no pointers; `lib.rs` translates.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use tsm_bindings::tsm::sys;

use crate::rc;
use crate::server::{complain, process};
use crate::store::{Attributes, Change, Filespace, Name, Object, Spool, Store};

/// A session that has signed on.
pub(crate) struct Session {
    pub(crate) node: String,
    pub(crate) server: String,
    pub(crate) owner: Vec<u8>,
    handle: u32,
    store: Arc<Store>,
    state: State,
    /// Names bound to a management class and not sent since.
    bound: HashSet<Name>,
    /// Only a change of the password is allowed.
    expired: bool,
}

enum State {
    Idle,
    Transaction(Transaction),
    Sending(Transaction, Sending),
    Query(Query),
    Get(Get),
    GetObject(Get, Current),
}

#[derive(Default)]
struct Transaction {
    changes: Vec<Change>,
    spool: Option<Spool>,
    bytes: u64,
    /// Why the server will abort it.
    doom: Option<i16>,
}

struct Sending {
    name: Name,
    kind: u8,
    attributes: Attributes,
    offset: u64,
    size: u64,
}

struct Query {
    kind: i32,
    answers: VecDeque<Found>,
    any: bool,
}

/// One answer of a query.
pub(crate) enum Found {
    Object(u64, Box<Object>),
    Filespace(Vec<u8>, Filespace),
    ManagementClass(String),
}

struct Get {
    list: VecDeque<(u64, Option<(u64, u64)>)>,
}

struct Current {
    object: Box<Object>,
    at: u64,
    end: u64,
}

/// A part of an object's name as a query asks for it, and the rest of the question.
pub(crate) struct Wanted {
    pub(crate) name: Name,
    pub(crate) kind: u8,
    pub(crate) owner: Vec<u8>,
    pub(crate) description: Vec<u8>,
    /// Seconds since 1970, inclusive.
    pub(crate) archived_s: (u64, u64),
}

impl Session {
    pub(crate) fn new(node: String, owner: Vec<u8>, store: Arc<Store>, expired: bool) -> Self {
        Self {
            node,
            server: String::new(),
            owner,
            handle: 0,
            store,
            state: State::Idle,
            bound: HashSet::new(),
            expired,
        }
    }

    pub(crate) fn signed_on(&mut self, handle: u32, server: &str) {
        self.handle = handle;
        server.clone_into(&mut self.server);
    }

    fn number(&self, key: &str, default: u64) -> u64 {
        process().number(&self.node, key, default)
    }

    fn broken(error: &std::io::Error) -> i16 {
        complain(error);
        rc::ABORT_SYSTEM_ERROR
    }

    /// In no operation at all.
    pub(crate) fn idle(&self) -> Result<(), i16> {
        match self.state {
            State::Idle if !self.expired => Ok(()),
            _ => Err(rc::BAD_CALL_SEQUENCE),
        }
    }

    /// Commits changes in a transaction of their own.
    fn apply(&self, change: Change) -> Result<(), i16> {
        let done = self.store.commit(&self.node, &[change], None, |_| Ok(()));
        done.map_err(|error| Self::broken(&error))?
    }

    pub(crate) fn change_password(&mut self, old: &[u8], new: &[u8]) -> Result<(), i16> {
        if !matches!(self.state, State::Idle) {
            return Err(rc::BAD_CALL_SEQUENCE);
        }
        if current_password(&self.store, &self.node).as_deref() != Some(old) {
            return Err(rc::AUTH_FAILURE);
        }
        self.apply(Change::Password { password: new.to_vec() })?;
        self.expired = false;
        Ok(())
    }

    fn filespace(&self, fs: &[u8]) -> Result<Option<Filespace>, i16> {
        let catalog = self.store.catalog().map_err(|error| Self::broken(&error))?;
        Ok(catalog.filespaces.get(&(self.node.clone(), fs.to_vec())).cloned())
    }

    pub(crate) fn register(&mut self, fs: Vec<u8>, filespace: Filespace) -> Result<(), i16> {
        self.idle()?;
        if self.filespace(&fs)?.is_some() {
            return Err(rc::FS_ALREADY_REGED);
        }
        self.apply(Change::Filespace { fs, filespace })
    }

    pub(crate) fn update_filespace(
        &mut self,
        fs: Vec<u8>,
        update: impl FnOnce(&mut Filespace),
    ) -> Result<(), i16> {
        self.idle()?;
        let mut filespace = self.filespace(&fs)?.ok_or(rc::FSNAME_NOTFOUND)?;
        update(&mut filespace);
        self.apply(Change::Filespace { fs, filespace })
    }

    pub(crate) fn drop_filespace(&mut self, fs: Vec<u8>) -> Result<(), i16> {
        self.idle()?;
        self.filespace(&fs)?.ok_or(rc::FSNAME_NOTFOUND)?;
        self.apply(Change::DropFilespace { fs })
    }

    pub(crate) fn begin(&mut self) -> Result<(), i16> {
        self.idle()?;
        self.state = State::Transaction(Transaction::default());
        Ok(())
    }

    fn transaction(&mut self) -> Result<&mut Transaction, i16> {
        match &mut self.state {
            State::Transaction(transaction) => Ok(transaction),
            _ => Err(rc::BAD_CALL_SEQUENCE),
        }
    }

    /// Binds a name; says whether there is an archive copy group for it.
    pub(crate) fn bind(&mut self, name: Name) -> Result<bool, i16> {
        if !matches!(self.state, State::Transaction(_)) {
            self.idle()?;
        }
        self.bound.insert(name);
        Ok(process().switch(&self.node, "archive-copy-group", true))
    }

    /// Refuses an object beyond the transaction's limits.
    fn check_room(&mut self, estimate: u64) -> Result<(), i16> {
        let max_objects = self.number("max-objects", 4096);
        let max_bytes = self.number("max-bytes", 25_600 * 1024);
        let transaction = self.transaction()?;
        let objects = transaction.changes.len() as u64;
        let too_many = objects >= max_objects;
        let too_long = objects > 0 && transaction.bytes.saturating_add(estimate) > max_bytes;
        if too_many || too_long { Err(rc::NEEDTO_ENDTXN) } else { Ok(()) }
    }

    pub(crate) fn send(&mut self, name: Name, kind: u8, attributes: Attributes) -> Result<(), i16> {
        self.transaction()?;
        if self.filespace(&name.fs)?.is_none() {
            return Err(rc::FS_NOT_REGISTERED);
        }
        if !self.bound.contains(&name) {
            return Err(rc::NEEDTO_CALL_BINDMC);
        }
        self.check_room(attributes.estimate)?;
        let doom = self.take_mount_point();
        self.bound.remove(&name);
        let State::Transaction(mut transaction) = std::mem::replace(&mut self.state, State::Idle)
        else {
            unreachable!("checked above");
        };
        transaction.doom = transaction.doom.or(doom);
        let offset = transaction.spool.as_ref().map_or(0, |spool| spool.bytes);
        let sending = Sending { name, kind, attributes, offset, size: 0 };
        self.state = State::Sending(transaction, sending);
        Ok(())
    }

    /// Claims a mount point for this transaction, or says why it will be aborted.
    fn take_mount_point(&self) -> Option<i16> {
        let mut process = process();
        let max = process.number(&self.node, "max-mount-points", u64::MAX);
        let (_, mounted) = process.uses_of(&self.node);
        let (_, mounts) = process.uses.get_mut(&self.handle)?;
        if !*mounts && mounted >= max {
            return Some(rc::ABORT_EXCEED_MAX_MP);
        }
        *mounts = true;
        None
    }

    fn release_mount_point(&self) {
        if let Some((_, mounts)) = process().uses.get_mut(&self.handle) {
            *mounts = false;
        }
    }

    pub(crate) fn send_data(&mut self, data: &[u8]) -> Result<(), i16> {
        let max_object = self.number("max-object-bytes", u64::MAX);
        let capacity = self.number("capacity-bytes", u64::MAX);
        let stored = match capacity {
            u64::MAX => 0,
            _ => self.store.catalog().map_err(|error| Self::broken(&error))?.stored_bytes,
        };
        let State::Sending(transaction, sending) = &mut self.state else {
            return Err(rc::BAD_CALL_SEQUENCE);
        };
        if sending.attributes.estimate == 0 {
            return Err(rc::SENDDATA_WITH_ZERO_SIZE);
        }
        let size = sending.size + data.len() as u64;
        let doom = if size > max_object {
            Some(rc::ABORT_EXCLUDED_BY_SIZE)
        } else if stored + transaction.bytes + data.len() as u64 > capacity {
            Some(rc::ABORT_NO_STO_SPACE_SKIP)
        } else {
            None
        };
        if doom.is_some() {
            transaction.doom = transaction.doom.or(doom);
            return Err(rc::WILL_ABORT);
        }
        if size > sending.attributes.estimate {
            // Found out by the server only when it has run out of the space it set aside.
            transaction.doom = transaction.doom.or(Some(rc::ABORT_SIZESTIMATE_EXCEED));
        }
        if transaction.spool.is_none() {
            let spool = self.store.spool().map_err(|error| Self::broken(&error))?;
            transaction.spool = Some(spool);
        }
        if let Some(spool) = &mut transaction.spool {
            spool.append(data).map_err(|error| Self::broken(&error))?;
        }
        transaction.bytes += data.len() as u64;
        sending.size = size;
        Ok(())
    }

    /// Ends the object; says how many bytes it got.
    pub(crate) fn end_send(&mut self) -> Result<u64, i16> {
        if !matches!(self.state, State::Sending(..)) {
            return Err(rc::BAD_CALL_SEQUENCE);
        }
        let State::Sending(mut transaction, sending) =
            std::mem::replace(&mut self.state, State::Idle)
        else {
            unreachable!("checked above");
        };
        let Sending { name, kind, attributes, offset, size } = sending;
        transaction.changes.push(Change::Add { name, kind, attributes, size, offset });
        self.state = State::Transaction(transaction);
        Ok(size)
    }

    pub(crate) fn delete(&mut self, id: u64) -> Result<(), i16> {
        self.check_room(0)?;
        self.transaction()?.changes.push(Change::Delete { id });
        Ok(())
    }

    pub(crate) fn rename(&mut self, id: u64, hl: Vec<u8>, ll: Vec<u8>) -> Result<(), i16> {
        self.transaction()?.changes.push(Change::Rename { id, hl, ll });
        Ok(())
    }

    /// Ends the transaction; returns the reason of an abort, or 0.
    pub(crate) fn end(&mut self, vote: u8, forced: Option<i16>) -> Result<i16, i16> {
        let abort = match (&self.state, vote) {
            (State::Transaction(_) | State::Sending(..), sys::VOTE_ABORT) => true,
            (State::Transaction(_), sys::VOTE_COMMIT) => false,
            (_, sys::VOTE_COMMIT | sys::VOTE_ABORT) => return Err(rc::BAD_CALL_SEQUENCE),
            _ => return Err(rc::INVALID_VOTE),
        };
        let state = std::mem::replace(&mut self.state, State::Idle);
        self.release_mount_point();
        let State::Transaction(transaction) = state else { return Ok(rc::ABORT_BY_CLIENT) };
        if abort {
            return Ok(rc::ABORT_BY_CLIENT);
        }
        if let Some(reason) = forced.or(transaction.doom) {
            return Ok(reason);
        }
        let Transaction { changes, spool, .. } = transaction;
        if changes.is_empty() {
            return Ok(0);
        }
        let may_delete = process().switch(&self.node, "archive-delete", true);
        let node = self.node.clone();
        let done = self.store.commit(&self.node, &changes, spool, |catalog| {
            for change in &changes {
                let id = match change {
                    Change::Delete { .. } if !may_delete => return Err(rc::ABORT_NOT_AUTHORIZED),
                    Change::Delete { id } | Change::Rename { id, .. } => id,
                    _ => continue,
                };
                if catalog.objects.get(id).is_none_or(|object| object.node != node) {
                    return Err(rc::ABORT_NO_MATCH);
                }
            }
            Ok(())
        });
        Ok(done.map_err(|error| Self::broken(&error))?.err().unwrap_or(0))
    }

    /// Replaces attributes of one object, found by its number or as the newest of its name.
    pub(crate) fn update(
        &mut self,
        id: Option<u64>,
        name: Option<&Name>,
        update: impl FnOnce(&mut Attributes),
    ) -> Result<(), i16> {
        self.idle()?;
        let (id, mut attributes) = {
            let catalog = self.store.catalog().map_err(|error| Self::broken(&error))?;
            let mut own = catalog.objects.iter().filter(|(_, object)| object.node == self.node);
            let found = match (id, name) {
                (Some(id), _) => own.find(|&(&number, _)| number == id),
                (None, Some(name)) => own.rfind(|(_, object)| object.name == *name),
                (None, None) => return Err(rc::NULL_OBJNAME),
            };
            let (&id, object) = found.ok_or(rc::ABORT_NO_MATCH)?;
            (id, object.attributes.clone())
        };
        update(&mut attributes);
        self.apply(Change::Update { id, attributes })
    }

    pub(crate) fn query_archives(&mut self, wanted: &Wanted) -> Result<(), i16> {
        self.idle()?;
        let catalog = self.store.catalog().map_err(|error| Self::broken(&error))?;
        let answers = catalog.objects.iter().filter(|(_, object)| self.matches(object, wanted));
        let answers =
            answers.map(|(&id, object)| Found::Object(id, Box::new(object.clone()))).collect();
        drop(catalog);
        self.state = State::Query(Query { kind: sys::QT_ARCHIVE, answers, any: false });
        Ok(())
    }

    fn matches(&self, object: &Object, wanted: &Wanted) -> bool {
        let Object { node, name, kind, attributes, archived_s, .. } = object;
        *node == self.node
            && name.fs == wanted.name.fs
            && like(&wanted.name.hl, &name.hl)
            && like(&wanted.name.ll, &name.ll)
            && (wanted.kind == sys::OBJ_ANY || wanted.kind == *kind)
            && (self.owner.is_empty() || self.owner == attributes.owner)
            && (wanted.owner.is_empty() || like(&wanted.owner, &attributes.owner))
            && like(&wanted.description, &attributes.description)
            && (wanted.archived_s.0..=wanted.archived_s.1).contains(archived_s)
    }

    pub(crate) fn query_filespaces(&mut self, pattern: &[u8]) -> Result<(), i16> {
        self.idle()?;
        let catalog = self.store.catalog().map_err(|error| Self::broken(&error))?;
        let own = catalog.filespaces.iter().filter(|((node, _), _)| *node == self.node);
        let answers = own
            .filter(|((_, fs), _)| like(pattern, fs))
            .map(|((_, fs), filespace)| Found::Filespace(fs.clone(), filespace.clone()))
            .collect();
        drop(catalog);
        self.state = State::Query(Query { kind: sys::QT_FILESPACE, answers, any: false });
        Ok(())
    }

    pub(crate) fn query_classes(&mut self, name: &[u8]) -> Result<(), i16> {
        self.idle()?;
        let class = management_class(&self.node);
        let wanted = name.is_empty() || name.eq_ignore_ascii_case(class.as_bytes());
        let answers = wanted.then_some(Found::ManagementClass(class)).into_iter().collect();
        self.state = State::Query(Query { kind: sys::QT_MC, answers, any: false });
        Ok(())
    }

    /// Which kind of query is open.
    pub(crate) fn query_kind(&self) -> Result<i32, i16> {
        match &self.state {
            State::Query(query) => Ok(query.kind),
            _ => Err(rc::BAD_CALL_SEQUENCE),
        }
    }

    /// The next answer; the codes for "no more" and "none at all" are errors here.
    pub(crate) fn next_answer(&mut self) -> Result<Found, i16> {
        let State::Query(query) = &mut self.state else { return Err(rc::BAD_CALL_SEQUENCE) };
        match query.answers.pop_front() {
            Some(found) => {
                query.any = true;
                Ok(found)
            }
            None if query.any => Err(rc::FINISHED),
            None => Err(rc::ABORT_NO_MATCH),
        }
    }

    pub(crate) fn end_query(&mut self) -> Result<(), i16> {
        let State::Query(_) = self.state else { return Err(rc::BAD_CALL_SEQUENCE) };
        self.state = State::Idle;
        Ok(())
    }

    /// Begins a retrieval; each part is an offset and a length, 0 for the rest.
    pub(crate) fn begin_get(
        &mut self,
        list: impl Iterator<Item = (u64, Option<(u64, u64)>)>,
    ) -> Result<(), i16> {
        self.idle()?;
        self.state = State::Get(Get { list: list.collect() });
        Ok(())
    }

    /// Goes on to an object of the list; those before it are skipped.
    pub(crate) fn get_object(&mut self, id: u64) -> Result<(), i16> {
        let State::Get(get) = &self.state else { return Err(rc::BAD_CALL_SEQUENCE) };
        let Some(position) = get.list.iter().position(|&(listed, _)| listed == id) else {
            return Err(rc::BAD_CALL_SEQUENCE);
        };
        let part = get.list[position].1;
        let object = {
            let catalog = self.store.catalog().map_err(|error| Self::broken(&error))?;
            let found = catalog.objects.get(&id).filter(|object| object.node == self.node);
            Box::new(found.ok_or(rc::ABORT_NO_MATCH)?.clone())
        };
        let (at, length) = part.unwrap_or((0, 0));
        if at > object.size {
            return Err(rc::ABORT_INVALID_OFFSET);
        }
        let whole = length == 0;
        let end = if whole { object.size } else { object.size.min(at.saturating_add(length)) };
        let State::Get(mut get) = std::mem::replace(&mut self.state, State::Idle) else {
            unreachable!("checked above");
        };
        get.list.drain(..=position);
        self.state = State::GetObject(get, Current { object, at, end });
        Ok(())
    }

    /// Reads the current object on; says how much came and whether that was all.
    pub(crate) fn get_data(&mut self, buffer: &mut [u8]) -> Result<(usize, bool), i16> {
        let State::GetObject(_, current) = &mut self.state else {
            return Err(rc::BAD_CALL_SEQUENCE);
        };
        let left = usize::try_from(current.end - current.at).unwrap_or(usize::MAX);
        let want = buffer.len().min(left);
        let read = self.store.read(&current.object, current.at, &mut buffer[..want]);
        let bytes = read.map_err(|error| Self::broken(&error))?;
        current.at += bytes as u64;
        Ok((bytes, current.at == current.end))
    }

    pub(crate) fn end_get_object(&mut self) -> Result<(), i16> {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::GetObject(get, _) => self.state = State::Get(get),
            other => {
                self.state = other;
                return Err(rc::BAD_CALL_SEQUENCE);
            }
        }
        Ok(())
    }

    pub(crate) fn end_get(&mut self) -> Result<(), i16> {
        if !matches!(self.state, State::Get(_) | State::GetObject(..)) {
            return Err(rc::BAD_CALL_SEQUENCE);
        }
        self.state = State::Idle;
        Ok(())
    }
}

/// The password in effect: the one last set by the client, else that of the node's file.
pub(crate) fn current_password(store: &Store, node: &str) -> Option<Vec<u8>> {
    let changed = store.catalog().ok()?.passwords.get(node).cloned();
    changed.or_else(|| process().password(node))
}

/// The management class that everything is bound to.
pub(crate) fn management_class(node: &str) -> String {
    process().text(node, "management-class").unwrap_or_else(|| "STANDARD".to_owned())
}

/// Whether a pattern with `*` and `?` covers the text.
fn like(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when the last star must cover one byte more.
    let mut star = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p).is_some_and(|&byte| byte == b'?' || byte == text[t]) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((star_at, covered)) = star {
            star = Some((star_at, covered + 1));
            (p, t) = (star_at + 1, covered + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::like;

    #[test]
    fn stars_cover_slashes_and_question_marks_one_byte() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("/*", "/a/b/c", true),
            ("/*/c", "/a/b/c", true),
            ("/?/c", "/a/c", true),
            ("/?/c", "/a/b/c", false),
            ("/a*b*c", "/axxbxxbyyc", true),
            ("/a*b*c", "/axxbxxbyy", false),
            ("/a", "/ab", false),
            ("/ab", "/a", false),
            ("**", "x", true),
            ("", "x", false),
        ] {
            assert_eq!(like(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }
}
