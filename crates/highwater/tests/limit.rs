//! The rate limiter keeps both of its limits within 10 %.

mod common;

use common::{Inbox, Memory, disk_dir, open};
use highwater::engine::World;
use highwater::engine::io::{IoOp, Lane};
use highwater::engine::world::Device;
use highwater::{DirectIo, IoEngine, OsWorld, RateLimited};
use std::sync::Arc;
use std::time::Duration;

const BYTES_PER_S: u64 = 50_000_000;
const IOPS: u64 = 5_000;

/// Seconds for `n` writes of `size` bytes.
fn writes(world: &Arc<OsWorld>, device: &dyn Device, size: usize, n: u64) -> f64 {
    let inbox = Arc::new(Inbox::default());
    let mut memory = Memory::new(size);
    let start = world.now();
    let mut batch: Vec<_> = (0..n)
        .map(|i| {
            inbox.request(
                IoOp::Write,
                i % 8 * size as u64,
                vec![memory.buf(0, size)],
                i,
            )
        })
        .collect();
    device.submit(Lane::Flusher, &mut batch);
    let done = inbox.wait(world, device, Lane::Flusher, n as usize);
    assert!(done.values().all(Result::is_ok));
    world.now().since(start).as_secs_f64()
}

#[test]
fn both_limits_within_ten_percent() {
    let world = OsWorld::new(IoEngine::Auto).unwrap();
    let dir = disk_dir();
    let file = open(&world, &dir.path().join("slow"), true, DirectIo::Auto);
    file.write_now(0, &vec![0; 8 << 20]).unwrap();
    let limiter = world.limited(&file, BYTES_PER_S, IOPS);
    let device = RateLimited::new(file, limiter);
    // Never above; below only when the machine is too busy to run the limiter, so the best of five counts.
    let near = |what: &str, size: usize, n: u64, per_request: f64, limit: f64| {
        let mut best = 0f64;
        for _ in 0..5 {
            let rate = n as f64 * per_request / writes(&world, &device, size, n);
            println!("{what}: {rate:.0}, limit {limit:.0}");
            assert!(rate <= limit * 1.1, "{what}: {rate:.0}, limit {limit:.0}");
            best = best.max(rate);
            if best >= limit * 0.9 {
                return;
            }
        }
        panic!("{what}: at best {best:.0}, limit {limit:.0}");
    };
    let size = 512 << 10;
    near("bytes a second", size, 50, size as f64, BYTES_PER_S as f64);
    near("writes a second", 4096, 2_500, 1.0, IOPS as f64);
    // On the calling thread, one after another.
    let mut memory = Memory::new(4096);
    let buf = memory.buf(0, 4096);
    let start = world.now();
    for i in 0..1_000 {
        device.read_now(i % 2048 * 4096, &[buf]).unwrap();
    }
    let rate = 1_000.0 / world.now().since(start).as_secs_f64();
    println!("reads a second, one at a time: {rate:.0}");
    assert!(rate < IOPS as f64 * 1.1);
    assert!(
        rate > IOPS as f64 * 0.2,
        "a lost turn costs a second: {rate:.0}/s"
    );
}

/// A reader's turn comes soon although many writes wait.
#[test]
fn a_reader_does_not_wait_behind_all_writes() {
    let world = OsWorld::new(IoEngine::Auto).unwrap();
    let dir = disk_dir();
    let file = open(&world, &dir.path().join("slow"), true, DirectIo::Auto);
    let limiter = world.limited(&file, 0, 1_000);
    let device = RateLimited::new(file, limiter);
    let inbox = Arc::new(Inbox::default());
    let mut memory = Memory::new(8192);
    let mut batch: Vec<_> = (0..500)
        .map(|i| inbox.request(IoOp::Write, i * 4096, vec![memory.buf(0, 4096)], i))
        .collect();
    device.submit(Lane::Flusher, &mut batch);
    let start = world.now();
    device.read_now(0, &[memory.buf(4096, 4096)]).unwrap();
    let waited = world.now().since(start).as_secs_f64();
    assert!(waited < 0.1, "{waited} s behind 0.5 s of writes");
    inbox.wait(&world, &device, Lane::Flusher, 500);
}

/// A request whose turn comes in minutes does not keep the world from ending: then nothing is limited any more.
#[test]
fn a_very_slow_limit_keeps_nobody_from_ending() {
    let dir = disk_dir();
    let world = OsWorld::new(highwater::IoEngine::Auto).unwrap();
    let file = open(&world, &dir.path().join("slow"), true, DirectIo::Auto);
    let limiter = world.limited(&file, 40, 0);
    let device = RateLimited::new(file, limiter);
    let inbox = Arc::new(Inbox::default());
    let mut memory = Memory::new(8192);
    let batch = [0, 4096].map(|at| {
        let bufs = vec![memory.buf(at, 4096)];
        inbox.request(IoOp::Write, at as u64, bufs, at as u64)
    });
    device.submit(Lane::Flusher, &mut batch.into_iter().collect());
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(inbox.count(), 0, "limited");
    let (done, ended) = std::sync::mpsc::channel();
    let ending = world.clone();
    std::thread::spawn(move || done.send(ending.shutdown()));
    let idle = ended.recv_timeout(Duration::from_secs(30));
    assert_eq!(idle, Ok(true), "still waiting for the turn");
    let results = inbox.wait(&world, &device, Lane::Shared, 2);
    assert!(results.values().all(|r| r.is_ok()), "{results:?}");
}

#[test]
fn the_whole_suite_without_io_uring() {
    common::rerun_without_io_uring();
}
