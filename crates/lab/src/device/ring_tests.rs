//! A disk behind a ring of descriptors: what requests take there is told from their buffers.

use super::model::{Completions, Latency, Rate, Scheduler, Ssd};
use super::queue::segments;
use super::tests::Sink;
use super::*;
use crate::{LabOptions, LabWorld};
use highwater_engine::io::{IoBuf, IoOp, Lane, Request};
use highwater_engine::world::{Device, Queue, TaskId};
use highwater_engine::{IoError, Nanos, World};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

struct Lab {
    world: Arc<LabWorld>,
    queue: Arc<LabQueue>,
    device: Arc<RamDevice>,
    sink: Arc<Sink>,
    memory: Vec<u8>,
}

const PAGE: usize = 4096;

/// A ring of 16 descriptors before a disk that takes 100 us for a request and each further piece.
fn lab(elevator: Scheduler) -> Lab {
    lab_of(elevator, Completions::Each)
}

fn lab_of(elevator: Scheduler, completions: Completions) -> Lab {
    let mut lab = LabOptions::calm(1);
    lab.costs.submit = 0;
    let world = LabWorld::new(lab);
    let us = Nanos::from_micros;
    let model = Model::Ssd(Ssd {
        depth: 8,
        ring: 16,
        elevator,
        completions,
        read: Latency::constant(us(100)),
        write: Latency::constant(us(100)),
        read_segment: us(100),
        write_segment: us(100),
        read_rate: Rate::UNLIMITED,
        write_rate: Rate::UNLIMITED,
        read_iops: 10_000,
        write_iops: 10_000,
        ..Ssd::default()
    });
    let options = QueueOptions {
        model,
        ..QueueOptions::default()
    };
    let queue = LabQueue::new(&world, options);
    Lab {
        device: RamDevice::new(&queue, RamOptions::default()),
        sink: Sink::new(&world),
        world,
        queue,
        memory: vec![0; 64 * PAGE],
    }
}

impl Lab {
    /// `pages` of memory as buffers, `step` apart.
    fn bufs(&mut self, pages: usize, step: usize) -> Vec<IoBuf> {
        let pages = self.memory.chunks_mut(PAGE).step_by(step).take(pages);
        pages
            .map(|p| IoBuf {
                ptr: p.as_mut_ptr(),
                len: p.len(),
            })
            .collect()
    }

    fn submit(&mut self, op: IoOp, cookie: u64, page: u64, pages: usize, step: usize) {
        let mut request = Request::new(op, page * PAGE as u64, self.sink.clone());
        request.cookie = cookie;
        request.bufs.extend(self.bufs(pages, step));
        self.device.submit(Lane::Shared, &mut vec![request]);
    }

    fn ends(&self) -> Vec<(u64, u64)> {
        let end = |(cookie, result, _, at): (u64, Result<(), IoError>, TaskId, Nanos)| {
            assert_eq!(result, Ok(()));
            (cookie, at.0 / 1_000)
        };
        let mut ends: Vec<_> = self.sink.ends().into_iter().map(end).collect();
        // Of one time, in any order.
        ends.sort_by_key(|e| (e.1, e.0));
        ends
    }
}

#[test]
fn buffers_that_adjoin_are_one_segment() {
    let mut l = lab(Scheduler::None);
    assert_eq!(segments(&l.bufs(12, 1)), 1);
    assert_eq!(segments(&l.bufs(12, 2)), 12);
    let mut bufs = l.bufs(4, 1);
    bufs.swap(2, 3);
    assert_eq!(segments(&bufs), 3);
    assert_eq!(segments(&[]), 1);
    assert_eq!(l.queue.segments_max(), 14, "what the ring has room for");
}

#[test]
fn a_scattered_request_costs_its_pieces_and_fills_the_ring() {
    let mut l = lab(Scheduler::None);
    l.submit(IoOp::Write, 1, 0, 14, 2);
    l.submit(IoOp::Write, 2, 20, 14, 1);
    l.submit(IoOp::Write, 3, 40, 14, 1);
    l.world.park(Nanos::from_millis(9));
    assert_eq!(l.ends(), [(1, 1_400), (2, 1_500), (3, 1_600)]);
    assert_eq!(l.queue.in_flight(), 0);
}

#[test]
fn what_waits_before_the_ring_goes_by_address_and_reads_before_writes() {
    let mut l = lab(Scheduler::Deadline);
    // Fills the ring; the next one is chosen, and waits for room.
    l.submit(IoOp::Write, 1, 0, 14, 2);
    l.submit(IoOp::Write, 2, 50, 1, 1);
    for (cookie, page) in [(3, 90), (4, 70), (5, 60)] {
        l.submit(IoOp::Write, cookie, page, 1, 1);
    }
    l.submit(IoOp::Read, 6, 10, 14, 2);
    l.world.park(Nanos::from_millis(9));
    // The batch of writes goes up; then comes the read.
    let order: Vec<u64> = l.ends().iter().map(|e| e.0).collect();
    assert_eq!(order, [1, 2, 5, 4, 3, 6]);
}

