//! Refault distance: was a page that comes back evicted too early?
//!
//! A clock counts evictions and activations: the speed at which the inactive list moves. An evicted page leaves a
//! *shadow*, the clock's time, in a fixed table. When the page comes back, the difference is how many more inactive
//! frames would have kept it. If the active list is at least that long, the page deserves to compete with it.
//!
//! The table has one shadow a frame, in sets of a cache line; a full set forgets its oldest shadow. So it remembers about
//! as many evictions as there are frames, which is all that can matter: a longer distance exceeds every active list.
//!
//! **State.** Words of (tag, time), by anyone, without a lock. Races lose or duplicate a shadow, never corrupt one: two
//! evictions into one set at a time may take the same place, and one shadow is lost; two of one page may leave two
//! shadows, and the second is found at a second refault. A lost shadow costs one activation that would have been right.
//!
//! **Context.** Any task; never sleeps or allocates. Hashes are those of `mapping::index`, whose low 32 bits are the tag:
//! a foreign page's shadow is taken for one's own with a probability of 8 × 2^-32.
//!
//! **Invariants.**
//! - SHADOW-1: a shadow is handed out at most once.
//! - SHADOW-2: without races, the eight youngest shadows of a set are remembered.
//!
//! **Kernel.** mm/workingset.c of 3.15, where shadows live in the page's slot of the radix tree. Left out: nodes of
//! control groups, bucket_order.
//!
//! **Tests.** Here, against a `Vec` for each set.

use crate::frame::{Carver, Table, prefetch};
use crate::sync::{Ordering, hint::AtomicU64};

/// Shadows of a set: one cache line.
const WAYS: usize = 8;

/// Counts evictions and activations of one LRU (`lruvec->nonresident_age`).
#[derive(Debug)]
pub(crate) struct NonresidentAge(AtomicU64);

/// The shadows of evicted pages. See the module's head.
#[doc(alias = "workingset_eviction")]
pub(crate) struct Shadows {
    sets: Table<Set>,
}

/// Words of tag << 32 | time; 0 when empty.
#[derive(Debug)]
#[repr(align(64))]
struct Set([AtomicU64; WAYS]);

/// True when a page that refaults at `distance` belongs on the active list of `active_pages` pages.
pub(crate) fn belongs_to_the_working_set(distance: u32, active_pages: usize) -> bool {
    distance as usize <= active_pages
}

impl NonresidentAge {
    /// A clock at 0.
    pub fn new() -> NonresidentAge {
        NonresidentAge(AtomicU64::new(0))
    }

    /// `n` pages were evicted or activated; returns the time before.
    pub fn advance(&self, n: u64) -> u64 {
        // Relaxed: a counter; nothing else is published with it.
        self.0.fetch_add(n, Ordering::Relaxed)
    }

    /// The time.
    pub fn now(&self) -> u64 {
        // Relaxed: as above.
        self.0.load(Ordering::Relaxed)
    }
}

impl Shadows {
    /// Room for one shadow for each of `frames` frames, rounded down to whole sets, at least one set.
    pub fn new(carver: &mut Carver, frames: usize) -> Shadows {
        let set = || Set(std::array::from_fn(|_| AtomicU64::new(0)));
        Shadows {
            sets: carver.carve(set_count(frames), |_| set()),
        }
    }

    /// Bytes of memory the shadows of `frames` frames take: 8 a frame.
    pub fn bytes_for(frames: usize) -> usize {
        size_of::<Shadows>() + Carver::bytes_for::<Set>(set_count(frames))
    }

    /// Remembers that the page of `hash` is evicted at `age`. An older shadow of it is replaced.
    pub fn evict(&self, hash: u64, age: u64) {
        let new = shadow(tag(hash), age);
        let set = self.set_of(hash);
        let (mut place, mut place_rank) = (0, 0);
        for (i, word) in set.0.iter().enumerate() {
            // Relaxed: a shadow is a plain number; losing one in a race is allowed.
            let old = word.load(Ordering::Relaxed);
            let rank = match old {
                _ if old >> 32 == new >> 32 => u64::MAX,
                0 => u64::MAX - 1,
                _ => u64::from(distance(age, old)),
            };
            if rank > place_rank {
                (place, place_rank) = (i, rank);
            }
        }
        // Relaxed: as above.
        set.0[place].store(new, Ordering::Relaxed);
    }

    /// The page of `hash` comes back at `now`: its refault distance, if its shadow is remembered. Removes the shadow.
    ///
    /// Distances are counted modulo 2^32: a shadow is forgotten long before, unless 4 billion activations pass with
    /// few evictions; then one page may be activated wrongly.
    pub fn refault(&self, hash: u64, now: u64) -> Option<u32> {
        self.take(hash).map(|old| distance(now, old))
    }

    /// Fetches what `refault` will look at.
    #[inline(always)]
    pub fn prefetch(&self, hash: u64) {
        prefetch(self.set_of(hash));
    }

    /// Forgets the page of `hash`: it was truncated, and what comes next there is another page.
    pub fn forget(&self, hash: u64) {
        self.take(hash);
    }

