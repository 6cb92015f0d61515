//! Where a run's files live: a directory of its own on a real disk with room enough, filled once, removed at the end.

use crate::cleanup::{Undo, undo};
use crate::error::{CliError, Result};
use crate::rng::Rng;
use crate::scenario::Scenario;
use crate::units::{Bytes, show_bytes};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What is left free on the file system at least, and that share of what is free now.
const SLACK_BYTES: u64 = 64 << 20;
const SLACK_SHARE: u64 = 16;
/// No budget is scaled below this.
const MEMORY_MIN: u64 = 8 << 20;

/// A directory of this run, removed on drop and on signals.
pub struct Place {
    /// The directory.
    pub dir: PathBuf,
    /// What the user should know about it.
    pub notes: Vec<String>,
    /// It is no disk's.
    pub in_memory: bool,
    _undo: Undo,
}

/// A kind of file system, as far as it matters here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum FsKind {
    /// Lives in memory: refuses `O_DIRECT` or makes it meaningless.
    Memory,
    /// Anything else.
    Disk,
}

fn fs_kind(dir: &Path) -> Option<FsKind> {
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    let magic = rustix::fs::statfs(dir).ok()?.f_type as u64 & 0xffff_ffff;
    Some(if magic == TMPFS || magic == RAMFS {
        FsKind::Memory
    } else {
        FsKind::Disk
    })
}

/// Bytes that this user may still write under `dir`.
fn free_bytes(dir: &Path) -> Option<u64> {
    let s = rustix::fs::statvfs(dir).ok()?;
    Some(s.f_bavail.saturating_mul(s.f_frsize))
}

/// What of `free` bytes is left free.
fn kept(free: u64) -> u64 {
    SLACK_BYTES.max(free / SLACK_SHARE)
}

/// Bytes of a file system.
pub struct Room {
    /// Free for this user.
    pub free: u64,
    /// What of it is left free.
    pub kept: u64,
    /// What files may have.
    pub files: u64,
}

/// The room under `dir`; `None` where it does not say.
pub fn room(dir: &Path) -> Option<Room> {
    let free = free_bytes(dir)?;
    let kept = kept(free);
    Some(Room {
        free,
        kept: kept.min(free),
        files: free.saturating_sub(kept),
    })
}

/// Chooses the directory and makes one of a random name in it.
///
/// # Errors
/// When no candidate can be written.
pub fn make(dir: Option<&Path>) -> Result<Place> {
    let mut notes = Vec::new();
    let tmp = std::env::temp_dir();
    let candidates: Vec<PathBuf> = match dir {
        Some(dir) => vec![dir.to_path_buf()],
        None => vec![tmp, PathBuf::from("."), PathBuf::from("/var/tmp")],
    };
    let on_disk = |d: &&PathBuf| fs_kind(d) == Some(FsKind::Disk) && writable(d);
    let chosen = candidates
        .iter()
        .find(on_disk)
        .or_else(|| candidates.iter().find(|d| writable(d)));
    let Some(base) = chosen else {
        let why = |d: &PathBuf| {
            let why = refusal(d).map_or(String::new(), |e| format!(": {e}"));
            format!("{}{why}", d.display())
        };
        let names: Vec<String> = candidates.iter().map(why).collect();
        return Err(CliError::usage(
            format!("cannot write to {}", names.join(", or to ")),
            "--dir with a directory on a disk that you may write to",
        ));
    };
    let in_memory = fs_kind(base) == Some(FsKind::Memory);
    if in_memory {
        notes.push(format!(
            "{} is in memory (tmpfs): O_DIRECT is refused or free of cost there, and the numbers say little; use --dir with a disk",
            base.display()
        ));
    } else if base != &candidates[0] {
        notes.push(format!(
            "{} is in memory; the data goes to {}",
            candidates[0].display(),
            base.display()
        ));
    }
    let dir = base.join(random_name());
    std::fs::create_dir(&dir).map_err(|e| {
        CliError::os(
            dir.display(),
            e,
            "--dir with a directory that you may write to",
        )
    })?;
    let dir = dir.canonicalize().unwrap_or(dir);
    let gone = dir.clone();
    let undo = undo(move || {
        let _ = std::fs::remove_dir_all(&gone);
    });
    Ok(Place {
        dir,
        notes,
        in_memory,
        _undo: undo,
    })
}

