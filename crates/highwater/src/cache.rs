//! A cache: one budget, its files, its end.
//!
//! **Invariants.** CACHE-1: in a child process made by fork nothing of the parent's cache is used or freed: its threads
//! are not there, and its arena is not mapped. CACHE-2: once `close` has returned, a file's lock lives as long as its
//! handles (and the [`Volume`]s) that users have, and no longer: the engine drops what it keeps of a file (MAP-5), the
//! world's threads have been joined, and [`Opens`] holds nothing but weak references.
#![allow(unsafe_code)]

use crate::builder::CacheBuilder;
use crate::device::IoEngine;
use crate::file::File;
use crate::open::OpenOptions;
use crate::opens::Opens;
use crate::volume::{MountOptions, Volume, VolumeFailure};
use crate::world::OsWorld;
use highwater_engine::sync::{AtomicBool, Ordering};
use highwater_engine::{BlockOptions, Config, Engine, Error, FileOptions, Stats};
use parking_lot::Mutex;
use std::mem::ManuallyDrop;
use std::path::Path;
use std::sync::Arc;

/// Frames in a row that [`Cache::alloc_block`] lends. Derefs to their bytes; freed on drop.
pub type Block = highwater_engine::Block<OsWorld>;

/// A page cache with one memory budget for all its files.
///
/// Share it between threads by reference or in an `Arc`. Dropping it closes it and waits, at most a few seconds, for
/// what is in flight; an error then goes to the log only, so call [`Cache::close`].
///
/// ```
/// use highwater::{Cache, OpenOptions};
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("data");
///
/// let cache = Cache::builder().memory(16 << 20).build()?;
/// let file = cache.open(&path, OpenOptions::new().write(true).create(true))?;
/// file.write_at(b"hello", 1_000_000)?;
/// file.sync_data()?;
/// assert_eq!(file.len(), 1_000_005);
/// drop(file);
/// cache.close()?;
/// # Ok::<(), highwater::Error>(())
/// ```
pub struct Cache {
    engine: ManuallyDrop<Arc<Engine<OsWorld>>>,
    opens: Opens,
    closed: AtomicBool,
    /// Held by the one that closes.
    closing: Mutex<()>,
}

impl Cache {
    /// Starts building a cache.
    ///
    /// ```
    /// let cache = highwater::Cache::builder().memory(16 << 20).build()?;
    /// # cache.close()?;
    /// # Ok::<(), highwater::Error>(())
    /// ```
    pub fn builder() -> CacheBuilder {
        CacheBuilder::new()
    }

    pub(crate) fn new(engine: Arc<Engine<OsWorld>>) -> Cache {
        Cache {
            opens: Opens::new(engine.config().io_timeout),
            engine: ManuallyDrop::new(engine),
            closed: AtomicBool::new(false),
            closing: Mutex::new(()),
        }
    }

    /// Opens a file or a block device. Opens of the same file in one cache share its pages; other caches, in this
    /// process or another, are kept out by `flock` (readers share). Waits for the file system, for another open of the same
    /// file that is under way, and, 10 s at most, for the last requests of a process that was killed: none of them comes
    /// after what is written here.
    ///
    /// ```
    /// # use highwater::{Cache, OpenOptions};
    /// # let cache = Cache::builder().memory(16 << 20).build()?;
    /// let error = cache.open("/", OpenOptions::new().read(true)).err().unwrap();
    /// assert!(error.to_string().contains("is a directory"));
    /// # cache.close()?;
    /// # Ok::<(), highwater::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Config` for options that make no sense and for directories; `Conflict` when another cache has the file;
    /// `Os` when the operating system refuses it; `TimedOut` behind another open of it; `Closed`, `Forked`.
    pub fn open(&self, path: impl AsRef<Path>, options: OpenOptions) -> Result<File, Error> {
        let world = self.world();
        if world.forked() {
            return Err(Error::Forked);
        }
        // Acquire: pairs with the Release in `close`.
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        let opened = self.opens.open(world, path.as_ref(), &options)?;
        // A later open may write: the device is upgraded then, and each `File` knows whether it may.
        let file_options = FileOptions { write: true };
        let inner = self.engine.open(opened.id, opened.backing, file_options)?;
        let file = File::new(inner, world.fork_mark(), opened.direct, options.is_write());
        if options.is_truncate() {
            // Through the engine, which may have pages of it.
            file.set_len(0)?;
        }
        Ok(file)
    }

