//! The device layer by itself: both engines, both lanes, against a shadow; tails, errors, descriptors, shutdown.

mod common;

use common::{Inbox, Memory, disk_dir, engines, open};
use highwater::engine::io::{IoOp, Lane};
use highwater::engine::world::{Device, Nanos};
use highwater::engine::{IoErrorKind, World};
use highwater::{DirectIo, OsWorld};
use std::sync::Arc;

const LANES: [Lane; 2] = [Lane::Flusher, Lane::Shared];
struct Rng(u64);
impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }
}

#[test]
fn random_reads_and_writes_match_a_shadow() {
    const LEN: usize = 4 << 20;
    for engine in engines() {
        for lane in LANES {
            for mode in [DirectIo::Auto, DirectIo::Never] {
                let seed = 77;
                println!("engine {engine:?} lane {lane:?} mode {mode:?} seed {seed}");
                let mut rng = Rng(seed);
                let dir = disk_dir();
                let world = OsWorld::new(engine).unwrap();
                let device = open(&world, &dir.path().join("f"), true, mode);
                assert_eq!(device.io_engine(), engine);
                let mut shadow = vec![0u8; LEN];
                let inbox = Arc::new(Inbox::default());
                for _ in 0..12 {
                    // Disjoint 64 KiB slots, so that requests of one batch do not overlap.
                    let mut memory = Memory::new(LEN);
                    let mut batch = Vec::new();
                    for slot in 0..LEN / 65536 {
                        let pieces = 1 + rng.below(6) as usize;
                        let at = slot * 65536 + 4096 * rng.below(4) as usize;
                        // One in four ends in the middle of a block, one in eight starts there.
                        let skew = if rng.below(8) == 0 {
                            rng.below(4096) as usize
                        } else {
                            0
                        };
                        let cut = if rng.below(4) == 0 {
                            rng.below(4000) as usize
                        } else {
                            0
                        };
                        let fill = rng.below(256) as u8;
                        let mut bufs = Vec::new();
                        for p in 0..pieces {
                            let len = if p + 1 == pieces { 4096 - cut } else { 4096 };
                            // Every second piece leaves a gap in memory.
                            let m = slot * 65536 + p * 4096 + if p > 2 { 8192 } else { 0 };
                            memory.bytes()[m..m + len].fill(fill.wrapping_add(p as u8));
                            bufs.push(memory.buf(m, len));
                            let f = at + skew + p * 4096;
                            shadow[f..f + len].fill(fill.wrapping_add(p as u8));
                        }
                        batch.push(inbox.request(
                            IoOp::Write,
                            (at + skew) as u64,
                            bufs,
                            slot as u64,
                        ));
                    }
                    let n = batch.len();
                    device.submit(lane, &mut batch);
                    assert!(batch.is_empty());
                    let done = inbox.wait(&world, &device, lane, n);
                    assert!(done.values().all(Result::is_ok), "{done:?}");
                }
                check(&world, &device, lane, &shadow, &inbox);
                device.flush().unwrap();
                let on_disk = std::fs::read(dir.path().join("f")).unwrap();
                assert!(on_disk[..] == shadow[..on_disk.len()]);
                assert!(shadow[on_disk.len()..].iter().all(|b| *b == 0));
            }
        }
    }
}

fn check(world: &OsWorld, device: &dyn Device, lane: Lane, shadow: &[u8], inbox: &Arc<Inbox>) {
    let mut memory = Memory::new(shadow.len());
    memory.bytes().fill(0xEE);
    let mut batch: Vec<_> = (0..shadow.len() / 8192)
        .map(|i| {
            let bufs = vec![
                memory.buf(i * 8192, 4096),
                memory.buf(i * 8192 + 4096, 4096),
            ];
            inbox.request(IoOp::Read, i as u64 * 8192, bufs, i as u64)
        })
        .collect();
    let n = batch.len();
    device.submit(lane, &mut batch);
    let done = inbox.wait(world, device, lane, n);
    assert!(done.values().all(Result::is_ok), "{done:?}");
    assert!(memory.bytes() == shadow, "read back through the lane");
    memory.bytes().fill(0xEE);
    let whole = memory.buf(0, shadow.len());
    device.read_now(0, &[whole]).unwrap();
    assert!(memory.bytes() == shadow, "read back by read_now");
}

