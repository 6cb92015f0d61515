//! The public API on real files: lengths, holes, growth, sharing, refusals; bytes verified through std::fs.

mod common;

use common::{disk_dir, engines};
use highwater::{Cache, DirectIo, Error, File, IoEngine, OpenOptions, PageNo, Preset};
use std::path::Path;

const BUDGET: u64 = 8 << 20;

fn cache(engine: IoEngine) -> Cache {
    Cache::builder()
        .memory(BUDGET)
        .io_engine(engine)
        .build()
        .unwrap()
}

fn create() -> OpenOptions {
    OpenOptions::new().write(true).create(true)
}

struct Rng(u64);
impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }
}

/// Random work on a file of three times the budget, beside a shadow.
fn churn(file: &File, shadow: &mut Vec<u8>, seed: u64, operations: usize) {
    let mut rng = Rng(seed);
    let end = 3 * BUDGET + 777;
    for step in 0..operations {
        let at = rng.below(end);
        let len = (rng.below(20_000) + 1).min(end - at) as usize;
        let range = at as usize..at as usize + len;
        match rng.below(10) {
            0..5 => {
                let byte = rng.below(256) as u8;
                if shadow.len() < range.end {
                    shadow.resize(range.end, 0);
                }
                shadow[range].fill(byte);
                file.write_at(&vec![byte; len], at).unwrap();
            }
            5..9 => {
                let mut buf = vec![0xEE; len];
                let n = file.read_at(&mut buf, at).unwrap();
                let known = shadow.len().saturating_sub(at as usize).min(len);
                assert_eq!(n, known, "step {step} seed {seed}");
                let wanted = shadow.get(range.start..range.start + n).unwrap_or_default();
                assert!(buf[..n] == *wanted, "step {step} seed {seed} at {at}");
            }
            _ => {
                let page = at / 4096;
                if (page * 4096) < shadow.len() as u64 {
                    let byte = rng.below(256) as u8;
                    file.page_mut(PageNo(page)).unwrap()[100..200].fill(byte);
                    let start = page as usize * 4096 + 100;
                    let stop = (start + 100).min(shadow.len());
                    if start < stop {
                        shadow[start..stop].fill(byte);
                    }
                }
            }
        }
        assert_eq!(file.len(), shadow.len() as u64);
    }
}

fn same(path: &Path, shadow: &[u8]) {
    let disk = std::fs::read(path).unwrap();
    assert_eq!(disk.len(), shadow.len());
    if let Some(at) = disk.iter().zip(shadow).position(|(a, b)| a != b) {
        panic!("{}: byte {at} differs", path.display());
    }
}

#[test]
fn more_data_than_memory_reopened_and_verified() {
    for engine in engines() {
        let dir = disk_dir();
        let path = dir.path().join("data");
        let mut shadow = Vec::new();
        for round in 0..2 {
            let cache = cache(engine);
            let file = cache.open(&path, create()).unwrap();
            assert_eq!(file.len(), shadow.len() as u64);
            churn(&file, &mut shadow, 40 + round, 3_000);
            file.sync_data().unwrap();
            same(&path, &shadow);
            file.write_at(b"written back by close", 5).unwrap();
            shadow[5..26].copy_from_slice(b"written back by close");
            drop(file);
            cache.close().unwrap();
            same(&path, &shadow);
        }
    }
}

#[test]
fn every_preset_keeps_the_bytes() {
    for preset in Preset::ALL {
        let dir = disk_dir();
        let path = dir.path().join("data");
        let cache = Cache::builder()
            .memory(BUDGET)
            .preset(preset)
            .build()
            .unwrap();
        let file = cache.open(&path, create()).unwrap();
        let mut shadow = Vec::new();
        churn(&file, &mut shadow, 7, 1_000);
        drop(file);
        cache.close().unwrap();
        same(&path, &shadow);
    }
}

#[test]
fn lengths_that_are_no_multiple_of_the_frame() {
    for frame in [4096usize, 65536] {
        for len in [1usize, 511, 4095, 4097, 65537, 100_001] {
            let dir = disk_dir();
            let path = dir.path().join("odd");
            let cache = Cache::builder()
                .memory(32 << 20)
                .frame_size(frame)
                .build()
                .unwrap();
            let file = cache.open(&path, create()).unwrap();
            let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            file.write_at(&bytes, 0).unwrap();
            file.sync_all().unwrap();
            same(&path, &bytes);
            file.evict(0..u64::MAX).unwrap();
            let mut buf = vec![1; len + 50];
            assert_eq!(file.read_at(&mut buf, 0).unwrap(), len);
            assert!(buf[..len] == bytes[..]);
            let last = file.page(PageNo((len as u64 - 1) / frame as u64)).unwrap();
            let used = (len - 1) % frame + 1;
            assert!(
                last[used..].iter().all(|b| *b == 0),
                "zeroes beyond the end"
            );
            drop(last);
            // Cut, grow: what was cut is gone.
            file.set_len(len as u64 / 2).unwrap();
            file.set_len(len as u64).unwrap();
            let mut cut = bytes[..len / 2].to_vec();
            cut.resize(len, 0);
            assert_eq!(file.read_at(&mut buf, 0).unwrap(), len);
            assert!(buf[..len] == cut[..], "{len}");
            file.sync_data().unwrap();
            same(&path, &cut);
            drop(file);
            cache.close().unwrap();
        }
    }
}