    /// A block of 2^order frames in a row, aligned to its size: scratch memory of the budget, for what must lie in one
    /// piece (a large buffer, a huge page). The cache gives up or moves pages for it, as far as `options` allow, and has
    /// so much less for files while the block lives. Its bytes are anything at first; dropping it frees it.
    ///
    /// ```
    /// # use highwater::{BlockOptions, Cache};
    /// # let cache = Cache::builder().memory(16 << 20).build()?;
    /// let mut block = cache.alloc_block(4, BlockOptions::patient())?;
    /// block.fill(7);
    /// assert_eq!(block.len(), 16 * 4096);
    /// drop(block);
    /// # cache.close()?;
    /// # Ok::<(), highwater::Error>(())
    /// ```
    ///
    /// # Errors
    /// `NoBlock` when the allowed effort made none: it says what is free, and in what pieces; `Config` for an order above
    /// 2 MiB; `Closed`, `Forked`; for order 0 `OutOfMemory` and `AllPinned`. Waits as `options` say.
    pub fn alloc_block(&self, order: u32, options: BlockOptions) -> Result<Block, Error> {
        self.engine.alloc_block(order, options)
    }

    /// Opens the file in the volume at `path` (see [`crate::volume`]), which a power failure leaves as it was at some moment
    /// since the last sync. What it needs in memory comes out of the budget. Opens of the same volume share it; `create`,
    /// `create_new` and `truncate` are for plain files.
    ///
    /// ```
    /// use highwater::volume::{self, MountOptions, VolumeOptions};
    /// # use highwater::{Cache, OpenOptions};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("disk");
    ///
    /// volume::create(&path, &VolumeOptions::new(64 << 20))?;
    /// let cache = Cache::builder().memory(16 << 20).build()?;
    /// let options = OpenOptions::new().write(true);
    /// let (file, volume) = cache.open_volume(&path, options, MountOptions::default())?;
    /// file.write_at(b"hello", 1_000_000)?;
    /// file.sync_data()?;
    /// assert_eq!(volume.info().reserved, 0);
    /// # drop((file, volume));
    /// # cache.close()?;
    /// # Ok::<(), highwater::volume::VolumeFailure>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Cache::open`], and those of the volume: damaged, too new, of another block size than the cache's frames.
    pub fn open_volume(
        &self,
        path: impl AsRef<Path>,
        options: OpenOptions,
        mount: MountOptions,
    ) -> Result<(File, Arc<Volume>), VolumeFailure> {
        let (world, path) = (self.world(), path.as_ref());
        if world.forked() {
            return Err(Error::Forked.into());
        }
        // Acquire: pairs with the Release in `close`.
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed.into());
        }
        let options = options.of_volume();
        options.check_volume(path)?;
        let mount = MountOptions {
            refuse_reclaim: mount.refuse_reclaim || options.refuses_reclaim_writes(),
            ..mount
        };
        let opened = self.opens.open_volume(world, path, &options, |device| {
            Volume::mount(device, self.engine.page_source(), mount).map_err(VolumeFailure::Volume)
        })?;
        let volume = opened.backing;
        let file_options = FileOptions { write: true };
        let inner = (self.engine).open(opened.id, volume.clone(), file_options)?;
        let file = File::new(inner, world.fork_mark(), opened.direct, options.is_write());
        Ok((file, volume))
    }

    /// Moves pages until as many blocks of 2^order frames are free as can be without giving up a page; how many pages it
    /// moved. Pages in use stay where they are. For a moment when nobody is in a hurry: it takes time in proportion to
    /// memory, and waits for nobody.
    ///
    /// ```
    /// # let cache = highwater::Cache::builder().memory(16 << 20).build()?;
    /// assert_eq!(cache.compact_memory(4), 0, "an empty cache is in one piece");
    /// # cache.close()?;
    /// # Ok::<(), highwater::Error>(())
    /// ```
    pub fn compact_memory(&self, order: u32) -> u64 {
        self.engine.compact_memory(order)
    }

    /// Counters and gauges, under the names of `/proc/vmstat`. Waits for nothing.
    ///
    /// ```
    /// # let cache = highwater::Cache::builder().memory(16 << 20).build()?;
    /// let stats = cache.stats();
    /// println!("{} of {} frames are dirty", stats.get("nr_dirty"), stats.frames);
    /// # cache.close()?;
    /// # Ok::<(), highwater::Error>(())
    /// ```
    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    /// How it was built.
    ///
    /// ```
    /// # let cache = highwater::Cache::builder().memory(16 << 20).build()?;
    /// assert_eq!(cache.config().memory, 16 << 20);
    /// # cache.close()?;
    /// # Ok::<(), highwater::Error>(())
    /// ```
    pub fn config(&self) -> &Config {
        self.engine.config()
    }

    /// What reads and writes go through: [`IoEngine::Uring`] or [`IoEngine::Threads`], never `Auto`.
    ///
    /// ```
    /// # use highwater::{Cache, IoEngine};
    /// # let cache = Cache::builder().memory(16 << 20).build()?;
    /// assert_ne!(cache.io_engine(), IoEngine::Auto);
    /// # cache.close()?;
    /// # Ok::<(), highwater::Error>(())
    /// ```
    pub fn io_engine(&self) -> IoEngine {
        self.world().io_engine()
    }

    /// The engine below, for tools that study it.
    ///
    /// ```
    /// # let cache = highwater::Cache::builder().memory(16 << 20).build()?;
    /// assert_eq!(cache.engine().config().frame_size, 4096);
    /// # cache.close()?;
    /// # Ok::<(), highwater::Error>(())
    /// ```
    pub fn engine(&self) -> &Arc<Engine<OsWorld>> {
        &self.engine
    }

    /// Writes everything back, makes it durable, and ends the cache's threads. Files opened from it fail with `Closed`
    /// afterwards. The lock of a file (see [`Cache::open`]) has been given back when this has returned and every `File` of
    /// it (of a volume, the `Volume`, too) is dropped, in whichever order: another cache may open it then, although this
    /// one is not dropped yet. A second call does nothing; one beside the first waits for its end.
    ///
    /// ```
    /// # let cache = highwater::Cache::builder().memory(16 << 20).build()?;
    /// cache.close()?;
    /// cache.close()?;
    /// # Ok::<(), highwater::Error>(())
    /// ```
    ///
    /// # Errors
    /// `StillPinned` with live guards or blocks; the first write or flush error, also one that nobody has seen yet (that of
    /// another file the next call returns). The cache stays usable then, with its pages: repair and close again, or drop it.
    /// `Forked`.
    pub fn close(&self) -> Result<(), Error> {
        if self.world().forked() {
            return Err(Error::Forked);
        }
        // Each wait of the one that has it has a deadline.
        let closing = self.closing.lock();
        // Acquire: pairs with the Release in `end`.
        if self.closed.load(Ordering::Acquire) {
            return Ok(());
        }
        self.engine.close()?;
        self.end();
        drop(closing);
        Ok(())
    }

    fn end(&self) {
        // Release: who sees it sees the engine closed.
        self.closed.store(true, Ordering::Release);
        self.world().shutdown();
    }

    fn world(&self) -> &OsWorld {
        self.engine.world()
    }
}

impl Drop for Cache {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        if self.world().forked() {
            // CACHE-1: left as it is.
            return;
        }
        if let Err(error) = self.close() {
            tracing::error!("a cache was dropped, and closing it failed: {error}");
            // Guards keep it from closing, not from writing back.
            if let Error::StillPinned(_) = error
                && let Err(error) = self.engine.sync_all()
            {
                tracing::error!("and so did writing it back: {error}");
            }
            self.engine.abandon();
            self.end();
        }
        // SAFETY: dropped once, here, and not used after.
        unsafe { ManuallyDrop::drop(&mut self.engine) };
    }
}
