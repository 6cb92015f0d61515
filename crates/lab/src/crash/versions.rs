//! What a crash may leave of a volume's file: each page in one of the versions that it has had since the last sync that
//! returned, and one of the lengths.
//!
//! A volume writes a page whole or not at all, so a version is a page's bytes. An operation adds the version that it makes
//! *before* it begins: it may reach the disk before it returns. A sync that returns raises the floor to what had returned
//! when it was called.
//!
//! **Invariants.**
//! - CRASH-1: what a sync promised is there: no page older than its floor.
//! - CRASH-2: nothing else is there: each page is one of its versions, byte by byte, and zero where nothing was written.

use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

/// A page's bytes.
pub(super) type Bytes = Rc<[u8]>;

#[derive(Clone)]
struct Version<T> {
    id: u64,
    value: T,
}

/// The values that something has had since its floor, oldest first; never none.
#[derive(Clone)]
struct History<T> {
    versions: VecDeque<Version<T>>,
    /// The newest whose operation has returned.
    returned: u64,
}

impl<T: Clone + PartialEq> History<T> {
    fn new(value: T) -> History<T> {
        History {
            versions: VecDeque::from([Version { id: 0, value }]),
            returned: 0,
        }
    }

    fn newest(&self) -> &T {
        &self.versions.back().expect("never none").value
    }

    fn push(&mut self, id: u64, value: T) {
        self.versions.push_back(Version { id, value });
    }

    fn raise(&mut self, floor: u64) {
        while self.versions.len() > 1 && self.versions[1].id <= floor {
            self.versions.pop_front();
        }
    }
}

#[derive(Clone)]
struct Page {
    history: History<Bytes>,
    /// An operation on it has failed half way: any of its versions may be the newest.
    unsure: bool,
    /// The cache has said that its bytes are lost: it may be an error to read it, but not to read something else.
    lost: bool,
}

/// The versions of a file. Pages have `size` bytes; there are as many as the file may ever have.
#[derive(Clone)]
pub(super) struct Versions {
    size: usize,
    pages: Vec<Page>,
    len: History<u64>,
    next: u64,
    zero: Bytes,
}

/// What a sync will have promised.
pub(super) struct Cut {
    pages: Vec<Option<u64>>,
    len: u64,
}

impl Versions {
    /// A file of `len` bytes, all zero.
    pub(super) fn new(size: usize, pages: u64, len: u64) -> Versions {
        let zero: Bytes = vec![0; size].into();
        let page = Page {
            history: History::new(zero.clone()),
            unsure: false,
            lost: false,
        };
        Versions {
            size,
            pages: vec![page; pages as usize],
            len: History::new(len),
            next: 1,
            zero,
        }
    }

    pub(super) fn pages(&self) -> u64 {
        self.pages.len() as u64
    }

    /// The page as it is now, unless that is not known.
    pub(super) fn now(&self, page: u64) -> Option<&Bytes> {
        let page = &self.pages[page as usize];
        (!page.unsure).then(|| page.history.newest())
    }