#[test]
fn sparse_files_read_as_zeroes_and_stay_small() {
    use std::os::unix::fs::MetadataExt;
    let dir = disk_dir();
    let path = dir.path().join("sparse");
    let cache = cache(IoEngine::Auto);
    let file = cache.open(&path, create()).unwrap();
    file.set_len(1 << 40).unwrap();
    file.write_at(b"far", (1 << 40) - 3).unwrap();
    file.write_at(b"middle", 1 << 35).unwrap();
    let mut buf = [1; 4096];
    assert_eq!(file.read_at(&mut buf, 1 << 30).unwrap(), 4096);
    assert_eq!(buf, [0; 4096]);
    file.sync_data().unwrap();
    let meta = std::fs::metadata(&path).unwrap();
    assert_eq!(meta.len(), 1 << 40);
    assert!(meta.blocks() * 512 < 1 << 20, "{} blocks", meta.blocks());
    drop(file);
    cache.close().unwrap();
}

#[test]
fn two_opens_share_pages_and_other_caches_are_kept_out() {
    let dir = disk_dir();
    let path = dir.path().join("shared");
    std::fs::write(&path, [5; 5000]).unwrap();
    let ours = cache(IoEngine::Auto);
    let reader = ours.open(&path, OpenOptions::new().read(true)).unwrap();
    let theirs = cache(IoEngine::Auto);
    let other = theirs.open(&path, OpenOptions::new().read(true)).unwrap();
    assert_eq!(other.len(), 5000, "readers share");
    let Err(Error::Conflict(text)) = ours.open(&path, create()) else {
        panic!("a writer beside another cache's reader");
    };
    assert!(
        text.contains("another cache") && text.contains("close it"),
        "{text}"
    );
    drop(other);
    theirs.close().unwrap();
    drop(theirs);
    let writer = ours.open(&path, create()).unwrap();
    writer.write_at(b"new", 100).unwrap();
    let mut buf = [0; 3];
    reader.read_at(&mut buf, 100).unwrap();
    assert_eq!(&buf, b"new", "one set of pages");
    assert!(matches!(reader.write_at(b"x", 0), Err(Error::ReadOnly)));
    assert!(matches!(reader.page_mut(PageNo(0)), Err(Error::ReadOnly)));
    assert!(matches!(reader.set_len(1), Err(Error::ReadOnly)));
    let again = cache(IoEngine::Auto);
    assert!(matches!(
        again.open(&path, OpenOptions::new().read(true)),
        Err(Error::Conflict(_))
    ));
    let other_settings = create().direct(DirectIo::Never);
    assert!(matches!(
        ours.open(&path, other_settings),
        Err(Error::Conflict(_))
    ));
    drop((reader, writer));
    ours.close().unwrap();
    drop(ours);
    let file = again.open(&path, OpenOptions::new().read(true)).unwrap();
    assert_eq!(file.read_at(&mut buf, 100).unwrap(), 3);
    assert_eq!(&buf, b"new");
}

#[test]
fn a_closed_cache_lets_others_have_the_files_that_were_closed_before() {
    let dir = disk_dir();
    for n in 0..20 {
        let path = dir.path().join(n.to_string());
        let ours = cache(IoEngine::Auto);
        let file = ours.open(&path, create()).unwrap();
        file.write_at(&[n; 5000], 0).unwrap();
        drop(file);
        ours.close().unwrap();
        let theirs = cache(IoEngine::Auto);
        let file = theirs.open(&path, create()).unwrap();
        let mut buf = [0; 5000];
        assert_eq!(file.read_at(&mut buf, 0).unwrap(), 5000);
        assert_eq!(buf, [n; 5000]);
    }
}

#[test]
fn refusals_name_the_remedy() {
    let dir = disk_dir();
    let cache = cache(IoEngine::Auto);
    let refused = |path: &Path, options: OpenOptions, words: &[&str]| {
        let text = cache
            .open(path, options)
            .err()
            .expect("refused")
            .to_string();
        for word in words {
            assert!(text.contains(word), "{text:?} lacks {word:?}");
        }
    };
    refused(dir.path(), create(), &["is a directory", "name a file"]);
    refused(Path::new("/dev/null"), create(), &["character device"]);
    let missing = dir.path().join("missing");
    refused(
        &missing,
        OpenOptions::new().read(true),
        &["missing", "create(true)"],
    );
    refused(&missing, OpenOptions::new(), &["read(true)"]);
    refused(
        &missing,
        OpenOptions::new().read(true).truncate(true),
        &["write(true)"],
    );
    assert!(!missing.exists());
    let there = dir.path().join("there");
    std::fs::write(&there, b"x").unwrap();
    refused(
        &there,
        OpenOptions::new().write(true).create_new(true),
        &["create(true)"],
    );
    cache.close().unwrap();
    assert!(matches!(cache.open(&there, create()), Err(Error::Closed)));
    let tiny = Cache::builder()
        .memory(1 << 20)
        .build()
        .err()
        .expect("refused")
        .to_string();
    assert!(tiny.contains("at least"), "{tiny}");
    let huge = Cache::builder()
        .memory(1u64 << 60)
        .build()
        .err()
        .expect("refused")
        .to_string();
    assert!(huge.contains("may have"), "{huge}");
}

