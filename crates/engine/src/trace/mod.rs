//! Counters under vmstat's names, and tracepoints under the kernel's.
pub mod events;
pub mod vmstat;
pub use events::{GFP_FLAGS, IsolateMode, TraceEvent, TraceRecord, Tracer};
pub use vmstat::{Event, Stats, VmStat};
