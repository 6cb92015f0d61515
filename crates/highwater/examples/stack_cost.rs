//! What measuring stacks costs on a hit: the same hits by threads of a plain cache and of one that traces their stacks, in
//! turns. Nothing looks at the stack on a hit, so both take the same. `cargo run --release -p highwater --example stack_cost`

use highwater::engine::World;
use highwater::engine::world::Nanos;
use highwater::{Cache, File, OpenOptions};
use std::hint::black_box;
use std::sync::mpsc::channel;
use std::time::Instant;

const PAGES: u64 = 1_000;
const ROUNDS: usize = 15;
const HITS: u64 = 400_000;

/// Nanoseconds a hit, on a thread of the cache's world.
fn hits(cache: &Cache, file: &File) -> f64 {
    let (send, receive) = channel();
    let file = file.clone();
    let body = move || {
        let mut buf = [0; 64];
        let begin = Instant::now();
        for n in 0..HITS {
            let offset = n.wrapping_mul(7_919) % PAGES * 4096;
            black_box(file.read_at(&mut buf, offset).expect("a hit"));
        }
        let _ = send.send(begin.elapsed().as_nanos() as f64 / HITS as f64);
    };
    let world = cache.engine().world();
    let id = world.spawn("hits", Box::new(body)).expect("a thread");
    world.join(id, world.now().plus(Nanos::from_secs(600)));
    receive.recv().expect("a time")
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::current_dir()?.join("stack_cost.tmp");
    std::fs::write(&path, vec![1u8; (PAGES * 4096) as usize])?;
    let build = |trace| Cache::builder().memory(32 << 20).stack_trace(trace).build();
    let caches = [build(false)?, build(true)?];
    let options = OpenOptions::new().read(true);
    let files = [
        caches[0].open(&path, options)?,
        caches[1].open(&path, options)?,
    ];
    std::fs::remove_file(&path)?;
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..=ROUNDS {
        // Each begins every other round; the first warms up.
        for turn in [round % 2, 1 - round % 2] {
            let ns = hits(&caches[turn], &files[turn]);
            if round > 0 {
                times[turn].push(ns);
            }
        }
    }
    let median = |times: &[f64]| {
        let mut sorted = times.to_vec();
        sorted.sort_by(f64::total_cmp);
        (sorted[0], sorted[sorted.len() / 2])
    };
    for (name, times) in ["plain", "traced"].iter().zip(&times) {
        let (least, middle) = median(times);
        println!("{name:8} {middle:7.1} ns a hit (median of {ROUNDS}), least {least:.1}");
    }
    let pairs: Vec<f64> = times[1].iter().zip(&times[0]).map(|(t, p)| t / p).collect();
    println!("traced / plain, median of pairs: {:.3}", median(&pairs).1);
    Ok(())
}
