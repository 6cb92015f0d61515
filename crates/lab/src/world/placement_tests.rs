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

/// How long a task's 10 ms of work take when it wakes another, which works for 3 ms, after both CPUs were busy for `busy` ms;
/// the other CPU is idle from then on.
fn waker_takes(wake_affine: bool, busy: u32) -> Nanos {
    let world = world(wake_affine, 0);
    let w = world.clone();
    let run = world.run(move || {
        let took = Rc::new(Cell::new(Nanos::ZERO));
        let w2 = w.clone();
        let woken = w.spawn_local("woken", move || {
            w2.park(ms(10_000));
            work(&w2, 3);
        });
        let w2 = w.clone();
        let other = w.spawn_local("other", move || work(&w2, busy));
        let (w2, out) = (w.clone(), took.clone());
        let waker = w.spawn_local("waker", move || {
            work(&w2, busy + 1);
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
fn on_a_busy_machine_a_woken_task_pre_empts_its_waker_beside_an_idle_cpu() {
    assert_eq!(waker_takes(false, 200), ms(10), "it runs where nobody is");
    assert_eq!(
        waker_takes(true, 5),
        ms(10),
        "so it does when CPUs are searched for"
    );
    // Until the waker's caches are cold: then the idle CPU takes it.
    let took = waker_takes(true, 200);
    let least = Nanos(10_000_000 + placement::CACHE_HOT_NS);
    assert!(took >= least && took < least.plus(ms(1)), "{took:?}");
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
