//! What of a file's written pages a crash would keep, and which ranges a failed flush has lost.
//!
//! A page's write gets the current *write epoch* when it completes. A flush ends the epoch; when it succeeds, every page
//! of that epoch or an earlier one is durable. When it fails, nothing is known of the pages written since the last good
//! flush: those in memory are dirtied again, and of those that were reclaimed only the place is known, from a table of
//! at most [`CHUNKS`] chunks with the newest epoch each (a chunk doubles as the file grows, so the report is a superset).
//!
//! **Invariants.**
//! - DUR-1: a page with an epoch above `flushed` is not known to be durable.
//! - DUR-2: what is lost stays lost until the file is opened anew, by a user who has been told: a flush may fail while nobody
//!   has the file open, and a page leave memory after the last error.
//! - DUR-3: a clean page's epoch is one of its file, at most the current; a frame brings none from its life before. Else a
//!   page that was only read would count as lost.
//!
//! **Kernel.** errseq_t, and what "fsyncgate" (2018) showed to be missing.

use crate::error::IoError;
use std::ops::Range;

const CHUNKS: usize = 1024;
/// Most ranges in a report.
const LOST_MAX: usize = 256;

/// Guarded by its lock (`Rank::Durability`).
pub(crate) struct Durability {
    /// The epoch of writes that complete now. Starts at 1.
    epoch: u64,
    /// Every epoch up to this one is durable.
    flushed: u64,
    /// Epochs that a failed flush has put in doubt: above the first, up to the second.
    doubtful: (u64, u64),
    /// For each chunk of pages, the newest epoch of a page that was reclaimed; empty until one is.
    reclaimed: Vec<u64>,
    /// log2 of the pages of a chunk.
    chunk_order: u32,
    /// Pages that a failed flush has lost.
    lost: Vec<Range<u64>>,
    /// Some of them nobody has been told of yet.
    untold: bool,
    /// The last write or flush error that no sync has returned yet.
    unseen: Option<(&'static str, IoError)>,
    /// The last error of all.
    last_error: IoError,
    /// Something was written or changed since the last good flush.
    unflushed: bool,
    /// A flush is under way, and its outcome not known.
    flushing: bool,
}

impl Durability {
    pub(crate) fn new() -> Durability {
        Durability {
            epoch: 1,
            flushed: 0,
            doubtful: (0, 0),
            last_error: IoError::new(crate::error::IoErrorKind::Io, 0),
            reclaimed: Vec::new(),
            chunk_order: 0,
            lost: Vec::new(),
            untold: false,
            unseen: None,
            unflushed: false,
            flushing: false,
        }
    }

    /// The current epoch.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The epoch of a write that completes now.
    pub(crate) fn note_written(&mut self) -> u64 {
        self.unflushed = true;
        self.epoch
    }

    /// The file changed in a way that only a flush makes durable.
    pub(crate) fn note_changed(&mut self) {
        self.unflushed = true;
    }

    /// Nothing waits for a flush, and every error and loss has been told.
    pub(crate) fn is_settled(&self) -> bool {
        !self.unflushed && !self.flushing && self.unseen.is_none() && !self.untold
    }

    pub(crate) fn needs_flush(&self) -> bool {
        self.unflushed
    }

    /// A clean page of write epoch `epoch` leaves memory.
    pub(crate) fn note_reclaimed(&mut self, page: u64, epoch: u64) {
        if self.doubtful.0 < epoch && epoch <= self.doubtful.1 {
            // Written before a flush that failed, and not dirtied again since: it left memory just then.
            self.lose(page..page + 1);
            return;
        }
        if epoch <= self.flushed {
            return;
        }
        if self.reclaimed.is_empty() {
            self.reclaimed = vec![0; CHUNKS];
        }
        while page >> self.chunk_order >= CHUNKS as u64 {
            for i in 0..CHUNKS / 2 {
                self.reclaimed[i] = self.reclaimed[2 * i].max(self.reclaimed[2 * i + 1]);
            }
            self.reclaimed[CHUNKS / 2..].fill(0);
            self.chunk_order += 1;
        }
        let chunk = (page >> self.chunk_order) as usize;
        self.reclaimed[chunk] = self.reclaimed[chunk].max(epoch);
    }

    /// A hole takes the place of these pages, which nobody has in memory: as if each had been written and reclaimed.
    pub(crate) fn note_hole(&mut self, pages: Range<u64>) {
        let epoch = self.note_written();
        let Some(last) = pages.end.checked_sub(1) else {
            return;
        };
        // The last one first: then the chunks have their size.
        self.note_reclaimed(last, epoch);
        let mut page = pages.start;
        while page < last {
            self.note_reclaimed(page, epoch);
            page = ((page >> self.chunk_order) + 1) << self.chunk_order;
        }
    }

    /// A flush begins: ends the epoch and returns it.
    pub(crate) fn begin_flush(&mut self) -> u64 {
        self.unflushed = false;
        self.flushing = true;
        self.epoch += 1;
        self.epoch - 1
    }

    /// The flush of `epoch` succeeded.
    pub(crate) fn flush_ok(&mut self, epoch: u64) {
        self.flushing = false;
        self.flushed = self.flushed.max(epoch);
    }

    /// The flush failed: the ranges of pages that are gone are lost. Returns the last durable epoch: pages in memory
    /// with a later one must be dirtied again.
    pub(crate) fn flush_failed(&mut self, error: IoError) -> u64 {
        self.unflushed = true;
        self.flushing = false;
        self.note_error("flush", error);
        for i in 0..self.reclaimed.len() {
            let epoch = std::mem::take(&mut self.reclaimed[i]);
            if epoch > self.flushed {
                let first = (i as u64) << self.chunk_order;
                self.lose(first..first + (1 << self.chunk_order));
            }
        }
        let flushed = self.flushed;
        let from = if flushed >= self.doubtful.1 {
            flushed
        } else {
            self.doubtful.0.min(flushed)
        };
        self.doubtful = (from, self.epoch);
        self.epoch += 1;
        flushed
    }

