//! The broker behind its trait, in memory and over a real Redis: what both promise, and what Redis' troubles do.

mod contract;
mod faults;
mod fixture;
mod function;
mod load;
