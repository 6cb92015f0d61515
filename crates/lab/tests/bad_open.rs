//! Opens, closes and the end of a cache beside calls that are under way: no length is of yesterday, nothing that was taken is
//! lost, every error finds somebody to be told, and what was let go is gone.

mod common;

use common::{PAGE, lab, ms};
use highwater_engine::backing::PlainBacking;
use highwater_engine::io::{IoBuf, Lane, Request};
use highwater_engine::world::{Device, Queue};
use highwater_engine::{Config, FileId, FileOptions, IoError};
use highwater_lab::RamDevice;
use std::sync::Arc;

fn nothing(_: &mut Config) {}

/// A device whose length takes a while to be told: as of a file system on a network.
struct SlowToTell {
    inner: Arc<RamDevice>,
    told: Box<dyn Fn() + Send + Sync>,
}

impl Device for SlowToTell {
    fn queue(&self) -> Arc<dyn Queue> {
        self.inner.queue()
    }
    fn submit(&self, lane: Lane, batch: &mut Vec<Request>) {
        self.inner.submit(lane, batch);
    }
    fn read_now(&self, offset: u64, bufs: &[IoBuf]) -> Result<(), IoError> {
        self.inner.read_now(offset, bufs)
    }
    fn write_now(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        self.inner.write_now(offset, buf)
    }
    fn flush(&self) -> Result<(), IoError> {
        self.inner.flush()
    }
    fn len(&self) -> Result<u64, IoError> {
        let len = self.inner.len();
        (self.told)();
        len
    }
    fn truncate(&self, len: u64) -> Result<(), IoError> {
        self.inner.truncate(len)
    }
    fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), IoError> {
        self.inner.write_zeroes(offset, len)
    }
}

/// The length was asked for while somebody else had unwritten pages beyond it, and used after they had been written and the
/// file let go: the new user did not see them, and a write of a part of one zeroed the rest.
#[test]
fn an_open_beside_the_end_of_another_one_sees_what_that_one_wrote() {
    lab(1, 1024, nothing, |rig| {
        let device = rig.device(PAGE);
        let first = rig.open(1, &device);
        first.write_at(&[7; 4 * 4096], 0).expect("a write");
        let r = rig.clone();
        let slow = SlowToTell {
            inner: device.clone(),
            told: Box::new(move || r.nap(ms(2_000))),
        };
        let r = rig.clone();
        let opening = rig.spawn("opens", move || {
            let backing = Arc::new(PlainBacking::new(Arc::new(slow)));
            let id = FileId { dev: 1, ino: 1 };
            (r.engine)
                .open(id, backing, FileOptions { write: true })
                .expect("open")
        });
        rig.nap(ms(100));
        drop(first);
        let second = rig.join(opening, ms(10_000));
        assert_eq!(second.len(), 4 * PAGE);
        second.write_at(&[8; 10], 3 * PAGE).expect("a write");
        second.sync_data().expect("a sync");
        assert!(device.visible()[3 * 4096 + 10..4 * 4096] == [7; 4086]);
        drop(second);
        rig.at_rest();
        rig.engine.close().expect("close");
    });
}
