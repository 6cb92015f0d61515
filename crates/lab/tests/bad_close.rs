//! Files that come and go, by hundreds, beside readers and writers that never stop: each is let go in time, holds nobody
//! up, and may be opened again as one likes.

mod common;

use common::{PAGE, Rig, device_on, lab, ms, ssd};
use highwater_engine::{Config, Nanos};
use highwater_lab::model::Ssd;
use highwater_lab::{LabQueue, Model, QueueOptions, RamDevice};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

fn nothing(_: &mut Config) {}

/// How many of the devices the cache still has.
fn kept(devices: &[Arc<RamDevice>]) -> usize {
    devices.iter().filter(|d| Arc::strong_count(d) > 1).count()
}

/// Calls `f` again and again, in a task of its own, until `stop`.
fn keep_on(rig: &Rig, stop: &Rc<Cell<bool>>, mut f: impl FnMut(u64) + 'static) -> common::Job<()> {
    let stop = stop.clone();
    rig.spawn("keeps on", move || {
        let mut n = 0;
        while !stop.get() {
            f(n);
            n += 1;
        }
    })
}

#[test]
fn a_closed_file_is_let_go_while_another_is_read_without_an_end() {
    lab(1, 1024, nothing, |rig| {
        let stop = Rc::new(Cell::new(false));
        let (stream, _) = rig.file(1, 4096);
        let reader = keep_on(&rig, &stop, move |n| {
            stream
                .read_at(&mut [0; 64 << 10], (n * (64 << 10)) % (4096 * PAGE))
                .expect("a read");
        });
        rig.nap(ms(20));
        let devices: Vec<_> = (0..50).map(|_| rig.device(16 * PAGE)).collect();
        for (n, device) in devices.iter().enumerate() {
            let file = rig.open(2 + n as u64, device);
            file.read_at(&mut [0; 4096], 0).expect("a read");
            drop(file);
            rig.nap(ms(1));
        }
        rig.nap(ms(2_000));
        assert_eq!(kept(&devices), 0, "of 50 closed files");
        stop.set(true);
        rig.join(reader, ms(1_000));
        rig.at_rest();
        rig.engine.close().expect("close");
    });
}

#[test]
fn closed_files_with_dirty_pages_are_let_go_beside_a_writer_that_never_stops() {
    lab(2, 1024, nothing, |rig| {
        let stop = Rc::new(Cell::new(false));
        let slow = LabQueue::new(&rig.world, disk(ssd(32, 20_000)));
        let stream = rig.open(1, &device_on(&slow, 4096 * PAGE));
        let writer = keep_on(&rig, &stop, move |n| {
            stream
                .write_at(&[1; 64 << 10], (n * (64 << 10)) % (4096 * PAGE))
                .expect("a write");
        });
        rig.nap(ms(200));
        let devices: Vec<_> = (0..50).map(|_| device_on(&slow, 16 * PAGE)).collect();
        for (n, device) in devices.iter().enumerate() {
            let file = rig.open(2 + n as u64, device);
            file.write_at(&[n as u8; 4096], 0).expect("a write");
        }
        rig.nap(ms(5_000));
        assert_eq!(kept(&devices), 0, "of 50 closed files");
        for (n, device) in devices.iter().enumerate() {
            assert!(device.visible()[..4096] == [n as u8; 4096], "file {n}");
        }
        stop.set(true);
        rig.join(writer, ms(1_000));
        rig.at_rest();
        rig.engine.close().expect("close");
    });
}

/// Each closed file is flushed once before it is let go. On a disk that takes 20 ms for that, two thousand of them take 40 s.
#[test]
fn two_thousand_closed_files_hold_up_no_writer() {
    lab(3, 4096, nothing, |rig| {
        let us = Nanos::from_micros;
        let flushes = Ssd::simple(32, [us(60), us(20), us(20_000)], 300, 30);
        let slow = LabQueue::new(&rig.world, disk(Model::Ssd(flushes)));
        let big = device_on(&slow, 4096 * PAGE);
        let file = rig.open(1, &big);
        let devices: Vec<_> = (0..2_000).map(|_| device_on(&slow, PAGE)).collect();
        for (n, device) in devices.iter().enumerate() {
            let file = rig.open(2 + n as u64, device);
            file.write_at(&[n as u8; 4096], 0).expect("a write");
        }
        rig.nap(ms(500));
        let mut longest = Nanos::ZERO;
        for n in 0..4_000 {
            let (result, took) = rig.timed(|| file.write_at(&[9; 4096], n * PAGE));
            result.expect("a write");
            longest = longest.max(took);
        }
        assert!(longest < ms(1_000), "a write took {longest:?}");
        // And all of them go in the end.
        rig.nap(ms(60_000));
        assert_eq!(kept(&devices), 0, "of 2,000 closed files");
        rig.works(&file, &big);
        rig.engine.close().expect("close");
    });
}

#[test]
fn a_file_closed_while_it_is_read_ahead_may_be_opened_for_writing() {
    lab(4, 1024, nothing, |rig| {
        let slow = LabQueue::new(&rig.world, disk(ssd(4, 30_000)));
        let device = device_on(&slow, 1024 * PAGE);
        let file = rig.try_open(9, &device, false).expect("open");
        for n in 0..100 {
            file.read_at(&mut [0; 4096], n * PAGE).expect("a read");
        }
        drop(file);
        let file = rig.try_open(9, &device, true).expect("nobody has it open");
        rig.works(&file, &device);
        // While somebody has it, a stronger open is refused.
        drop(file);
        let reader = rig.try_open(9, &device, false).expect("open");
        assert!(rig.try_open(9, &device, true).is_err(), "open for reading");
        drop(reader);
        rig.engine.close().expect("close");
    });
}

/// Nobody looks after the files of a closed cache: what it keeps of them, with their locks, it keeps for ever.
#[test]
fn a_closed_cache_keeps_no_file_that_was_closed_while_it_was_read_ahead() {
    lab(6, 1024, nothing, |rig| {
        let slow = LabQueue::new(&rig.world, disk(ssd(4, 30_000)));
        let devices = [device_on(&slow, 1024 * PAGE)];
        let file = rig.open(9, &devices[0]);
        for n in 0..100 {
            file.read_at(&mut [0; 4096], n * PAGE).expect("a read");
        }
        drop(file);
        assert_eq!(kept(&devices), 1, "it is being read");
        rig.engine.close().expect("close");
        assert_eq!(kept(&devices), 0);
    });
}

#[test]
fn a_closed_cache_keeps_a_file_as_long_as_somebody_has_it_open() {
    lab(7, 1024, nothing, |rig| {
        let devices = [rig.device(16 * PAGE)];
        let file = rig.open(9, &devices[0]);
        file.write_at(&[7; 4096], 0).expect("a write");
        rig.engine.close().expect("close");
        assert_eq!(kept(&devices), 1);
        drop(file);
        assert_eq!(kept(&devices), 0);
    });
}

/// A second disk.
fn disk(model: Model) -> QueueOptions {
    QueueOptions {
        id: 7,
        model,
        cap: None,
    }
}
