//! Devices of the OS world: files and block devices over io_uring or a pool of threads, past the page cache where
//! possible, and a wrapper that limits their rate.
//!
//! Decides how a request's bytes reach the kernel. It knows nothing of pages; whole requests come in, and each is
//! completed once, whatever the kernel does with its pieces.
//!
//! **Context.** `submit` may be called by any thread and does not sleep; completions run on the flusher (its lane over
//! io_uring), on the queue's reaper (the shared lane) or on a thread of the pool.
//!
//! **Lock order.** None of the locks here is held while another one is taken, or while a request completes.
//!
//! **Kernel.** blk-mq, io_uring, direct-io.
//!
//! **Tests.** `tests/device.rs`, and beside each file.

mod file;
mod flight;
mod flusher;
mod holder;
mod limit;
mod lock;
mod pool;
mod queue;
mod ring;
mod shared;
mod sys;
mod target;

pub use file::FileDevice;
pub(crate) use file::{Slot, describe};
pub use limit::{Limiter, RateLimited};
pub(crate) use lock::FileLock;
pub use queue::OsQueue;
pub use target::DirectIo;

use highwater_engine::Error;

/// What reads and writes go through.
///
/// ```
/// use highwater::{Cache, IoEngine};
/// let cache = Cache::builder().memory(16 << 20).io_engine(IoEngine::Threads).build()?;
/// assert_eq!(cache.io_engine(), IoEngine::Threads);
/// # cache.close()?;
/// # Ok::<(), highwater::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum IoEngine {
    /// io_uring where the kernel allows it (most container run-times forbid it), threads elsewhere.
    #[default]
    Auto,
    /// io_uring, or building the cache fails.
    Uring,
    /// A pool of threads that call preadv and pwritev.
    Threads,
}

/// What `wanted` comes to on this kernel.
pub(crate) fn choose(wanted: IoEngine) -> Result<IoEngine, Error> {
    if wanted == IoEngine::Threads {
        return Ok(IoEngine::Threads);
    }
    match ring::Ring::shared() {
        Ok(_) => Ok(IoEngine::Uring),
        Err(e) if wanted == IoEngine::Uring => Err(Error::os(
            "set up io_uring; use IoEngine::Auto or Threads",
            &e,
        )),
        Err(e) => {
            tracing::info!("io_uring is not available ({e}): reads and writes go through threads");
            Ok(IoEngine::Threads)
        }
    }
}
