//! The limits hold over the cluster.

mod cluster;
mod cost;
mod exact;
mod exhaustive;
mod faults;
mod real_script;
mod redis_model;
mod replace;
mod world;
