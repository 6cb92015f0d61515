//! Bad input and bad days on real files: what is refused, with which error, and that the cache goes on after it.
//! What needs root says that it was skipped when it is not.

mod common;

use common::{disk_dir, engines};
use highwater::{Cache, Error, IoErrorKind, Memory, OpenOptions, PageNo};
use std::path::Path;
use std::process::Command;

const BUDGET: u64 = 8 << 20;

fn cache() -> Cache {
    Cache::builder().memory(BUDGET).build().unwrap()
}

fn create() -> OpenOptions {
    OpenOptions::new().write(true).create(true)
}

/// The cache works on a file of its own.
fn works(cache: &Cache, dir: &Path) {
    let path = dir.join("works");
    let file = cache.open(&path, create()).unwrap();
    file.write_at(b"works", 12_345).unwrap();
    file.sync_data().unwrap();
    assert_eq!(&std::fs::read(&path).unwrap()[12_345..], b"works");
}

#[test]
fn absurd_budgets() {
    for memory in [
        Memory::Bytes(0),
        Memory::Bytes(1),
        Memory::Bytes(4096),
        Memory::Bytes((4 << 20) - 1),
        Memory::Bytes(1 << 50),
        Memory::Bytes(u64::MAX),
        Memory::Share(0.0),
        Memory::Share(-1.0),
        Memory::Share(1.01),
        Memory::Share(f64::NAN),
        Memory::Share(f64::INFINITY),
        Memory::from(-1),
    ] {
        let result = Cache::builder().memory(memory).build();
        let Err(Error::Config(text)) = result.map(|_| ()) else {
            panic!("{memory:?} was accepted");
        };
        assert!(
            text.contains("choose") || text.contains("at least"),
            "{text}"
        );
    }
    let smallest = Cache::builder().memory(4 << 20).build().unwrap();
    works(&smallest, disk_dir().path());
    smallest.close().unwrap();
}

#[test]
fn what_is_no_file_is_refused() {
    let dir = disk_dir();
    let cache = cache();
    let pipe = dir.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let socket = dir.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let refused = [
        dir.path(),
        Path::new("/dev/null"),
        Path::new("/dev/zero"),
        &pipe,
        &socket,
    ];
    for path in refused {
        for options in [
            create(),
            OpenOptions::new().read(true),
            create().truncate(true),
        ] {
            let error = cache.open(path, options).err();
            assert!(
                matches!(error, Some(Error::Config(_))),
                "{path:?}: {error:?}"
            );
        }
    }
    let missing = dir.path().join("no/such/directory");
    for (path, options, errno) in [
        (missing.as_path(), create(), libc::ENOENT),
        (Path::new(""), create(), libc::ENOENT),
        (
            &dir.path().join("missing"),
            OpenOptions::new().read(true),
            libc::ENOENT,
        ),
        (
            &dir.path().join("x".repeat(300)),
            create(),
            libc::ENAMETOOLONG,
        ),
    ] {
        let error = cache.open(path, options).err();
        let Some(Error::Os { errno: got, .. }) = error else {
            panic!("{path:?}: {error:?}");
        };
        assert_eq!(got, errno);
    }
    works(&cache, dir.path());
    cache.close().unwrap();
}

#[test]
fn a_file_that_may_only_be_read() {
    use std::os::unix::fs::PermissionsExt;
    let dir = disk_dir();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = dir.path().join("read-only");
    std::fs::write(&path, [7; 5000]).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o444)).unwrap();
    let cache = cache();
    // SAFETY: changes only this thread's rights to files, for as long as the test runs.
    unsafe { libc::setfsuid(65_534) };
    // Where this user may not even enter the directory, its own rights say nothing.
    let entered = std::fs::metadata(&path).is_ok();
    let opened = cache.open(&path, OpenOptions::new().write(true));
    let reader = cache.open(&path, OpenOptions::new().read(true));
    // SAFETY: as above.
    unsafe { libc::setfsuid(libc::geteuid()) };
    let Err(Error::Os { errno, what, .. }) = opened else {
        panic!("opened for writing");
    };
    assert_eq!(errno, libc::EACCES);
    assert!(what.contains("write(false)"), "{what}");
    if entered {
        let reader = reader.unwrap();
        assert_eq!(reader.read_at(&mut [0; 8], 4_996).unwrap(), 4);
        assert_eq!(reader.write_at(b"x", 0), Err(Error::ReadOnly));
        assert_eq!(reader.set_len(0), Err(Error::ReadOnly));
        assert_eq!(reader.page_mut(PageNo(0)).err(), Some(Error::ReadOnly));
    } else {
        eprintln!("SKIPPED the reading half: the test's directory is private");
    }
    assert_eq!(std::fs::read(&path).unwrap(), [7; 5000]);
    works(&cache, dir.path());
    cache.close().unwrap();
}

struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn mount(at: &Path, options: &str) -> Option<Mounted> {
    std::fs::create_dir_all(at).unwrap();
    let status = Command::new("mount")
        .args(["-t", "tmpfs", "-o", options, "tmpfs"])
        .arg(at)
        .output();
    match status {
        Ok(o) if o.status.success() => Some(Mounted(at.into())),
        _ => {
            eprintln!("SKIPPED: no right to mount a tmpfs");
            None
        }
    }
}

#[test]
fn a_read_only_mount() {
    let dir = disk_dir();
    let at = dir.path().join("mount");
    let Some(_mounted) = mount(&at, "size=4m") else {
        return;
    };
    let path = at.join("data");
    std::fs::write(&path, [3; 9000]).unwrap();
    let remount = ["-o", "remount,ro", at.to_str().unwrap()];
    assert!(
        Command::new("mount")
            .args(remount)
            .status()
            .unwrap()
            .success()
    );
    let cache = cache();
    let Err(Error::Os { errno, what, .. }) = cache.open(&path, create()) else {
        panic!("opened for writing");
    };
    assert_eq!(errno, libc::EROFS);
    assert!(what.contains("write(false)"), "{what}");
    let file = cache.open(&path, OpenOptions::new().read(true)).unwrap();
    assert!(file.page(PageNo(1)).unwrap().iter().all(|b| *b == 3));
    drop(file);
    works(&cache, dir.path());
    cache.close().unwrap();
}

#[test]
fn no_space_left_costs_nothing_that_was_synced() {
    for engine in engines() {
        let dir = disk_dir();
        let at = dir.path().join("mount");
        let Some(_mounted) = mount(&at, "size=4m") else {
            return;
        };
        let cache = Cache::builder()
            .memory(BUDGET)
            .io_engine(engine)
            .build()
            .unwrap();
        let path = at.join("data");
        let file = cache.open(&path, create()).unwrap();
        file.write_at(&[1; 1 << 20], 0).unwrap();
        file.sync_data().unwrap();
        // More than there is room for, and more than the dirty limit: the writer may be told, never hung.
        let started = std::time::Instant::now();
        let mut told = None;
        for mib in 1..12u64 {
            told = file.write_at(&[2; 1 << 20], mib << 20).err();
            if told.is_some() {
                break;
            }
        }
        assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
        let error = file.sync_data().unwrap_err();
        for error in told.iter().chain([&error]) {
            let Error::Io { source, .. } = error else {
                panic!("{error}");
            };
            assert_eq!(source.kind, IoErrorKind::NoSpace, "{error}");
        }
        assert!(std::fs::read(&path).unwrap()[..1 << 20] == [1; 1 << 20]);
        // The user's way out: give the rest up.
        file.set_len(1 << 20).unwrap();
        let _ = file.sync_data();
        file.sync_data().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 1 << 20);
        works(&cache, dir.path());
        drop(file);
        cache.close().unwrap();
    }
}

#[test]
fn lengths_that_the_file_system_cannot_have() {
    let dir = disk_dir();
    let path = dir.path().join("long");
    let cache = cache();
    let file = cache.open(&path, create()).unwrap();
    file.write_at(b"first", 0).unwrap();
    file.sync_data().unwrap();
    for at in [1 << 63, u64::MAX, i64::MAX as u64] {
        let error = file.write_at(b"x", at).unwrap_err();
        assert!(matches!(error, Error::Config(_)), "{at}: {error}");
        let error = file.set_len(at.max(1 << 63)).unwrap_err();
        assert!(matches!(error, Error::Config(_)), "{at}: {error}");
    }
    assert_eq!(file.len(), 5);
    // Where the file system ends before 2^63 - 1, the write is refused when it reaches it, and can be given up.
    file.write_at(b"x", i64::MAX as u64 - 1).unwrap();
    if let Err(error) = file.sync_data() {
        assert!(matches!(error, Error::Io { op: "write", .. }), "{error}");
    }
    file.set_len(5).unwrap();
    let _ = file.sync_data();
    file.sync_data().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"first");
    drop(file);
    cache.close().unwrap();
}

