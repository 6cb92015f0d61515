//! Watermarks: how many free frames wake kswapd, stop it, and make an allocation wait.
//!
//! **State.** None; plain numbers and functions.
//!
//! **Invariants.**
//! - WMARK-1: 0 < min < low < high (unless the user wants no reserve: then all are 0), so that kswapd wakes before allocations wait and has work when it wakes.
//! - WMARK-2: min is at most a sixteenth of the frames (of 16 frames or more), so that the reserve never becomes the
//!   cache.
//!
//! **Kernel.** `init_per_zone_wmark_min` and `zone_watermark_ok` of 2.6.35. Left out: `lowmem_reserve` (one zone), and
//! the lower clamp of 128 KiB, which exceeds a sixteenth wherever it would apply.
//!
//! **Tests.** Here, with numbers worked by hand.

/// The kernel's upper clamp of `min_free_kbytes`.
const MIN_KIB_MAX: u64 = 65_536;
/// The least reserve: the frames that a reclaimer and its I/O may hold at one time must exist even in a tiny cache.
/// Eight let a batch of writes of a few pages be in flight with copies.
const MIN_FRAMES: usize = 8;
/// The share of a tiny cache that the reserve may take. At 8 frames it is reached at 128 frames, half a MiB of 4 KiB.
const MIN_SHARE: usize = 16;

/// Free frames at which something changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Watermarks {
    /// Below this, allocations wait or reclaim for themselves.
    pub min: usize,
    /// Below this, kswapd is woken.
    pub low: usize,
    /// Up to this, kswapd works.
    pub high: usize,
}

/// The line an allocation is measured against.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mark {
    /// Half of min: callers that may not sleep (`ALLOC_HIGH`).
    MinNoWait,
    /// The slow path.
    Min,
    /// The fast path: below it, kswapd is woken.
    Low,
    /// Where kswapd stops.
    High,
}

impl Watermarks {
    /// The marks for `budget` bytes of frames of `frame_size` bytes each. `min_free`: bytes of the reserve
    /// (`vm.min_free_kbytes`), at most a sixteenth of the budget; by default the kernel's formula. With 0 there is no
    /// reserve: every mark is 0, kswapd has nothing to do, and each allocation reclaims for itself.
    pub fn new(budget: u64, frame_size: usize, min_free: Option<u64>) -> Watermarks {
        let frames = (budget / frame_size as u64) as usize;
        let min = match min_free {
            Some(0) => {
                let (min, low, high) = (0, 0, 0);
                return Watermarks { min, low, high };
            }
            Some(bytes) => (bytes / frame_size as u64) as usize,
            None => {
                let min_kib = (budget / 1024).saturating_mul(16).isqrt().min(MIN_KIB_MAX);
                ((min_kib * 1024 / frame_size as u64) as usize).max(MIN_FRAMES)
            }
        };
        let min = min.min(frames / MIN_SHARE).max(1);
        // The lower bounds keep the three apart where a quarter of min is less than a frame (WMARK-1).
        Watermarks {
            min,
            low: min + (min / 4).max(1),
            high: min + (min / 2).max(2),
        }
    }

    /// The number of free frames that `mark` stands for.
    pub fn at(&self, mark: Mark) -> usize {
        match mark {
            Mark::MinNoWait => self.min - self.min / 2,
            Mark::Min => self.min,
            Mark::Low => self.low,
            Mark::High => self.high,
        }
    }
}

