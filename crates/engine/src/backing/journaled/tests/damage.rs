//! Volumes with wrong bytes: a typed error or the right data, never anything else.

use super::*;
use crate::backing::journaled::{Damage, inspect};

/// A small volume with a checkpoint, commits behind it, and the versions of its pages.
fn small() -> (Vec<u8>, BTreeMap<u64, u64>) {
    let disk = Disk::formatted(32, 8, 40);
    let mut rig = Rig::new(&disk);
    let mut versions = BTreeMap::new();
    for version in 1..=8 {
        let runs = [(version % 5, 2), (30 + version % 3, 1)];
        rig.write(&runs, version).unwrap();
        rig.volume.flush().unwrap();
        for (first, count) in runs {
            versions.extend((first..first + count).map(|p| (p, version)));
        }
    }
    assert!(rig.volume.info().checkpoints > 0 && rig.volume.info().log_used > 1);
    (disk.image(), versions)
}

/// Mounts and reads everything. `Ok`: each page was right or an error.
fn right_or_error(disk: &Arc<Disk>, versions: &BTreeMap<u64, u64>) -> Result<(), VolumeError> {
    let rig = Rig::mount(disk)?;
    for page in 0..40 {
        let version = versions.get(&page).copied().unwrap_or(0);
        match rig.read(page) {
            Ok(bytes) => assert!(
                bytes == page_bytes(page, version),
                "page {page}: wrong data"
            ),
            Err(e) => assert_eq!(e, IoError::new(IoErrorKind::Checksum, page * BLOCK as u64)),
        }
    }
    assert_eq!(rig.volume.len(), Ok(40 * BLOCK as u64));
    Ok(())
}

#[test]
fn each_byte_of_a_small_volume_may_be_wrong() {
    let (image, versions) = small();
    let disk = Disk::new(image, false);
    right_or_error(&disk, &versions).unwrap();
    let rig = Rig::new(&disk);
    let data = rig.volume.geometry.data_first() as usize;
    let pages: BTreeMap<usize, u64> = (0..40)
        .filter_map(|p| Some((rig.volume.state().map.get(p)?.block as usize, p)))
        .collect();
    let (mut refused, mut found) = (0, 0);
    for at in 0..32 * BLOCK {
        // Any bit of the byte, and all of them.
        let flip = if at % 9 == 8 { 0xFF } else { 1 << (at % 9) };
        disk.bytes.lock().now[at] ^= flip;
        let outcome = if at / BLOCK < data {
            let look = std::panic::AssertUnwindSafe(|| right_or_error(&disk, &versions));
            let outcome = std::panic::catch_unwind(look);
            outcome.unwrap_or_else(|_| panic!("byte {at}, flipped by {flip:#x}"))
        } else {
            // A mount does not read data blocks: only the page's reader is concerned.
            if let Some(page) = pages.get(&(at / BLOCK)) {
                assert_eq!(
                    rig.read(*page).unwrap_err().kind,
                    IoErrorKind::Checksum,
                    "byte {at}"
                );
            }
            Ok(())
        };
        refused += usize::from(outcome.is_err());
        // fsck, which is slower, for some: it never says clean where the mount refuses, or a page is wrong.
        if at % 61 == 0 {
            let report = fsck(&*disk);
            let clean = report.as_ref().is_ok_and(FsckReport::is_clean);
            let wrong = outcome.is_err() || pages.contains_key(&(at / BLOCK));
            assert!(!(clean && wrong), "byte {at}: {:?}", outcome.err());
            found += usize::from(!clean);
        }
        disk.bytes.lock().now[at] ^= flip;
    }
    assert!(refused > 2 * BLOCK, "log and map were not read: {refused}");
    assert!(found > 32 * BLOCK / 61 / 4, "fsck finds nothing: {found}");
}

#[test]
fn blocks_of_noise_are_no_volume_and_make_nothing_panic() {
    let (image, versions) = small();
    let mut x = 1u64;
    for block in 0..32 {
        for kind in 0..3 {
            let mut bad = image.clone();
            for b in &mut bad[block * BLOCK..][..BLOCK] {
                x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
                *b = [0, 0xFF, (x >> 56) as u8][kind];
            }
            let disk = Disk::new(bad, false);
            let _ = fsck(&*disk);
            let _ = inspect(&*disk);
            let _ = right_or_error(&disk, &versions);
        }
    }
    let zeroes = Disk::new(vec![0; 32 * BLOCK], false);
    assert!(matches!(fsck(&*zeroes), Err(VolumeError::NotAVolume)));
    assert!(matches!(
        fsck(&*Disk::new(Vec::new(), false)),
        Err(VolumeError::NotAVolume)
    ));
}

#[test]
fn a_damaged_log_block_before_a_commit_is_named() {
    let (image, _) = small();
    let disk = Disk::new(image, false);
    let info = inspect(&*disk).unwrap();
    assert!(info.log_used >= 4);
    // The first log block that recovery reads.
    let rig = Rig::new(&disk);
    let start = rig.volume.state().log.as_ref().unwrap().sb.log_start;
    let at = rig.volume.geometry.log_byte(start);
    drop(rig);
    // One of the two blocks of a commit may be lost; not both.
    disk.bytes.lock().now[at as usize + 50] ^= 4;
    assert!(Rig::mount(&disk).is_ok());
    disk.bytes.lock().now[at as usize + BLOCK + 50] ^= 4;
    let Err(VolumeError::Damaged(Damage::Log { at: found, seq, .. })) = Rig::mount(&disk).map(drop)
    else {
        panic!("it is mounted")
    };
    assert_eq!((found, seq), (at, start));
    let report = fsck(&*disk).unwrap();
    assert!(
        report
            .faults
            .iter()
            .any(|f| matches!(f, Damage::Log { .. })),
        "{:?}",
        report.faults
    );
}

