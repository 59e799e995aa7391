//! May this connection come in.
//!
//! Deliberately without HTTP: it answers with values, and the http room knows their status codes.

mod capacity;

pub use capacity::{Capacity, Seat};
