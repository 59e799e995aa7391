//! The wire vocabulary: pure values that parse, print and encode themselves.
//!
//! Deliberately without sockets, clocks, Redis or HTTP: everything here can be tested by its bytes.

pub mod channel;
pub mod close;
pub mod control;
pub mod durable;
pub mod durations;
pub mod envelope;
pub mod event;
pub mod latency;
pub mod peer;
pub mod position;
pub mod request;
pub mod secret;
pub mod session;
pub mod sse;
pub mod sse_decoder;
#[cfg(test)]
mod whatwg;
