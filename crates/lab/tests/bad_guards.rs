//! Guards that are not given back: who waits, for how long, and with which error; and that the cache goes on after.

mod common;

use common::{PAGE, Rig, lab, ms, page_pattern};
use highwater_engine::{Error, Nanos, PageNo, Preset};

type Call<'a> = Box<dyn Fn() -> Result<(), Error> + 'a>;

fn nothing(_: &mut highwater_engine::Config) {}

/// Takes shared guards until the cache refuses; how many there are, the refusal, and how long that call took.
fn hold_all<'a>(
    rig: &Rig,
    file: &'a common::LabFile,
) -> (
    Vec<highwater_engine::PageRef<'a, highwater_lab::LabWorld>>,
    Error,
    Nanos,
) {
    let mut guards = Vec::new();
    loop {
        let (result, took) = rig.timed(|| file.page(PageNo(guards.len() as u64)));
        match result {
            Ok(guard) => guards.push(guard),
            Err(e) => return (guards, e, took),
        }
    }
}

#[test]
fn a_task_that_holds_all_pages_is_told_within_100_ms() {
    for preset in Preset::ALL {
        lab(
            1,
            256,
            |c| c.policy = preset.policy(),
            move |rig| {
                let (file, device) = rig.file(1, 1024);
                let (guards, error, took) = hold_all(&rig, &file);
                let n = guards.len() as u32;
                assert_eq!(error, Error::AllPinned { mine: n, others: 0 }, "{preset}");
                assert!(took <= ms(151), "{preset}: after {took:?}");
                for (n, guard) in guards.iter().enumerate() {
                    assert!(
                        **guard == page_pattern(n as u64),
                        "page {n} under its guard"
                    );
                }
                // Still so; and a writer gets the same answer.
                assert_eq!(
                    file.write_at(&[1; 4096], 1000 * PAGE),
                    Err(Error::AllPinned { mine: n, others: 0 })
                );
                drop(guards);
                let mut buf = [0; 4096];
                file.read_at(&mut buf, 1000 * PAGE).unwrap();
                assert!(buf[..] == page_pattern(1000)[..]);
                rig.works(&file, &device);
                rig.engine.close().unwrap();
            },
        );
    }
}

#[test]
fn who_holds_one_page_while_others_hold_the_rest_is_told_how_many() {
    lab(2, 256, nothing, |rig| {
        let (file, device) = rig.file(1, 1024);
        let (theirs, other) = (rig.clone(), file.clone());
        let holder = rig.spawn("holder", move || {
            let (guards, _, _) = hold_all(&theirs, &other);
            let n = guards.len() as u32;
            theirs.nap(ms(20_000));
            n
        });
        rig.nap(ms(1_000));
        // Page 0 is in memory: one guard of our own, then one more page.
        let mine = file.page(PageNo(0)).unwrap();
        let (result, took) = rig.timed(|| file.page(PageNo(1_000)).map(drop));
        assert!(took <= ms(151), "after {took:?}");
        let Err(Error::AllPinned { mine: 1, others }) = result else {
            panic!("{result:?}");
        };
        drop(mine);
        // Without a guard of its own a task waits for the others, and says who holds the memory when it gives up.
        let (result, took) = rig.timed(|| file.page(PageNo(1_001)).map(drop));
        let Err(Error::OutOfMemory(report)) = result else {
            panic!("{result:?}");
        };
        assert!(took <= ms(10_200), "after {took:?}");
        let n = rig.join(holder, ms(30_000));
        assert_eq!(others, n);
        assert_eq!(report.held, u64::from(n));
        rig.works(&file, &device);
        rig.engine.close().unwrap();
    });
}

#[test]
fn a_task_that_holds_all_dirty_pages_for_writing_is_told_too() {
    for preset in Preset::ALL {
        lab(
            3,
            256,
            |c| c.policy = preset.policy(),
            move |rig| {
                let (file, device) = rig.file(1, 1024);
                let mut guards = Vec::new();
                let (error, took) = loop {
                    let n = guards.len() as u64;
                    let (result, took) = rig.timed(|| file.page_mut(PageNo(n)));
                    match result {
                        Ok(mut guard) => {
                            guard.fill(n as u8);
                            guards.push(guard);
                        }
                        Err(e) => break (e, took),
                    }
                };
                let n = guards.len() as u32;
                assert_eq!(error, Error::AllPinned { mine: n, others: 0 }, "{preset}");
                let limit = ms(101).plus(preset.policy().pause_max);
                assert!(took <= limit, "{preset}: after {took:?}");
                drop(guards);
                file.sync_data().unwrap();
                let image = device.visible();
                for page in 0..n as usize {
                    assert!(image[page * 4096..][..4096] == [page as u8; 4096], "{page}");
                }
                rig.works(&file, &device);
                rig.engine.close().unwrap();
            },
        );
    }
}

