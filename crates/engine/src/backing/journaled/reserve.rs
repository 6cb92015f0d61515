//! Space set aside for dirty pages: delayed allocation's promise.
//!
//! A writer gets a block's worth of space before its page is dirty, or an error; where the block is, is decided when the
//! page is written. Kept back are: what is reserved, what a failed flush would ask for a second time (a block for each page
//! that is dirty or was written since the last commit), a small slack, and for pages that replace others some headroom, so that
//! a full volume can be written over. So each such page has three blocks at hand: the disk's, that of the write which may be
//! lost, and one for the next try, in which they take turns for as long as flushes fail (`Volume::make_room`).
//! Blocks that wait for a commit are had by committing: by one writer when space begins to be scarce, while the others go on;
//! by whoever finds none.

use super::Volume;
use super::commit::Why;
use super::log::Full;
use crate::error::{IoError, IoErrorKind};
use crate::zone::{LendContext, LentFrame};

/// How often a writer commits for space before it gives up: once for what waits, and once more for what others took.
const COMMITS: u32 = 3;
/// Space is scarce when less than this part of the data blocks is available. A guess: enough for the writers who go on while
/// one commits.
const SCARCE: u64 = 16;

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
                let available = st.available(self.geometry.slack(), self.memory.frames());
                // A page that replaces another gives a block back.
                let kept = match st.map.get(page) {
                    Some(_) => 0,
                    None => self.geometry.headroom(),
                };
                if available > kept {
                    st.reserved += 1;
                    let scarce = self.geometry.data_blocks() / SCARCE;
                    if available > scarce || st.space.pending() < scarce || st.log.is_none() {
                        return Ok(());
                    }
                    drop(st);
                    // Early: the page has its space, whatever becomes of this.
                    let _ = self.commit(Why::Space);
                    return Ok(());
                }
                // Would a commit give a writer more?
                let worth = st.space.pending() + st.unsettled + st.settling > 0;
                (st.map.unpin(page), worth)
            };
            drop(unused);
            if !worth || turn == COMMITS {
                break;
            }
            self.commit(Why::Space)?;
        }
        Err(no_space)
    }

    /// Pins the leaf of `page`, with a frame of the cache if it is not there. The writer's own allocation, made with nothing
    /// in hand: as that of the page that it is going to write.
    fn pin_leaf(&self, page: u64) -> Result<(), Full> {
        let mut frame: Option<LentFrame> = None;
        loop {
            // A frame that somebody else's made needless is given back without the lock.
            let (spare, there) = {
                let mut st = self.state();
                let spare = frame.take().and_then(|f| st.map.add_leaf(page, f));
                let there = st.map.has_leaf(page);
                if there {
                    st.map.pin(page);
                }
                (spare, there)
            };
            drop(spare);
            if there {
                return Ok(());
            }
            let lent = self.memory.alloc(LendContext::Reclaim);
            frame = Some(lent.map_err(|_| Full)?);
        }
    }

    pub(super) fn release_page(&self, page: u64) {
        let unused = {
            let mut st = self.state();
            st.reserved -= 1;
            match st.leafless.remove(&page) {
                true => None,
                false if planted!(self, KeptPin) => None,
                false => st.map.unpin(page),
            }
        };
        drop(unused);
    }

    /// A page that was written, and whose block a failed flush may have lost, will be written again. Nothing is committed
    /// until it is (JRN-6).
    pub(super) fn reserve_again(&self, page: u64) {
        let mut st = self.state();
        st.reserved += 1;
        if st.doubt(page) {
            st.unsettled = st.unsettled.saturating_sub(1);
        }
        if st.map.has_leaf(page) {
            st.map.pin(page);
        } else {
            // A truncation or a hole has been here, and drops the page next: it is never written.
            st.leafless.insert(page);
        }
    }

    /// A page that is dirty already is in doubt.
    pub(super) fn doubt_page(&self, page: u64) {
        self.state().doubt(page);
    }
}
