//! The world of the models, a disk whose requests a model completes by hand, and a small cache on both.
#![allow(unsafe_code)]

use crate::backing::{Backing, WriteContext};
use crate::engine::Engine;
use crate::frame::state::{EXCL, UPTODATE};
use crate::io::{IoBuf, IoOp, Lane, Request};
use crate::mapping::{Key, Mapping};
use crate::world::{Arena, Nanos, Queue, QueueId, Task, TaskBody, TaskId, World};
use crate::writeback::wbt::Room;
use crate::{Config, Error, File, FileId, FileOptions, IoError, IoErrorKind};
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use std::cell::{Cell, UnsafeCell};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Bytes of a frame.
pub(super) const SIZE: usize = 4096;
const TASKS: usize = 4;

loom::thread_local! {
    static ME: Cell<usize> = Cell::new(0);
}

/// Tasks are loom threads: the model's first is task 0, the others come from [`spawn`].
pub(super) struct LoomWorld {
    tasks: [Task; TASKS],
    /// Where each task is parked. A std lock: never held across a switch.
    threads: Mutex<[Option<thread::Thread>; TASKS]>,
    /// The time, where a model moves it; else it stands still.
    clock: Option<AtomicU64>,
}

impl LoomWorld {
    pub(super) fn new(moving_clock: bool) -> Arc<LoomWorld> {
        let world = LoomWorld {
            tasks: std::array::from_fn(|i| Task::new(TaskId(i as u32))),
            threads: Mutex::new([const { None }; TASKS]),
            clock: moving_clock.then(|| AtomicU64::new(1)),
        };
        world.be(0);
        Arc::new(world)
    }

    /// The calling thread is task `i` from now on.
    fn be(&self, i: usize) {
        ME.with(|me| me.set(i));
        self.threads.lock().expect("no panic inside")[i] = Some(thread::current());
    }

    /// Moves the clock beyond every deadline; `sleeper`'s timer fires.
    pub(super) fn time_out(&self, sleeper: usize) {
        let clock = self.clock.as_ref().expect("a moving clock");
        clock.store(Nanos::from_secs(1000).0, Ordering::SeqCst);
        self.unpark(TaskId(sleeper as u32));
    }
}

/// Starts task `i` of a model.
pub(super) fn spawn(
    world: &Arc<LoomWorld>,
    i: usize,
    body: impl FnOnce() + 'static,
) -> thread::JoinHandle<()> {
    let world = world.clone();
    thread::spawn(move || {
        world.be(i);
        body();
    })
}

pub(super) struct Bytes(UnsafeCell<Box<[u8]>>);
// SAFETY: FRAME-1: `Memory` guards every access; loom runs one thread at a time anyway.
unsafe impl Sync for Bytes {}

impl Arena for Bytes {
    fn base(&self) -> *mut u8 {
        // SAFETY: only the address is taken.
        unsafe { (*self.0.get()).as_mut_ptr() }
    }
    fn len(&self) -> usize {
        // SAFETY: the length never changes.
        unsafe { (&(*self.0.get())).len() }
    }
    fn populate(&self, _offset: usize, _len: usize) {}
}

impl World for LoomWorld {
    type Arena = Bytes;

    fn now(&self) -> Nanos {
        match &self.clock {
            // A read-modify-write sees the newest value: time has no stale ones.
            Some(clock) => Nanos(clock.fetch_add(0, Ordering::SeqCst)),
            None => Nanos(1),
        }
    }
    fn spawn(&self, _name: &str, _body: TaskBody) -> Result<TaskId, Error> {
        // kswapd and the flusher do not run: a model calls what they would.
        Ok(TaskId(TASKS as u32 - 1))
    }
    fn join(&self, _id: TaskId, _until: Nanos) -> bool {
        true
    }
    fn park(&self, _until: Nanos) {
        // A deadline fires by `time_out` only; one that never does makes a lost wake-up a deadlock, which loom reports.
        thread::park();
    }
    fn unpark(&self, task: TaskId) {
        let thread = self.threads.lock().expect("no panic inside")[task.0 as usize].clone();
        if let Some(thread) = thread {
            thread.unpark();
        }
    }
    fn relax(&self) {
        thread::yield_now();
    }
    fn task(&self) -> &Task {
        &self.tasks[ME.with(Cell::get)]
    }
    fn arena(&self, data: usize, tables: usize) -> Result<Bytes, Error> {
        Ok(Bytes(UnsafeCell::new(
            vec![0; data + tables].into_boxed_slice(),
        )))
    }
    fn random(&self) -> u64 {
        7
    }
    fn cpu(&self) -> usize {
        0
    }
    fn cpus(&self) -> usize {
        1
    }
}

