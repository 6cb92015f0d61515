//! How a cache is built: the budget, the policy, and what I/O goes through.

use crate::cache::Cache;
use crate::device::IoEngine;
use crate::memory::{Bytes, Memory};
use crate::world::OsWorld;
use highwater_engine::{Config, DirtyLimits, Engine, Error, Order, Policy, Preset};

/// The fewest frames that a cache works with: batches of 32 on each list, watermarks and a reserve.
const FRAMES_MIN: u64 = 256;
/// The smallest budget whatever the frame size: two blocks of the top order.
const BYTES_MIN: u64 = 4 << 20;

/// Builds a [`Cache`]; made by [`Cache::builder`].
///
/// ```
/// use highwater::{Cache, DirtyLimits, Preset};
///
/// let cache = Cache::builder()
///     .memory(16 << 20)
///     .frame_size(16 << 10)
///     .preset(Preset::Highwater)
///     .dirty(DirtyLimits { background_percent: 10, limit_percent: 40 })
///     .build()?;
/// # cache.close()?;
/// # Ok::<(), highwater::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct CacheBuilder {
    memory: Memory,
    dirty: Option<DirtyLimits>,
    io_engine: IoEngine,
    stack_trace: bool,
    config: Config,
}

impl CacheBuilder {
    pub(crate) fn new() -> CacheBuilder {
        CacheBuilder {
            memory: Memory::Share(0.25),
            dirty: None,
            io_engine: IoEngine::Auto,
            stack_trace: false,
            config: Config::new(0),
        }
    }

    /// The budget: bytes, or a share of the container's limit. By default a quarter. Pages and the engine's own records
    /// come out of it.
    ///
    /// ```
    /// # use highwater::{Cache, Memory};
    /// let cache = Cache::builder().memory("16MiB".parse::<Memory>().unwrap()).build()?;
    /// # cache.close()?;
    /// # Ok::<(), highwater::Error>(())
    /// ```
    pub fn memory(mut self, memory: impl Into<Memory>) -> CacheBuilder {
        self.memory = memory.into();
        self
    }

    /// Bytes per frame: a power of two from 4 KiB (the default) to 64 KiB. All of a page is read and written at once.
    ///
    /// ```
    /// # use highwater::Cache;
    /// let error = Cache::builder().memory(16 << 20).frame_size(5000).build().err().unwrap();
    /// assert!(error.to_string().contains("power of two"));
    /// ```
    pub fn frame_size(mut self, bytes: usize) -> CacheBuilder {
        self.config.frame_size = bytes;
        self
    }

    /// Sets every policy knob as a named system had it. By default [`Preset::Highwater`].
    ///
    /// ```
    /// # use highwater::{Cache, Preset};
    /// let cache = Cache::builder().memory(16 << 20).preset(Preset::V3_2).build()?;
    /// # cache.close()?;
    /// # Ok::<(), highwater::Error>(())
    /// ```
    pub fn preset(self, preset: Preset) -> CacheBuilder {
        self.policy(preset.policy())
    }

    /// Sets every policy knob one by one.
    ///
    /// ```
    /// # use highwater::{Cache, Preset, Throttle};
    /// let mut policy = Preset::Highwater.policy();
    /// policy.throttle = Throttle::DirtierWrites;
    /// let cache = Cache::builder().memory(16 << 20).policy(policy).build()?;
    /// # cache.close()?;
    /// # Ok::<(), highwater::Error>(())
    /// ```
    pub fn policy(mut self, policy: Policy) -> CacheBuilder {
        self.config.policy = policy;
        self
    }

    /// Limits of dirty memory, in percent of the budget; they replace the preset's.
    ///
    /// ```
    /// # use highwater::{Cache, DirtyLimits};
    /// let limits = DirtyLimits { background_percent: 50, limit_percent: 40 };
    /// let error = Cache::builder().memory(16 << 20).dirty(limits).build().err().unwrap();
    /// assert!(error.to_string().contains("below"));
    /// ```
    pub fn dirty(mut self, limits: DirtyLimits) -> CacheBuilder {
        self.dirty = Some(limits);
        self
    }

    /// In which order pages are tried for reclaim. By default [`Order::TwoList`], Linux's active and inactive list; an
    /// order of one's own is [`Order::custom`].
    ///
    /// ```
    /// # use highwater::{Cache, Order};
    /// let cache = Cache::builder().memory(16 << 20).order(Order::S3Fifo).build()?;
    /// # cache.close()?;
    /// # Ok::<(), highwater::Error>(())
    /// ```
    pub fn order(mut self, order: Order) -> CacheBuilder {
        self.config.order = order;
        self
    }

