//! Blocks of frames in a row: they are what they say, they cost what the policy says, and making them loses no byte.

mod blocks;
mod common;

use common::{PAGE, Rig, lab, ms, page_pattern};
use highwater_engine::io::IoOp;
use highwater_engine::policy::{HighOrder, Throttle};
use highwater_engine::{
    Block, BlockOptions, BlockWait, Config, Error, Event, Nanos, NoBlockReport, PageNo, Preset,
};
use highwater_lab::{LabWorld, Rng};

const POLICIES: [HighOrder; 3] = [HighOrder::Lumpy, HighOrder::Compaction, HighOrder::Both];

fn with(high_order: HighOrder) -> impl FnOnce(&mut Config) {
    move |config| {
        config.policy.high_order = high_order;
        config.readahead_max = 0;
    }
}

fn no_block<T: std::fmt::Debug>(result: Result<T, Error>) -> NoBlockReport {
    match result {
        Err(Error::NoBlock(report)) => *report,
        other => panic!("expected no block, got {other:?}"),
    }
}

/// Fills memory with pages that were read in random order, so that free frames lie anywhere; `file` has `pages` pages.
fn fill(file: &common::LabFile, pages: u64, rng: &mut Rng) {
    let mut head = [0; 16];
    for _ in 0..pages * 2 {
        let n = rng.below(pages);
        file.read_at(&mut head, n * PAGE).unwrap();
        assert_eq!(head[0], common::pattern(n * PAGE), "page {n}");
    }
}

fn verify(file: &common::LabFile, pages: u64) {
    let mut buf = vec![0; PAGE as usize];
    for n in 0..pages {
        file.read_at(&mut buf, n * PAGE).unwrap();
        assert!(buf == page_pattern(n), "page {n} lost its bytes");
    }
}

#[test]
fn a_block_is_aligned_its_owner_s_alone_and_given_back() {
    lab(
        1,
        4096,
        |_| {},
        |rig| {
            let mut blocks: Vec<(Block<LabWorld>, u8)> = Vec::new();
            for order in (0..=9).rev() {
                let mut block = rig
                    .engine
                    .alloc_block(order, BlockOptions::patient())
                    .unwrap();
                assert_eq!(block.len() as u64, PAGE << order);
                assert_eq!(block.frame() % (1 << order), 0, "aligned");
                assert_eq!(block.order(), order);
                block.fill(order as u8 + 1);
                blocks.push((block, order as u8 + 1));
            }
            assert_eq!(rig.stat("nr_block_pages"), 1023);
            assert_eq!(rig.stat("block_alloc"), 9, "order 0 is a page");
            rig.engine.check_invariants();
            for (block, byte) in &blocks {
                assert!(
                    block.iter().all(|b| b == byte),
                    "order {} shared",
                    block.order()
                );
            }
            assert_eq!(rig.engine.close(), Err(Error::StillPinned(1023)));
            blocks.truncate(3);
            rig.engine.check_invariants();
            drop(blocks);
            assert_eq!(rig.stat("nr_block_pages"), 0);
            let (file, device) = rig.file(1, 64);
            rig.works(&file, &device);
            drop(file);
            rig.engine.close().unwrap();
            let closed = rig.engine.alloc_block(1, BlockOptions::patient());
            assert_eq!(closed.err(), Some(Error::Closed));
        },
    );
}

#[test]
fn an_order_above_two_mib_is_refused_with_the_highest() {
    for (frame_size, top) in [(4096, 9), (65_536, 5)] {
        let tune = move |config: &mut Config| {
            config.frame_size = frame_size;
            config.memory = 32 << 20;
        };
        lab(1, 8192, tune, move |rig| {
            let error = rig
                .engine
                .alloc_block(top + 1, BlockOptions::patient())
                .expect_err("too high");
            assert!(
                error
                    .to_string()
                    .contains(&format!("order {} is above {top}", top + 1)),
                "{error}"
            );
            let block = rig
                .engine
                .alloc_block(top, BlockOptions::patient())
                .unwrap();
            assert_eq!(block.len(), 2 << 20);
        });
    }
}

