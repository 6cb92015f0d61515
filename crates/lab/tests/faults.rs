//! What the fault model's head promises (`src/device/fault.rs`), seen from outside: errors that are drawn, what a failed
//! request leaves behind, and which parts of the unflushed writes a crash keeps.

use highwater_engine::io::{IoBuf, IoOp};
use highwater_engine::world::{Device, Nanos};
use highwater_engine::{IoError, IoErrorKind};
use highwater_lab::{
    FaultRates, LabOptions, LabQueue, LabWorld, QueueOptions, RamDevice, RamOptions, Rng, Rule,
};
use std::collections::BTreeSet;
use std::sync::Arc;

const SECTOR: usize = 512;

/// Runs `f` on a disk of `len` bytes that fails by `faults`.
fn on_disk<R: 'static>(
    faults: FaultRates,
    len: u64,
    f: impl FnOnce(&RamDevice) -> R + 'static,
) -> R {
    let world = LabWorld::new(LabOptions::calm(3));
    let queue = LabQueue::new(&world, QueueOptions::default());
    let options = RamOptions {
        faults,
        len,
        crashes: true,
        ..RamOptions::default()
    };
    let device: Arc<RamDevice> = RamDevice::new(&queue, options);
    world.run(move || f(&device)).value
}

fn read(device: &RamDevice, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
    let (ptr, len) = (buf.as_mut_ptr(), buf.len());
    device.read_now(offset, &[IoBuf { ptr, len }])
}

/// The first byte of each sector of each of `n` crash images.
fn crashes(device: &RamDevice, n: u64) -> BTreeSet<Vec<u8>> {
    let image = |seed| device.crash_image(&mut Rng::new(seed, 1));
    let sectors = |image: Vec<u8>| image.chunks(SECTOR).map(|s| s[0]).collect();
    (0..n).map(image).map(sectors).collect()
}

#[test]
fn flushes_fail_as_their_rate_says_and_lose_writes_as_theirs() {
    let counts = |flush_error_ppm, flush_loss_ppm| {
        let faults = FaultRates {
            flush_error_ppm,
            flush_loss_ppm,
            ..FaultRates::default()
        };
        on_disk(faults, 1 << 20, |device| {
            let failed = (0..200).filter(|n| {
                device.write_now(n * 512, &[1; SECTOR]).unwrap();
                device.flush().is_err()
            });
            let failed = failed.count() as u64;
            let counts = device.fault_counts();
            assert_eq!(failed, counts.flushes + counts.lossy_flushes);
            (counts.flushes, counts.lossy_flushes)
        })
    };
    assert_eq!(counts(0, 1_000_000), (0, 0));
    assert_eq!(counts(1_000_000, 0), (200, 0));
    assert_eq!(counts(1_000_000, 1_000_000), (0, 200));
    let (kept, lost) = counts(300_000, 500_000);
    assert!(
        (10..60).contains(&kept) && (10..60).contains(&lost),
        "{kept} {lost}"
    );
}

#[test]
fn a_failed_read_leaves_what_nobody_wrote_and_harms_nothing() {
    on_disk(FaultRates::default(), 4096, |device| {
        device.write_now(0, &[7; 4096]).unwrap();
        device.fail_reads(0..512, IoErrorKind::Io, Nanos(u64::MAX));
        let mut buf = [1; 1024];
        assert!(read(device, 0, &mut buf).is_err());
        assert!(
            buf.iter().all(|b| *b != 7 && *b != 1),
            "neither disk nor buffer"
        );
        device.heal();
        read(device, 0, &mut buf).unwrap();
        assert_eq!(buf, [7; 1024]);
    });
}

#[test]
fn any_sectors_of_a_failed_write_may_have_reached_the_medium_visibly() {
    let seen = on_disk(FaultRates::default(), 2048, |device| {
        device.fail_writes(0..2048, IoErrorKind::Io, Nanos(u64::MAX));
        let mut seen = BTreeSet::new();
        for n in 1..=120 {
            assert!(device.write_now(0, &[n; 2048]).is_err());
            let mut buf = [0; 2048];
            read(device, 0, &mut buf).unwrap();
            assert!(
                buf.chunks(SECTOR).all(|s| s.iter().all(|b| *b == s[0])),
                "whole sectors"
            );
            let new: Vec<bool> = buf.chunks(SECTOR).map(|s| s[0] == n).collect();
            seen.insert(new);
        }
        seen
    });
    let some = |n: usize| {
        seen.iter()
            .any(|s| s.iter().filter(|new| **new).count() == n)
    };
    assert!(some(0) && some(4), "nothing of it, or all");
    assert!(some(1) && some(3), "some of its sectors");
    let later = seen.iter().any(|s| !s[0] && s[3]);
    assert!(later, "not only its beginning");
}

/// Three writes, none flushed: each subset of them is a legal disk, also one that lacks an earlier write and has a later.
#[test]
fn a_crash_keeps_every_subset_of_the_unflushed_writes_in_whatever_order_they_came() {
    let seen = on_disk(FaultRates::default(), 4 * 512, |device| {
        device.write_now(3 * 512, &[9; SECTOR]).unwrap();
        device.flush().unwrap();
        for n in [2, 0, 1] {
            device.write_now(n * 512, &[1; SECTOR]).unwrap();
        }
        crashes(device, 2_000)
    });
    for subset in 0..8u8 {
        let image: Vec<u8> = (0..3).map(|n| subset >> n & 1).chain([9]).collect();
        assert!(seen.contains(&image), "{image:?} is legal, and never left");
    }
    assert_eq!(seen.len(), 8, "what was flushed stays: {seen:?}");
}

/// Two writes of one sector, neither flushed: the older may be what is left.
#[test]
fn of_two_writes_of_one_sector_a_crash_keeps_either_or_neither() {
    let seen = on_disk(FaultRates::default(), 512, |device| {
        device.write_now(0, &[1; SECTOR]).unwrap();
        device.write_now(0, &[2; SECTOR]).unwrap();
        crashes(device, 500)
    });
    assert_eq!(seen, [vec![0], vec![1], vec![2]].into());
}

/// IMAGE-2: a truncation may be lost, and what came after a lost one is lost with it.
#[test]
fn a_crash_keeps_a_truncation_or_loses_it_with_all_that_followed() {
    let seen = on_disk(FaultRates::default(), 4 * 512, |device| {
        device.write_now(0, &[1; 4 * SECTOR]).unwrap();
        device.flush().unwrap();
        device.truncate(512).unwrap();
        device.write_now(512, &[2; SECTOR]).unwrap();
        crashes(device, 500)
    });
    let legal = [vec![1, 1, 1, 1], vec![1], vec![1, 2]];
    assert_eq!(seen, legal.into());
}

#[test]
fn a_programmed_fault_fails_as_many_requests_as_it_says() {
    on_disk(FaultRates::default(), 4096, |device| {
        device.add_rule(Rule {
            op: IoOp::Write,
            range: 512..1024,
            kind: IoErrorKind::NoSpace,
            until: Nanos(u64::MAX),
            times: 2,
        });
        let kinds: Vec<_> = [0, 512, 0, 512, 512]
            .map(|at| device.write_now(at, &[1; SECTOR]).err().map(|e| e.kind))
            .into();
        let full = Some(IoErrorKind::NoSpace);
        assert_eq!(kinds, [None, full, None, full, None]);
        assert_eq!(device.fault_counts().no_space, 2);
    });
}
