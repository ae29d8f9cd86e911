//! TSM: sign-on, archive, query, retrieve, delete.
//!
//! The layers [`sys`], [`result`], [`safe`], and what they share: names, object information and
//! return codes. Invariant: only [`safe`] is needed by callers, and it is re-exported here.

pub mod info;
pub mod name;
pub mod rc;
pub mod result;
pub mod safe;
pub mod sys;

pub use info::{InfoError, OBJECT_INFO_BYTES, ObjectInfo};
pub use name::{Kind, NameError, NamePattern, ObjectName};
pub use rc::{Class, ReturnCode};
pub use result::{CallError, Version};
pub use safe::{
    ArchivedObject, CommitError, Credentials, Error, Limits, Login, NewObject, ObjectId, Query,
    QueryFilter, RestoreOrder, Retrieval, RetrievedObject, SendObject, Session, Start, StartError,
    Transaction, Tsm,
};
