//! A request on its way: which piece goes to the kernel next, and what an answer means.
//!
//! Pure but for the bytes it zeroes: the engines below (`uring`, `pool`) ask for a [`Piece`], hand it to the kernel, and
//! tell the result to [`Flight::advance`]. A request is cut where the descriptor changes: whole blocks go through
//! O_DIRECT; from the first byte that is not on a block boundary on, the buffered descriptor takes the rest.
//!
//! **Invariants.**
//! - FLIGHT-1: a `Flight` owns its request, hence the right to its memory (IO-1), and keeps its descriptors open.
//! - FLIGHT-2: `done` only grows, and a request completes when `done` reaches its length, or with an error.
//!
//! **Kernel.** bio_advance(), the dio code's treatment of EOF.
#![allow(unsafe_code)]

use super::target::Target;
use highwater_engine::io::{IoBuf, IoOp, Request};
use highwater_engine::{IoError, IoErrorKind};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

/// `IOV_MAX`: the most segments that the kernel takes in one call.
const IOV_MAX: usize = 1024;
/// The most bytes in one call; the kernel's own limit is a little above.
const PIECE_MAX: usize = 1 << 30;
/// EAGAIN, EINTR and ECANCELED are tried again this often in a row.
const RETRIES: u32 = 10_000;

/// A request in an engine's table.
pub(super) struct Flight {
    request: Request,
    target: Arc<Target>,
    done: usize,
    total: usize,
    retries: u32,
    direct: bool,
    iov: Vec<libc::iovec>,
}

// SAFETY: FLIGHT-1: `iov` repeats addresses of the request's buffers, which the owner of the request may use on any
// thread.
unsafe impl Send for Flight {}

/// What goes to the kernel in one call. The segments are [`Flight::iov`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Piece {
    pub(super) fd: RawFd,
    pub(super) offset: u64,
    pub(super) op: IoOp,
}

/// What an answer means.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// There is more to do: take the next piece.
    Again,
    /// The request is over.
    Done(Result<(), IoError>),
}

impl Flight {
    pub(super) fn new(request: Request, target: Arc<Target>) -> Flight {
        let direct = target.direct.is_some() && aligned_memory(&request.bufs, &target);
        Flight {
            total: request.len(),
            request,
            target,
            done: 0,
            retries: 0,
            direct,
            iov: Vec::new(),
        }
    }

    /// The segments of the last piece.
    pub(super) fn iov(&self) -> &[libc::iovec] {
        &self.iov
    }

    /// Ends the request.
    pub(super) fn complete(self, result: Result<(), IoError>) {
        self.request.complete(result);
    }

    /// An error at the place where the request stands.
    pub(super) fn error(&self, errno: i32) -> IoError {
        let at = self.request.offset + self.done as u64;
        let error = IoError::from_errno(errno, at);
        match (self.request.op, error.kind) {
            // "Not writable" is no answer to a read.
            (IoOp::Read, IoErrorKind::ReadOnly) => IoError::new(IoErrorKind::Errno(errno), at),
            _ => error,
        }
    }

    /// The next piece; `None` of a request without bytes left.
    pub(super) fn next_piece(&mut self) -> Option<Piece> {
        let left = self.total - self.done;
        if left == 0 {
            return None;
        }
        let offset = self.request.offset + self.done as u64;
        let block = self.target.block;
        let (fd, len) = match &self.target.direct {
            Some(direct) if self.direct && offset.is_multiple_of(block as u64) && left >= block => {
                (direct.as_raw_fd(), left / block * block)
            }
            _ => (self.target.buffered.as_raw_fd(), left),
        };
        self.fill_iov(len.min(PIECE_MAX));
        Some(Piece {
            fd,
            offset,
            op: self.request.op,
        })
    }

    /// Builds the segments of the next `len` bytes, neighbours in memory merged.
    fn fill_iov(&mut self, len: usize) {
        self.iov.clear();
        let (mut skip, mut left) = (self.done, len);
        for buf in &self.request.bufs {
            if left == 0 {
                break;
            }
            if skip >= buf.len {
                skip -= buf.len;
                continue;
            }
            let base = buf.ptr.wrapping_add(skip);
            let take = (buf.len - skip).min(left);
            skip = 0;
            let full = self.iov.len() == IOV_MAX;
            match self.iov.last_mut() {
                Some(last) if last.iov_base.cast::<u8>().wrapping_add(last.iov_len) == base => {
                    last.iov_len += take;
                }
                // What does not fit goes with the next piece.
                _ if full => break,
                _ => self.iov.push(libc::iovec {
                    iov_base: base.cast(),
                    iov_len: take,
                }),
            }
            left -= take;
        }
    }

