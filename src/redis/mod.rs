//! The only room with Redis connections: settings, names, the command pool, the subscriber's connection, backoff.
//!
//! It knows how to reach Redis and how to give up on a connection, not what is asked of it: scripts belong to the rooms
//! that need them, and nothing here retries a command, because only its sender knows whether that is safe.

pub mod backoff;
pub mod checkup;
pub mod commands;
pub mod config;
pub mod exclusive;
pub mod keys;
mod link;
mod rights;
pub mod script;
mod sentinel;
pub mod subscriber;
pub mod timings;

pub use commands::{CommandError, Commands};
pub use config::{Config, ConfigError};
pub use exclusive::Exclusive;
pub use keys::Keys;
pub use script::{Call, Invoke, Script};
pub use subscriber::{Push, Subscriber};
pub use timings::Timings;
