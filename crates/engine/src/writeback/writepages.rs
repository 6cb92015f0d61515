//! `writepages`: dirty pages into requests.
//!
//! **Context.** The flusher; sync; reclaim and writers where the policy lets them. Holds the invalidate lock shared, by
//! try, while it submits; never waits for a latch. Allocates only request records.

use super::Cookie;
use super::cluster::{RunLimits, gather, run_len, sort_batch};
use super::dirty::NotStarted;
use super::wbt::Room;
use crate::backing::WriteContext;
use crate::engine::Engine;
use crate::frame::DirtyLinks;
use crate::frame::state::{DIRTY, ERROR, WRITEBACK};
use crate::io::{IoOp, Request};
use crate::mapping::Mapping;
use crate::trace::{Event, TraceEvent};
use crate::world::{Task, Work, World};
use std::sync::Arc;

/// What a call of `write_batch` did.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Submitted {
    pub pages: u64,
    pub requests: u64,
    /// Pages that were latched.
    pub busy: u64,
    /// How many entries of the batch were looked at.
    pub taken: usize,
}

/// The most pages whose writeback starts under one hold of the dirty lock.
const START_BATCH: usize = 32;
/// Pages of the dirty list that are looked at in one hold of its lock: each is a line of memory, and a writer waits.
const COLLECT_CHUNK: usize = 32;
/// Requests handed to the device in one call.
const SUBMIT_BATCH: usize = 32;

impl<W: World> Engine<W> {
    /// The most pages of one request to this mapping's device.
    pub(crate) fn request_pages_max(&self, m: &Mapping) -> usize {
        self.run_limits(m).pages_max
    }

    fn run_limits(&self, m: &Mapping) -> RunLimits {
        let q = &m.dev.queue;
        RunLimits::new(
            q.request_bytes_max(),
            q.segments_max(),
            self.memory.frame_size(),
        )
    }

    /// A dirty page's frame, for clustering. A hint: `start_writeback` decides.
    pub(super) fn probe_dirty(&self, m: &Mapping, page: u64) -> Option<u32> {
        let hash = self.index.hash(crate::mapping::Key {
            mapping: m.id,
            page,
        });
        self.index.find(hash, |f| {
            let f = self.frames.get(f);
            f.page() == page && f.mapping() == m.id && f.state.peek() & (DIRTY | WRITEBACK) == DIRTY
        })
    }

    /// The oldest dirty pages of a mapping, widened by dirty neighbours, sorted: the next batch of `writepages`.
    pub(crate) fn collect_dirty(
        &self,
        m: &Mapping,
        out: &mut Vec<(u64, u32)>,
        pages_max: usize,
        mut want: impl FnMut(u32) -> bool,
    ) {
        out.clear();
        let (mut last, mut left) = (None, 0);
        let mut chunk = COLLECT_CHUNK;
        while out.len() < pages_max {
            let dirty = m.dirty.lock(&*self.world);
            if last.is_some() && dirty.nr_left() != left && !planted!(self, StaleWalk) {
                // The last one may be elsewhere on the list, or on none: from the oldest on again, in one go.
                (last, chunk) = (None, usize::MAX);
            }
            left = dirty.nr_left();
            debug_assert!(
                last.is_none_or(|f| self.frames.get(f).mapping() == m.id
                    && self.frames.get(f).state.peek() & DIRTY != 0),
                "MAP-2: the walk goes on from a page that has left the list"
            );
            let links = DirtyLinks(&self.frames);
            let mut looked = 0;
            for f in dirty.iter_after(&links, last).take(chunk) {
                (last, looked) = (Some(f), looked + 1);
                if want(f) {
                    out.push((self.frames.get(f).page(), f));
                    if out.len() == pages_max {
                        break;
                    }
                }
            }
            if looked < chunk || planted!(self, ShortCollect) {
                break;
            }
            drop(dirty);
            self.world.cond_resched();
        }
        // A page in the middle of a frame switch may be listed by both frames for a moment: keep one (CLUSTER-1).
        sort_batch(out);
        out.dedup_by_key(|(page, _)| *page);
    }

    pub(super) fn widen(&self, m: &Mapping, batch: &mut Vec<(u64, u32)>) {
        let most = batch.len() * 2;
        gather(batch, most, |page| self.probe_dirty(m, page));
    }

    /// Writes the dirty run around a page, at most `pages` long; how many pages were submitted.
    pub(crate) fn write_around(
        &self,
        m: &Arc<Mapping>,
        frame: u32,
        pages: usize,
        context: WriteContext,
    ) -> u64 {
        let mut batch = vec![(self.frames.get(frame).page(), frame)];
        if pages > 1 {
            gather(&mut batch, pages, |page| self.probe_dirty(m, page));
        }
        self.write_batch(m, &batch, context, Room::UNLIMITED).pages
    }

