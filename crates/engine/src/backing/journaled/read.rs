//! Reading pages: where they are, and whether what comes back is what was written.
//!
//! A page without a block reads as zeroes. The checksum is compared with the one that was looked up *with the block*, before
//! the read: it can differ only if the block was given to another page meanwhile, which needs a truncation or a hole and a
//! commit; then the page is looked up again. Whoever reads ahead gets an error then, and reads again alone.
//!
//! No page under writeback is read (JRN-1), so the map always names the block of the last completed write.

use super::Volume;
use super::extent_map::Mapped;
use super::state::{Flight, Parent, State};
use super::write::{Cursor, Limits, append};
use crate::error::{IoError, IoErrorKind};
use crate::io::{IoBuf, IoOp, IoSink, Lane, Request};
use std::sync::Arc;

/// How often a page is looked up that moves while it is read.
const LOOKS: u32 = 8;

/// Where the requests end that carry a caller's buffers for one call.
struct Nobody;

impl IoSink for Nobody {
    fn io_done(&self, _: &mut Request, _: Result<(), IoError>) {}
}

/// A part of a request: consecutive pages on consecutive blocks, or a hole.
struct Piece {
    /// Where on the device.
    at: u64,
    bufs: Vec<IoBuf>,
    first: u64,
    /// Empty for a hole.
    mapped: Vec<Mapped>,
    len: usize,
}

impl Volume {
    pub(super) fn read_batch(&self, lane: Lane, batch: &mut Vec<Request>) {
        let limits = self.limits();
        let mut requests = Vec::new();
        let mut done = Vec::new();
        for request in batch.drain(..) {
            if let Err(e) = self.whole_pages(request.offset, &request.bufs) {
                request.complete(Err(e));
                continue;
            }
            let mut holes = Vec::new();
            {
                let mut st = self.state();
                let pieces = self.pieces(&st, request.offset, &request.bufs, &limits);
                let (reads, zeroes): (Vec<_>, Vec<_>) =
                    pieces.into_iter().partition(|p| !p.mapped.is_empty());
                holes.extend(zeroes);
                let parent = Parent {
                    request,
                    left: reads.len() as u32,
                    error: None,
                    mapped: Vec::new(),
                };
                if reads.is_empty() {
                    done.push(parent);
                } else {
                    let parent = st.parents.insert(parent);
                    requests.extend(reads.into_iter().map(|p| self.read_of(&mut st, parent, p)));
                }
            }
            // Before the requests go out: the last of them ends the cache's.
            for hole in holes {
                fill_zero(hole.bufs);
            }
        }
        if !requests.is_empty() {
            self.device.submit(lane, &mut requests);
        }
        for parent in done {
            parent.request.complete(Ok(()));
        }
    }

    /// The request to the device for a part of `parent`.
    fn read_of(&self, st: &mut State, parent: usize, piece: Piece) -> Request {
        let mut request = Request::new(IoOp::Read, piece.at, self.sink());
        request.bufs = piece.bufs;
        let flight = Flight::Read {
            parent,
            first: piece.first,
            mapped: piece.mapped,
        };
        request.cookie = st.flights.insert(flight) as u64;
        request
    }

    /// Checksums are of whole pages.
    fn whole_pages(&self, offset: u64, bufs: &[IoBuf]) -> Result<(), IoError> {
        let block = u64::from(self.geometry.block_size);
        let len: usize = bufs.iter().map(|b| b.len).sum();
        let whole = offset.is_multiple_of(block) && (len as u64).is_multiple_of(block);
        // EINVAL.
        whole.then_some(()).ok_or(IoError::from_errno(22, offset))
    }

