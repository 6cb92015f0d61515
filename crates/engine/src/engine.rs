//! The engine of one cache: what every room shares, and how it starts and ends.
//!
//! **State.** Each room guards its own; here are only the counts of dirty and writeback pages (atomics, for policy), the
//! table of mappings (`Rank::Mappings`), the devices and tasks (`Rank::Flusher`), and the life cycle.
//! **Kernel.** mm_init, kswapd_run, bdi_register.

use crate::backing::Backing;
use crate::compact::Compaction;
use crate::error::Error;
use crate::frame::{Carver, Frame, FrameTable, Memory};
use crate::io::IoSink;
use crate::lru::Lru;
use crate::lru::workingset::{NonresidentAge, Shadows};
use crate::mapping::{Index, Mapping, MappingTable};
use crate::policy::Config;
use crate::reclaim::{CLUSTER, Kswapd, Unreclaimable};
use crate::sync::{AtomicBool, AtomicU64, Lock, Ordering, Rank};
use crate::trace::{Event, Stats, VmStat};
use crate::wait::WaitTable;
use crate::world::{Nanos, TaskId, World};
use crate::writeback::{BackingDev, Scope, ratelimit::Thresholds};
use crate::zone::Zone;
use crate::zone::buddy::Buddy;
use crate::zone::watermark::Watermarks;
use std::sync::{Arc, Weak};

/// Bytes of the top order: a huge page.
const TOP_ORDER_BYTES: usize = 2 << 20;
/// How often `close` looks, a millisecond apart, before it takes a hold for a user's guard.
const CLOSE_LOOKS: usize = 50;
/// A cache has at least so many frames; fewer in loom's models.
const FRAMES_MIN: usize = if cfg!(loom) { 2 } else { 64 };
/// And at most so many: frame numbers have 32 bits, and some are set aside.
const FRAMES_MAX: u64 = u32::MAX as u64 / 2;
/// Tables whose size does not depend on the frame count.
const FIXED_BYTES: usize = 64 << 10;

/// One cache: a budget, its pages, and the tasks that keep them.
pub struct Engine<W: World> {
    pub(crate) world: Arc<W>,
    config: Config,
    /// Tells caches apart in a task's record.
    pub(crate) id: u32,
    pub(crate) page_shift: u32,
    pub(crate) memory: Memory<W::Arena>,
    pub(crate) frames: FrameTable,
    pub(crate) index: Index,
    pub(crate) zone: Zone,
    pub(crate) lru: Lru,
    pub(crate) shadows: Shadows,
    pub(crate) age: NonresidentAge,
    pub(crate) waits: WaitTable,
    pub(crate) stat: VmStat,
    pub(crate) kswapd: Kswapd,
    pub(crate) unreclaimable: Unreclaimable,
    pub(crate) thresholds: Thresholds,
    pub(crate) dirty_pages: AtomicU64,
    pub(crate) writeback_pages: AtomicU64,
    pub(crate) loading_requests: AtomicU64,
    pub(crate) lent_pages: AtomicU64,
    /// Frames in blocks that users hold.
    pub(crate) block_frames: AtomicU64,
    pub(crate) compaction: Compaction,
    pub(crate) mappings: Lock<MappingTable>,
    pub(crate) devices: Lock<Arc<Vec<Arc<BackingDev>>>>,
    tasks: Lock<Vec<TaskId>>,
    stop: AtomicBool,
    closed: AtomicBool,
    me: Weak<Engine<W>>,
}

/// Bytes of the tables that lie in the arena behind `frames` frames.
fn tables_of(frames: usize) -> usize {
    Carver::bytes_for::<Frame>(frames) + Index::bytes_for(frames) + Shadows::bytes_for(frames)
}

