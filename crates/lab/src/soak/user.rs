//! One task of a soak: operations at random, each compared with the shadow.

use super::{CrashPoint, Soak, Subject, now};
use crate::rng::Rng;
use crate::shadow::{Access, Outcome, fill};
use crate::world::LabWorld;
use highwater_engine::{BlockOptions, Error, File, FileOptions, Nanos, PageNo, World};
use std::ops::Range;

/// The most bytes of one read or write.
const RUN_MAX: u64 = 64 << 10;

pub(super) struct User<'a> {
    soak: &'a Soak,
    number: usize,
    rng: Rng,
    /// The file at hand.
    file: usize,
    buf: Vec<u8>,
    /// Where a sequential reader is, per file.
    at: Vec<u64>,
}

impl<'a> User<'a> {
    pub fn new(soak: &'a Soak, number: usize) -> User<'a> {
        User {
            soak,
            number,
            rng: Rng::new(soak.options.seed, 1_000 + number as u64),
            file: 0,
            buf: Vec::new(),
            at: vec![0; soak.subjects.len()],
        }
    }

    /// Does operations until all users together have done enough.
    pub fn run(&mut self) {
        let shares = self.soak.options.mix.shares();
        let total: u32 = shares.iter().sum();
        while !self.soak.enough() {
            self.state("between", true);
            self.stand_by();
            let mut draw = self.rng.below(u64::from(total)) as u32;
            let op = shares.iter().position(|s| {
                let here = draw < *s;
                draw = draw.saturating_sub(*s);
                here
            });
            let n = self.rng.below(self.soak.subjects.len() as u64) as usize;
            self.operate(op.unwrap_or(0), n);
            self.soak.passed(&self.soak.ops, CrashPoint::Op);
        }
        self.state("ended", true);
        self.soak.users.borrow_mut()[self.number].ended = true;
    }

    /// Outside of the engine: goes on when nobody wants the users to stop.
    fn stand_by(&self) {
        while self.soak.pause.get() {
            let w = &self.soak.world;
            w.sleep_until(w.now().plus(Nanos::from_millis(1)));
        }
    }

    fn state(&self, doing: &'static str, outside: bool) {
        let now = now(self.soak);
        let state = &mut self.soak.users.borrow_mut()[self.number];
        if outside && !state.outside {
            let took = now.since(state.since);
            let (longest, _) = self.soak.longest.get();
            if took > longest {
                self.soak.longest.set((took, state.doing));
            }
            let writes = state.doing.starts_with("write") || state.doing == "page_mut";
            let (longest, _) = self.soak.longest_spared.get();
            if writes && took > longest && self.soak.options.is_spared(self.file) {
                self.soak.longest_spared.set((took, state.doing));
            }
        }
        state.since = now;
        if !outside {
            state.began = now;
        }
        state.since_step = self.soak.world.steps();
        state.doing = doing;
        state.outside = outside;
    }

    fn operate(&mut self, op: usize, n: usize) {
        self.file = n;
        match op {
            0 => self.write(n, "write_at"),
            1 => self.write(n, "write_at of pages"),
            2 => self.page_mut(n),
            3 => self.append(n),
            4 => self.read(n),
            5 => self.read_on(n),
            6 => self.page(n),
            7 => self.set_len(n),
            8 => self.evict(n),
            9 => self.sync(n, None),
            10 => {
                let range = self.place(n, RUN_MAX);
                self.sync(n, Some(range));
            }
            11 => {
                let w = &self.soak.world;
                w.sleep_until(w.now().plus(Nanos::from_micros(self.rng.below(5_000))));
            }
            12 => self.hoard(n),
            13 => self.block(n),
            14 => self.compact(),
            15 => self.discard(n),
            16 => self.open(n),
            _ => self.pages_mut(n),
        }
    }

    fn subject(&self, n: usize) -> &'a Subject {
        &self.soak.subjects[n]
    }

    fn frame(&self) -> u64 {
        self.soak.options.frame_size as u64
    }

    /// Some bytes of the file `n`, at most `max` of them.
    fn place(&mut self, n: usize, max: u64) -> Range<u64> {
        let len = self.subject(n).shadow.borrow().len().max(1);
        let part = if self.rng.chance(self.soak.options.hot_ppm) {
            len.div_ceil(8)
        } else {
            len
        };
        let start = self.rng.below(part);
        let end = start + 1 + self.rng.below(max);
        start..end.min(len)
    }

