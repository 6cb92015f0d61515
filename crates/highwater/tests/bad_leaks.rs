//! After a cache is gone, whatever happened to it, no thread, descriptor, mapping or temporary file is left. One test:
//! it counts what the whole process has.

mod common;

use common::{disk_dir, engines, fds, threads};
use highwater::{Cache, DirectIo, Error, IoEngine, OpenOptions, PageNo};
use std::path::Path;

/// A way to end a cache: closed, dropped, with files open, after errors.
type Ending = fn(Cache, &Path);

fn used(cache: &Cache, path: &Path) -> highwater::File {
    let options = OpenOptions::new().write(true).create(true);
    let file = cache.open(path, options).unwrap();
    for mib in 0..6u64 {
        file.write_at(&[mib as u8; 1 << 20], mib << 20).unwrap();
    }
    let mut buf = [0; 9000];
    file.read_at(&mut buf, 3 << 20).unwrap();
    file
}

fn closed(cache: Cache, dir: &Path) {
    let file = used(&cache, &dir.join("closed"));
    drop(file);
    cache.close().unwrap();
}

fn only_dropped(cache: Cache, dir: &Path) {
    drop(used(&cache, &dir.join("dropped")));
}

fn files_dropped_after(cache: Cache, dir: &Path) {
    let files: Vec<_> = (0..20)
        .map(|n| used(&cache, &dir.join(format!("{n}"))))
        .collect();
    cache.close().unwrap();
    drop(cache);
    assert_eq!(files[0].sync_data(), Err(Error::Closed));
}

fn failed_opens(cache: Cache, dir: &Path) {
    let read = OpenOptions::new().read(true);
    for _ in 0..50 {
        assert!(cache.open(dir, read).is_err());
        assert!(cache.open(dir.join("missing"), read).is_err());
    }
    let path = dir.join("there");
    let file = used(&cache, &path);
    for _ in 0..50 {
        let other = OpenOptions::new().write(true).direct(DirectIo::Never);
        assert!(matches!(cache.open(&path, other), Err(Error::Conflict(_))));
        let second = Cache::builder().memory(4 << 20).build().unwrap();
        assert!(matches!(second.open(&path, read), Err(Error::Conflict(_))));
    }
    drop(file);
}

fn failed_builds(cache: Cache, _: &Path) {
    for _ in 0..50 {
        assert!(Cache::builder().memory(u64::MAX).build().is_err());
        let tuned = Cache::builder().memory(8 << 20);
        let limits = highwater::DirtyLimits {
            background_percent: 91,
            limit_percent: 95,
        };
        assert!(tuned.dirty(limits).build().is_err());
    }
    drop(cache);
}

fn dropped_under_a_guard(cache: Cache, dir: &Path) {
    let file = used(&cache, &dir.join("guard"));
    let guard = file.page(PageNo(0)).unwrap();
    drop(cache);
    drop(guard);
    drop(file);
}

fn failing_device(cache: Cache, dir: &Path) {
    // Files of this process end at 1 MiB for a while: writes beyond fail, as on a full disk.
    let mut old = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: plain calls on memory of our own.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        assert_eq!(libc::getrlimit(libc::RLIMIT_FSIZE, &mut old), 0);
        let short = libc::rlimit {
            rlim_cur: 1 << 20,
            ..old
        };
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &short), 0);
    }
    let file = used(&cache, &dir.join("failing"));
    let failed = file.sync_data();
    let closed = cache.close();
    drop(file);
    drop(cache);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &old) }, 0);
    for result in [failed, closed] {
        let Err(Error::Io {
            op: "write",
            source,
        }) = result
        else {
            panic!("{result:?}");
        };
        assert_eq!(source.kind, highwater::IoErrorKind::NoSpace);
    }
}

/// Mappings of rings, and those as large as an arena. (What the allocator reserves is not readable.)
fn maps() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let large = |line: &str| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let number = |s| u64::from_str_radix(s, 16).ok();
        Some(rest.starts_with("rw") && number(end)? - number(start)? >= 12 << 20)
    };
    maps.lines()
        .filter(|l| l.contains("io_uring") || large(l) == Some(true))
        .count()
}

#[test]
fn nothing_is_left_of_a_cache() {
    let endings: [(&str, Ending); 7] = [
        ("closed", closed),
        ("only dropped", only_dropped),
        ("files dropped after", files_dropped_after),
        ("failed opens", failed_opens),
        ("failed builds", failed_builds),
        ("dropped under a guard", dropped_under_a_guard),
        ("failing device", failing_device),
    ];
    let run = |engine: IoEngine, ending: Ending| {
        let dir = disk_dir();
        let cache = Cache::builder()
            .memory(16 << 20)
            .io_engine(engine)
            .build()
            .unwrap();
        ending(cache, dir.path());
    };
    for engine in engines() {
        // The first cache of a process makes what stays: a page for fork detection, thread-locals.
        run(engine, closed);
        for (name, ending) in endings {
            let own = || threads().iter().filter(|n| !n.starts_with("iou-")).count();
            let before = (fds(), own(), maps());
            for _ in 0..3 {
                run(engine, ending);
            }
            let mut after = (fds(), own(), maps());
            // The kernel ends a thread a moment after it was joined.
            for _ in 0..100 {
                if after == before {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
                after = (fds(), own(), maps());
            }
            assert_eq!(after, before, "{engine:?}, {name}: {:?}", threads());
        }
    }
}