/// How many frames a budget gives, metadata paid.
fn frames_of(memory: u64, frame_size: usize) -> usize {
    let cost = |n: usize| {
        n * frame_size + tables_of(n) + Buddy::bytes_for(n, top_order(frame_size)) + FIXED_BYTES
    };
    // More frames than there may be need not be priced, and their price would not fit.
    let most = (memory / frame_size as u64).min(FRAMES_MAX + 1);
    let (mut low, mut high) = (0, most as usize);
    while low < high {
        let mid = high - (high - low) / 2;
        if cost(mid) as u64 <= memory {
            low = mid;
        } else {
            high = mid - 1;
        }
    }
    low
}

fn top_order(frame_size: usize) -> u32 {
    (TOP_ORDER_BYTES / frame_size).ilog2()
}

fn check_config(c: &Config) -> Result<usize, Error> {
    let bad = |text: String| Err(Error::Config(text));
    if !c.frame_size.is_power_of_two() || !(4096..=65536).contains(&c.frame_size) {
        return bad(format!(
            "frame_size {} is not a power of two from 4096 to 65536",
            c.frame_size
        ));
    }
    let p = &c.policy;
    if p.background_percent >= p.limit_percent || p.limit_percent > 90 {
        return bad(format!(
            "dirty limits {} % and {} %: the background share must be below the limit, and the limit at most 90 %",
            p.background_percent, p.limit_percent
        ));
    }
    if !(1..=CLUSTER).contains(&c.reclaim_cluster) {
        return bad(format!(
            "reclaim_cluster {} is not from 1 to {CLUSTER}",
            c.reclaim_cluster
        ));
    }
    if c.min_free.is_some_and(|bytes| bytes > c.memory / 16) {
        return bad(format!(
            "min_free {} is more than a sixteenth of the budget of {} bytes",
            c.min_free.unwrap_or(0),
            c.memory
        ));
    }
    let frames = frames_of(c.memory, c.frame_size);
    if frames < FRAMES_MIN {
        let mut least = (FRAMES_MIN * c.frame_size) as u64;
        while frames_of(least, c.frame_size) < FRAMES_MIN {
            least += 16 << 10;
        }
        return bad(format!(
            "a budget of {} bytes holds {frames} frames of {} bytes with their descriptors; the smallest budget is {least} bytes",
            c.memory, c.frame_size
        ));
    }
    if frames as u64 > FRAMES_MAX {
        return bad(format!(
            "a budget of {} bytes has too many frames of {} bytes; choose larger frames",
            c.memory, c.frame_size
        ));
    }
    Ok(frames)
}

impl<W: World> Engine<W> {
    /// Builds the engine and starts kswapd.
    ///
    /// # Errors
    /// `Config` for settings that make no sense; `Os` when memory or a task is refused.
    pub fn new(world: Arc<W>, config: Config) -> Result<Arc<Engine<W>>, Error> {
        let frames = check_config(&config)?;
        #[cfg(feature = "plant")]
        let frames = match config.plant {
            Some(crate::plant::Plant::OverBudget) => config.memory as usize / config.frame_size,
            _ => frames,
        };
        let data = frames * config.frame_size;
        let arena = Arc::new(world.arena(data, tables_of(frames))?);
        let mut carver = Carver::new(arena.clone(), data);
        let top = top_order(config.frame_size);
        let watermarks = Watermarks::new(config.memory, config.frame_size, config.min_free);
        let share = |percent: u8| frames as u64 * u64::from(percent) / 100;
        let seed = world.random();
        let engine = Arc::new_cyclic(|me| Engine {
            id: (world.random() as u32).max(1),
            page_shift: config.frame_size.ilog2(),
            memory: Memory::new(arena, config.frame_size, frames),
            frames: FrameTable::new(&mut carver, frames),
            index: Index::new(&mut carver, frames, seed),
            zone: Zone::new(frames, top, watermarks, world.cpus()),
            lru: Lru::new(&config.order, frames),
            shadows: Shadows::new(&mut carver, frames),
            age: NonresidentAge::new(),
            waits: WaitTable::new(),
            stat: VmStat::new(),
            kswapd: Kswapd::new(),
            unreclaimable: Unreclaimable::default(),
            thresholds: Thresholds {
                background: share(config.policy.background_percent),
                limit: share(config.policy.limit_percent).max(1),
            },
            dirty_pages: AtomicU64::new(0),
            writeback_pages: AtomicU64::new(0),
            loading_requests: AtomicU64::new(0),
            lent_pages: AtomicU64::new(0),
            block_frames: AtomicU64::new(0),
            compaction: Compaction::new(),
            mappings: Lock::new(Rank::Mappings, MappingTable::default()),
            devices: Lock::new(Rank::Flusher, Arc::default()),
            tasks: Lock::new(Rank::Flusher, Vec::new()),
            stop: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            me: me.clone(),
            world,
            config,
        });
        let for_kswapd = engine.clone();
        engine.spawn("kswapd0", move || for_kswapd.kswapd())?;
        Ok(engine)
    }