#[test]
fn truncate_empties_and_a_closed_cache_says_so() {
    let dir = disk_dir();
    let path = dir.path().join("t");
    std::fs::write(&path, [1; 9999]).unwrap();
    let cache = cache(IoEngine::Auto);
    let file = cache.open(&path, create().truncate(true)).unwrap();
    assert_eq!(
        (file.len(), std::fs::metadata(&path).unwrap().len()),
        (0, 0)
    );
    file.write_at(b"abc", 0).unwrap();
    cache.close().unwrap();
    assert!(matches!(file.write_at(b"d", 0), Err(Error::Closed)));
    assert_eq!(std::fs::read(&path).unwrap(), b"abc");
}

/// CACHE-2: while several threads let the last handles of a closed cache go, each has its file's lock back once its own call
/// has returned.
#[test]
fn a_closed_cache_has_given_a_lock_back_when_the_last_handle_has_gone() {
    use rustix::fs::{FlockOperation, flock};
    let dir = disk_dir();
    for round in 0..8 {
        let ours = cache(IoEngine::Threads);
        let mut files: Vec<_> = (0..=255u8)
            .map(|n| {
                let path = dir.path().join(n.to_string());
                let file = ours.open(&path, create()).unwrap();
                file.write_at(&[n; 40_000], 0).unwrap();
                (std::fs::File::open(&path).unwrap(), file)
            })
            .collect();
        ours.close().unwrap();
        let start = std::sync::Barrier::new(2);
        let let_go = |files: Vec<(std::fs::File, File)>| {
            start.wait();
            for (theirs, file) in files {
                drop(file);
                flock(&theirs, FlockOperation::NonBlockingLockExclusive)
                    .unwrap_or_else(|e| panic!("round {round}: {e}"));
            }
        };
        let others = files.split_off(128);
        std::thread::scope(|s| {
            s.spawn(|| let_go(others));
            let_go(files);
        });
    }
}

/// The second one says that the cache is closed when it is, and not while the first is at it.
#[test]
fn two_threads_close_one_cache() {
    let dir = disk_dir();
    let path = dir.path().join("slow");
    let cache = cache(IoEngine::Auto);
    let file = cache
        .open(&path, create().limit_rate(20_000_000, 0))
        .unwrap();
    file.write_at(&[7; 1 << 20], 0).unwrap();
    std::thread::scope(|s| {
        let first = s.spawn(|| cache.close());
        // From now on the first is under way, and has a twentieth of a second to write.
        while file.write_at(b"x", 0).is_ok() {
            std::thread::yield_now();
        }
        cache.close().unwrap();
        assert!(std::fs::read(&path).unwrap()[1..] == [7; (1 << 20) - 1]);
        first.join().unwrap().unwrap();
    });
}

#[test]
fn a_slow_refusing_file_keeps_the_bytes() {
    let dir = disk_dir();
    let path = dir.path().join("slow");
    let cache = cache(IoEngine::Auto);
    let options = create()
        .limit_rate(200_000_000, 20_000)
        .refuse_reclaim_writes(true);
    let file = cache.open(&path, options).unwrap();
    let mut shadow = Vec::new();
    churn(&file, &mut shadow, 3, 400);
    drop(file);
    cache.close().unwrap();
    same(&path, &shadow);
}

#[test]
fn tmpfs() {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("SKIPPED: no /dev/shm");
        return;
    };
    for engine in engines() {
        let path = dir.path().join(format!("{engine:?}"));
        let cache = cache(engine);
        let file = cache.open(&path, create()).unwrap();
        let mut shadow = Vec::new();
        churn(&file, &mut shadow, 11, 2_000);
        drop(file);
        cache.close().unwrap();
        same(&path, &shadow);
    }
}

#[test]
fn a_forked_child_gets_an_error() {
    let dir = disk_dir();
    let cache = cache(IoEngine::Auto);
    let file = cache.open(dir.path().join("f"), create()).unwrap();
    file.write_at(b"parent", 0).unwrap();
    // SAFETY: the child calls what allocates nothing before it finds itself a child, and ends by `_exit`.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let forked = |r: Result<(), Error>| i32::from(matches!(r, Err(Error::Forked)));
        let n = forked(file.write_at(b"child", 0))
            + forked(file.page(PageNo(0)).map(drop))
            + forked(file.sync_data())
            + forked(cache.close());
        drop(file);
        drop(cache);
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(n) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above.
    unsafe { libc::waitpid(pid, &mut status, 0) };
    assert!(libc::WIFEXITED(status));
    assert_eq!(libc::WEXITSTATUS(status), 4);
    file.sync_data().unwrap();
    drop(file);
    cache.close().unwrap();
}

#[test]
fn the_whole_suite_without_io_uring() {
    common::rerun_without_io_uring();
}
