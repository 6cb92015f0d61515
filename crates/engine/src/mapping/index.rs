//! The index: (mapping, page) → frame, one hash table per cache, sized once from the frame count.
//!
//! A bucket is one cache line: a control word and seven entries of (tag, frame + 1). A hit costs that line; the frame
//! number then addresses descriptor and data in parallel. An entry whose home bucket is full goes to the next bucket
//! of its region (64 buckets, wrapping), and every bucket it passed over counts it in its control word; a look-up goes
//! on past a bucket only while that count is not zero. Entries never move, so a look-up needs no lock.
//!
//! **State.** All words: changed under the lock of their region, read by anyone. `seeds`, sizes: constant.
//!
//! **Lock order.** `Rank::Index`; one region at a time.
//!
//! **Context.** Any task. Nothing here sleeps, allocates or writes. `find` is lock-free and may miss an entry that is
//! being inserted or replaced meanwhile: the caller that must know repeats it under the region's lock.
//! `find` hands out a frame number only: `accept` pins the frame and checks its key again.
//!
//! **Invariants.**
//! - INDEX-1: a region is never full. With one region its slots (7 × frames/4) exceed the frames. With more, a region
//!   of 448 slots expects at most 256 entries, each placed independently by the seeded hash: P(Poisson(256) > 448)
//!   ≤ e^(−256 (1.75 ln 1.75 − 0.75)) ≈ 3 × 10^-26 for each insertion, so 10^9 insertions a second for ten years meet
//!   it with a probability of about 10^-8. Meeting it is taken for a bug (entries leaked, or a broken hash).
//! - INDEX-2: a frame has at most one entry.
//! - INDEX-3: the control word of a bucket is the number of entries whose probe path passes over it. Were it too low,
//!   look-ups would miss; were it too high, they would only be slow.
//!
//! **Kernel.** The XArray of each address_space (filemap.c); here one table, because its memory is then a constant
//! share of the budget whatever the files' lengths.
//!
//! **Tests.** Here: a `HashMap` as the model, forced collisions, spread of sequential keys, readers beside a writer.

use crate::frame::{Carver, Table};
use crate::sync::{AtomicU64, Lock, LockGuard, Ordering, Rank};
use crate::world::Task;

/// Entries of a bucket.
const WAYS: usize = 7;
/// Frames for each bucket: the average load of its seven entries.
const FRAMES_PER_BUCKET: usize = 4;
/// Buckets of a region, where there is more than one region.
const REGION_BUCKETS: usize = 1 << REGION_SHIFT;
const REGION_SHIFT: u32 = 6;

/// What a frame is looked up by: a mapping and a page of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Key {
    /// The mapping's number.
    pub mapping: u32,
    /// The page within the mapping.
    pub page: u64,
}

/// The table. See the module's head.
pub(crate) struct Index {
    buckets: Table<Bucket>,
    locks: Vec<RegionLock>,
    /// Buckets of each region: all of them have as many.
    region_buckets: usize,
    seeds: [u64; 2],
}

/// One region of the index, locked.
pub(crate) struct Region<'a> {
    index: &'a Index,
    number: usize,
    _guard: LockGuard<'a, ()>,
}

/// Word 0: how many entries passed over this bucket. Words 1..: entries, 0 when empty.
#[derive(Debug)]
#[repr(align(64))]
struct Bucket([AtomicU64; 1 + WAYS]);

/// A lock with a cache line of its own, so that neighbours do not disturb each other.
#[derive(Debug)]
#[repr(align(64))]
struct RegionLock(Lock<()>);

#[cfg(not(loom))]
const _: () = assert!(size_of::<Bucket>() == 64);
const _: () = assert!(FRAMES_PER_BUCKET < WAYS);

