//! What an image is worth: `fsck`, mount, every byte compared, a few writes, `fsck` again.

use super::versions::{Bytes, Versions};
use super::{CrashReport, Drawn, PHOTOS_MAX, Photo, device, engine, mount, try_mount};
use crate::device::{FaultRates, RamDevice};
use crate::rng::Rng;
use crate::world::{LabOptions, LabWorld};
use highwater_engine::backing::journaled::{Damage, fsck};
use highwater_engine::{File, IoErrorKind};
use std::sync::Arc;

/// One in so many images is also written to, and looked at once more.
const USED_EVERY: usize = 4;

/// One in so many is looked at once more with a superblock or a block of the log spoiled.
const SPOILED_EVERY: usize = 2;

/// Checks the photos of one mount.
pub(super) fn verify(drawn: &Drawn, nth: u64, photos: &[Photo]) -> CrashReport {
    let mut total = CrashReport::default();
    for (i, photo) in photos.iter().enumerate() {
        let counts = in_a_world(drawn, photo, move |world, drawn, image, legal| {
            let what = format!("mount {nth}, image {i}");
            one(world, drawn, image, legal, &what, i % USED_EVERY == 0)
        });
        total += counts;
        if i % SPOILED_EVERY == 0 {
            let mut rng = Rng::new(drawn.seed, 130 + nth * PHOTOS_MAX as u64 + i as u64);
            let block = match rng.below(4) {
                superblock @ 0..=1 => superblock,
                _ => 2 + rng.below(drawn.log_blocks),
            };
            total += in_a_world(drawn, photo, move |world, drawn, image, legal| {
                let what = format!("mount {nth}, image {i} with block {block} spoiled");
                spoiled(world, drawn, image, legal, block, &what)
            });
        }
    }
    total
}

/// CRASH-5: a block does not verify.
fn spoiled(
    world: &Arc<LabWorld>,
    drawn: &Drawn,
    mut image: Vec<u8>,
    legal: &Versions,
    block: u64,
    what: &str,
) -> CrashReport {
    // Of its first bytes some are what it is known by; this is one that its checksum covers.
    image[block as usize * drawn.page_size + 40] ^= 0x55;
    let device = device(world, image, FaultRates::default(), false);
    let engine = engine(world, drawn);
    let mut counts = CrashReport {
        spoiled: 1,
        ..CrashReport::default()
    };
    match try_mount(&engine, &device, drawn) {
        Ok((_volume, file)) => counts.pages_checked = compare(&file, legal, drawn, what),
        Err(_) => counts.refused_mounts = 1,
    }
    engine.abandon();
    counts
}

fn in_a_world<R: 'static>(
    drawn: &Drawn,
    photo: &Photo,
    body: impl FnOnce(&Arc<LabWorld>, &Drawn, Vec<u8>, &Versions) -> R + 'static,
) -> R {
    let world = LabWorld::new(LabOptions::calm(drawn.seed));
    let (inner, drawn) = (world.clone(), drawn.clone());
    let (image, legal) = (photo.image.clone(), photo.legal.clone());
    let run = world.run(move || body(&inner, &drawn, image, &legal));
    assert!(run.leaked.is_empty(), "tasks left: {:?}", run.leaked);
    run.value
}

/// CRASH-3; the bytes of a page that the cache has said are lost may be so.
fn fsck_clean(device: &RamDevice, legal: &Versions, what: &str) {
    let report = fsck(device).unwrap_or_else(|e| panic!("CRASH-3: {what}: {e}"));
    for fault in &report.faults {
        let lost = matches!(fault, Damage::Data { page, .. } if legal.is_lost(*page));
        assert!(lost, "CRASH-3: {what}: {:?}", report.faults);
    }
}

fn one(
    world: &Arc<LabWorld>,
    drawn: &Drawn,
    image: Vec<u8>,
    legal: &Versions,
    what: &str,
    used: bool,
) -> CrashReport {
    let device = device(world, image, FaultRates::default(), false);
    fsck_clean(&device, legal, what);
    let engine = engine(world, drawn);
    let (volume, file) = mount(&engine, &device, drawn);
    let mut counts = CrashReport {
        images: 1,
        replayed: u64::from(volume.info().log_used > 0),
        ..CrashReport::default()
    };
    counts.pages_checked = compare(&file, legal, drawn, what);
    if used {
        use_on(&file, legal, drawn, what);
    }
    drop(file);
    engine
        .close()
        .unwrap_or_else(|e| panic!("{what}: close: {e}"));
    drop(volume);
    fsck_clean(&device, legal, what);
    counts
}

/// CRASH-1 and CRASH-2 for every page, and zeroes beyond the end; how many pages there were.
fn compare(file: &File<LabWorld>, legal: &Versions, drawn: &Drawn, what: &str) -> u64 {
    let size = drawn.page_size as u64;
    let len = file.len();
    assert_eq!(legal.check_len(len), Ok(()), "CRASH-1: {what}");
    let mut bytes = vec![0; drawn.page_size];
    for page in 0..len.div_ceil(size) {
        let n = match file.read_at(&mut bytes, page * size) {
            Ok(n) => n,
            Err(_) if legal.is_lost(page) => continue,
            Err(e) => panic!("CRASH-1: {what}: page {page}: {e}"),
        };
        assert_eq!(n as u64, (len - page * size).min(size));
        let checked = legal.check_crash(page, &bytes[..n]);
        assert_eq!(checked, Ok(()), "CRASH-1, CRASH-2: {what}");
    }
    len.div_ceil(size)
}

