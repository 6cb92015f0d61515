//! Orders of pages: the engine's misses against a simulator written from the definition of LRU, which shares no code
//! with it, and what tells the built-in orders apart.

#[path = "../examples/plain_lru.rs"]
mod plain_lru;

use highwater_lab::{Order, Rng};
use plain_lru::{PlainLru, Replayed, replay};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

fn lru() -> Order {
    Order::custom(|_| PlainLru::default())
}

/// LRU by its definition: a full cache loses the page whose last access is the longest ago. (hits, misses)
fn simulate(accesses: &[u64], capacity: u64) -> (u64, u64) {
    let mut last_access: HashMap<u64, usize> = HashMap::new();
    let mut by_time: BTreeMap<usize, u64> = BTreeMap::new();
    let (mut hits, mut misses) = (0, 0);
    for (now, page) in accesses.iter().enumerate() {
        match last_access.insert(*page, now) {
            Some(before) => {
                hits += 1;
                by_time.remove(&before);
            }
            None => {
                misses += 1;
                if by_time.len() as u64 == capacity {
                    let (_, oldest) = by_time.pop_first().expect("capacity > 0");
                    last_access.remove(&oldest);
                }
            }
        }
        by_time.insert(now, *page);
    }
    (hits, misses)
}

/// The same, in another way: an access hits if since the page's last one fewer than `capacity` other pages were used.
fn simulate_by_distance(accesses: &[u64], capacity: u64) -> (u64, u64) {
    let mut hits = 0;
    for (now, page) in accesses.iter().enumerate() {
        let mut between = std::collections::HashSet::new();
        for before in accesses[..now].iter().rev() {
            if before == page {
                hits += u64::from((between.len() as u64) < capacity);
                break;
            }
            between.insert(*before);
            if between.len() as u64 >= capacity {
                break;
            }
        }
    }
    (hits, accesses.len() as u64 - hits)
}

/// Plain LRU in the engine is the simulator, digit by digit, at a budget.
fn compare(accesses: &[u64], memory: u64) -> Replayed {
    let engine = replay(lru(), memory, accesses.to_vec());
    let simulated = simulate(accesses, engine.frames);
    assert_eq!(
        (engine.hits, engine.misses),
        simulated,
        "{} frames, {} accesses",
        engine.frames,
        accesses.len()
    );
    engine
}

/// Hot pages, a loop a little longer than most caches, and a scan.
fn generated() -> Vec<u64> {
    let mut rng = Rng::new(42, 0);
    (0..12_000u64)
        .map(|i| match i % 4 {
            0 => 4_000 + i / 4,
            1 => 2_000 + i / 4 % 300,
            _ => {
                let span = 1 + rng.below(1_000);
                rng.below(span)
            }
        })
        .collect()
}

#[test]
fn plain_lru_misses_what_lru_by_definition_misses() {
    let accesses = generated();
    let mut misses = Vec::new();
    for memory in [384 << 10, 1 << 20, 2 << 20, 5 << 20, 9 << 20] {
        let r = compare(&accesses, memory);
        if r.frames < 400 {
            assert_eq!(
                simulate_by_distance(&accesses, r.frames),
                (r.hits, r.misses),
                "by reuse distance"
            );
        }
        misses.push(r.misses);
    }
    assert!(
        misses.is_sorted_by(|a, b| a > b),
        "LRU's inclusion: a larger cache misses less, {misses:?}"
    );
}

#[test]
fn a_touch_again_and_again_by_one_task_counts_each_time() {
    // Page 0 is kept by its hits alone, whatever streams past.
    let accesses: Vec<u64> = (1..2_000).flat_map(|page| [0, 0, page]).collect();
    let r = compare(&accesses, 512 << 10);
    assert_eq!(r.misses, 2_000);
}

/// The page numbers of a trace, made dense: which page of the disk it was does not matter to LRU.
fn pages_of(text: &str) -> Vec<u64> {
    let mut dense = HashMap::new();
    let mut accesses = Vec::new();
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let [_, _, op, size, lbn] = fields[..] else {
            panic!("not version,time,op,size,lbn: {line}");
        };
        assert!(op == "28" || op == "2a", "neither READ nor WRITE: {line}");
        let start: u64 = lbn.parse::<u64>().expect("a sector") * 512;
        let end = start + size.parse::<u64>().expect("bytes");
        for page in start / 4096..end.div_ceil(4096) {
            let next = dense.len() as u64;
            accesses.push(*dense.entry(page).or_insert(next));
        }
    }
    accesses
}

#[test]
fn plain_lru_misses_what_lru_by_definition_misses_on_a_real_trace() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = root.join("../shared/data/cloudphysics-a.csv");
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!("SKIPPED: {} is not there", path.display());
        return;
    };
    let accesses = pages_of(&text);
    assert!(accesses.len() > 56_936, "at least a page a request");
    for memory in [1 << 20, 8 << 20, 64 << 20, 256 << 20] {
        let r = compare(&accesses, memory);
        eprintln!(
            "{} frames: {} hits, {} misses, miss ratio {:.9}",
            r.frames,
            r.hits,
            r.misses,
            r.misses as f64 / accesses.len() as f64
        );
    }
}

#[test]
fn a_scan_washes_out_lru_but_not_s3_fifo() {
    // 120 hot pages, used twice in a round; beside them a scan that never comes back.
    let mut accesses = Vec::new();
    for round in 0..60u64 {
        for hot in 0..120 {
            accesses.push(hot);
            accesses.push(1_000 + (round * 120 + hot) * 2);
            accesses.push(1_001 + (round * 120 + hot) * 2);
        }
    }
    let memory = 1 << 20;
    let [lru, two_list, s3_fifo] =
        [lru(), Order::TwoList, Order::S3Fifo].map(|order| replay(order, memory, accesses.clone()));
    let scan = 60 * 240;
    assert_eq!(
        lru.misses - scan,
        60 * 120,
        "LRU keeps none of the hot pages"
    );
    assert!(
        s3_fifo.misses - scan < 120 * 10,
        "S3-FIFO finds the hot pages by their ghosts, and keeps them: {s3_fifo:?}"
    );
    assert_ne!(two_list.misses, s3_fifo.misses);
}
