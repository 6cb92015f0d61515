//! Highwater's engine: page reclaim and writeback as a library.
//!
//! It makes no system call, reads no clock and starts no thread of its own: see [`world`]. Most programs want the crate
//! `highwater`, which runs this engine on threads, io_uring and real files.
#![deny(unsafe_code)]

/// Is this bug planted in this engine, or volume? Always `false` without the feature `plant`.
macro_rules! planted {
    ($engine:expr, $bug:ident) => {{
        #[cfg(feature = "plant")]
        let planted = $engine.plant() == Some(crate::plant::Plant::$bug);
        #[cfg(not(feature = "plant"))]
        let planted = false;
        planted
    }};
}

pub mod backing;
mod compact;
mod engine;
mod error;
mod file;
mod frame;
mod invariants;
pub mod io;
#[cfg(all(test, loom))]
mod loom;
mod lru;
mod mapping;
#[cfg(feature = "plant")]
pub mod plant;
pub mod policy;
mod reclaim;
pub mod stack;
pub mod sync;
pub mod trace;
mod wait;
pub mod world;
mod writeback;
mod zone;

pub use backing::Backing;
pub use engine::Engine;
pub use error::{Error, IoError, IoErrorKind, NoBlockReport, OomReport};
pub use file::{File, FileId, FileOptions, PageMut, PageNo, PageRef};
pub use frame::FrameNo;
pub use lru::list::{Links, List};
pub use lru::order::{
    Frames, Ghosts, Isolated, Lengths, Order, PageId, PageOrder, Reason, Refilled,
};
pub use policy::{Config, DirtyLimits, Policy, Preset};
pub use trace::{Event, Stats, TraceEvent, TraceRecord, Tracer};
pub use world::{Nanos, TaskId, World};
pub use zone::{Block, BlockOptions, BlockWait};
pub use zone::{LendContext, LentFrame, PageSource};
