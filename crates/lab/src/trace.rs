//! A running hash of everything that happened: two runs of a seed are the same run exactly when their hashes are.

use crate::rng::mix;

/// The hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TraceHash(u64);

impl TraceHash {
    /// Takes in one event: what, about whom, when.
    #[inline]
    pub fn note(&mut self, what: u32, whom: u64, at: u64) {
        let word = (u64::from(what) << 56) ^ whom.rotate_left(40) ^ at;
        self.0 = mix(self.0 ^ word);
    }

    /// The hash so far.
    pub fn value(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_content_count() {
        let of = |events: &[(u32, u64, u64)]| {
            let mut hash = TraceHash::default();
            for &(what, whom, at) in events {
                hash.note(what, whom, at);
            }
            hash.value()
        };
        assert_eq!(of(&[(1, 2, 3), (4, 5, 6)]), of(&[(1, 2, 3), (4, 5, 6)]));
        assert_ne!(of(&[(1, 2, 3), (4, 5, 6)]), of(&[(4, 5, 6), (1, 2, 3)]));
        assert_ne!(of(&[(1, 2, 3)]), of(&[(1, 2, 4)]));
    }
}