#[test]
fn what_is_in_pieces_is_made_whole_by_each_policy() {
    for policy in POLICIES {
        for order in [2, 4, 6] {
            lab(order, 2048, with(policy), move |rig| {
                let (file, _device) = rig.file(1, 4096);
                fill(&file, 4096, &mut Rng::new(order, 1));
                let mut blocks = Vec::new();
                for i in 0..(256u32 >> order) as u8 {
                    let mut block = rig
                        .engine
                        .alloc_block(order as u32, BlockOptions::patient())
                        .unwrap_or_else(|e| panic!("{policy:?} order {order}: {e}"));
                    block.fill(i);
                    blocks.push(block);
                }
                rig.at_rest();
                verify(&file, 4096);
                for (i, block) in blocks.iter().enumerate() {
                    assert!(block.iter().all(|b| usize::from(*b) == i), "written over");
                }
                let (moved, lumpy) = (rig.stat("pgmigrate_success"), rig.stat("pgreclaim_lumpy"));
                match policy {
                    // Reclaim by age makes pairs and fours by itself.
                    _ if order < 4 => {}
                    HighOrder::Lumpy => assert!(moved == 0 && lumpy > 0, "{moved} {lumpy}"),
                    HighOrder::Compaction => assert!(moved > 0 && lumpy == 0, "{moved} {lumpy}"),
                    HighOrder::Both => assert!(moved + lumpy > 0),
                }
                drop(blocks);
                rig.at_rest();
            });
        }
    }
}

/// Dirty pages move with what is owed for them: the device has them after a sync.
#[test]
fn dirty_pages_that_move_are_written() {
    lab(3, 1024, with(HighOrder::Compaction), |rig| {
        let (file, device) = rig.file(1, 4096);
        fill(&file, 4096, &mut Rng::new(3, 1));
        let mut written = Vec::new();
        let mut rng = Rng::new(3, 2);
        for i in 0..200u64 {
            let n = rng.below(4096);
            let page = vec![i as u8; PAGE as usize];
            file.write_at(&page, n * PAGE).unwrap();
            written.retain(|(m, _)| *m != n);
            written.push((n, page));
        }
        let before = rig.stat("pgmigrate_success");
        let mut blocks = Vec::new();
        for _ in 0..6 {
            blocks.extend(rig.engine.alloc_block(4, BlockOptions::patient()));
        }
        assert!(rig.stat("pgmigrate_success") > before, "nothing moved");
        file.sync_data().unwrap();
        let on_device = device.visible();
        for (n, page) in &written {
            let at = (n * PAGE) as usize;
            assert!(on_device[at..at + page.len()] == *page, "page {n}");
        }
        rig.at_rest();
    });
}

/// On request pages move together, none is given up, and what was in pieces is in blocks; no frame is left behind (COMPACT-4).
#[test]
fn compact_memory_gives_up_no_page() {
    lab(10, 2048, with(HighOrder::Lumpy), |rig| {
        let (file, _device) = rig.file(1, 1500);
        fill(&file, 1500, &mut Rng::new(10, 1));
        verify(&file, 1500);
        for n in 0..1500 {
            if n % 3 > 0 {
                file.evict(n * PAGE..(n + 1) * PAGE).unwrap();
            }
        }
        rig.nap(ms(100));
        let resident = rig.stat("nr_active_file") + rig.stat("nr_inactive_file");
        let misses = rig.stat("misses");
        let moved = rig.engine.compact_memory(6);
        assert!(moved > 50, "{moved}");
        assert_eq!(rig.stat("pgmigrate_success"), moved);
        assert_eq!(
            rig.stat("nr_active_file") + rig.stat("nr_inactive_file"),
            resident
        );
        assert_eq!(rig.engine.compact_memory(6), 0, "all is done");
        let mut buf = vec![0; PAGE as usize];
        for n in (0..1500).step_by(3) {
            file.read_at(&mut buf, n * PAGE).unwrap();
            assert!(buf == page_pattern(n), "page {n}");
        }
        assert_eq!(rig.stat("misses"), misses, "a page was given up");
        rig.at_rest();
        drop(file);
        rig.engine.close().unwrap();
        assert_eq!(rig.engine.compact_memory(6), 0, "closed");
    });
}

