use super::*;
use crate::{LabOptions, LabWorld, Rng};
use highwater_engine::io::{IoBuf, IoOp, IoSink, Lane, Request};
use highwater_engine::world::{Device, Queue, TaskId};
use highwater_engine::{IoError, IoErrorKind, Nanos, World};
use std::sync::Arc;
use std::sync::Mutex;

/// What ended: (cookie, result, task, time).
pub(super) type Ends = Vec<(u64, Result<(), IoError>, TaskId, Nanos)>;

/// Keeps what ended, and when.
pub(super) struct Sink {
    world: Arc<LabWorld>,
    ends: Mutex<Ends>,
}

impl Sink {
    pub(super) fn new(world: &Arc<LabWorld>) -> Arc<Sink> {
        Arc::new(Sink {
            world: world.clone(),
            ends: Mutex::default(),
        })
    }

    /// So far, in order.
    pub(super) fn ends(&self) -> Ends {
        self.ends.lock().unwrap().clone()
    }
}

impl IoSink for Sink {
    fn io_done(&self, request: &mut Request, result: Result<(), IoError>) {
        let w = &self.world;
        let end = (request.cookie, result, w.task().id(), w.now());
        self.ends.lock().unwrap().push(end);
    }
}

struct Lab {
    world: Arc<LabWorld>,
    queue: Arc<LabQueue>,
    device: Arc<RamDevice>,
    sink: Arc<Sink>,
}

fn lab(seed: u64) -> Lab {
    let world = LabWorld::new(LabOptions::calm(seed));
    let queue = LabQueue::new(&world, QueueOptions::default());
    let options = RamOptions {
        crashes: true,
        ..RamOptions::default()
    };
    Lab {
        device: RamDevice::new(&queue, options),
        sink: Sink::new(&world),
        world,
        queue,
    }
}

impl Lab {
    fn submit(&self, lane: Lane, op: IoOp, cookie: u64, offset: u64, bytes: &mut [u8]) {
        let mut request = Request::new(op, offset, self.sink.clone());
        request.cookie = cookie;
        request.bufs.push(IoBuf {
            ptr: bytes.as_mut_ptr(),
            len: bytes.len(),
        });
        self.device.submit(lane, &mut vec![request]);
    }

    fn ends(&self) -> Ends {
        self.sink.ends()
    }

    fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, IoError> {
        let mut bytes = vec![1; len];
        let ptr = bytes.as_mut_ptr();
        self.device.read_now(offset, &[IoBuf { ptr, len }])?;
        Ok(bytes)
    }
}

fn ms(n: u64) -> Nanos {
    Nanos::from_millis(n)
}

#[test]
fn shared_requests_end_in_completion_context_in_time() {
    let l = lab(1);
    let mut page = vec![7; 4096];
    l.submit(Lane::Shared, IoOp::Write, 1, 4096, &mut page);
    assert_eq!(l.queue.in_flight(), 1);
    l.world.park(ms(1));
    let ends = l.ends();
    assert_eq!((ends.len(), ends[0].0, ends[0].1), (1, 1, Ok(())));
    assert_eq!(ends[0].2, TaskId(1), "softirq");
    let us = ends[0].3.0 / 1_000;
    assert!((20..=30).contains(&us), "{us} us");
    assert_eq!(l.device.len(), Ok(8192));
    assert_eq!(l.read(4096, 4096), Ok(page));
    assert_eq!(l.read(0, 16), Ok(vec![0; 16]));
    assert_eq!(l.read(9_000, 16), Ok(vec![0; 16]), "beyond the end");
}

#[test]
fn the_flushers_lane_ends_on_the_reaper() {
    let l = lab(1);
    let mut page = vec![7; 4096];
    l.submit(Lane::Flusher, IoOp::Write, 1, 0, &mut page);
    l.world.park(ms(1));
    assert!(l.ends().is_empty(), "nobody has reaped");
    assert_eq!(l.queue.reap(Lane::Flusher, Nanos::ZERO), 1);
    assert_eq!(l.ends()[0].2, TaskId(0));
    l.submit(Lane::Flusher, IoOp::Write, 2, 0, &mut page);
    assert_eq!(l.queue.reap(Lane::Flusher, ms(5)), 1);
    assert!(l.world.now() < ms(2), "a completion ends the wait");
    assert_eq!(l.queue.reap(Lane::Flusher, ms(5)), 0);
    assert_eq!(l.world.now(), ms(5), "so does the deadline");
    l.world.unpark(TaskId(0));
    assert_eq!(l.queue.reap(Lane::Flusher, ms(9)), 0);
    assert_eq!(l.world.now(), ms(5), "and an unpark");
}