#[test]
fn a_hung_request_keeps_its_descriptors() {
    let mut l = lab(Scheduler::None);
    l.queue.hang_next(IoOp::Write, 1);
    l.submit(IoOp::Write, 1, 0, 11, 2);
    l.submit(IoOp::Read, 2, 0, 1, 1);
    l.submit(IoOp::Read, 3, 0, 1, 1);
    l.world.park(Nanos::from_millis(5));
    // 13 descriptors are the hung one's: three remain, so the reads go one after the other.
    assert_eq!(l.ends(), [(2, 1_200), (3, 1_300)]);
    l.submit(IoOp::Read, 4, 0, 14, 2);
    l.world.park(Nanos::from_millis(10));
    assert_eq!(l.ends().len(), 2, "no room");
    assert_eq!(l.queue.release_hung(), 1);
    l.world.park(Nanos::from_millis(20));
    assert_eq!(l.ends()[2..], [(1, 10_000), (4, 11_400)]);
    assert_eq!(l.queue.in_flight(), 0);
}

#[test]
fn a_caller_waits_for_the_ring_as_requests_do() {
    let mut l = lab(Scheduler::None);
    l.submit(IoOp::Write, 1, 0, 14, 2);
    let bufs = l.bufs(2, 3);
    l.device.read_now(0, &bufs).unwrap();
    let us = l.world.now().0 / 1_000;
    assert!((1_600..1_605).contains(&us), "{us} us");
}

#[test]
fn completions_together_come_when_nothing_is_left() {
    let mut l = lab_of(Scheduler::None, Completions::Together);
    for cookie in 1..=3 {
        l.submit(IoOp::Write, cookie, 8 * cookie, 1, 1);
    }
    l.world.park(Nanos::from_micros(250));
    assert!(l.ends().is_empty(), "the first two wait for the third");
    l.submit(IoOp::Read, 4, 8, 1, 1);
    l.world.park(Nanos::from_millis(1));
    assert_eq!(l.ends(), [(1, 400), (2, 400), (3, 400), (4, 400)]);
    l.queue.hang_next(IoOp::Write, 1);
    l.submit(IoOp::Write, 5, 8, 1, 1);
    l.submit(IoOp::Read, 6, 8, 1, 1);
    l.world.park(Nanos::from_millis(2));
    assert_eq!(l.ends()[4..], [(6, 1_200)]);
    assert_eq!(l.queue.release_hung(), 1);
    l.world.park(Nanos::from_millis(3));
    assert_eq!(l.ends()[5..], [(5, 2_000)]);
    assert_eq!(l.queue.in_flight(), 0);
}

/// What two reads of one disk take that end together, on the interrupts' CPU and on the other, in us.
fn near_and_far(ipi: u64, completions: Option<Completions>) -> [u64; 2] {
    let mut options = LabOptions::calm(1);
    options.costs.resched_ipi = ipi;
    let world = LabWorld::new(options);
    let read = Latency::constant(Nanos::from_micros(100));
    let model = Model::Ssd(Ssd {
        depth: 8,
        ring: if completions.is_some() { 16 } else { 0 },
        completions: completions.unwrap_or_default(),
        read,
        read_rate: Rate::UNLIMITED,
        ..Ssd::default()
    });
    let options = QueueOptions {
        model,
        ..QueueOptions::default()
    };
    let device = RamDevice::new(&LabQueue::new(&world, options), RamOptions::default());
    let took = Arc::new([const { AtomicU64::new(0) }; 2]);
    let w = world.clone();
    let out = took.clone();
    world.run(move || {
        let tasks = [0, 1].map(|i| {
            let (w, device, took) = (w.clone(), device.clone(), out.clone());
            w.clone().spawn_local("reader", move || {
                let mut page = vec![0u8; PAGE];
                let buf = IoBuf {
                    ptr: page.as_mut_ptr(),
                    len: PAGE,
                };
                let begin = w.now();
                device.read_now(i * PAGE as u64, &[buf]).unwrap();
                let far = usize::from(w.cpu() + 1 < w.cpus());
                took[far].store(w.now().since(begin).0 / 1_000, Ordering::Relaxed);
            })
        });
        // Whoever joins one that ends would keep its CPU awake.
        w.sleep_until(Nanos::from_millis(1));
        for task in tasks {
            assert!(w.join(task, Nanos::from_secs(1)));
        }
    });
    [0, 1].map(|i| took[i].load(Ordering::Relaxed))
}

#[test]
fn who_is_woken_on_a_cpu_that_interrupts_do_not_come_to_is_called_there() {
    for completions in [None, Some(Completions::Each), Some(Completions::Together)] {
        assert_eq!(near_and_far(0, completions), [100, 100], "{completions:?}");
        assert_eq!(
            near_and_far(12_000, completions),
            [100, 112],
            "{completions:?}"
        );
    }
}
