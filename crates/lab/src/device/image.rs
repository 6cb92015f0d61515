//! What a device holds: the bytes that reads see, and the bytes that a crash keeps.
//!
//! A completed write is visible at once and durable after a flush that began later. Until then it waits in a log, in
//! the order of completion; a crash keeps any part of the log.
//!
//! **Invariants.**
//! - IMAGE-1: `durable` plus the whole log, in order, reads as `visible`, unless a failed flush lost writes.
//! - IMAGE-2: a crash keeps or loses each logged write by itself, sector by sector; a truncation survives only with
//!   all earlier ones, and nothing after a lost truncation survives (a journal commits in order). A hole is kept or lost
//!   as a write of zeroes is.

use crate::rng::Rng;
use std::collections::VecDeque;

/// The unit at which writes tear, in bytes.
pub const SECTOR: u64 = 512;
const CHUNK: usize = 64 << 10;
/// Beyond so many logged writes, the older half reaches the medium by itself.
const LOG_MAX: usize = 4_096;

/// Bytes with holes.
#[derive(Clone, Default)]
pub(crate) struct Sparse {
    chunks: Vec<Option<Box<[u8]>>>,
    len: u64,
}

impl Sparse {
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Reads; bytes of holes and beyond the end are zero.
    pub fn read(&self, mut offset: u64, mut buf: &mut [u8]) {
        while !buf.is_empty() {
            let (at, within) = split(offset);
            let n = buf.len().min(CHUNK - within);
            let (head, rest) = std::mem::take(&mut buf).split_at_mut(n);
            match self.chunks.get(at).and_then(Option::as_ref) {
                Some(chunk) => head.copy_from_slice(&chunk[within..within + n]),
                None => head.fill(0),
            }
            offset += n as u64;
            buf = rest;
        }
    }

    /// Writes, and grows to the end of what was written.
    pub fn write(&mut self, mut offset: u64, mut buf: &[u8]) {
        if buf.is_empty() {
            return;
        }
        self.len = self.len.max(offset + buf.len() as u64);
        while !buf.is_empty() {
            let (at, within) = split(offset);
            let n = buf.len().min(CHUNK - within);
            if at >= self.chunks.len() {
                self.chunks.resize_with(at + 1, || None);
            }
            let chunk = self.chunks[at].get_or_insert_with(|| vec![0; CHUNK].into());
            chunk[within..within + n].copy_from_slice(&buf[..n]);
            offset += n as u64;
            buf = &buf[n..];
        }
    }

    /// Sets the length. What lies beyond it is gone: growing again reads as zero.
    pub fn truncate(&mut self, len: u64) {
        if len < self.len {
            let (at, within) = split(len);
            self.chunks.truncate(at + 1);
            if let Some(Some(chunk)) = self.chunks.get_mut(at) {
                chunk[within..].fill(0);
            }
        }
        self.len = len;
    }
}

fn split(offset: u64) -> (usize, usize) {
    (
        (offset / CHUNK as u64) as usize,
        (offset % CHUNK as u64) as usize,
    )
}

enum Change {
    Write(u64, Box<[u8]>),
    Hole(u64, u64),
    Truncate(u64),
}

impl Change {
    fn apply(&self, image: &mut Sparse) {
        match self {
            Change::Write(offset, data) => image.write(*offset, data),
            Change::Hole(offset, len) => image.write(*offset, &vec![0; *len as usize]),
            Change::Truncate(len) => image.truncate(*len),
        }
    }
}

/// Both images and the log between them.
pub(crate) struct Images {
    visible: Sparse,
    /// None where crashes are not modelled.
    durable: Option<Sparse>,
    log: VecDeque<Change>,
    /// How many changes have left the log.
    base: u64,
    /// Bytes of writes on the log that a failed flush lost.
    pub lost_bytes: u64,
}

impl Images {
    /// Both images hold `content`.
    pub fn new(content: Sparse, crashes: bool) -> Images {
        Images {
            durable: crashes.then(|| content.clone()),
            visible: content,
            log: VecDeque::new(),
            base: 0,
            lost_bytes: 0,
        }
    }

    pub fn visible(&self) -> &Sparse {
        &self.visible
    }

    pub fn write(&mut self, offset: u64, data: &[u8]) {
        self.visible.write(offset, data);
        if self.durable.is_some() {
            self.log.push_back(Change::Write(offset, data.into()));
            if self.log.len() > LOG_MAX {
                let upto = self.base + LOG_MAX as u64 / 2;
                self.persist(upto);
            }
        }
    }

    /// The file reaches to `end` at least, by bytes that nobody keeps.
    pub fn grow(&mut self, end: u64) {
        self.visible.truncate(end.max(self.visible.len()));
    }

