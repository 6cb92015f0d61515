//! Readahead: sequential readers are found out and read ahead of, in large requests.
//!
//! A handle keeps a few streams. A miss that continues one starts a window; the first page of each window carries
//! READAHEAD, and the reader that touches it starts the next one, twice as large up to the limit, while it consumes the
//! window before. Single misses are read on the calling thread and only remembered.
//!
//! ```text
//! |<── window n ──>|<── window n+1 (submitted when the reader touches the first page of n) ──>|
//!  ^ READAHEAD       ^ READAHEAD
//! ```
//!
//! A window of the limit carries a mark at each quarter, and whoever touches one, or is about to wait for its page, has two
//! windows read from there on: what the reader has consumed is replaced a quarter at a time, so that the device always has
//! nearly two windows to do. With one mark a window it would run down to less than one before the next came. Each request
//! goes out as soon as it is full: the device is at it while the next one's pages are installed.
//!
//! **State.** A handle's streams: its lock (`Rank::Readahead`), by try only: a reader never waits for it.
//! **Context.** A reader, without latches. Allocates frames above the low watermark only; reclaims, but never waits for them.
//! **Kernel.** readahead.c: ondemand_readahead, page_cache_async_ra.
//! **Tests.** Here: the windows. `crates/lab/tests/readahead.rs`: what is on its way while the reader waits.

use super::{Key, Mapping};
use crate::engine::Engine;
use crate::frame::state::{LOADING, READAHEAD};
use crate::io::{IoOp, Lane, Request};
use crate::sync::{Lock, Ordering, Rank};
use crate::trace::Event;
use crate::world::{Nanos, World};
use crate::writeback::Cookie;
use crate::zone::Run;

/// Streams a handle follows at one time.
const STREAMS: usize = 8;
/// A stream's first window, in bytes.
const FIRST_WINDOW: usize = 128 << 10;
/// Marks in a window of the limit.
const STEPS: u64 = 4;
/// So many pages before it is installed, a page's place in the index and its shadow are fetched.
const FETCH_AHEAD: u64 = 8;

/// One sequential reader.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
struct Stream {
    /// The page a sequential reader misses next.
    next: u64,
    /// The first page that is not read ahead yet.
    ahead: u64,
    /// The last window, in pages; 0 while it is not known to be sequential.
    window: u64,
    /// When it was last used.
    tick: u64,
}

/// What to read ahead: pages `start..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub start: u64,
    pub end: u64,
    /// The first page that gets READAHEAD.
    pub mark: u64,
    /// Each so many pages from there another one does.
    pub step: u64,
}

impl Window {
    fn marks(&self, page: u64) -> bool {
        page >= self.mark && (page - self.mark).is_multiple_of(self.step)
    }
}

/// The streams of one handle.
#[doc(alias = "file_ra_state")]
#[derive(Debug, Default)]
pub(crate) struct Streams {
    streams: [Stream; STREAMS],
    tick: u64,
}

/// Window limits in pages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub first: u64,
    pub max: u64,
}

impl Limits {
    /// How far apart the marks of a window are: one in each that still grows.
    fn step(self, window: u64) -> u64 {
        if window < self.max {
            u64::MAX
        } else {
            (self.max / STEPS).max(1)
        }
    }
}

impl Streams {
    /// A read of `count` pages misses at `page`. What to read, that page included; `None`: just that page.
    pub(crate) fn on_miss(&mut self, page: u64, count: u64, limits: Limits) -> Option<Window> {
        self.tick += 1;
        let tick = self.tick;
        let known = self.streams.iter_mut().find(|s| {
            s.tick > 0 && (s.next == page || (s.window > 0 && page > s.next && page <= s.ahead))
        });
        if let Some(s) = known {
            let window = (s.window * 2).max(count).clamp(limits.first, limits.max);
            *s = Stream {
                next: page + count,
                ahead: page + window,
                window,
                tick,
            };
            return Some(Window {
                start: page,
                end: page + window,
                mark: page + count.min(window - 1),
                step: limits.step(window),
            });
        }
        // A new stream: one that starts at 0, or asks for several pages, is taken for sequential at once.
        let sequential = page == 0 || count > 1;
        let window = if sequential {
            count.clamp(limits.first, limits.max)
        } else {
            0
        };
        let oldest = self.streams.iter_mut().min_by_key(|s| s.tick)?;
        *oldest = Stream {
            next: page + count,
            ahead: page + window,
            window,
            tick,
        };
        // The first window of an unproven stream is just what was asked for.
        (count > 1).then_some(Window {
            start: page,
            end: page + count.min(limits.max),
            mark: u64::MAX,
            step: u64::MAX,
        })
    }

