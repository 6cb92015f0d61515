//! Which CPU a woken task gets, and what interrupts take.

use super::*;
use std::cell::Cell;

fn ms(n: u64) -> Nanos {
    Nanos::from_millis(n)
}

fn world(wake_affine: bool, interrupt: u64) -> Arc<LabWorld> {
    LabWorld::new(LabOptions {
        cpus: 2,
        wake_affine,
        costs: Costs {
            copy: 1_000,
            interrupt,
            ..Costs::default()
        },
        ..LabOptions::calm(1)
    })
}

fn work(w: &LabWorld, ms: u32) {
    for _ in 0..ms * 1_000 {
        w.charge(Work::Copy, 1);
    }
}

/// How long a task's 10 ms of work take when it wakes another, which works as long; the other CPU has been idle for `idle` us.
fn waker_takes(wake_affine: bool, idle: u32) -> Nanos {
    let world = world(wake_affine, 0);
    let w = world.clone();
    let run = world.run(move || {
        let took = Rc::new(Cell::new(Nanos::ZERO));
        let w2 = w.clone();
        let woken = w.spawn_local("woken", move || {
            w2.park(ms(10_000));
            work(&w2, 10);
        });
        let w2 = w.clone();
        let other = w.spawn_local("other", move || work(&w2, 200));
        let (w2, out) = (w.clone(), took.clone());
        let waker = w.spawn_local("waker", move || {
            work(&w2, 200);
            (0..idle).for_each(|_| w2.charge(Work::Copy, 1));
            let begin = w2.now();
            w2.unpark(woken);
            work(&w2, 10);
            out.set(w2.now().since(begin));
        });
        for t in [woken, other, waker] {
            assert!(w.join(t, ms(1_000_000)));
        }
        took.get()
    });
    run.value
}

#[test]
fn a_woken_task_pre_empts_its_waker_beside_a_cpu_that_its_host_has_put_to_sleep() {
    let halted = (placement::HALTED_NS / 1_000) as u32;
    assert_eq!(waker_takes(false, 1_000), ms(10), "it runs where nobody is");
    assert_eq!(
        waker_takes(true, halted - 10),
        ms(10),
        "the other CPU is seen"
    );
    // Until a tick finds the waiting one's caches cold: then the idle CPU takes it.
    let took = waker_takes(true, halted + 10);
    let least = Nanos(10_000_000 + placement::CACHE_HOT_NS);
    let most = least.plus(Nanos(2 * runqueue::TICK_NS));
    assert!(took >= least && took < most, "{took:?}");
}

#[test]
fn an_interrupt_wakes_for_its_own_cpu_and_sees_a_halted_one_after_a_tick_only() {
    let mut p = placement::Placement::new(2);
    (0..2).for_each(|task| p.add(task, 0));
    for (cpu, task) in [(0, 0), (1, 1)] {
        assert_eq!(p.dispatch(0), Some((cpu, task)));
    }
    let sleep = |p: &mut placement::Placement, tasks: [usize; 2], at| {
        let cpus = [0, 1].into_iter().zip(tasks);
        cpus.for_each(|(cpu, task)| p.leave(cpu, task, true, at));
    };
    sleep(&mut p, [0, 1], 0);
    // CPU 1, where interrupts come, is idle: it keeps whom it wakes, though that one's own is idle, too.
    p.wake(0, 1, 10);
    assert_eq!(p.dispatch(10), Some((1, 0)));
    p.wake(1, 1, 10);
    assert_eq!(p.dispatch(10), Some((0, 1)), "its own is taken");
    sleep(&mut p, [1, 0], 20);
    let halted = |since| since + placement::HALTED_NS + 1;
    let late = halted(20);
    p.wake(1, 1, late);
    assert_eq!(p.dispatch(late), Some((1, 1)));
    // Both were on CPU 1 last, and CPU 0 has been idle for too long to be seen.
    p.wake(0, 1, late);
    assert_eq!(p.dispatch(late), None);
    // The first tick: who waits has hot caches and stays.
    let tick = late + 20_000;
    p.ran(1, 0, tick);
    p.leave(1, 1, true, tick);
    assert_eq!(p.dispatch(tick), Some((1, 0)));
    p.wake(1, 1, halted(tick));
    assert_eq!(p.dispatch(halted(tick)), Some((0, 1)), "it is called");
}

#[test]
fn a_cpu_that_has_nothing_to_do_any_more_takes_who_waits_elsewhere_with_cold_caches() {
    for (ago, taken) in [(100_000, false), (600_000, true)] {
        let mut p = placement::Placement::new(2);
        // Tasks 0 and 1 have a CPU each, and 2 waits beside 0, which then waits beside 2.
        (0..3).for_each(|task| p.add(task, 0));
        assert_eq!([p.dispatch(0), p.dispatch(0)], [Some((0, 0)), Some((1, 1))]);
        let then = 1_000_000;
        p.ran(0, then, then);
        p.leave(0, 0, false, then);
        assert_eq!(p.dispatch(then), Some((0, 2)));
        p.leave(1, 1, true, then + ago);
        assert_eq!(p.dispatch(then + ago), taken.then_some((1, 0)), "{ago}");
    }
}

/// What became of a task: its CPU, and how often it was on another than before.
#[derive(Clone, Copy, Default, Debug)]
struct Fate {
    cpu_ms: u64,
    moves: u32,
}