    /// Takes the kernel's answer: a count of bytes, or an errno as a negative number.
    pub(super) fn advance(&mut self, answer: i64) -> Step {
        match answer {
            // ECANCELED: the thread that submitted it has exited; nothing here cancels.
            e if [libc::EINTR, libc::EAGAIN, libc::ECANCELED].contains(&(-e as i32)) => {
                self.retries += 1;
                if self.retries > RETRIES {
                    return Step::Done(Err(self.error(-answer as i32)));
                }
                Step::Again
            }
            e if e < 0 => Step::Done(Err(self.error(-e as i32))),
            0 if self.request.op == IoOp::Read => {
                // The end of the file: bytes beyond it read as zero.
                zero_from(&self.request.bufs, self.done);
                self.done = self.total;
                Step::Done(Ok(()))
            }
            0 => Step::Done(Err(IoError::new(
                IoErrorKind::Io,
                self.request.offset + self.done as u64,
            ))),
            n => {
                self.retries = 0;
                self.done += n as usize;
                debug_assert!(self.done <= self.total, "FLIGHT-2");
                if self.done == self.total {
                    Step::Done(Ok(()))
                } else {
                    Step::Again
                }
            }
        }
    }
}

/// May these pieces of memory go to the device without a copy? The last one may be short.
fn aligned_memory(bufs: &[IoBuf], target: &Target) -> bool {
    let last = bufs.len().saturating_sub(1);
    bufs.iter().enumerate().all(|(i, b)| {
        b.ptr.addr().is_multiple_of(target.memory_align)
            && (i == last || b.len.is_multiple_of(target.block))
    })
}

