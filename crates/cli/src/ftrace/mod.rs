//! `--ftrace FILE`: reclaim's events in the text that Linux's ftrace prints, so that its readers read ours.
//!
//! A trace covers an arm from the build of its cache to its close, the warm-up included; its last lines are the engine's
//! counters of that time, and a trace without losses that does not add up to them is an error.
//!
//! - In the lab an event is written at once: there is one thread, and time stands still meanwhile.
//! - On threads an event goes through a bounded buffer to a thread that writes. When the buffer is full, the event is lost,
//!   counted, and the trace says so where it happened; nobody waits for the trace.

mod line;
mod out;
mod paths;
mod sums;

pub use out::Trace;
pub use paths::{of_scenario, paths};