    fn spawn(&self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let id = self.world.spawn(name, Box::new(body))?;
        self.tasks.lock(&*self.world).push(id);
        Ok(())
    }

    /// The world.
    pub fn world(&self) -> &Arc<W> {
        &self.world
    }

    /// How it was built.
    pub fn config(&self) -> &Config {
        &self.config
    }

    #[cfg(feature = "plant")]
    pub(crate) fn plant(&self) -> Option<crate::plant::Plant> {
        self.config.plant
    }

    #[inline]
    pub(crate) fn count(&self, event: Event, n: u64) {
        self.stat.add(self.world.cpu(), event, n);
    }

    /// How many pages `len` bytes have.
    #[inline(always)]
    pub(crate) fn pages_of(&self, len: u64) -> u64 {
        // `len` may be u64::MAX, as the end of a range.
        match len.checked_sub(1) {
            Some(last) => (last >> self.page_shift) + 1,
            None => 0,
        }
    }

    pub(crate) fn sink(&self) -> Arc<dyn IoSink> {
        self.me.upgrade().expect("a task inside keeps the engine")
    }

    pub(crate) fn me(&self) -> Weak<Engine<W>> {
        self.me.clone()
    }

    pub(crate) fn stopping(&self) -> bool {
        // Acquire: what the closer did before is visible.
        self.stop.load(Ordering::Acquire)
    }

    #[inline(always)]
    pub(crate) fn is_unusable(&self) -> bool {
        // Relaxed: a courtesy to late callers; memory stays valid while a handle lives.
        self.closed.load(Ordering::Relaxed) || self.world.is_forked()
    }

    pub(crate) fn usable(&self) -> Result<(), Error> {
        if self.world.is_forked() {
            return Err(Error::Forked);
        }
        if self.is_unusable() {
            return Err(Error::Closed);
        }
        Ok(())
    }

    /// Dirty pages, all devices.
    pub(crate) fn nr_dirty(&self) -> u64 {
        // Relaxed: policy.
        self.dirty_pages.load(Ordering::Relaxed)
    }

    /// Pages and requests that a device has now.
    pub(crate) fn in_flight(&self) -> u64 {
        // Relaxed: policy.
        self.writeback_pages.load(Ordering::Relaxed) + self.loading_requests.load(Ordering::Relaxed)
    }

    /// Is any device's queue congested?
    pub(crate) fn congested(&self) -> bool {
        let devices = self.devices.lock(&*self.world).clone();
        devices.iter().any(|d| d.congested())
    }

    pub(crate) fn mapping(&self, id: u32) -> Option<Arc<Mapping>> {
        self.mappings.lock(&*self.world).get(id)
    }