/// A page that is held keeps its frame, and so its block: neither policy takes it (COMPACT-1), and the allocation ends
/// (BLOCK-2).
#[test]
fn held_pages_stay_and_the_allocation_gives_up() {
    for policy in POLICIES {
        lab(4, 1024, with(policy), move |rig| {
            let (file, _device) = rig.file(1, 1024);
            let size = 1 << 5;
            // A page in each aligned block of 32 frames is held.
            let mut guards: Vec<Option<highwater_engine::PageRef<'_, LabWorld>>> = Vec::new();
            guards.resize_with(1024 / size, || None);
            let mut filler = Vec::new();
            while let Ok(block) = rig.engine.alloc_block(0, BlockOptions::nowait()) {
                filler.push(block);
            }
            let frames: Vec<u32> = filler.iter().map(Block::frame).collect();
            let mut page = 0;
            while let Some(block) = filler.pop() {
                let slot = &mut guards[block.frame() as usize / size];
                drop(block);
                if slot.is_none() {
                    // The frame freed last is the one that the page gets, or one beside it.
                    *slot = Some(file.page(PageNo(page)).unwrap());
                    page += 1;
                }
            }
            assert!(frames.len() > 700 && page >= 20, "{} {page}", frames.len());
            for options in [BlockOptions::thp(), BlockOptions::patient()] {
                let (result, took) = rig.timed(|| rig.engine.alloc_block(9, options));
                let report = no_block(result);
                assert_eq!(report.order, 9);
                assert!(took <= options.timeout.plus(ms(2_000)), "{took:?}");
            }
            assert!(guards.iter().flatten().all(|g| {
                let n = g.number().0;
                g[..] == page_pattern(n)[..]
            }));
            drop(guards);
            rig.at_rest();
        });
    }
}

/// Compactions that fail are tried less and less often, until one succeeds.
#[test]
fn compaction_that_fails_is_deferred() {
    lab(11, 4096, with(HighOrder::Compaction), |rig| {
        let (file, _device) = rig.file(1, 6000);
        fill(&file, 6000, &mut Rng::new(11, 1));
        // Every aligned block of 64 frames has a page that is held, as good as certainly.
        let held: Vec<_> = (0..1000).map(|n| file.page(PageNo(n * 6))).collect();
        assert!(held.iter().all(Result::is_ok));
        let mut taken = Vec::new();
        let mut refused = 0;
        for _ in 0..40 {
            match rig.engine.alloc_block(6, BlockOptions::thp()) {
                Ok(block) => taken.push(block),
                Err(e) => refused += u32::from(no_block::<()>(Err(e)).order == 6),
            }
        }
        let (fails, deferred) = (rig.stat("compact_fail"), rig.stat("compact_deferred"));
        assert!(refused >= 20, "{refused}");
        assert!(
            fails > 1 && deferred > 2 * fails,
            "{fails} failed, {deferred} deferred"
        );
        drop((held, taken));
        let mut blocks = Vec::new();
        for _ in 0..200 {
            blocks.extend(rig.engine.alloc_block(6, BlockOptions::thp()));
            if blocks.len() > 8 {
                blocks.clear();
                fill(&file, 1024, &mut Rng::new(11, 2));
            }
        }
        assert!(rig.stat("compact_success") > 0, "it never succeeded again");
        verify(&file, 6000);
    });
}

#[test]
fn nowait_takes_what_is_there_and_never_sleeps() {
    lab(5, 1024, with(HighOrder::Compaction), |rig| {
        let (file, _device) = rig.file(1, 2048);
        let (block, took) = rig.timed(|| rig.engine.alloc_block(3, BlockOptions::nowait()));
        assert!(block.is_ok() && took < ms(1), "{took:?}");
        drop(block);
        fill(&file, 2048, &mut Rng::new(5, 1));
        let allocstall = rig.stat("allocstall");
        let (refused, took) = rig.timed(|| {
            let mut blocks = Vec::new();
            loop {
                match rig.engine.alloc_block(3, BlockOptions::nowait()) {
                    Ok(block) => blocks.push(block),
                    refused => return no_block(refused),
                }
            }
        });
        assert!(took < ms(1), "{took:?}");
        assert_eq!((refused.reclaimed, refused.order), (0, 3));
        assert_eq!(rig.stat("allocstall"), allocstall, "direct reclaim");
        assert_eq!(rig.stat("compact_stall"), 0);
        assert_eq!(rig.stat("block_alloc_failed"), 1);
    });
}