    fn id(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// An operation begins that makes `bytes` of the page.
    pub(super) fn begin(&mut self, page: u64, bytes: Bytes) {
        let id = self.id();
        self.pages[page as usize].history.push(id, bytes);
    }

    /// An operation begins that makes zeroes of the page.
    pub(super) fn begin_zero(&mut self, page: u64) {
        self.begin(page, self.zero.clone());
    }

    /// A truncation begins that leaves `within` bytes of the page. It may reach the disk before a version that is older than
    /// it: then it has cut the one that was there.
    pub(super) fn begin_cut(&mut self, page: u64, within: usize) {
        let versions = &self.pages[page as usize].history.versions;
        let cut: Vec<Bytes> = versions
            .iter()
            .map(|v| {
                let mut bytes = v.value.to_vec();
                bytes[within..].fill(0);
                bytes.into()
            })
            .collect();
        // Each content once, where it is newest: while no sync succeeds, cut after cut would double what there is.
        for (n, bytes) in cut.iter().enumerate() {
            if !cut[n + 1..].contains(bytes) {
                self.begin(page, bytes.clone());
            }
        }
    }

    /// An operation begins that makes the file `len` bytes long.
    pub(super) fn begin_len(&mut self, len: u64) {
        let id = self.id();
        self.len.push(id, len);
    }

    /// The operation on the page has returned.
    pub(super) fn end(&mut self, page: u64, whole: bool) {
        let page = &mut self.pages[page as usize];
        page.history.returned = page.history.versions.back().expect("never none").id;
        page.unsure &= !whole;
    }

    /// The operation on the length has returned.
    pub(super) fn end_len(&mut self) {
        self.len.returned = self.len.versions.back().expect("never none").id;
    }

    /// The operation on the page has failed: what it made may be there or not.
    pub(super) fn fail(&mut self, page: u64) {
        self.pages[page as usize].unsure = true;
    }

    /// The operation on the length has failed, and changed nothing.
    pub(super) fn fail_len(&mut self) {
        let before = self.len.versions[self.len.versions.len().saturating_sub(2)].value;
        self.begin_len(before);
        self.end_len();
    }

    /// A sync begins.
    pub(super) fn cut(&self) -> Cut {
        Cut {
            len: self.len.returned,
            ..self.cut_of(0..self.pages())
        }
    }

    /// A sync of some pages begins.
    pub(super) fn cut_of(&self, range: Range<u64>) -> Cut {
        let floor =
            |(n, p): (u64, &Page)| (range.contains(&n) && !p.unsure).then_some(p.history.returned);
        Cut {
            pages: (0..).zip(&self.pages).map(floor).collect(),
            len: 0,
        }
    }

    /// It has returned.
    pub(super) fn promise(&mut self, cut: &Cut) {
        for (page, floor) in self.pages.iter_mut().zip(&cut.pages) {
            if let Some(floor) = floor {
                page.history.raise(*floor);
                // Written again since, whole.
                page.lost = false;
            }
        }
        self.len.raise(cut.len);
    }

    /// May `bytes`, of a page that the file holds up to `within` bytes, be read now?
    ///
    /// # Errors
    /// How it differs from the newest version.
    pub(super) fn check_now(&self, page: u64, bytes: &[u8]) -> Result<(), String> {
        let versions = &self.pages[page as usize];
        if !versions.unsure {
            return differ(versions.history.newest(), bytes)
                .map_or(Ok(()), |at| Err(self.tell(page, bytes, at)));
        }
        self.check_crash(page, bytes)
    }

    /// May a crash have left the page so? `bytes` may end early, where the file does.
    ///
    /// # Errors
    /// How it differs from the version that it is nearest to (CRASH-1, CRASH-2).
    pub(super) fn check_crash(&self, page: u64, bytes: &[u8]) -> Result<(), String> {
        let versions = &self.pages[page as usize].history.versions;
        let mut first = 0;
        for version in versions {
            match differ(&version.value, bytes) {
                None => return Ok(()),
                Some(at) => first = first.max(at),
            }
        }
        Err(self.tell(page, bytes, first))
    }

    /// May a crash have left the file so long? Where it became longer, pages that lie between the old end and the new one
    /// may have been written before the last: then it ends with one of them.
    ///
    /// # Errors
    /// The lengths that are legal.
    pub(super) fn check_len(&self, len: u64) -> Result<(), String> {
        let mut shortest = u64::MAX;
        for version in &self.len.versions {
            let grown =
                len.is_multiple_of(self.size as u64) && shortest < len && len < version.value;
            if version.value == len || grown {
                return Ok(());
            }
            shortest = shortest.min(version.value);
        }
        let legal: Vec<u64> = self.len.versions.iter().map(|v| v.value).collect();
        Err(format!("the file has {len} bytes; legal are {legal:?}"))
    }

    fn tell(&self, page: u64, bytes: &[u8], at: usize) -> String {
        let legal: Vec<String> = (self.pages[page as usize].history.versions.iter())
            .map(|v| {
                format!(
                    "{}: {:02x}{:02x}",
                    v.id,
                    v.value[at],
                    v.value[at.min(self.size - 8) + 7]
                )
            })
            .collect();
        format!(
            "page {page}: byte {at} is {:02x}; the versions since the last sync have there: {}",
            bytes[at],
            legal.join(", ")
        )
    }

    /// The cache has said that a flush lost these bytes, after they had left memory.
    pub(super) fn lose(&mut self, bytes: &Range<u64>) {
        let size = self.size as u64;
        let end = bytes.end.div_ceil(size).min(self.pages());
        for page in bytes.start / size..end {
            let page = &mut self.pages[page as usize];
            (page.lost, page.unsure) = (true, true);
        }
    }

    /// Are the page's bytes lost, as far as is known?
    pub(super) fn is_lost(&self, page: u64) -> bool {
        self.pages[page as usize].lost
    }

    /// From now on the file is as it was found after a crash; `None` for a page that cannot be read.
    pub(super) fn found(&mut self, len: u64, mut content: impl FnMut(u64) -> Option<Bytes>) {
        for page in 0..self.pages() {
            let bytes = content(page);
            let lost = bytes.is_none();
            self.pages[page as usize] = Page {
                history: History::new(bytes.unwrap_or_else(|| self.zero.clone())),
                unsure: lost,
                lost,
            };
        }
        self.len = History::new(len);
    }
}

/// The first byte where `bytes` is not as the version has it.
fn differ(version: &[u8], bytes: &[u8]) -> Option<usize> {
    if version[..bytes.len()] == *bytes {
        return None;
    }
    version.iter().zip(bytes).position(|(a, b)| a != b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(byte: u8) -> Bytes {
        vec![byte; 64].into()
    }

    #[test]
    fn crash_1_a_sync_that_returned_raises_the_floor_to_what_had_returned() {
        let mut v = Versions::new(64, 4, 256);
        v.begin(1, page(1));
        v.end(1, true);
        let cut = v.cut();
        v.begin(1, page(2));
        assert!(v.check_crash(1, &[0; 64]).is_ok(), "not yet promised");
        v.promise(&cut);
        assert!(v.check_crash(1, &[0; 64]).is_err(), "promised");
        assert!(v.check_crash(1, &[1; 64]).is_ok());
        assert!(v.check_crash(1, &[2; 64]).is_ok(), "may be early");
        assert!(v.check_crash(2, &[0; 64]).is_ok());
        v.end(1, true);
        assert!(v.check_now(1, &[2; 64]).is_ok());
        assert!(v.check_now(1, &[1; 64]).is_err());
    }

    #[test]
    fn crash_2_a_mix_of_two_versions_is_none() {
        let mut v = Versions::new(64, 1, 64);
        v.begin(0, page(1));
        let mut mixed = [1; 64];
        mixed[40..].fill(0);
        assert!(v.check_crash(0, &mixed).is_err());
        assert!(
            v.check_crash(0, &mixed[..40]).is_ok(),
            "the file ends before"
        );
    }

    #[test]
    fn a_truncation_may_be_there_before_an_older_write() {
        let mut v = Versions::new(64, 1, 64);
        v.begin(0, page(1));
        v.end(0, true);
        let cut = v.cut();
        v.promise(&cut);
        v.begin(0, page(2));
        v.end(0, true);
        v.begin_cut(0, 10);
        v.end(0, false);
        let cut_of = |byte| {
            let mut bytes = [byte; 64];
            bytes[10..].fill(0);
            bytes
        };
        assert!(v.check_now(0, &cut_of(2)).is_ok());
        assert!(v.check_now(0, &cut_of(1)).is_err(), "not while it lives");
        assert!(v.check_crash(0, &cut_of(1)).is_ok());
        let cut = v.cut();
        v.promise(&cut);
        assert!(v.check_crash(0, &cut_of(1)).is_err(), "promised");
        assert!(v.check_crash(0, &cut_of(2)).is_ok());
    }

    /// Seed 309: its syncs failed one after the other, and each cut of a page made twice as many versions of it, until memory
    /// was full of them.
    #[test]
    fn cuts_of_which_none_is_promised_do_not_double_the_versions() {
        let mut v = Versions::new(64, 1, 64);
        for byte in 1..4 {
            v.begin(0, page(byte));
            v.end(0, true);
        }
        for n in 0..40 {
            v.begin_cut(0, 60 - n);
            v.end(0, false);
            v.begin_cut(0, 30);
            v.end(0, false);
            let versions = v.pages[0].history.versions.len();
            assert!(versions < 10_000, "{versions} versions");
        }
        let cut_of = |byte| {
            let mut bytes = [byte; 64];
            bytes[20..].fill(0);
            bytes
        };
        v.begin_cut(0, 20);
        v.end(0, false);
        assert!((1..4).all(|byte| v.check_crash(0, &cut_of(byte)).is_ok()));
        assert!(v.check_now(0, &cut_of(3)).is_ok() && v.check_now(0, &cut_of(2)).is_err());
    }

    #[test]
    fn a_failed_operation_leaves_both() {
        let mut v = Versions::new(64, 1, 64);
        v.begin(0, page(1));
        v.fail(0);
        assert_eq!(v.now(0), None);
        assert!(v.check_now(0, &[0; 64]).is_ok() && v.check_now(0, &[1; 64]).is_ok());
        let cut = v.cut();
        v.promise(&cut);
        assert!(v.check_crash(0, &[0; 64]).is_ok(), "nothing is known of it");
        v.begin(0, page(2));
        v.end(0, true);
        assert!(v.check_now(0, &[1; 64]).is_err());
        v.begin_len(10);
        v.fail_len();
        assert_eq!(*v.len.newest(), 64);
        assert!(v.check_len(10).is_ok() && v.check_len(11).is_err());
    }
}
