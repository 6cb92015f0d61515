//! What the device tests share: devices on temporary files, requests that can be waited for, aligned memory.
#![allow(dead_code)]

pub mod child;
pub mod slow_disk;

use highwater::engine::io::{IoBuf, IoOp, IoSink, Lane, Request};
use highwater::engine::world::{Device, Nanos};
use highwater::engine::{IoError, World};
use highwater::{DirectIo, FileDevice, IoEngine, OsWorld};
use parking_lot::{Condvar, Mutex};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

const DENIED: &str = "HIGHWATER_TEST_IO_URING_DENIED";

/// Runs this whole test program once more, under a seccomp filter that denies io_uring as container run-times do.
pub fn rerun_without_io_uring() {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
    use std::os::unix::process::CommandExt;
    if std::env::var_os(DENIED).is_some() {
        let error = OsWorld::new(IoEngine::Uring)
            .err()
            .expect("the filter is on");
        assert!(error.to_string().contains("Threads"), "the remedy: {error}");
        assert_eq!(
            OsWorld::new(IoEngine::Auto).unwrap().io_engine(),
            IoEngine::Threads
        );
        return;
    }
    let denied = [
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
    ];
    let filter = SeccompFilter::new(
        denied.into_iter().map(|call| (call, vec![])).collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM as u32),
        std::env::consts::ARCH.try_into().unwrap(),
    )
    .unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.env(DENIED, "1").args(["--test-threads", "2"]);
    // SAFETY: between fork and exec the child makes two system calls and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            seccompiler::apply_filter(&program).map_err(|_| std::io::ErrorKind::Other.into())
        })
    };
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "under the filter:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The engines that this machine allows.
pub fn engines() -> Vec<IoEngine> {
    match OsWorld::new(IoEngine::Uring) {
        Ok(_) => vec![IoEngine::Uring, IoEngine::Threads],
        Err(e) => {
            eprintln!("SKIPPED the io_uring half: {e}");
            vec![IoEngine::Threads]
        }
    }
}

/// A directory on a disk: not `/tmp`, which may be a tmpfs.
pub fn disk_dir() -> tempfile::TempDir {
    let base = std::env::var_os("CARGO_TARGET_TMPDIR")
        .unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
    tempfile::tempdir_in(base).unwrap()
}

pub fn open(world: &OsWorld, path: &Path, write: bool, mode: DirectIo) -> FileDevice {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(write)
        .create(write)
        .truncate(false)
        .open(path)
        .unwrap();
    FileDevice::new(world, path, OwnedFd::from(file), write, mode).unwrap()
}

/// Page-aligned memory.
pub struct Memory {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Memory {
    pub fn new(len: usize) -> Memory {
        let bytes = vec![0; len + 4096];
        let start = bytes.as_ptr().align_offset(4096);
        Memory { bytes, start, len }
    }
    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
    pub fn buf(&mut self, at: usize, len: usize) -> IoBuf {
        IoBuf {
            ptr: self.bytes()[at..at + len].as_mut_ptr(),
            len,
        }
    }
}

/// Collects completions by cookie.
#[derive(Default)]
pub struct Inbox {
    done: Mutex<HashMap<u64, Result<(), IoError>>>,
    more: Condvar,
}

impl IoSink for Inbox {
    fn io_done(&self, request: &mut Request, result: Result<(), IoError>) {
        let twice = self.done.lock().insert(request.cookie, result);
        assert!(twice.is_none(), "IO-2: completed twice");
        self.more.notify_all();
    }
}

impl Inbox {
    pub fn request(
        self: &Arc<Self>,
        op: IoOp,
        offset: u64,
        bufs: Vec<IoBuf>,
        cookie: u64,
    ) -> Request {
        let mut request = Request::new(op, offset, self.clone());
        request.bufs = bufs;
        request.cookie = cookie;
        request
    }

    pub fn count(&self) -> usize {
        self.done.lock().len()
    }

    /// Waits until `n` requests have completed, reaping `lane` meanwhile as the engine would, then takes them.
    pub fn wait(
        &self,
        world: &OsWorld,
        device: &dyn Device,
        lane: Lane,
        n: usize,
    ) -> HashMap<u64, Result<(), IoError>> {
        let deadline = world.now().plus(Nanos::from_secs(30));
        while self.count() < n {
            assert!(
                world.now() < deadline,
                "{} of {n} requests completed",
                self.count()
            );
            match lane {
                Lane::Flusher => {
                    device
                        .queue()
                        .reap(lane, world.now().plus(Nanos::from_millis(5)));
                }
                Lane::Shared => {
                    let mut done = self.done.lock();
                    if done.len() < n {
                        self.more
                            .wait_for(&mut done, std::time::Duration::from_millis(5));
                    }
                }
            }
        }
        std::mem::take(&mut *self.done.lock())
    }
}

/// Names of the threads of this process.
pub fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks
        .filter_map(|t| std::fs::read_to_string(t.ok()?.path().join("comm")).ok())
        .map(|s| s.trim().to_owned())
        .collect()
}

pub fn fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
