//! What memory, writers and waits looked like over time: a task that reads gauges and counters at equal intervals.
//!
//! It always runs, so that a run is the same to the byte whether its samples are asked for or not. It takes 300 in the
//! measured time; where that has no set length (`--ops`) it starts at 1 ms and drops every other sample when there
//! are more than 400, doubling its interval. Counters are read as they stand and become differences at the end.
//!
//! **Context.** A task of the world that is measured; it takes no lock across a sleep and writes nothing.
//!
//! **Invariants.** SAMPLE-1: in each sample the states of memory sum to all frames. The gauges are read one after the
//! other, so a frame may have moved between two reads: a state gets at most what the states before it left.
//!
//! **Tests.** In each file, and `tests/html.rs` on whole runs.

mod columns;
mod ends;
mod reading;
mod sampler;

pub use columns::Samples;
#[cfg(test)]
pub use reading::COUNTS;
pub use reading::{Limits, Reading, STATES};
pub use sampler::{OpCount, Probe, Sampler};
