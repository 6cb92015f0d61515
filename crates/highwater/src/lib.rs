//! **Highwater is a page cache you embed.** Give it one memory budget and your files: it keeps the hot pages, writes the
//! dirty ones back in large runs in the background, slows writers smoothly before memory runs out, and never makes the
//! thread that needs a page write somebody else's.
//!
//! ```
//! use highwater::{Cache, OpenOptions, PageNo};
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path().join("data");
//!
//! let cache = Cache::builder().memory(64 << 20).build()?;
//! let file = cache.open(&path, OpenOptions::new().write(true).create(true))?;
//! file.write_at(&[7; 10_000], 0)?;          // to memory
//! let page = file.page(PageNo(1))?;         // zero-copy
//! assert_eq!(page[0], 7);
//! drop(page);
//! file.sync_data()?;                        // durable
//! drop(file);
//! cache.close()?;
//! # Ok::<(), highwater::Error>(())
//! ```
//!
//! The engine (crate `highwater-engine`, here [`engine`]) makes no system call; this crate runs it on threads, io_uring
//! and `O_DIRECT` ([`OsWorld`]). Linux only.
#![deny(unsafe_code)]

mod builder;
mod cache;
mod cgroup;
mod device;
mod file;
mod memory;
mod open;
mod opens;
pub mod volume;
mod world;

pub use builder::CacheBuilder;
pub use cache::{Block, Cache};
pub use cgroup::{MemInfo, memory_limit};
pub use device::{DirectIo, FileDevice, IoEngine, Limiter, OsQueue, RateLimited};
pub use file::{File, PageMut, PageRef};
pub use highwater_engine as engine;
pub use highwater_engine::policy::{
    HighOrder, OnDirty, ReclaimWait, Throttle, WriteUnit, WritebackFrom,
};
pub use highwater_engine::{
    BlockOptions, BlockWait, Config, DirtyLimits, Error, Event, FileId, IoError, IoErrorKind,
    NoBlockReport, OomReport, Order, PageNo, PageOrder, Policy, Preset, Stats,
};
pub use memory::Memory;
pub use open::OpenOptions;
pub use world::{OsArena, OsWorld, ThreadStack, stack_window};
