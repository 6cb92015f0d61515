//! One page of the shadow: which contents are legal, to the byte.
//!
//! Writes that did not overlap in time are *settled*: applied to `bytes`, in order. The others are *pending*: their
//! order, and for failed ones whether they happened at all, is known only to the engine. What is read must be the
//! outcome of some legal order of the pending writes. A read that meets no write in flight decides the order for good.
//!
//! For crashes a page keeps `durable`, its content as the last successful sync promised it, and the settled writes
//! since; each sector on the medium must be what it was at some point from there on.

use super::fill;

const SECTOR: usize = 512;
/// The most pending writes on one page; the checks try their orders.
pub(super) const PENDING_MAX: usize = 5;

/// One write to a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Op {
    pub id: u64,
    /// Bytes within the page.
    pub from: usize,
    pub to: usize,
    pub stamp: u64,
    pub begin: u64,
    /// `u64::MAX` while in flight.
    pub end: u64,
    /// False when it failed and may or may not have happened.
    pub sure: bool,
    /// A successful sync began after its end.
    pub covered: bool,
}

impl Op {
    fn meets(&self, from: usize, to: usize) -> bool {
        self.from < to && from < self.to
    }

    /// Was over before `other` began.
    fn before(&self, other: &Op) -> bool {
        self.end < other.begin
    }

    /// Shares a sector with `other`, so that their order shows.
    fn mixes_with(&self, other: &Op) -> bool {
        self.meets(
            other.from / SECTOR * SECTOR,
            other.to.next_multiple_of(SECTOR),
        )
    }

    /// Applies the write to `buf`, which is the page from byte `at` on.
    fn apply(&self, page_offset: u64, at: usize, buf: &mut [u8]) {
        let from = self.from.max(at);
        let to = self.to.min(at + buf.len());
        if from < to {
            fill(
                self.stamp,
                page_offset + from as u64,
                &mut buf[from - at..to - at],
            );
        }
    }
}

/// One page.
#[derive(Default)]
pub(super) struct Page {
    /// The content with all settled writes; `None`: zeroes.
    bytes: Option<Box<[u8]>>,
    pub pending: Vec<Op>,
    /// When each read in progress began.
    pub readers: Vec<u64>,
    /// The promised content, when it is not `bytes`.
    durable: Option<Box<[u8]>>,
    log: Vec<Op>,
    /// When it was given up: no sync makes durable what was written before, until the page has been written anew.
    lost_at: Option<u64>,
}

/// Which orders of pending writes are tried, and on what.
struct Search<'a> {
    ops: &'a [Op],
    must: u32,
    page_offset: u64,
    at: usize,
    seen: &'a [u8],
    /// What a crash has left is looked at: a truncation may have met any version of the page.
    crash: bool,
    best: Option<Vec<usize>>,
    /// How many orders give `seen`, those without a write that may have failed included.
    ties: usize,
}

impl Search<'_> {
    /// Tries all legal continuations of `order`, which made `buf`; keeps the longest one that gives `seen`.
    fn run(&mut self, order: &mut Vec<usize>, used: u32, buf: &[u8]) {
        if used & self.must == self.must && buf == self.seen {
            let longest = self.best.as_ref().map_or(-1, |b| b.len() as isize);
            if order.len() as isize > longest {
                self.best = Some(order.clone());
            }
            self.ties += 1;
        }
        for (n, op) in self.ops.iter().enumerate() {
            let legal = used & 1 << n == 0
                && self.ops.iter().enumerate().all(|(m, other)| {
                    let in_use = used & 1 << m != 0;
                    if in_use {
                        !op.before(other)
                    } else {
                        !(other.sure && other.before(op)) || self.crash && op.stamp == 0
                    }
                });
            if legal {
                let mut next = buf.to_vec();
                op.apply(self.page_offset, self.at, &mut next);
                order.push(n);
                self.run(order, used | 1 << n, &next);
                order.pop();
            }
        }
    }
}

/// A page's place: its first byte in the file and its size.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub offset: u64,
    pub size: usize,
}

