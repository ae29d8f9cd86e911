//! The FSQ wire protocol, version 1: packets of both layouts in the field and the state machines
//! of a session. Bytes in, decisions out: no I/O, no clock, no allocation on the server's side.
//!
//! A peer sends one packet of [`PACKET_BYTES`] per request and gets one back; only a DATA request
//! is followed by bytes outside a packet. [`Packet`] and [`PacketMut`] read and write one in
//! place.
#![forbid(unsafe_code)]

pub mod client;
pub mod layout;
pub mod packet;
pub mod server;
pub mod state;

pub use client::ClientSession;
pub use layout::{Field, Layout};
pub use packet::{
    DEFAULT_PORT, FieldError, Info, Login, NotUtf8, PACKET_BYTES, Packet, PacketMut, Unterminated,
    VERSION,
};
pub use server::{Next, Phase, Request, ServerSession, Violation};
pub use state::{Op, State, StorageDest, UnknownStorageDest};
