//! A list of archive objects.

use std::ffi::c_char;

use super::session::Session;
use super::{Error, check_length};
use crate::Zeroed;
use crate::abi::{c_string, put_c_string};
use crate::tsm::name::{NamePattern, ObjectName};
use crate::tsm::rc::ReturnCode;
use crate::tsm::result::{CallError, Piece};
use crate::tsm::sys;

/// The server's number of an archived object. Not for keeping: moving a node to another server
/// changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId(pub u64);

/// Where an object lies on the media. A `top` other than zero names a serial device; do not
/// retrieve from one in two sessions at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RestoreOrder {
    /// Device.
    pub top: u32,
    /// Place, most significant part first.
    pub place: [u32; 4],
}

/// What else, beyond the name, an object must match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryFilter<'a> {
    /// Description, with `*` and `?` as wildcards.
    pub description: &'a str,
}

impl Default for QueryFilter<'_> {
    fn default() -> Self {
        Self { description: "*" }
    }
}

/// An object in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchivedObject {
    /// Name.
    pub name: ObjectName,
    /// Number.
    pub id: ObjectId,
    /// When it was archived: year, month, day, hour, minute, second, local time of the server.
    /// Objects of the same name are told apart by this, then by the number.
    pub archived: [u16; 6],
    /// Description.
    pub description: Vec<u8>,
    /// Object information.
    pub info: Vec<u8>,
    /// Length as announced by who archived it, bytes; 1 for an empty object.
    pub size: u64,
    /// Where it lies.
    pub restore_order: RestoreOrder,
}

/// A list in progress, as an iterator; ended when dropped.
#[derive(Debug)]
pub struct Query<'s> {
    session: &'s mut Session,
    answer: Answer,
    /// The library may look at the question until the list has ended.
    _question: Box<Question>,
    over: bool,
}

/// The response structure of the library's level.
enum Answer {
    V6(Box<sys::qryRespArchiveData6>),
    V7(Box<sys::qryRespArchiveData>),
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V6(_) => "V6",
            Self::V7(_) => "V7",
        })
    }
}

struct Question {
    raw: sys::qryArchiveData,
    name: sys::dsmObjName,
    owner: [u8; 1],
    description: [u8; sys::DESCR_BYTES_MAX + 1],
}

impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Question")
    }
}

// SAFETY: its pointers point into itself, which sits in one box all its life.
unsafe impl Send for Question {}

impl Question {
    fn new(pattern: &NamePattern, filter: &QueryFilter<'_>) -> Result<Box<Self>, Error> {
        let mut question = Box::new(Self {
            raw: sys::qryArchiveData::zeroed(),
            name: pattern.to_raw(),
            owner: [0],
            description: [0; sys::DESCR_BYTES_MAX + 1],
        });
        let description = filter.description.as_bytes();
        check_length("description", description.len(), sys::DESCR_BYTES_MAX)?;
        if !put_c_string(&mut question.description, description) {
            return Err(Error::Invalid { what: "description" });
        }
        let end = sys::dsmDate {
            year: sys::DATE_PLUS_INFINITE,
            month: 12,
            day: 31,
            hour: 23,
            minute: 59,
            second: 59,
        };
        let Self { raw, name, owner, description } = &mut *question;
        raw.stVersion = 1;
        raw.objName = name;
        raw.owner = owner.as_mut_ptr().cast::<c_char>();
        raw.descr = description.as_mut_ptr().cast::<c_char>();
        raw.insDateUpperBound = end;
        raw.expDateUpperBound = end;
        Ok(question)
    }
}

