//! The calls: preadv, pwritev, fallocate, and the lock of a byte.
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

/// A file claimed for the moment in which its `flock` changes; given up on drop.
pub(super) struct Claim<'a>(BorrowedFd<'a>);

/// Claims the file for this open file, at once or not at all.
pub(super) fn claim(fd: BorrowedFd<'_>) -> Result<Claim<'_>, i32> {
    set_claim(fd, libc::F_WRLCK).map(|()| Claim(fd))
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        // What was claimed can be given up; if not, closing the descriptors does it.
        let _ = set_claim(self.0, libc::F_UNLCK);
    }
}

fn set_claim(fd: BorrowedFd<'_>, kind: i32) -> Result<(), i32> {
    // SAFETY: plain data, valid when zeroed.
    let mut byte: libc::flock = unsafe { std::mem::zeroed() };
    byte.l_type = kind as i16;
    byte.l_whence = libc::SEEK_SET as i16;
    // The last byte that an offset names: no file reaches it, and nobody locks it for what is written there.
    byte.l_start = i64::MAX - 1;
    byte.l_len = 1;
    loop {
        // SAFETY: an open descriptor, and a structure that the call reads.
        let r = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &byte) };
        match (r, errno()) {
            (0, _) => return Ok(()),
            (_, libc::EINTR) => {}
            (_, e) => return Err(e),
        }
    }
}
