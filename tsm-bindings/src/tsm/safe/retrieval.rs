//! Objects on their way back.

use super::Error;
use super::query::ObjectId;
use super::session::Session;
use crate::Zeroed;
use crate::tsm::result::Piece;
use crate::tsm::sys;

/// A retrieval in progress; ended when dropped.
#[derive(Debug)]
pub struct Retrieval<'s> {
    session: &'s mut Session,
    list: Box<List>,
    next: usize,
    over: bool,
}

struct List {
    raw: sys::dsmGetList,
    ids: Vec<sys::dsStruct64_t>,
}

// SAFETY: its pointers are null or point to its own vector.
unsafe impl Send for List {}

impl std::fmt::Debug for List {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} objects", self.ids.len())
    }
}

impl<'s> Retrieval<'s> {
    pub(super) fn begin(session: &'s mut Session, objects: &[ObjectId]) -> Result<Self, Error> {
        if objects.is_empty() {
            return Err(Error::Invalid { what: "list of objects" });
        }
        if objects.len() > sys::GET_OBJECTS_MAX {
            return Err(Error::TooMany { objects: objects.len(), max: sys::GET_OBJECTS_MAX });
        }
        let ids = objects.iter().map(|id| sys::dsStruct64_t::new(id.0)).collect();
        let mut list = Box::new(List { raw: sys::dsmGetList::zeroed(), ids });
        let List { raw, ids } = &mut *list;
        raw.stVersion = 2;
        raw.numObjId = ids.len() as u32;
        raw.objId = ids.as_mut_ptr();
        // SAFETY: the session is alive and borrowed by this retrieval alone; the list lives as
        // long as the retrieval.
        let begun = unsafe { session.calls().begin_get(session.handle, &mut list.raw) };
        begun.map_err(|error| session.note(error))?;
        Ok(Self { session, list, next: 0, over: false })
    }

    /// The next object of the list, or `None` after the last.
    ///
    /// # Errors
    /// The session was lost.
    pub fn next_object(&mut self) -> Result<Option<RetrievedObject<'_, 's>>, Error> {
        self.session.check_usable()?;
        let Some(id) = self.list.ids.get(self.next) else { return Ok(None) };
        let id = ObjectId(id.value());
        self.next += 1;
        Ok(Some(RetrievedObject { retrieval: self, id, state: ObjectState::New }))
    }

    /// Ends the retrieval. What was not read is transferred all the same, which may take long; to
    /// stop early, drop the session.
    ///
    /// # Errors
    /// The library's.
    pub fn finish(mut self) -> Result<(), Error> {
        self.close()
    }

    fn close(&mut self) -> Result<(), Error> {
        if std::mem::replace(&mut self.over, true) || !self.session.is_usable() {
            return Ok(());
        }
        // SAFETY: the session is alive and borrowed by this retrieval alone.
        let ended = unsafe { self.session.calls().end_get(self.session.handle) };
        ended.map_err(|error| {
            self.session.lose();
            Error::Call(error)
        })
    }
}

impl Drop for Retrieval<'_> {
    fn drop(&mut self) {
        // A failure is taken down in the session, which is all that is left to do.
        let _ = self.close();
    }
}

/// One object of a retrieval; need not be read, or not to its end.
#[derive(Debug)]
pub struct RetrievedObject<'r, 's> {
    retrieval: &'r mut Retrieval<'s>,
    id: ObjectId,
    state: ObjectState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ObjectState {
    /// Not asked for yet.
    New,
    /// There is more.
    Open,
    /// Everything has come.
    Complete,
}

impl RetrievedObject<'_, '_> {
    /// Its number.
    #[must_use]
    pub fn id(&self) -> ObjectId {
        self.id
    }

    /// Fills the beginning of `buffer` with the next bytes and returns how many; 0 is the end.
    ///
    /// # Errors
    /// The buffer is empty, or the library's. The session is lost in the second case.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        if buffer.is_empty() {
            return Err(Error::Invalid { what: "buffer" });
        }
        let session = &mut *self.retrieval.session;
        session.check_usable()?;
        while self.state != ObjectState::Complete {
            let (calls, handle) = (session.calls(), session.handle);
            let piece = match self.state {
                // SAFETY: the session is alive and borrowed by this object alone.
                ObjectState::New => unsafe { calls.get_obj(handle, self.id.0, buffer) },
                // SAFETY: as above.
                _ => unsafe { calls.get_data(handle, buffer) },
            };
            let Piece { bytes, last } = piece.map_err(|error| {
                // The library demands a new session after any failure here.
                session.lose();
                Error::Call(error)
            })?;
            self.state = if last { ObjectState::Complete } else { ObjectState::Open };
            if bytes > 0 {
                return Ok(bytes);
            }
        }
        Ok(0)
    }
}

impl Drop for RetrievedObject<'_, '_> {
    fn drop(&mut self) {
        let session = &mut *self.retrieval.session;
        if self.state == ObjectState::New || !session.is_usable() {
            return;
        }
        // SAFETY: the session is alive and borrowed by this object alone.
        if unsafe { session.calls().end_get_obj(session.handle) }.is_err() {
            session.lose();
        }
    }
}