#[test]
fn depth_and_bus_limit_throughput() {
    let world = LabWorld::new(LabOptions::calm(1));
    let us = Nanos::from_micros;
    let options = QueueOptions {
        model: Model::Ssd(model::Ssd::simple(2, [us(60), us(20), us(200)], 1_000, 0)),
        ..QueueOptions::default()
    };
    let queue = LabQueue::new(&world, options);
    let l = Lab {
        device: RamDevice::new(&queue, RamOptions::default()),
        sink: lab(1).sink,
        world,
        queue,
    };
    let mut small = vec![0; 512];
    for n in 0..8 {
        l.submit(Lane::Shared, IoOp::Read, n, 0, &mut small);
    }
    l.world.park(ms(1));
    assert_eq!(l.queue.in_flight(), 0);
    // Eight reads of 60 us, two at a time; 8 us of bus are hidden behind them.
    let mut big = vec![0; 1 << 20];
    let start = l.world.now();
    l.submit(Lane::Shared, IoOp::Read, 9, 0, &mut big);
    while l.queue.in_flight() > 0 {
        l.world.park(l.world.now().plus(Nanos::from_micros(1)));
    }
    let took = l.world.now().since(start).0 / 1_000;
    assert!((1_024..1_030).contains(&took), "bus: {took} us");
}

#[test]
fn programmed_faults_hit_their_range_until_their_end() {
    let l = lab(1);
    let kind = IoErrorKind::NoSpace;
    l.device.fail_writes(4096..8192, kind, ms(1));
    assert_eq!(l.device.write_now(0, &[1; 4096]), Ok(()));
    let refused = l.device.write_now(0, &[2; 8192]);
    assert_eq!(refused, Err(IoError::new(kind, 4096)));
    l.device.fail_reads(0..1, IoErrorKind::Io, Nanos(u64::MAX));
    assert_eq!(l.read(0, 512), Err(IoError::new(IoErrorKind::Io, 0)));
    l.world.park(ms(1));
    assert_eq!(l.device.write_now(0, &[3; 8192]), Ok(()));
    l.device.heal();
    assert_eq!(l.read(0, 8192), Ok(vec![3; 8192]));
    assert_eq!(l.device.failures(), 2);
}

#[test]
fn hung_requests_end_when_released() {
    let l = lab(1);
    let mut page = vec![7; 4096];
    l.queue.hang_next(IoOp::Write, 1);
    l.submit(Lane::Shared, IoOp::Write, 1, 0, &mut page);
    l.world.park(ms(50));
    assert_eq!((l.ends().len(), l.queue.in_flight()), (0, 1));
    assert_eq!(l.queue.release_hung(), 1);
    l.world.park(ms(51));
    assert_eq!((l.ends().len(), l.queue.in_flight()), (1, 0));

    l.queue.hang_next(IoOp::Read, 1);
    let (queue, world) = (l.queue.clone(), l.world.clone());
    l.world.spawn_local("releaser", move || {
        world.sleep_until(ms(100));
        queue.release_hung();
    });
    assert_eq!(l.read(0, 4096), Ok(page));
    assert_eq!(l.world.now(), ms(100));
}

#[test]
fn dev_2_a_flush_covers_what_completed_before_it_began() {
    let l = lab(1);
    l.device.write_now(0, &[1; 512]).unwrap();
    let device = l.device.clone();
    l.world.spawn_local("writer", move || {
        // Ends while the flush below runs.
        device.write_now(0, &[2; 512]).unwrap();
    });
    l.device.flush().unwrap();
    assert_eq!(l.read(0, 1), Ok(vec![2]));
    let mut seen = [false; 3];
    for n in 0..100 {
        let image = l.device.crash_image(&mut Rng::new(n, 0));
        assert_eq!(image.len(), 512);
        seen[usize::from(image[0])] = true;
    }
    assert_eq!(seen, [false, true, true], "1 for certain, 2 perhaps");
    l.device.flush().unwrap();
    for n in 0..100 {
        assert_eq!(l.device.crash_image(&mut Rng::new(n, 0)), vec![2; 512]);
    }
}