fn writable(dir: &Path) -> bool {
    refusal(dir).is_none()
}

/// Why no file can be made in `dir`, if so: no rights, mounted for reading only, no directory.
fn refusal(dir: &Path) -> Option<std::io::Error> {
    use rustix::fs::Access;
    match rustix::fs::access(dir, Access::WRITE_OK | Access::EXEC_OK) {
        Err(e) => Some(e.into()),
        Ok(()) if !dir.is_dir() => Some(rustix::io::Errno::NOTDIR.into()),
        Ok(()) => None,
    }
}

fn random_name() -> String {
    use std::hash::{BuildHasher, Hasher};
    // The standard library's hasher is keyed by the operating system's random numbers.
    let random = std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish();
    format!("highwater-{random:016x}")
}

/// Bytes on disk that the scenario needs with a budget of `memory`.
fn needed(scenario: &Scenario, memory: u64) -> u64 {
    scenario
        .files
        .values()
        .map(|f| match f.trace {
            // No blocks but those that the trace writes.
            Some(grown) => grown.blocks,
            None if f.sparse => 0,
            None => f.disk_bytes(memory),
        })
        .sum()
}

/// Makes the scenario fit: scales its budget (and so its files) down when the disk is too small for them and `beside`
/// bytes of other files.
///
/// # Errors
/// When not even 8 MiB of budget fit.
pub fn fit(scenario: &mut Scenario, dir: &Path, beside: u64) -> Result<Option<String>> {
    let Some(free) = free_bytes(dir) else {
        return Ok(None);
    };
    fit_into(scenario, free, beside, dir)
}

fn fit_into(scenario: &mut Scenario, free: u64, beside: u64, dir: &Path) -> Result<Option<String>> {
    let kept = kept(free) + beside;
    let room = free.saturating_sub(kept);
    let wanted = scenario.memory.0;
    if needed(scenario, wanted) <= room {
        return Ok(None);
    }
    let mut memory = wanted;
    while memory >= MEMORY_MIN && needed(scenario, memory) > room {
        memory = (memory / 2) & !((1 << 20) - 1);
    }
    if memory < MEMORY_MIN {
        let needs = |memory| show_bytes(needed(scenario, memory) + kept);
        let less = match wanted > MEMORY_MIN {
            true => format!(", and {} to make sense at all", needs(MEMORY_MIN)),
            false => String::new(),
        };
        return Err(CliError::failed(
            format!(
                "{} has {} free; {} needs {} there{less}",
                dir.display(),
                show_bytes(free),
                scenario.name,
                needs(wanted),
            ),
            "--dir with a larger file system, or free some space",
        ));
    }
    scenario.memory = Bytes(memory);
    Ok(Some(format!(
        "{} has {} free: memory scaled down from {} to {}",
        dir.display(),
        show_bytes(free),
        show_bytes(wanted),
        show_bytes(memory)
    )))
}

