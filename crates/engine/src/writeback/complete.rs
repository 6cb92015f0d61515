//! The end of a request: pages become clean, or dirty again; reads become up to date, or leave.
//!
//! **Context.** Completion: any task of the world or the flusher. Takes engine locks, never sleeps, never allocates a
//! frame.
//! **Kernel.** end_page_writeback, folio_end_read, bio_endio.

use crate::backing::WriteContext;
use crate::engine::Engine;
use crate::error::IoError;
use crate::frame::state::{
    DIRTY, ERROR, LOADING, ORPHAN, RECLAIM, Released, SUPERSEDED, UPTODATE, WRITEBACK,
};
use crate::io::{IoOp, IoSink, Request};
use crate::mapping::Mapping;
use crate::sync::Ordering;
use crate::trace::Event;
use crate::wait::Channel;
use crate::world::{Task, Work, World};
use crate::zone::Mark;

/// The most pages that end under one hold of the dirty lock.
const END_BATCH: usize = 32;

/// What a request carries for its completion: mapping (32 bits) · failed flushes before it (16) ·
/// context (8) · parity (1).
#[derive(Clone, Copy)]
pub(crate) struct Cookie(pub u64);

impl Cookie {
    pub(crate) fn write(m: &Mapping, parity: u64, context: WriteContext) -> Cookie {
        let failures = u64::from(m.flush_failures());
        Cookie(u64::from(m.id) << 32 | failures << 16 | (context as u64) << 8 | parity)
    }
    pub(crate) fn read(mapping: u32) -> Cookie {
        Cookie(u64::from(mapping) << 32)
    }
    fn mapping(self) -> u32 {
        (self.0 >> 32) as u32
    }
    fn flush_failures(self) -> u16 {
        (self.0 >> 16) as u16
    }
    fn parity(self) -> u64 {
        self.0 & 1
    }
}

impl<W: World> IoSink for Engine<W> {
    fn io_done(&self, request: &mut Request, result: Result<(), IoError>) {
        self.world.charge(Work::Complete, 1);
        let id = Cookie(request.cookie).mapping();
        let m = self.mapping(id).expect("MAP-4: a mapping in flight stays");
        match request.op {
            IoOp::Read => self.end_read(&m, request, result),
            IoOp::Write => self.end_write(&m, request, result),
        }
    }
}

impl<W: World> Engine<W> {
    fn end_read(&self, m: &Mapping, request: &Request, result: Result<(), IoError>) {
        if result.is_err() {
            self.count(Event::ReadErrors, 1);
        }
        let n = request.frames.len();
        self.world.charge(Work::EndPage, n as u32);
        for frame in &request.frames {
            let page = self.frames.get(*frame).page();
            let ok = result.is_ok() && self.check_read(m, page, *frame).is_ok();
            if ok {
                if self.frames.get(*frame).state.peek() & ORPHAN != 0 {
                    self.count(Event::StaleFills, 1);
                }
                self.release(*frame, LOADING, UPTODATE);
            } else {
                // Whoever waits for it reads it again, alone, and gets an error of its own.
                self.fail_fill(m, *frame);
            }
        }
        m.dev.reads.complete(self.world.now());
        m.end_loading();
        self.waits.wake(&*self.world, Channel::Writeback(m.id));
        // Relaxed: a count for policy and close.
        self.loading_requests.fetch_sub(1, Ordering::Relaxed);
    }