    pub fn truncate(&mut self, len: u64) {
        self.visible.truncate(len);
        if self.durable.is_some() {
            self.log.push_back(Change::Truncate(len));
        }
    }

    /// The range reads as zeroes from now on.
    pub fn punch(&mut self, offset: u64, len: u64) {
        self.visible.write(offset, &vec![0; len as usize]);
        if self.durable.is_some() {
            self.log.push_back(Change::Hole(offset, len));
        }
    }

    /// Where a flush that begins now ends.
    pub fn mark(&self) -> u64 {
        self.base + self.log.len() as u64
    }

    /// A flush that began at `mark` succeeded.
    pub fn persist(&mut self, mark: u64) {
        let Some(durable) = &mut self.durable else {
            return;
        };
        while self.base < mark {
            let Some(change) = self.log.pop_front() else {
                return;
            };
            change.apply(durable);
            self.base += 1;
        }
    }

    /// A flush that began at `mark` failed, and the device drops a part of its unflushed writes: reads still see them.
    pub fn lose(&mut self, mark: u64, rng: &mut Rng) {
        let upto = (mark.saturating_sub(self.base) as usize).min(self.log.len());
        for change in self.log.iter_mut().take(upto) {
            let gone = match change {
                Change::Write(offset, data) => {
                    (Change::Write(*offset, Box::default()), data.len() as u64)
                }
                Change::Hole(offset, len) => (Change::Hole(*offset, 0), *len),
                Change::Truncate(_) => continue,
            };
            if rng.chance(500_000) {
                self.lost_bytes += gone.1;
                *change = gone.0;
            }
        }
    }

    /// The write that has just completed was lost before, by a flush that failed while it was in flight.
    pub fn lose_last(&mut self) {
        if let Some(Change::Write(_, data)) = self.log.back_mut() {
            self.lost_bytes += data.len() as u64;
            *data = Box::default();
        }
    }

    /// Is there an image of what a crash leaves?
    pub fn models_crashes(&self) -> bool {
        self.durable.is_some()
    }

    /// What a crash leaves: the durable image and any part of the log (IMAGE-2), then any part of `in_flight`.
    pub fn crash<'a>(
        &'a self,
        rng: &mut Rng,
        in_flight: impl Iterator<Item = (u64, Vec<u8>)> + 'a,
    ) -> Vec<u8> {
        let mut image = self.durable.as_ref().unwrap_or(&self.visible).clone();
        // Moods: most of the log survives, little of it, or each half.
        let keep_ppm = rng.pick(&[0, 100_000, 500_000, 900_000, 1_000_000]);
        let mut all = true;
        for change in &self.log {
            match change {
                Change::Write(offset, data) => tear(&mut image, *offset, data, keep_ppm, rng),
                Change::Hole(offset, len) => {
                    tear(&mut image, *offset, &vec![0; *len as usize], keep_ppm, rng);
                }
                Change::Truncate(len) if rng.chance(keep_ppm.max(100_000)) => image.truncate(*len),
                Change::Truncate(_) => {
                    all = false;
                    break;
                }
            }
        }
        if all {
            for (offset, data) in in_flight {
                tear(&mut image, offset, &data, keep_ppm, rng);
            }
        }
        let mut bytes = vec![0; image.len() as usize];
        image.read(0, &mut bytes);
        bytes
    }
}

/// Writes all, nothing, or any sectors of `data`.
pub(crate) fn tear(image: &mut Sparse, offset: u64, data: &[u8], keep_ppm: u32, rng: &mut Rng) {
    for (at, piece) in torn_pieces(offset, data, keep_ppm, rng) {
        image.write(at, piece);
    }
}

