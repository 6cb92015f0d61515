//! The shadow: what each byte of a file may be, whatever many tasks do at one time.
//!
//! Every write has a *stamp*, and each of its bytes is a function of stamp and offset ([`fill`]), so that a byte of the
//! wrong version, page or file shows. The users of a file announce what they do (`begin_*`) and what came of it
//! (`end_*`), and hand in what they read.
//!
//! **Rules checked.**
//! - SHADOW-1: a page is read as one legal order of the writes to it leaves it: all those that ended before the read
//!   began, any that overlapped it in time; each applies to the page whole or not at all.
//! - SHADOW-2: after a crash each sector of a page is what it was at some time from the last successful sync on.
//! - SHADOW-3: the length is exact; after a crash it is within those that the file had since the last full sync.
//!
//! Writes that extend the file, and `set_len`, exclude other writes of the pages that they touch or drop: `begin_*`
//! then returns `None`, and the caller does something else. Several writes may extend the file at one time. Reads go on
//! beside them: they may see any length that the file had meanwhile. A hole is a write of zeroes, of whole pages.

mod page;
#[cfg(test)]
mod tests;

use crate::rng::mix;
use page::{Op, PENDING_MAX, Page, Place};
use std::fmt;
use std::ops::Range;

/// The bytes of the write `stamp` at `offset`. Stamp 0 is zeroes.
pub fn fill(stamp: u64, offset: u64, buf: &mut [u8]) {
    if stamp == 0 {
        return buf.fill(0);
    }
    // One multiplication, so that the loop below becomes vector code: a soak spends much of its time here.
    let seed = mix(stamp);
    let word = |at: u64| {
        let x = seed.wrapping_add((at / 8).wrapping_mul(0x9fb2_1c65_1e98_df25));
        (x ^ (x >> 32)).to_le_bytes()
    };
    let skip = (offset % 8) as usize;
    let mut at = offset - skip as u64;
    let mut rest = buf;
    if skip > 0 {
        let n = (8 - skip).min(rest.len());
        let (head, tail) = rest.split_at_mut(n);
        head.copy_from_slice(&word(at)[skip..skip + n]);
        rest = tail;
        at += 8;
    }
    let (words, tail) = rest.as_chunks_mut::<8>();
    for chunk in words {
        *chunk = word(at);
        at += 8;
    }
    tail.copy_from_slice(&word(at)[..tail.len()]);
}

/// What the shadow found wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mismatch(pub String);

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What came of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It returned `Ok`.
    Done,
    /// It failed, and nothing was written.
    NotDone,
    /// It failed, and any of its pages may have been written.
    Unknown,
}

/// An access in progress.
#[derive(Debug)]
#[must_use]
pub struct Access {
    id: u64,
    begin: u64,
    /// The bytes.
    pub range: Range<u64>,
    /// The write's stamp.
    pub stamp: u64,
    extends: bool,
}

/// A sync in progress.
#[derive(Clone, Debug)]
#[must_use]
pub struct Promise {
    begin: u64,
    pages: Option<Range<u64>>,
}

/// What an access may run beside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Anything.
    Read,
    /// Reads and writes.
    Write,
    /// Reads, and its like.
    Extend,
    /// Reads.
    Resize,
}

impl Kind {
    fn resizes(self) -> bool {
        matches!(self, Kind::Extend | Kind::Resize)
    }

    /// May two such go on beside each other?
    fn beside(self, other: Kind) -> bool {
        let alike = self == other && self != Kind::Resize;
        alike || self == Kind::Read || other == Kind::Read
    }
}

struct Active {
    id: u64,
    range: Range<u64>,
    kind: Kind,
    /// The shortest and the longest that the file has been, or was about to be, since the access began.
    lens: (u64, u64),
}

/// The shadow of one file.
pub struct Shadow {
    page_size: u64,
    pages: Vec<Page>,
    len: u64,
    /// The lengths since the last promise, and when each came.
    lens: Vec<(u64, u64)>,
    /// Lost pages whose writes may have made the file longer.
    lost_ends: Vec<u64>,
    tick: u64,
    crashes: bool,
    active: Vec<Active>,
    /// Pages read and compared.
    pub pages_checked: u64,
    /// Accesses refused because another excluded them.
    pub refused: u64,
}

impl Shadow {
    /// The shadow of a file that holds `content`, durably.
    pub fn new(page_size: usize, content: &[u8], crashes: bool) -> Shadow {
        let mut pages: Vec<Page> = Vec::new();
        for piece in content.chunks(page_size) {
            let mut page = Page::default();
            page.preset(piece, page_size);
            pages.push(page);
        }
        Shadow {
            page_size: page_size as u64,
            pages,
            len: content.len() as u64,
            lens: vec![(0, content.len() as u64)],
            lost_ends: Vec::new(),
            tick: 1,
            crashes,
            active: Vec::new(),
            pages_checked: 0,
            refused: 0,
        }
    }

