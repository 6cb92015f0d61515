//! Volumes on real files: kill -9 in a loop, a full one, and who may open what.
//!
//! The children are this same test program, told by an environment variable what to do.

mod common;

use common::child::{ROLE, mix, run_and_kill};
use common::{disk_dir, engines};
use highwater::volume::{self, MountOptions, VolumeError, VolumeFailure, VolumeOptions};
use highwater::{Cache, Error, IoEngine, IoErrorKind, OpenOptions, PageNo};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

const PAGES: u64 = 1_500;
const BUDGET: u64 = 4 << 20;
const ROUNDS: u64 = 30;
const LIMIT: Duration = Duration::from_secs(20);

/// The pages that batch `v` writes.
fn pages_of(v: u64) -> Vec<u64> {
    (0..1 + mix(v) % 40)
        .map(|k| mix(v * 64 + k + 1) % PAGES)
        .collect()
}

/// What `page` holds when batch `v` wrote it: the batch first, then bytes that follow from both. Batch 0 are zeroes.
fn content(page: u64, v: u64) -> Vec<u8> {
    if v == 0 {
        return vec![0; 4096];
    }
    (0..512)
        .flat_map(|i| if i == 0 { v } else { mix(v ^ (page << 20) ^ i) }.to_le_bytes())
        .collect()
}

/// Not a test by itself: what the child does.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let words: Vec<_> = role.split('|').collect();
    let engine = match words[0] {
        "Uring" => IoEngine::Uring,
        _ => IoEngine::Threads,
    };
    write_for_ever(engine, Path::new(words[1]), words[2].parse().unwrap());
}

fn write_for_ever(engine: IoEngine, path: &Path, first: u64) {
    let cache = Cache::builder()
        .memory(BUDGET)
        .io_engine(engine)
        .build()
        .unwrap();
    let options = OpenOptions::new().write(true);
    let (file, _) = cache
        .open_volume(path, options, MountOptions::default())
        .unwrap();
    let mut out = std::io::stdout();
    for v in first.. {
        for (k, page) in pages_of(v).into_iter().enumerate() {
            let bytes = content(page, v);
            if k % 3 == 0 {
                file.page_mut(PageNo(page)).unwrap().copy_from_slice(&bytes);
            } else {
                file.write_at(&bytes, page << 12).unwrap();
            }
        }
        // Not every batch is synced by itself.
        if v % 3 == 0 {
            file.sync_data().unwrap();
            writeln!(out, "\nSYNCED {v}").unwrap();
            out.flush().unwrap();
        }
    }
}

#[test]
fn what_was_reported_synced_survives_kill_9() {
    let started = Instant::now();
    let engines = engines();
    let dir = disk_dir();
    let path = dir.path().join("disk");
    let options = VolumeOptions {
        // Short, so that checkpoints are cut short, too.
        log_bytes: Some(64 << 10),
        ..VolumeOptions::new(PAGES << 12)
    };
    volume::create(&path, &options).unwrap();
    // For each page, the batch whose bytes it holds.
    let mut held = vec![0; PAGES as usize];
    let (mut reported, mut rounds) = (0, 0);
    for round in 0..ROUNDS {
        if started.elapsed() > LIMIT {
            break;
        }
        rounds += 1;
        let first = round * 1_000_000 + 1;
        let engine = engines[round as usize % engines.len()];
        let role = format!("{engine:?}|{}|{first}", path.display());
        let after = Duration::from_millis(30 + mix(round + 77) % 450);
        let last = run_and_kill(&role, after).unwrap_or(first - 1);
        for v in first..=last {
            for page in pages_of(v) {
                held[page as usize] = v;
                reported += 1;
            }
        }
        let report = volume::fsck(&path, |_, _| ()).unwrap();
        assert!(report.is_clean(), "round {round}: {:?}", report.faults);
        check(&path, &mut held, last, first + 1_000_000, round);
    }
    println!("{rounds} rounds, {reported} synced page writes checked");
    assert!(rounds >= 10, "only {rounds} rounds in {LIMIT:?}");
    assert!(reported > 500, "only {reported} synced writes");
}

