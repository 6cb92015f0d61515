//! Writes, reads, space, length: what a volume does when nothing goes wrong.

use super::*;
use crate::backing::journaled::inspect;

fn rig() -> Rig {
    Rig::new(&Disk::formatted(300, 16, 1000))
}

#[test]
fn scattered_pages_go_out_as_one_run_and_come_back() {
    let mut rig = rig();
    let runs: Vec<(u64, u64)> = (0..60).map(|i| (i * 13 % 900, 1 + i % 3)).collect();
    rig.write(&runs, 1).unwrap();
    let info = rig.volume.info();
    assert_eq!(
        info.data_writes,
        1,
        "{} bytes on average",
        info.mean_write_bytes()
    );
    for (first, count) in runs {
        for page in first..first + count {
            rig.expect(page, 1);
        }
    }
    rig.expect(999, 0);
    rig.check();
}

#[test]
fn what_was_flushed_survives_and_the_rest_may_not() {
    let mut rig = rig();
    rig.write(&[(3, 5), (700, 1)], 1).unwrap();
    rig.volume.flush().unwrap();
    rig.write(&[(4, 1), (900, 2)], 2).unwrap();
    rig.expect(4, 2);
    // Without a flush the log does not have it.
    let rig = rig.remount();
    for page in [3, 4, 5, 6, 7, 700] {
        rig.expect(page, 1);
    }
    rig.expect(900, 0);
    rig.check();
    let report = clean(&rig.disk);
    assert_eq!((report.blocks_checked, report.info.used), (6, 6));
    assert_eq!(report.info.transactions, 1);
}

#[test]
fn a_read_of_many_pages_is_cut_at_holes_and_runs() {
    let mut rig = rig();
    rig.write(&[(10, 4), (16, 2)], 1).unwrap();
    rig.write(&[(12, 1)], 2).unwrap();
    let mut memory = vec![0xEE; 10 * BLOCK];
    let mut request = Request::new(IoOp::Read, 9 * BLOCK as u64, rig.results.clone());
    request.cookie = 1 << 40;
    request.bufs = memory
        .chunks_mut(BLOCK)
        .map(|p| IoBuf {
            ptr: p.as_mut_ptr(),
            len: BLOCK,
        })
        .collect();
    rig.volume.read_pages(Lane::Shared, &mut vec![request]);
    assert_eq!(rig.results.0.lock().get(&(1 << 40)), Some(&Ok(())));
    let versions = [0, 1, 1, 2, 1, 0, 0, 1, 1, 0];
    for ((page, version), bytes) in (9..).zip(versions).zip(memory.chunks(BLOCK)) {
        assert!(bytes == page_bytes(page, version), "page {page}");
    }
    // A hole alone is answered at once.
    let mut request = Request::new(IoOp::Read, 500 * BLOCK as u64, rig.results.clone());
    request.cookie = 1 << 41;
    request.bufs = vec![IoBuf {
        ptr: memory.as_mut_ptr(),
        len: BLOCK,
    }];
    rig.volume.read_pages(Lane::Shared, &mut vec![request]);
    assert_eq!(rig.results.0.lock().get(&(1 << 41)), Some(&Ok(())));
    assert!(memory[..BLOCK].iter().all(|b| *b == 0));
    rig.check();
}

#[test]
fn a_page_is_mapped_when_its_write_has_ended() {
    let disk = Disk::formatted(300, 16, 1000);
    let disk = Disk::new(disk.image(), true);
    let mut rig = Rig::new(&disk);
    rig.write(&[(5, 1)], 1).unwrap();
    rig.reserve(&[(5, 1)]).unwrap();
    let write = rig.submit(&[(5, 1)], 2).remove(0);
    rig.expect(5, 1);
    assert_eq!(rig.result(&write), None);
    disk.run();
    assert_eq!(rig.result(&write), Some(Ok(())));
    rig.expect(5, 2);
    rig.volume.flush().unwrap();
    rig.check();
}

