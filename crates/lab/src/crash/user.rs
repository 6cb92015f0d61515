//! The tasks that use the file: each has pages of its own, so that it knows what it reads. The last one's reach to the end,
//! and it alone changes the length.

use super::versions::{Bytes, Versions};
use super::{Drawn, Shared};
use crate::rng::Rng;
use crate::world::LabWorld;
use highwater_engine::{Error, File, IoErrorKind, Nanos, PageNo, World};
use std::ops::Range;
use std::rc::Rc;

/// One task's part.
pub(super) struct User {
    pub file: File<LabWorld>,
    pub shared: Rc<Shared>,
    pub rng: Rng,
    /// Its pages.
    pub pages: Range<u64>,
    /// Does the file end in them?
    pub last: bool,
    pub size: usize,
}

impl User {
    /// Runs `ops` operations.
    pub(super) fn work(mut self, ops: u64) {
        for _ in 0..ops {
            self.shared.count(|c| c.operations += 1);
            match self.rng.below(100) {
                0..=44 => self.write_whole(),
                45..=59 => self.write_part(),
                60..=71 => self.change_in_place(),
                72..=83 => self.read(),
                84..=88 if self.syncs() => self.sync_and_more(),
                89..=92 => self.discard(),
                93 if self.last => self.set_len(),
                94..=96 if self.last => self.cut(),
                97 => {
                    let _ = self.file.evict(0..u64::MAX);
                }
                _ => {
                    let span = Nanos(self.rng.below(3_000_000));
                    self.shared
                        .world
                        .sleep_until(self.shared.world.now().plus(span));
                }
            }
        }
    }

    /// Is this one of the syncs that come about? With few, a commit has more than a block of the log to write.
    fn syncs(&mut self) -> bool {
        let lazy = self.shared.drawn.lazy;
        !lazy || self.rng.chance(100_000)
    }

    fn versions<R>(&self, f: impl FnOnce(&mut Versions) -> R) -> R {
        f(&mut self.shared.versions.borrow_mut())
    }

    /// One of its pages; the hot quarter half of the time.
    fn page(&mut self) -> u64 {
        let n = self.pages.end - self.pages.start;
        let hot = if self.rng.chance(500_000) {
            n.div_ceil(4)
        } else {
            n
        };
        self.pages.start + self.rng.below(hot)
    }

    fn bytes(&mut self) -> Bytes {
        let (a, b) = (self.rng.next_u64(), self.rng.next_u64());
        (0..self.size as u64 / 8)
            .flat_map(|i| (a ^ i.wrapping_mul(b | 1)).to_le_bytes())
            .collect()
    }

    /// An error that this run may end an operation with; any other is a finding.
    fn expect(&self, what: &str, error: &Error) {
        let Drawn { faulty, .. } = self.shared.drawn;
        let full = matches!(error, Error::Io { op, source }
            if *op == "reserve space for a write" && source.kind == IoErrorKind::NoSpace);
        let device = matches!(
            error,
            Error::Io { .. }
                | Error::DurabilityLost { .. }
                | Error::TimedOut { .. }
                | Error::OutOfMemory(_)
        );
        assert!(full || (faulty && device), "{what}: {error}");
        if let Error::DurabilityLost { ranges } = error {
            self.versions(|v| ranges.iter().for_each(|r| v.lose(r)));
        }
        self.shared.count(|c| {
            c.failed += 1;
            c.refused += u64::from(full);
        });
    }

    /// Ends an operation that made new bytes of the page, and perhaps a longer file.
    fn settle(&self, what: &str, page: u64, grows: bool, whole: bool, result: Result<(), Error>) {
        match result {
            Ok(()) => self.versions(|v| {
                v.end(page, whole);
                if grows {
                    v.end_len();
                }
            }),
            Err(e) => {
                self.expect(what, &e);
                self.versions(|v| {
                    v.fail(page);
                    if grows {
                        v.fail_len();
                    }
                });
            }
        }
    }

    fn write_whole(&mut self) {
        let page = self.page();
        let (start, size) = (page * self.size as u64, self.size as u64);
        if !self.last && start + size > self.file.len() {
            return;
        }
        let bytes = self.bytes();
        let grows = start + size > self.file.len();
        self.versions(|v| {
            v.begin(page, bytes.clone());
            if grows {
                v.begin_len(start + size);
            }
        });
        let result = self.file.write_at(&bytes, start);
        self.settle("write", page, grows, true, result);
    }

    fn write_part(&mut self) {
        let page = self.page();
        let Some(before) = self.versions(|v| v.now(page).cloned()) else {
            return;
        };
        let from = self.rng.below(self.size as u64) as usize;
        let to = from + 1 + self.rng.below((self.size - from) as u64) as usize;
        let (start, end) = (page * self.size as u64, page * self.size as u64 + to as u64);
        let grows = end > self.file.len();
        if grows && !self.last {
            return;
        }
        let new = self.bytes();
        let mut bytes = before.to_vec();
        bytes[from..to].copy_from_slice(&new[from..to]);
        self.versions(|v| {
            v.begin(page, bytes.into());
            if grows {
                v.begin_len(end);
            }
        });
        let result = self.file.write_at(&new[from..to], start + from as u64);
        self.settle("write of a part", page, grows, false, result);
    }