#[test]
fn the_tail_of_a_file_is_exact() {
    for engine in engines() {
        for len in [1usize, 511, 512, 513, 4095, 4097, 10_000] {
            let dir = disk_dir();
            let path = dir.path().join("tail");
            let world = OsWorld::new(engine).unwrap();
            let device = open(&world, &path, true, DirectIo::Auto);
            let inbox = Arc::new(Inbox::default());
            let mut memory = Memory::new(16384);
            for (i, b) in memory.bytes().iter_mut().enumerate() {
                *b = (i % 251) as u8 + 1;
            }
            let bufs = vec![memory.buf(0, len)];
            device.submit(
                Lane::Shared,
                &mut vec![inbox.request(IoOp::Write, 0, bufs, 1)],
            );
            inbox.wait(&world, &device, Lane::Shared, 1)[&1].unwrap();
            assert_eq!(device.len().unwrap(), len as u64, "nothing padded on disk");
            let expected = memory.bytes()[..len].to_vec();
            for lane in LANES {
                memory.bytes().fill(9);
                let bufs = vec![memory.buf(0, 4096), memory.buf(4096, 12288)];
                device.submit(lane, &mut vec![inbox.request(IoOp::Read, 0, bufs, 2)]);
                inbox.wait(&world, &device, lane, 1)[&2].unwrap();
                assert!(memory.bytes()[..len] == expected[..]);
                assert!(
                    memory.bytes()[len..].iter().all(|b| *b == 0),
                    "zeroes beyond the end"
                );
            }
            assert!(std::fs::read(&path).unwrap() == expected);
            // Grow it past the old tail with whole blocks.
            memory.bytes().fill(3);
            device
                .write_now(len as u64, &memory.bytes()[..5000])
                .unwrap();
            let grown = std::fs::read(&path).unwrap();
            assert!(grown[..len] == expected[..] && grown[len..] == [3; 5000]);
        }
    }
}

#[test]
fn errors_have_their_kind_and_place() {
    for engine in engines() {
        let dir = disk_dir();
        let path = dir.path().join("ro");
        std::fs::write(&path, vec![5; 8192]).unwrap();
        let world = OsWorld::new(engine).unwrap();
        let device = open(&world, &path, false, DirectIo::Auto);
        let inbox = Arc::new(Inbox::default());
        let mut memory = Memory::new(8192);
        for lane in LANES {
            let bufs = vec![memory.buf(0, 4096)];
            device.submit(lane, &mut vec![inbox.request(IoOp::Write, 4096, bufs, 1)]);
            let error = inbox.wait(&world, &device, lane, 1)[&1].unwrap_err();
            assert_eq!((error.kind, error.offset), (IoErrorKind::ReadOnly, 4096));
            device.submit(lane, &mut vec![inbox.request(IoOp::Write, 0, vec![], 2)]);
            inbox.wait(&world, &device, lane, 1)[&2].unwrap();
        }
        assert_eq!(
            device.write_now(100, &[1]).unwrap_err().kind,
            IoErrorKind::ReadOnly
        );
        assert!(device.truncate(3).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), vec![5; 8192]);
        // Beyond what the file system can address.
        let device = open(&world, &dir.path().join("huge"), true, DirectIo::Auto);
        let bufs = vec![memory.buf(0, 4096)];
        device.submit(
            Lane::Flusher,
            &mut vec![inbox.request(IoOp::Write, 1 << 62, bufs, 3)],
        );
        let error = inbox.wait(&world, &device, Lane::Flusher, 1)[&3].unwrap_err();
        assert_eq!(error.kind, IoErrorKind::NoSpace);
    }
}

#[test]
fn holes_are_found_and_made() {
    let dir = disk_dir();
    let world = OsWorld::new(highwater::IoEngine::Auto).unwrap();
    let device = open(&world, &dir.path().join("sparse"), true, DirectIo::Auto);
    device.truncate(1 << 20).unwrap();
    assert_eq!(device.extents(0, 1 << 20).unwrap(), []);
    device.write_now(65536, &[1; 65536]).unwrap();
    device.flush().unwrap();
    assert_eq!(device.extents(0, 1 << 20).unwrap(), [(65536, 65536)]);
    assert_eq!(device.extents(100_000, 1000).unwrap(), [(100_000, 1000)]);
    device.write_zeroes(65536 + 100, 200).unwrap();
    let bytes = std::fs::read(dir.path().join("sparse")).unwrap();
    assert!(bytes[65536..65636].iter().all(|b| *b == 1));
    assert!(bytes[65636..65836].iter().all(|b| *b == 0));
    assert!(bytes[65836..131072].iter().all(|b| *b == 1));
    device.discard(65536, 65536).unwrap();
    assert_eq!(device.extents(0, 1 << 20).unwrap(), []);
    assert_eq!(device.len().unwrap(), 1 << 20);
}