#[test]
fn close_with_live_guards_says_how_many_and_leaves_the_cache_usable() {
    lab(4, 256, nothing, |rig| {
        let (file, device) = rig.file(1, 64);
        let (a, b) = (file.page(PageNo(1)).unwrap(), file.page(PageNo(2)).unwrap());
        let mut c = file.page_mut(PageNo(3)).unwrap();
        c.fill(0x33);
        assert_eq!(rig.engine.close(), Err(Error::StillPinned(3)));
        drop((a, b));
        assert_eq!(rig.engine.close(), Err(Error::StillPinned(1)));
        drop(c);
        rig.works(&file, &device);
        rig.engine.close().unwrap();
        assert!(device.visible()[3 * 4096..4 * 4096] == [0x33; 4096]);
        assert_eq!(file.page(PageNo(1)).err(), Some(Error::Closed));
        assert_eq!(file.write_at(b"x", 0), Err(Error::Closed));
        assert_eq!(file.sync_data(), Err(Error::Closed));
        assert_eq!(file.set_len(0), Err(Error::Closed));
        assert_eq!(rig.engine.close(), Err(Error::Closed));
    });
}

#[test]
#[cfg(debug_assertions)]
fn latching_ones_own_page_again_is_an_error_in_debug_builds() {
    lab(5, 256, nothing, |rig| {
        let (file, device) = rig.file(1, 64);
        let again = || {
            let same = Some(Error::SelfDeadlock { page: 7 });
            assert_eq!(file.page(PageNo(7)).err(), same);
            assert_eq!(file.page_mut(PageNo(7)).err(), same);
            assert_eq!(file.write_at(b"x", 7 * PAGE).err(), same);
            assert_eq!(file.read_at(&mut [0; 9], 7 * PAGE).err(), same);
        };
        let shared = file.page(PageNo(7)).unwrap();
        again();
        // Another handle of the same file is no way round it.
        let other = rig.open(1, &device);
        let same = Some(Error::SelfDeadlock { page: 7 });
        assert_eq!(other.page_mut(PageNo(7)).err(), same);
        drop(shared);
        let exclusive = file.page_mut(PageNo(7)).unwrap();
        again();
        drop(exclusive);
        drop(file.page(PageNo(7)).unwrap());
        rig.works(&file, &device);
        drop(other);
        rig.engine.close().unwrap();
    });
}

#[test]
fn a_page_that_another_task_holds_is_busy_after_the_latch_timeout() {
    lab(
        6,
        256,
        |c| c.latch_timeout = ms(300),
        |rig| {
            let (file, device) = rig.file(1, 64);
            for exclusive in [false, true] {
                let (theirs, other) = (rig.clone(), file.clone());
                let holder = rig.spawn("holder", move || {
                    if exclusive {
                        let mut guard = other.page_mut(PageNo(9)).unwrap();
                        guard.fill(0x99);
                        theirs.nap(ms(5_000));
                    } else {
                        let guard = other.page(PageNo(9)).unwrap();
                        theirs.nap(ms(5_000));
                        assert!(*guard == page_pattern(9), "changed under a shared guard");
                    }
                });
                rig.nap(ms(1));
                let mut calls: Vec<(&str, Call<'_>)> = vec![
                    ("page_mut", Box::new(|| file.page_mut(PageNo(9)).map(drop))),
                    ("write_at", Box::new(|| file.write_at(b"x", 9 * PAGE))),
                    ("set_len", Box::new(|| file.set_len(9 * PAGE + 5))),
                ];
                if exclusive {
                    calls.push(("page", Box::new(|| file.page(PageNo(9)).map(drop))));
                    calls.push((
                        "read_at",
                        Box::new(|| file.read_at(&mut [0; 5], 9 * PAGE).map(drop)),
                    ));
                    calls.push(("sync_data", Box::new(|| file.sync_data())));
                }
                for (what, call) in calls {
                    let (result, took) = rig.timed(call);
                    let Err(Error::Busy { page: 9, waited }) = result else {
                        panic!("{what}: {result:?}");
                    };
                    assert!(waited >= ms(300) && took <= ms(310), "{what}: {took:?}");
                    // The one that gave up keeps nobody out.
                    if !exclusive {
                        drop(file.page(PageNo(9)).expect("readers share"));
                    }
                }
                rig.join(holder, ms(6_000));
                assert_eq!(file.len(), 64 * PAGE);
            }
            file.sync_data().unwrap();
            assert!(device.visible()[9 * 4096..10 * 4096] == [0x99; 4096]);
            rig.works(&file, &device);
            rig.engine.close().unwrap();
        },
    );
}

