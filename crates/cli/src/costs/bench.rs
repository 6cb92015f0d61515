//! The engine at work for the cost table: one workload after the other, each with what it counted and what CPU it took.
//!
//! Files: one that stays in memory, and one that is four times as large as its cache, on a device that is metered.

use super::measure::failed;
use super::metered::Metered;
use crate::cpu::{FLUSHER, KSWAPD, of_this_thread, of_threads};
use crate::error::Result;
use crate::place;
use crate::rng::Rng;
use highwater::{
    BlockOptions, Cache, DirectIo, Error, Event, File, FileDevice, OpenOptions, OsWorld, PageNo,
};
use highwater_engine::backing::PlainBacking;
use highwater_engine::{FileId, FileOptions};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Budget of the cache in which pages are missed.
const MEMORY: u64 = 64 << 20;
/// Budget of the cache in which they are hit: large, so that its pages lie in memory and not in the CPU's caches.
const HOT_MEMORY: u64 = 256 << 20;
/// The file that fits into it, in pages; with all of them dirty the flusher still sleeps (25 % of the budget).
const HOT_PAGES: u64 = 15_000;
/// The file that does not.
pub(super) const COLD_PAGES: u64 = 65_536;
/// Bytes of one write of a stream.
const STREAM_IO: u64 = 64 << 10;
pub(super) const PAGE: u64 = 4_096;

/// What a workload counted, and the CPU it took in nanoseconds.
#[derive(Default)]
pub(super) struct Seen {
    events: BTreeMap<&'static str, u64>,
    /// Of the thread that asked.
    pub own: f64,
    /// Of kswapd.
    pub kswapd: f64,
    /// Of the flusher.
    pub flusher: f64,
    /// Of the flusher, while it waited for completions and ran them.
    pub reap: f64,
}

impl Seen {
    #[cfg(test)]
    pub fn set(&mut self, event: Event, n: u64) {
        self.events.insert(event.name(), n);
    }

    pub fn count(&self, event: Event) -> f64 {
        self.events.get(event.name()).copied().unwrap_or(0) as f64
    }

    /// Requests of the flusher, pieces of their memory, and pages.
    pub fn requests(&self) -> [f64; 3] {
        let events = [
            Event::WriteRequests,
            Event::WriteSegments,
            Event::WrittenFlusher,
        ];
        events.map(|e| self.count(e))
    }

    /// Pages that reclaim looked at: those of direct reclaim, and all.
    pub fn scanned(&self) -> [f64; 2] {
        let direct = self.count(Event::PgscanDirect);
        // Both kinds of reclaim look at the active list; a direct one about as often as at the inactive.
        let inactive = direct + self.count(Event::PgscanKswapd);
        let share = direct / inactive.max(1.0);
        let all = inactive + self.count(Event::Pgrefill);
        [all * share, all]
    }
}

/// Nanoseconds of each of `n` calls: their mean, and those of each one if there is a place for them.
pub(super) fn each(
    n: u64,
    single: Option<&mut Vec<u64>>,
    mut f: impl FnMut(u64) -> std::result::Result<(), Error>,
) -> Result<f64> {
    let begin = Instant::now();
    match single {
        None => {
            for i in 0..n {
                f(i).map_err(failed)?;
            }
        }
        Some(times) => {
            for i in 0..n {
                let begin = Instant::now();
                f(i).map_err(failed)?;
                times.push(begin.elapsed().as_nanos() as u64);
            }
        }
    }
    Ok(begin.elapsed().as_nanos() as f64 / n as f64)
}

/// A file that fits into its cache.
pub(super) struct Hot {
    cache: Cache,
    file: File,
    rng: Rng,
}

impl Hot {
    pub fn new(dir: &Path) -> Result<Hot> {
        let path = dir.join("hot.data");
        place::lay_out(&path, HOT_PAGES * PAGE, false)?;
        let cache = Cache::builder()
            .memory(HOT_MEMORY)
            .build()
            .map_err(failed)?;
        let options = OpenOptions::new().read(true).write(true);
        Ok(Hot {
            file: cache.open(&path, options).map_err(failed)?,
            cache,
            rng: Rng::new(1, 0),
        })
    }

    /// Brings the small file into memory.
    fn warm(&self) -> Result<()> {
        let mut buf = vec![0; PAGE as usize];
        each(HOT_PAGES, None, |i| {
            self.file.read_at(&mut buf, i * PAGE).map(drop)
        })
        .map(drop)
    }

    /// Nanoseconds of a look-up that hits; `single`: see [`each`].
    pub fn hit(&mut self, single: Option<&mut Vec<u64>>) -> Result<f64> {
        self.warm()?;
        let (hot, rng) = (&self.file, &mut self.rng);
        each(100_000, single, |_| {
            std::hint::black_box(&hot.page(PageNo(rng.below(HOT_PAGES)))?[0]);
            Ok(())
        })
    }

    /// Nanoseconds of a read of a page in memory, likewise.
    pub fn read(&mut self, single: Option<&mut Vec<u64>>) -> Result<f64> {
        self.warm()?;
        let (hot, rng) = (&self.file, &mut self.rng);
        let mut buf = vec![0; PAGE as usize];
        each(50_000, single, |_| {
            hot.read_at(&mut buf, rng.below(HOT_PAGES) * PAGE).map(drop)
        })
    }