    /// Some whole pages.
    fn pages(&mut self, n: usize, max: u64) -> Range<u64> {
        let frame = self.frame();
        let len = self.subject(n).shadow.borrow().len();
        let count = 1 + self.rng.below(max);
        let start = self.place(n, 1).start / frame * frame;
        start..(start + count * frame).min(len).max(start + 1)
    }

    fn write(&mut self, n: usize, what: &'static str) {
        let frame = self.frame();
        let range = match what {
            "write_at" => {
                let max = self.rng.pick(&[16, 600, frame, 3 * frame]);
                self.place(n, max)
            }
            _ => {
                let max = self.rng.pick(&[1, 1, 4, RUN_MAX / frame]);
                self.pages(n, max)
            }
        };
        self.write_range(n, what, range);
    }

    fn append(&mut self, n: usize) {
        let len = self.subject(n).shadow.borrow().len();
        let limit = self.soak.options.files[n].1 * 5 / 4;
        let gap = self.rng.pick(&[0, 0, 100, self.frame()]);
        let end = len + gap + 1 + self.rng.below(2 * self.frame());
        if end <= limit {
            self.write_range(n, "write_at beyond the end", len + gap..end);
            if self.rng.chance(100_000) {
                // Who appends beside us finds it on the device, and nowhere else.
                self.evict_range(n, len..end);
            }
        }
    }

    fn write_range(&mut self, n: usize, what: &'static str, range: Range<u64>) {
        let s = self.subject(n);
        let Some(access) = s.shadow.borrow_mut().begin_write(range.clone()) else {
            return self.settle(n, &range);
        };
        self.buf.resize((range.end - range.start) as usize, 0);
        fill(access.stamp, range.start, &mut self.buf);
        self.state(what, false);
        let result = s.file().write_at(&self.buf, range.start);
        self.state(what, true);
        let one_page = (range.end - 1) / self.frame() == range.start / self.frame();
        let outcome = match &result {
            Ok(()) => Outcome::Done,
            Err(_) if one_page => Outcome::NotDone,
            Err(_) => Outcome::Unknown,
        };
        let verdict = s
            .shadow
            .borrow_mut()
            .end_write(access, outcome, s.file().len());
        self.soak.agree(n, what, verdict);
        self.judge(n, what, result.err());
    }

    /// Too many writes of undecided order stand at `range`: a read of a whole page decides.
    fn settle(&mut self, n: usize, range: &Range<u64>) {
        let frame = self.frame();
        let start = range.start / frame * frame;
        self.read_range(n, "read_at", start..start + frame);
    }

    fn page_mut(&mut self, n: usize) {
        let frame = self.frame();
        let place = self.place(n, frame);
        let number = place.start / frame;
        let page_end = self.page_end(n, number);
        let range = if self.rng.chance(300_000) {
            number * frame..page_end
        } else {
            place.start..place.end.min(page_end)
        };
        self.change(n, vec![range]);
    }

    /// Several pages in a row, latched together: in order, so that two who do so never wait for each other.
    fn pages_mut(&mut self, n: usize) {
        let first = self.place(n, 1).start / self.frame();
        let count = self.rng.between(2, 6);
        let frame = self.frame();
        let ranges = (first..first + count).map(|number| number * frame..(number + 1) * frame);
        self.change(n, ranges.collect());
    }

    /// Where the bytes of a page end.
    fn page_end(&self, n: usize, number: u64) -> u64 {
        let len = self.subject(n).shadow.borrow().len();
        ((number + 1) * self.frame()).min(len)
    }