#[test]
fn a_flush_covers_what_has_ended_and_not_what_is_in_flight() {
    let disk = Disk::formatted(300, 16, 1000);
    let disk = Disk::new(disk.image(), true);
    let mut rig = Rig::new(&disk);
    rig.write(&[(5, 1)], 1).unwrap();
    rig.reserve(&[(6, 1)]).unwrap();
    // Its data never reaches the disk before the crash.
    let stuck = rig.submit(&[(6, 1)], 1);
    let in_flight = std::mem::take(&mut disk.bytes.lock().waiting);
    rig.volume.flush().unwrap();
    let image = disk.crash(|| false);
    disk.bytes.lock().waiting = in_flight;
    disk.run();
    assert_eq!(rig.result(&stuck[0]), Some(Ok(())));
    let after = Rig::new(&Disk::new(image, false));
    after.expect(5, 1);
    after.expect(6, 0);
}

#[test]
fn a_full_volume_is_the_writers_error_and_overwriting_goes_on() {
    let mut rig = Rig::new(&Disk::formatted(60, 8, 1000));
    let mut written = 0;
    let e = loop {
        match rig.write(&[(written, 1)], 1) {
            Ok(()) => written += 1,
            Err(e) => break e,
        }
    };
    assert_eq!(
        e,
        IoError::new(IoErrorKind::NoSpace, written * BLOCK as u64)
    );
    let info = rig.volume.info();
    assert!(
        written + 4 >= info.data_blocks,
        "{written} of {}",
        info.data_blocks
    );
    rig.check();
    // Nothing that was written is lost, a hole makes room, and it is used again.
    rig.volume.flush().unwrap();
    let mut rig = rig.remount();
    for page in 0..written {
        rig.expect(page, 1);
    }
    assert!(rig.volume.reserve(written).is_err());
    rig.volume.discard(0, 10 * BLOCK as u64).unwrap();
    for version in 2..30 {
        // Each dirty page has a second block kept for it, should a flush fail.
        rig.write(&[(20, 5)], version).unwrap();
    }
    rig.expect(24, 29);
    rig.expect(3, 0);
    rig.volume.flush().unwrap();
    clean(&rig.disk);
    rig.check();
}

#[test]
fn pages_beyond_the_capacity_are_refused_by_name() {
    let rig = rig();
    let e = rig.volume.reserve(1000).unwrap_err();
    assert_eq!(e.kind, IoErrorKind::NoSpace);
    assert_eq!(
        rig.volume.reserve(u64::MAX).unwrap_err().kind,
        IoErrorKind::NoSpace
    );
    let e = rig.volume.truncate(1001 * BLOCK as u64).unwrap_err();
    assert_eq!(e.kind, IoErrorKind::NoSpace);
    assert_eq!(rig.volume.reserved(), Some(0));
}

#[test]
fn a_reservation_that_is_let_go_leaves_nothing_behind() {
    let rig = rig();
    for page in 0..40 {
        rig.volume.reserve(page * 20).unwrap();
    }
    assert_eq!(rig.volume.reserved(), Some(40));
    for page in 0..40 {
        rig.volume.release(page * 20);
    }
    assert_eq!(rig.volume.reserved(), Some(0));
    assert_eq!(rig.volume.info().map_frames, 0);
    rig.check();
}

#[test]
fn a_shortened_file_reads_as_zeroes_when_it_grows_again() {
    let mut rig = rig();
    rig.write(&[(0, 10)], 1).unwrap();
    rig.volume.flush().unwrap();
    rig.volume.truncate(4 * BLOCK as u64 + 100).unwrap();
    assert_eq!(rig.volume.len(), Ok(4 * BLOCK as u64 + 100));
    rig.volume.flush().unwrap();
    rig.check();
    let rig = rig.remount();
    assert_eq!(rig.volume.len(), Ok(4 * BLOCK as u64 + 100));
    rig.volume.truncate(1000 * BLOCK as u64).unwrap();
    let tail = rig.read(4).unwrap();
    assert!(tail[..100] == page_bytes(4, 1)[..100] && tail[100..].iter().all(|b| *b == 0));
    rig.expect(3, 1);
    rig.expect(5, 0);
    rig.check();
    clean(&rig.disk);
}