/// Lays out the file: every block written, so that no later write allocates and no read finds a hole.
///
/// # Errors
/// What the file system answers.
pub fn lay_out(path: &Path, len: u64, sparse: bool) -> Result<()> {
    let remedy = "--dir with a disk that has room; --memory with less";
    let fail = |e: std::io::Error| CliError::os(path.display(), e, remedy);
    if sparse {
        return File::create(path)
            .and_then(|f| f.set_len(len))
            .map_err(fail);
    }
    let direct = OpenOptions::new()
        .create(true)
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(path);
    let file = match direct {
        Ok(file) => file,
        Err(_) => OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(path)
            .map_err(fail)?,
    };
    const CHUNK: usize = 1 << 20;
    let mut space = vec![0u8; CHUNK + 4096];
    let buf = aligned(&mut space, CHUNK);
    let mut rng = Rng::new(len, 0);
    for word in buf.chunks_exact_mut(8) {
        word.copy_from_slice(&rng.next().to_le_bytes());
    }
    let mut offset = 0;
    while offset < len {
        let n = (len - offset).min(CHUNK as u64) as usize;
        file.write_all_at(&buf[..n], offset).map_err(fail)?;
        offset += n as u64;
    }
    file.sync_all().map_err(fail)?;
    let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
    Ok(())
}

/// `len` bytes of `space` that start at a multiple of 4 KiB, as `O_DIRECT` wants.
pub fn aligned(space: &mut [u8], len: usize) -> &mut [u8] {
    let skip = space.as_ptr().align_offset(4096);
    &mut space[skip..skip + len]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::find;

    #[test]
    fn the_directory_is_gone_after_the_run() {
        let base = tempfile::tempdir().unwrap();
        let place = make(Some(base.path())).unwrap();
        lay_out(&place.dir.join("a"), 3 << 20, false).unwrap();
        lay_out(&place.dir.join("b"), 1 << 30, true).unwrap();
        assert_eq!(
            std::fs::metadata(place.dir.join("a")).unwrap().len(),
            3 << 20
        );
        use std::os::unix::fs::MetadataExt;
        assert!(
            std::fs::metadata(place.dir.join("b")).unwrap().blocks() < 1024,
            "sparse"
        );
        assert!(
            std::fs::metadata(place.dir.join("a")).unwrap().blocks() * 512 >= 3 << 20,
            "laid out"
        );
        let dir = place.dir.clone();
        drop(place);
        assert!(!dir.exists());
        assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_small_disk_scales_memory_down_and_a_tiny_one_is_refused() {
        let mut s = find("rfc").unwrap();
        let dir = Path::new("/d");
        assert_eq!(fit_into(&mut s, 100 << 30, 0, dir).unwrap(), None);
        let note = fit_into(&mut s, 400 << 20, 0, dir).unwrap().unwrap();
        assert_eq!(s.memory.0, 32 << 20, "8 x 32 MiB + 64 MiB fit in 400 MiB");
        assert!(note.contains("from 64 MiB to 32 MiB"), "{note}");
        let note = fit_into(&mut s, 400 << 20, 200 << 20, dir)
            .unwrap()
            .unwrap();
        assert!(
            note.contains("from 32 MiB to 16 MiB"),
            "what lies beside counts: {note}"
        );
        let e = fit_into(&mut s, 70 << 20, 0, dir).unwrap_err();
        assert!(e.remedy.contains("--dir"), "{e}");
        assert!(e.message.contains("70 MiB free"), "{e}");
    }

    #[test]
    fn a_directory_that_is_none_is_refused_with_the_remedy() {
        let e = make(Some(Path::new("/no/such/dir"))).err().unwrap();
        assert!(e.remedy.contains("--dir"), "{e}");
        assert!(e.message.contains("No such file"), "the reason: {e}");
        let file = refusal(Path::new("/proc/self/status")).unwrap();
        assert!(
            file.to_string().contains("irectory") || file.to_string().contains("denied"),
            "{file}"
        );
    }

    #[test]
    fn tmpfs_is_said_aloud() {
        let shm = Path::new("/dev/shm");
        if fs_kind(shm) != Some(FsKind::Memory) || !writable(shm) {
            eprintln!("skipped: /dev/shm is no tmpfs that can be written");
            return;
        }
        let place = make(Some(shm)).unwrap();
        assert!(place.notes[0].contains("tmpfs"), "{:?}", place.notes);
    }
}
