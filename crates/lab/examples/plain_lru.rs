//! An order of one's own, in the lab: plain LRU, where every hit moves its page to the front.
//!
//! `cargo run -p highwater-lab --example plain_lru` runs a stream of reads by Zipf's law through each order and prints
//! how many of them missed. It uses nothing but `highwater_lab`.

use highwater_lab::engine::backing::PlainBacking;
use highwater_lab::engine::{Config, Engine, FileId, FileOptions, Nanos, PageNo};
use highwater_lab::{
    FrameNo, Frames, Isolated, LabOptions, LabQueue, LabWorld, Lengths, List, Order, PageOrder,
    QueueOptions, RamDevice, RamOptions, Reason, Rng,
};
use std::sync::Arc;

/// One list; the head was used last.
#[derive(Default)]
pub struct PlainLru {
    list: List,
}

impl PageOrder for PlainLru {
    fn name(&self) -> &'static str {
        "plain-lru"
    }

    fn wants_touch(&self) -> bool {
        true
    }

    fn insert(&mut self, frames: Frames<'_>, frame: FrameNo, _active: bool) {
        self.list.push_head(&frames, frame);
    }

    fn touch(&mut self, frames: Frames<'_>, frame: FrameNo) {
        self.list.remove(&frames, frame);
        self.list.push_head(&frames, frame);
    }

    fn isolate(&mut self, frames: Frames<'_>, out: &mut [FrameNo]) -> Isolated {
        let mut taken = 0;
        while taken < out.len() {
            let Some(frame) = self.list.pop_tail(&frames) else {
                break;
            };
            out[taken] = frame;
            taken += 1;
        }
        Isolated {
            taken,
            looked: taken,
        }
    }

    fn putback(&mut self, frames: Frames<'_>, frame: FrameNo, reason: Reason) {
        match reason {
            // Reclaim wants to meet these next.
            Reason::Gone | Reason::Written => self.list.push_tail(&frames, frame),
            _ => self.list.push_head(&frames, frame),
        }
    }

    fn remove(&mut self, frames: Frames<'_>, frame: FrameNo) {
        self.list.remove(&frames, frame);
    }

    fn lengths(&self) -> Lengths {
        Lengths {
            inactive: self.list.len(),
            candidates: self.list.len(),
            ..Lengths::default()
        }
    }

    fn check_invariants(&self, frames: Frames<'_>) {
        self.list.check_invariants(&frames);
    }
}

/// What a replay counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Replayed {
    /// Frames of the cache: its capacity in pages.
    pub frames: u64,
    /// Accesses that found their page.
    pub hits: u64,
    /// Accesses that read it.
    pub misses: u64,
}

/// Reads `pages` of one file, one after the other, through a cache of `memory` bytes in `order`. A page is evicted
/// exactly when a frame is needed and all are taken.
pub fn replay(order: Order, memory: u64, pages: Vec<u64>) -> Replayed {
    let world = LabWorld::new(LabOptions {
        cpus: 1,
        steps_max: u64::MAX,
        time_max: Nanos::from_secs(1_000_000),
        ..LabOptions::calm(1)
    });
    let queue = LabQueue::new(&world, QueueOptions::default());
    let len = pages.iter().max().map_or(0, |last| (last + 1) * 4096);
    let device = RamDevice::new(
        &queue,
        RamOptions {
            len,
            ..RamOptions::default()
        },
    );
    let inner = world.clone();
    let run = world.run(move || {
        let config = Config {
            order,
            reclaim_cluster: 1,
            min_free: Some(0),
            readahead_max: 0,
            populate: false,
            ..Config::new(memory)
        };
        let engine = Engine::new(inner, config).expect("a budget of 64 frames or more");
        let backing = Arc::new(PlainBacking::new(device));
        let file = engine
            .open(
                FileId { dev: 1, ino: 1 },
                backing,
                FileOptions { write: false },
            )
            .expect("the device has a length");
        let mut first = [0; 8];
        for (i, page) in pages.into_iter().enumerate() {
            // Both ways in: a copy, and a guard.
            if i % 3 == 0 {
                file.read_at(&mut first, page * 4096).expect("no fault");
            } else {
                drop(file.page(PageNo(page)).expect("no fault is drawn"));
            }
        }
        engine.check_invariants();
        let stats = engine.stats();
        drop(file);
        engine.close().expect("nothing is dirty");
        Replayed {
            frames: stats.frames,
            hits: stats.get("hits"),
            misses: stats.get("misses"),
        }
    });
    run.value
}

/// `n` pages of 0..`span` by Zipf's law with exponent 1.
#[allow(dead_code)]
fn zipf(rng: &mut Rng, span: u64, n: usize) -> Vec<u64> {
    // The harmonic sums, searched for a uniform draw.
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=span)
        .map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        })
        .collect();
    (0..n)
        .map(|_| {
            let at = rng.below(1 << 32) as f64 / (1u64 << 32) as f64 * sum;
            sums.partition_point(|s| *s <= at) as u64
        })
        .collect()
}

#[allow(dead_code)]
fn main() {
    let pages = zipf(&mut Rng::new(7, 0), 8_192, 200_000);
    println!("200,000 reads of 8,192 pages by Zipf's law");
    for order in [
        Order::custom(|_| PlainLru::default()),
        Order::TwoList,
        Order::S3Fifo,
    ] {
        let name = match order {
            Order::Custom(_) => "plain-lru",
            _ => order.name(),
        };
        let r = replay(order, 4 << 20, pages.clone());
        println!(
            "{name:<10} {} frames: {} misses, miss ratio {:.6}",
            r.frames,
            r.misses,
            r.misses as f64 / pages.len() as f64
        );
    }
}
