//! The cluster's numbers: nothing counted twice, nothing lost, whatever dies; and the statistics as they are asked for.

mod broadcasts;
mod listing;
mod pressure;
mod protocol;
mod stats;
mod totals;