/// Somebody else cuts the file, or takes it away, while the cache has it.
#[test]
fn a_file_that_shrinks_or_vanishes_underneath() {
    for engine in engines() {
        let dir = disk_dir();
        let path = dir.path().join("cut");
        std::fs::write(&path, vec![5; 16 << 20]).unwrap();
        let cache = Cache::builder()
            .memory(BUDGET)
            .io_engine(engine)
            .build()
            .unwrap();
        let file = cache.open(&path, create()).unwrap();
        let held = file.page(PageNo(100)).unwrap();
        let outside = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        outside.set_len(4096).unwrap();
        assert!(held.iter().all(|b| *b == 5), "a held page does not change");
        drop(held);
        // Every byte is either the old one, from memory, or zero.
        let mut buf = vec![1; 1 << 20];
        for mib in 0..16 {
            let n = file.read_at(&mut buf, mib << 20).unwrap();
            assert!(buf[..n].iter().all(|b| *b == 5 || *b == 0));
        }
        file.write_at(&[6; 4096], 8 << 20).unwrap();
        file.sync_data().unwrap();
        assert_eq!(std::fs::read(&path).unwrap()[8 << 20..], [6; 4096]);
        std::fs::remove_file(&path).unwrap();
        file.write_at(&[7; 4096], 8 << 20).unwrap();
        file.sync_data().unwrap();
        file.evict(0..u64::MAX).unwrap();
        assert_eq!(file.read_at(&mut buf[..4096], 8 << 20), Ok(4096));
        assert!(buf[..4096] == [7; 4096]);
        // A new file of the same name is another file.
        let other = cache.open(&path, create()).unwrap();
        assert_eq!(other.len(), 0);
        works(&cache, dir.path());
        drop((file, other));
        cache.close().unwrap();
    }
}

/// Somebody else makes the file longer. What lies beyond the end that the cache knows is zero to its users, also when they make
/// the file longer themselves.
#[test]
fn a_file_that_grows_underneath() {
    for engine in engines() {
        let dir = disk_dir();
        let path = dir.path().join("longer");
        std::fs::write(&path, [5; 9000]).unwrap();
        let cache = Cache::builder()
            .memory(BUDGET)
            .io_engine(engine)
            .build()
            .unwrap();
        let file = cache.open(&path, create()).unwrap();
        std::fs::write(&path, [6; 20_000]).unwrap();
        assert_eq!(file.len(), 9000);
        // The second time in the window of a reader in sequence.
        for by_itself in [true, false] {
            file.evict(0..u64::MAX).unwrap();
            if !by_itself {
                file.read_at(&mut [0; 9000], 0).unwrap();
            }
            let page = file.page(PageNo(2)).unwrap();
            let (inside, beyond) = page.split_at(9000 - 8192);
            assert!(inside.iter().all(|b| *b == 6));
            assert!(beyond.iter().all(|b| *b == 0), "beyond the end");
        }
        file.write_at(&[7], 9100).unwrap();
        let mut buf = [1; 101];
        assert_eq!(file.read_at(&mut buf, 9000), Ok(101));
        assert_eq!((&buf[..100], buf[100]), (&[0; 100][..], 7));
        file.sync_data().unwrap();
        assert!(std::fs::read(&path).unwrap()[9000..9100] == [0; 100]);
        drop(file);
        cache.close().unwrap();
    }
}

#[test]
fn a_panic_of_a_user_releases_what_it_held() {
    let dir = disk_dir();
    let path = dir.path().join("panic");
    let cache = cache();
    let file = cache.open(&path, create()).unwrap();
    file.set_len(64 << 12).unwrap();
    for round in 0..4u64 {
        let user = file.clone();
        let result = std::thread::spawn(move || {
            let _shared = user.page(PageNo(round)).unwrap();
            let mut exclusive = user.page_mut(PageNo(30 + round)).unwrap();
            exclusive[..9].copy_from_slice(b"half done");
            std::panic::resume_unwind(Box::new("planted"));
        })
        .join();
        assert!(result.is_err());
        // Free at once, and what was written so far is the page's.
        let started = std::time::Instant::now();
        file.page_mut(PageNo(round)).unwrap()[0] = 1;
        assert_eq!(
            &file.page_mut(PageNo(30 + round)).unwrap()[..9],
            b"half done"
        );
        assert!(started.elapsed().as_secs() < 2);
    }
    file.sync_data().unwrap();
    drop(file);
    cache.close().unwrap();
    assert_eq!(
        &std::fs::read(&path).unwrap()[30 << 12..][..9],
        b"half done"
    );
}

#[test]
fn a_cache_dropped_under_a_guard_writes_back_what_it_has() {
    let dir = disk_dir();
    let path = dir.path().join("held");
    let cache = cache();
    let file = cache.open(&path, create()).unwrap();
    file.write_at(&[8; 3 << 12], 0).unwrap();
    let guard = file.page(PageNo(1)).unwrap();
    assert_eq!(cache.close(), Err(Error::StillPinned(1)));
    drop(cache);
    assert!(
        guard.iter().all(|b| *b == 8),
        "the guard outlives the cache"
    );
    assert_eq!(file.read_at(&mut [0; 4], 0), Err(Error::Closed));
    assert_eq!(
        std::fs::read(&path).unwrap(),
        [8; 3 << 12],
        "dropped, not lost"
    );
    drop(guard);
    drop(file);
}