    /// The record of a backing's device; starts its flusher if it is new.
    pub(crate) fn device(
        self: &Arc<Self>,
        backing: &Arc<dyn Backing>,
    ) -> Result<Arc<BackingDev>, Error> {
        let queue = backing.queue();
        let mut devices = self.devices.lock(&*self.world);
        if let Some(d) = devices.iter().find(|d| d.queue.id() == queue.id()) {
            return Ok(d.clone());
        }
        let dev = Arc::new(BackingDev::new(queue));
        let mut all: Vec<_> = devices.iter().cloned().collect();
        all.push(dev.clone());
        *devices = Arc::new(all);
        drop(devices);
        let (engine, flushed) = (self.clone(), dev.clone());
        let name = format!("flush-{}", dev.queue.name());
        if let Err(e) = self.spawn(&name, move || engine.flusher(&flushed)) {
            // A device without a flusher would never be written to.
            let mut devices = self.devices.lock(&*self.world);
            let others = devices.iter().filter(|d| !Arc::ptr_eq(d, &dev));
            *devices = Arc::new(others.cloned().collect());
            return Err(e);
        }
        Ok(dev)
    }

    /// A snapshot of counters and gauges; of hits, all of the calling task's and those that others have folded
    /// ([`Engine::count_own_hits`]). Does not block.
    pub fn stats(&self) -> Stats {
        self.count_own_hits();
        let world = &*self.world;
        let lru = self.lru.lengths();
        Stats {
            events: Event::ALL
                .iter()
                .map(|e| (e.name(), self.stat.get(*e)))
                .collect(),
            gauges: vec![
                (
                    "nr_free_pages",
                    self.zone.nr_free() + self.zone.nr_cached(world),
                ),
                ("nr_unpopulated", self.zone.nr_unpopulated()),
                ("nr_inactive_file", lru.inactive as u64),
                ("nr_active_file", lru.active as u64),
                ("nr_isolated_file", self.lru.isolated()),
                ("nr_dirty", self.nr_dirty()),
                (
                    "nr_writeback",
                    self.nr_unclean() - self.nr_dirty().min(self.nr_unclean()),
                ),
                ("nr_lent", self.nr_lent()),
                ("nr_dirty_threshold", self.thresholds.limit),
                ("nr_dirty_background_threshold", self.thresholds.background),
                ("nr_block_pages", self.nr_block_frames()),
                ("nr_waiters", self.zone.nr_waiters(world) as u64),
                ("watermark_min", self.zone.watermarks().min as u64),
                ("watermark_low", self.zone.watermarks().low as u64),
                ("watermark_high", self.zone.watermarks().high as u64),
            ],
            memory_bytes: self.config.memory,
            frame_size: self.config.frame_size,
            frames: self.frames.len() as u64,
        }
    }

    /// Writes everything back, flushes, and stops the engine's tasks. Afterwards every call fails with `Closed`.
    /// Of files without a handle the engine keeps nothing then, and the last handle of another one takes it along: their
    /// backings are dropped, and with them what these hold.
    ///
    /// # Errors
    /// `StillPinned` with live guards or blocks; the first write or flush error, also one that nobody has seen yet (that of
    /// another file the next call returns). The cache stays usable then, with its pages: repair and close again, or give them
    /// up with [`Engine::abandon`].
    pub fn close(&self) -> Result<(), Error> {
        self.usable()?;
        self.no_guards()?;
        // Release: calls that begin now are refused.
        self.closed.store(true, Ordering::Release);
        let quiet = self.end_changes();
        if let Err(e) = quiet.and_then(|()| self.sync_all_mappings()) {
            self.closed.store(false, Ordering::Release);
            return Err(e);
        }
        self.abandon();
        Ok(())
    }

    /// MAP-6: after this no call that was under way when the cache was closed changes a file: it has done so, or looks after it
    /// has got the invalidate lock. A file that is opened later is opened by a call that finds the cache closed.
    fn end_changes(&self) -> Result<(), Error> {
        for m in &self.all_mappings() {
            self.lock_invalidate(m)?;
            m.invalidate.unlock(&*self.world, &self.waits);
        }
        Ok(())
    }