/// A disk of bytes, one for each page. What it holds is under loom's locks, so that loom tries both orders of a write and
/// a flush; the requests are under a std lock, never held across a switch.
#[derive(Default)]
pub(super) struct Disk {
    /// Writes that the model has not completed.
    pub pending: Mutex<Vec<Request>>,
    /// What was written, and what a flush has made durable.
    pub written: loom::sync::Mutex<BTreeMap<u64, u8>>,
    pub durable: loom::sync::Mutex<BTreeMap<u64, u8>>,
    /// Reads fail.
    pub bad_reads: bool,
    /// Flushes fail.
    pub bad_flushes: bool,
    /// Writes of a sync complete at once.
    pub sync_at_once: bool,
    /// It counts the space that is set aside for dirty pages (RESERVE-1).
    pub reserves: bool,
    pub reserved: Mutex<u64>,
}

struct NoQueue;

impl Queue for NoQueue {
    fn id(&self) -> QueueId {
        QueueId(1)
    }
    fn name(&self) -> String {
        "loom".into()
    }
    fn reap(&self, _lane: Lane, _until: Nanos) -> usize {
        0
    }
}

impl Disk {
    /// Takes the writes that are in flight.
    pub(super) fn take(&self) -> Vec<Request> {
        std::mem::take(&mut self.pending.lock().expect("no panic inside"))
    }

    /// A write takes what was set aside for its pages; one that fails gives it back.
    fn note_reserved(&self, pages: usize, back: bool) {
        if self.reserves {
            let mut reserved = self.reserved.lock().expect("no panic inside");
            *reserved = match back {
                true => *reserved + pages as u64,
                false => (*reserved).checked_sub(pages as u64).expect("RESERVE-1"),
            };
        }
    }

    /// Ends a write: its bytes reach the disk.
    pub(super) fn complete(&self, rig: &Rig, request: Request, result: Result<(), IoError>) {
        assert_eq!(request.op, IoOp::Write);
        for (i, frame) in request.frames.iter().enumerate() {
            // SAFETY: FRAME-1: under WRITEBACK.
            let byte = unsafe { rig.engine.memory.bytes(*frame) }[0];
            if result.is_ok() {
                let page = request.offset / SIZE as u64 + i as u64;
                let mut written = self.written.lock().expect("no panic inside");
                written.insert(page, byte);
            }
        }
        if result.is_err() {
            self.note_reserved(request.frames.len(), true);
        }
        request.complete(result);
    }

    pub(super) fn on_disk(&self, page: u64) -> Option<u8> {
        self.written
            .lock()
            .expect("no panic inside")
            .get(&page)
            .copied()
    }
}

/// The backing that a model's file stands on.
pub(super) struct DiskFile(pub Arc<Disk>);

impl Backing for DiskFile {
    fn queue(&self) -> Arc<dyn Queue> {
        Arc::new(NoQueue)
    }
    fn read_pages(&self, _lane: Lane, batch: &mut Vec<Request>) {
        batch.clear();
    }
    fn read_now(&self, offset: u64, bufs: &[IoBuf]) -> Result<(), IoError> {
        if self.0.bad_reads {
            return Err(IoError::new(IoErrorKind::Io, offset));
        }
        let byte = self.0.on_disk(offset / SIZE as u64).unwrap_or(0);
        for buf in bufs {
            // SAFETY: IO-1: the frame is LOADING for this call.
            unsafe { buf.ptr.write_bytes(byte, buf.len) };
        }
        Ok(())
    }
    fn write_pages(&self, context: WriteContext, batch: &mut Vec<Request>) {
        for r in batch.iter() {
            self.0.note_reserved(r.frames.len(), false);
        }
        if context == WriteContext::Sync && self.0.sync_at_once {
            for r in batch.drain(..) {
                // SAFETY: IO-1: the request owns the right to read its buffers.
                let byte = unsafe { *r.bufs[0].ptr };
                let page = r.offset / SIZE as u64;
                self.0
                    .written
                    .lock()
                    .expect("no panic inside")
                    .insert(page, byte);
                r.complete(Ok(()));
            }
            return;
        }
        self.0
            .pending
            .lock()
            .expect("no panic inside")
            .append(batch);
    }
    fn flush(&self) -> Result<(), IoError> {
        if self.0.bad_flushes {
            return Err(IoError::new(IoErrorKind::Io, 0));
        }
        let written = self.0.written.lock().expect("no panic inside").clone();
        *self.0.durable.lock().expect("no panic inside") = written;
        Ok(())
    }
    fn len(&self) -> Result<u64, IoError> {
        Ok(2 * SIZE as u64)
    }
    fn truncate(&self, _len: u64) -> Result<(), IoError> {
        Ok(())
    }
    fn extents(&self, offset: u64, len: u64) -> Result<Vec<(u64, u64)>, IoError> {
        Ok(vec![(offset, len)])
    }
    fn discard(&self, _offset: u64, _len: u64) -> Result<(), IoError> {
        Ok(())
    }
    fn reserves(&self) -> bool {
        self.0.reserves
    }
    fn reserve(&self, _page: u64) -> Result<(), IoError> {
        self.0.note_reserved(1, true);
        Ok(())
    }
    fn release(&self, _page: u64) {
        self.0.note_reserved(1, false);
    }
    fn redirtied(&self, _page: u64) {
        self.0.note_reserved(1, true);
    }
    fn reserved(&self) -> Option<u64> {
        Some(*self.0.reserved.lock().expect("no panic inside"))
    }
}