    /// Cuts `bufs`, to be filled from byte `offset` of the file on, into what can be read at once.
    fn pieces(&self, st: &State, offset: u64, bufs: &[IoBuf], limits: &Limits) -> Vec<Piece> {
        let block = self.geometry.block_size as usize;
        let mut cursor = Cursor::new(bufs);
        let mut left: usize = bufs.iter().map(|b| b.len).sum();
        let mut page = offset / block as u64;
        let mut pieces: Vec<Piece> = Vec::new();
        while left > 0 {
            let at = st.map.get(page);
            let follows = |p: &Piece| match (at, p.mapped.last()) {
                (Some(m), Some(last)) => m.block == last.block + 1,
                (None, None) => true,
                _ => false,
            };
            let fits = pieces
                .last()
                .is_some_and(|p| follows(p) && !limits.full(&p.bufs, p.len, block));
            if !fits {
                pieces.push(Piece {
                    at: at.map_or(0, |m| self.geometry.byte(u64::from(m.block))),
                    bufs: Vec::new(),
                    first: page,
                    mapped: Vec::new(),
                    len: 0,
                });
            }
            let piece = pieces.last_mut().expect("pushed above");
            let n = cursor.take(block.min(left), |buf| append(&mut piece.bufs, buf));
            piece.mapped.extend(at);
            piece.len += n;
            left -= n;
            page += 1;
        }
        pieces
    }

    /// A read of blocks has ended: compares the checksums.
    pub(super) fn check_read(
        &self,
        request: &mut Request,
        first: u64,
        mapped: &[Mapped],
    ) -> Result<(), IoError> {
        let block = self.geometry.block_size as usize;
        let mut expected = (first..).zip(mapped);
        let (mut crc, mut have) = (0, 0);
        for bytes in request.read_bytes() {
            let mut bytes = &*bytes;
            while !bytes.is_empty() {
                let n = bytes.len().min(block - have);
                crc = crc32c::crc32c_append(crc, &bytes[..n]);
                bytes = &bytes[n..];
                have += n;
                if have < block {
                    continue;
                }
                let (page, m) = expected.next().expect("as many as were read");
                if crc != m.crc {
                    let at = page * block as u64;
                    return Err(IoError::new(IoErrorKind::Checksum, at));
                }
                (crc, have) = (0, 0);
            }
        }
        Ok(())
    }

    /// A part of `parent` has been read.
    pub(super) fn part_read(
        &self,
        st: &mut State,
        parent: usize,
        result: Result<(), IoError>,
        done: &mut Vec<Parent>,
    ) {
        let p = st.parents.get(parent);
        if let Err(e) = result {
            let at = if e.kind == IoErrorKind::Checksum {
                e.offset
            } else {
                p.request.offset
            };
            p.error.get_or_insert(IoError::new(e.kind, at));
        }
        p.left -= 1;
        if p.left == 0 {
            done.push(st.parents.take(parent));
        }
    }

    /// Reads whole pages on the calling thread.
    pub(super) fn read_pages_now(&self, offset: u64, bufs: &[IoBuf]) -> Result<(), IoError> {
        self.whole_pages(offset, bufs)?;
        let limits = self.limits();
        for _ in 0..LOOKS {
            let pieces = self.pieces(&self.state(), offset, bufs, &limits);
            let mut moved = false;
            for piece in pieces {
                if piece.mapped.is_empty() {
                    fill_zero(piece.bufs);
                    continue;
                }
                moved |= !self.read_piece(piece)?;
            }
            if !moved {
                return Ok(());
            }
        }
        Err(IoError::new(IoErrorKind::Checksum, offset))
    }

    /// Reads one piece. False when its bytes are another page's, as it has moved.
    fn read_piece(&self, piece: Piece) -> Result<bool, IoError> {
        let mut request = carry(piece.bufs, piece.at);
        let result = self
            .device
            .read_now(request.offset, &request.bufs)
            .map_err(|e| {
                let at = piece.first * u64::from(self.geometry.block_size);
                IoError::new(e.kind, at)
            })
            .and_then(|()| self.check_read(&mut request, piece.first, &piece.mapped));
        let Err(e) = result else { return Ok(true) };
        let st = self.state();
        let same = |(page, m): (u64, &Mapped)| st.map.get(page) == Some(*m);
        if e.kind == IoErrorKind::Checksum && !(piece.first..).zip(&piece.mapped).all(same) {
            return Ok(false);
        }
        Err(e)
    }
}

/// A request that carries buffers and ends here.
fn carry(bufs: Vec<IoBuf>, at: u64) -> Request {
    let mut request = Request::new(IoOp::Read, at, Arc::new(Nobody));
    request.bufs = bufs;
    request
}

/// A hole reads as zeroes.
fn fill_zero(bufs: Vec<IoBuf>) {
    for bytes in carry(bufs, 0).read_bytes() {
        bytes.fill(0);
    }
}
