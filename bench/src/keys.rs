//! Random numbers that cost next to nothing, so that no table of keys runs through the CPU's caches beside the pages.

/// SplitMix64: one addition and two multiplications a number; about 1 ns, measured in the row `hit`.
#[derive(Clone, Debug)]
pub struct Keys(u64);

impl Keys {
    /// A stream of its own for each (seed, stream).
    pub fn new(seed: u64, stream: u64) -> Keys {
        let mut keys = Keys(seed ^ stream.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        keys.next();
        keys
    }

    /// The next 64 random bits.
    #[inline(always)]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }
}

/// Spreads the bits of a number.
#[inline(always)]
pub fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// A page below `pages` out of a random number's upper half.
#[inline(always)]
pub fn page_of(random: u64, pages: u64) -> u64 {
    ((random >> 32) * pages) >> 32
}

/// Where in a page of `size` bytes, a power of two, to read 8 bytes: a multiple of 8, out of the lower half.
#[inline(always)]
pub fn offset_of(random: u64, size: usize) -> usize {
    random as usize & (size - 8)
}

/// The 8 bytes there.
#[inline(always)]
pub fn touch(page: &[u8], offset: usize) -> u64 {
    let bytes = &page[offset..offset + 8];
    u64::from_le_bytes(bytes.try_into().expect("8 bytes"))
}

/// Visits all of 0..n before it comes again: in random order where n is a power of two.
#[derive(Clone, Debug)]
pub struct Tour {
    at: u64,
    n: u64,
    salt: u64,
}

impl Tour {
    /// Over 0..n, a power of two.
    pub fn new(n: u64, seed: u64) -> Tour {
        assert!(n.is_power_of_two(), "a tour of {n} places");
        Tour {
            at: 0,
            n,
            salt: mix(seed),
        }
    }

    /// The next place.
    pub fn next(&mut self) -> u64 {
        let mask = self.n - 1;
        let half = (self.n.trailing_zeros() / 2).max(1);
        let mut x = self.at & mask;
        self.at += 1;
        // Each step has an inverse modulo n: an odd factor, an addition, a shift to the right.
        for round in 0..3u64 {
            x = x.wrapping_mul(0x9E37_79B9_7F4A_7C15 | 1) & mask;
            x ^= x >> half;
            x = x.wrapping_add(self.salt.rotate_left(round as u32 * 16)) & mask;
        }
        x
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tour_meets_each_place_once() {
        for n in [2u64, 64, 4096, 65_536] {
            let mut tour = Tour::new(n, 7);
            let mut met = vec![false; n as usize];
            for _ in 0..n {
                let place = tour.next() as usize;
                assert!(!std::mem::replace(&mut met[place], true), "{place} of {n}");
            }
        }
    }

    #[test]
    fn keys_stay_within_their_bounds() {
        let mut keys = Keys::new(1, 2);
        for _ in 0..10_000 {
            let k = keys.next();
            assert!(page_of(k, 1000) < 1000);
            let at = offset_of(k, 4096);
            assert!(at + 8 <= 4096 && at.is_multiple_of(8));
        }
    }
}