    /// A file that starts with a hole up to `len`, durably.
    pub fn grow_before_use(&mut self, len: u64) {
        assert!(len >= self.len && self.active.is_empty());
        self.len = len;
        self.lens = vec![(0, len)];
    }

    /// The length, when nothing that changes it is in progress.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.len
    }

    fn tick(&mut self) -> u64 {
        self.tick += 1;
        self.tick
    }

    fn pages_of(&self, range: &Range<u64>) -> Range<u64> {
        range.start / self.page_size..range.end.div_ceil(self.page_size)
    }

    fn place(&self, page: u64) -> Place {
        Place {
            offset: page * self.page_size,
            size: self.page_size as usize,
        }
    }

    /// Admits an access to whole pages around `range`, or says no. `target`: the length that it is about to set.
    fn admit(&mut self, range: &Range<u64>, kind: Kind, target: Option<u64>) -> Option<u64> {
        let pages = self.pages_of(range);
        let clash = self.active.iter().any(|a| {
            !kind.beside(a.kind) && a.range.start < pages.end && pages.start < a.range.end
        });
        if clash {
            self.refused += 1;
            return None;
        }
        let id = self.tick();
        // A change of the length that is in progress may take effect at any time from now on.
        let coming = self.active.iter().filter(|a| a.kind.resizes());
        let lens = coming.fold((self.len, self.len), |l, a| {
            (l.0.min(a.lens.0), l.1.max(a.lens.1))
        });
        self.active.push(Active {
            id,
            range: pages,
            kind,
            lens,
        });
        if let Some(len) = target {
            self.note_len(len);
        }
        Some(id)
    }

    /// The file is or may soon be `len` bytes long: every access in progress may see that.
    fn note_len(&mut self, len: u64) {
        for a in &mut self.active {
            a.lens = (a.lens.0.min(len), a.lens.1.max(len));
        }
    }

    /// Ends an access; the lengths that it may have seen.
    fn leave(&mut self, id: u64) -> (u64, u64) {
        match self.active.iter().position(|a| a.id == id) {
            Some(at) => self.active.swap_remove(at).lens,
            None => unreachable!("an access ends once"),
        }
    }

    /// Does a page of the range have too many writes of undecided order for one more?
    fn crowded(&mut self, range: &Range<u64>) -> bool {
        let crowded = self.pages_of(range).any(|p| {
            self.pages
                .get(p as usize)
                .is_some_and(|p| p.pending.len() >= PENDING_MAX)
        });
        self.refused += u64::from(crowded);
        crowded
    }

    /// Announces a write of `range`.
    pub fn begin_write(&mut self, range: Range<u64>) -> Option<Access> {
        let extends = range.end > self.len;
        if self.crowded(&range) {
            return None;
        }
        let claim = if extends {
            range.start.min(self.len)..u64::MAX - self.page_size
        } else {
            range.clone()
        };
        let (kind, target) = if extends {
            (Kind::Extend, Some(range.end))
        } else {
            (Kind::Write, None)
        };
        let id = self.admit(&claim, kind, target)?;
        if extends {
            self.lens.push((u64::MAX, range.end));
        }
        for number in self.pages_of(&range) {
            let op = self.op(id, number, &range, id);
            self.page(number).pending.push(op);
        }
        Some(Access {
            id,
            begin: id,
            range,
            stamp: id,
            extends,
        })
    }

    fn op(&self, id: u64, page: u64, range: &Range<u64>, stamp: u64) -> Op {
        let first = page * self.page_size;
        Op {
            id,
            from: (range.start.max(first) - first) as usize,
            to: (range.end.min(first + self.page_size) - first) as usize,
            stamp,
            begin: id,
            end: u64::MAX,
            sure: true,
            covered: false,
        }
    }

    fn page(&mut self, number: u64) -> &mut Page {
        let at = number as usize;
        if at >= self.pages.len() {
            self.pages.resize_with(at + 1, Page::default);
        }
        &mut self.pages[at]
    }

    /// Ends a write or a hole; `len` is the file's length as the engine tells it now.
    ///
    /// # Errors
    /// When the length is wrong.
    pub fn end_write(
        &mut self,
        access: Access,
        outcome: Outcome,
        len: u64,
    ) -> Result<(), Mismatch> {
        let end = self.tick();
        self.leave(access.id);
        for number in self.pages_of(&access.range) {
            let (place, crashes) = (self.place(number), self.crashes);
            let page = self.page(number);
            if outcome == Outcome::NotDone {
                page.pending.retain(|op| op.id != access.id);
            }
            for op in page.pending.iter_mut().filter(|op| op.id == access.id) {
                op.end = end;
                op.sure = outcome == Outcome::Done;
            }
            page.settle(place, crashes);
        }
        if access.extends {
            let others = self.active.iter().filter(|a| a.kind == Kind::Extend);
            let longest = others.map(|a| a.lens.1).max().unwrap_or(0);
            let least = match outcome {
                Outcome::Done => self.len.max(access.range.end),
                Outcome::NotDone | Outcome::Unknown => self.len,
            };
            let legal = least..=self.len.max(access.range.end).max(longest);
            return self.set_len_now(len, legal, end);
        }
        Ok(())
    }

    fn set_len_now(
        &mut self,
        len: u64,
        legal: std::ops::RangeInclusive<u64>,
        tick: u64,
    ) -> Result<(), Mismatch> {
        if !legal.contains(&len) {
            return Err(Mismatch(format!(
                "SHADOW-3: the file is {len} bytes long, expected {legal:?}"
            )));
        }
        self.len = len;
        self.note_len(len);
        self.lens.push((tick, len));
        Ok(())
    }

    /// Announces a read of `range`.
    pub fn begin_read(&mut self, range: Range<u64>) -> Option<Access> {
        let id = self.admit(&range, Kind::Read, None)?;
        for number in self.pages_of(&range) {
            self.page(number).readers.push(id);
        }
        Some(Access {
            id,
            begin: id,
            range,
            stamp: 0,
            extends: false,
        })
    }

    /// Ends a read that returned `seen` (`None`: it failed, and nothing is checked).
    ///
    /// # Errors
    /// When the bytes, or their number, are wrong (SHADOW-1, SHADOW-3).
    pub fn end_read(&mut self, access: Access, seen: Option<&[u8]>) -> Result<(), Mismatch> {
        let lens = self.leave(access.id);
        let counted = match seen {
            Some(seen) => self.check_count(&access.range, seen.len() as u64, lens),
            None => Ok(()),
        };
        let checked = self.end_look(&access, seen);
        counted.and(checked)
    }

    /// Ends the look at a guard of one whole page, which began with `begin_read` of it: beyond the end of the file it
    /// is zero.
    ///
    /// # Errors
    /// When the bytes are wrong (SHADOW-1).
    pub fn end_guard(&mut self, access: Access, seen: Option<&[u8]>) -> Result<(), Mismatch> {
        self.leave(access.id);
        self.end_look(&access, seen)
    }

    /// The shortest and the longest that the file has been, or was about to be, since `access` began.
    pub fn lens_of(&self, access: &Access) -> (u64, u64) {
        let active = self.active.iter().find(|a| a.id == access.id);
        active.map_or((self.len, self.len), |a| a.lens)
    }

    fn check_count(
        &self,
        range: &Range<u64>,
        count: u64,
        lens: (u64, u64),
    ) -> Result<(), Mismatch> {
        let of = |len: u64| len.min(range.end).saturating_sub(range.start);
        if (of(lens.0)..=of(lens.1)).contains(&count) {
            return Ok(());
        }
        Err(Mismatch(format!(
            "SHADOW-3: a read of {range:?} returned {count} bytes of a file of {lens:?} bytes"
        )))
    }

    fn end_look(&mut self, access: &Access, seen: Option<&[u8]>) -> Result<(), Mismatch> {
        let numbers = self.pages_of(&access.range);
        for number in numbers.clone() {
            if let Some(page) = self.pages.get_mut(number as usize) {
                page.readers.retain(|r| *r != access.id);
            }
        }
        let verdict = match seen {
            Some(seen) => self.check(access.range.start, seen, access.begin),
            None => Ok(()),
        };
        for number in numbers {
            let (place, crashes) = (self.place(number), self.crashes);
            if let Some(page) = self.pages.get_mut(number as usize) {
                page.settle(place, crashes);
            }
        }
        verdict
    }

    /// Compares what a guard shows of the page `number` at this moment, all of it.
    ///
    /// # Errors
    /// When the bytes are wrong (SHADOW-1).
    pub fn check_page(&mut self, number: u64, begin: u64, seen: &[u8]) -> Result<(), Mismatch> {
        self.check(number * self.page_size, seen, begin)
    }

    /// The time now, for `check_page`.
    pub fn moment(&mut self) -> u64 {
        self.tick()
    }

    fn check(&mut self, offset: u64, seen: &[u8], begin: u64) -> Result<(), Mismatch> {
        let range = offset..offset + seen.len() as u64;
        for number in self.pages_of(&range) {
            let place = self.place(number);
            let (crashes, now) = (self.crashes, self.tick);
            let from = range.start.max(place.offset);
            let to = range.end.min(place.offset + self.page_size);
            let piece = &seen[(from - offset) as usize..(to - offset) as usize];
            let at = (from - place.offset) as usize;
            self.pages_checked += 1;
            let page = self.page(number);
            if !page.check_read(at, piece, begin, place, crashes) {
                let Mismatch(text) = describe(page, place, at, piece, now);
                return Err(Mismatch(format!("SHADOW-1: {text}")));
            }
        }
        Ok(())
    }

    /// Announces `discard(range)`; `None`, too, if there is no whole page in it. The file's last page counts as whole.
    pub fn begin_discard(&mut self, range: Range<u64>) -> Option<Access> {
        let size = self.page_size;
        let to_the_end = range.end >= self.len;
        let end = match to_the_end {
            true => self.len,
            false => range.end / size * size,
        };
        let holes = range.start.div_ceil(size) * size..end;
        if holes.is_empty() || self.crowded(&holes) {
            return None;
        }
        // Where the file ends must not change meanwhile, if that is where the hole ends.
        let (claim, kind) = match to_the_end {
            true => (range.start..u64::MAX - size, Kind::Resize),
            false => (range, Kind::Write),
        };
        let id = self.admit(&claim, kind, None)?;
        for number in self.pages_of(&holes) {
            let op = self.op(id, number, &holes, 0);
            self.page(number).pending.push(op);
        }
        Some(Access {
            id,
            begin: id,
            range: holes,
            stamp: 0,
            extends: false,
        })
    }

    /// Announces `set_len(len)`.
    pub fn begin_resize(&mut self, len: u64) -> Option<Access> {
        let range = len.min(self.len)..u64::MAX - self.page_size;
        let dropped = len..self.len.max(len);
        if self.crowded(&dropped) {
            return None;
        }
        let id = self.admit(&range, Kind::Resize, Some(len))?;
        self.lens.push((u64::MAX, len));
        if len < self.len {
            for number in self.pages_of(&dropped) {
                let op = self.op(id, number, &dropped, 0);
                self.page(number).pending.push(op);
            }
        }
        Some(Access {
            id,
            begin: id,
            range: len..len,
            stamp: 0,
            extends: false,
        })
    }

    /// Ends `set_len`, which left the file `len` bytes long as the engine tells it; `ok` says that it returned `Ok`.
    ///
    /// # Errors
    /// When the length is wrong.
    pub fn end_resize(&mut self, access: Access, ok: bool, len: u64) -> Result<(), Mismatch> {
        let end = self.tick();
        self.leave(access.id);
        let target = access.range.start;
        let old = self.len;
        for number in self.pages_of(&(target..old.max(target))) {
            let (place, crashes) = (self.place(number), self.crashes);
            let page = self.page(number);
            if len != target {
                page.pending.retain(|op| op.id != access.id);
            }
            for op in page.pending.iter_mut().filter(|op| op.id == access.id) {
                op.end = end;
            }
            page.settle(place, crashes);
        }
        if !ok && len == old {
            return Ok(());
        }
        self.set_len_now(len, target..=target, end)
    }

    /// Announces a sync of `range`, or of the whole file.
    pub fn begin_sync(&mut self, range: Option<Range<u64>>) -> Promise {
        Promise {
            begin: self.tick(),
            pages: range.map(|r| self.pages_of(&r)),
        }
    }

    /// The sync succeeded: what it covers is durable (SHADOW-2).
    pub fn keep(&mut self, promise: &Promise) {
        if !self.crashes {
            return;
        }
        let all = 0..self.pages.len() as u64;
        let pages = promise.pages.clone().unwrap_or(all.clone());
        for number in pages.start..pages.end.min(all.end) {
            let place = self.place(number);
            self.pages[number as usize].promise(promise.begin, place);
        }
        let pages = &self.pages;
        self.lost_ends.retain(|n| pages[*n as usize].is_lost());
        if promise.pages.is_none()
            && self.lost_ends.is_empty()
            && let Some(at) = self.lens.iter().rposition(|(t, _)| *t < promise.begin)
        {
            self.lens.drain(..at);
        }
    }

    /// The users of the file have been told that the pages of these bytes may be lost, and go on: what was written to them
    /// until now, and not promised, is durable only with the next write of its page, and with it the length.
    pub fn lose(&mut self, lost: &[Range<u64>]) {
        let tick = self.tick();
        let shortest = self.lens.iter().map(|(_, len)| *len).min().unwrap_or(0);
        for range in lost {
            for number in self.pages_of(range) {
                if let Some(page) = self.pages.get_mut(number as usize) {
                    page.lose(tick);
                    if (number + 1) * self.page_size > shortest {
                        self.lost_ends.push(number);
                    }
                }
            }
        }
    }

    /// May a crash now leave `image`?
    ///
    /// # Errors
    /// When it is too short or too long, or a sector is of no legal version (SHADOW-2, SHADOW-3).
    pub fn check_crash(&self, image: &[u8]) -> Result<(), Mismatch> {
        self.check_crash_but(image, &[])
    }

    /// As `check_crash`, but for pages that are known to be damaged.
    ///
    /// # Errors
    /// As `check_crash`.
    pub fn check_crash_but(&self, image: &[u8], damaged: &[u64]) -> Result<(), Mismatch> {
        let lens = self.lens.iter().map(|(_, len)| *len);
        let (low, high) = (lens.clone().min().unwrap_or(0), lens.max().unwrap_or(0));
        let len = image.len() as u64;
        if len < low || len > high {
            return Err(Mismatch(format!(
                "SHADOW-3: after a crash the file is {len} bytes long, legal are {low} to {high}"
            )));
        }
        let size = self.page_size as usize;
        let mut short = Vec::new();
        for (number, page) in self.pages.iter().enumerate() {
            let from = (number * size).min(image.len());
            let to = (from + size).min(image.len());
            let buf = if to - from == size {
                &image[from..to]
            } else {
                // The last page, and those beyond: zero after the end.
                short.clear();
                short.extend_from_slice(&image[from..to]);
                short.resize(size, 0);
                &short
            };
            let place = self.place(number as u64);
            if damaged.contains(&(number as u64)) {
                continue;
            }
            if let Some(sector) = page.check_crash(buf, place) {
                let rest = &buf[sector * 512..];
                let Mismatch(text) = describe(page, place, sector * 512, rest, self.tick);
                return Err(Mismatch(format!(
                    "SHADOW-2: sector {sector} of the crash image is no legal version; {text}"
                )));
            }
        }
        Ok(())
    }

    /// Pages whose content only a read can tell.
    pub fn undecided(&self) -> Vec<u64> {
        (0..self.pages.len() as u64)
            .filter(|p| !self.pages[*p as usize].pending.is_empty())
            .collect()
    }

    /// Is `image` the file, now that no access is in progress?
    ///
    /// # Errors
    /// At the first page that differs.
    pub fn check_exact(&self, image: &[u8]) -> Result<(), Mismatch> {
        if image.len() as u64 != self.len {
            return Err(Mismatch(format!(
                "SHADOW-3: the file is {} bytes long, expected {}",
                image.len(),
                self.len
            )));
        }
        for (number, piece) in image.chunks(self.page_size as usize).enumerate() {
            let same = match self.pages.get(number) {
                Some(page) => page.check_exact(piece, self.place(number as u64)),
                None => piece.iter().all(|b| *b == 0),
            };
            if !same {
                return Err(describe(
                    &self.pages[number],
                    self.place(number as u64),
                    0,
                    piece,
                    self.tick,
                ));
            }
        }
        Ok(())
    }
}

/// Says what differs, and which write the first wrong byte belongs to.
fn describe(page: &Page, place: Place, at: usize, seen: &[u8], now: u64) -> Mismatch {
    let want = page.content(at, at + seen.len());
    let differs = |(a, b): (&u8, &u8)| a != b;
    let first = want.iter().zip(seen).position(differs).unwrap_or(0);
    let count = want.iter().zip(seen).filter(|p| p.0 != p.1).count();
    let probe = &seen[first..seen.len().min(first + 16)];
    let mut bytes = vec![0; probe.len()];
    let origin = (0..=now).find(|stamp| {
        fill(*stamp, place.offset + (at + first) as u64, &mut bytes);
        bytes == probe
    });
    let origin = match origin {
        Some(0) => "zeroes".to_owned(),
        Some(stamp) => format!("those of write {stamp}"),
        None => "of no single write to this place".to_owned(),
    };
    Mismatch(format!(
        "page {}: bytes {at}..{} differ from the last settled content in {count} places, first at {}; the bytes there are {origin}; pending writes: {:?}; settled since the last promise: {:?}",
        place.offset / place.size as u64,
        at + seen.len(),
        at + first,
        page.pending,
        page.unpromised()
    ))
}