impl Index {
    /// An empty index for `frames` frames, its hash drawn from `seed`. Allocates [`Index::bytes_for`] bytes.
    pub fn new(carver: &mut Carver, frames: usize, seed: u64) -> Index {
        assert!(
            frames < u32::MAX as usize,
            "INDEX-2: a frame number has 32 bits"
        );
        let buckets = bucket_count(frames);
        let mut state = seed;
        Index {
            buckets: carver.carve(buckets, |_| Bucket::new()),
            locks: (0..buckets.div_ceil(REGION_BUCKETS))
                .map(|_| RegionLock(Lock::new(Rank::Index, ())))
                .collect(),
            region_buckets: buckets.min(REGION_BUCKETS),
            seeds: [split_mix(&mut state), split_mix(&mut state)],
        }
    }

    /// Bytes of memory an index for `frames` frames takes: about 16.3 a frame.
    pub fn bytes_for(frames: usize) -> usize {
        let buckets = bucket_count(frames);
        size_of::<Index>()
            + Carver::bytes_for::<Bucket>(buckets)
            + buckets.div_ceil(REGION_BUCKETS) * size_of::<RegionLock>()
    }

    /// The hash of `key`. Its high bits choose the bucket, its low 32 bits are the tag.
    #[inline(always)]
    pub fn hash(&self, key: Key) -> u64 {
        // Two folded multiplications: the first mixes page and mapping, the second spreads what a weak factor of the
        // first left together. `| 1`: a zero factor would give all pages of a mapping one hash.
        let factor = u64::from(key.mapping).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ self.seeds[1];
        let mixed = folded_multiply(key.page ^ self.seeds[0], factor | 1);
        folded_multiply(mixed ^ factor, 0xD6E8_FEB8_6659_FD93)
    }

    /// Looks for the frame of `hash` without a lock: calls `accept` for each entry with its tag until that says yes.
    ///
    /// `accept` pins the frame and checks its key: the entry may be another key's, or may be gone by then. `None` is
    /// not certain while others insert or replace; under the region's lock it is.
    #[inline(always)]
    pub fn find(&self, hash: u64, mut accept: impl FnMut(u32) -> bool) -> Option<u32> {
        let home = self.bucket_of(hash);
        let bucket = &self.buckets[home];
        let found = bucket.find(tag(hash), &mut accept);
        if found.is_some() || bucket.overflow() == 0 {
            return found;
        }
        self.find_beyond(home, tag(hash), accept)
    }

    /// Locks the region of `hash` for the calling task.
    pub fn lock<'a>(&'a self, task: &'a Task, hash: u64) -> Region<'a> {
        self.lock_region(task, self.bucket_of(hash) >> REGION_SHIFT)
    }

    /// Panics unless INDEX-1 to INDEX-3 hold, one region after the other; returns the number of entries.
    /// `hash_of` tells the hash under which a frame was inserted; it is called under the region's lock.
    pub fn check_invariants(&self, task: &Task, mut hash_of: impl FnMut(u32) -> u64) -> usize {
        (0..self.locks.len())
            .map(|r| self.lock_region(task, r).check(&mut hash_of))
            .sum()
    }

    fn lock_region<'a>(&'a self, task: &'a Task, number: usize) -> Region<'a> {
        Region {
            index: self,
            number,
            _guard: self.locks[number].0.lock_for(task),
        }
    }

    /// Multiply-shift: the hash as a fraction of 2^64, times the number of buckets.
    #[inline(always)]
    fn bucket_of(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.buckets.len() as u128) >> 64) as usize
    }

    /// The bucket after `bucket` in its region, wrapping.
    fn after(&self, bucket: usize) -> usize {
        let start = bucket >> REGION_SHIFT << REGION_SHIFT;
        if bucket + 1 == start + self.region_buckets {
            start
        } else {
            bucket + 1
        }
    }

    #[cold]
    fn find_beyond(
        &self,
        home: usize,
        tag: u32,
        mut accept: impl FnMut(u32) -> bool,
    ) -> Option<u32> {
        let mut at = self.after(home);
        while at != home {
            let bucket = &self.buckets[at];
            let found = bucket.find(tag, &mut accept);
            if found.is_some() || bucket.overflow() == 0 {
                return found;
            }
            at = self.after(at);
        }
        None
    }
}

