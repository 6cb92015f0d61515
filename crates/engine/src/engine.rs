//! The engine of one cache: what every room shares, and how it starts and ends.

use crate::backing::Backing;
use crate::error::Error;
use crate::file::{File, FileId, FileOptions};
use crate::policy::Config;
use crate::trace::Stats;
use crate::world::World;
use std::sync::Arc;

/// One cache: a budget, its pages, and the tasks that keep them.
pub struct Engine<W: World> {
    world: Arc<W>,
    config: Config,
}

impl<W: World> Engine<W> {
    /// Builds the engine and starts kswapd.
    ///
    /// # Errors
    /// `Config` for settings that make no sense; `Os` when memory or a task is refused.
    pub fn new(world: Arc<W>, config: Config) -> Result<Arc<Engine<W>>, Error> {
        Ok(Arc::new(Engine { world, config }))
    }

    /// The world.
    pub fn world(&self) -> &Arc<W> {
        &self.world
    }

    /// How it was built.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Opens the file `id` that stands behind `backing`. A second open of the same id shares the first one's pages
    /// (and keeps its backing, unless the second is writable and the first is not).
    ///
    /// # Errors
    /// `Conflict` for options that exclude each other; `Io` when the length cannot be read.
    pub fn open(
        self: &Arc<Self>,
        id: FileId,
        backing: Arc<dyn Backing>,
        options: FileOptions,
    ) -> Result<File<W>, Error> {
        let _ = (id, backing, options);
        todo!()
    }

    /// A snapshot of counters and gauges.
    pub fn stats(&self) -> Stats {
        todo!()
    }

    /// Writes everything back, flushes, and stops the engine's tasks.
    ///
    /// # Errors
    /// `StillPinned` with live guards (the cache stays usable); the first write or flush error that nobody saw.
    pub fn close(&self) -> Result<(), Error> {
        todo!()
    }

    /// Panics where an invariant does not hold. Call it while no other task is inside the engine.
    pub fn check_invariants(&self) {
        todo!()
    }
}
