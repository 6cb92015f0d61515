//! Space set aside for dirty pages: delayed allocation's promise.
//!
//! A writer gets a block's worth of space before its page is dirty, or an error; where the block is, is decided when the
//! page is written. Kept back are: what is reserved, what a failed flush would ask for a second time (every block given out
//! since the last commit), and a small slack. Blocks that wait for a commit are had by committing.

use super::Volume;
use super::commit::Why;
use super::log::Full;
use super::state::State;
use crate::error::{IoError, IoErrorKind};
use crate::zone::{LendContext, LentFrame};

/// How often a writer commits for space before it gives up: once for what waits, and once more for what others took.
const COMMITS: u32 = 3;

impl Volume {
    pub(super) fn reserve_page(&self, page: u64) -> Result<(), IoError> {
        let no_space = IoError::new(
            IoErrorKind::NoSpace,
            page.saturating_mul(u64::from(self.geometry.block_size)),
        );
        if page >= self.geometry.pages() {
            return Err(no_space);
        }
        for turn in 0..=COMMITS {
            // ENOMEM, at the page.
            self.pin_leaf(page)
                .map_err(|Full| IoError::from_errno(12, no_space.offset))?;
            let (unused, worth) = {
                let mut st = self.state();
                if st.available(self.geometry.slack()) > 0 {
                    st.reserved += 1;
                    return Ok(());
                }
                (st.map.unpin(page), self.worth_committing(&st))
            };
            drop(unused);
            if !worth || turn == COMMITS {
                break;
            }
            self.commit(Why::Space)?;
        }
        Err(no_space)
    }

    /// Would a commit give a writer more to reserve?
    fn worth_committing(&self, st: &State) -> bool {
        st.space.pending() + st.unsettled + st.settling > 0
    }

    /// Pins the leaf of `page`, with a frame of the cache if it is not there. The writer's own allocation, made with nothing
    /// in hand: as that of the page that it is going to write.
    fn pin_leaf(&self, page: u64) -> Result<(), Full> {
        let mut frame: Option<LentFrame> = None;
        loop {
            let spare = {
                let mut st = self.state();
                let spare = frame.take().and_then(|f| st.map.add_leaf(page, f));
                if st.map.has_leaf(page) {
                    st.map.pin(page);
                    return Ok(());
                }
                spare
            };
            drop(spare);
            let lent = self.memory.alloc(LendContext::Reclaim);
            frame = Some(lent.map_err(|_| Full)?);
        }
    }

    pub(super) fn release_page(&self, page: u64) {
        let unused = {
            let mut st = self.state();
            st.reserved -= 1;
            st.map.unpin(page)
        };
        drop(unused);
    }

    /// A page that was written, and whose block a failed flush may have lost, will be written again. Nothing is committed
    /// until it is (JRN-6).
    pub(super) fn reserve_again(&self, page: u64) {
        let mut st = self.state();
        st.reserved += 1;
        st.unsettled = st.unsettled.saturating_sub(1);
        st.map.pin(page);
        st.doubtful.insert(page);
    }
}