impl Region<'_> {
    /// The frame of `hash` that `matches`. With the lock held, `None` is certain.
    pub fn find(&self, hash: u64, matches: impl FnMut(u32) -> bool) -> Option<u32> {
        self.assert_own(hash);
        self.index.find(hash, matches)
    }

    /// Adds `frame` under `hash`.
    pub fn insert(&mut self, hash: u64, frame: u32) {
        debug_assert!(
            self.place(hash, frame).is_none(),
            "INDEX-2: frame {frame} is in the index already"
        );
        let (home, new) = (self.home(hash), entry(tag(hash), frame));
        let mut at = home;
        for _ in 0..self.index.region_buckets {
            let bucket = &self.index.buckets[at];
            if let Some(slot) = bucket.slot_of(0) {
                // Release: whoever sees the entry sees the frame's key and the control words counted up before.
                slot.store(new, Ordering::Release);
                return;
            }
            bucket.count_overflow(1);
            at = self.index.after(at);
        }
        panic!(
            "INDEX-1: region {} of {} buckets is full",
            self.number, self.index.region_buckets
        );
    }

    /// Takes `frame` out; false when it is not there under `hash`.
    pub fn remove(&mut self, hash: u64, frame: u32) -> bool {
        let Some((at, slot)) = self.place(hash, frame) else {
            return false;
        };
        // Relaxed, here and for the counts: in whatever order a reader sees these, it either finds the entry, and then
        // `accept` decides, or misses an entry that is being removed.
        slot.store(0, Ordering::Relaxed);
        let mut passed = self.home(hash);
        while passed != at {
            self.index.buckets[passed].count_overflow(u64::MAX);
            passed = self.index.after(passed);
        }
        true
    }

    /// Puts `new` in the place of `old`; false when `old` is not there under `hash`.
    pub fn replace(&mut self, hash: u64, old: u32, new: u32) -> bool {
        debug_assert!(
            old == new || self.place(hash, new).is_none(),
            "INDEX-2: frame {new} is in the index already"
        );
        let Some((_, slot)) = self.place(hash, old) else {
            return false;
        };
        // Release: whoever sees the new frame's number sees its key and contents.
        slot.store(entry(tag(hash), new), Ordering::Release);
        true
    }

    /// The bucket and word that hold `frame` under `hash`.
    fn place(&self, hash: u64, frame: u32) -> Option<(usize, &AtomicU64)> {
        self.assert_own(hash);
        let (home, wanted) = (self.home(hash), entry(tag(hash), frame));
        let mut at = home;
        loop {
            let bucket = &self.index.buckets[at];
            if let Some(slot) = bucket.slot_of(wanted) {
                return Some((at, slot));
            }
            at = self.index.after(at);
            if bucket.overflow() == 0 || at == home {
                return None;
            }
        }
    }

    fn home(&self, hash: u64) -> usize {
        self.index.bucket_of(hash)
    }

    fn assert_own(&self, hash: u64) {
        debug_assert_eq!(
            self.home(hash) >> REGION_SHIFT,
            self.number,
            "INDEX-3: a change under another region's lock"
        );
    }

    fn check(&self, hash_of: &mut impl FnMut(u32) -> u64) -> usize {
        let index = self.index;
        let first = self.number << REGION_SHIFT;
        let mut passed = vec![0u64; index.region_buckets];
        let mut frames = Vec::new();
        for at in first..first + index.region_buckets {
            for word in &index.buckets[at].0[1..] {
                // Relaxed: the lock is held.
                let value = word.load(Ordering::Relaxed);
                if value == 0 {
                    continue;
                }
                let frame = frame_of(value).expect("INDEX-2: an entry without a frame");
                let hash = hash_of(frame);
                self.assert_own(hash);
                assert_eq!(
                    tag(hash),
                    tag_of(value),
                    "INDEX-2: frame {frame} has another tag"
                );
                let mut p = self.home(hash);
                while p != at {
                    passed[p - first] += 1;
                    p = index.after(p);
                }
                frames.push(frame);
            }
        }
        for (i, passed) in passed.into_iter().enumerate() {
            let overflow = index.buckets[first + i].overflow();
            assert_eq!(overflow, passed, "INDEX-3: bucket {}", first + i);
        }
        let entries = frames.len();
        frames.sort_unstable();
        frames.dedup();
        assert_eq!(frames.len(), entries, "INDEX-2: a frame has two entries");
        entries
    }
}