    /// Whoever has taken the invalidate lock of a file asks before a change: one after `end_changes` would be lost (MAP-6).
    pub(crate) fn may_change(&self) -> Result<(), Error> {
        // Relaxed: ordered by the invalidate lock.
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::Closed);
        }
        Ok(())
    }

    /// Fails with live guards. The engine's own tasks hold pages for moments: a page that is held is looked at again.
    fn no_guards(&self) -> Result<(), Error> {
        let mut held = self.count_held();
        for _ in 1..CLOSE_LOOKS {
            // Once with none is enough: a flusher may hold the next page a moment later.
            if held == 0 {
                break;
            }
            self.world
                .park(self.world.now().plus(Nanos::from_millis(1)));
            held = self.count_held();
        }
        match u64::from(held) + self.nr_block_frames() {
            0 => Ok(()),
            held => Err(Error::StillPinned(held)),
        }
    }

    /// Makes every file durable, those without a handle included; the first error.
    ///
    /// # Errors
    /// As `File::sync_data`.
    pub fn sync_all(&self) -> Result<(), Error> {
        self.usable()?;
        self.sync_all_mappings()
    }

    fn all_mappings(&self) -> Vec<Arc<Mapping>> {
        let table = self.mappings.lock(&*self.world);
        table.iter().cloned().collect()
    }

    /// Syncs every mapping; the first error. Those of other files nobody hears of now: they stay for the next who syncs.
    fn sync_all_mappings(&self) -> Result<(), Error> {
        let mut result = Ok(());
        for m in &self.all_mappings() {
            let heard = result.is_ok();
            let synced = self.sync_mapping(m, &(0..u64::MAX), Scope::Data, heard);
            result = result.and(synced);
        }
        result
    }

    /// Stops the engine's tasks without writing anything back; waits at most 5 s for I/O in flight. What was not synced
    /// is lost. Calling it again does nothing.
    pub fn abandon(&self) {
        if self.world.is_forked() {
            return;
        }
        // AcqRel: one caller stops the tasks.
        self.closed.store(true, Ordering::Release);
        if self.stop.swap(true, Ordering::AcqRel) {
            return;
        }
        self.unpark_kswapd();
        let devices = self.devices.lock(&*self.world).clone();
        devices.iter().for_each(|d| self.unpark_flusher(d));
        let until = self.world.now().plus(Nanos::from_secs(6));
        let tasks = std::mem::take(&mut *self.tasks.lock(&*self.world));
        for task in tasks {
            // A task that was about to park has its token; one that had not started sees the flag.
            self.world.unpark(task);
            if !self.world.join(task, until) {
                tracing::error!(?task, "a task of the cache did not end in time");
            }
        }
        // Those whose last handle went while they were busy, too: their flusher was to let them go. A caller that is still
        // inside may hold one for a moment.
        while (self.in_flight() > 0 || !self.drop_unused_mappings()) && self.world.now() < until {
            self.world
                .park(self.world.now().plus(Nanos::from_millis(1)));
        }
    }

    /// Panics where an invariant does not hold. Call it while no other task is inside the engine.
    pub fn check_invariants(&self) {
        let world = &*self.world;
        self.lru.check_invariants(world, &self.frames);
        crate::invariants::check(self);
    }

    /// Checks what holds of the `count` frames from `first` on (around the end, to the beginning) whenever no engine lock
    /// is held, tasks inside or not: a sample of `check_invariants` for caches too large to be checked whole. In the lab, call
    /// it `uninterrupted`.
    ///
    /// # Panics
    /// When an invariant does not hold.
    pub fn check_frames(&self, first: u64, count: u64) {
        crate::invariants::check_some(self, first, count);
    }

    /// Nobody sleeps in the engine any more. For tests at the end of a cache.
    pub fn is_quiet(&self) -> bool {
        self.waits.is_empty()
    }
}
