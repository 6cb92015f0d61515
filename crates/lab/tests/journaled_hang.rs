//! A journaled volume on a disk that stops answering: writes of data, log and map that hang. Every wait ends, nothing is
//! claimed meanwhile, and when the disk answers again everything is right.

mod common;

use common::{PAGE, Rig, lab, ms};
use highwater_engine::backing::journaled::{FormatOptions, MountOptions, Volume, fsck};
use highwater_engine::io::IoOp;
use highwater_engine::{Config, Error, FileId, FileOptions, LendContext, Nanos};
use highwater_lab::{RamDevice, RamOptions, Rng};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

const PAGES: u64 = 700;

fn bytes(page: u64, version: u64) -> Vec<u8> {
    (page << 32 | version)
        .to_le_bytes()
        .repeat(PAGE as usize / 8)
}

fn impatient(c: &mut Config) {
    c.io_timeout = ms(2_000);
    c.latch_timeout = ms(1_000);
    c.alloc_timeout = ms(1_000);
}

fn device(rig: &Rig, content: Vec<u8>, crashes: bool) -> Arc<RamDevice> {
    RamDevice::new(
        &rig.disk,
        RamOptions {
            len: 900 * PAGE,
            content,
            crashes,
            ..RamOptions::default()
        },
    )
}

/// What is at most waited for: a commit's own limit and the sync's before it.
const LIMIT: Nanos = Nanos::from_secs(70);

fn hangs(seed: u64, lend_context: LendContext) -> (usize, usize) {
    let told = Rc::new(Cell::new((0, 0)));
    let tell = told.clone();
    lab(seed, 256, impatient, move |rig| {
        let device = device(&rig, vec![], true);
        let options = FormatOptions {
            logical_bytes: PAGES * PAGE,
            block_size: PAGE as u32,
            log_bytes: 9 * PAGE,
            uuid: [seed as u8; 16],
        };
        Volume::format(&*device, &options).unwrap();
        let mount = MountOptions {
            lend_context,
            refuse_reclaim: false,
        };
        let id = FileId { dev: 1, ino: 1 };
        let volume = Volume::mount(device.clone(), rig.engine.page_source(), mount).unwrap();
        let file = (rig.engine.clone())
            .open(id, volume.clone(), FileOptions { write: true })
            .unwrap();
        let mut r = Rng::new(seed, 1);
        let mut now = vec![0; PAGES as usize];
        let mut synced = now.clone();
        let (mut hung, mut refused) = (0, 0);
        for version in 1..=8 {
            for _ in 0..r.between(1, 60) {
                let page = r.below(PAGES);
                let write = || file.write_at(&bytes(page, version), page * PAGE);
                let (result, took) = rig.timed(write);
                assert!(took <= LIMIT, "a write took {took:?}");
                match result {
                    Ok(()) => now[page as usize] = version,
                    // It may have been done.
                    Err(e) => panic!("no space is short and nobody holds a page: {e}"),
                }
            }
            if r.chance(500_000) {
                // Clean, so that what hangs next is log or map.
                rig.nap(ms(8_000));
            }
            if r.chance(600_000) {
                rig.disk.hang_next(IoOp::Write, r.between(1, 3) as u32);
            }
            let before = now.clone();
            // A superblock is written on the caller's thread, which no deadline can take back from the device.
            let disk = rig.clone();
            let repair = rig.spawn("repair", move || {
                disk.nap(ms(65_000));
                disk.disk.release_hung();
            });
            let (result, took) = rig.timed(|| file.sync_data());
            assert!(took <= LIMIT, "a sync took {took:?}");
            match result {
                Ok(()) => synced = before,
                Err(Error::TimedOut { .. } | Error::Io { .. }) => refused += 1,
                Err(e) => panic!("sync: {e}"),
            }
            let image = device.crash_image(&mut r);
            check(&rig, image, &synced, &now);
            // Readers go on.
            let page = r.below(PAGES);
            let mut found = vec![0; PAGE as usize];
            file.read_at(&mut found, page * PAGE).unwrap();
            let expected = match now[page as usize] {
                0 => vec![0; PAGE as usize],
                v => bytes(page, v),
            };
            assert!(found == expected, "page {page}");
            rig.disk.hang_next(IoOp::Write, 0);
            hung += rig.disk.release_hung();
            rig.join(repair, ms(70_000));
        }
        rig.nap(ms(100));
        let mut last = file.sync_data();
        if last.is_err() {
            // It tells of what was before.
            last = file.sync_data();
        }
        last.unwrap();
        tell.set((hung, refused));
        rig.nap(ms(100));
        volume.check_invariants();
        assert_eq!(volume.info().reserved, 0, "RESERVE-1");
        check(&rig, device.crash_image(&mut r), &now, &now);
        drop(file);
        rig.engine.close().unwrap();
    });
    told.get()
}

/// Each page of the image is as new as what was synced, and no newer than what was written.
fn check(rig: &Rig, image: Vec<u8>, synced: &[u64], now: &[u64]) {
    let device = device(rig, image, false);
    let report = fsck(&*device).unwrap();
    assert!(report.is_clean(), "{:?}", report.faults);
    let memory = rig.engine.page_source();
    let volume = Volume::mount(device, memory, MountOptions::default()).unwrap();
    let mut found = vec![0; PAGE as usize];
    let buf = highwater_engine::io::IoBuf {
        ptr: found.as_mut_ptr(),
        len: PAGE as usize,
    };
    for page in 0..PAGES {
        use highwater_engine::backing::Backing;
        volume.read_now(page * PAGE, &[buf]).unwrap();
        let (from, to) = (synced[page as usize], now[page as usize]);
        let word = u64::from_le_bytes(found[..8].try_into().unwrap());
        assert!(found.chunks(8).all(|w| w == &found[..8]), "page {page}");
        let version = if word == 0 { 0 } else { word & 0xFFFF_FFFF };
        assert!(
            (word == 0 || word >> 32 == page) && (from..=to).contains(&version),
            "page {page} has version {version}, not {from}..={to}"
        );
    }
}

#[test]
fn a_disk_that_hangs_now_and_then() {
    let (mut hung, mut refused) = (0, 0);
    for seed in 0..12 {
        for lend in [LendContext::Reserve, LendContext::Reclaim] {
            let (h, r) = hangs(seed, lend);
            (hung, refused) = (hung + h, refused + r);
        }
    }
    assert!(hung > 20 && refused > 20, "{hung} hung, {refused} refused");
}