#[test]
fn a_request_may_end_in_the_middle_of_the_last_page() {
    let rig = rig();
    rig.volume.truncate(0).unwrap();
    rig.reserve(&[(0, 3)]).unwrap();
    let mut memory: Vec<u8> = (0..3).flat_map(|p| page_bytes(p, 1)).collect();
    let mut request = Request::new(IoOp::Write, 0, rig.results.clone());
    request.cookie = 77;
    let len = 2 * BLOCK + 10;
    request.bufs = vec![IoBuf {
        ptr: memory.as_mut_ptr(),
        len,
    }];
    rig.volume
        .write_pages(WriteContext::Sync, &mut vec![request]);
    assert_eq!(rig.results.0.lock().get(&77), Some(&Ok(())));
    assert_eq!(rig.volume.len(), Ok(len as u64));
    rig.volume.flush().unwrap();
    let mut rig = rig.remount();
    assert_eq!(rig.volume.len(), Ok(len as u64));
    let tail = rig.read(2).unwrap();
    assert!(tail[..10] == page_bytes(2, 1)[..10] && tail[10..].iter().all(|b| *b == 0));
    rig.write(&[(2, 1)], 2).unwrap();
    assert_eq!(rig.volume.len(), Ok(3 * BLOCK as u64));
    rig.check();
}

#[test]
fn mapped_ranges_are_the_data_of_the_file() {
    let mut rig = rig();
    rig.write(&[(2, 3), (8, 1)], 1).unwrap();
    rig.write(&[(3, 1)], 2).unwrap();
    let b = BLOCK as u64;
    let found = rig.volume.extents(0, u64::MAX).unwrap();
    assert_eq!(found, [(2 * b, 3 * b), (8 * b, b)]);
    assert_eq!(rig.volume.extents(3 * b + 5, b).unwrap(), [(3 * b + 5, b)]);
    rig.volume.discard(3 * b, b).unwrap();
    let found = rig.volume.extents(0, u64::MAX).unwrap();
    assert_eq!(found, [(2 * b, b), (4 * b, b), (8 * b, b)]);
}

#[test]
fn the_log_wraps_behind_checkpoints_and_what_is_never_flushed_fits_too() {
    // 3,000 single pages: some 12 log blocks of 16 for each round.
    let mut rig = Rig::new(&Disk::formatted(4000, 16, 3000));
    for round in 1..=6 {
        for chunk in 0..30 {
            let runs: Vec<_> = (0..100)
                .map(|i| ((chunk * 100 + i) * 7 % 3000, 1))
                .collect();
            rig.write(&runs, round).unwrap();
        }
        if round != 3 && round != 4 {
            rig.volume.flush().unwrap();
        }
        let info = rig.volume.info();
        assert!(info.log_used <= info.log_blocks);
    }
    let info = rig.volume.info();
    assert!(
        info.checkpoints > 1 && info.log_writes_ahead > 20,
        "{info:?}"
    );
    rig.check();
    let rig = rig.remount();
    (0..3000).for_each(|page| rig.expect(page, 6));
    clean(&rig.disk);
    let mounted = rig.volume.info();
    let seen = inspect(&*rig.disk).unwrap();
    assert_eq!(seen.transactions, info.transactions);
    assert_eq!(
        (seen.used, seen.extents, seen.log_used),
        (mounted.used, mounted.extents, mounted.log_used)
    );
}

#[test]
fn a_writer_without_memory_is_refused_and_a_log_without_memory_makes_do() {
    let mut rig = Rig::new(&Disk::formatted(4000, 64, 3000));
    rig.reserve(&[(0, 1500)]).unwrap();
    rig.heap.left.store(0, Ordering::Relaxed);
    let e = rig.volume.reserve(2999).unwrap_err();
    assert_eq!(e, IoError::from_errno(12, 2999 * BLOCK as u64));
    // The pool is enough.
    for page in 0..1500 {
        rig.submit(&[(page * 7 % 1500, 1)], 1);
    }
    rig.volume.flush().unwrap();
    let rig = rig.remount();
    (0..1500).for_each(|page| rig.expect(page, 1));
}

#[test]
fn reclaim_is_refused_where_the_mount_says_so() {
    let disk = Disk::formatted(300, 16, 1000);
    let refuse = MountOptions {
        refuse_reclaim: true,
        ..MountOptions::default()
    };
    let rig = Rig::mount_with(&disk, refuse).unwrap();
    assert!(!rig.volume.may_write(WriteContext::Direct));
    assert!(!rig.volume.may_write(WriteContext::Kswapd));
    assert!(rig.volume.may_write(WriteContext::Flusher));
    let rig = rig.remount();
    assert!(rig.volume.may_write(WriteContext::Direct));
}
