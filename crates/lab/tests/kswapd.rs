//! How often a ring for kswapd counts.

mod common;

use common::{PAGE, lab, open_sparse};
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