    /// Pages that reclaim takes in one go, 1 to 32 (the default; SWAP_CLUSTER_MAX).
    ///
    /// ```
    /// # use highwater::Cache;
    /// let error = Cache::builder().memory(16 << 20).reclaim_cluster(0).build().err().unwrap();
    /// assert!(error.to_string().contains("from 1 to 32"));
    /// ```
    pub fn reclaim_cluster(mut self, pages: usize) -> CacheBuilder {
        self.config.reclaim_cluster = pages;
        self
    }

    /// Bytes kept free, at most a sixteenth of the budget (`vm.min_free_kbytes`); by default the kernel's formula. With 0
    /// a page goes exactly when its frame is needed, which is for comparing orders: writers then have no reserve.
    ///
    /// ```
    /// # use highwater::Cache;
    /// let error = Cache::builder().memory(16 << 20).min_free(2 << 20).build().err().unwrap();
    /// assert!(error.to_string().contains("sixteenth"));
    /// ```
    pub fn min_free(mut self, bytes: u64) -> CacheBuilder {
        self.config.min_free = Some(bytes);
        self
    }

    /// What reads and writes go through. By default io_uring where the kernel allows it.
    ///
    /// ```
    /// # use highwater::{Cache, IoEngine};
    /// let cache = Cache::builder().memory(16 << 20).io_engine(IoEngine::Threads).build()?;
    /// # cache.close()?;
    /// # Ok::<(), highwater::Error>(())
    /// ```
    pub fn io_engine(mut self, io_engine: IoEngine) -> CacheBuilder {
        self.io_engine = io_engine;
        self
    }

    /// Measures the stacks of the cache's threads: see [`OsWorld::tracing_stacks`] and [`OsWorld::stacks`].
    ///
    /// ```
    /// # use highwater::Cache;
    /// let cache = Cache::builder().memory(16 << 20).stack_trace(true).build()?;
    /// cache.close()?;
    /// for stack in cache.engine().world().stacks() {
    ///     println!("{}: {} bytes", stack.name, stack.deepest);
    /// }
    /// # Ok::<(), highwater::Error>(())
    /// ```
    pub fn stack_trace(mut self, on: bool) -> CacheBuilder {
        self.stack_trace = on;
        self
    }

    /// Changes what has no method of its own: time-outs, readahead, the flusher's intervals.
    ///
    /// ```
    /// # use highwater::{Cache, engine::world::Nanos};
    /// let cache = Cache::builder()
    ///     .memory(16 << 20)
    ///     .tune(|config| config.io_timeout = Nanos::from_secs(5))
    ///     .build()?;
    /// # cache.close()?;
    /// # Ok::<(), highwater::Error>(())
    /// ```
    pub fn tune(mut self, change: impl FnOnce(&mut Config)) -> CacheBuilder {
        change(&mut self.config);
        self
    }

    /// Maps the memory and starts the cache's threads.
    ///
    /// ```
    /// # use highwater::Cache;
    /// let error = Cache::builder().memory(4096).build().err().unwrap();
    /// assert!(error.to_string().contains("at least 4MiB"));
    /// ```
    ///
    /// # Errors
    /// `Config` for settings that make no sense; `Os` when memory, a thread or io_uring is refused.
    pub fn build(self) -> Result<Cache, Error> {
        let config = self.settle()?;
        let world = match self.stack_trace {
            true => OsWorld::tracing_stacks(self.io_engine)?,
            false => OsWorld::new(self.io_engine)?,
        };
        let engine = Engine::new(world, config)?;
        Ok(Cache::new(engine))
    }

    /// The engine's settings, checked.
    fn settle(&self) -> Result<Config, Error> {
        let mut config = self.config.clone();
        let frame = config.frame_size;
        if !frame.is_power_of_two() || !(4096..=65536).contains(&frame) {
            return Err(Error::Config(format!(
                "a frame size of {frame} bytes is not possible; choose a power of two from 4096 to 65536"
            )));
        }
        if let Some(limits) = self.dirty {
            config.policy.background_percent = limits.background_percent;
            config.policy.limit_percent = limits.limit_percent;
        }
        let (background, limit) = (
            config.policy.background_percent,
            config.policy.limit_percent,
        );
        if background >= limit || limit > 90 {
            return Err(Error::Config(format!(
                "dirty limits of {background}% and {limit}% are not possible; choose a background limit below the limit, and the limit up to 90%"
            )));
        }
        config.memory = self.memory.to_bytes()?;
        let least = BYTES_MIN.max(FRAMES_MIN * frame as u64);
        if config.memory < least {
            return Err(Error::Config(format!(
                "a memory budget of {} is too small; with frames of {} it takes at least {}",
                Bytes(config.memory),
                Bytes(frame as u64),
                Bytes(least)
            )));
        }
        Ok(config)
    }
}