/// May a block of 2^`order` frames be taken from `free` free frames, of which `nr_free[o]` blocks have order o, without
/// going below `mark`?
///
/// Blocks too small for the request do not count, and what remains must exceed half as much for each order skipped:
/// a zone full of single frames is no reserve for large blocks.
pub(crate) fn ok(order: u32, free: usize, nr_free: &[u32], mark: usize) -> bool {
    let mut free = free as i64 - (1i64 << order) + 1;
    let mut mark = mark as i64;
    if free <= mark {
        return false;
    }
    for (o, &blocks) in nr_free.iter().enumerate().take(order as usize) {
        free -= i64::from(blocks) << o;
        mark >>= 1;
        if free <= mark {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    #[test]
    fn marks_worked_by_hand() {
        // budget, frame size, (min, low, high)
        let table: &[(u64, usize, (usize, usize, usize))] = &[
            // √(16 × 1,048,576) = 4,096 KiB = 1,024 frames.
            (GIB, 4096, (1024, 1280, 1536)),
            // √(16 × 65,536) = 1,024 KiB.
            (64 * MIB, 4096, (256, 320, 384)),
            (64 * MIB, 65_536, (16, 20, 24)),
            // √(16 × 262,144) = 2,048 KiB.
            (256 * MIB, 16_384, (128, 160, 192)),
            // √(16 × 4 × 1,048,576) = 8,192 KiB.
            (4 * GIB, 4096, (2048, 2560, 3072)),
            // √(16 × 1,073,741,824) = 131,072 KiB, clamped to 65,536.
            (1024 * GIB, 4096, (16_384, 20_480, 24_576)),
            // √(16 × 4,096) = 256 KiB = 64 frames: exactly a sixteenth of 1,024.
            (4 * MIB, 4096, (64, 80, 96)),
            // √(16 × 1,024) = 128 KiB = 32 frames, but a sixteenth of 256 frames is 16.
            (MIB, 4096, (16, 20, 24)),
            // √(16 × 8,192) = 362 KiB = 5 frames, raised to 8, a sixteenth of 128.
            (8 * MIB, 65_536, (8, 10, 12)),
            // 64 frames: a sixteenth is 4.
            (256 * KIB, 4096, (4, 5, 6)),
            // 16 frames: 1, and the others a frame apart.
            (64 * KIB, 4096, (1, 2, 3)),
            (4 * KIB, 4096, (1, 2, 3)),
        ];
        for &(budget, frame_size, (min, low, high)) in table {
            let marks = Watermarks::new(budget, frame_size, None);
            assert_eq!(
                marks,
                Watermarks { min, low, high },
                "{budget} / {frame_size}"
            );
        }
    }

    #[test]
    fn marks_rise_and_stay_a_small_share() {
        for frame_size in [4096, 16_384, 65_536] {
            let mut budget = 16 * frame_size as u64;
            while budget < 1 << 44 {
                let m = Watermarks::new(budget, frame_size, None);
                let frames = (budget / frame_size as u64) as usize;
                assert!(
                    0 < m.min && m.min < m.low && m.low < m.high,
                    "WMARK-1: {m:?}"
                );
                assert!(m.min <= frames / MIN_SHARE, "WMARK-2: {m:?} of {frames}");
                assert!(m.at(Mark::MinNoWait) > 0 && m.at(Mark::MinNoWait) <= m.min);
                budget += budget / 7 + 4096;
            }
        }
    }

    #[test]
    fn the_user_sets_the_reserve() {
        let marks = |min_free| {
            let m = Watermarks::new(64 * MIB, 4096, Some(min_free));
            (m.min, m.low, m.high)
        };
        assert_eq!(marks(0), (0, 0, 0));
        assert_eq!(marks(1), (1, 2, 3));
        assert_eq!(marks(MIB), (256, 320, 384));
        assert_eq!(marks(64 * MIB), (1024, 1280, 1536), "WMARK-2");
        let none = Watermarks::new(64 * MIB, 4096, Some(0));
        assert!(ok(0, 1, &[1], none.at(Mark::MinNoWait)) && !ok(0, 0, &[0], none.at(Mark::Low)));
    }

    #[test]
    fn half_of_min_is_left_to_callers_that_may_not_sleep() {
        let m = Watermarks::new(64 * MIB, 4096, None);
        assert_eq!(m.at(Mark::MinNoWait), 128);
        assert_eq!(
            (m.at(Mark::Min), m.at(Mark::Low), m.at(Mark::High)),
            (256, 320, 384)
        );
    }

    #[test]
    fn ok_worked_by_hand() {
        // order, free, blocks of each order, mark, expected
        let table: &[(u32, usize, &[u32], usize, bool)] = &[
            // Order 0: free must exceed the mark.
            (0, 101, &[101], 100, true),
            (0, 100, &[100], 100, false),
            (0, 1, &[1], 0, true),
            (0, 0, &[0], 0, false),
            // Order 1: 102 − 2 + 1 = 101 > 100; less 2 single frames 99 > 50.
            (1, 102, &[2, 50], 100, true),
            // All single: 101 − 102 < 50.
            (1, 102, &[102, 0], 100, false),
            // 101 − 51 = 50 is not above 50; with one single frame fewer, 51 is.
            (1, 102, &[51, 25], 100, false),
            (1, 102, &[50, 26], 100, true),
            // Order 2, mark 40: 64 − 3 = 61 > 40; − 20 = 41 > 20; − 10 × 2 = 21 > 10.
            (2, 64, &[20, 10, 6], 40, true),
            // The same with 16 pairs: 41 − 32 = 9 ≤ 10.
            (2, 64, &[20, 16, 3], 40, false),
            // Fewer frames than the block has.
            (3, 4, &[0, 0, 1, 0], 0, false),
            // Exactly one block and no mark: 8 − 7 = 1 > 0.
            (3, 8, &[0, 0, 0, 1], 0, true),
        ];
        for &(order, free, nr_free, mark, expected) in table {
            assert_eq!(
                ok(order, free, nr_free, mark),
                expected,
                "{order} {free} {nr_free:?} {mark}"
            );
        }
    }
}
