//! Counters under vmstat's names.
pub mod vmstat;
pub use vmstat::{Event, Stats, VmStat};
