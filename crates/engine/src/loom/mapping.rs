//! Truncation beside everything else that holds or brings in pages.

use super::{
    bounded, model,
    rig::{Disk, DiskFile, LoomWorld, Rig, SIZE, spawn},
};
use crate::{File, FileId, FileOptions, PageNo};
use std::sync::Arc;

/// A page read while the file shrinks is not in the index afterwards.
#[test]
fn truncate_against_install() {
    model(|| {
        let rig = Rig::new(Disk::default());
        let before = rig.free();
        let r = rig.clone();
        let reader = spawn(&rig.world, 1, move || drop(r.file.page(PageNo(1))));
        rig.file.set_len(4096).expect("nothing fails");
        reader.join().expect("no panic");
        assert!(!rig.engine.is_resident(rig.m.id, 1), "MAP-3");
        assert_eq!(rig.free(), before, "FRAME-3: freed once");
        rig.check();
    });
}

/// The same, and the read fails: filler and truncation both find the page gone, and one of them frees it.
#[test]
fn truncate_against_failed_fill() {
    model(|| {
        let disk = Disk {
            bad_reads: true,
            ..Disk::default()
        };
        let rig = Rig::new(disk);
        let before = rig.free();
        let r = rig.clone();
        let reader = spawn(&rig.world, 1, move || drop(r.file.page(PageNo(1))));
        rig.engine.unlink_range(&rig.m, 1..2);
        reader.join().expect("no panic");
        assert_eq!(rig.free(), before, "FRAME-3: freed once");
        rig.check();
    });
}

/// Reclaim has claimed a page that truncation takes out of the index.
#[test]
fn truncate_against_evict() {
    model(|| {
        let rig = Rig::new(Disk::default());
        let before = rig.free();
        let frame = rig.resident(1, 7);
        let r = rig.clone();
        let reclaimer = spawn(&rig.world, 1, move || {
            r.engine.reclaim_one(frame);
        });
        rig.engine.unlink_range(&rig.m, 1..2);
        reclaimer.join().expect("no panic");
        assert_eq!(rig.free(), before, "FRAME-3: freed once");
        rig.check();
    });
}

/// A file of its own and its disk.
fn another_file(rig: &Rig, ino: u64) -> (File<LoomWorld>, Arc<Disk>) {
    let disk = Arc::new(Disk::default());
    let (id, backing) = (FileId { dev: 1, ino }, Arc::new(DiskFile(disk.clone())));
    let file = rig
        .engine
        .open(id, backing, FileOptions { write: true })
        .expect("a file");
    (file, disk)
}

/// Lets the last handle go: nobody has the disk any more.
fn close(file: File<LoomWorld>, disk: &Arc<Disk>) {
    drop(file);
    assert_eq!(Arc::strong_count(disk), 1, "MAP-5");
}

/// MAP-5: of a cache that has stopped, each task that lets a file's last handle go finds the file gone, whoever else does the
/// same with another one.
#[test]
fn last_close_against_last_close() {
    model(|| {
        let rig = Rig::new(Disk::default());
        let ((first, disk), (second, other_disk)) = (another_file(&rig, 2), another_file(&rig, 3));
        rig.engine.abandon();
        let other = spawn(&rig.world, 1, move || close(first, &disk));
        close(second, &other_disk);
        other.join().expect("no panic");
        rig.check();
    });
}

/// MAP-5: the same, beside a task whose call was under way and has the mapping for a moment.
#[test]
fn last_close_against_a_task_that_is_inside() {
    model(|| {
        let rig = Rig::new(Disk::default());
        let (file, disk) = another_file(&rig, 2);
        rig.engine.abandon();
        let r = rig.clone();
        let inside = spawn(&rig.world, 1, move || {
            if let Some(m) = r.engine.mapping(2)
                && m.invalidate.try_shared()
            {
                r.engine.invalidate_put(&m);
            }
        });
        close(file, &disk);
        inside.join().expect("no panic");
        rig.check();
    });
}

/// A page beyond the end that two tasks write a part of: the one that comes second finds what the first has written, although
/// that has been written back and evicted meanwhile. It decides from the file's length whether there is something to read.
#[test]
fn a_write_past_the_end_against_another_that_is_evicted() {
    bounded(1, || {
        let rig = Rig::new(Disk {
            sync_at_once: true,
            ..Disk::default()
        });
        rig.file.set_len(SIZE as u64).expect("nothing fails");
        let r = rig.clone();
        let other = spawn(&rig.world, 1, move || {
            r.file.write_at(&[7], SIZE as u64).expect("a write");
            let _ = r.file.evict(0..u64::MAX);
        });
        rig.file.write_at(&[9], SIZE as u64 + 10).expect("a write");
        other.join().expect("no panic");
        let mut byte = [0];
        rig.file.read_at(&mut byte, SIZE as u64).expect("a read");
        assert_eq!(byte, [7], "lost");
        rig.check();
    });
}
