//! A steady reader who waits for his disk has two whole windows on their way to him: the disk never runs short of requests.

mod common;

use common::{PAGE, lab, open_sparse};
use highwater_engine::{Config, Engine, Nanos, PageNo, World};
use highwater_lab::{Cap, LabOptions, LabQueue, LabWorld, QueueOptions};
use std::cell::Cell;
use std::rc::Rc;

const PAGES: u64 = 4096;
/// Pages of a window of the limit, and what is read ahead in all.
const WINDOW: u64 = 32;
/// A disk that the reader always waits for: a page takes it 40 us.
const SLOW: Cap = Cap {
    bytes_per_s: 100 << 20,
    iops: 0,
};

#[test]
fn two_windows_are_on_their_way_while_the_reader_waits() {
    let world = LabWorld::new(LabOptions::calm(5));
    let disk = LabQueue::new(
        &world,
        QueueOptions {
            cap: Some(SLOW),
            ..QueueOptions::default()
        },
    );
    let w = world.clone();
    let run = world.run(move || {
        let mut config = Config::new(16 << 20);
        config.readahead_max = (2 * WINDOW * PAGE) as usize;
        let engine = Engine::new(w.clone(), config).expect("the engine starts");
        let file = open_sparse(&engine, &disk, PAGES * PAGE, true);
        // A hole is not read from the disk.
        for page in 0..PAGES {
            file.write_at(&[1], page * PAGE).expect("a write");
        }
        file.sync_data().expect("a sync");
        file.evict(0..u64::MAX).expect("evicted");
        let before = engine.stats().get("pages_read");
        let consumed = Rc::new(Cell::new(0));
        let mine = consumed.clone();
        let reader = w.spawn_local("reader", move || {
            for page in 0..PAGES {
                drop(file.page(PageNo(page)).expect("a page"));
                mine.set(page + 1);
            }
        });
        let mut ahead = Vec::new();
        while consumed.get() < PAGES - 2 * WINDOW {
            w.park(w.now().plus(Nanos::from_micros(100)));
            if consumed.get() > 4 * WINDOW {
                ahead.push(engine.stats().get("pages_read") - before - consumed.get());
            }
        }
        assert!(w.join(reader, Nanos::from_secs(60)));
        engine.close().expect("close");
        ahead
    });
    let mut ahead = run.value;
    ahead.sort_unstable();
    assert!(ahead.len() > 500, "{} samples", ahead.len());
    assert_eq!(ahead.last(), Some(&(2 * WINDOW)), "no more than that");
    assert_eq!(ahead[ahead.len() / 2], 2 * WINDOW, "for most of the time");
}

/// However far one asks to read ahead, a window is at most a sixteenth of memory: there may be several streams.
#[test]
fn a_window_is_a_sixteenth_of_memory_at_most() {
    let tuned = |config: &mut Config| config.readahead_max = 8 << 20;
    lab(3, 512, tuned, |rig| {
        let (file, _) = rig.file(1, PAGES);
        let most = rig.engine.stats().frames / 16;
        for page in 0..PAGES / 4 {
            file.read_at(&mut [0; PAGE as usize], page * PAGE)
                .expect("a read");
            let ahead = rig.stat("pages_read") - page - 1;
            assert!(ahead <= 2 * most, "{ahead} ahead of page {page}");
        }
        assert!(rig.stat("readahead_pages") > PAGES / 8);
        rig.engine.close().expect("close");
    });
}