/// The pieces of `data` that survive: all, none, or any of its sectors.
pub(crate) fn torn_pieces<'a>(
    offset: u64,
    data: &'a [u8],
    keep_ppm: u32,
    rng: &mut Rng,
) -> Vec<(u64, &'a [u8])> {
    if data.is_empty() {
        return Vec::new();
    }
    if rng.chance(700_000) {
        return if rng.chance(keep_ppm) {
            vec![(offset, data)]
        } else {
            Vec::new()
        };
    }
    let mut pieces = Vec::new();
    let (mut at, mut rest) = (offset, data);
    while !rest.is_empty() {
        let n = ((SECTOR - at % SECTOR) as usize).min(rest.len());
        if rng.chance(500_000) {
            pieces.push((at, &rest[..n]));
        }
        at += n as u64;
        rest = &rest[n..];
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sector(image: &[u8], n: usize) -> Option<u8> {
        let s = image.get(n * 512..(n + 1) * 512)?;
        s.iter().all(|b| *b == s[0]).then_some(s[0])
    }

    #[test]
    fn sparse_reads_what_was_written_across_chunks() {
        let mut s = Sparse::default();
        s.write(CHUNK as u64 - 3, &[1, 2, 3, 4, 5, 6]);
        let mut buf = [9; 8];
        s.read(CHUNK as u64 - 4, &mut buf);
        assert_eq!(buf, [0, 1, 2, 3, 4, 5, 6, 0]);
        assert_eq!(s.len(), CHUNK as u64 + 3);
        s.truncate(CHUNK as u64 + 1);
        s.truncate(CHUNK as u64 + 3);
        s.read(CHUNK as u64 - 4, &mut buf);
        assert_eq!(buf, [0, 1, 2, 3, 4, 0, 0, 0]);
    }

    #[test]
    fn image_2_a_crash_keeps_any_sectors_of_unflushed_writes_and_all_flushed_ones() {
        let mut rng = Rng::new(1, 1);
        let mut images = Images::new(Sparse::default(), true);
        images.write(0, &[1; 2048]);
        let mark = images.mark();
        images.persist(mark);
        images.write(0, &[2; 2048]);
        images.write(512, &[3; 512]);
        let (mut torn, mut old, mut new) = (0, 0, 0);
        for _ in 0..500 {
            let image = images.crash(&mut rng, std::iter::once((1024, vec![4; 1024])));
            let got: Vec<_> = (0..4).map(|n| sector(&image, n).unwrap()).collect();
            for (n, legal) in [[1, 2, 0], [1, 2, 3], [1, 2, 4], [1, 2, 4]]
                .iter()
                .enumerate()
            {
                assert!(legal.contains(&got[n]), "sector {n} is {}", got[n]);
            }
            old += u32::from(got == [1, 1, 1, 1]);
            new += u32::from(got == [2, 3, 4, 4]);
            torn += u32::from(got[2] != got[3]);
        }
        assert!(torn > 20 && old > 20 && new > 20, "{torn} {old} {new}");
    }

    #[test]
    fn image_1_persisted_writes_are_what_reads_see() {
        let mut rng = Rng::new(2, 1);
        let mut images = Images::new(Sparse::default(), true);
        for n in 0..200u64 {
            images.write(
                rng.below(50_000),
                &vec![n as u8; 1 + rng.below(9_000) as usize],
            );
            if n % 20 == 19 {
                images.truncate(rng.below(60_000));
            }
        }
        let mark = images.mark();
        images.persist(mark);
        let mut seen = vec![0; images.visible().len() as usize];
        images.visible().read(0, &mut seen);
        assert!(images.crash(&mut rng, std::iter::empty()) == seen);
    }

    #[test]
    fn image_2_a_hole_is_there_after_a_crash_or_not_and_a_failed_flush_may_lose_it() {
        let mut rng = Rng::new(4, 1);
        let mut images = Images::new(Sparse::default(), true);
        images.write(0, &[1; 2048]);
        let mark = images.mark();
        images.persist(mark);
        images.punch(512, 1024);
        let (mut old, mut new) = (0, 0);
        for _ in 0..200 {
            let image = images.crash(&mut rng, std::iter::empty());
            assert_eq!((sector(&image, 0), sector(&image, 3)), (Some(1), Some(1)));
            let hole = [1, 2].map(|n| sector(&image, n).unwrap());
            old += u32::from(hole == [1, 1]);
            new += u32::from(hole == [0, 0]);
        }
        assert!(old > 20 && new > 20, "{old} {new}");
        let mark = images.mark();
        (0..20).for_each(|_| images.lose(mark, &mut rng));
        images.persist(mark);
        let image = images.crash(&mut rng, std::iter::empty());
        assert_eq!([1, 2].map(|n| sector(&image, n)), [Some(1), Some(1)]);
        assert_eq!(images.lost_bytes, 1024);
    }

    #[test]
    fn lost_writes_stay_visible_and_never_become_durable() {
        let mut rng = Rng::new(3, 1);
        let mut images = Images::new(Sparse::default(), true);
        for n in 0..64 {
            images.write(n * 512, &[7; 512]);
        }
        let mark = images.mark();
        images.lose(mark, &mut rng);
        images.persist(mark);
        assert!(images.lost_bytes > 0);
        let mut seen = vec![0; 64 * 512];
        images.visible().read(0, &mut seen);
        assert!(seen.iter().all(|b| *b == 7));
        let mut image = images.crash(&mut rng, std::iter::empty());
        image.resize(64 * 512, 0);
        let lost = image.iter().filter(|b| **b == 0).count() as u64;
        assert_eq!(lost, images.lost_bytes);
    }
}