#[test]
fn a_wrong_data_block_is_found_by_whom_it_concerns() {
    let (image, versions) = small();
    let disk = Disk::new(image, false);
    let rig = Rig::new(&disk);
    let page = *versions.keys().next().unwrap();
    let block = rig.volume.state().map.get(page).unwrap().block;
    let at = rig.volume.geometry.byte(u64::from(block));
    disk.bytes.lock().now[at as usize + 4095] ^= 1;
    assert_eq!(rig.read(page).unwrap_err().kind, IoErrorKind::Checksum);
    for (other, version) in versions.iter().filter(|(p, _)| **p != page) {
        rig.expect(*other, *version);
    }
    // Reading ahead finds it, too.
    let mut memory = vec![0; BLOCK];
    let mut request = Request::new(IoOp::Read, page * BLOCK as u64, rig.results.clone());
    request.cookie = 5;
    request.bufs = vec![IoBuf {
        ptr: memory.as_mut_ptr(),
        len: BLOCK,
    }];
    rig.volume.read_pages(Lane::Shared, &mut vec![request]);
    let e = rig.results.0.lock()[&5].unwrap_err();
    assert_eq!(e, IoError::new(IoErrorKind::Checksum, page * BLOCK as u64));
    let report = fsck(&*disk).unwrap();
    assert_eq!(report.faults, [Damage::Data { page, at }]);
}

#[test]
fn a_superblock_less_is_said_and_harmless() {
    let (image, versions) = small();
    for slot in 0..2 {
        let mut bad = image.clone();
        bad[slot * BLOCK..][..100].fill(0);
        let disk = Disk::new(bad, false);
        match right_or_error(&disk, &versions) {
            Ok(()) => {
                let report = clean(&disk);
                assert_eq!(report.notes.len(), 1);
            }
            // The log has gone over what the older one needs.
            Err(e) => assert!(matches!(e, VolumeError::Damaged(Damage::Log { .. })), "{e}"),
        }
    }
}

#[test]
fn other_devices_and_other_caches_are_refused_by_name() {
    let (image, _) = small();
    // Another size of block.
    let mut wide = options(0, 0);
    (wide.block_size, wide.logical_bytes) = (8192, 40 * 8192);
    let disk = Disk::new(vec![0; 64 * 8192], false);
    Volume::format(&*disk, &wide).unwrap();
    let e = Rig::mount(&disk).map(drop).unwrap_err();
    assert!(
        matches!(
            e,
            VolumeError::BlockSize {
                volume: 8192,
                cache: 4096
            }
        ),
        "{e}"
    );
    clean(&disk);
    // A shorter device.
    let disk = Disk::new(image[..31 * BLOCK].to_vec(), false);
    assert!(matches!(fsck(&*disk), Err(VolumeError::Shortened { .. })));
    // A map larger than a quarter of the cache's 2^20 frames.
    let mut huge = options(8, 0);
    huge.logical_bytes = (1 << 18) * 504 * BLOCK as u64 + BLOCK as u64;
    let disk = Disk::new(vec![0; 4 * BLOCK], false);
    let e = Volume::format(&*disk, &huge).unwrap_err();
    assert!(matches!(e, VolumeError::Config(_)), "{e}");
    let e = super::super::fits(
        &super::super::format::Geometry {
            block_size: BLOCK as u32,
            blocks: 1 << 30,
            log_blocks: 8,
            capacity: huge.logical_bytes,
        },
        BLOCK,
        1 << 20,
    )
    .unwrap_err();
    assert!(matches!(e, VolumeError::MapTooLarge { .. }), "{e}");
}

#[test]
fn formats_that_make_no_sense_are_refused() {
    let disk = Disk::new(vec![7; 64 * BLOCK], false);
    for (name, options) in [
        ("no file", options(8, 0)),
        ("a log larger than the disk", options(90, 40)),
        ("a short log", options(2, 40)),
        (
            "blocks of 5000",
            FormatOptions {
                block_size: 5000,
                ..options(8, 40)
            },
        ),
        (
            "blocks of 0",
            FormatOptions {
                block_size: 0,
                ..options(8, 40)
            },
        ),
        (
            "an odd size",
            FormatOptions {
                logical_bytes: 5000,
                ..options(8, 40)
            },
        ),
    ] {
        let e = Volume::format(&*disk, &options).unwrap_err();
        assert!(matches!(e, VolumeError::Config(_)), "{name}: {e}");
        assert!(
            disk.image().iter().all(|b| *b == 7),
            "{name}: nothing was written"
        );
    }
}

#[test]
fn a_format_over_an_older_volume_leaves_nothing_of_it() {
    let (image, _) = small();
    let disk = Disk::new(image, false);
    Volume::format(&*disk, &options(8, 40)).unwrap();
    let rig = Rig::new(&disk);
    (0..40).for_each(|page| rig.expect(page, 0));
    assert_eq!(clean(&disk).info.used, 0);
}
