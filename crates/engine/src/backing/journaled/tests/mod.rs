//! A disk of bytes that can fail and lose power, a source of heap frames, and a cache of no pages at all, to drive a volume by.

mod attack;
mod crash;
mod damage;
mod faults;
mod format;
mod io;

use super::{FormatOptions, FsckReport, MountOptions, Volume, VolumeError, fsck};
use crate::backing::{Backing, WriteContext};
use crate::error::{Error, IoError, IoErrorKind};
use crate::io::{IoBuf, IoOp, IoSink, Lane, Request};
use crate::world::{Device, Nanos, Queue, QueueId, Task, TaskId};
use crate::zone::{LendContext, LentFrame, PageSource, heap};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) const BLOCK: usize = 4096;
const SECTOR: usize = 512;

/// Frames from the heap, as many as there are left; a clock that moves when somebody sleeps.
pub(super) struct Heap {
    task: Task,
    clock: AtomicU64,
    pub left: AtomicU64,
    /// Requests that it runs when somebody sleeps.
    disk: Mutex<Option<Arc<Disk>>>,
    /// What another task does when somebody sleeps, once.
    pub meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Heap {
    pub(super) fn new() -> Arc<Heap> {
        Arc::new(Heap {
            task: Task::new(TaskId(0)),
            clock: AtomicU64::new(1),
            left: AtomicU64::new(1 << 20),
            disk: Mutex::new(None),
            meanwhile: Mutex::new(None),
        })
    }
}

impl PageSource for Heap {
    fn frame_size(&self) -> usize {
        BLOCK
    }
    fn frames(&self) -> u64 {
        1 << 20
    }
    fn alloc(&self, _context: LendContext) -> Result<LentFrame, Error> {
        self.task.assert_no_locks();
        if self.left.load(Ordering::Relaxed) == 0 {
            return Err(Error::Closed);
        }
        self.left.fetch_sub(1, Ordering::Relaxed);
        Ok(heap::frame(BLOCK))
    }
    fn now(&self) -> Nanos {
        Nanos(self.clock.load(Ordering::Relaxed))
    }
    fn task(&self) -> &Task {
        &self.task
    }
    fn park(&self, until: Nanos) {
        self.task.assert_no_locks();
        let meanwhile = self.meanwhile.lock().take();
        if let Some(act) = meanwhile {
            return act();
        }
        let disk = self.disk.lock().clone();
        if disk.is_none_or(|d| d.run() == 0) {
            self.clock.store(until.0, Ordering::Relaxed);
        }
    }
    fn unpark(&self, _task: TaskId) {
        self.task.assert_no_locks();
    }
}

/// A queue with the limits of a disk.
struct Line;

impl Queue for Line {
    fn id(&self) -> QueueId {
        QueueId(1)
    }
    fn name(&self) -> String {
        "test".into()
    }
    fn reap(&self, _lane: Lane, _until: Nanos) -> usize {
        0
    }
}

#[derive(Default)]
struct Bytes {
    /// What reads see.
    now: Vec<u8>,
    /// What a power failure leaves for sure.
    durable: Vec<u8>,
    /// Written since the last flush.
    fresh: Vec<(u64, Vec<u8>)>,
    waiting: Vec<Request>,
    /// The writes and flushes so far.
    ops: u64,
    /// Those that fail.
    failing: Vec<u64>,
    /// From this one on nothing is carried out: the power is off.
    cut: Option<u64>,
    /// Where writes fail.
    bad: Vec<std::ops::Range<u64>>,
    /// Requests from this byte on wait for so many runs more.
    held: (u64, u64),
}

/// A disk.
pub(super) struct Disk {
    bytes: Mutex<Bytes>,
    /// Requests wait until somebody sleeps, or `run`.
    deferred: bool,
}

impl Disk {
    pub(super) fn new(bytes: Vec<u8>, deferred: bool) -> Arc<Disk> {
        Arc::new(Disk {
            bytes: Mutex::new(Bytes {
                durable: bytes.clone(),
                now: bytes,
                ..Bytes::default()
            }),
            deferred,
        })
    }

    /// A formatted one.
    pub(super) fn formatted(blocks: usize, log: usize, pages: usize) -> Arc<Disk> {
        let disk = Disk::new(vec![0xA5; blocks * BLOCK], false);
        Volume::format(&*disk, &options(log, pages)).unwrap();
        disk
    }

    pub(super) fn image(&self) -> Vec<u8> {
        self.bytes.lock().now.clone()
    }

    pub(super) fn ops(&self) -> u64 {
        self.bytes.lock().ops
    }

    /// The write or flush number `op` fails.
    pub(super) fn fail_op(&self, op: u64) {
        self.bytes.lock().failing.push(op);
    }

    /// The power fails when the write or flush number `op` from now on has begun.
    pub(super) fn cut_at(&self, op: u64) {
        let mut b = self.bytes.lock();
        b.cut = Some(b.ops + op);
    }

    pub(super) fn fail_writes(&self, range: std::ops::Range<u64>) {
        self.bytes.lock().bad.push(range);
    }

