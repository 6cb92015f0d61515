//! Which blocks of a sparse file were written: what is left are holes, which a file system reads without its disk.

use std::ops::Range;

/// The unit in which a file system gives a file space.
const BLOCK: u64 = 4096;

/// A bit for each block that was written, up to the last of them.
#[derive(Default)]
pub(super) struct Written {
    words: Vec<u64>,
}

impl Written {
    /// Bytes at `range` were written.
    pub fn add(&mut self, range: Range<u64>) {
        for block in blocks(&range) {
            let (word, bit) = split(block);
            if word >= self.words.len() {
                self.words.resize(word + 1, 0);
            }
            self.words[word] |= bit;
        }
    }

    /// Is every block that `range` touches a hole?
    pub fn is_hole(&self, range: Range<u64>) -> bool {
        blocks(&range).all(|block| {
            let (word, bit) = split(block);
            self.words.get(word).is_none_or(|w| w & bit == 0)
        })
    }

    /// The file ends at `len`: what lies beyond has no blocks any more.
    pub fn truncate(&mut self, len: u64) {
        let (word, bit) = split(len.div_ceil(BLOCK));
        self.words.truncate(word + 1);
        if let Some(last) = self.words.get_mut(word) {
            *last &= bit - 1;
        }
    }
}

fn blocks(range: &Range<u64>) -> Range<u64> {
    range.start / BLOCK..range.end.div_ceil(BLOCK)
}

fn split(block: u64) -> (usize, u64) {
    ((block / 64) as usize, 1 << (block % 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn holes_are_what_a_list_of_blocks_says() {
        let mut rng = Rng::new(1, 1);
        let mut written = Written::default();
        let mut naive = [false; 300];
        for _ in 0..2_000 {
            let start = rng.below(290 * BLOCK);
            let range = start..start + 1 + rng.below(9 * BLOCK);
            let touched = start / BLOCK..range.end.div_ceil(BLOCK);
            let touched = touched.start as usize..touched.end as usize;
            match rng.below(8) {
                0 => {
                    written.truncate(start);
                    naive[start.div_ceil(BLOCK) as usize..].fill(false);
                }
                1 => {
                    written.add(range.clone());
                    naive[touched.clone()].fill(true);
                }
                _ => {}
            }
            let hole = naive[touched].iter().all(|w| !w);
            assert_eq!(written.is_hole(range.clone()), hole, "{range:?}");
        }
    }
}