    /// Nanoseconds of a write of a page in memory, likewise, each the first since the last sync or a later one; the throttle has
    /// no say.
    pub fn write(&mut self, single: Option<&mut Vec<u64>>) -> Result<f64> {
        self.warm()?;
        let (hot, rng) = (&self.file, &mut self.rng);
        let buf = vec![1; PAGE as usize];
        let ns = each(20_000, single, |_| {
            hot.write_at(&buf, rng.below(HOT_PAGES) * PAGE)
        })?;
        hot.sync_data().map_err(failed)?;
        Ok(ns)
    }

    pub fn close(self) -> Result<()> {
        self.cache.close().map_err(failed)
    }
}

/// A file that is larger than its cache, which is a new one: its frames lie in a row still.
pub(super) struct Cold {
    cache: Cache,
    file: highwater_engine::File<OsWorld>,
    disk: Arc<Metered>,
    rng: Rng,
}

impl Cold {
    /// Lays out the file.
    pub fn lay_out(path: &Path) -> Result<()> {
        place::lay_out(path, COLD_PAGES * PAGE, false)
    }

    pub fn new(path: &Path, round: u64) -> Result<Cold> {
        // The flusher's requests as large as they get, also soon after reads: what a piece of memory costs is seen in those.
        let cache = Cache::builder()
            .memory(MEMORY)
            .tune(|c| c.policy.wbt = false)
            .build()
            .map_err(failed)?;
        let engine = cache.engine();
        let disk = Arc::new(Metered::new(file_device(engine.world(), path)?));
        let backing = Arc::new(PlainBacking::new(disk.clone()));
        let id = FileId { dev: 0, ino: 1 };
        let file = engine.open(id, backing, FileOptions { write: true });
        Ok(Cold {
            file: file.map_err(failed)?,
            cache,
            disk,
            rng: Rng::new(1, round),
        })
    }

    fn events(&self) -> BTreeMap<&'static str, u64> {
        self.cache.stats().events.into_iter().collect()
    }

    /// Does `work`.
    fn see(&mut self, work: impl FnOnce(&mut Cold) -> Result<()>) -> Result<Seen> {
        let before = (self.events(), self.disk.spent());
        let cpus = || [KSWAPD, FLUSHER].map(|name| of_threads(name) as f64);
        let (own, [kswapd, flusher]) = (of_this_thread(), cpus());
        work(self)?;
        let own = (of_this_thread() - own) as f64;
        let now = cpus();
        let mut events = self.events();
        for (name, n) in &mut events {
            *n -= before.0.get(name).copied().unwrap_or(0);
        }
        Ok(Seen {
            events,
            own,
            kswapd: now[0] - kswapd,
            flusher: now[1] - flusher,
            reap: (self.disk.spent() - before.1) as f64,
        })
    }

    /// Random reads of clean pages that are not in memory.
    pub fn misses(&mut self, n: u64) -> Result<Seen> {
        self.see(|b| {
            let (cold, rng) = (&b.file, &mut b.rng);
            let mut buf = vec![0; PAGE as usize];
            each(n, None, |_| {
                cold.read_at(&mut buf, rng.below(COLD_PAGES) * PAGE)
                    .map(drop)
            })
            .map(drop)
        })
    }

    /// A block of 2 MiB out of a cache full of single pages.
    pub fn block(&mut self) -> Result<Seen> {
        self.see(|b| match b.cache.alloc_block(9, BlockOptions::thp()) {
            Ok(_) | Err(Error::NoBlock { .. }) => Ok(()),
            Err(e) => Err(failed(e)),
        })
    }

    /// Writes in order of pages that are not in memory, in large requests.
    pub fn stream(&mut self) -> Result<Seen> {
        let seen = self.see(|b| {
            let cold = &b.file;
            let buf = vec![1; STREAM_IO as usize];
            let writes = COLD_PAGES * PAGE / STREAM_IO;
            each(writes, None, |i| cold.write_at(&buf, i * STREAM_IO)).map(drop)
        })?;
        self.file.sync_data().map_err(failed)?;
        Ok(seen)
    }

    /// Random writes of pages, most of them not in memory, in small requests.
    pub fn writes(&mut self) -> Result<Seen> {
        let seen = self.see(|b| {
            let (cold, rng) = (&b.file, &mut b.rng);
            let buf = vec![1; PAGE as usize];
            each(32_000, None, |_| {
                cold.write_at(&buf, rng.below(COLD_PAGES) * PAGE)
            })
            .map(drop)
        })?;
        self.file.sync_data().map_err(failed)?;
        Ok(seen)
    }

    pub fn close(self) -> Result<()> {
        self.cache.close().map_err(failed)
    }
}

/// The file `path` as a device of `world`, for reads and writes.
pub(super) fn file_device(world: &Arc<OsWorld>, path: &Path) -> Result<FileDevice> {
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|e| crate::error::CliError::os(path.display(), e, "another --dir"))?;
    FileDevice::new(world, path, file.into(), true, DirectIo::Auto).map_err(failed)
}