#[test]
fn a_guard_outlives_a_shrink_is_charged_until_dropped_and_then_freed() {
    lab(7, 256, nothing, |rig| {
        let (file, device) = rig.file(1, 64);
        rig.at_rest();
        let free = rig.stat("nr_free_pages") + rig.stat("nr_unpopulated");
        let guard = file.page(PageNo(40)).unwrap();
        file.set_len(10 * PAGE).unwrap();
        assert!(*guard == page_pattern(40), "still readable");
        rig.at_rest();
        let now = rig.stat("nr_free_pages") + rig.stat("nr_unpopulated");
        assert_eq!(free - now, 1, "the orphan is charged");
        assert_eq!(rig.engine.close(), Err(Error::StillPinned(1)));
        // Grown again, the page is another one, of zeroes, beside the orphan.
        file.set_len(64 * PAGE).unwrap();
        let (theirs, other) = (rig.clone(), file.clone());
        let reader = rig.spawn("reader", move || {
            let guard = other.page(PageNo(40)).unwrap();
            assert!(guard.iter().all(|b| *b == 0), "grown pages read as zeroes");
            drop(guard);
            other.evict(0..u64::MAX).unwrap();
            theirs.at_rest();
        });
        rig.join(reader, ms(5_000));
        assert!(*guard == page_pattern(40), "still readable");
        drop(guard);
        rig.at_rest();
        let now = rig.stat("nr_free_pages") + rig.stat("nr_unpopulated");
        assert_eq!(free, now, "the orphan is freed");
        rig.works(&file, &device);
        rig.engine.close().unwrap();
    });
}

#[test]
fn an_exclusive_guard_beyond_the_new_end_writes_nothing() {
    lab(8, 256, nothing, |rig| {
        let (file, device) = rig.file(1, 64);
        let mut guard = file.page_mut(PageNo(40)).unwrap();
        guard.fill(0x44);
        file.set_len(10 * PAGE).unwrap();
        guard.fill(0x55);
        file.sync_data().unwrap();
        assert_eq!(device.visible().len() as u64, 10 * PAGE);
        assert_eq!(rig.stat("nr_dirty"), 0);
        drop(guard);
        file.sync_data().unwrap();
        file.set_len(64 * PAGE).unwrap();
        let mut buf = [1; 4096];
        file.read_at(&mut buf, 40 * PAGE).unwrap();
        assert_eq!(buf, [0; 4096]);
        file.sync_data().unwrap();
        assert!(device.visible()[40 * 4096..41 * 4096] == [0; 4096]);
        rig.works(&file, &device);
        rig.engine.close().unwrap();
    });
}

/// Bytes beyond the end, written through a guard of the last page, are not kept.
#[test]
fn bytes_beyond_the_end_written_through_a_guard_read_as_zeroes_when_the_file_grows() {
    lab(9, 256, nothing, |rig| {
        let device = rig.device(2 * PAGE + 100);
        let file = rig.open(1, &device);
        file.page_mut(PageNo(2)).unwrap().fill(0x66);
        file.sync_data().unwrap();
        assert_eq!(device.visible().len() as u64, 2 * PAGE + 100);
        file.set_len(3 * PAGE).unwrap();
        let guard = file.page(PageNo(2)).unwrap();
        assert!(guard[..100].iter().all(|b| *b == 0x66));
        assert!(
            guard[100..].iter().all(|b| *b == 0),
            "zeroes beyond the old end"
        );
        drop(guard);
        rig.works(&file, &device);
        rig.engine.close().unwrap();
    });
}

/// Held pages stay, and all others go: an evict waits for no guard, its own task's or another's.
#[test]
fn an_evict_leaves_held_pages_where_they_are() {
    lab(
        8,
        256,
        |c| c.latch_timeout = ms(300),
        |rig| {
            let (file, device) = rig.file(1, 64);
            for n in 0..32 {
                file.write_at(&[n as u8; 4096], n * PAGE).unwrap();
            }
            let (theirs, other) = (rig.clone(), file.clone());
            let holder = rig.spawn("holder", move || {
                let mut guard = other.page_mut(PageNo(9)).unwrap();
                theirs.nap(ms(5_000));
                guard.fill(0x99);
            });
            rig.nap(ms(1));
            let mut own = file.page_mut(PageNo(11)).unwrap();
            let read = file.page(PageNo(13)).unwrap();
            let (dropped, took) = rig.timed(|| file.evict(0..u64::MAX));
            assert_eq!(dropped, Ok(29), "32 pages without the three");
            assert!(took < ms(100), "waited for a guard: {took:?}");
            assert_eq!(rig.stat("nr_dirty"), 2);
            own.fill(0x88);
            assert!(read.iter().all(|b| *b == 13));
            drop((own, read));
            rig.join(holder, ms(6_000));
            assert_eq!(file.evict(0..u64::MAX), Ok(3));
            let image = device.visible();
            for (n, byte) in [(9, 0x99), (11, 0x88), (13, 13), (31, 31)] {
                assert!(image[n * 4096..][..4096] == [byte; 4096], "page {n}");
            }
            rig.works(&file, &device);
            rig.engine.close().unwrap();
        },
    );
}