/// Runs tasks that work for so long and sleep for so long, again and again for two seconds (microseconds; no sleep is none).
fn fates<const N: usize>(tasks: [(u32, u64); N]) -> [Fate; N] {
    let world = world(true, 0);
    let w = world.clone();
    let run = world.run(move || {
        let moves = Rc::new(Cell::new([0; N]));
        let ids: Vec<TaskId> = (0..N)
            .map(|i| {
                let (w, moves, (works, sleeps)) = (w.clone(), moves.clone(), tasks[i]);
                w.clone().spawn_local(&format!("task{i}"), move || {
                    let mut cpu = w.cpu();
                    while w.now() < ms(2_000) {
                        for _ in 0..works {
                            w.charge(Work::Copy, 1);
                            if std::mem::replace(&mut cpu, w.cpu()) != cpu {
                                let mut all = moves.get();
                                all[i] += 1;
                                moves.set(all);
                            }
                        }
                        if sleeps > 0 {
                            w.park(w.now().plus(Nanos(sleeps * 1_000)));
                        }
                    }
                })
            })
            .collect();
        for id in ids {
            assert!(w.join(id, ms(10_000)));
        }
        moves.get()
    });
    std::array::from_fn(|i| Fate {
        cpu_ms: world.cpu_ns(&format!("task{i}")) / 1_000_000,
        moves: run.value[i],
    })
}

#[test]
fn who_never_sleeps_has_a_cpu_and_those_that_do_share_the_other() {
    // As a reader, a writer and a flusher were measured: 91, 49 and 43 % of a CPU.
    let all = fates([(1_000, 0), (1_000, 100), (300, 200)]);
    let [reader, writer, flusher] = all.map(|f| f.cpu_ms);
    assert!(reader > 1_800, "{all:?}");
    assert!(
        writer + flusher > 1_900 && writer + flusher < 2_100,
        "{all:?}"
    );
    assert!(writer > flusher && flusher > 700, "{all:?}");
    // 65 changes of a CPU in two seconds there.
    let moves: u32 = all.iter().map(|f| f.moves).sum();
    assert!(moves < 100, "{all:?}");
}

#[test]
fn long_work_makes_room_in_the_middle() {
    let world = world(true, 0);
    let w = world.clone();
    let run = world.run(move || {
        let waits = Rc::new(Cell::new(Nanos::ZERO));
        // Both CPUs are busy with work of 10 ms at a time.
        let busy = [0, 1].map(|_| {
            let w = w.clone();
            w.clone().spawn_local("busy", move || {
                (0..10).for_each(|_| w.charge(Work::Copy, 10_000))
            })
        });
        let (w2, out) = (w.clone(), waits.clone());
        let sleeper = w.spawn_local("sleeper", move || {
            for _ in 0..20 {
                let until = w2.now().plus(ms(2));
                w2.park(until);
                out.set(out.get().max(w2.now().since(until)));
                work(&w2, 1);
            }
        });
        for t in busy.into_iter().chain([sleeper]) {
            assert!(w.join(t, ms(1_000)));
        }
        waits.get()
    });
    // Until a slice is over and a tick sees it.
    let most = Nanos(runqueue::SLICE_NS as u64 + runqueue::TICK_NS);
    assert!(run.value <= most, "{:?}", run.value);
}

#[test]
fn three_that_never_sleep_have_two_thirds_of_a_cpu_each() {
    // Only because CPUs that are busy take from those that are busier.
    let all = fates([(1_000, 0); 3]);
    for fate in all {
        assert!((1_000..1_700).contains(&fate.cpu_ms), "{all:?}");
        assert!(fate.moves > 0 && fate.moves < 60, "{all:?}");
    }
}

#[test]
fn an_interrupt_takes_time_from_the_task_on_the_last_cpu() {
    for interrupts in [0, 10] {
        let world = world(false, 5_000);
        let w = world.clone();
        let run = world.run(move || {
            let ends = Rc::new(Cell::new([Nanos::ZERO; 2]));
            // Tasks 3 and 4, on CPUs 1 and 0.
            let tasks = [1, 0].map(|cpu| {
                let (w, ends) = (w.clone(), ends.clone());
                w.clone().spawn_local("t", move || {
                    work(&w, 1);
                    if w.cpu() == 0 {
                        (0..interrupts).for_each(|_| w.interrupt());
                    }
                    work(&w, 1);
                    let mut all = ends.get();
                    all[cpu] = w.now();
                    ends.set(all);
                })
            });
            for t in tasks {
                assert!(w.join(t, ms(1_000)));
            }
            ends.get()
        });
        let ends = run.value;
        assert_eq!(ends, [ms(2), ms(2).plus(Nanos(interrupts * 5_000))]);
        assert_eq!(world.cpu_ns("t"), 4_000_000, "it is nobody's work");
    }
}

#[test]
fn a_task_woken_on_the_idle_last_cpu_waits_for_the_interrupts_behind_its_own() {
    for (interrupts, late) in [(0, 0), (1, 0), (5, 20_000)] {
        let world = world(false, 5_000);
        let w = world.clone();
        let run = world.run(move || {
            let at = Rc::new(Cell::new(Nanos::ZERO));
            let (w2, out) = (w.clone(), at.clone());
            // Task 3, on CPU 1.
            let task = w.spawn_local("t", move || {
                w2.park(ms(1_000));
                out.set(w2.now());
            });
            w.park(ms(1));
            let begin = w.now();
            (0..interrupts).for_each(|_| w.interrupt());
            w.unpark(task);
            assert!(w.join(task, ms(2_000)));
            at.get().since(begin)
        });
        assert_eq!(run.value.0.saturating_sub(1), late, "{interrupts}");
        assert_eq!(world.cpu_ns("t"), 0, "it is nobody's work");
    }
}
