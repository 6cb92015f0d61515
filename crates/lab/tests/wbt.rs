//! Writeback throttling: reads beside a writer that never stops.

mod common;

use common::*;
use highwater_engine::Nanos;
use highwater_engine::World;
use highwater_engine::io::IoOp;
use highwater_lab::model::Hdd;
use highwater_lab::{LabQueue, Model, QueueOptions, RamDevice, RamOptions};
use std::cell::Cell;
use std::rc::Rc;

const FILE: u64 = 16 << 20;

/// What two seconds of random reads beside a streaming writer gave.
#[derive(Clone, Copy, Default, Debug)]
struct Beside {
    reads: u64,
    longest: Nanos,
    written: u64,
    waits: u64,
    overdue: u64,
}

fn beside(model: Model, wbt: bool) -> Beside {
    let result = Rc::new(Cell::new(Beside::default()));
    let out = result.clone();
    lab(
        1,
        2048,
        |config| config.policy.wbt = wbt,
        move |rig| {
            let options = QueueOptions {
                id: 7,
                model,
                cap: None,
            };
            let disk = LabQueue::new(&rig.world, options);
            let open = |ino| {
                let device = RamDevice::new(
                    &disk,
                    RamOptions {
                        len: FILE,
                        ..RamOptions::default()
                    },
                );
                rig.open(ino, &device)
            };
            let (cold, hot) = (open(1), open(2));
            let end = rig.now().plus(ms(2_000));
            let world = rig.world.clone();
            let writer = rig.spawn("writer", move || {
                let mut at = 0;
                while world.now() < end {
                    cold.write_at(&[7; 64 << 10], at % FILE).expect("a write");
                    at += 64 << 10;
                }
            });
            // Its queue is full by then.
            rig.nap(ms(200));
            let (mut seen, mut page) = (Beside::default(), 1);
            while rig.now() < end {
                page = (page * 5 + 3) % (FILE / PAGE);
                let (_, took) = rig.timed(|| hot.read_at(&mut [0; 16], page * PAGE));
                // The first one waits for the queue as it found it.
                seen.longest = if seen.reads == 0 {
                    Nanos::ZERO
                } else {
                    seen.longest.max(took)
                };
                seen.reads += 1;
            }
            rig.join(writer, ms(2_000));
            seen.written = rig.stat("nr_written");
            seen.waits = rig.stat("wbt_wait");
            seen.overdue = rig.stat("wbt_overdue");
            out.set(seen);
            rig.at_rest();
        },
    );
    result.get()
}

#[test]
fn reads_no_longer_wait_behind_a_full_queue_and_the_writer_loses_nothing() {
    let (off, on) = (beside(ssd(32, 500), false), beside(ssd(32, 500), true));
    assert_eq!(off.waits, 0);
    assert!(on.waits > 0);
    assert!(on.longest.0 < off.longest.0 / 3, "{on:?} {off:?}");
    assert!(on.reads > off.reads * 3, "{on:?} {off:?}");
    assert!(on.written * 20 > off.written * 19, "{on:?} {off:?}");
}

/// The arm writes on where it is for as long as it finds something there, and lets a read wait for half a second.
#[test]
fn a_disk_with_an_arm_comes_back_for_a_read_that_is_overdue() {
    let (off, on) = (
        beside(Model::Hdd(Hdd::default()), false),
        beside(Model::Hdd(Hdd::default()), true),
    );
    assert!(off.longest > ms(350), "{off:?}");
    assert!(on.longest < ms(150), "{on:?}");
    assert!(on.overdue > 0 && off.overdue == 0);
    assert!(on.written * 2 > off.written, "{on:?} {off:?}");
}

/// Alone, a writer has the whole queue: not a step fewer than without.
#[test]
fn without_reads_nothing_is_kept_back() {
    lab(
        1,
        2048,
        |_| {},
        |rig| {
            let (file, _) = rig.file(1, FILE / PAGE);
            for at in (0..4 * FILE).step_by(64 << 10) {
                file.write_at(&[7; 64 << 10], at % FILE).expect("a write");
            }
            file.sync_data().expect("a sync");
            assert!(rig.stat("written_flusher") > 0);
            assert_eq!(rig.stat("wbt_wait"), 0);
            rig.at_rest();
        },
    );
}

/// A read that hangs for ever is overdue for ever: dirty pages are written all the same.
#[test]
fn a_read_that_never_ends_stops_no_writeback() {
    lab(
        1,
        2048,
        |config| {
            config.io_timeout = ms(20_000);
            config.policy.background_percent = 1;
        },
        |rig| {
            let (file, device) = rig.file(1, 1024);
            rig.disk.hang_next(IoOp::Read, 1);
            let theirs = file.clone();
            let reader = rig.spawn("reader", move || theirs.read_at(&mut [0; 16], 1000 * PAGE));
            rig.nap(ms(200));
            // Every second page, so that each is a request.
            for page in 0..400 {
                file.write_at(&[7; PAGE as usize], page * 2 % 900 * PAGE)
                    .expect("a write");
            }
            rig.nap(ms(1_000));
            assert!(
                rig.stat("written_flusher") > 300,
                "{}",
                rig.stat("written_flusher")
            );
            assert!(!reader.ended());
            rig.disk.release_hung();
            rig.join(reader, ms(100)).expect("it is read");
            rig.works(&file, &device);
        },
    );
}
