//! Requests that are submitted together wait for each other, as on Linux: the disk hears of them when there are many, when one
//! is large, or when the last one is there.

/// So many go at once (BLK_MAX_REQUEST_COUNT of block/blk.h).
const REQUESTS: usize = 32;
/// Behind one as large as this nothing waits (BLK_PLUG_FLUSH_SIZE): all before the next one go.
const BYTES: u64 = 128 << 10;

/// What waits.
pub(super) struct Plug<T> {
    held: Vec<T>,
    /// The last one is large.
    large: bool,
}

impl<T> Plug<T> {
    pub fn new() -> Plug<T> {
        Plug {
            held: Vec::new(),
            large: false,
        }
    }

    /// What goes to the disk before one more is added.
    pub fn make_room(&mut self) -> Vec<T> {
        match self.large || self.held.len() >= REQUESTS {
            true => self.end(),
            false => Vec::new(),
        }
    }

    /// Adds one of so many bytes.
    pub fn add(&mut self, item: T, len: u64) {
        self.large = len >= BYTES;
        self.held.push(item);
    }

    /// All that waits: the submission is at its end.
    pub fn end(&mut self) -> Vec<T> {
        self.large = false;
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many further ones each group went.
    fn groups(lens: &[u64]) -> Vec<usize> {
        let mut plug = Plug::new();
        let mut went = Vec::new();
        for len in lens {
            went.push(plug.make_room().len());
            plug.add((), *len);
        }
        went.push(plug.end().len());
        went.retain(|n| *n > 0);
        went
    }

    #[test]
    fn small_ones_go_by_32_and_large_ones_with_the_next() {
        assert_eq!(groups(&[4096; 70]), [32, 32, 6]);
        assert_eq!(groups(&[1 << 20; 3]), [1, 1, 1]);
        assert_eq!(groups(&[4096, 4096, 1 << 20, 4096]), [3, 1]);
        assert!(groups(&[]).is_empty());
    }
}
