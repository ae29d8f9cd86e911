//! The FSQ client: sends files to an fsqd server over TCP.
//!
//! [`Client`] is one session with a server: connect, then for every file open, write, close. It
//! hides round trips behind a window of unanswered DATA, and what it promises is
//! [`Client::close`]: `Ok` means that the server has acknowledged every byte of the file.
//!
//! ```no_run
//! use fsq::{Client, Options, StorageDest};
//!
//! # fn main() -> Result<(), fsq::Error> {
//! let options = Options::new("server", "polaris", "password").with_environment()?;
//! let mut client = Client::connect(&options)?;
//! client.open("/lustre", "/lustre/run42/part0", "", StorageDest::Lustre)?;
//! client.write(b"data")?;
//! client.close()?;
//! client.disconnect();
//! # Ok(())
//! # }
//! ```

mod client;
mod connect;
mod error;
mod link;
mod options;

pub use client::Client;
pub use error::Error;
pub use fsq_wire::client::{Barred, Breach, Refused, Window};
pub use fsq_wire::{DEFAULT_PORT, Field, FieldError, Layout, Op, StorageDest};
pub use options::{Options, Secret};