impl Bucket {
    fn new() -> Bucket {
        Bucket(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    /// The first frame with `tag` that is accepted.
    #[inline(always)]
    fn find(&self, tag: u32, accept: &mut impl FnMut(u32) -> bool) -> Option<u32> {
        let mut hits = 0u32;
        for (i, word) in self.0[1..].iter().enumerate() {
            // Relaxed: only finds candidates, which are loaded again. No branch for each entry: a look-up of random
            // keys would mispredict it.
            hits |= u32::from(tag_of(word.load(Ordering::Relaxed)) == tag) << i;
        }
        while hits != 0 {
            // Acquire: pairs with the Release of `insert` and `replace`, so that `accept` reads the key that was set
            // before the entry was published.
            let value = self.0[1 + hits.trailing_zeros() as usize].load(Ordering::Acquire);
            if let Some(frame) = frame_of(value)
                && tag_of(value) == tag
                && accept(frame)
            {
                return Some(frame);
            }
            hits &= hits - 1;
        }
        None
    }

    /// How many entries passed over this bucket.
    #[inline(always)]
    fn overflow(&self) -> u64 {
        // Relaxed: it is counted up before the entry behind it is published, so whoever knows of the entry sees it.
        self.0[0].load(Ordering::Relaxed)
    }

    /// Adds to the overflow count, wrapping. The region's lock is held.
    fn count_overflow(&self, by: u64) {
        // Relaxed: the lock orders writers; the Release of the entry's store orders it for readers.
        let count = self.overflow().wrapping_add(by);
        assert!(
            count != u64::MAX,
            "INDEX-3: an overflow count went below zero"
        );
        self.0[0].store(count, Ordering::Relaxed);
    }

    /// The word that holds `value`. The region's lock is held.
    fn slot_of(&self, value: u64) -> Option<&AtomicU64> {
        // Relaxed: the lock orders writers.
        self.0[1..]
            .iter()
            .find(|w| w.load(Ordering::Relaxed) == value)
    }
}

fn bucket_count(frames: usize) -> usize {
    let buckets = frames.div_ceil(FRAMES_PER_BUCKET).max(1);
    if buckets > REGION_BUCKETS {
        // All regions are of one size: a small last one could not even out its buckets.
        buckets.next_multiple_of(REGION_BUCKETS)
    } else {
        buckets
    }
}

#[inline(always)]
fn tag(hash: u64) -> u32 {
    hash as u32
}

#[inline(always)]
fn entry(tag: u32, frame: u32) -> u64 {
    u64::from(tag) << 32 | (u64::from(frame) + 1)
}

#[inline(always)]
fn tag_of(entry: u64) -> u32 {
    (entry >> 32) as u32
}

#[inline(always)]
fn frame_of(entry: u64) -> Option<u32> {
    (entry as u32).checked_sub(1)
}

/// The 128-bit product, its halves combined: each bit of the result depends on high and low bits of both factors.
#[inline(always)]
fn folded_multiply(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

/// SplitMix64: draws the hash's secrets from a seed.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(all(test, not(loom)))]
#[path = "index_tests.rs"]
mod tests;
