//! What a commit of a journaled volume waits for, and what it must not be made over: one moment each, held open by the disk.

mod common;

use common::{PAGE, Rig, lab, ms};
use highwater_engine::backing::journaled::{FormatOptions, MountOptions, Volume, fsck};
use highwater_engine::io::{IoBuf, IoOp};
use highwater_engine::{Config, Error, File, FileId, FileOptions, IoErrorKind, LendContext, Nanos};
use highwater_lab::{LabWorld, RamDevice, RamOptions, Rng};
use std::sync::Arc;

/// Pages of the file: the changes of every second one fill more than one block of the log.
const PAGES: u64 = 600;
/// Blocks of the log, which lies behind the two superblocks.
const LOG: u64 = 64;

fn device(rig: &Rig, content: Vec<u8>) -> Arc<RamDevice> {
    RamDevice::new(
        &rig.disk,
        RamOptions {
            len: 1600 * PAGE,
            content,
            crashes: true,
            ..RamOptions::default()
        },
    )
}

/// A volume on a disk that keeps what a power failure would leave, and its file of `PAGES` pages of `version` 1, durable.
fn volume(rig: &Rig) -> (Arc<RamDevice>, Arc<Volume>, File<LabWorld>) {
    let device = device(rig, vec![]);
    let options = FormatOptions {
        logical_bytes: PAGES * PAGE,
        block_size: PAGE as u32,
        log_bytes: LOG * PAGE,
        uuid: [7; 16],
    };
    Volume::format(&*device, &options).unwrap();
    let mount = MountOptions {
        lend_context: LendContext::Reserve,
        refuse_reclaim: false,
    };
    let volume = Volume::mount(device.clone(), rig.engine.page_source(), mount).unwrap();
    let id = FileId { dev: 1, ino: 1 };
    let file = (rig.engine.clone())
        .open(id, volume.clone(), FileOptions { write: true })
        .unwrap();
    write(&file, 0..PAGES, 1);
    file.sync_all().unwrap();
    (device, volume, file)
}

fn write(file: &File<LabWorld>, pages: std::ops::Range<u64>, version: u8) {
    for page in pages {
        file.write_at(&[version; PAGE as usize], page * PAGE)
            .unwrap();
    }
}

/// The version of each page that a mount finds on `image`, which `fsck` finds nothing wrong with.
fn found(rig: &Rig, image: Vec<u8>) -> Vec<u8> {
    let device = device(rig, image);
    let report = fsck(&*device).unwrap();
    assert!(report.is_clean(), "{:?}", report.faults);
    let memory = rig.engine.page_source();
    let volume = Volume::mount(device, memory, MountOptions::default()).unwrap();
    let mut bytes = vec![0; PAGE as usize];
    let buf = IoBuf {
        ptr: bytes.as_mut_ptr(),
        len: PAGE as usize,
    };
    let version = |page: u64| {
        use highwater_engine::backing::Backing;
        volume.read_now(page * PAGE, &[buf]).unwrap();
        assert!(
            bytes.iter().all(|b| *b == bytes[0]),
            "page {page} is one version"
        );
        bytes[0]
    };
    (0..PAGES).map(version).collect()
}

/// Written only when asked to, or 100 ms old.
fn calm(c: &mut Config) {
    c.dirty_expire = ms(100);
    c.writeback_interval = ms(20);
    c.policy.background_percent = 80;
    c.policy.limit_percent = 90;
}

/// The page was written once more since the last good flush, and is dirty again when one fails: what is written may be lost, what
/// is dirty is not there yet. A commit now would let go of the durable copy.
#[test]
fn nothing_is_committed_while_a_page_that_a_failed_flush_may_have_lost_waits_dirty_for_its_next_write()
 {
    lab(1, 1200, calm, |rig| {
        let (device, _volume, file) = volume(&rig);
        write(&file, 3..4, 2);
        rig.nap(ms(200));
        assert_eq!(rig.stat("nr_dirty"), 0, "the flusher has written it");
        write(&file, 3..4, 3);
        device.fail_flush(1, true);
        let other = || file.sync_range(7 * PAGE..8 * PAGE);
        assert!(matches!(other(), Err(Error::Io { .. })), "the flush fails");
        let mut rng = Rng::new(1, 1);
        assert_eq!(rig.stat("nr_dirty"), 1, "it is dirty still");
        let second = other();
        for _ in 0..8 {
            let page = found(&rig, device.crash_image(&mut rng))[3];
            assert!((1..=3).contains(&page), "version {page}");
        }
        assert!(second.is_err(), "JRN-6: nothing can be committed");
        file.sync_data().unwrap();
        assert_eq!(found(&rig, device.crash_image(&mut rng))[3], 3);
    });
}

/// A block of the log hangs while the commit goes on: a mark behind it would be damage, not a state.
#[test]
fn a_mark_waits_for_the_blocks_of_the_log_before_it() {
    lab(2, 1200, calm, |rig| {
        let (device, volume, file) = volume(&rig);
        let every_second = || (0..PAGES).step_by(2);
        every_second().for_each(|page| write(&file, page..page + 1, 2));
        rig.nap(ms(300));
        assert_eq!(rig.stat("nr_dirty"), 0, "the flusher has written them");
        let before = volume.info().log_writes_ahead;
        rig.disk.hang_next(IoOp::Write, 1);
        let syncer = rig.spawn("syncer", move || file.sync_data());
        rig.nap(ms(500));
        let ahead = volume.info().log_writes_ahead - before;
        assert_eq!(
            ahead, 1,
            "what hangs is a block that the changes have filled"
        );
        let mut rng = Rng::new(2, 1);
        for _ in 0..20 {
            let versions = found(&rig, device.crash_image(&mut rng));
            assert!(versions.iter().all(|v| *v == 1), "nothing is committed yet");
        }
        assert_eq!(rig.disk.release_hung(), 1);
        rig.join(syncer, ms(5_000)).unwrap();
        let versions = found(&rig, device.crash_image(&mut rng));
        assert!(every_second().all(|page| versions[page as usize] == 2));
    });
}

/// The last block of the log and its copy cannot be written: nothing has been promised.
#[test]
fn a_commit_whose_mark_could_not_be_written_is_none() {
    lab(3, 1200, calm, |rig| {
        let (device, _volume, file) = volume(&rig);
        write(&file, 5..6, 2);
        let log = 2 * PAGE..(2 + LOG) * PAGE;
        device.fail_writes(log, IoErrorKind::Io, Nanos(u64::MAX));
        let told = file.sync_data();
        let mut rng = Rng::new(3, 1);
        let version = found(&rig, device.crash_image(&mut rng))[5];
        assert!(
            told.is_err() || version == 2,
            "a sync succeeds, and version {version} is there"
        );
        device.heal();
        while file.sync_data().is_err() {}
        assert_eq!(found(&rig, device.crash_image(&mut rng))[5], 2);
    });
}