    /// Changes each of the ranges, which lie in one page each, through a guard; lets go of none before the last is changed.
    fn change(&mut self, n: usize, ranges: Vec<Range<u64>>) {
        let frame = self.frame();
        let (s, file) = (self.subject(n), self.subject(n).file());
        let several = ranges.len() > 1;
        let mut error = None;
        let mut held = Vec::new();
        for range in ranges {
            // The file may have become shorter while the page before was waited for.
            let number = range.start / frame;
            let page_end = self.page_end(n, number);
            let range = range.start..range.end.min(page_end);
            if range.is_empty() {
                break;
            }
            let Some(access) = s.shadow.borrow_mut().begin_write(range.clone()) else {
                if held.is_empty() {
                    self.settle(n, &range);
                }
                break;
            };
            let size = (page_end - number * frame) as usize;
            // With holes: a page may be punched between its latch and the look at it, which is a look at what was before.
            let early = (self.soak.options.mix.discard > 0).then(|| s.shadow.borrow_mut().moment());
            self.state("page_mut", false);
            match file.page_mut(PageNo(number)) {
                Ok(mut guard) => {
                    let verdict = {
                        let mut shadow = s.shadow.borrow_mut();
                        let moment = early.unwrap_or_else(|| shadow.moment());
                        shadow.check_page(number, moment, &guard[..size])
                    };
                    self.soak.agree(n, "page_mut", verdict);
                    self.hold();
                    let (from, to) = (range.start - number * frame, range.end - number * frame);
                    let bytes = &mut guard[from as usize..to as usize];
                    fill(access.stamp, range.start, bytes);
                    self.hold();
                    held.push((guard, access));
                }
                Err(e) => {
                    self.state("page_mut", true);
                    let verdict =
                        (s.shadow.borrow_mut()).end_write(access, Outcome::NotDone, file.len());
                    self.soak.agree(n, "page_mut", verdict);
                    // Those that are held may be all that are dirty, or in memory, and the file shorter by now.
                    let mine = !held.is_empty() && matches!(e, Error::AllPinned { .. });
                    let short = several && matches!(e, Error::OutOfRange { .. });
                    error = (!mine && !short).then_some(e);
                    break;
                }
            }
        }
        for (guard, access) in held {
            drop(guard);
            let verdict = (s.shadow.borrow_mut()).end_write(access, Outcome::Done, file.len());
            self.soak.agree(n, "page_mut", verdict);
        }
        self.state("page_mut", true);
        self.judge(n, "page_mut", error);
    }

    /// Time passes while a guard is held, now and then.
    fn hold(&mut self) {
        if self.rng.chance(20_000) {
            let w = &self.soak.world;
            let length = self.rng.below(self.soak.options.hold.0);
            w.sleep_until(w.now().plus(Nanos(length)));
        }
    }

    fn read(&mut self, n: usize) {
        let frame = self.frame();
        let range = if self.rng.chance(300_000) {
            self.pages(n, 4)
        } else {
            let max = self.rng.pick(&[16, 600, frame, 3 * frame]);
            self.place(n, max)
        };
        // Beyond the end now and then.
        let more = self.rng.pick(&[0, 0, 0, frame]);
        self.read_range(n, "read_at", range.start..range.end + more);
    }

    fn read_on(&mut self, n: usize) {
        let len = self.subject(n).shadow.borrow().len();
        let start = if self.at[n] < len { self.at[n] } else { 0 };
        let size = 16 << 10;
        self.at[n] = start + size;
        self.read_range(n, "sequential read_at", start..start + size);
    }

    fn read_range(&mut self, n: usize, what: &'static str, range: Range<u64>) {
        let file = self.subject(n).file();
        self.read_by(n, what, file, range);
    }

    fn read_by(&mut self, n: usize, what: &'static str, file: File<LabWorld>, range: Range<u64>) {
        let s = self.subject(n);
        let Some(access) = s.shadow.borrow_mut().begin_read(range.clone()) else {
            return;
        };
        self.buf.resize((range.end - range.start) as usize, 0);
        self.state(what, false);
        let result = file.read_at(&mut self.buf, range.start);
        drop(file);
        self.state(what, true);
        let seen = result.as_ref().ok().map(|count| &self.buf[..*count]);
        let verdict = s.shadow.borrow_mut().end_read(access, seen);
        self.soak.agree(n, what, verdict);
        self.judge(n, what, result.err());
    }

    fn page(&mut self, n: usize) {
        let frame = self.frame();
        let number = self.place(n, 1).start / frame;
        let s = self.subject(n);
        let range = number * frame..(number + 1) * frame;
        let Some(access) = s.shadow.borrow_mut().begin_read(range.clone()) else {
            return;
        };
        self.state("page", false);
        let file = s.file();
        let error = match file.page(PageNo(number)) {
            Ok(guard) => {
                assert_eq!(guard.len(), frame as usize, "a guard is a whole page");
                let verdict = s.shadow.borrow_mut().end_guard(access, Some(&guard));
                self.soak.agree(n, "page", verdict);
                if self.rng.chance(20_000) {
                    let copy = guard.to_vec();
                    self.hold();
                    assert!(copy == *guard, "page {number} changed under a shared guard");
                }
                None
            }
            Err(e) => self.page_error(n, access, e),
        };
        self.state("page", true);
        self.judge(n, "page", error);
    }