    #[doc(alias("end_page_writeback", "folio_end_writeback"))]
    fn end_write(&self, m: &Mapping, request: &Request, result: Result<(), IoError>) {
        let n = request.frames.len() as u64;
        let epoch = m.durability.lock(&*self.world).note_written();
        self.rotate_reclaimable(request, result.is_ok());
        let mut follow_ups: Vec<(u32, Released)> = Vec::new();
        // Pages of a failed request whose space nobody needs: a newer copy has its own, or they are truncated.
        let mut unneeded: Vec<u64> = Vec::new();
        let mut ok = result.is_ok();
        // A few pages under each hold of the lock: writers wait for it with every page that they make dirty.
        for frames in request.frames.chunks(END_BATCH) {
            // Here others get in between.
            self.world.charge(Work::EndPage, frames.len() as u32);
            let mut dirty = m.dirty.lock(&*self.world);
            // DUR-1: a flush that failed since the submission may have lost what the device had taken of this write. When it
            // fails between two holds, it finds the pages of the first clean, and makes them dirty itself.
            ok &= m.flush_failures() == Cookie(request.cookie).flush_failures();
            for frame in frames {
                let f = self.frames.get(*frame);
                let s = f.state.peek();
                let mut again = false;
                if s & SUPERSEDED != 0 {
                    dirty.end_supersede(f.page());
                } else if !ok && s & (ORPHAN | DIRTY) == 0 && !planted!(self, ForgottenError) {
                    // WB-4. Its dirty generation is still in place.
                    self.enter_dirty(m, &mut dirty, *frame, DIRTY | ERROR);
                    again = true;
                }
                if m.reserves && again && result.is_ok() {
                    // RESERVE-1: the backing took the write for good, and its space for used.
                    m.backing.redirtied(f.page());
                } else if m.reserves && !again && result.is_err() {
                    unneeded.push(f.page());
                }
                if ok {
                    f.set_generation(epoch);
                }
                // Under the dirty lock: a copy made now either sees WRITEBACK, and we shall see SUPERSEDED, or not.
                let clear = WRITEBACK | RECLAIM | SUPERSEDED;
                let released = f.state.release(clear, 0);
                if released.wake || released.free {
                    follow_ups.push((*frame, released));
                }
            }
        }
        for page in unneeded {
            m.backing.release(page);
        }
        let now = self.world.now();
        if !ok || !planted!(self, LastingFailure) {
            m.note_write(ok, now.0);
        }
        m.dev.note_write(ok, now);
        if !ok {
            let mut d = m.durability.lock(&*self.world);
            let error = result.err().unwrap_or(d.last_error());
            d.note_error("write", error);
        }
        // Relaxed: counts for policy and statistics.
        self.writeback_pages.fetch_sub(n, Ordering::Relaxed);
        m.dev.nr_writeback.fetch_sub(n, Ordering::Relaxed);
        if ok {
            m.dev.written.fetch_add(n, Ordering::Relaxed);
            self.count(Event::NrWritten, n);
        } else {
            self.count(Event::WriteErrors, 1);
        }
        // On the flusher's own lane it is the flusher that comes by here. A queue that completes on tasks of its own (a
        // pool of threads, a limiter) leaves it parked.
        let bytes = match planted!(self, LeakedBytes) && !ok {
            true => 0,
            false => request.len() as u64,
        };
        if m.dev.end_request(bytes) && !self.world.task().has(Task::FLUSHER) {
            self.unpark_flusher(&m.dev);
        }
        for (frame, released) in follow_ups {
            self.after_release(frame, released);
        }
        self.end_writeback_turn(m, Cookie(request.cookie).parity());
        self.after_write(m, ok);
    }

    /// Pages that reclaim has marked go to the inactive tail, to be met next.
    fn rotate_reclaimable(&self, request: &Request, ok: bool) {
        if !ok {
            return;
        }
        let mut rotated = 0;
        for frame in &request.frames {
            let s = self.frames.get(*frame).state.peek();
            if s & (RECLAIM | ORPHAN) == RECLAIM
                && self.lru.rotate(&*self.world, &self.frames, *frame)
            {
                rotated += 1;
            }
        }
        if rotated > 0 {
            self.count(Event::Pgrotated, rotated);
        }
    }

    /// A request is counted into writeback; the parity to end it with.
    pub(crate) fn begin_writeback_turn(&self, m: &Mapping) -> u64 {
        loop {
            match m.try_begin_writeback() {
                Ok(parity) => return parity,
                // A sync may have seen the count and gone to sleep on it.
                Err(parity) => self.end_writeback_turn(m, parity),
            }
        }
    }

    /// A request's count of writeback ends; a sync that waits for the last one is woken.
    pub(crate) fn end_writeback_turn(&self, m: &Mapping, parity: u64) {
        if m.end_writeback(parity) && !planted!(self, SkippedWake) {
            self.waits.wake(&*self.world, Channel::Writeback(m.id));
        }
    }

    /// Who may go on now that a write has ended.
    fn after_write(&self, m: &Mapping, ok: bool) {
        self.waits.wake(&*self.world, Channel::Progress);
        let unclean = self.nr_unclean();
        let limit = self.thresholds.limit;
        if unclean < limit || unclean < limit + self.excused(None) {
            self.waits.wake(&*self.world, Channel::Dirty);
        }
        self.unpark_flusher_if_asleep(&m.dev);
        // A write that failed leaves nothing to reclaim: kswapd, which may have made it, would make it again.
        if ok && self.zone.below(Mark::Low) {
            self.wake_kswapd(0);
        }
    }
}