#[test]
fn a_failed_flush_may_lose_writes_that_reads_still_see() {
    let l = lab(1);
    for n in 0..16 {
        l.device.write_now(n * 512, &[1; 512]).unwrap();
    }
    l.device.fail_flush(1, true);
    assert!(l.device.flush().is_err());
    l.device.flush().unwrap();
    assert_eq!(l.read(0, 8192), Ok(vec![1; 8192]));
    let image = l.device.crash_image(&mut Rng::new(1, 0));
    assert!(image.contains(&0) || image.len() < 8192);
}

/// What is in flight when a flush fails may be lost before it has ended.
#[test]
fn a_failed_flush_may_lose_writes_in_flight() {
    let lost = |seed| {
        let l = lab(seed);
        l.queue.hang_next(IoOp::Write, 1);
        let mut bytes = vec![7; 512];
        l.submit(Lane::Shared, IoOp::Write, 1, 0, &mut bytes);
        l.device.fail_flush(1, true);
        assert!(l.device.flush().is_err());
        assert_eq!(l.queue.release_hung(), 1);
        l.world.park(ms(1));
        assert_eq!(l.ends().len(), 1);
        assert_eq!(l.read(0, 512), Ok(vec![7; 512]), "reads see it");
        l.device.flush().unwrap();
        l.device.crash_image(&mut Rng::new(1, 0)) != [7; 512]
    };
    let lost = (0..32).filter(|seed| lost(*seed)).count();
    assert!((8..24).contains(&lost), "{lost} of 32");
}

#[test]
fn writes_in_flight_may_tear_at_a_crash() {
    let l = lab(1);
    let mut page = vec![7; 4096];
    l.device.truncate(4096).unwrap();
    l.device.flush().unwrap();
    l.submit(Lane::Shared, IoOp::Write, 1, 0, &mut page);
    let (mut torn, mut none, mut all) = (0, 0, 0);
    for n in 0..200 {
        let image = l.device.crash_image(&mut Rng::new(n, 0));
        let sectors: Vec<_> = image.chunks(512).map(|s| s[0]).collect();
        assert!(image.chunks(512).all(|s| s.iter().all(|b| *b == s[0])));
        match sectors.iter().filter(|b| **b == 7).count() {
            0 => none += 1,
            8 => all += 1,
            _ => torn += 1,
        }
    }
    assert!(torn > 10 && none > 10 && all > 10, "{torn} {none} {all}");
    l.world.park(ms(1));
}

#[test]
#[should_panic(expected = "DEV-1")]
fn dev_1_bytes_that_change_in_flight_are_found() {
    let l = lab(1);
    let mut page = vec![7; 4096];
    l.submit(Lane::Shared, IoOp::Write, 1, 0, &mut page);
    std::hint::black_box(&mut page)[100] = 8;
    l.world.park(ms(1));
}

#[test]
fn rates_repeat_with_the_seed() {
    let failures = |seed| {
        let world = LabWorld::new(LabOptions::calm(seed));
        let queue = LabQueue::new(&world, QueueOptions::default());
        let faults = FaultRates {
            read_error_ppm: 100_000,
            write_error_ppm: 100_000,
            no_space_ppm: 50_000,
            spike_ppm: 50_000,
            spike: ms(3),
            ..FaultRates::default()
        };
        let options = RamOptions {
            faults,
            ..RamOptions::default()
        };
        let device = RamDevice::new(&queue, options);
        let results: Vec<_> = (0..300)
            .map(|n| device.write_now(n * 512, &[1; 512]))
            .collect();
        (results, world.now(), world.trace_hash())
    };
    assert_eq!(failures(1), failures(1));
    assert_ne!(failures(1).0, failures(2).0);
    let failed = failures(1).0.iter().filter(|r| r.is_err()).count();
    assert!((20..80).contains(&failed), "{failed} of 300 at 15 %");
}