/// A huge page that is not there is nobody's business but the caller's: kswapd sleeps on. Who says that it needs the block
/// wakes kswapd for its order.
#[test]
fn thp_leaves_kswapd_alone() {
    lab(6, 4096, with(HighOrder::Compaction), |rig| {
        let (file, _device) = rig.file(1, 6000);
        fill(&file, 6000, &mut Rng::new(6, 1));
        rig.nap(ms(500));
        let (wakes, runs) = (rig.stat("wakeup_kswapd"), rig.stat("pageoutrun"));
        let stalls = rig.stat("allocstall");
        let mut blocks = Vec::new();
        let mut failed = 0;
        for _ in 0..8 {
            match rig.engine.alloc_block(7, BlockOptions::thp()) {
                Ok(block) => blocks.push(block),
                Err(_) => failed += 1,
            }
        }
        assert!(
            rig.stat("allocstall") - stalls <= 8,
            "more than one reclaim each"
        );
        assert_eq!(rig.stat("wakeup_kswapd"), wakes, "{failed} failed");
        assert_eq!(rig.stat("pageoutrun"), runs);
        rig.nap(ms(500));
        let options = BlockOptions {
            wake_kswapd: true,
            wait: BlockWait::Never,
            timeout: Nanos(0),
        };
        while let Ok(block) = rig.engine.alloc_block(7, options) {
            blocks.push(block);
        }
        rig.nap(ms(500));
        assert!(rig.stat("wakeup_kswapd") > wakes);
        assert!(
            rig.stat("pageoutrun") > runs,
            "kswapd did not run for the order"
        );
        drop(blocks);
        rig.at_rest();
    });
}

/// kswapd makes the block that somebody rang for, in the background.
#[test]
fn kswapd_works_for_the_order() {
    for policy in POLICIES {
        lab(7, 4096, with(policy), move |rig| {
            let (file, _device) = rig.file(1, 6000);
            fill(&file, 6000, &mut Rng::new(7, 1));
            rig.nap(ms(500));
            let mut first = None;
            while first.is_none() {
                // Takes what is there, until there is none.
                match rig.engine.alloc_block(6, BlockOptions::nowait()) {
                    Ok(block) => drop(first.replace(block)),
                    Err(_) => break,
                }
            }
            let mut blocks: Vec<_> = first.into_iter().collect();
            while let Ok(block) = rig.engine.alloc_block(6, BlockOptions::nowait()) {
                blocks.push(block);
            }
            rig.nap(ms(1_000));
            let block = rig.engine.alloc_block(6, BlockOptions::nowait());
            assert!(block.is_ok(), "{policy:?}: kswapd made none: {block:?}");
            let compacted = rig.stat("compact_daemon_wake") > 0;
            assert_eq!(compacted, policy == HighOrder::Compaction, "{policy:?}");
            verify(&file, 6000);
        });
    }
}

/// kswapd does not turn memory over for a block that cannot be had.
#[test]
fn kswapd_gives_up_on_an_order_that_cannot_be_had() {
    for policy in POLICIES {
        lab(8, 2048, with(policy), move |rig| {
            let (file, _device) = rig.file(1, 4096);
            fill(&file, 4096, &mut Rng::new(8, 1));
            // A frame of each 2 MiB belongs to somebody.
            let mut held: Vec<Option<Block<LabWorld>>> = (0..4).map(|_| None).collect();
            let mut others = Vec::new();
            for _ in 0..4096 {
                let Ok(block) = rig.engine.alloc_block(0, BlockOptions::patient()) else {
                    break;
                };
                match &mut held[block.frame() as usize / 512] {
                    slot @ None => *slot = Some(block),
                    Some(_) => others.push(block),
                }
                if held.iter().all(Option::is_some) {
                    break;
                }
                if others.len() > 600 {
                    others.clear();
                    fill(&file, 512, &mut Rng::new(8, 2));
                }
            }
            drop(others);
            let whole = held.iter().take(3).all(Option::is_some);
            assert!(whole, "a huge page could still be had");
            rig.nap(ms(500));
            let dropped = rig.stat("kswapd_order_dropped");
            no_block(rig.engine.alloc_block(9, BlockOptions::nowait()));
            rig.nap(ms(2_000));
            assert!(
                rig.stat("kswapd_order_dropped") > dropped,
                "{policy:?}: still at it"
            );
            let runs = rig.stat("pageoutrun");
            rig.nap(ms(5_000));
            assert!(rig.stat("pageoutrun") <= runs + 1, "{policy:?}: it goes on");
            verify(&file, 4096);
        });
    }
}