    pub(super) fn heal(&self) {
        let mut b = self.bytes.lock();
        b.failing.clear();
        b.bad.clear();
    }

    /// What is waiting at byte `from` or beyond waits for `runs` runs more.
    pub(super) fn hold(&self, from: u64, runs: u64) {
        self.bytes.lock().held = (from, runs);
    }

    /// Runs what waits; how many requests.
    pub(super) fn run(&self) -> usize {
        let waiting = {
            let mut b = self.bytes.lock();
            let (from, runs) = b.held;
            b.held.1 = runs.saturating_sub(1);
            let (held, waiting) = std::mem::take(&mut b.waiting)
                .into_iter()
                .partition(|r| runs > 0 && r.offset >= from);
            b.waiting = held;
            waiting
        };
        let waiting: Vec<Request> = waiting;
        let n = waiting.len();
        for request in waiting {
            self.perform(request);
        }
        n
    }

    /// What a power failure now leaves: the durable bytes, and those sectors of fresh writes for which `keep` says so.
    pub(super) fn crash(&self, mut keep: impl FnMut() -> bool) -> Vec<u8> {
        let b = self.bytes.lock();
        let mut image = b.durable.clone();
        let waiting = b.waiting.iter().filter(|r| r.op == IoOp::Write);
        let waiting = waiting.map(|r| (r.offset, r.write_bytes().collect::<Vec<_>>().concat()));
        for (at, bytes) in b.fresh.iter().cloned().chain(waiting) {
            for (i, sector) in bytes.chunks(SECTOR).enumerate() {
                if keep() {
                    let at = at as usize + i * SECTOR;
                    image[at..at + sector.len()].copy_from_slice(sector);
                }
            }
        }
        image
    }

    fn perform(&self, mut request: Request) {
        let result = match request.op {
            IoOp::Read => {
                let b = self.bytes.lock();
                let mut at = request.offset as usize;
                for bytes in request.read_bytes() {
                    bytes.copy_from_slice(&b.now[at..at + bytes.len()]);
                    at += bytes.len();
                }
                Ok(())
            }
            IoOp::Write => {
                let bytes = request.write_bytes().collect::<Vec<_>>().concat();
                self.write(request.offset, &bytes)
            }
        };
        request.complete(result);
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<(), IoError> {
        let mut b = self.bytes.lock();
        let end = at + bytes.len() as u64;
        let bad = b.bad.iter().any(|r| r.start < end && at < r.end);
        b.ops += 1;
        match b.cut {
            Some(cut) if b.ops > cut => return Err(IoError::new(IoErrorKind::Io, at)),
            _ => {}
        }
        let ok = !b.failing.contains(&b.ops) && !bad;
        // A write that fails has written half of it.
        let n = if ok { bytes.len() } else { bytes.len() / 2 };
        b.now[at as usize..][..n].copy_from_slice(&bytes[..n]);
        b.fresh.push((at, bytes[..n].to_vec()));
        ok.then_some(()).ok_or(IoError::new(IoErrorKind::Io, at))
    }
}

impl Device for Disk {
    fn queue(&self) -> Arc<dyn Queue> {
        Arc::new(Line)
    }
    fn submit(&self, _lane: Lane, batch: &mut Vec<Request>) {
        if self.deferred {
            self.bytes.lock().waiting.append(batch);
        } else {
            batch.drain(..).for_each(|r| self.perform(r));
        }
    }
    fn read_now(&self, offset: u64, bufs: &[IoBuf]) -> Result<(), IoError> {
        let mut request = Request::new(IoOp::Read, offset, Arc::new(Results::default()));
        request.bufs = bufs.to_vec();
        self.perform(request);
        Ok(())
    }
    fn write_now(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        self.write(offset, buf)
    }
    fn flush(&self) -> Result<(), IoError> {
        let mut guard = self.bytes.lock();
        let b = &mut *guard;
        b.ops += 1;
        if b.cut.is_some_and(|cut| b.ops >= cut) {
            return Err(IoError::new(IoErrorKind::Io, 0));
        }
        let fresh = std::mem::take(&mut b.fresh);
        if b.failing.contains(&b.ops) {
            // What was acknowledged is lost, every second sector of it.
            for (at, bytes) in fresh {
                for (i, _) in bytes.chunks(SECTOR).enumerate().filter(|(i, _)| i % 2 == 0) {
                    let from = at as usize + i * SECTOR;
                    let to = (from + SECTOR).min(at as usize + bytes.len());
                    let old = b.durable[from..to].to_vec();
                    b.now[from..to].copy_from_slice(&old);
                }
            }
            b.durable = b.now.clone();
            return Err(IoError::new(IoErrorKind::Io, 0));
        }
        for (at, bytes) in fresh {
            b.durable[at as usize..][..bytes.len()].copy_from_slice(&bytes);
        }
        Ok(())
    }
    fn len(&self) -> Result<u64, IoError> {
        Ok(self.bytes.lock().now.len() as u64)
    }
    fn truncate(&self, _len: u64) -> Result<(), IoError> {
        Err(IoError::new(IoErrorKind::ReadOnly, 0))
    }
    fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), IoError> {
        self.write(offset, &vec![0; len as usize])
    }
}

/// What became of the requests, by cookie.
#[derive(Default)]
pub(super) struct Results(Mutex<BTreeMap<u64, Result<(), IoError>>>);

impl IoSink for Results {
    fn io_done(&self, request: &mut Request, result: Result<(), IoError>) {
        self.0.lock().insert(request.cookie, result);
    }
}

pub(super) fn options(log: usize, pages: usize) -> FormatOptions {
    FormatOptions {
        logical_bytes: (pages * BLOCK) as u64,
        block_size: BLOCK as u32,
        log_bytes: (log * BLOCK) as u64,
        uuid: *b"a volume of test",
    }
}

/// A page's bytes: its number and a version everywhere.
pub(super) fn page_bytes(page: u64, version: u64) -> Vec<u8> {
    if version == 0 {
        return vec![0; BLOCK];
    }
    let word =
        page.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ version.wrapping_mul(0xD1B5_4A32_D192_ED03);
    word.to_le_bytes().repeat(BLOCK / 8)
}

/// A mounted volume and those who use it.
pub(super) struct Rig {
    pub disk: Arc<Disk>,
    pub heap: Arc<Heap>,
    pub volume: Arc<Volume>,
    results: Arc<Results>,
    cookie: u64,
}

/// A write that was submitted, with its memory.
pub(super) struct Submitted {
    cookie: u64,
    pub first: u64,
    pub count: u64,
    _memory: Vec<u8>,
}

impl Rig {
    pub(super) fn new(disk: &Arc<Disk>) -> Rig {
        Rig::mount(disk).unwrap()
    }