/// A lab whose disk is `model`, and `n` writes of a page at these places of a GiB file: the order in which they end.
fn order_of(model: Model, places: &[u64]) -> Vec<u64> {
    let world = LabWorld::new(LabOptions::calm(3));
    let options = QueueOptions {
        model,
        ..QueueOptions::default()
    };
    let queue = LabQueue::new(&world, options);
    let l = Lab {
        device: RamDevice::new(&queue, RamOptions::default()),
        sink: Sink::new(&world),
        world,
        queue,
    };
    let mut page = vec![7; 4096];
    for &at in places {
        l.submit(Lane::Shared, IoOp::Write, at, at * (1 << 20), &mut page);
    }
    assert_eq!(l.queue.in_flight(), places.len());
    l.world.park(ms(5_000));
    assert_eq!(l.queue.in_flight(), 0, "each ends");
    l.ends().iter().map(|e| e.0).collect()
}

#[test]
fn an_arm_serves_what_waits_in_its_elevator_s_order() {
    let hdd = |elevator| {
        Model::Hdd(model::Hdd {
            elevator,
            ..model::Hdd::default()
        })
    };
    let places = [500, 100, 900, 300, 700];
    let order = |elevator| order_of(hdd(elevator), &places);
    // The first begins at once; the others wait for it.
    assert_eq!(order(model::Elevator::Fifo), places);
    assert_eq!(order(model::Elevator::CLook), [500, 700, 900, 100, 300]);
    let ncq = order(model::Elevator::Ncq);
    assert_ne!(ncq, places);
    assert_eq!(ncq, order(model::Elevator::Ncq), "repeats");
}

#[test]
fn a_caller_of_an_arm_waits_among_the_requests() {
    let world = LabWorld::new(LabOptions::calm(3));
    let queue = LabQueue::new(
        &world,
        QueueOptions {
            model: Model::Hdd(model::Hdd::default()),
            ..QueueOptions::default()
        },
    );
    let device = RamDevice::new(&queue, RamOptions::default());
    let start = world.now();
    for n in 0..8 {
        device.write_now(n * 4096, &[n as u8; 4096]).unwrap();
    }
    let took = world.now().since(start);
    assert!(
        took < ms(20),
        "in sequence: one positioning at most: {took:?}"
    );
    for n in (0..8).rev() {
        device.write_now(n * (64 << 20), &[9; 4096]).unwrap();
    }
    assert!(world.now().since(start) > ms(20), "backwards: seeks");
    queue.hang_next(IoOp::Write, 1);
    let (queue2, world2) = (queue.clone(), world.clone());
    world.spawn_local("releaser", move || {
        world2.sleep_until(ms(900));
        queue2.release_hung();
    });
    device.write_now(0, &[1; 512]).unwrap();
    assert_eq!(world.now(), ms(900), "a hung one ends when released");
}

#[test]
fn a_cap_has_a_clock_for_each_direction() {
    let world = LabWorld::new(LabOptions::calm(3));
    let capped = |model| {
        LabQueue::new(
            &world,
            QueueOptions {
                id: 7,
                model,
                cap: Some(Cap {
                    bytes_per_s: 50_000_000,
                    iops: 1_000,
                }),
            },
        )
    };
    for model in [Model::default(), Model::Hdd(model::Hdd::default())] {
        let queue = capped(model);
        assert_eq!(queue.depth(), 32);
        let device = RamDevice::new(&queue, RamOptions::default());
        let (device2, start) = (device.clone(), world.now());
        world.spawn_local("reader", move || {
            for n in 0..50 {
                let mut page = [0; 4096];
                let buf = IoBuf {
                    ptr: page.as_mut_ptr(),
                    len: 4096,
                };
                device2.read_now(n * 4096, &[buf]).unwrap();
            }
        });
        for n in 0..10 {
            device.write_now(n << 20, &vec![1; 1 << 20]).unwrap();
        }
        // 10 MiB at 50 MB/s; the reads have their own clock.
        let took = world.now().since(start).0 / 1_000_000;
        assert!((209..330).contains(&took), "{took} ms");
    }
}

fn faulty(faults: FaultRates) -> (Arc<LabWorld>, Arc<RamDevice>) {
    let world = LabWorld::new(LabOptions::calm(5));
    let queue = LabQueue::new(&world, QueueOptions::default());
    let options = RamOptions {
        faults,
        len: 1 << 20,
        ..RamOptions::default()
    };
    (world, RamDevice::new(&queue, options))
}

