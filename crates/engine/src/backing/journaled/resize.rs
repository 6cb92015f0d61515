//! The file's length, and its holes.
//!
//! **Invariants.** JRN-7: behind the file's end nothing is mapped, and the rest of the last page is zeroes on the disk, so
//! that a file that grows again reads as zeroes there. A truncation into the middle of a page therefore writes that page
//! anew.

use super::Volume;
use super::commit::Why;
use super::extent_map::Mapped;
use super::record::Change;
use crate::error::{IoError, IoErrorKind};
use crate::io::IoBuf;
use std::ops::Range;

impl Volume {
    pub(super) fn set_len(&self, len: u64) -> Result<(), IoError> {
        if len > self.geometry.capacity {
            return Err(IoError::new(IoErrorKind::NoSpace, len));
        }
        let block = u64::from(self.geometry.block_size);
        let cut = (!len.is_multiple_of(block)).then_some(len / block);
        if cut.is_some() && !self.state().has_one(self.memory.frames()) {
            // For the tail's new block; without one there is an error below.
            let _ = self.commit(Why::Space);
        }
        self.in_turn(|| {
            if let Some(page) = cut
                && len < self.state().len
            {
                self.zero_tail(page, (len % block) as usize)?;
            }
            let end = self.geometry.pages();
            self.unmap(len.div_ceil(block)..end, Some(len));
            Ok(())
        })
    }

    pub(super) fn punch(&self, offset: u64, len: u64) -> Result<(), IoError> {
        let block = u64::from(self.geometry.block_size);
        let end = offset.saturating_add(len);
        let pages = offset.div_ceil(block)..match end >= self.state().len {
            true => end.div_ceil(block).min(self.geometry.pages()),
            false => end / block,
        };
        if pages.is_empty() {
            return Ok(());
        }
        self.in_turn(|| {
            self.unmap(pages.clone(), None);
            Ok(())
        })
    }

    /// With the turn, so that no checkpoint has half of it.
    fn in_turn(&self, f: impl FnOnce() -> Result<(), IoError>) -> Result<(), IoError> {
        let until = self.memory.now().plus(super::COMMIT_TIMEOUT);
        let log = self.turn(until)?;
        let result = f();
        self.end_turn(log);
        result
    }

    fn unmap(&self, pages: Range<u64>, len: Option<u64>) {
        let unused = {
            let mut guard = self.state();
            let st = &mut *guard;
            let before = st.map.mapped();
            let space = &mut st.space;
            let unused = st.map.clear(pages.clone(), |block| space.unlink(block));
            if !planted!(self, KeptDoubt) {
                st.doubtful.retain(|page| !pages.contains(page));
            }
            if st.map.mapped() != before {
                st.note(Change::Unmap {
                    first: pages.start as u32,
                    end: pages.end as u32,
                });
            }
            if let Some(len) = len
                && st.len != len
            {
                st.len = len;
                st.note(Change::Len(len));
            }
            unused
        };
        drop(unused);
    }

    /// Writes a page anew with zeroes from byte `from` on, if it has a block.
    fn zero_tail(&self, page: u64, from: usize) -> Result<(), IoError> {
        let offset = page * u64::from(self.geometry.block_size);
        if self.state().map.get(page).is_none() {
            return Ok(());
        }
        let mut frame = self
            .log_buffer()
            .map_err(|_| IoError::from_errno(12, offset))?;
        let buf = IoBuf {
            ptr: frame.as_mut_ptr(),
            len: frame.len(),
        };
        let result = self.read_pages_now(offset, &[buf]).and_then(|()| {
            frame[from..].fill(0);
            self.write_anew(page, &frame)
        });
        self.return_buffer(frame);
        result
    }

    fn write_anew(&self, page: u64, bytes: &[u8]) -> Result<(), IoError> {
        let offset = page * u64::from(self.geometry.block_size);
        let block = {
            let mut st = self.state();
            // The slack may be used, and nothing that a dirty page was promised.
            let free = st.has_one(self.memory.frames()).then(|| st.space.alloc(1));
            st.unsettled += u64::from(free.is_some());
            free.flatten()
        };
        let Some((block, _)) = block else {
            return Err(IoError::new(IoErrorKind::NoSpace, offset));
        };
        let at = self.geometry.byte(u64::from(block));
        // Flushed at once: the cache does not know of this write, so nobody would repeat it after a flush that failed.
        let result =
            (self.device.write_now(at, bytes)).and_then(|()| match planted!(self, UnflushedTail) {
                true => Ok(()),
                false => self.flush_device(),
            });
        let mut st = self.state();
        if let Err(e) = result {
            st.space.put(block);
            st.unsettled = st.unsettled.saturating_sub(1);
            return Err(IoError::new(e.kind, offset));
        }
        let crc = crc32c::crc32c(bytes);
        let to = Mapped { block, crc };
        st.space.link(block);
        if let Some(old) = st.map.set(page, to) {
            st.space.unlink(old);
        }
        st.note(Change::Map {
            page: page as u32,
            to,
        });
        Ok(())
    }

    /// The ranges of the file that have blocks, within the given one.
    pub(super) fn mapped_ranges(&self, offset: u64, len: u64) -> Vec<(u64, u64)> {
        let block = u64::from(self.geometry.block_size);
        let st = self.state();
        let end = offset.saturating_add(len).min(st.len);
        let mut found: Vec<(u64, u64)> = Vec::new();
        let mut page = offset / block;
        while let Some(e) = st.map.next_extent(page..end.div_ceil(block)) {
            page = e.page + e.count;
            let from = (e.page * block).max(offset);
            let to = (page * block).min(end);
            match found.last_mut() {
                Some((start, len)) if *start + *len == from => *len = to - *start,
                _ => found.push((from, to - from)),
            }
        }
        found
    }
}