/// What is zeroed takes no space any more, and what was a hole takes none either.
#[test]
fn zeroes_take_no_space() {
    use std::os::unix::fs::MetadataExt;
    let dir = disk_dir();
    let path = dir.path().join("thin");
    let world = OsWorld::new(highwater::IoEngine::Auto).unwrap();
    let device = open(&world, &path, true, DirectIo::Auto);
    let bytes = || std::fs::metadata(&path).unwrap().blocks() * 512;
    device.write_now(0, &[1; 1 << 20]).unwrap();
    device.truncate(1 << 30).unwrap();
    device.flush_all().unwrap();
    let before = bytes();
    assert!(before >= 1 << 20);
    device.write_zeroes(1 << 29, 1 << 29).unwrap();
    assert_eq!(bytes(), before, "a hole of half a gibibyte");
    device.write_zeroes(0, 1 << 20).unwrap();
    device.flush_all().unwrap();
    assert!(bytes() < 1 << 16, "{} bytes are kept", bytes());
    let mut page = Memory::new(4096);
    let buf = page.buf(0, 4096);
    device.read_now(8192, &[buf]).unwrap();
    assert_eq!(page.bytes(), [0; 4096]);
}

#[test]
fn tmpfs_is_buffered_and_says_so() {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("SKIPPED: no /dev/shm");
        return;
    };
    for engine in engines() {
        let world = OsWorld::new(engine).unwrap();
        let device = open(&world, &dir.path().join("f"), true, DirectIo::Auto);
        assert!(!device.direct());
        let inbox = Arc::new(Inbox::default());
        let mut shadow = vec![0u8; 1 << 20];
        let mut memory = Memory::new(1 << 20);
        for (i, byte) in shadow.iter_mut().enumerate() {
            *byte = (i / 100) as u8;
        }
        memory.bytes().copy_from_slice(&shadow);
        let bufs = vec![memory.buf(0, 1 << 20)];
        device.submit(
            Lane::Flusher,
            &mut vec![inbox.request(IoOp::Write, 0, bufs, 1)],
        );
        inbox.wait(&world, &device, Lane::Flusher, 1)[&1].unwrap();
        check(&world, &device, Lane::Flusher, &shadow, &inbox);
    }
}

/// An unpark ends a reap that waits for a slow completion, and one that came before it.
#[test]
fn reap_returns_when_unparked() {
    for engine in engines() {
        let world = OsWorld::new(engine).unwrap();
        let dir = disk_dir();
        let device = open(&world, &dir.path().join("f"), true, DirectIo::Auto);
        let queue = device.queue();
        let me = world.task().id();
        for _ in 0..50 {
            // Remembered.
            world.unpark(me);
            let t = world.now();
            queue.reap(Lane::Flusher, t.plus(Nanos::from_secs(10)));
            // In the middle.
            let other = world.clone();
            let waker = std::thread::spawn(move || {
                std::thread::sleep(std::time::Duration::from_micros(300));
                other.unpark(me);
            });
            queue.reap(Lane::Flusher, world.now().plus(Nanos::from_secs(10)));
            waker.join().unwrap();
            assert!(world.now().since(t) < Nanos::from_secs(5), "{engine:?}");
        }
        let t = world.now();
        queue.reap(Lane::Flusher, t);
        queue.reap(Lane::Flusher, t.plus(Nanos::from_millis(3)));
        assert!(world.now().since(t) < Nanos::from_secs(1));
    }
}