#[test]
fn drawn_errors_are_permanent_or_not_as_their_rate_says() {
    for (permanent_ppm, writes) in [(0, false), (0, true), (1_000_000, false), (1_000_000, true)] {
        let (_world, device) = faulty(FaultRates {
            read_error_ppm: if writes { 0 } else { 300_000 },
            no_space_ppm: if writes { 300_000 } else { 0 },
            permanent_ppm,
            ..FaultRates::default()
        });
        let go = |n: u64| {
            let mut bytes = [1; 512];
            let ptr = bytes.as_mut_ptr();
            match writes {
                true => device.write_now(n * 512, &bytes),
                false => device.read_now(n * 512, &[IoBuf { ptr, len: 512 }]),
            }
        };
        let (n, error) = (0..2_000).find_map(|n| Some((n, go(n).err()?))).unwrap();
        let kind = if writes {
            IoErrorKind::NoSpace
        } else {
            IoErrorKind::Io
        };
        assert_eq!(error, IoError::new(kind, n * 512));
        let again = (0..50).filter(|_| go(n).is_err()).count();
        match permanent_ppm {
            0 => assert!((5..25).contains(&again), "{again} of 50 at 30 %"),
            _ => assert_eq!(again, 50, "for ever"),
        }
    }
}

#[test]
fn a_spike_makes_one_request_longer() {
    let (world, device) = faulty(FaultRates {
        spike_ppm: 100_000,
        spike: ms(30),
        ..FaultRates::default()
    });
    let took = |n: u64| {
        let start = world.now();
        device.write_now(n * 512, &[1; 512]).unwrap();
        world.now().since(start)
    };
    let spikes = (0..200).filter(|n| took(*n) > ms(30)).count();
    assert!((8..40).contains(&spikes), "{spikes} of 200 at 10 %");
    assert_eq!(device.failures(), 0);
}

#[test]
fn holes_of_a_sparse_file_cost_no_disk_time_and_never_fail() {
    let world = LabWorld::new(LabOptions::calm(1));
    let queue = LabQueue::new(&world, QueueOptions::default());
    let device = |sparse| {
        let options = RamOptions {
            content: vec![5; 8192],
            len: 1 << 20,
            sparse,
            ..RamOptions::default()
        };
        let device = RamDevice::new(&queue, options);
        device.fail_reads(512 << 10..1 << 20, IoErrorKind::Io, ms(60_000));
        Lab {
            device,
            sink: lab(1).sink,
            world: world.clone(),
            queue: queue.clone(),
        }
    };
    let took = |l: &Lab, offset: u64| {
        let begin = world.now();
        let bytes = l.read(offset, 4096);
        (world.now().since(begin), bytes)
    };
    let disk = Nanos::from_micros(20);
    let (full, sparse) = (device(false), device(true));
    assert!(
        took(&full, 64 << 10).0 > disk,
        "its blocks of zeroes are blocks"
    );
    assert!(took(&full, 768 << 10).1.is_err());
    assert!(took(&sparse, 4096).0 > disk, "its content is no hole");
    for offset in [8192, 64 << 10, 768 << 10] {
        let (time, bytes) = took(&sparse, offset);
        assert_eq!((time, bytes), (Nanos::ZERO, Ok(vec![0; 4096])));
    }
    let mut page = vec![7; 4096];
    sparse.submit(Lane::Flusher, IoOp::Read, 1, 64 << 10, &mut page);
    assert_eq!(sparse.queue.reap(Lane::Flusher, ms(60_000)), 1);
    assert_eq!(page, vec![0; 4096]);
    sparse.device.write_now(64 << 10, &[9; 4096]).unwrap();
    assert!(took(&sparse, 64 << 10).0 > disk, "a written block is none");
    sparse.device.truncate(64 << 10).unwrap();
    sparse.device.truncate(1 << 20).unwrap();
    let (time, bytes) = took(&sparse, 64 << 10);
    assert_eq!((time, bytes), (Nanos::ZERO, Ok(vec![0; 4096])), "cut off");
    sparse.device.write_zeroes(64 << 10, 4096).unwrap();
    assert!(took(&sparse, 64 << 10).0 > disk, "zeroes are written");
}
