//! Writing pages: blocks are chosen here, for a whole batch at a time.
//!
//! ```text
//! requests of the cache   [p 7][p 90..92][p 4001]      scattered over the file
//! requests to the device  [b 512 .. 516]               one run, of the queue's limits
//! ```
//! 1. What has completed earlier goes on to the log (an allocation, and log writes, in the middle of a page's write).
//! 2. The checksum of each page is computed from its stable bytes (FRAME-4).
//! 3. Under the lock: the batch's pages get runs of free blocks in the place of what was set aside for them. What failed
//!    commits hold back is had first, where it is needed (`make_room`).
//! 4. Each run becomes requests, which go out together. A page that is not whole, at the file's end, is filled up with
//!    zeroes, so that blocks are always whole and their rest always reads as zeroes.
//! 5. When the last request for a request of the cache has ended, its pages are mapped to their new blocks, the old ones
//!    wait for a commit, and the cache hears of it, in this order. If one has failed, nothing is mapped, the blocks are free
//!    again, and so is the space that the pages, dirty again, will need (JRN-3).

use super::Volume;
use super::extent_map::Mapped;
use super::record::Change;
use super::state::{Flight, Parent, State};
use crate::backing::WriteContext;
use crate::error::{IoError, IoErrorKind};
use crate::io::{IoBuf, IoOp, Request};
use crate::zone::LentFrame;

/// Walks through the memory of a request.
pub(super) struct Cursor<'a> {
    bufs: &'a [IoBuf],
    within: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bufs: &'a [IoBuf]) -> Cursor<'a> {
        Cursor { bufs, within: 0 }
    }

    /// Gives the next `len` bytes to `each`, in pieces; returns how many there were.
    pub(super) fn take(&mut self, len: usize, mut each: impl FnMut(IoBuf)) -> usize {
        let mut left = len;
        while left > 0
            && let Some(buf) = self.bufs.first()
        {
            let n = left.min(buf.len - self.within);
            if n > 0 {
                each(IoBuf {
                    ptr: buf.ptr.wrapping_add(self.within),
                    len: n,
                });
            }
            left -= n;
            self.within += n;
            if self.within == buf.len {
                self.bufs = &self.bufs[1..];
                self.within = 0;
            }
        }
        len - left
    }
}

/// Appends memory to a request's; neighbours become one segment.
pub(super) fn append(bufs: &mut Vec<IoBuf>, buf: IoBuf) {
    match bufs.last_mut() {
        Some(last) if last.ptr.wrapping_add(last.len) == buf.ptr => last.len += buf.len,
        _ => bufs.push(buf),
    }
}

/// How large a request to the device may be.
pub(super) struct Limits {
    bytes: usize,
    segments: usize,
}

impl Limits {
    /// How many frames of `block` bytes, wherever each lies, make one request. At least one.
    pub(super) fn frames(&self, block: usize) -> usize {
        (self.bytes / block).min(self.segments)
    }

    /// Would a request with `len` bytes in `bufs` be too large with one more page?
    pub(super) fn full(&self, bufs: &[IoBuf], len: usize, page: usize) -> bool {
        // A page that is filled up has two segments.
        len + page > self.bytes || bufs.len() + 2 > self.segments
    }
}

/// Requests to the device while they are made.
struct Outgoing {
    requests: Vec<(Request, Vec<usize>)>,
    /// Bytes of the last one.
    len: usize,
    /// The block behind its end.
    end: u32,
}

impl Volume {
    pub(super) fn limits(&self) -> Limits {
        let queue = self.device.queue();
        let block = self.geometry.block_size as usize;
        Limits {
            bytes: queue.request_bytes_max().max(block),
            segments: queue.segments_max().max(2),
        }
    }

    #[doc(alias("xfs_vm_writepages", "ext4_writepages"))]
    pub(super) fn write_batch(&self, context: WriteContext, batch: &mut Vec<Request>) {
        self.log_completed();
        let mut refused = Vec::new();
        let mut writes = Vec::with_capacity(batch.len());
        for request in batch.drain(..) {
            match self.prepare(&request) {
                Ok(mapped) => writes.push((request, mapped)),
                Err(e) => refused.push((request, e)),
            }
        }
        let mut full = Vec::new();
        let mut requests = {
            let mut st = self.state();
            self.place(&mut st, writes, &mut full)
        };
        if !requests.is_empty() {
            self.device.submit(context.lane(), &mut requests);
        }
        if !full.is_empty() && !context.is_reclaim() && self.make_room() {
            let again = std::mem::take(&mut full);
            let mut requests = self.place(&mut self.state(), again, &mut full);
            if !requests.is_empty() {
                self.device.submit(context.lane(), &mut requests);
            }
        }
        for (request, _) in full {
            let e = IoError::new(IoErrorKind::NoSpace, request.offset);
            request.complete(Err(e));
        }
        for (request, e) in refused {
            request.complete(Err(e));
        }
    }

    /// Checksums, with no block yet, and a leaf of the map for each page.
    fn prepare(&self, request: &Request) -> Result<Vec<Mapped>, IoError> {
        let block = self.geometry.block_size as usize;
        let end = request.offset.saturating_add(request.len() as u64);
        let aligned = request.offset.is_multiple_of(block as u64);
        if !aligned || request.is_empty() || end > self.geometry.capacity {
            // EINVAL: no page of this file.
            return Err(IoError::from_errno(22, request.offset));
        }
        let first = request.offset / block as u64;
        let mut mapped = Vec::with_capacity(request.len().div_ceil(block));
        let (mut crc, mut have) = (0, 0);
        for bytes in request.write_bytes() {
            let mut bytes = bytes;
            while !bytes.is_empty() {
                let n = bytes.len().min(block - have);
                crc = crc32c::crc32c_append(crc, &bytes[..n]);
                bytes = &bytes[n..];
                have += n;
                if have == block {
                    mapped.push(Mapped { block: 0, crc });
                    (crc, have) = (0, 0);
                }
            }
        }
        if have > 0 {
            let crc = crc32c::crc32c_append(crc, &self.zeroes[..block - have]);
            mapped.push(Mapped { block: 0, crc });
        }
        let st = self.state();
        let mut pages = first..first + mapped.len() as u64;
        let reserved = pages.all(|page| st.map.is_pinned(page));
        debug_assert!(reserved, "RESERVE-1: written without space");
        if !reserved {
            return Err(IoError::from_errno(22, request.offset));
        }
        Ok(mapped)
    }

