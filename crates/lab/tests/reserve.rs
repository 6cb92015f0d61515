//! Backings with delayed allocation: space is set aside before a page is dirty, used when it is written, given back when it
//! is dropped (RESERVE-1); a full backing is the writer's error, and never writeback's.

mod common;

use common::{LabFile, PAGE, Rig, io, lab, ms};
use highwater_engine::backing::{Backing, WriteContext};
use highwater_engine::io::{IoBuf, IoOp, IoSink, Lane, Request};
use highwater_engine::world::{Device, Queue};
use highwater_engine::{Config, FileId, FileOptions, IoError, IoErrorKind, PageNo, World};
use highwater_lab::{FaultRates, RamDevice, RamOptions, Rng};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

/// A plain device, thinly provisioned: so many pages may be in use or reserved.
struct Thin {
    device: Arc<RamDevice>,
    space: Arc<Mutex<Space>>,
}

#[derive(Default)]
struct Space {
    pages_max: u64,
    used: BTreeSet<u64>,
    reserved: u64,
}

/// A write of the engine, and what stands for it on the device.
struct Parent {
    request: Mutex<Option<Request>>,
    space: Arc<Mutex<Space>>,
}

impl IoSink for Parent {
    fn io_done(&self, _child: &mut Request, result: Result<(), IoError>) {
        let parent = self.request.lock().unwrap().take().expect("IO-2");
        if result.is_err() {
            // Before the engine hears of it.
            self.space.lock().unwrap().reserved += parent.frames.len() as u64;
        }
        parent.complete(result);
    }
}

impl Backing for Thin {
    fn queue(&self) -> Arc<dyn Queue> {
        self.device.queue()
    }
    fn read_pages(&self, lane: Lane, batch: &mut Vec<Request>) {
        self.device.submit(lane, batch);
    }
    fn read_now(&self, offset: u64, bufs: &[IoBuf]) -> Result<(), IoError> {
        self.device.read_now(offset, bufs)
    }
    fn write_pages(&self, context: WriteContext, batch: &mut Vec<Request>) {
        for request in batch.drain(..) {
            {
                let mut space = self.space.lock().unwrap();
                let n = request.frames.len() as u64;
                space.reserved = space.reserved.checked_sub(n).expect("RESERVE-1");
                let first = request.offset / PAGE;
                space.used.extend(first..first + n);
            }
            let (offset, bufs) = (request.offset, request.bufs.clone());
            assert_eq!(
                request.write_bytes().map(<[u8]>::len).sum::<usize>(),
                request.len()
            );
            let parent = Arc::new(Parent {
                request: Mutex::new(Some(request)),
                space: self.space.clone(),
            });
            let mut child = Request::new(IoOp::Write, offset, parent);
            child.bufs = bufs;
            self.device.submit(context.lane(), &mut vec![child]);
        }
    }
    fn flush(&self) -> Result<(), IoError> {
        self.device.flush()
    }
    fn len(&self) -> Result<u64, IoError> {
        self.device.len()
    }
    fn truncate(&self, len: u64) -> Result<(), IoError> {
        self.device.truncate(len)?;
        let mut space = self.space.lock().unwrap();
        space.used.split_off(&len.div_ceil(PAGE));
        Ok(())
    }
    fn extents(&self, offset: u64, len: u64) -> Result<Vec<(u64, u64)>, IoError> {
        self.device.extents(offset, len)
    }
    fn discard(&self, offset: u64, len: u64) -> Result<(), IoError> {
        self.device.write_zeroes(offset, len)?;
        let mut space = self.space.lock().unwrap();
        space
            .used
            .retain(|p| !(offset..offset + len).contains(&(p * PAGE)));
        Ok(())
    }
    fn reserves(&self) -> bool {
        true
    }
    fn reserve(&self, page: u64) -> Result<(), IoError> {
        let mut space = self.space.lock().unwrap();
        if space.used.len() as u64 + space.reserved >= space.pages_max {
            return Err(IoError::new(IoErrorKind::NoSpace, page * PAGE));
        }
        space.reserved += 1;
        Ok(())
    }
    fn release(&self, _page: u64) {
        let mut space = self.space.lock().unwrap();
        space.reserved = space.reserved.checked_sub(1).expect("RESERVE-1");
    }
    fn redirtied(&self, _page: u64) {
        self.space.lock().unwrap().reserved += 1;
    }
    fn reserved(&self) -> Option<u64> {
        Some(self.space.lock().unwrap().reserved)
    }
}

