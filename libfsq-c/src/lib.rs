//! The FSQ client.
