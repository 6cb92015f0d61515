//! The index: (mapping, page) → frame, one hash table per cache, sized once from the frame count.
//!
//! A bucket is one cache line: eight slots of (tag of 16 bits, frame + 1) and an overflow count. A hit costs that line; the frame
//! number then addresses descriptor and data in parallel. An entry whose home bucket is full goes to the next bucket
//! of its region (64 buckets, wrapping), and every bucket it passed over counts it; a look-up goes
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
//! - INDEX-1: a region is never full. With one region its slots (8 × frames/4) exceed the frames. With more, a region
//!   of 512 slots expects at most 256 entries, each placed independently by the seeded hash: P(Poisson(256) > 512)
//!   ≤ e^(−256 (2 ln 2 − 1)) ≈ 1 × 10^-43 for each insertion. Meeting it is taken for a bug (entries leaked, or a
//!   broken hash).
//! - INDEX-2: a frame has at most one entry.
//! - INDEX-3: the overflow count of a bucket is the number of entries whose probe path passes over it. Were it too low,
//!   look-ups would miss; were it too high, they would only be slow.
//!
//! **Kernel.** The XArray of each address_space (filemap.c); here one table, because its memory is then a constant
//! share of the budget whatever the files' lengths.
//!
//! **Tests.** Here: a `HashMap` as the model, forced collisions, spread of sequential keys, readers beside a writer.

use crate::frame::{Carver, Table, prefetch, same_lanes};
use crate::sync::{AtomicU32, AtomicU64, Lock, LockGuard, Ordering, Rank};
use crate::world::Task;

/// Entries of a bucket.
const WAYS: usize = 8;
/// Tags in one word.
const LANES: usize = 4;
const TAG_BITS: usize = 16;
/// Frames for each bucket: the average load of its entries.
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
    seed: u64,
}

/// One region of the index, locked.
pub(crate) struct Region<'a> {
    index: &'a Index,
    number: usize,
    _guard: LockGuard<'a, ()>,
}