fn thin(rig: &Rig, pages: u64, pages_max: u64, faults: FaultRates) -> (LabFile, Arc<Thin>) {
    let device = RamDevice::new(
        &rig.disk,
        RamOptions {
            len: pages * PAGE,
            faults,
            ..RamOptions::default()
        },
    );
    let space = Space {
        pages_max,
        ..Space::default()
    };
    let backing = Arc::new(Thin {
        device,
        space: Arc::new(Mutex::new(space)),
    });
    let id = FileId { dev: 1, ino: 1 };
    let file = rig
        .engine
        .open(id, backing.clone(), FileOptions { write: true })
        .expect("open");
    (file, backing)
}

fn nothing(_: &mut Config) {}

#[test]
fn a_full_backing_is_the_writer_s_error_and_nothing_has_changed() {
    lab(1, 512, nothing, |rig| {
        let (file, backing) = thin(&rig, 64, 8, FaultRates::default());
        for n in 0..8 {
            file.write_at(&[1; 4096], n * PAGE).unwrap();
        }
        // Dirty pages have their space.
        file.write_at(&[2; 4096], 0).unwrap();
        drop(file.page_mut(PageNo(1)).unwrap());
        let full = |result| {
            let (kind, at) = io(result, "reserve space for a write");
            assert_eq!((kind, at), (IoErrorKind::NoSpace, 9 * PAGE));
        };
        full(file.write_at(&[3; 4096], 9 * PAGE));
        full(file.write_at(b"part", 9 * PAGE + 5));
        full(file.page_mut(PageNo(9)).map(drop));
        let message = file.write_at(&[3; 4096], 9 * PAGE).unwrap_err().to_string();
        assert!(
            message.contains("discard or shorten") && message.contains("write again"),
            "{message}"
        );
        let mut buf = [7; 4096];
        file.read_at(&mut buf, 9 * PAGE).unwrap();
        assert_eq!(buf, [0; 4096], "nothing has changed");
        assert_eq!(rig.stat("nr_dirty"), 8);
        assert_eq!(backing.reserved(), Some(8));
        // A growing write that does not fit does not grow the file.
        assert_eq!(
            io(
                file.write_at(&[3; 4096], 64 * PAGE),
                "reserve space for a write"
            )
            .0,
            IoErrorKind::NoSpace
        );
        assert_eq!(file.len(), 64 * PAGE);
        file.sync_data().unwrap();
        assert_eq!((rig.stat("write_errors"), backing.reserved()), (0, Some(0)));
        // Room again, by a hole and by a shorter file.
        file.discard(2 * PAGE..4 * PAGE).unwrap();
        file.read_at(&mut buf, 2 * PAGE).unwrap();
        assert_eq!(buf, [0; 4096], "a hole reads as zeroes");
        file.write_at(&[3; 4096], 9 * PAGE).unwrap();
        file.write_at(&[3; 4096], 10 * PAGE).unwrap();
        full(file.write_at(&[3; 4096], 9 * PAGE).and_then(|()| {
            file.write_at(&[3; 4096], 11 * PAGE).map_err(|_| {
                highwater_engine::Error::io(
                    "reserve space for a write",
                    IoError::new(IoErrorKind::NoSpace, 9 * PAGE),
                )
            })
        }));
        file.set_len(9 * PAGE).unwrap();
        assert_eq!(
            backing.reserved(),
            Some(0),
            "truncated pages gave theirs back"
        );
        file.write_at(&[4; 8192], 9 * PAGE).unwrap();
        file.sync_data().unwrap();
        rig.at_rest();
        rig.engine.close().unwrap();
    });
}