/// Blocks leave the reserve to single frames (ZONE-4, ZONE-5), and are named where memory is out.
#[test]
fn blocks_leave_the_reserve_and_are_in_the_report() {
    let tune = |config: &mut Config| {
        config.alloc_timeout = ms(300);
        config.readahead_max = 0;
    };
    lab(9, 1024, tune, |rig: Rig| {
        let mut blocks = Vec::new();
        while let Ok(block) = rig.engine.alloc_block(2, BlockOptions::patient()) {
            blocks.push(block);
        }
        while let Ok(block) = rig.engine.alloc_block(0, BlockOptions::patient()) {
            blocks.push(block);
        }
        let (file, device) = rig.file(1, 8);
        let mut buf = vec![0; PAGE as usize];
        let mut error = None;
        for n in 0..8 {
            error = error.or(file.read_at(&mut buf, n * PAGE).err());
        }
        let frames = rig.engine.stats().frames;
        match error {
            Some(Error::OutOfMemory(report)) => {
                assert!(report.blocks > frames * 8 / 10, "{report}");
                assert!(report.to_string().contains("in blocks"), "{report}");
                assert!(report.free > 0, "the reserve is eaten: {report}");
            }
            other => panic!("expected to be out of memory, got {other:?}"),
        }
        drop(blocks);
        rig.works(&file, &device);
    });
}

/// A disk that does not answer: whoever asks for a block is told in time, whatever the policy, and gets one afterwards (BLOCK-2).
#[test]
fn a_hung_disk_does_not_hold_who_asks_for_a_block() {
    for preset in Preset::ALL {
        for policy in POLICIES {
            let tune = move |config: &mut Config| {
                config.policy = preset.policy();
                config.policy.throttle = Throttle::Off;
                with(policy)(config);
            };
            lab(12, 512, tune, move |rig| {
                let (file, _device) = rig.file(1, 1024);
                rig.disk.hang_next(IoOp::Write, 10_000);
                // All of memory is dirty, or being written.
                let other = file.clone();
                let writer = rig.spawn("writer", move || {
                    (0..1024).all(|n| other.write_at(&[7; 4096], n * PAGE).is_ok())
                });
                rig.nap(ms(300));
                assert!(!writer.ended(), "memory is not full");
                let mut options = BlockOptions::patient();
                options.timeout = ms(300);
                for _ in 0..3 {
                    let (result, took) = rig.timed(|| rig.engine.alloc_block(5, options));
                    let report = no_block(result);
                    assert!(took <= ms(700), "{preset} {policy:?}: {took:?}");
                    assert!(report.waited <= took, "{report:?}");
                }
                while !writer.ended() {
                    rig.disk.release_hung();
                    rig.nap(ms(5));
                }
                assert!(rig.join(writer, ms(1)), "a write failed");
                rig.disk.hang_next(IoOp::Write, 0);
                rig.disk.release_hung();
                file.sync_data().unwrap();
                let mut block = rig.engine.alloc_block(5, BlockOptions::patient());
                if policy == HighOrder::Lumpy {
                    // A costly order is given up once as many frames were reclaimed, wherever they lie: kswapd goes on.
                    for _ in 0..2 {
                        rig.nap(ms(10));
                        block =
                            block.or_else(|_| rig.engine.alloc_block(5, BlockOptions::patient()));
                    }
                }
                assert!(block.is_ok(), "{preset} {policy:?}: {block:?}");
            });
        }
    }
}

/// Counters that the seeds below must raise, so that each path of blocks has been taken beside everything else.
const REACHED: [Event; 15] = [
    Event::BlockAlloc,
    Event::BlockAllocFailed,
    Event::BlockStallNs,
    Event::BlockReclaimed,
    Event::LumpyTaken,
    Event::LumpyFailed,
    Event::PgreclaimLumpy,
    Event::KswapdOrderDropped,
    Event::CompactStall,
    Event::CompactFail,
    Event::CompactMigrateScanned,
    Event::CompactFreeScanned,
    Event::CompactIsolated,
    Event::PgmigrateSuccess,
    Event::PgmigrateFail,
];

#[test]
fn seeds_lose_no_byte_whatever_moves() {
    let mut sums = [0; REACHED.len()];
    let (mut blocks, mut failed) = (0, 0);
    for seed in 0..21 {
        let left = blocks::run(seed, |_| {});
        for (sum, event) in sums.iter_mut().zip(REACHED) {
            *sum += left.stats.event(event);
        }
        blocks += left.blocks;
        failed += left.failed;
    }
    let reached: Vec<_> = REACHED.iter().map(|e| e.name()).zip(sums).collect();
    println!("{blocks} blocks, {failed} operations that failed; {reached:?}");
    assert!(reached.iter().all(|(_, n)| *n > 0), "{reached:?}");
    assert!(failed > 0, "no fault was met");
}

#[test]
fn a_seed_repeats() {
    assert_eq!(blocks::run(5, |_| {}), blocks::run(5, |_| {}));
}
