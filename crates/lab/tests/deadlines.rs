//! What a deadline counts from: whoever waits while others get on waits on, and what the disk has in hand is waited for
//! as long as a request may take.

mod common;

use common::*;
use highwater_engine::io::IoOp;
use highwater_engine::policy::Throttle;
use highwater_engine::{Config, Error, Nanos};
use highwater_lab::model::Ssd;
use highwater_lab::{LabQueue, Model, QueueOptions};

/// Writers, each with pages of its own, no two of them neighbours: each page is a request.
const WRITERS: u64 = 40;
const PAGES: u64 = 5;
const BYTES: u64 = 2 * WRITERS * PAGES * PAGE;

/// One write after the other, each in 80 ms: longer than a turn of a wait.
fn slow(rig: &Rig) -> LabFile {
    let model = Ssd::simple(1, [Nanos::from_micros(60), ms(80), ms(1)], 500, 0);
    let queue = LabQueue::new(
        &rig.world,
        QueueOptions {
            id: 7,
            model: Model::Ssd(model),
            cap: None,
        },
    );
    rig.open(1, &device_on(&queue, BYTES))
}

/// All writers dirty their pages; the longest that one of them has waited for.
fn write_all(rig: &Rig, file: &LabFile) -> Nanos {
    let writer = |n: u64| {
        let (rig2, file) = (rig.clone(), file.clone());
        rig.spawn("writer", move || {
            let write = |page: u64| {
                let at = 2 * (page * WRITERS + n) * PAGE;
                let (result, took) = rig2.timed(|| file.write_at(&[7; PAGE as usize], at));
                result.expect("the disk makes progress all the time");
                took
            };
            (0..PAGES).map(write).max()
        })
    };
    let writers: Vec<_> = (0..WRITERS).map(writer).collect();
    let longest = writers.into_iter().map(|w| rig.join(w, ms(60_000)));
    longest.max().flatten().expect("a writer")
}

fn impatient(config: &mut Config) {
    (config.alloc_timeout, config.io_timeout) = (ms(200), ms(200));
}

/// Each frame that becomes free goes to the oldest waiter: the youngest waits for as many writes as there are waiters.
#[test]
fn an_allocation_waits_on_while_others_get_frames() {
    let tuned = |config: &mut Config| {
        impatient(config);
        config.policy.throttle = Throttle::Off;
    };
    lab(1, 100, tuned, |rig| {
        let file = slow(&rig);
        let longest = write_all(&rig, &file);
        assert!(longest > ms(1_000), "too quick a disk: {longest:?}");
        rig.nap(ms(20_000));
        rig.engine.close().expect("close");
    });
}

#[test]
fn a_throttled_writer_waits_on_while_pages_are_written() {
    let tuned = |config: &mut Config| {
        impatient(config);
        config.policy.background_percent = 5;
        config.policy.limit_percent = 10;
    };
    lab(2, 400, tuned, |rig| {
        let file = slow(&rig);
        let longest = write_all(&rig, &file);
        assert!(longest > ms(1_000), "too quick a disk: {longest:?}");
        assert!(rig.stat("balance_dirty_pause") > 0, "never throttled");
        rig.nap(ms(20_000));
        rig.engine.close().expect("close");
    });
}

/// Memory full of pages that a disk has in hand, and does not give back.
#[test]
fn what_is_in_flight_is_waited_for_as_long_as_a_request_may_take() {
    let tuned = |config: &mut Config| {
        (config.alloc_timeout, config.io_timeout) = (ms(300), ms(2_000));
        config.policy.throttle = Throttle::Off;
    };
    lab(3, 100, tuned, |rig| {
        let (file, _) = rig.file(1, 1024);
        rig.disk.hang_next(IoOp::Write, u32::MAX);
        let refused = (0..1024).find_map(|n| {
            let (result, took) = rig.timed(|| file.write_at(&[7; PAGE as usize], n * PAGE));
            result.err().map(|e| (e, took))
        });
        let (error, took) = refused.expect("no memory is left");
        assert!(matches!(error, Error::OutOfMemory(_)), "{error}");
        assert!((ms(2_000)..ms(2_300)).contains(&took), "after {took:?}");
        rig.disk.release_hung();
        rig.nap(ms(1_000));
    });
}