    fn take(&self, hash: u64) -> Option<u64> {
        let wanted = u64::from(tag(hash));
        for word in &self.set_of(hash).0 {
            // Relaxed: a shadow is a plain number.
            let old = word.load(Ordering::Relaxed);
            // Relaxed, exchange: the removal itself decides who gets the shadow (SHADOW-1).
            if old >> 32 == wanted
                && word
                    .compare_exchange(old, 0, Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok()
            {
                return Some(old);
            }
        }
        None
    }

    fn set_of(&self, hash: u64) -> &Set {
        &self.sets[((u128::from(hash) * self.sets.len() as u128) >> 64) as usize]
    }
}

fn set_count(frames: usize) -> usize {
    (frames / WAYS).max(1)
}

/// Never 0, so that no shadow is the empty word.
fn tag(hash: u64) -> u32 {
    (hash as u32).max(1)
}

fn shadow(tag: u32, age: u64) -> u64 {
    u64::from(tag) << 32 | age & u64::from(u32::MAX)
}

fn distance(now: u64, shadow: u64) -> u32 {
    (now as u32).wrapping_sub(shadow as u32)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Spreads small numbers over sets and gives each its own tag.
    fn hash(page: u64) -> u64 {
        page.wrapping_mul(0x9E37_79B9_7F4A_7C15) & !0xFFFF_FFFF | (page + 1)
    }

    #[test]
    fn distance_counts_evictions_and_activations() {
        let (shadows, clock) = (Shadows::new(&mut Carver::heap(), 64), NonresidentAge::new());
        shadows.evict(hash(1), clock.advance(1));
        shadows.evict(hash(2), clock.advance(1));
        clock.advance(5);
        assert_eq!(shadows.refault(hash(1), clock.now()), Some(7));
        assert_eq!(shadows.refault(hash(2), clock.now()), Some(6));
        assert_eq!(shadows.refault(hash(2), clock.now()), None, "SHADOW-1");
        assert_eq!(shadows.refault(hash(3), clock.now()), None);
        shadows.evict(hash(3), clock.advance(1));
        shadows.forget(hash(3));
        assert_eq!(shadows.refault(hash(3), clock.now()), None);
        assert!(belongs_to_the_working_set(7, 7) && !belongs_to_the_working_set(8, 7));
    }

    #[test]
    fn the_clock_may_wrap() {
        let shadows = Shadows::new(&mut Carver::heap(), 8);
        for page in 0..9 {
            shadows.evict(hash(page), u64::from(u32::MAX) - 4 + page);
        }
        // The oldest, page 0, made room for page 8.
        let now = u64::from(u32::MAX) + 10;
        assert_eq!(shadows.refault(hash(0), now), None);
        for page in 1..9 {
            assert_eq!(shadows.refault(hash(page), now), Some(14 - page as u32));
        }
    }

    #[test]
    fn an_empty_word_is_no_shadow() {
        let shadows = Shadows::new(&mut Carver::heap(), 8);
        assert_eq!(shadows.refault(0, 5), None);
        shadows.evict(0, 0);
        assert_eq!(shadows.refault(0, 5), Some(5));
    }

    #[test]
    fn at_most_one_word_a_frame() {
        for frames in [8, 9, 1000, 262_144] {
            assert!(Shadows::new(&mut Carver::heap(), frames).sets.len() * WAYS <= frames);
            assert!(Shadows::bytes_for(frames) <= frames * 8 + size_of::<Shadows>() + 64);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// SHADOW-1 and SHADOW-2: each set is a list of its eight youngest shadows.
        #[test]
        fn same_as_a_list_for_each_set(
            frames in 1usize..100, start in prop_oneof![Just(0), Just((1u64 << 32) - 100)],
            ops in prop::collection::vec((any::<bool>(), 0u64..150, 0u64..3), 1..600),
        ) {
            let (shadows, clock) = (Shadows::new(&mut Carver::heap(), frames), NonresidentAge::new());
            clock.advance(start);
            let mut model: Vec<Vec<(u64, u64)>> = vec![Vec::new(); shadows.sets.len()];
            let set_of = |page| ((u128::from(hash(page)) * shadows.sets.len() as u128) >> 64) as usize;
            for (evict, page, activated) in ops {
                clock.advance(activated);
                let set = &mut model[set_of(page)];
                let known = set.iter().position(|&(p, _)| p == page).map(|at| set.remove(at).1);
                if evict {
                    let age = clock.advance(1);
                    shadows.evict(hash(page), age);
                    set.push((page, age));
                    if set.len() > WAYS {
                        set.remove(0);
                    }
                } else {
                    let expected = known.map(|age| (clock.now() - age) as u32);
                    prop_assert_eq!(shadows.refault(hash(page), clock.now()), expected);
                }
            }
        }
    }

    /// Races lose shadows; what is found is a distance that was possible, once.
    #[test]
    fn races_are_only_lossy() {
        let (shadows, clock) = (Shadows::new(&mut Carver::heap(), 64), NonresidentAge::new());
        let rounds = if cfg!(miri) { 50 } else { 5_000 };
        let found: u64 = std::thread::scope(|scope| {
            let tasks: Vec<_> = (0..3u64)
                .map(|t| {
                    let (shadows, clock) = (&shadows, &clock);
                    scope.spawn(move || {
                        let mut found = 0;
                        for i in 0..rounds {
                            let page = t * 1000 + i % 10;
                            shadows.evict(hash(page), clock.advance(1));
                            if let Some(d) = shadows.refault(hash(page), clock.now()) {
                                assert!(d >= 1 && u64::from(d) <= clock.now());
                                found += 1;
                            }
                        }
                        found
                    })
                })
                .collect();
            tasks.into_iter().map(|t| t.join().expect("no panic")).sum()
        });
        assert!(found > 0 && found <= 3 * rounds, "SHADOW-1: {found}");
    }
}
