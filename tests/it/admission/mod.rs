//! The limits hold over the cluster.

mod cluster;
mod exact;
mod exhaustive;
mod faults;
mod redis_model;
mod replace;
mod world;
