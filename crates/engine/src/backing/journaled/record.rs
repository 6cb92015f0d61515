//! Changes of the map as the log has them: what a completed write or a truncation did, encoded as records.
//!
//! A record is a kind (1 byte), a spare byte, a count (2 bytes) and two words (4 bytes each); a `MAP` record is followed by
//! the CRC of each of its pages. Neighbouring pages on neighbouring blocks share one record, within one log block.

use super::extent_map::Mapped;
use super::format::{LOG_HEADER, put_u16, put_u32, put_u64, u16_at, u32_at, u64_at};

const MAP: u8 = 1;
const UNMAP: u8 = 2;
const LEN: u8 = 3;
/// Bytes of a record without its checksums.
const RECORD: usize = 12;

/// One change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// The page's data is in a new block.
    Map { page: u32, to: Mapped },
    /// Pages `first..end` have no data.
    Unmap { first: u32, end: u32 },
    /// The file's length.
    Len(u64),
}

/// Fills a log block with records.
pub(super) struct Encoder {
    pub used: usize,
    /// Where the last record begins, if it is a `MAP`, and the page and block that would extend it.
    open: Option<(usize, u32, u32)>,
}

impl Encoder {
    pub(super) fn new() -> Encoder {
        Encoder {
            used: LOG_HEADER,
            open: None,
        }
    }

    /// Appends a change to the records in `b`. False when it does not fit.
    pub(super) fn push(&mut self, b: &mut [u8], change: Change) -> bool {
        if let (Change::Map { page, to }, Some((at, next_page, next_block))) = (change, self.open) {
            let count = u16_at(b, at + 2);
            if (page, to.block) == (next_page, next_block) && count < u16::MAX {
                if self.used + 4 > b.len() {
                    return false;
                }
                put_u32(b, self.used, to.crc);
                put_u16(b, at + 2, count + 1);
                self.used += 4;
                self.open = Some((at, next_page + 1, next_block + 1));
                return true;
            }
        }
        let at = self.used;
        let more = if matches!(change, Change::Map { .. }) {
            4
        } else {
            0
        };
        if at + RECORD + more > b.len() {
            return false;
        }
        b[at..at + RECORD].fill(0);
        self.open = None;
        match change {
            Change::Map { page, to } => {
                b[at] = MAP;
                put_u16(b, at + 2, 1);
                put_u32(b, at + 4, page);
                put_u32(b, at + 8, to.block);
                put_u32(b, at + RECORD, to.crc);
                self.open = Some((at, page + 1, to.block + 1));
            }
            Change::Unmap { first, end } => {
                b[at] = UNMAP;
                put_u32(b, at + 4, first);
                put_u32(b, at + 8, end);
            }
            Change::Len(len) => {
                b[at] = LEN;
                put_u64(b, at + 4, len);
            }
        }
        self.used += RECORD + more;
        true
    }
}

/// Calls `apply` with each change in the `used` bytes of a log block; `None` at a record that makes no sense, or when
/// `apply` finds one.
pub(super) fn decode(
    b: &[u8],
    used: u32,
    mut apply: impl FnMut(Change) -> Option<()>,
) -> Option<()> {
    let b = b.get(..used as usize)?;
    let mut at = LOG_HEADER;
    while at < b.len() {
        if b.len() - at < RECORD {
            return None;
        }
        let (kind, count) = (b[at], u16_at(b, at + 2));
        let (first, second) = (u32_at(b, at + 4), u32_at(b, at + 8));
        match (kind, count) {
            (MAP, 1..) => {
                let crcs = b.get(at + RECORD..at + RECORD + 4 * usize::from(count))?;
                for i in 0..count {
                    let to = Mapped {
                        block: second.checked_add(u32::from(i))?,
                        crc: u32_at(crcs, 4 * usize::from(i)),
                    };
                    let page = first.checked_add(u32::from(i))?;
                    apply(Change::Map { page, to })?;
                }
                at += crcs.len();
            }
            (UNMAP, 0) if first < second => apply(Change::Unmap { first, end: second })?,
            (LEN, 0) => apply(Change::Len(u64_at(b, at + 4)))?,
            _ => return None,
        }
        at += RECORD;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            6 => (0..50u32, 100..150u32, any::<u32>())
                .prop_map(|(page, block, crc)| Change::Map { page, to: Mapped { block, crc } }),
            1 => (0..50u32, 1..9u32).prop_map(|(first, n)| Change::Unmap { first, end: first + n }),
            1 => any::<u64>().prop_map(Change::Len),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn changes_come_back_in_order(
            changes in prop::collection::vec(change(), 0..400),
            // Runs, which share a record.
            run in 0..80u32,
        ) {
            let mut all = changes;
            let mapped = |i| Mapped { block: 900 + i, crc: i };
            all.extend((0..run).map(|i| Change::Map { page: 70 + i, to: mapped(i) }));
            let mut b = vec![0xCC; 4096];
            let mut encoder = Encoder::new();
            let fitting = all.iter().take_while(|c| encoder.push(&mut b, **c)).count();
            prop_assert!(fitting == all.len() || encoder.used + RECORD + 4 > b.len());
            let mut back = Vec::new();
            let whole = decode(&b, encoder.used as u32, |c| {
                back.push(c);
                Some(())
            });
            prop_assert_eq!(whole, Some(()));
            prop_assert_eq!(&back[..], &all[..fitting]);
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(mut b in prop::collection::vec(any::<u8>(), 40..300), used in any::<u32>()) {
            // Most start with a kind that is known.
            if let Some(kind) = b.get_mut(LOG_HEADER) {
                *kind %= 5;
            }
            let used = used % (b.len() as u32 * 2);
            let mut n = 0;
            let _ = decode(&b, used.max(LOG_HEADER as u32), |_| { n += 1; Some(()) });
            prop_assert!(n <= b.len());
        }
    }

    #[test]
    fn a_run_takes_four_bytes_a_page() {
        let mut b = vec![0; 4096];
        let mut encoder = Encoder::new();
        for i in 0..256 {
            let to = Mapped {
                block: 500 + i,
                crc: i,
            };
            assert!(encoder.push(&mut b, Change::Map { page: i, to }));
        }
        assert_eq!(encoder.used, LOG_HEADER + RECORD + 4 * 256);
    }
}