impl Page {
    /// The content from `from` to `to` with all settled writes.
    pub fn content(&self, from: usize, to: usize) -> Vec<u8> {
        self.bytes
            .as_ref()
            .map_or_else(|| vec![0; to - from], |b| b[from..to].to_vec())
    }

    /// The settled writes that no sync has promised, for reports.
    pub fn unpromised(&self) -> &[Op] {
        &self.log
    }

    /// Starts with content of its own, promised.
    pub fn preset(&mut self, content: &[u8], size: usize) {
        let mut bytes = vec![0; size];
        bytes[..content.len()].copy_from_slice(content);
        self.bytes = Some(bytes.into());
    }

    fn settle_op(&mut self, op: Op, place: Place, crashes: bool) {
        let bytes = self.bytes.get_or_insert_with(|| vec![0; place.size].into());
        if crashes && self.log.is_empty() {
            self.durable = Some(bytes.clone());
        }
        op.apply(place.offset, 0, bytes);
        if crashes {
            self.log.push(op);
            if op.covered {
                self.promise_log(place);
            }
        }
    }

    /// Applies every pending write whose place in the order is certain.
    pub fn settle(&mut self, place: Place, crashes: bool) {
        let oldest = self.readers.iter().copied().min().unwrap_or(u64::MAX);
        loop {
            let next = self.pending.iter().position(|op| {
                op.sure
                    && op.end < oldest
                    && op.end != u64::MAX
                    && self
                        .pending
                        .iter()
                        .all(|p| p.id == op.id || op.before(p) || !op.mixes_with(p))
            });
            let Some(next) = next else { return };
            let op = self.pending.remove(next);
            self.settle_op(op, place, crashes);
        }
    }

    /// Is `seen`, read as one piece from byte `at` of the page on between `begin` and now, legal?
    pub fn check_read(
        &mut self,
        at: usize,
        seen: &[u8],
        begin: u64,
        place: Place,
        crashes: bool,
    ) -> bool {
        let to = at + seen.len();
        let same = match &self.bytes {
            Some(bytes) => bytes[at..to] == *seen,
            None => seen.iter().all(|b| *b == 0),
        };
        if self.pending.is_empty() {
            return same;
        }
        let ops: Vec<Op> = self
            .pending
            .iter()
            .copied()
            .filter(|op| op.meets(at, to))
            .collect();
        let must = mask(&ops, |op| op.sure && op.end < begin);
        let quiet = self.readers.is_empty()
            && ops.len() == self.pending.len()
            && ops
                .iter()
                .all(|op| op.end < begin && at <= op.from && op.to <= to);
        if same && must == 0 && !quiet {
            // No pending write has happened yet: legal, and nothing to be decided.
            return true;
        }
        let Some((order, ties)) = self.search(&ops, must, at, seen, place, false) else {
            return false;
        };
        // Two orders may end alike and differ in what a crash leaves half way: undecided, until a sync covers both.
        let decided = ties == 1 || !crashes || ops.iter().all(|op| op.covered);
        if quiet && decided {
            self.pending.clear();
            for n in order {
                self.settle_op(ops[n], place, crashes);
            }
        }
        true
    }

    fn search(
        &self,
        ops: &[Op],
        must: u32,
        at: usize,
        seen: &[u8],
        place: Place,
        crash: bool,
    ) -> Option<(Vec<usize>, usize)> {
        let mut search = Search {
            ops,
            must,
            page_offset: place.offset,
            at,
            seen,
            crash,
            best: None,
            ties: 0,
        };
        let base = self.content(at, at + seen.len());
        search.run(&mut Vec::new(), 0, &base);
        search.best.map(|order| (order, search.ties))
    }

    /// Is `seen`, the page from its start on, legal now that nothing is in progress?
    pub fn check_exact(&self, seen: &[u8], place: Place) -> bool {
        if self.pending.is_empty() {
            return self.content(0, seen.len()) == seen;
        }
        let must = mask(&self.pending, |op| op.sure);
        self.search(&self.pending, must, 0, seen, place, false)
            .is_some()
    }

    /// What no sync has promised is lost, as far as a crash will tell. Reads see it all the same.
    pub fn lose(&mut self, tick: u64) {
        self.lost_at = Some(tick);
    }

    pub fn is_lost(&self) -> bool {
        self.lost_at.is_some()
    }