#[test]
fn a_hole_drops_dirty_whole_pages_and_leaves_the_parts() {
    lab(2, 512, nothing, |rig| {
        let (file, backing) = thin(&rig, 10, 64, FaultRates::default());
        for n in 0..10 {
            file.write_at(&[1; 4096], n * PAGE).unwrap();
        }
        file.discard(PAGE + 1..4 * PAGE + 17).unwrap();
        assert_eq!(backing.reserved(), Some(8));
        let mut buf = [0; 4096];
        for (n, want) in [(0, 1), (1, 1), (2, 0), (3, 0), (4, 1), (5, 1)] {
            file.read_at(&mut buf, n * PAGE).unwrap();
            assert_eq!(buf, [want; 4096], "page {n}");
        }
        // The last page of the file counts as whole, however it ends.
        file.set_len(9 * PAGE + 100).unwrap();
        file.discard(8 * PAGE..u64::MAX).unwrap();
        file.discard(u64::MAX - 1..u64::MAX).unwrap();
        assert_eq!(file.len(), 9 * PAGE + 100);
        let n = file.read_at(&mut buf, 9 * PAGE).unwrap();
        assert_eq!(buf[..n], [0; 100]);
        rig.at_rest();
        rig.engine.close().unwrap();
    });
}

/// Writers, guards, growth, truncation, holes and syncs over failing writes and flushes: at rest, the backing has set aside
/// what the dirty pages need, and no more.
#[test]
fn reserve_1_balances_whatever_fails() {
    let (mut failed, mut refused, mut copies) = (0, 0, 0);
    for seed in 0..48 {
        let counts = Arc::new(Mutex::new((0, 0, 0)));
        let out = counts.clone();
        lab(seed, 256, nothing, move |rig| {
            let faults = FaultRates {
                write_error_ppm: 60_000,
                flush_error_ppm: 100_000,
                flush_loss_ppm: 500_000,
                ..FaultRates::default()
            };
            let (file, backing) = thin(&rig, 96, 64, faults);
            let jobs: Vec<_> = (0..3)
                .map(|task| {
                    let (rig, file) = (rig.clone(), file.clone());
                    rig.clone()
                        .spawn("writer", move || work(&rig, &file, seed * 8 + task))
                })
                .collect();
            let refused: u64 = jobs.into_iter().map(|j| rig.join(j, ms(120_000))).sum();
            let failures = backing.device.failures();
            backing.device.heal();
            // The first ones may still tell of errors; what a flush lost may be lost for good.
            let _ = file.sync_data();
            let _ = file.sync_data();
            rig.at_rest();
            assert_eq!(rig.stat("nr_dirty"), 0);
            assert_eq!(backing.reserved(), Some(0), "seed {seed}");
            *out.lock().unwrap() = (failures, refused, rig.stat("writeback_copies"));
        });
        let (f, r, c) = *counts.lock().unwrap();
        (failed, refused, copies) = (failed + f, refused + r, copies + c);
    }
    assert!(
        failed > 100 && refused > 20 && copies > 10,
        "nothing was put to the test: {failed} failures, {refused} refusals, {copies} copies"
    );
}

/// Random calls; how many writes were refused for want of space.
fn work(rig: &Rig, file: &LabFile, seed: u64) -> u64 {
    let mut rng = Rng::new(seed, 3);
    let mut refused = 0;
    let bytes = [seed as u8; 2 * 4096];
    for _ in 0..300 {
        let page = rng.below(100);
        let result = match rng.below(20) {
            0 => file.set_len(rng.below(110) * PAGE + rng.below(2) * 77),
            1 => file.discard(page * PAGE..(page + rng.below(20)) * PAGE),
            2 | 3 => file.sync_data(),
            4 => file.evict(0..u64::MAX).map(drop),
            5..=9 => file.page_mut(PageNo(page)).map(|mut p| p[0] = 9),
            10..=12 => file.write_at(&bytes[..100], page * PAGE + 50),
            _ => file.write_at(&bytes[..rng.below(8192) as usize + 1], page * PAGE),
        };
        if let Err(highwater_engine::Error::Io { op, .. }) = &result {
            refused += u64::from(*op == "reserve space for a write");
        }
        if rng.chance(100_000) {
            rig.nap(ms(rng.below(20)));
        }
    }
    let _ = rig.world.now();
    refused
}