    /// A reader touches `page`, which carries READAHEAD. What to read next.
    pub(crate) fn on_mark(&mut self, page: u64, limits: Limits) -> Option<Window> {
        self.tick += 1;
        let tick = self.tick;
        let s = self
            .streams
            .iter_mut()
            .find(|s| s.window > 0 && page + 2 * s.window >= s.ahead && page <= s.ahead)?;
        let window = (s.window * 2).clamp(limits.first, limits.max);
        let step = limits.step(window);
        let start = s.ahead.max(page + 1);
        let end = if s.window < limits.max {
            start + window
        } else {
            // Two windows from the mark on. A mark that was passed over late finds that most of it is there.
            page + 2 * window
        };
        s.tick = tick;
        if end < start + step.min(window) {
            return None;
        }
        *s = Stream {
            next: end,
            ahead: end,
            window,
            tick,
        };
        Some(Window {
            start,
            end,
            mark: start,
            step,
        })
    }
}

/// A handle's streams, behind their lock.
pub(crate) struct Readahead(Lock<Streams>);

impl Readahead {
    pub(crate) fn new() -> Readahead {
        Readahead(Lock::new(Rank::Readahead, Streams::default()))
    }
}

impl<W: World> Engine<W> {
    /// The next frame for a window.
    fn supply(&self, run: &mut Run) -> Option<u32> {
        self.alloc_nowait(run).or_else(|| {
            // As Linux does (__GFP_NORETRY): one round of reclaim, and the window ends if it finds nothing clean.
            (self.direct_reclaim(0, Nanos(u64::MAX)) > 0).then(|| self.alloc_nowait(run))?
        })
    }

    fn readahead_limits(&self) -> Limits {
        let size = self.memory.frame_size();
        let pages = (self.config().readahead_max / 2 / size).max(1) as u64;
        // All streams together must not turn memory over.
        let max = pages.min(self.frames.len() as u64 / 16).max(2);
        Limits {
            first: (FIRST_WINDOW / size).clamp(2, max as usize) as u64,
            max,
        }
    }

    /// A read of `count` pages missed at `page`. True when the page is now being read.
    pub(crate) fn readahead_miss(
        &self,
        m: &Mapping,
        ra: &Readahead,
        page: u64,
        count: u64,
    ) -> bool {
        if self.config().readahead_max == 0 {
            return false;
        }
        let limits = self.readahead_limits();
        let window = match ra.0.try_lock(&*self.world) {
            Some(mut streams) => streams.on_miss(page, count, limits),
            None => None,
        };
        window.is_some_and(|w| self.read_window(m, w) > 0)
    }

    /// A reader touched a page that may be the marked one.
    pub(crate) fn readahead_mark(&self, m: &Mapping, ra: &Readahead, frame: u32, page: u64) {
        let state = &self.frames.get(frame).state;
        if state.peek() & READAHEAD == 0 || state.clear(READAHEAD) & READAHEAD == 0 {
            return;
        }
        let limits = self.readahead_limits();
        let window = match ra.0.try_lock(&*self.world) {
            Some(mut streams) => streams.on_mark(page, limits),
            None => None,
        };
        if let Some(w) = window {
            self.read_window(m, w);
        }
    }

    /// Starts reading a window; how many pages were submitted.
    fn read_window(&self, m: &Mapping, w: Window) -> u64 {
        if !m.invalidate.try_shared() {
            return 0;
        }
        let end = w.end.min(self.pages_of(m.len()));
        let queue = &m.dev.queue;
        let size = self.memory.frame_size();
        let (pages_max, segments_max) = (
            (queue.request_bytes_max() / size).max(1),
            queue.segments_max(),
        );
        // The request that is being filled. In a vector, as the backing wants it, and not on the caller's stack.
        let mut open: Vec<Request> = Vec::new();
        let mut submitted = 0;
        // Neighbours in the file become neighbours in memory, as far as free frames are.
        let mut run = Run::single();
        run.want(w.end.saturating_sub(w.start) as usize);
        self.aim(&mut run, m.id, w.start);
        for page in w.start..end {
            run.want((end - page) as usize);
            let Some(frame) = self.install_loading(m, page, w.marks(page), &mut run) else {
                if self.is_resident(m.id, page) {
                    continue;
                }
                // No memory to spare: the reader will read the rest itself.
                break;
            };
            submitted += 1;
            let fits = open.last().is_some_and(|r| {
                r.offset / size as u64 + r.frames.len() as u64 == page
                    && r.frames.len() < pages_max
                    && (r.follows(frame) || r.bufs.len() < segments_max)
            });
            if !fits {
                self.submit_read(m, &mut open, &mut run);
                let mut r = Request::new(IoOp::Read, page * size as u64, self.sink());
                r.cookie = Cookie::read(m.id).0;
                // It grows no further; of segments there are far fewer, with what lies in a row.
                r.frames.reserve_exact(pages_max.min((end - page) as usize));
                open.push(r);
            }
            let r = open.last_mut().expect("pushed above");
            let follows = r.follows(frame);
            match r.bufs.last_mut() {
                Some(buf) if follows => buf.len += size,
                _ => r.bufs.push(self.memory.io_buf(frame, size)),
            }
            r.frames.push(frame);
        }
        self.submit_read(m, &mut open, &mut run);
        self.put_back(&mut run);
        self.invalidate_put(m);
        submitted
    }