    /// Adds a range of pages to those lost, joined with what it touches. Past [`LOST_MAX`] ranges the two nearest are
    /// joined, so the report stays a bounded superset.
    fn lose(&mut self, range: Range<u64>) {
        let mut range = range;
        self.untold = true;
        self.lost.retain(|r| {
            let apart = r.end < range.start || range.end < r.start;
            if !apart {
                range = r.start.min(range.start)..r.end.max(range.end);
            }
            apart
        });
        let at = self.lost.partition_point(|r| r.start < range.start);
        self.lost.insert(at, range);
        if self.lost.len() > LOST_MAX {
            let gap = |i: &usize| self.lost[i + 1].start - self.lost[*i].end;
            let i = (0..self.lost.len() - 1).min_by_key(gap).unwrap_or(0);
            let next = self.lost.remove(i + 1);
            self.lost[i].end = next.end;
        }
    }

    /// The file is opened anew: forgets what was lost, once somebody has heard of all of it.
    pub(crate) fn reopen(&mut self) {
        if !self.untold {
            self.lost.clear();
        }
    }

    /// The last error of a write or flush.
    pub(crate) fn last_error(&self) -> IoError {
        self.last_error
    }

    /// Pages lost so far.
    pub(crate) fn lost(&self) -> &[Range<u64>] {
        &self.lost
    }

    /// Pages lost so far, for a caller who tells a user.
    pub(crate) fn tell_lost(&mut self) -> &[Range<u64>] {
        self.untold = false;
        &self.lost
    }

    /// A write failed in the background.
    pub(crate) fn note_error(&mut self, op: &'static str, error: IoError) {
        self.unseen = Some((op, error));
        self.last_error = error;
    }

    /// The error that nobody has seen yet; seen now.
    pub(crate) fn take_unseen(&mut self) -> Option<(&'static str, IoError)> {
        self.unseen.take()
    }
}

#[cfg(all(test, not(loom)))]
// A lost range is what these tests mean: one element, a range.
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::*;
    use crate::error::IoErrorKind;

    const EIO: IoError = IoError::new(IoErrorKind::Io, 0);

    #[test]
    fn a_page_reclaimed_after_a_good_flush_is_not_lost() {
        let mut d = Durability::new();
        let e = d.note_written();
        let f = d.begin_flush();
        d.flush_ok(f);
        d.note_reclaimed(7, e);
        d.flush_failed(EIO);
        assert!(d.lost().is_empty());
    }

    #[test]
    fn a_page_reclaimed_before_a_failed_flush_is_lost_for_good() {
        let mut d = Durability::new();
        let e = d.note_written();
        d.note_reclaimed(7, e);
        d.begin_flush();
        assert_eq!(d.flush_failed(EIO), 0);
        assert_eq!(d.lost(), &[7..8]);
        let f = d.begin_flush();
        d.flush_ok(f);
        assert_eq!(d.lost(), &[7..8], "DUR-2");
    }

    #[test]
    fn what_is_lost_while_nobody_has_the_file_open_is_told_to_the_next_who_opens_it() {
        let mut d = Durability::new();
        let e = d.note_written();
        d.note_reclaimed(7, e);
        d.begin_flush();
        d.flush_failed(EIO);
        d.reopen();
        assert_eq!(d.tell_lost(), &[7..8], "DUR-2");
        // One more, after that error.
        d.note_reclaimed(9, e);
        d.reopen();
        assert_eq!(d.tell_lost(), &[7..8, 9..10], "DUR-2");
        d.reopen();
        assert!(d.tell_lost().is_empty());
    }

    #[test]
    fn chunks_double_as_the_file_grows_and_cover_the_page() {
        let mut d = Durability::new();
        let e = d.note_written();
        d.note_reclaimed(3, e);
        d.note_reclaimed(1 << 20, e);
        d.begin_flush();
        d.flush_failed(EIO);
        for page in [3, 1 << 20] {
            assert!(d.lost().iter().any(|r| r.contains(&page)), "{page}");
        }
    }

    #[test]
    fn a_hole_is_lost_with_a_failed_flush_and_not_after_a_good_one() {
        for (hole, chunk) in [(5..9, 1), (5..6, 1), (3..1 << 20, 1 << 10)] {
            let mut d = Durability::new();
            d.note_hole(hole.clone());
            assert!(d.needs_flush());
            d.begin_flush();
            d.flush_failed(EIO);
            assert_eq!(d.lost(), &[hole.start / chunk * chunk..hole.end]);
            let mut d = Durability::new();
            d.note_hole(hole);
            let f = d.begin_flush();
            d.flush_ok(f);
            d.begin_flush();
            d.flush_failed(EIO);
            assert!(d.lost().is_empty());
        }
    }

    #[test]
    fn a_write_during_the_flush_belongs_to_the_next_epoch() {
        let mut d = Durability::new();
        let f = d.begin_flush();
        let e = d.note_written();
        d.flush_ok(f);
        assert!(d.needs_flush());
        d.note_reclaimed(1, e);
        d.begin_flush();
        d.flush_failed(EIO);
        assert_eq!(d.lost(), &[1..2]);
    }

    #[test]
    fn an_error_is_seen_once() {
        let mut d = Durability::new();
        d.note_error("write", EIO);
        assert_eq!(d.take_unseen(), Some(("write", EIO)));
        assert_eq!(d.take_unseen(), None);
    }
}