/// Both response structures have these fields; only `objInfo` differs in place and size.
macro_rules! object_from {
    ($raw:expr) => {{
        let raw = $raw;
        let info = &raw.objInfo[..raw.objInfo.len().min(usize::from(raw.objInfolen))];
        let order = raw.restoreOrderExt;
        let at = raw.insDate;
        ArchivedObject {
            name: ObjectName::from_answer(&raw.objName),
            id: ObjectId(raw.objId.value()),
            archived: [
                at.year,
                at.month.into(),
                at.day.into(),
                at.hour.into(),
                at.minute.into(),
                at.second.into(),
            ],
            description: c_string(&raw.descr).to_vec(),
            info: info.to_vec(),
            size: raw.sizeEstimate.value(),
            restore_order: RestoreOrder {
                top: order.top,
                place: [order.hi_hi, order.hi_lo, order.lo_hi, order.lo_lo],
            },
        }
    }};
}
impl<'s> Query<'s> {
    pub(super) fn begin(
        session: &'s mut Session,
        pattern: &NamePattern,
        filter: &QueryFilter<'_>,
    ) -> Result<Self, Error> {
        let mut question = Question::new(pattern, filter)?;
        let calls = session.calls();
        // SAFETY: the session is alive and borrowed by this query alone; the question lives as
        // long as the query.
        let begun = unsafe { calls.begin_query(session.handle, &mut question.raw) };
        let over = match begun {
            Ok(()) => false,
            Err(error) if nothing_there(&error) => true,
            Err(error) => return Err(session.note(error)),
        };
        let answer = match calls.level().archive_response {
            6 => Answer::V6(Box::new(sys::qryRespArchiveData6::zeroed())),
            _ => Answer::V7(Box::new(sys::qryRespArchiveData::zeroed())),
        };
        Ok(Self { session, answer, _question: question, over })
    }

    fn fetch(&mut self) -> Result<Piece, CallError> {
        let (calls, handle) = (self.session.calls(), self.session.handle);
        let version = calls.level().archive_response;
        match &mut self.answer {
            Answer::V6(answer) => {
                answer.stVersion = version;
                // SAFETY: the session is alive and borrowed by this query alone; the structure is
                // the response to it in this version.
                unsafe { calls.next_answer(handle, &mut **answer) }
            }
            Answer::V7(answer) => {
                answer.stVersion = version;
                // SAFETY: as above.
                unsafe { calls.next_answer(handle, &mut **answer) }
            }
        }
    }

    fn object(&self) -> ArchivedObject {
        match &self.answer {
            Answer::V6(raw) => object_from!(raw),
            Answer::V7(raw) => object_from!(raw),
        }
    }

    fn close(&mut self) -> Result<(), Error> {
        if std::mem::replace(&mut self.over, true) || !self.session.is_usable() {
            return Ok(());
        }
        // SAFETY: the session is alive and borrowed by this query alone.
        let ended = unsafe { self.session.calls().end_query(self.session.handle) };
        ended.map_err(|error| {
            self.session.lose();
            Error::Call(error)
        })
    }
}

/// No object matches, or not even the filespace is there.
fn nothing_there(error: &CallError) -> bool {
    error.code == ReturnCode::NO_MATCH || error.code == ReturnCode::FILESPACE_NOT_FOUND
}

impl Iterator for Query<'_> {
    type Item = Result<ArchivedObject, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.over && self.session.is_usable() {
            match self.fetch() {
                // The last answer may come with the end or before it.
                Ok(Piece { bytes, last }) => {
                    let object = (bytes > 0).then(|| self.object());
                    if last && let Err(error) = self.close() {
                        return Some(Err(error));
                    }
                    if let Some(object) = object {
                        return Some(Ok(object));
                    }
                }
                Err(error) if error.code == ReturnCode::UNKNOWN_FORMAT => {}
                Err(error) if nothing_there(&error) => {
                    return self.close().err().map(Err);
                }
                Err(error) => {
                    let error = self.session.note(error);
                    // A second failure at the end says no more than the first.
                    let _ = self.close();
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

impl Drop for Query<'_> {
    fn drop(&mut self) {
        // A failure is taken down in the session, which is all that is left to do.
        let _ = self.close();
    }
}