/// Reads all pages through a new cache. A page holds what was synced last, or a later batch's write of it, whole.
fn check(path: &Path, held: &mut [u64], last: u64, end: u64, round: u64) {
    let cache = Cache::builder().memory(BUDGET).build().unwrap();
    let options = OpenOptions::new().read(true);
    let (file, _) = cache
        .open_volume(path, options, MountOptions::default())
        .unwrap();
    assert_eq!(file.len(), PAGES << 12);
    let mut bytes = vec![0; 4096];
    for page in 0..PAGES {
        file.read_at(&mut bytes, page << 12).unwrap();
        let v = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        let known = &mut held[page as usize];
        let later = v > last && v < end && pages_of(v).contains(&page);
        assert!(
            v == *known || later,
            "round {round}: page {page}: batch {v}, synced was {known}, last reported {last}"
        );
        assert!(
            bytes == content(page, v),
            "round {round}: page {page} is torn"
        );
        *known = v;
    }
    drop(file);
    cache.close().unwrap();
}

fn cache() -> Cache {
    Cache::builder().memory(BUDGET).build().unwrap()
}

#[test]
fn a_full_volume_is_the_writer_s_error_and_there_is_a_way_out() {
    let dir = disk_dir();
    let path = dir.path().join("disk");
    let options = VolumeOptions {
        disk_bytes: Some(2 << 20),
        ..VolumeOptions::new(64 << 20)
    };
    volume::create(&path, &options).unwrap();
    let cache = cache();
    let (file, volume) = cache
        .open_volume(
            &path,
            OpenOptions::new().write(true),
            MountOptions::default(),
        )
        .unwrap();
    let mut written = 0;
    let error = loop {
        match file.write_at(&content(written, 7), written << 12) {
            Ok(()) => written += 1,
            Err(e) => break e,
        }
    };
    assert!(written > 100, "{written}");
    let Error::Io { source, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(source.kind, IoErrorKind::NoSpace);
    assert!(error.to_string().contains("discard or shorten"), "{error}");
    file.sync_data().unwrap();
    assert!(file.write_at(&content(written, 7), written << 12).is_err());
    assert_eq!(cache.stats().get("write_errors"), 0, "never at writeback");
    file.discard(0..100 << 12).unwrap();
    file.sync_data().unwrap();
    for page in written..written + 50 {
        file.write_at(&content(page, 9), page << 12).unwrap();
    }
    file.sync_data().unwrap();
    let mut bytes = vec![1; 4096];
    for (page, v) in [(0, 0), (99, 0), (100, 7), (written, 9), (written + 49, 9)] {
        file.read_at(&mut bytes, page << 12).unwrap();
        assert!(bytes == content(page, v), "page {page}");
    }
    assert_eq!(volume.info().reserved, 0);
    drop((file, volume));
    cache.close().unwrap();
    assert!(volume::fsck(&path, |_, _| ()).unwrap().is_clean());
}

#[test]
fn opens_of_one_volume_share_it_and_all_others_are_kept_out() {
    let dir = disk_dir();
    let path = dir.path().join("disk");
    volume::create(&path, &VolumeOptions::new(4 << 20)).unwrap();
    let cache = cache();
    let open = |write: bool| {
        let options = OpenOptions::new().read(true).write(write);
        cache.open_volume(&path, options, MountOptions::default())
    };
    let (reader, first) = open(false).unwrap();
    let (writer, second) = open(true).unwrap();
    assert!(std::sync::Arc::ptr_eq(&first, &second), "mounted once");
    writer.write_at(b"shared", 5_000).unwrap();
    let mut bytes = [0; 6];
    reader.read_at(&mut bytes, 5_000).unwrap();
    assert_eq!(&bytes, b"shared");
    assert_eq!(reader.write_at(b"no", 0), Err(Error::ReadOnly));
    // As a plain file, from another cache, by the tools: none of them while it is in use.
    let plain = cache.open(&path, OpenOptions::new().read(true));
    assert!(matches!(plain, Err(Error::Conflict(_))));
    let other = Cache::builder().memory(BUDGET).build().unwrap();
    let options = OpenOptions::new().write(true);
    let refused = other.open_volume(&path, options, MountOptions::default());
    let conflict = |e: Option<VolumeFailure>| {
        assert!(
            matches!(&e, Some(VolumeFailure::File(Error::Conflict(_)))),
            "{e:?}"
        );
    };
    conflict(refused.err());
    conflict(volume::fsck(&path, |_, _| ()).err());
    conflict(volume::info(&path).err());
    let force = VolumeOptions {
        overwrite: true,
        ..VolumeOptions::new(4 << 20)
    };
    conflict(volume::create(&path, &force).err());
    drop((reader, writer, first, second));
    cache.close().unwrap();
    drop(cache);
    let (file, _) = other
        .open_volume(
            &path,
            OpenOptions::new().read(true),
            MountOptions::default(),
        )
        .unwrap();
    file.read_at(&mut bytes, 5_000).unwrap();
    assert_eq!(&bytes, b"shared", "closed is synced");
    drop(file);
    other.close().unwrap();
}

#[test]
fn what_cannot_be_opened_says_what_to_do() {
    let dir = disk_dir();
    let path = dir.path().join("disk");
    let options = VolumeOptions {
        block_size: 16 << 10,
        ..VolumeOptions::new(4 << 20)
    };
    volume::create(&path, &options).unwrap();
    let cache = cache();
    let open = |path: &Path, options: OpenOptions| {
        cache
            .open_volume(path, options, MountOptions::default())
            .err()
            .expect("refused")
    };
    let write = OpenOptions::new().write(true);
    let e = open(&path, write);
    assert!(
        matches!(
            e,
            VolumeFailure::Volume(VolumeError::BlockSize {
                volume: 16_384,
                cache: 4096
            })
        ),
        "{e}"
    );
    assert!(e.to_string().contains("16384"), "{e}");
    let e = open(&path, write.create(true));
    assert!(e.to_string().contains("volume::create"), "{e}");
    let plain = dir.path().join("plain");
    std::fs::write(&plain, vec![1; 1 << 20]).unwrap();
    let e = open(&plain, write);
    assert!(
        matches!(e, VolumeFailure::Volume(VolumeError::NotAVolume)),
        "{e}"
    );
    // The end cut off.
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let len = file.metadata().unwrap().len();
    file.set_len(len - 4096).unwrap();
    let e = volume::fsck(&path, |_, _| ()).unwrap_err();
    assert!(
        matches!(e, VolumeFailure::Volume(VolumeError::Shortened { .. })),
        "{e}"
    );
    cache.close().unwrap();
}

#[test]
fn sizes_that_make_no_sense_cost_the_file_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    std::fs::write(&path, b"precious").unwrap();
    let sane = VolumeOptions {
        overwrite: true,
        ..VolumeOptions::new(64 << 20)
    };
    let sized = |size| VolumeOptions { size, ..sane };
    let on = |disk| VolumeOptions {
        disk_bytes: Some(disk),
        ..sane
    };
    let blocks = |block_size| VolumeOptions { block_size, ..sane };
    let log = |log| VolumeOptions {
        log_bytes: Some(log),
        ..sane
    };
    for options in [
        sized(0),
        sized(12_345),
        sized(1 << 60),
        sized(u64::MAX - 4095),
        sized(u64::MAX),
        on(0),
        on(4096),
        on(1 << 62),
        on(u64::MAX),
        blocks(0),
        blocks(1),
        blocks(5000),
        blocks(u32::MAX),
        log(1),
        log(1 << 40),
        log(u64::MAX),
        VolumeOptions {
            block_size: 1,
            ..sized(u64::MAX)
        },
    ] {
        let error = volume::create(&path, &options).unwrap_err();
        let kept = std::fs::read(&path).unwrap() == b"precious";
        assert!(kept, "{error}");
    }
    volume::create(&path, &sane).unwrap();
}