    /// Gives blocks to the pages of all requests and makes the device's requests; those for which there are no blocks go to
    /// `full` and keep what they have reserved. That happens only to pages that failed flushes have made dirty again, one
    /// time after the other.
    fn place(
        &self,
        st: &mut State,
        writes: Vec<(Request, Vec<Mapped>)>,
        full: &mut Vec<(Request, Vec<Mapped>)>,
    ) -> Vec<Request> {
        let limits = self.limits();
        let mut left: usize = writes.iter().map(|(_, m)| m.len()).sum();
        let mut out = Outgoing {
            requests: Vec::new(),
            len: 0,
            end: 0,
        };
        let (mut next, mut run) = (0, 0);
        for (request, mut mapped) in writes {
            let pages = mapped.len();
            if st.space.free() + u64::from(run) < pages as u64 {
                left -= pages;
                full.push((request, mapped));
                continue;
            }
            for m in &mut mapped {
                if run == 0 {
                    (next, run) = st
                        .space
                        .alloc(left as u32)
                        .expect("SPACE-1: as many are free");
                }
                m.block = next;
                (next, run) = (next + 1, run - 1);
                left -= 1;
            }
            debug_assert!(
                st.reserved >= pages as u64,
                "RESERVE-1: written without space"
            );
            st.reserved = st.reserved.saturating_sub(pages as u64);
            st.unsettled += pages as u64;
            st.flying += pages as u64;
            let parent = st.parents.insert(Parent {
                request,
                left: 0,
                error: None,
                mapped,
            });
            self.add_requests(st.parents.get(parent), parent, &limits, &mut out);
        }
        for block in next..next + run {
            st.space.put(block);
        }
        let mut requests = Vec::with_capacity(out.requests.len());
        for (mut request, parents) in out.requests {
            st.stats.data_writes += 1;
            st.stats.data_bytes += request.len() as u64;
            request.cookie = st.flights.insert(Flight::Data(parents)) as u64;
            requests.push(request);
        }
        requests
    }

    /// Appends the pages of one request, whose blocks are chosen, to the requests to the device.
    fn add_requests(&self, p: &mut Parent, parent: usize, limits: &Limits, out: &mut Outgoing) {
        let block = self.geometry.block_size as usize;
        let mut cursor = Cursor::new(&p.request.bufs);
        for m in &p.mapped {
            let fits = out
                .requests
                .last()
                .is_some_and(|(r, _)| m.block == out.end && !limits.full(&r.bufs, out.len, block));
            if !fits {
                let at = self.geometry.byte(u64::from(m.block));
                let request = Request::new(IoOp::Write, at, self.sink());
                out.requests.push((request, Vec::new()));
                out.len = 0;
            }
            let (request, parents) = out.requests.last_mut().expect("pushed above");
            let n = cursor.take(block, |buf| append(&mut request.bufs, buf));
            if n < block {
                append(&mut request.bufs, self.zeroes.io_buf(block - n));
            }
            if parents.last() != Some(&parent) {
                parents.push(parent);
                p.left += 1;
            }
            out.len += block;
            out.end = m.block + 1;
        }
    }

    /// A request with pages of `parents` has ended. Returns those that are done, and frames to be given back.
    pub(super) fn data_written(
        &self,
        st: &mut State,
        parents: Vec<usize>,
        result: Result<(), IoError>,
        done: &mut Vec<Parent>,
        frames: &mut Vec<LentFrame>,
    ) {
        for at in parents {
            let p = st.parents.get(at);
            if let Err(e) = result {
                // Where the page is in the file, not where its block was.
                p.error
                    .get_or_insert(IoError::new(e.kind, p.request.offset));
            }
            p.left -= 1;
            if p.left == 0 {
                let p = st.parents.take(at);
                self.finish_write(st, &p, frames);
                done.push(p);
            }
        }
    }

    fn finish_write(&self, st: &mut State, p: &Parent, frames: &mut Vec<LentFrame>) {
        let first = p.request.offset / u64::from(self.geometry.block_size);
        let n = p.mapped.len() as u64;
        st.flying -= n;
        if p.error.is_some() {
            // JRN-3. The reservation's pin is still there.
            for m in &p.mapped {
                st.space.put(m.block);
            }
            st.reserved += n;
            st.unsettled = st.unsettled.saturating_sub(n);
            return;
        }
        for (page, to) in (first..).zip(&p.mapped) {
            st.space.link(to.block);
            if let Some(old) = st.map.set(page, *to) {
                match planted!(self, EarlyReuse) {
                    true => st.space.put(old),
                    false => st.space.unlink(old),
                }
            }
            st.doubtful.remove(&page);
            st.note(Change::Map {
                page: page as u32,
                to: *to,
            });
            frames.extend(st.map.unpin(page));
        }
        let end = p.request.offset + p.request.len() as u64;
        if end > st.len {
            st.len = end;
            if !planted!(self, LostLength) {
                st.note(Change::Len(end));
            }
        }
    }
}