    /// Submits the dirty pages of a sorted batch in runs, as many as there is room for. Pages that are busy are
    /// skipped; nothing is done while a truncation holds the invalidate lock.
    #[doc(alias("writepages", "write_cache_pages"))]
    pub(crate) fn write_batch(
        &self,
        m: &Arc<Mapping>,
        batch: &[(u64, u32)],
        context: WriteContext,
        mut room: Room,
    ) -> Submitted {
        let mut done = Submitted::default();
        if !m.invalidate.try_shared() {
            done.busy = batch.len() as u64;
            done.taken = batch.len();
            return done;
        }
        let mut limits = self.run_limits(m);
        let pages = room.request_bytes >> self.page_shift;
        limits.pages_max = limits.pages_max.min(pages.max(1) as usize);
        let mut ready = Vec::with_capacity(SUBMIT_BATCH);
        while done.taken < batch.len() && room.requests > 0 && room.bytes > 0 {
            let rest = &batch[done.taken..];
            let (request, taken) = self.build_request(m, rest, limits, context, &mut done);
            done.taken += taken;
            if let Some(request) = request {
                done.requests += 1;
                room.requests -= 1;
                room.bytes = room.bytes.saturating_sub(request.len() as u64);
                ready.push(request);
                if ready.len() == SUBMIT_BATCH {
                    self.submit_writes(m, context, &mut ready);
                }
            }
        }
        self.submit_writes(m, context, &mut ready);
        self.invalidate_put(m);
        done
    }

    fn submit_writes(&self, m: &Mapping, context: WriteContext, ready: &mut Vec<Request>) {
        if ready.is_empty() {
            return;
        }
        let bytes = ready.iter().map(|r| r.len() as u64).sum();
        m.dev.begin_requests(ready.len() as u64, bytes);
        let pages: usize = ready.iter().map(|r| r.frames.len()).sum();
        self.world.charge(Work::Writeback, pages as u32);
        let task = self.world.task();
        let flags = task.set_flag(Task::WRITES);
        match ready.as_slice() {
            [one] if one.frames.len() == 1 => {
                let one = ready.remove(0);
                m.backing.write_page(context, one);
            }
            _ => m.backing.write_pages(context, ready),
        }
        task.restore_flags(flags);
        debug_assert!(ready.is_empty(), "a backing takes every request");
    }

    /// The first request of `batch`: of its first run, the pages up to one that is busy. Their writeback starts here.
    fn build_request(
        &self,
        m: &Arc<Mapping>,
        batch: &[(u64, u32)],
        limits: RunLimits,
        context: WriteContext,
        done: &mut Submitted,
    ) -> (Option<Request>, usize) {
        // Counted before the first page stops being dirty, so that a sync finds it in one place or the other.
        let parity = self.begin_writeback_turn(m);
        let mut request: Option<Request> = None;
        let mut taken = 0;
        let run = &batch[..run_len(batch, limits)];
        while taken < run.len() {
            let rest = &run[taken..];
            // A page whose last write failed goes alone, so that one bad sector does not keep its neighbours dirty.
            let failed = |frame: u32| self.frames.get(frame).state.peek() & ERROR != 0;
            let alone = failed(rest[0].1);
            if alone && request.is_some() {
                break;
            }
            let together = match alone {
                true => 1,
                false => {
                    let more = rest[1..].iter().take(START_BATCH - 1);
                    1 + more.take_while(|(_, frame)| !failed(*frame)).count()
                }
            };
            let (started, refused) = self.start_writeback(m, &rest[..together]);
            debug_assert!(
                (rest[..started].iter()).all(|(page, _)| *page < self.pages_of(m.len())),
                "MAP-3: a page beyond the end is written"
            );
            for (page, frame) in &rest[..started] {
                if context.is_reclaim() {
                    self.trace(TraceEvent::WritePage { pfn: *frame });
                }
                let start = *page << self.page_shift;
                let r = request.get_or_insert_with(|| {
                    let mut r = Request::new(IoOp::Write, start, self.sink());
                    r.cookie = Cookie::write(m, parity, context).0;
                    r
                });
                let left = m.len().saturating_sub(start);
                let len = left.min(self.memory.frame_size() as u64) as usize;
                self.add_page(m, r, *page, *frame, len);
            }
            taken += started;
            done.pages += started as u64;
            if let Some(e) = refused {
                // A run ends at a page that cannot be written now.
                if request.is_some() {
                    break;
                }
                done.busy += u64::from(e != NotStarted::Clean);
                taken += 1;
            } else if alone {
                break;
            }
        }
        match &request {
            None => self.end_writeback_turn(m, parity),
            Some(r) => self.count_submitted(r, context),
        }
        (request, taken)
    }

    /// Appends a page under writeback to a request.
    fn add_page(&self, m: &Mapping, r: &mut Request, page: u64, frame: u32, len: usize) {
        if !self.memory.is_ghost() {
            #[allow(unsafe_code)]
            // SAFETY: FRAME-1: the frame is under WRITEBACK, so its bytes do not change (FRAME-4).
            let bytes = unsafe { self.memory.bytes(frame) };
            m.backing.before_write(page, bytes);
        }
        let follows = r.follows(frame);
        match r.bufs.last_mut() {
            // Neighbours in memory are one segment.
            Some(buf) if follows => buf.len += len,
            _ => r.bufs.push(self.memory.io_buf(frame, len)),
        }
        r.frames.push(frame);
    }

    fn count_submitted(&self, r: &Request, context: WriteContext) {
        let event = match context {
            WriteContext::Direct => Event::WrittenDirect,
            WriteContext::Kswapd => Event::WrittenKswapd,
            WriteContext::Flusher => Event::WrittenFlusher,
            WriteContext::Writer => Event::WrittenWriter,
            WriteContext::Sync => Event::WrittenSync,
        };
        self.count(event, r.frames.len() as u64);
        self.count(Event::WriteRequests, 1);
        self.count(Event::WriteSegments, r.bufs.len() as u64);
        self.count(Event::WriteBytes, r.len() as u64);
    }
}
