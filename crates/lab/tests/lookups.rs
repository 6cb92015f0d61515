//! Each look-up of a page is a hit or a miss, whatever else goes on with the page meanwhile: it is being read, read ahead,
//! written, latched by another task, or it is in a frame cache's last moment.

mod common;

use common::{PAGE, lab, ms};
use highwater_engine::{Nanos, PageNo};
use highwater_lab::Rng;
use std::rc::Rc;

/// Tasks, look-ups of each, pages of memory and of the file.
const TASKS: u64 = 8;
const EACH: u64 = 700;
const MEMORY: u64 = 160;
const FILE: u64 = 400;

#[test]
fn each_look_up_is_a_hit_or_a_miss() {
    for seed in 1..=6 {
        lab(
            seed,
            MEMORY,
            |_| (),
            move |rig| {
                let (file, _device) = rig.file(1, FILE);
                let file = Rc::new(file);
                let start = (rig.stat("hits"), rig.stat("misses"));
                let jobs: Vec<_> = (0..TASKS)
                    .map(|task| {
                        let (file, engine) = (file.clone(), rig.engine.clone());
                        rig.spawn("user", move || {
                            let mut rng = Rng::new(seed, task);
                            let mut buffer = vec![task as u8; PAGE as usize];
                            for i in 0..EACH {
                                // Some go in order, and are read ahead; some to where all the others are.
                                let page = match task % 3 {
                                    0 => i % FILE,
                                    1 => rng.below(FILE),
                                    _ => rng.below(8),
                                };
                                match rng.below(5) {
                                    0 => drop(file.page(PageNo(page)).expect("a page")),
                                    1 => file.page_mut(PageNo(page)).expect("a page")[0] = 1,
                                    2 => file.write_at(&buffer, page * PAGE).expect("a write"),
                                    3 => file.write_at(&buffer[..9], page * PAGE).expect("a write"),
                                    _ => drop(
                                        file.read_at(&mut buffer, page * PAGE).expect("a read"),
                                    ),
                                }
                            }
                            engine.count_own_hits();
                        })
                    })
                    .collect();
                for job in jobs {
                    rig.join(job, Nanos::from_secs(60));
                }
                let (hits, misses) = (rig.stat("hits") - start.0, rig.stat("misses") - start.1);
                assert_eq!(
                    hits + misses,
                    TASKS * EACH,
                    "seed {seed}: {hits} and {misses}"
                );
                assert!(rig.stat("page_waits") > 50, "somebody waited for a page");
                assert!(rig.stat("readahead_pages") > 100);
            },
        );
    }
}

#[test]
fn who_waits_for_the_read_of_another_has_found_the_page() {
    lab(
        1,
        256,
        |_| (),
        |rig| {
            let (file, _device) = rig.file(1, 64);
            let file = Rc::new(file);
            let jobs: Vec<_> = (0..3)
                .map(|_| {
                    let (file, engine) = (file.clone(), rig.engine.clone());
                    rig.spawn("reader", move || {
                        drop(file.page(PageNo(40)).expect("a page"));
                        engine.count_own_hits();
                    })
                })
                .collect();
            for job in jobs {
                rig.join(job, ms(500));
            }
            assert_eq!((rig.stat("hits"), rig.stat("misses")), (2, 1));
            // Who asks has its own counted.
            for _ in 0..3 {
                drop(file.page(PageNo(40)).expect("a page"));
            }
            assert_eq!(rig.engine.stats().get("hits"), 5);
        },
    );
}
