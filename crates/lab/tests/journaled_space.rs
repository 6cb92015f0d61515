//! A volume with little room: what replaces other pages fits as long as there is any room at all.

mod common;

use common::{LabFile, PAGE, Rig, io, lab};
use highwater_engine::backing::Backing;
use highwater_engine::backing::journaled::{FormatOptions, MountOptions, Volume, fsck};
use highwater_engine::{FileId, FileOptions, IoErrorKind, PageNo};
use highwater_lab::{RamDevice, RamOptions, Rng};
use std::sync::Arc;

/// A volume of `blocks` data blocks for a file of `pages` pages.
fn volume(rig: &Rig, blocks: u64, pages: u64) -> (LabFile, Arc<Volume>, Arc<RamDevice>) {
    let log = 16;
    let map = 2 * pages.div_ceil(504);
    let device = RamDevice::new(
        &rig.disk,
        RamOptions {
            len: (2 + log + map + blocks) * PAGE,
            ..RamOptions::default()
        },
    );
    let options = FormatOptions {
        logical_bytes: pages * PAGE,
        block_size: PAGE as u32,
        log_bytes: log * PAGE,
        uuid: [1; 16],
    };
    Volume::format(&*device, &options).expect("format");
    let source = rig.engine.page_source();
    let volume = Volume::mount(device.clone(), source, MountOptions::default()).expect("mount");
    assert_eq!(volume.info().data_blocks, blocks);
    let id = FileId { dev: 3, ino: 3 };
    let options = FileOptions { write: true };
    let file = rig.engine.open(id, volume.clone(), options).expect("open");
    (file, volume, device)
}

/// The cache could hold all of it dirty, and the volume has room for a twentieth more than the file.
#[test]
fn a_full_volume_is_written_over_and_over_without_an_error() {
    lab(
        1,
        2048,
        |_| (),
        |rig| {
            let pages = 800;
            let (file, volume, device) = volume(&rig, pages * 21 / 20 + 30, pages);
            let jobs: Vec<_> = (0..3)
                .map(|n| {
                    let file = file.clone();
                    rig.spawn("writer", move || {
                        let mut rng = Rng::new(n, 1);
                        for round in 0..3_000u64 {
                            let page = rng.below(pages);
                            let bytes = vec![(page + round) as u8; PAGE as usize];
                            file.write_at(&bytes, page * PAGE)
                                .expect("it replaces a page");
                        }
                    })
                })
                .collect();
            for n in 0..pages {
                file.write_at(&[n as u8; PAGE as usize], n * PAGE)
                    .expect("room for all");
            }
            for job in jobs {
                rig.join(job, common::ms(300_000));
            }
            // A held page is nobody's obstacle.
            let mut held = file.page_mut(PageNo(5)).expect("a page");
            held[0] = 1;
            for n in 100..700 {
                file.write_at(&[7; PAGE as usize], n * PAGE)
                    .expect("it replaces a page");
            }
            drop(held);
            file.sync_data().expect("a sync");
            assert_eq!((rig.stat("write_errors"), volume.reserved()), (0, Some(0)));
            assert!(volume.info().commits > 3, "{:?}", volume.info());
            volume.check_invariants();
            let report = fsck(&*device).expect("a volume");
            assert!(report.is_clean(), "{:?}", report.faults);
            rig.at_rest();
            rig.engine.close().unwrap();
        },
    );
}

/// What is new does not fit for ever, and the error says so at the write; nothing else fails.
#[test]
fn a_volume_too_small_for_its_file_fills_up() {
    lab(
        2,
        2048,
        |_| (),
        |rig| {
            let (file, volume, _device) = volume(&rig, 300, 800);
            let mut written = Vec::new();
            for n in 0..800 {
                match file.write_at(&[n as u8; PAGE as usize], n * PAGE) {
                    Ok(()) => written.push(n),
                    Err(e) => {
                        let (kind, at) = io(Err::<(), _>(e), "reserve space for a write");
                        assert_eq!((kind, at), (IoErrorKind::NoSpace, n * PAGE));
                    }
                }
            }
            assert!((280..300).contains(&written.len()), "{}", written.len());
            file.sync_data().expect("a sync");
            assert_eq!(rig.stat("write_errors"), 0);
            // What is there can be changed all the same, page by page.
            for n in &written {
                file.write_at(&[!*n as u8; PAGE as usize], n * PAGE)
                    .expect("it replaces a page");
            }
            file.sync_data().expect("a sync");
            assert_eq!(rig.stat("write_errors"), 0);
            volume.check_invariants();
            file.evict(0..u64::MAX).expect("evict");
            let mut back = [0; PAGE as usize];
            for n in &written {
                file.read_at(&mut back, n * PAGE).expect("a read");
                assert_eq!(back, [!*n as u8; PAGE as usize]);
            }
            rig.at_rest();
            rig.engine.close().unwrap();
        },
    );
}
