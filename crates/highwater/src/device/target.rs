//! The open descriptors of one file, and the alignment that direct I/O needs.
//!
//! **Invariants.** TARGET-1: `block` and `memory_align` are powers of two; they matter only where `direct` is some.
#![allow(unsafe_code)]

use highwater_engine::Error;
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Should a file be read and written past the kernel's page cache?
///
/// ```
/// use highwater::{DirectIo, OpenOptions};
/// let options = OpenOptions::new().read(true).direct(DirectIo::Never);
/// # let _ = options;
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum DirectIo {
    /// With `O_DIRECT` where the file system takes it, else through the kernel's page cache
    /// ([`crate::File::direct`] tells which).
    #[default]
    Auto,
    /// With `O_DIRECT`, or the open fails.
    Always,
    /// Through the kernel's page cache.
    Never,
}

/// The descriptors of one file. Shared by the device and its requests on the way.
#[derive(Debug)]
pub(super) struct Target {
    /// For whole blocks, past the kernel's page cache.
    pub(super) direct: Option<OwnedFd>,
    /// For pieces that are no whole blocks; for everything where `direct` is none.
    pub(super) buffered: OwnedFd,
    /// Both are open for writing, too.
    pub(super) write: bool,
    /// Offsets and lengths of direct I/O are multiples of this.
    pub(super) block: usize,
    /// Addresses of direct I/O are multiples of this.
    pub(super) memory_align: usize,
}

impl Target {
    /// Opens a second, direct descriptor beside `buffered`, as `mode` asks.
    pub(super) fn new(
        path: &Path,
        buffered: OwnedFd,
        write: bool,
        mode: DirectIo,
    ) -> Result<Target, Error> {
        let mut target = Target {
            direct: None,
            buffered,
            write,
            block: 4096,
            memory_align: 4096,
        };
        if mode != DirectIo::Never {
            match target.open_direct() {
                Ok(fd) => target.direct = Some(fd),
                Err(e) if mode == DirectIo::Always => {
                    let what = format!(
                        "open {} with O_DIRECT; open it with DirectIo::Auto to go through the kernel's page cache instead",
                        path.display()
                    );
                    return Err(Error::os(what, &e));
                }
                Err(e) => tracing::info!(path = %path.display(), "no direct I/O ({e}): buffered"),
            }
        }
        Ok(target)
    }

    /// What requests that nobody waits for in a call go through: where a file's lock belongs (LOCK-3). Pieces for the other
    /// descriptor end before their process does, as they are copied.
    pub(super) fn carrier(&self) -> &OwnedFd {
        self.direct.as_ref().unwrap_or(&self.buffered)
    }

    fn open_direct(&mut self) -> std::io::Result<OwnedFd> {
        // Memory is their disk: they take the flag and copy all the same.
        const RAMFS: u64 = 0x8584_58f6;
        const TMPFS: u64 = 0x0102_1994;
        let kind = rustix::fs::fstatfs(&self.buffered)?.f_type as u64;
        if [RAMFS, TMPFS].contains(&kind) {
            return Err(std::io::ErrorKind::Unsupported.into());
        }
        let access = if self.write {
            OFlags::RDWR
        } else {
            OFlags::RDONLY
        };
        // Through the descriptor, so that it is the same file whatever happens to its name.
        let link = format!("/proc/self/fd/{}", self.buffered.as_raw_fd());
        let flags = access | OFlags::DIRECT | OFlags::CLOEXEC | OFlags::NOCTTY;
        let fd = rustix::fs::open(&*link, flags, Mode::empty())?;
        match dio_align(&self.buffered) {
            // The file system takes the flag and would fail, or silently buffer, each call.
            Some((0, _)) | Some((_, 0)) => return Err(std::io::ErrorKind::Unsupported.into()),
            Some((memory, block)) => {
                self.memory_align = memory.next_power_of_two();
                self.block = block.next_power_of_two();
            }
            // A kernel before 6.1 does not tell. No logical block is larger than 4 KiB.
            None => {}
        }
        Ok(fd)
    }

    #[cfg(test)]
    pub(super) fn for_test(direct: bool) -> Target {
        let open = || OwnedFd::from(std::fs::File::open("/dev/null").expect("open /dev/null"));
        Target {
            direct: direct.then(open),
            buffered: open(),
            write: false,
            block: 512,
            memory_align: 512,
        }
    }

    #[cfg(test)]
    pub(super) fn test_fds(target: &Target) -> (i32, i32) {
        let direct = target.direct.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        (direct, target.buffered.as_raw_fd())
    }
}

/// (memory, offset) alignment of direct I/O on `fd`; `None` where the kernel does not tell.
fn dio_align(fd: &OwnedFd) -> Option<(usize, usize)> {
    // SAFETY: statx is plain data, valid when zeroed.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: an open descriptor, an empty path, and a buffer of the right type.
    let r = unsafe {
        libc::statx(
            fd.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            &mut stat,
        )
    };
    (r == 0 && stat.stx_mask & libc::STATX_DIOALIGN != 0).then_some((
        stat.stx_dio_mem_align as usize,
        stat.stx_dio_offset_align as usize,
    ))
}

/// The length of a block device in bytes (`BLKGETSIZE64`).
pub(super) fn block_device_len(fd: BorrowedFd<'_>) -> std::io::Result<u64> {
    const BLKGETSIZE64: libc::Ioctl = 0x8008_1272_u32 as libc::Ioctl;
    let mut len = 0u64;
    // SAFETY: the call writes one u64.
    let r = unsafe { libc::ioctl(fd.as_raw_fd(), BLKGETSIZE64, &mut len) };
    if r == 0 {
        Ok(len)
    } else {
        Err(std::io::Error::last_os_error())
    }
}
