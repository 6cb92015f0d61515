//! Where the data lives: a directory of its own, removed at the end and on Ctrl-C.

use crate::Outcome;
use crate::keys::Keys;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const CHUNK: usize = 1 << 20;

/// The directory.
pub struct Place {
    dir: tempfile::TempDir,
}

/// A buffer of `len` bytes at a multiple of 4 KiB, as `O_DIRECT` wants.
pub struct Aligned {
    space: Vec<u8>,
    skip: usize,
    len: usize,
}

impl Aligned {
    /// Filled with one byte that is not zero.
    pub fn new(len: usize) -> Aligned {
        let space = vec![0xA5u8; len + 4096];
        let skip = space.as_ptr().align_offset(4096);
        Aligned { space, skip, len }
    }

    /// Its bytes.
    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.space[self.skip..self.skip + self.len]
    }
}

impl Place {
    /// Makes it under `dir`, or under the system's directory for temporary files.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn make(dir: Option<&Path>) -> Outcome<Place> {
        let base = dir.map_or_else(std::env::temp_dir, Path::to_path_buf);
        let dir = tempfile::Builder::new()
            .prefix("highwater-bench-")
            .tempdir_in(&base)
            .map_err(|e| {
                format!(
                    "{}: {e}; use --dir with a directory on a disk",
                    base.display()
                )
            })?;
        let gone = dir.path().to_path_buf();
        let mut signals = signal_hook::iterator::Signals::new([
            signal_hook::consts::SIGINT,
            signal_hook::consts::SIGTERM,
        ])?;
        std::thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                let _ = std::fs::remove_dir_all(&gone);
                std::process::exit(128 + signal);
            }
        });
        Ok(Place { dir })
    }

    /// Its path.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A file of `len` random bytes, each block written; made at the first call.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn file(&self, name: &str, len: u64) -> Outcome<PathBuf> {
        let path = self.dir().join(name);
        if path.metadata().is_ok_and(|m| m.len() == len) {
            return Ok(path);
        }
        let fail = |e: std::io::Error| {
            format!(
                "{}: {e}; use --dir with a disk that has 3 GiB free",
                path.display()
            )
        };
        let file = File::create(&path).map_err(fail)?;
        let file = open_direct(&path, true).unwrap_or(file);
        let mut buffer = Aligned::new(CHUNK);
        let mut keys = Keys::new(len, 0);
        let mut at = 0;
        while at < len {
            for word in buffer.bytes().chunks_exact_mut(8) {
                word.copy_from_slice(&keys.next().to_le_bytes());
            }
            let n = (len - at).min(CHUNK as u64) as usize;
            file.write_all_at(&buffer.bytes()[..n], at).map_err(fail)?;
            at += n as u64;
        }
        file.sync_all().map_err(fail)?;
        Ok(path)
    }
}

/// Opens a file past the kernel's page cache.
///
/// # Errors
/// Where the file system refuses `O_DIRECT`.
pub fn open_direct(path: &Path, write: bool) -> Outcome<File> {
    OpenOptions::new()
        .read(true)
        .write(write)
        .custom_flags(libc::O_DIRECT)
        .open(path)
        .map_err(|e| format!("O_DIRECT is refused ({e}); use --dir with a disk, not tmpfs").into())
}