    /// A sync that began at `tick` succeeded: what was written before is durable.
    pub fn promise(&mut self, tick: u64, place: Place) {
        if let Some(lost) = self.lost_at {
            // A page is written whole, but for truncations.
            let anew = |op: &Op| op.sure && op.stamp != 0 && op.begin > lost && op.end < tick;
            if !self.log.iter().chain(&self.pending).any(anew) {
                return;
            }
            self.lost_at = None;
        }
        for op in &mut self.pending {
            op.covered |= op.end < tick;
        }
        for op in &mut self.log {
            op.covered |= op.end < tick;
        }
        self.promise_log(place);
    }

    /// Moves what is covered from the log to the promised content, and with it every earlier write to the same sectors:
    /// a page that holds the later one was written whole. Others may have come after the sync's write of the page.
    fn promise_log(&mut self, place: Place) {
        for n in (0..self.log.len()).rev() {
            let (earlier, rest) = self.log.split_at_mut(n);
            if rest[0].covered {
                for op in earlier.iter_mut().filter(|op| op.mixes_with(&rest[0])) {
                    op.covered = true;
                }
            }
        }
        if self.log.iter().all(|op| op.covered) {
            self.log.clear();
            self.durable = None;
        } else if let Some(durable) = &mut self.durable {
            for op in self.log.extract_if(.., |op| op.covered) {
                op.apply(place.offset, 0, durable);
            }
        }
    }

    /// May a crash leave `seen` of this page? The number of the first illegal sector if not.
    pub fn check_crash(&self, seen: &[u8], place: Place) -> Option<usize> {
        if self.pending.is_empty() && self.log.is_empty() {
            let same = |at: usize, s: &[u8]| match &self.bytes {
                Some(bytes) => bytes[at..at + s.len()] == *s,
                None => s.iter().all(|b| *b == 0),
            };
            if same(0, seen) {
                return None;
            }
            return seen
                .chunks(SECTOR)
                .enumerate()
                .find(|(n, s)| !same(n * SECTOR, s))
                .map(|(n, _)| n);
        }
        seen.chunks(SECTOR)
            .enumerate()
            .find(|(n, s)| !self.sector_legal(n * SECTOR, s, place))
            .map(|(n, _)| n)
    }

    /// What the bytes from `at` to `to` may be after a crash, by the settled writes.
    fn states(&self, at: usize, to: usize, place: Place) -> Vec<Vec<u8>> {
        let mut latest = match &self.durable {
            Some(durable) => durable[at..to].to_vec(),
            None => self.content(at, to),
        };
        let mut states = vec![latest.clone()];
        for op in self.log.iter().filter(|op| op.meets(at, to)) {
            if op.stamp == 0 {
                cut_all(&mut states, op, at, place);
            }
            op.apply(place.offset, at, &mut latest);
            states.push(latest.clone());
        }
        states
    }

    fn sector_legal(&self, at: usize, seen: &[u8], place: Place) -> bool {
        let to = at + seen.len();
        let ops: Vec<Op> = self
            .pending
            .iter()
            .copied()
            .filter(|op| op.meets(at, to))
            .collect();
        let must = mask(&ops, |op| op.covered && op.sure);
        if must == 0 {
            let mut states = self.states(at, to, place);
            for cut in ops.iter().filter(|op| op.stamp == 0) {
                cut_all(&mut states, cut, at, place);
            }
            if states.iter().any(|s| s == seen) {
                return true;
            }
        }
        self.search(&ops, must, at, seen, place, true).is_some()
    }
}

/// A truncation takes effect by itself, on whatever version of the sector the medium holds.
fn cut_all(states: &mut Vec<Vec<u8>>, cut: &Op, at: usize, place: Place) {
    for n in 0..states.len() {
        let mut state = states[n].clone();
        cut.apply(place.offset, at, &mut state);
        if !states.contains(&state) {
            states.push(state);
        }
    }
}

fn mask(ops: &[Op], f: impl Fn(&Op) -> bool) -> u32 {
    ops.iter()
        .enumerate()
        .fold(0, |m, (n, op)| m | u32::from(f(op)) << n)
}