/// The volume can be used: it grows by zeroes, takes writes, keeps them.
fn use_on(file: &File<LabWorld>, legal: &Versions, drawn: &Drawn, what: &str) {
    let size = drawn.page_size as u64;
    let (len, end) = (file.len(), drawn.pages * size);
    file.set_len(end)
        .unwrap_or_else(|e| panic!("{what}: set_len: {e}"));
    let mut bytes = vec![1; drawn.page_size];
    for page in len / size..drawn.pages {
        match file.read_at(&mut bytes, page * size) {
            Ok(_) => {}
            Err(_) if legal.is_lost(page) => continue,
            Err(e) => panic!("{what}: page {page} of a file of {len} bytes: {e}"),
        }
        let from = len.saturating_sub(page * size) as usize;
        assert!(
            bytes[from.min(bytes.len())..].iter().all(|b| *b == 0),
            "CRASH-2: {what}: page {page} beyond the end is not zero"
        );
    }
    for page in [0, drawn.pages / 2, drawn.pages - 1] {
        match file.write_at(&vec![0xA7; drawn.page_size], page * size) {
            Ok(()) => {
                file.sync_data()
                    .unwrap_or_else(|e| panic!("{what}: sync: {e}"));
                file.evict(0..u64::MAX)
                    .unwrap_or_else(|e| panic!("{what}: evict: {e}"));
                file.read_at(&mut bytes, page * size)
                    .unwrap_or_else(|e| panic!("{what}: page {page}: {e}"));
                assert!(bytes.iter().all(|b| *b == 0xA7), "{what}: page {page}");
            }
            Err(highwater_engine::Error::Io { source, .. })
                if source.kind == IoErrorKind::NoSpace => {}
            Err(e) => panic!("{what}: write: {e}"),
        }
    }
}

/// The image as a later mount finds it, and the file as it is then.
pub(super) fn go_on(drawn: &Drawn, photo: &Photo) -> (Vec<u8>, Versions) {
    let versions = in_a_world(drawn, photo, |world, drawn, image, legal| {
        let device = device(world, image, FaultRates::default(), false);
        let engine = engine(world, drawn);
        let (_volume, file) = mount(&engine, &device, drawn);
        let mut versions = legal.clone();
        let size = drawn.page_size;
        versions.found(file.len(), |page| -> Option<Bytes> {
            let mut bytes = vec![0; size];
            match file.read_at(&mut bytes, page * size as u64) {
                Ok(_) => Some(bytes.into()),
                Err(_) if legal.is_lost(page) => None,
                Err(e) => panic!("page {page}, which was there before: {e}"),
            }
        });
        drop(file);
        engine.abandon();
        versions
    });
    (photo.image.clone(), versions)
}

#[cfg(test)]
mod tests {
    use super::super::{Photo, fresh};
    use super::*;
    use crate::crash::versions::Versions;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    const PAGE: u64 = 3;

    /// A volume of which one page is written, and nothing is owed.
    fn written(drawn: &Drawn) -> Vec<u8> {
        let (world, drawn) = (LabWorld::new(LabOptions::calm(1)), drawn.clone());
        let (inner, image) = (world.clone(), fresh(&drawn));
        let run = world.run(move || {
            let device = device(&inner, image, FaultRates::default(), false);
            let engine = engine(&inner, &drawn);
            let (volume, file) = mount(&engine, &device, &drawn);
            let bytes = vec![7; drawn.page_size];
            file.write_at(&bytes, PAGE * drawn.page_size as u64)
                .expect("a write");
            drop(file);
            engine.close().expect("close");
            drop(volume);
            device.visible()
        });
        run.value
    }

    /// What `verify` finds, if `byte` and nothing else is in the written page, and the file `short` bytes shorter.
    fn found(drawn: &Drawn, byte: u8, short: u64) -> Result<(), String> {
        let len = drawn.pages * drawn.page_size as u64 - short;
        let mut legal = Versions::new(drawn.page_size, drawn.pages, len);
        legal.begin(PAGE, vec![byte; drawn.page_size].into());
        legal.end(PAGE, true);
        let cut = legal.cut();
        legal.promise(&cut);
        let image = written(drawn);
        let photos = [Photo { image, legal }];
        catch_unwind(AssertUnwindSafe(|| verify(drawn, 0, &photos)))
            .map(drop)
            .map_err(|panic| panic.downcast_ref::<String>().cloned().unwrap_or_default())
    }

    /// An image that is whole and holds something else than what was promised: no `fsck` tells.
    #[test]
    fn crash_1_other_bytes_and_another_length_are_found() {
        let drawn = Drawn::draw(1);
        assert_eq!(found(&drawn, 7, 0), Ok(()));
        let bytes = found(&drawn, 8, 0).unwrap_err();
        assert!(bytes.contains("page 3: byte 0 is 07"), "{bytes}");
        let len = found(&drawn, 7, 1).unwrap_err();
        assert!(len.contains("bytes; legal are"), "{len}");
    }
}
