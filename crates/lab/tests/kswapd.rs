//! How often a ring for kswapd counts.

mod common;

use common::{PAGE, device_on, lab, ms, open_sparse};
use highwater_engine::io::IoOp;
use highwater_engine::{Config, Engine, Nanos, World};
use highwater_lab::{LabOptions, LabQueue, LabWorld, QueueOptions};

/// On one CPU a reader takes many frames below the low watermark before kswapd gets to run: the first of them wakes it,
/// the others find it awake.
#[test]
fn one_ring_wakes_kswapd_and_the_next_ones_do_not_count() {
    let world = LabWorld::new(LabOptions {
        cpus: 1,
        ..LabOptions::calm(1)
    });
    let disk = LabQueue::new(&world, QueueOptions::default());
    let pages = 64 << 8;
    let w = world.clone();
    let run = world.run(move || {
        let engine = Engine::new(w.clone(), Config::new(pages * PAGE)).expect("the engine starts");
        // All holes: reads take no time on the disk, so that the reader rarely leaves its CPU.
        let file = open_sparse(&engine, &disk, 3 * pages * PAGE, false);
        let reader = w.spawn_local("reader", move || {
            let mut byte = [0];
            for page in 0..3 * pages {
                file.read_at(&mut byte, page * PAGE).expect("a read");
            }
        });
        assert!(w.join(reader, Nanos::from_secs(600)));
        let stats = engine.stats();
        engine.close().expect("close");
        stats
    });
    let stat = |name| run.value.get(name);
    let (rings, runs) = (stat("wakeup_kswapd"), stat("pageoutrun"));
    assert!(rings > 10, "{rings} rings");
    assert!(rings <= runs, "{rings} rings for {runs} runs of kswapd");
}

/// Whoever takes a frame below the low watermark rings: kswapd frees frames as quickly as a disk fills them, and no reader
/// has to look for one itself.
#[test]
fn readers_do_not_reclaim_while_kswapd_keeps_up() {
    let tuned = |config: &mut Config| config.readahead_max = 0;
    lab(1, 2048, tuned, |rig| {
        let (file, _) = rig.file(1, 4 * 2048);
        for page in 0..4 * 2048 {
            file.read_at(&mut [0], page * PAGE).expect("a read");
        }
        assert!(rig.stat("pgsteal_kswapd") > 4096);
        assert_eq!(rig.stat("allocstall"), 0);
        rig.engine.close().expect("close");
    });
}

/// What reclaim meets under writeback it marks: once written, such pages are the next to go.
#[test]
fn pages_met_under_writeback_are_the_next_to_go() {
    let tuned = |config: &mut Config| {
        config.policy.background_percent = 1;
        config.readahead_max = 0;
    };
    lab(2, 256, tuned, |rig| {
        let (written, _) = rig.file(1, 64);
        let queue = QueueOptions {
            id: 7,
            ..QueueOptions::default()
        };
        let other = device_on(&LabQueue::new(&rig.world, queue), 1024 * PAGE);
        let read = rig.open(2, &other);
        rig.disk.hang_next(IoOp::Write, u32::MAX);
        for page in 0..60 {
            written.write_at(&[7], page * PAGE).expect("a write");
        }
        rig.nap(ms(50));
        let in_flight = rig.stat("nr_writeback");
        assert!(in_flight > 50, "{in_flight} of 60 are being written");
        for page in 0..1024 {
            read.read_at(&mut [0], page * PAGE).expect("a read");
        }
        assert_eq!(rig.stat("pgrotated"), 0);
        rig.disk.release_hung();
        rig.nap(ms(50));
        assert!(rig.stat("pgrotated") > 50, "{}", rig.stat("pgrotated"));
        rig.engine.close().expect("close");
    });
}