    /// A guard was refused: beyond the end that is right, if the file was so short meanwhile.
    fn page_error(&self, n: usize, access: Access, error: Error) -> Option<Error> {
        let mut shadow = self.subject(n).shadow.borrow_mut();
        let (shortest, _) = shadow.lens_of(&access);
        let beyond = access.range.start >= shortest;
        let verdict = shadow.end_guard(access, None);
        self.soak.agree(n, "page", verdict);
        (!(beyond && matches!(error, Error::OutOfRange { .. }))).then_some(error)
    }

    /// Takes guards on as many pages as it gets, in order, so that two who do so never wait for each other.
    fn hoard(&mut self, n: usize) {
        let s = self.subject(n);
        let pages = s.shadow.borrow().len() / self.frame();
        let first = self.rng.below(pages.max(2) / 2);
        let file = s.file();
        let mut guards = Vec::new();
        self.state("hoard", false);
        let mut error = None;
        // Not for so long that others give up: under some policies an allocation takes a second when all is held.
        let until = now(self.soak).plus(Nanos::from_secs(1));
        for number in first..pages {
            if now(self.soak) > until {
                break;
            }
            match file.page(PageNo(number)) {
                Ok(guard) => guards.push(guard),
                // The file is shorter by now.
                Err(Error::OutOfRange { .. }) => break,
                Err(Error::AllPinned { mine, .. }) => {
                    assert_eq!(mine as usize, guards.len(), "AllPinned counts my guards");
                    break;
                }
                Err(e) => {
                    error = Some(e);
                    break;
                }
            }
        }
        drop(guards);
        self.state("hoard", true);
        self.judge(n, "hoard", error);
    }

    /// Takes a block of frames, keeps it for a time, and finds in it what it left there.
    fn block(&mut self, n: usize) {
        let order = self.rng.between(1, 4) as u32;
        let mut options = self.rng.pick(&[
            BlockOptions::patient(),
            BlockOptions::patient(),
            BlockOptions::thp(),
            BlockOptions::nowait(),
        ]);
        options.timeout = Nanos::from_millis(200);
        let stamp = self.rng.below(u64::MAX);
        self.state("alloc_block", false);
        let error = match self.soak.engine.alloc_block(order, options) {
            Ok(mut block) => {
                assert_eq!(block.len(), (self.frame() as usize) << order);
                fill(stamp, 0, &mut block);
                let length = self.rng.below(self.soak.options.hold.0);
                let w = &self.soak.world;
                w.sleep_until(w.now().plus(Nanos(length)));
                self.buf.resize(block.len(), 0);
                fill(stamp, 0, &mut self.buf);
                assert!(*block == *self.buf, "BLOCK-1: somebody wrote into a block");
                None
            }
            Err(Error::NoBlock(_)) => None,
            Err(e) => Some(e),
        };
        self.state("alloc_block", true);
        self.judge(n, "alloc_block", error);
    }

    /// Moves pages about, whatever else is under way.
    fn compact(&mut self) {
        let order = self.rng.between(1, 5) as u32;
        self.state("compact_memory", false);
        self.soak.engine.compact_memory(order);
        self.state("compact_memory", true);
    }

    fn set_len(&mut self, n: usize) {
        let first = self.soak.options.files[n].1;
        if self.rng.chance(300_000) {
            // What is being read ahead is cut off, and read again once the file is as long as before.
            self.read_on(n);
            let len = self.subject(n).shadow.borrow().len();
            self.resize(n, self.at[n].min(len));
            self.resize(n, len.max(first / 2));
            return self.read_on(n);
        }
        if self.rng.chance(200_000) {
            // Between two syncs: the length is all that is new, unless others write.
            let len = self.subject(n).shadow.borrow().len();
            self.sync(n, None);
            let frame = self.frame();
            let less = len.min(self.rng.below(2 * frame));
            self.resize(n, len - less);
            return self.sync(n, None);
        }
        let len = if self.rng.chance(500_000) {
            first - self.rng.below(first / 4)
        } else {
            self.place(n, 1).start.max(first / 2)
        };
        self.resize(n, len);
    }

