//! The flusher on a queue that completes on tasks of its own: a pool of threads, a limiter.

mod common;

use common::*;
use highwater_engine::backing::PlainBacking;
use highwater_engine::io::{IoBuf, Lane, Request};
use highwater_engine::world::{Device, Queue, QueueId};
use highwater_engine::{FileId, FileOptions, IoError, Nanos, World};
use highwater_lab::{LabQueue, QueueOptions, RamDevice, RamOptions};
use std::sync::Arc;

/// Requests at one time.
const DEPTH: usize = 4;

/// As the OS world's limiter: whatever lane is asked for, requests take the shared one, and `reap` only parks.
struct OwnTasks(Arc<dyn Queue>);

impl Queue for OwnTasks {
    fn id(&self) -> QueueId {
        QueueId(self.0.id().0 + 1_000)
    }
    fn name(&self) -> String {
        format!("{}-own", self.0.name())
    }
    fn reap(&self, _: Lane, until: Nanos) -> usize {
        self.0.reap(Lane::Shared, until)
    }
    fn depth(&self) -> usize {
        DEPTH
    }
}

struct Disk {
    ram: Arc<RamDevice>,
    queue: Arc<OwnTasks>,
}

impl Device for Disk {
    fn queue(&self) -> Arc<dyn Queue> {
        self.queue.clone()
    }
    fn submit(&self, _: Lane, batch: &mut Vec<Request>) {
        self.ram.submit(Lane::Shared, batch);
    }
    fn read_now(&self, offset: u64, bufs: &[IoBuf]) -> Result<(), IoError> {
        self.ram.read_now(offset, bufs)
    }
    fn write_now(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        self.ram.write_now(offset, buf)
    }
    fn flush(&self) -> Result<(), IoError> {
        self.ram.flush()
    }
    fn len(&self) -> Result<u64, IoError> {
        self.ram.len()
    }
    fn truncate(&self, len: u64) -> Result<(), IoError> {
        self.ram.truncate(len)
    }
    fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), IoError> {
        self.ram.write_zeroes(offset, len)
    }
}

/// Each second page of a file is dirty, so that each is a request of its own, and old enough to be written: 400 of them,
/// of 20 to 26 microseconds, four at one time. A flusher that only looks up every 10 ms takes a second for them.
#[test]
fn completions_on_another_task_wake_it() {
    lab(
        1,
        4096,
        |config| config.dirty_expire = ms(100),
        |rig| {
            let queue = LabQueue::new(
                &rig.world,
                QueueOptions {
                    id: 7,
                    model: ssd(DEPTH, 500),
                    cap: None,
                },
            );
            let ram = RamDevice::new(
                &queue,
                RamOptions {
                    len: 1024 * PAGE,
                    ..RamOptions::default()
                },
            );
            let disk = Disk {
                queue: Arc::new(OwnTasks(ram.queue())),
                ram,
            };
            let file = rig
                .engine
                .open(
                    FileId { dev: 7, ino: 1 },
                    Arc::new(PlainBacking::new(Arc::new(disk))),
                    FileOptions { write: true },
                )
                .unwrap();
            for page in 0..400 {
                file.write_at(&[7; PAGE as usize], page * 2 * PAGE).unwrap();
            }
            let written = || rig.engine.stats().get("written_flusher");
            let mut began = None;
            while written() < 400 {
                rig.world
                    .sleep_until(rig.now().plus(Nanos::from_micros(100)));
                if written() > 0 && began.is_none() {
                    began = Some(rig.now());
                }
            }
            let took = rig.now().since(began.unwrap_or(rig.now()));
            assert!(took < ms(50), "{took:?} for 400 requests");
            rig.engine.close().unwrap();
        },
    );
}

/// A file that is written without an end is not the only one: each has its turn.
#[test]
fn files_are_written_in_turn() {
    let tuned = |config: &mut highwater_engine::Config| config.policy.background_percent = 1;
    lab(2, 1024, tuned, |rig| {
        // 50 MB/s: slower than the writer.
        let queue = LabQueue::new(
            &rig.world,
            QueueOptions {
                id: 7,
                model: ssd(DEPTH, 20_000),
                cap: None,
            },
        );
        let busy = rig.open(1, &device_on(&queue, 4096 * PAGE));
        let device = device_on(&queue, 8 * PAGE);
        let other = rig.open(2, &device);
        other.write_at(&[7; PAGE as usize], 0).unwrap();
        let end = rig.now().plus(ms(500));
        let world = rig.world.clone();
        let writer = rig.spawn("writer", move || {
            let mut page = 0;
            while world.now() < end {
                busy.write_at(&[8; PAGE as usize], page % 4096 * PAGE)
                    .unwrap();
                page += 1;
            }
        });
        rig.nap(ms(300));
        assert!(!writer.ended() && rig.stat("nr_dirty") > 10);
        assert!(device.visible()[..PAGE as usize] == [7; PAGE as usize]);
        rig.join(writer, ms(1_000));
    });
}