    /// Through a guard, in two steps, with a pause between them: nobody sees the first alone.
    fn change_in_place(&mut self) {
        let page = self.page();
        let Some(before) = self.versions(|v| v.now(page).cloned()) else {
            return;
        };
        let start = page * self.size as u64;
        if start + self.size as u64 > self.file.len() {
            return;
        }
        let new = self.bytes();
        let mut bytes = before.to_vec();
        let (first, second) = (
            self.rng.below(self.size as u64) as usize,
            self.rng.below(self.size as u64) as usize,
        );
        bytes[first] = new[first];
        bytes[second] = new[second];
        self.versions(|v| v.begin(page, bytes.into()));
        let pause = self.rng.chance(200_000);
        let result = self.file.page_mut(PageNo(page)).map(|mut guard| {
            guard[first] = new[first];
            if pause {
                let now = self.shared.world.now();
                self.shared
                    .world
                    .sleep_until(now.plus(Nanos::from_micros(300)));
            }
            guard[second] = new[second];
        });
        self.settle("page_mut", page, false, false, result);
    }

    fn read(&mut self) {
        let page = self.page();
        let mut bytes = vec![0; self.size];
        match self.file.read_at(&mut bytes, page * self.size as u64) {
            Ok(n) => {
                let checked = self.versions(|v| v.check_now(page, &bytes[..n]));
                assert_eq!(checked, Ok(()), "CRASH-2: read");
                self.shared.count(|c| c.pages_checked += 1);
            }
            Err(e) => self.expect("read", &e),
        }
    }

    /// Whether it succeeded.
    fn sync(&mut self) -> bool {
        let cut = self.versions(|v| v.cut());
        match self.file.sync_data() {
            Ok(()) => {
                self.versions(|v| v.promise(&cut));
                self.shared.count(|c| c.syncs += 1);
                true
            }
            Err(e) => {
                self.expect("sync", &e);
                false
            }
        }
    }

    /// After one that fails, some pages are in doubt: sometimes they go, or are synced again, before they are written anew.
    fn sync_and_more(&mut self) {
        if self.sync() {
            return;
        }
        match self.rng.below(4) {
            0 => self.discard(),
            1 if self.last => self.set_len(),
            2 => {
                self.sync();
            }
            _ => self.sync_page(),
        }
    }

    /// Others of the file may be in doubt, and stay so.
    fn sync_page(&mut self) {
        let page = self.page();
        let size = self.size as u64;
        let cut = self.versions(|v| v.cut_of(page..page + 1));
        match self.file.sync_range(page * size..(page + 1) * size) {
            Ok(()) => self.versions(|v| v.promise(&cut)),
            Err(e) => self.expect("sync of a page", &e),
        }
    }

    /// Between two syncs: a cut is all that is new, unless others write, and the page that it cuts is durable, and clean.
    fn cut(&mut self) {
        if self.sync() && self.rng.chance(500_000) {
            let _ = self.file.evict(0..u64::MAX);
        }
        if self.rng.chance(500_000) {
            let low = self.pages.start * self.size as u64;
            let most = self.file.len().saturating_sub(low);
            let len = low + self.rng.below(most.max(1));
            self.set_len_to(len);
        } else {
            self.set_len();
        }
        for _ in 0..3 {
            if self.sync() {
                break;
            }
        }
    }

    fn discard(&mut self) {
        let first = self.page();
        let end = (first + 1 + self.rng.below(8)).min(self.pages.end);
        let size = self.size as u64;
        let whole = self.file.len() / size;
        let end = end.min(whole);
        if first >= end {
            return;
        }
        self.versions(|v| (first..end).for_each(|p| v.begin_zero(p)));
        let result = self.file.discard(first * size..end * size);
        for page in first..end {
            self.settle("discard", page, false, true, result.clone());
        }
    }

    fn set_len(&mut self) {
        let size = self.size as u64;
        let low = self.pages.start * size;
        let high = self.pages.end * size;
        let len = match self.rng.below(3) {
            0 => low + self.rng.below(high - low + 1),
            1 => (low + self.rng.below(high - low + 1)) / size * size,
            _ => high,
        };
        self.set_len_to(len);
    }

    fn set_len_to(&self, len: u64) {
        let size = self.size as u64;
        let old = self.file.len();
        let cut: Vec<u64> = (len / size..self.pages.end).collect();
        let sure = |p: &u64| self.versions(|v| v.now(*p).is_some());
        if len < old && !cut.iter().all(sure) {
            // What a page that is not known becomes is not known, either.
            return;
        }
        self.versions(|v| {
            v.begin_len(len);
            if len < old {
                for page in &cut {
                    let within = len.saturating_sub(page * size).min(size) as usize;
                    v.begin_cut(*page, within);
                }
            }
        });
        match self.file.set_len(len) {
            Ok(()) => self.versions(|v| {
                v.end_len();
                if len < old {
                    cut.iter().for_each(|p| v.end(*p, false));
                }
            }),
            Err(e) => {
                self.expect("set_len", &e);
                self.versions(|v| {
                    v.fail_len();
                    if len < old {
                        cut.iter().for_each(|p| v.fail(*p));
                    }
                });
            }
        }
    }
}