/// A cache of a few frames with one open file of two pages.
pub(super) struct Rig {
    pub world: Arc<LoomWorld>,
    pub engine: Arc<Engine<LoomWorld>>,
    pub disk: Arc<Disk>,
    /// Dropped before `file`, whose end waits until nobody has it (MAP-5).
    pub m: Arc<Mapping>,
    pub file: File<LoomWorld>,
}

impl Rig {
    pub(super) fn new(disk: Disk) -> Arc<Rig> {
        Rig::with_clock(disk, false)
    }

    pub(super) fn with_clock(disk: Disk, moving_clock: bool) -> Arc<Rig> {
        let world = LoomWorld::new(moving_clock);
        let mut config = Config::new(24 * SIZE as u64);
        config.frame_size = SIZE;
        config.readahead_max = 0;
        let engine = Engine::new(world.clone(), config).expect("a cache");
        while engine.populate_step() {}
        let disk = Arc::new(disk);
        let id = FileId { dev: 1, ino: 1 };
        let backing = Arc::new(DiskFile(disk.clone()));
        let file = engine
            .open(id, backing, FileOptions { write: true })
            .expect("a file");
        let m = engine.mapping(1).expect("the first mapping");
        Arc::new(Rig {
            world,
            engine,
            disk,
            file,
            m,
        })
    }

    pub(super) fn key(&self, page: u64) -> Key {
        Key {
            mapping: self.m.id,
            page,
        }
    }

    /// A clean page in memory with all bytes `value`.
    pub(super) fn resident(&self, page: u64, value: u8) -> u32 {
        let frame = self.engine.alloc_page().expect("a frame");
        self.fill(frame, value);
        assert!(self.engine.install(frame, self.key(page), EXCL));
        self.engine.lru_enter(frame, self.key(page));
        self.engine.release(frame, EXCL, UPTODATE);
        frame
    }

    /// A dirty page in memory.
    pub(super) fn dirty(&self, page: u64, value: u8) -> u32 {
        let frame = self.resident(page, 0);
        self.write(page, value);
        frame
    }

    /// Writes a byte as `page_mut` does.
    pub(super) fn write(&self, page: u64, value: u8) {
        let mut guard = self.file.page_mut(crate::PageNo(page)).expect("a page");
        // Told to loom, which does not see the guard's own pointer.
        let frame = self.engine.find_frame(self.m.id, page).expect("latched");
        self.fill(frame, value);
        guard[0] = value;
    }

    /// The first byte of a page that a guard reads, if it is in memory and free to read.
    pub(super) fn try_read(&self, page: u64) -> Option<u8> {
        let frame = self.pin(page)?;
        let byte = self.byte(frame);
        self.engine.put_shared(frame);
        Some(byte)
    }

    /// Pins a page, if that needs no wait.
    pub(super) fn pin(&self, page: u64) -> Option<u32> {
        let pinned = self.engine.find_shared::<false>(self.m.id, page, None)?;
        Some(pinned.number)
    }

    /// The first byte of a frame that the caller may read.
    pub(super) fn byte(&self, frame: u32) -> u8 {
        // SAFETY: FRAME-1 by the caller.
        let bytes = unsafe { self.engine.memory.bytes(frame) };
        bytes[0]
    }

    /// Writes a frame that the caller owns or has latched.
    pub(super) fn fill(&self, frame: u32, value: u8) {
        // SAFETY: FRAME-1 by the caller.
        let bytes = unsafe { self.engine.memory.bytes_mut(frame) };
        bytes[0] = value;
    }

    /// Submits the dirty pages as the flusher does; takes the requests.
    pub(super) fn submit(&self) -> Vec<Request> {
        let mut batch = Vec::new();
        self.engine.collect_dirty(&self.m, &mut batch, 16, |_| true);
        self.engine
            .write_batch(&self.m, &batch, WriteContext::Flusher, Room::UNLIMITED);
        self.disk.take()
    }

    /// The state word of a frame.
    pub(super) fn state(&self, frame: u32) -> u64 {
        self.engine.frames.get(frame).state.load()
    }

    /// Frames that nobody has: buddy and caches.
    pub(super) fn free(&self) -> u64 {
        self.engine.zone.nr_free() + self.engine.zone.nr_cached(&*self.world)
    }

    /// Every invariant of the engine, at the end of a model.
    pub(super) fn check(&self) {
        self.engine.check_invariants();
        assert!(self.engine.is_quiet(), "somebody still sleeps");
    }
}
