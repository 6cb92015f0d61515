//! The device's own pace: sequential `O_DIRECT` requests of 1 MiB, eight in flight, by io_uring, each of memory in one piece
//! as far as there are huge pages.
#![allow(unsafe_code)]

use crate::Outcome;
use crate::memory::Plain;
use crate::place::open_direct;
use io_uring::{IoUring, opcode, types};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

const SIZE: u64 = 1 << 20;
const DEPTH: usize = 8;

/// Reads or writes a file in order, round after round, from the start again at its end.
pub struct Sequential {
    file: File,
    ring: IoUring,
    memory: Plain,
    next: u64,
    len: u64,
    write: bool,
}

impl Sequential {
    /// Over a file of `len` bytes, a multiple of 1 MiB.
    ///
    /// # Errors
    /// Where `O_DIRECT` or io_uring is refused.
    pub fn new(path: &Path, len: u64, write: bool) -> Outcome<Sequential> {
        let ring = IoUring::new(DEPTH as u32).map_err(|e| {
            format!("io_uring is refused ({e}); allow it: sysctl kernel.io_uring_disabled=0")
        })?;
        Ok(Sequential {
            file: open_direct(path, write)?,
            ring,
            memory: Plain::new(DEPTH * SIZE as usize)?,
            next: 0,
            len,
            write,
        })
    }

    fn push(&mut self, slot: usize) {
        let buffer = self.memory.part(slot * SIZE as usize, SIZE as usize);
        let fd = types::Fd(self.file.as_raw_fd());
        let entry = if self.write {
            opcode::Write::new(fd, buffer, SIZE as u32)
                .offset(self.next)
                .build()
        } else {
            opcode::Read::new(fd, buffer, SIZE as u32)
                .offset(self.next)
                .build()
        };
        self.next = (self.next + SIZE) % self.len;
        // SAFETY: memory and file live in `self`; `run` returns when none is in flight, and aborts the process when it
        // cannot know. A slot has one request at a time, and the ring has room for all slots.
        unsafe { self.ring.submission().push(&entry.user_data(slot as u64)) }
            .expect("room in the ring");
    }

    /// Bytes a second over `length` and what it takes to end: the last requests and, for writes, fdatasync.
    ///
    /// # Errors
    /// When a request or the flush fails.
    pub fn run(&mut self, length: Duration) -> Outcome<f64> {
        let begin = Instant::now();
        let (mut in_flight, mut done, mut failed) = (0, 0u64, None);
        for slot in 0..DEPTH {
            self.push(slot);
            in_flight += 1;
        }
        while in_flight > 0 {
            if let Err(e) = self.ring.submit_and_wait(1) {
                if e.raw_os_error() != Some(libc::EINTR) {
                    // Requests may be in flight, and unwinding would free their memory.
                    eprintln!("io_uring_enter: {e}");
                    std::process::abort();
                }
                continue;
            }
            let open = begin.elapsed() < length && failed.is_none();
            let ready: Vec<_> = self.ring.completion().collect();
            for entry in ready {
                in_flight -= 1;
                if entry.result() == SIZE as i32 {
                    done += SIZE;
                } else {
                    failed = Some(entry.result());
                }
                if open {
                    self.push(entry.user_data() as usize);
                    in_flight += 1;
                }
            }
        }
        if let Some(result) = failed {
            return Err(format!(
                "a raw request of 1 MiB ended with {result}; use --dir with a healthy disk"
            )
            .into());
        }
        if self.write {
            self.file.sync_data()?;
        }
        Ok(done as f64 / begin.elapsed().as_secs_f64())
    }
}