/// One cache line. A slot is a lane of `tags` and a word of `frames`, which holds frame + 1, or 0 when it is empty.
#[derive(Debug)]
#[repr(align(64))]
struct Bucket {
    tags: [AtomicU64; WAYS / LANES],
    frames: [AtomicU32; WAYS],
    /// How many entries passed over this bucket.
    overflow: AtomicU32,
}

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
        Index {
            buckets: carver.carve(buckets, |_| Bucket::new()),
            locks: (0..buckets.div_ceil(REGION_BUCKETS))
                .map(|_| RegionLock(Lock::new(Rank::Index, ())))
                .collect(),
            region_buckets: buckets.min(REGION_BUCKETS),
            seed: split_mix(seed),
        }
    }

    /// Bytes of memory an index for `frames` frames takes: about 16.3 a frame.
    pub fn bytes_for(frames: usize) -> usize {
        let buckets = bucket_count(frames);
        size_of::<Index>()
            + Carver::bytes_for::<Bucket>(buckets)
            + buckets.div_ceil(REGION_BUCKETS) * size_of::<RegionLock>()
    }

    /// The hash of `key`. Its high bits choose the bucket, its low 16 bits are the tag.
    #[inline(always)]
    pub fn hash(&self, key: Key) -> u64 {
        // The mapping chooses where its pages begin; one folded multiplication spreads them.
        let start = u64::from(key.mapping).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ self.seed;
        folded_multiply(key.page ^ start, 0xD6E8_FEB8_6659_FD93)
    }

    /// Fetches the bucket where `hash` is, or would be.
    #[inline(always)]
    pub fn prefetch(&self, hash: u64) {
        prefetch(&self.buckets[self.bucket_of(hash)]);
    }

    /// Looks for the frame of `hash` without a lock: calls `accept` for each entry with its tag until that says yes.
    ///
    /// `accept` pins the frame and checks its key: the entry may be another key's, or may be gone by then. `None` is
    /// not certain while others insert or replace; under the region's lock it is.
    #[inline(always)]
    pub fn find(&self, hash: u64, mut accept: impl FnMut(u32) -> bool) -> Option<u32> {
        self.find_map(hash, |frame| accept(frame).then_some(frame))
    }

    /// As `find`, for what `accept` makes of the frame.
    #[inline(always)]
    pub fn find_map<T>(&self, hash: u64, mut accept: impl FnMut(u32) -> Option<T>) -> Option<T> {
        let home = self.bucket_of(hash);
        let bucket = &self.buckets[home];
        let found = bucket.find(tag(hash), &mut accept);
        if found.is_some() || bucket.overflow() == 0 {
            return found;
        }
        self.find_beyond(home, tag(hash), accept)
    }

    /// As `find_map`, in the home bucket only: `None` says nothing.
    #[inline(always)]
    pub fn find_home<T>(&self, hash: u64, mut accept: impl FnMut(u32) -> Option<T>) -> Option<T> {
        self.buckets[self.bucket_of(hash)].find(tag(hash), &mut accept)
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
    fn find_beyond<T>(
        &self,
        home: usize,
        tag: u16,
        mut accept: impl FnMut(u32) -> Option<T>,
    ) -> Option<T> {
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
        let mut at = self.home(hash);
        for _ in 0..self.index.region_buckets {
            let bucket = &self.index.buckets[at];
            if let Some(slot) = bucket.slot_of(0) {
                bucket.set_tag(slot, tag(hash));
                // Release: whoever sees the frame sees its key, its tag and the overflow counted up before.
                bucket.frames[slot].store(frame + 1, Ordering::Release);
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
        self.index.buckets[at].frames[slot].store(0, Ordering::Relaxed);
        let mut passed = self.home(hash);
        while passed != at {
            self.index.buckets[passed].count_overflow(u32::MAX);
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
        let Some((at, slot)) = self.place(hash, old) else {
            return false;
        };
        // Release: whoever sees the new frame's number sees its key and contents.
        self.index.buckets[at].frames[slot].store(new + 1, Ordering::Release);
        true
    }

    /// The bucket and slot that hold `frame` under `hash`.
    fn place(&self, hash: u64, frame: u32) -> Option<(usize, usize)> {
        self.assert_own(hash);
        let (home, wanted) = (self.home(hash), frame + 1);
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
        let mut passed = vec![0u32; index.region_buckets];
        let mut frames = Vec::new();
        for at in first..first + index.region_buckets {
            let bucket = &index.buckets[at];
            for slot in 0..WAYS {
                // Relaxed: the lock is held.
                let Some(frame) = bucket.frames[slot].load(Ordering::Relaxed).checked_sub(1) else {
                    continue;
                };
                let hash = hash_of(frame);
                self.assert_own(hash);
                assert_eq!(
                    tag(hash),
                    bucket.tag(slot),
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
        Bucket {
            tags: std::array::from_fn(|_| AtomicU64::new(0)),
            frames: std::array::from_fn(|_| AtomicU32::new(0)),
            overflow: AtomicU32::new(0),
        }
    }

    /// What `accept` made of the first frame with `tag` that it accepted.
    #[inline(always)]
    fn find<T>(&self, tag: u16, accept: &mut impl FnMut(u32) -> Option<T>) -> Option<T> {
        // Relaxed: only finds candidates. No branch for each slot: a look-up of random keys would mispredict it.
        let tags = [
            self.tags[0].load(Ordering::Relaxed),
            self.tags[1].load(Ordering::Relaxed),
        ];
        let mut hits = same_lanes(tags, tag);
        while hits != 0 {
            let slot = (hits.trailing_zeros() / 2) as usize;
            // Acquire: pairs with the Release of `insert` and `replace`, so that `accept` reads the key that was set
            // before the entry was published. A frame of another tag, put here meanwhile, is refused by its key.
            let frame = self.frames[slot].load(Ordering::Acquire);
            if frame != 0
                && let Some(found) = accept(frame - 1)
            {
                return Some(found);
            }
            hits &= hits - 1;
        }
        None
    }

    /// How many entries passed over this bucket.
    #[inline(always)]
    fn overflow(&self) -> u32 {
        // Relaxed: it is counted up before the entry behind it is published, so whoever knows of the entry sees it.
        self.overflow.load(Ordering::Relaxed)
    }

    /// Adds to the overflow count, wrapping. The region's lock is held.
    fn count_overflow(&self, by: u32) {
        // Relaxed: the lock orders writers; the Release of the entry's store orders it for readers.
        let count = self.overflow().wrapping_add(by);
        assert!(
            count != u32::MAX,
            "INDEX-3: an overflow count went below zero"
        );
        self.overflow.store(count, Ordering::Relaxed);
    }

    /// The slot that holds `frame` + 1, or an empty one for 0. The region's lock is held.
    fn slot_of(&self, frame: u32) -> Option<usize> {
        // Relaxed: the lock orders writers.
        self.frames
            .iter()
            .position(|f| f.load(Ordering::Relaxed) == frame)
    }

    /// Writes a slot's tag. The region's lock is held.
    fn set_tag(&self, slot: usize, tag: u16) {
        let word = &self.tags[slot / LANES];
        let shift = slot % LANES * TAG_BITS;
        // Relaxed: the lock orders writers; the Release of the frame's store orders it for readers.
        let rest = word.load(Ordering::Relaxed) & !(u64::from(u16::MAX) << shift);
        word.store(rest | u64::from(tag) << shift, Ordering::Relaxed);
    }

    fn tag(&self, slot: usize) -> u16 {
        // Relaxed: the lock is held.
        let word = self.tags[slot / LANES].load(Ordering::Relaxed);
        (word >> (slot % LANES * TAG_BITS)) as u16
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
fn tag(hash: u64) -> u16 {
    hash as u16
}

/// The 128-bit product, its halves combined: each bit of the result depends on high and low bits of both factors.
#[inline(always)]
fn folded_multiply(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

/// SplitMix64: the hash's secret from a seed.
fn split_mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(all(test, not(loom)))]
#[path = "index_tests.rs"]
mod tests;
