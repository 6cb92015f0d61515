//! Power failures: at any moment, with any part of what was not flushed.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Write { first: u64, count: u64 },
    Flush,
    Discard { first: u64, count: u64 },
    Truncate { page: u64, cut: u64 },
    Crash { seed: u64, odds: u64 },
}

const PAGES: u64 = 600;

fn step() -> impl Strategy<Value = Step> {
    let page = 0..PAGES;
    prop_oneof![
        12 => (page.clone(), 1..40u64).prop_map(|(first, count)| Step::Write { first, count }),
        3 => Just(Step::Flush),
        1 => (page.clone(), 1..80u64).prop_map(|(first, count)| Step::Discard { first, count }),
        1 => (page, prop_oneof![Just(0), 1..4096u64]).prop_map(|(page, cut)| Step::Truncate { page, cut }),
        2 => (any::<u64>(), 0..5u64).prop_map(|(seed, odds)| Step::Crash { seed, odds }),
    ]
}

/// What a page may be after a crash: bytes that were there at the last flush, or at any time since.
struct Model {
    /// For each page, the contents since the last flush, the oldest first.
    pages: Vec<Vec<Vec<u8>>>,
    lens: Vec<u64>,
}

impl Model {
    fn new() -> Model {
        Model {
            pages: vec![vec![vec![0; BLOCK]]; PAGES as usize],
            lens: vec![PAGES * BLOCK as u64],
        }
    }
    fn set(&mut self, page: u64, bytes: Vec<u8>) {
        self.pages[page as usize].push(bytes);
    }
    fn now(&self, page: u64) -> &[u8] {
        self.pages[page as usize].last().unwrap()
    }
    /// From now on nothing older than this is possible.
    fn settle(&mut self) {
        for p in &mut self.pages {
            p.drain(..p.len() - 1);
        }
        self.lens.drain(..self.lens.len() - 1);
    }
    fn truncate(&mut self, len: u64) {
        let b = BLOCK as u64;
        if !len.is_multiple_of(b) && len < *self.lens.last().unwrap() {
            let mut bytes = self.now(len / b).to_vec();
            bytes[(len % b) as usize..].fill(0);
            self.set(len / b, bytes);
        }
        for page in len.div_ceil(b)..PAGES {
            self.set(page, vec![0; BLOCK]);
        }
        self.lens.push(len);
    }
    /// What a mounted volume has is possible, and becomes the only possibility.
    fn adopt(&mut self, rig: &Rig) {
        for page in 0..PAGES {
            let bytes = rig.read(page).unwrap();
            assert!(
                self.pages[page as usize].contains(&bytes),
                "page {page} is none of its last {} contents",
                self.pages[page as usize].len()
            );
            self.pages[page as usize] = vec![bytes];
        }
        let len = rig.volume.len().unwrap();
        assert!(self.lens.contains(&len), "length {len}");
        self.lens = vec![len];
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_crash_leaves_what_the_last_flush_promised(
        steps in prop::collection::vec(step(), 1..60),
        blocks in prop_oneof![Just(700usize), Just(1500usize)],
    ) {
        let mut rig = Rig::new(&Disk::formatted(blocks, 8, PAGES as usize));
        let mut model = Model::new();
        for (version, s) in (1..).zip(steps) {
            match s {
                Step::Write { first, count } => {
                    let count = count.min(PAGES - first);
                    let runs: Vec<_> = (first..first + count).map(|p| (p * 7 % PAGES, 1)).collect();
                    rig.reserve(&runs).unwrap();
                    for w in rig.submit(&runs, version) {
                        prop_assert_eq!(rig.result(&w), Some(Ok(())));
                        model.set(w.first, page_bytes(w.first, version));
                        let end = (w.first + 1) * BLOCK as u64;
                        if end > *model.lens.last().unwrap() {
                            model.lens.push(end);
                        }
                    }
                }
                Step::Flush => {
                    rig.volume.flush().unwrap();
                    model.settle();
                }
                Step::Discard { first, count } => {
                    let end = (first + count).min(PAGES);
                    rig.volume.discard(first * BLOCK as u64, (end - first) * BLOCK as u64).unwrap();
                    (first..end).for_each(|p| model.set(p, vec![0; BLOCK]));
                }
                Step::Truncate { page, cut } => {
                    let len = page * BLOCK as u64 + cut;
                    rig.volume.truncate(len).unwrap();
                    model.truncate(len);
                }
                Step::Crash { seed, odds } => {
                    rig.check();
                    let mut x = seed | 1;
                    let image = rig.disk.crash(|| {
                        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        (x >> 33) % 4 < odds
                    });
                    let disk = Disk::new(image, false);
                    clean(&disk);
                    rig = Rig::new(&disk);
                    model.adopt(&rig);
                }
            }
            prop_assert_eq!(rig.volume.len(), Ok(*model.lens.last().unwrap()));
        }
        for page in 0..PAGES {
            prop_assert!(rig.read(page).unwrap() == model.now(page), "page {}", page);
        }
        rig.check();
        rig.volume.flush().unwrap();
        model.settle();
        let disk = Disk::new(rig.disk.crash(|| false), false);
        clean(&disk);
        model.adopt(&Rig::new(&disk));
    }
}

#[test]
fn a_log_cut_at_every_byte_gives_the_state_of_the_last_whole_commit() {
    let disk = Disk::formatted(120, 32, 200);
    let mut rig = Rig::new(&disk);
    for version in 1..=4 {
        rig.write(&[(version, 1), (50, 3)], version).unwrap();
        rig.volume.flush().unwrap();
    }
    let whole = disk.image();
    // Four commits, each with its copy.
    let log = 2 * BLOCK..10 * BLOCK;
    // Nearly all of a block is zeroes: cutting there changes nothing.
    let interesting = |at: usize| at % BLOCK < 120 || at % BLOCK > BLOCK - 3;
    for cut in log.clone().filter(|at| interesting(*at)) {
        let mut image = whole.clone();
        image[cut..log.end].fill(0);
        // The last commit of which one block is still whole.
        let last = (0..4u64).rev().find(|i| {
            let from = log.start + *i as usize * 2 * BLOCK;
            image[from..from + BLOCK] == whole[from..from + BLOCK]
        });
        let version = last.map_or(0, |i| i + 1);
        let rig = Rig::new(&Disk::new(image, false));
        rig.expect(51, version);
        for page in 1..=4 {
            rig.expect(page, if page <= version { page } else { 0 });
        }
        assert_eq!(rig.volume.info().transactions, version);
    }
}

#[test]
fn recovery_goes_on_where_it_stopped_over_the_noise_of_a_lost_transaction() {
    let disk = Disk::formatted(3000, 16, 2000);
    let mut rig = Rig::new(&disk);
    rig.write(&[(0, 4)], 1).unwrap();
    rig.volume.flush().unwrap();
    // Enough for log blocks that go out ahead, and no commit.
    for i in 0..900 {
        rig.write(&[(100 + i * 7 % 1800, 1)], 2).unwrap();
    }
    assert!(rig.volume.info().log_writes_ahead > 2);
    let mut rig = Rig::new(&Disk::new(disk.crash(|| true), false));
    rig.expect(100, 0);
    for version in 3..9 {
        rig.write(&[(version, 1)], version).unwrap();
        rig.volume.flush().unwrap();
        let disk = Disk::new(rig.disk.crash(|| false), false);
        clean(&disk);
        Rig::new(&disk).expect(version, version);
    }
}