/// Writes zeroes over the bytes of `bufs` from `done` on.
pub(super) fn zero_from(bufs: &[IoBuf], done: usize) {
    let mut skip = done;
    for buf in bufs {
        if skip >= buf.len {
            skip -= buf.len;
            continue;
        }
        // SAFETY: IO-1: the holder of the request may write its read buffers; in bounds, as skip < len.
        unsafe { buf.ptr.add(skip).write_bytes(0, buf.len - skip) };
        skip = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_engine::io::IoSink;

    struct Nothing;
    impl IoSink for Nothing {
        fn io_done(&self, _: &mut Request, _: Result<(), IoError>) {}
    }

    fn flight(op: IoOp, offset: u64, direct: bool, bufs: &[(*mut u8, usize)]) -> Flight {
        let mut request = Request::new(op, offset, Arc::new(Nothing));
        request.bufs = bufs.iter().map(|&(ptr, len)| IoBuf { ptr, len }).collect();
        Flight::new(request, Arc::new(Target::for_test(direct)))
    }

    fn lens(f: &Flight) -> Vec<usize> {
        f.iov().iter().map(|v| v.iov_len).collect()
    }

    #[repr(align(4096))]
    struct Aligned([u8; 16384]);

    #[test]
    fn neighbours_in_memory_are_one_segment() {
        let mut a = Box::new(Aligned([0; 16384]));
        let p = a.0.as_mut_ptr();
        let at = |i: usize| p.wrapping_add(i * 4096);
        let mut f = flight(
            IoOp::Write,
            0,
            true,
            &[(at(0), 4096), (at(1), 4096), (at(3), 4096)],
        );
        assert!(f.next_piece().is_some());
        assert_eq!(lens(&f), [8192, 4096]);
        assert_eq!(f.advance(4096), Step::Again);
        let piece = f.next_piece().unwrap();
        assert_eq!(piece.offset, 4096);
        assert_eq!(lens(&f), [4096, 4096]);
        assert_eq!(f.advance(8192), Step::Done(Ok(())));
    }

    #[test]
    fn an_unaligned_tail_goes_through_the_buffered_descriptor() {
        let mut a = Box::new(Aligned([0; 16384]));
        let mut f = flight(IoOp::Write, 8192, true, &[(a.0.as_mut_ptr(), 4096 + 700)]);
        let (direct, buffered) = Target::test_fds(&f.target);
        let head = f.next_piece().unwrap();
        assert_eq!((head.fd, lens(&f)), (direct, vec![4608]));
        assert_eq!(f.advance(4608), Step::Again);
        let tail = f.next_piece().unwrap();
        assert_eq!(
            (tail.fd, tail.offset, lens(&f)),
            (buffered, 8192 + 4608, vec![188])
        );
        assert_eq!(f.advance(188), Step::Done(Ok(())));
    }

    #[test]
    fn unaligned_offsets_and_memory_are_buffered_from_the_start() {
        let mut a = Box::new(Aligned([0; 16384]));
        let p = a.0.as_mut_ptr();
        for (offset, ptr) in [(100, p), (512, p.wrapping_add(3))] {
            let mut f = flight(IoOp::Write, offset, true, &[(ptr, 4096)]);
            let (_, buffered) = Target::test_fds(&f.target);
            assert_eq!(f.next_piece().unwrap().fd, buffered);
        }
    }

    #[test]
    fn a_read_at_the_end_is_filled_with_zeroes() {
        let mut a = Box::new(Aligned([7; 16384]));
        let p = a.0.as_mut_ptr();
        let mut f = flight(
            IoOp::Read,
            0,
            true,
            &[(p, 4096), (p.wrapping_add(8192), 4096)],
        );
        f.next_piece();
        assert_eq!(f.advance(1000), Step::Again);
        let (_, buffered) = Target::test_fds(&f.target);
        assert_eq!(f.next_piece().unwrap().fd, buffered);
        assert_eq!(f.advance(0), Step::Done(Ok(())));
        drop(f);
        assert!(a.0[..1000].iter().all(|b| *b == 7));
        assert!(a.0[1000..4096].iter().all(|b| *b == 0));
        assert!(a.0[4096..8192].iter().all(|b| *b == 7));
        assert!(a.0[8192..12288].iter().all(|b| *b == 0));
    }

    #[test]
    fn answers() {
        let mut b = [0u8; 64];
        let mut f = flight(IoOp::Write, 10, false, &[(b.as_mut_ptr(), 64)]);
        f.next_piece();
        assert_eq!(f.advance(-i64::from(libc::EAGAIN)), Step::Again);
        assert_eq!(f.advance(4), Step::Again);
        let full = Step::Done(Err(IoError::new(IoErrorKind::NoSpace, 14)));
        assert_eq!(f.advance(-i64::from(libc::ENOSPC)), full);
        let nothing = Step::Done(Err(IoError::new(IoErrorKind::Io, 14)));
        assert_eq!(f.advance(0), nothing);
        for (op, kind) in [
            (IoOp::Write, IoErrorKind::ReadOnly),
            (IoOp::Read, IoErrorKind::Errno(libc::EACCES)),
        ] {
            let mut f = flight(op, 10, false, &[(b.as_mut_ptr(), 64)]);
            f.next_piece();
            let refused = Step::Done(Err(IoError::new(kind, 10)));
            assert_eq!(f.advance(-i64::from(libc::EACCES)), refused);
        }
        let mut f = flight(IoOp::Write, 10, false, &[(b.as_mut_ptr(), 64)]);
        let given_up = (0..=RETRIES)
            .map(|_| f.advance(-i64::from(libc::EAGAIN)))
            .last();
        assert!(matches!(given_up, Some(Step::Done(Err(_)))));
    }

    #[test]
    fn more_segments_than_the_kernel_takes_are_cut() {
        let mut b = vec![0u8; 4000];
        let p = b.as_mut_ptr();
        let bufs: Vec<_> = (0..2000).map(|i| (p.wrapping_add(i * 2), 1)).collect();
        let mut f = flight(IoOp::Write, 0, false, &bufs);
        f.next_piece();
        assert_eq!(f.iov().len(), IOV_MAX);
        assert_eq!(f.advance(IOV_MAX as i64), Step::Again);
        f.next_piece();
        assert_eq!(f.iov().len(), 2000 - IOV_MAX);
    }
}