    /// Starts the read of `open`, if there is one: its pages are installed. What is left of the run is given back, for the
    /// backing may sleep (RUN-1).
    fn submit_read(&self, m: &Mapping, open: &mut Vec<Request>, run: &mut Run) {
        let Some(r) = open.last() else { return };
        self.lru_enter_run(m.id, r.offset >> self.page_shift, &r.frames);
        self.put_back(run);
        m.dev.reads.submit(1, self.world.now());
        m.begin_loading();
        // Relaxed: a count for policy and close.
        self.loading_requests.fetch_add(1, Ordering::Relaxed);
        self.count(Event::ReadaheadPages, r.frames.len() as u64);
        self.count(Event::PagesRead, r.frames.len() as u64);
        self.count(Event::ReadRequests, 1);
        self.count(Event::ReadSegments, r.bufs.len() as u64);
        m.backing.read_pages(Lane::Shared, open);
        debug_assert!(open.is_empty(), "a backing takes every request");
    }

    /// Installs a page that is not in memory, in a new frame. The caller enters it into the LRU.
    fn install_loading(&self, m: &Mapping, page: u64, mark: bool, run: &mut Run) -> Option<u32> {
        self.fetch_place(m.id, page + FETCH_AHEAD);
        if self.is_resident(m.id, page) {
            return None;
        }
        let frame = self.supply(run)?;
        let key = Key {
            mapping: m.id,
            page,
        };
        let flags = if mark { LOADING | READAHEAD } else { LOADING };
        if !self.install(frame, key, flags) {
            self.free_page(frame);
            return None;
        }
        Some(frame)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { first: 4, max: 32 };

    #[test]
    fn random_misses_read_nothing_ahead() {
        let mut s = Streams::default();
        for page in [17, 900, 3, 44, 512, 18_000, 77, 1] {
            assert_eq!(s.on_miss(page, 1, LIMITS), None);
        }
    }

    #[test]
    fn the_second_sequential_miss_starts_a_window_that_grows_to_the_limit() {
        let mut s = Streams::default();
        assert_eq!(s.on_miss(100, 1, LIMITS), None);
        let mut w = s.on_miss(101, 1, LIMITS).expect("sequential");
        assert_eq!((w.start, w.end, w.mark), (101, 105, 102));
        for size in [8, 16, 32, 32] {
            let next = s.on_mark(w.mark, LIMITS).expect("marked");
            assert_eq!(
                (next.start, next.end, next.mark),
                (w.end, w.end + size, w.end)
            );
            w = next;
        }
    }

    #[test]
    fn a_steady_reader_has_nearly_two_windows_ahead_of_it() {
        let mut s = Streams::default();
        let marks = std::cell::RefCell::new(std::collections::BTreeSet::new());
        let note = |w: Window| {
            (marks.borrow_mut()).extend((w.start..w.end).filter(|p| w.marks(*p)));
            w.end
        };
        let mut ahead = note(s.on_miss(0, 2, LIMITS).expect("two pages"));
        let mut steady = false;
        for page in 2..2000 {
            if page == ahead {
                assert!(!steady, "page {page} was not read ahead");
                ahead = note(s.on_miss(page, 1, LIMITS).expect("sequential"));
            } else if marks.borrow().contains(&page) {
                let w = s.on_mark(page, LIMITS);
                assert!(w.is_none_or(|w| w.start == ahead));
                ahead = w.map_or(ahead, note);
            }
            assert!(ahead <= page + 2 * LIMITS.max, "at page {page}");
            // A quarter is consumed before it is replaced.
            let least = 2 * LIMITS.max - LIMITS.max / STEPS;
            assert!(
                !steady || ahead - page > least,
                "at page {page}: {}",
                ahead - page
            );
            steady |= ahead - page == 2 * LIMITS.max;
        }
        assert!(steady);
    }

    #[test]
    fn marks_that_nobody_answered_are_made_good_by_the_next() {
        let mut s = Streams::default();
        s.on_miss(0, 32, LIMITS);
        let w = s.on_miss(32, 32, LIMITS).expect("sequential");
        assert_eq!((w.start, w.end, w.step), (32, 64, 8));
        let w = s.on_mark(63, LIMITS).expect("marked");
        assert_eq!((w.start, w.end, w.mark), (64, 127, 64));
        // Those of 64, 72 and 80 find the lock taken.
        let w = s.on_mark(88, LIMITS).expect("marked");
        assert_eq!((w.start, w.end), (127, 152));
        assert_eq!(s.on_mark(72, LIMITS), None, "somebody behind");
    }

    #[test]
    fn two_streams_do_not_disturb_each_other() {
        let mut s = Streams::default();
        s.on_miss(10, 1, LIMITS);
        s.on_miss(5000, 1, LIMITS);
        assert!(s.on_miss(11, 1, LIMITS).is_some());
        assert!(s.on_miss(5001, 1, LIMITS).is_some());
    }

    #[test]
    fn a_large_read_is_one_window() {
        let mut s = Streams::default();
        let w = s.on_miss(64, 16, LIMITS).expect("16 pages");
        assert_eq!((w.start, w.end), (64, 80));
        let w = s.on_miss(80, 16, LIMITS).expect("sequential");
        assert_eq!((w.start, w.end), (80, 112));
    }
}