/// A stream of unparks against a stream of completions: nothing is lost, nothing spins for ever.
#[test]
fn unparks_and_completions_at_the_same_time() {
    if engines().len() < 2 {
        return;
    }
    let world = OsWorld::new(highwater::IoEngine::Uring).unwrap();
    let dir = disk_dir();
    let device = open(&world, &dir.path().join("f"), true, DirectIo::Auto);
    let inbox = Arc::new(Inbox::default());
    let me = world.task().id();
    let mut memory = Memory::new(4 << 20);
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (other, flag) = (world.clone(), stop.clone());
    let noise = std::thread::spawn(move || {
        while !flag.load(std::sync::atomic::Ordering::Relaxed) {
            other.unpark(me);
            other.relax();
        }
    });
    let mut rng = Rng(5);
    for round in 0..300 {
        let mut batch: Vec<_> = (0..rng.below(12) + 1)
            .map(|i| {
                let bufs = vec![memory.buf(i as usize * 4096, 4096)];
                inbox.request(IoOp::Write, rng.below(1024) * 4096, bufs, i)
            })
            .collect();
        let n = batch.len();
        device.submit(Lane::Flusher, &mut batch);
        let done = inbox.wait(&world, &device, Lane::Flusher, n);
        assert!(done.values().all(Result::is_ok), "round {round}");
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    noise.join().unwrap();
}

/// Threads that submit to the shared lane and end at once: their requests complete all the same.
#[test]
fn requests_outlive_the_thread_that_submitted_them() {
    for engine in engines() {
        let world = OsWorld::new(engine).unwrap();
        let dir = disk_dir();
        let device = Arc::new(open(&world, &dir.path().join("f"), true, DirectIo::Auto));
        let inbox = Arc::new(Inbox::default());
        let mut memory = Memory::new(1 << 20);
        memory.bytes().fill(1);
        let mut n = 0;
        for lane in LANES {
            for i in 0..100u64 {
                let bufs = vec![memory.buf(i as usize * 4096, 4096)];
                let request = inbox.request(IoOp::Write, i * 4096, bufs, n as u64);
                let device = device.clone();
                std::thread::spawn(move || device.submit(lane, &mut vec![request]))
                    .join()
                    .unwrap();
                n += 1;
            }
        }
        // A lane left behind by a thread that is gone is drained at the end.
        assert!(world.shutdown());
        let done = inbox.wait(&world, &*device, Lane::Shared, n);
        assert!(done.values().all(Result::is_ok), "{engine:?} {done:?}");
    }
}

#[test]
fn more_requests_than_the_ring_holds() {
    for engine in engines() {
        for lane in LANES {
            let world = OsWorld::new(engine).unwrap();
            let dir = disk_dir();
            let device = open(&world, &dir.path().join("f"), true, DirectIo::Auto);
            let inbox = Arc::new(Inbox::default());
            let mut memory = Memory::new(4096);
            let n = 2_000;
            let mut batch: Vec<_> = (0..n)
                .map(|i| {
                    let bufs = vec![memory.buf(0, 4096)];
                    inbox.request(IoOp::Write, (i % 64) * 4096, bufs, i)
                })
                .collect();
            device.submit(lane, &mut batch);
            let done = inbox.wait(&world, &device, lane, n as usize);
            assert!(done.values().all(Result::is_ok));
        }
    }
}

/// Nothing hangs that comes late: the submitter does the work itself.
#[test]
fn requests_after_the_shutdown_complete() {
    for engine in engines() {
        let world = OsWorld::new(engine).unwrap();
        let dir = disk_dir();
        let limited = open(&world, &dir.path().join("slow"), true, DirectIo::Auto);
        let limiter = world.limited(&limited, 1 << 20, 0);
        let devices: [Arc<dyn Device>; 2] = [
            Arc::new(open(&world, &dir.path().join("f"), true, DirectIo::Auto)),
            Arc::new(highwater::RateLimited::new(limited, limiter)),
        ];
        assert!(world.shutdown());
        for device in devices {
            for lane in LANES {
                let inbox = Arc::new(Inbox::default());
                let mut memory = Memory::new(4096);
                let mut batch: Vec<_> = (0..10)
                    .map(|i| inbox.request(IoOp::Write, i * 4096, vec![memory.buf(0, 4096)], i))
                    .collect();
                device.submit(lane, &mut batch);
                inbox.wait(&world, &*device, lane, 10);
                device.read_now(0, &[memory.buf(0, 4096)]).unwrap();
            }
        }
    }
}

#[test]
fn the_whole_suite_without_io_uring() {
    common::rerun_without_io_uring();
}