    fn resize(&mut self, n: usize, len: u64) {
        let s = self.subject(n);
        let Some(access) = s.shadow.borrow_mut().begin_resize(len) else {
            return;
        };
        self.state("set_len", false);
        let result = s.file().set_len(len);
        self.state("set_len", true);
        let verdict = s
            .shadow
            .borrow_mut()
            .end_resize(access, result.is_ok(), s.file().len());
        self.soak.agree(n, "set_len", verdict);
        self.judge(n, "set_len", result.err());
    }

    fn discard(&mut self, n: usize) {
        // Between two syncs, now and then: the hole is all that is new, unless others write.
        let alone = self.rng.chance(200_000);
        if alone {
            self.sync(n, None);
        }
        self.punch(n);
        if alone {
            self.sync(n, None);
        }
    }

    fn punch(&mut self, n: usize) {
        let max = self.rng.pick(&[1, 3, 10]) * self.frame();
        let mut range = self.place(n, max);
        match self.rng.below(4) {
            0 => {}
            1 => {
                let len = self.subject(n).shadow.borrow().len();
                range = len.saturating_sub(max)..u64::MAX;
            }
            _ => range = self.pages(n, max / self.frame()),
        }
        let s = self.subject(n);
        let Some(access) = s.shadow.borrow_mut().begin_discard(range.clone()) else {
            return;
        };
        self.state("discard", false);
        let result = s.file().discard(range);
        self.state("discard", true);
        let outcome = match &result {
            Ok(()) => Outcome::Done,
            Err(_) => Outcome::NotDone,
        };
        let verdict = s
            .shadow
            .borrow_mut()
            .end_write(access, outcome, s.file().len());
        self.soak.agree(n, "discard", verdict);
        self.judge(n, "discard", result.err());
    }

    fn evict(&mut self, n: usize) {
        let range = self.place(n, 1 << 20);
        self.evict_range(n, range);
    }

    fn evict_range(&mut self, n: usize, range: Range<u64>) {
        self.state("evict", false);
        let result = self.subject(n).file().evict(range);
        self.state("evict", true);
        self.judge(n, "evict", result.err());
    }

    /// Opens the file once more, for a moment.
    fn open(&mut self, n: usize) {
        let s = self.subject(n);
        let write = self.rng.chance(500_000);
        let file = self
            .soak
            .engine
            .open(s.id, s.backing.clone(), FileOptions { write })
            .unwrap_or_else(|e| panic!("another open of file {n}: {e}"));
        if self.rng.chance(500_000) {
            return self.sync_by(n, file, None);
        }
        let range = self.place(n, 3 * self.frame());
        self.read_by(n, "read_at of another handle", file, range);
    }

    fn sync(&mut self, n: usize, range: Option<Range<u64>>) {
        let file = self.subject(n).file();
        self.sync_by(n, file, range);
    }

    fn sync_by(&mut self, n: usize, file: File<LabWorld>, range: Option<Range<u64>>) {
        let s = self.subject(n);
        let promise = s.shadow.borrow_mut().begin_sync(range.clone());
        let (whole, healed) = (range.is_none(), self.soak.healed.get());
        self.state("sync", false);
        let result = match range {
            Some(range) => s.telling(|| file.sync_range(range)),
            None if self.rng.chance(500_000) => s.telling(|| file.sync_data()),
            None => s.telling(|| file.sync_all()),
        };
        drop(file);
        self.state("sync", true);
        match result {
            Ok(()) => {
                assert!(
                    !s.has_lost(),
                    "file {n}: a sync succeeds after DurabilityLost"
                );
                s.shadow.borrow_mut().keep(&promise);
                self.soak.synced(n, whole, healed);
            }
            Err(error) => {
                s.note_lost(&error);
                s.doubtful.set(true);
                let late = matches!(error, Error::TimedOut { .. });
                self.judge(n, "sync", Some(error));
                if late && whole && self.rng.chance(700_000) {
                    // Its writes are in flight still.
                    self.sync(n, None);
                }
            }
        }
    }

    fn judge(&mut self, n: usize, what: &str, error: Option<Error>) {
        let Some(error) = error else { return };
        let began = self.soak.users.borrow()[self.number].began;
        self.soak.tolerate(n, what, began, &error);
        // A user of a failing device goes easy on it.
        if self.soak.options.trouble.may_fail_writes() {
            let w = &self.soak.world;
            w.sleep_until(w.now().plus(Nanos::from_micros(self.rng.below(2_000))));
            // What the operation has still to do may be a file that is closed just now.
            self.stand_by();
        }
    }
}
