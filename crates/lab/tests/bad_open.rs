//! Opens, closes and the end of a cache beside calls that are under way: no length is of yesterday, nothing that was taken is
//! lost, every error finds somebody to be told, and what was let go is gone.

mod common;

use common::{PAGE, io, lab, ms};
use highwater_engine::backing::PlainBacking;
use highwater_engine::io::{IoBuf, Lane, Request};
use highwater_engine::world::{Device, Queue};
use highwater_engine::{Config, Error, FileId, FileOptions, IoError, IoErrorKind, Nanos};
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

/// What a write that returned Ok had to say is on the device once `close` has returned Ok, however the two met. Each write
/// reads its page first, so that there is time.
#[test]
fn a_write_beside_close_is_written_or_refused() {
    let written: Vec<u64> = (0..60).map(write_beside_close).collect();
    assert!(
        written.contains(&0) && written.iter().any(|n| *n > 0),
        "{written:?}"
    );
}

/// How many writes were taken.
fn write_beside_close(seed: u64) -> u64 {
    let (tell, told) = std::sync::mpsc::channel();
    lab(seed, 1024, nothing, move |rig| {
        let (file, device) = rig.file(1, 64);
        let writer = rig.spawn("writes", move || {
            for n in 0..64 {
                if let Err(error) = file.write_at(&[7; 10], n * PAGE) {
                    assert_eq!(error, Error::Closed);
                    return (n, file);
                }
            }
            (64, file)
        });
        rig.nap(Nanos::from_micros(5 * seed));
        rig.engine.close().expect("close");
        let (taken, file) = rig.join(writer, ms(1_000));
        let there = device.visible();
        for n in 0..taken {
            let at = (n * PAGE) as usize;
            assert!(there[at..at + 10] == [7; 10], "{seed}: page {n} of {taken}");
        }
        drop(file);
        tell.send(taken).expect("heard");
    });
    told.recv().expect("told")
}

/// An error that nobody has seen is told once. `close` returns one error, and took those of all files for told.
#[test]
fn close_tells_the_errors_of_two_files_one_after_the_other() {
    lab(3, 1024, nothing, |rig| {
        let devices = [rig.device(16 * PAGE), rig.device(16 * PAGE)];
        for (n, device) in devices.iter().enumerate() {
            let file = rig.open(1 + n as u64, device);
            file.write_at(&[7; 4096], n as u64 * PAGE).expect("a write");
            device.fail_writes(0..u64::MAX, IoErrorKind::Io, Nanos(u64::MAX));
        }
        // Closed; the background has tried in vain, and then with success.
        rig.nap(ms(100));
        devices.iter().for_each(|device| device.heal());
        rig.nap(ms(3_000));
        for n in 0..2 {
            let told = io(rig.engine.close(), "write");
            assert_eq!(told, (IoErrorKind::Io, n * PAGE));
        }
        rig.engine.close().expect("both have been told");
        for (n, device) in devices.iter().enumerate() {
            assert!(device.visible()[n * 4096..][..4096] == [7; 4096]);
        }
    });
}

/// A write that fails keeps nobody else's pages from the disk: a sync, and `close`, write what can be written. They gave up
/// after the first batch with an error, and a cache that was then dropped took the rest along.
#[test]
fn a_sync_writes_every_page_that_can_be_written() {
    const PAGES: u64 = 12_000;
    let no_flusher = |config: &mut Config| {
        config.policy.background_percent = 60;
        config.policy.limit_percent = 70;
    };
    lab(4, 12_000, no_flusher, |rig| {
        let (file, device) = rig.file(1, PAGES);
        device.fail_writes(0..16 * PAGE, IoErrorKind::Io, Nanos(u64::MAX));
        // Each is a request of its own.
        for n in 0..PAGES / 2 {
            file.write_at(&[0xA5; 4096], 2 * n * PAGE).expect("a write");
        }
        io(rig.engine.close(), "write");
        let there = device.visible();
        let missing = (16..PAGES as usize).step_by(2);
        let missing = missing.filter(|n| there[n * 4096] != 0xA5);
        assert_eq!(missing.count(), 0);
        device.heal();
        rig.nap(ms(3_000));
        rig.works(&file, &device);
        drop(file);
        rig.engine.close().expect("close");
    });
}
