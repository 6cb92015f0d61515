//! The blocking calls: preadv, pwritev, fallocate.
#![allow(unsafe_code)]

use super::flight::Piece;
use highwater_engine::io::IoOp;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Reads or writes one piece on the calling thread; the answer as io_uring would give it.
pub(super) fn transfer(piece: &Piece, iov: &[libc::iovec]) -> i64 {
    let (fd, count, at) = (piece.fd, iov.len() as i32, piece.offset as i64);
    // SAFETY: FLIGHT-1: the segments name memory of a request that the caller owns, and its descriptor is open.
    let n = unsafe {
        match piece.op {
            IoOp::Read => libc::preadv(fd, iov.as_ptr(), count, at),
            IoOp::Write => libc::pwritev(fd, iov.as_ptr(), count, at),
        }
    };
    if n >= 0 {
        n as i64
    } else {
        -i64::from(errno())
    }
}

fn errno() -> i32 {
    io::Error::last_os_error()
        .raw_os_error()
        .unwrap_or(libc::EIO)
}

/// fallocate, tried again when a signal interrupts it.
pub(super) fn fallocate(fd: BorrowedFd<'_>, mode: i32, offset: u64, len: u64) -> Result<(), i32> {
    loop {
        // SAFETY: an open descriptor and integers.
        let r = unsafe { libc::fallocate(fd.as_raw_fd(), mode, offset as i64, len as i64) };
        match (r, errno()) {
            (0, _) => return Ok(()),
            (_, libc::EINTR) => {}
            (_, e) => return Err(e),
        }
    }
}