    pub(super) fn mount(disk: &Arc<Disk>) -> Result<Rig, VolumeError> {
        Rig::mount_with(disk, MountOptions::default())
    }

    pub(super) fn mount_with(disk: &Arc<Disk>, options: MountOptions) -> Result<Rig, VolumeError> {
        let heap = Heap::new();
        *heap.disk.lock() = Some(disk.clone());
        Ok(Rig {
            volume: Volume::mount(disk.clone(), heap.clone(), options)?,
            disk: disk.clone(),
            heap,
            results: Arc::new(Results::default()),
            cookie: 0,
        })
    }

    /// Submits writes of whole runs `(first, count)` of `version`, in one batch. Their space is reserved already.
    pub(super) fn submit(&mut self, runs: &[(u64, u64)], version: u64) -> Vec<Submitted> {
        let mut batch = Vec::new();
        let mut all = Vec::new();
        for (first, count) in runs {
            let pages = *first..first + count;
            let mut memory: Vec<u8> = pages.flat_map(|p| page_bytes(p, version)).collect();
            let mut request = Request::new(IoOp::Write, first * BLOCK as u64, self.results.clone());
            self.cookie += 1;
            request.cookie = self.cookie;
            // Each page a segment of its own, as frames of a cache are.
            request.bufs = memory
                .chunks_mut(BLOCK)
                .map(|page| IoBuf {
                    ptr: page.as_mut_ptr(),
                    len: BLOCK,
                })
                .collect();
            batch.push(request);
            all.push(Submitted {
                cookie: self.cookie,
                first: *first,
                count: *count,
                _memory: memory,
            });
        }
        self.volume.write_pages(WriteContext::Flusher, &mut batch);
        assert!(batch.is_empty());
        all
    }

    pub(super) fn result(&self, write: &Submitted) -> Option<Result<(), IoError>> {
        self.results.0.lock().get(&write.cookie).copied()
    }

    pub(super) fn reserve(&self, runs: &[(u64, u64)]) -> Result<(), IoError> {
        for (first, count) in runs {
            for page in *first..first + count {
                self.volume.reserve(page)?;
            }
        }
        Ok(())
    }

    /// Reserves, writes and waits.
    pub(super) fn write(&mut self, runs: &[(u64, u64)], version: u64) -> Result<(), IoError> {
        self.reserve(runs)?;
        let all = self.submit(runs, version);
        self.disk.run();
        all.iter()
            .try_for_each(|w| self.result(w).expect("it has ended"))
    }

    pub(super) fn read(&self, page: u64) -> Result<Vec<u8>, IoError> {
        let mut bytes = vec![0xEE; BLOCK];
        let buf = IoBuf {
            ptr: bytes.as_mut_ptr(),
            len: BLOCK,
        };
        self.volume.read_now(page * BLOCK as u64, &[buf])?;
        Ok(bytes)
    }

    pub(super) fn expect(&self, page: u64, version: u64) {
        let bytes = self.read(page).unwrap();
        assert!(
            bytes == page_bytes(page, version),
            "page {page}: not version {version}"
        );
    }

    pub(super) fn check(&self) {
        self.volume.check_invariants();
    }

    /// Forgets this mount and mounts what reads see now.
    pub(super) fn remount(self) -> Rig {
        let disk = self.disk.clone();
        drop(self);
        Rig::new(&disk)
    }
}

pub(super) fn clean(disk: &Disk) -> FsckReport {
    let report = fsck(disk).unwrap();
    assert!(report.is_clean(), "{:?}", report.faults);
    report
}
