use super::*;
use std::cell::Cell;

fn ms(n: u64) -> Nanos {
    Nanos::from_millis(n)
}

/// Tasks that compute, park, wake each other and spin; the trace hash at the end.
fn busy_world(seed: u64) -> (u64, Nanos) {
    let world = LabWorld::new(LabOptions::new(seed));
    let w = world.clone();
    let run = world.run(move || {
        let tasks: Vec<_> = (0..6u64)
            .map(|n| {
                let w2 = w.clone();
                let body = move || {
                    for i in 0..50 {
                        w2.charge(Work::Copy, (n + i) as u32 % 7);
                        let now = w2.now();
                        w2.park(now.plus(Nanos(w2.random() % 10_000)));
                        w2.unpark(TaskId(2 + (w2.random() % 6) as u32));
                        w2.relax();
                    }
                };
                w.spawn("t", Box::new(body)).unwrap()
            })
            .collect();
        for t in tasks {
            assert!(w.join(t, ms(1_000)));
        }
    });
    assert!(run.leaked.is_empty());
    (run.trace, run.now)
}

#[test]
fn lab_4_a_seed_repeats_and_seeds_differ() {
    for seed in 0..10 {
        assert_eq!(busy_world(seed), busy_world(seed), "seed {seed}");
    }
    assert_ne!(busy_world(1).0, busy_world(2).0);
}

#[test]
fn unpark_before_park_is_remembered_once() {
    let world = LabWorld::new(LabOptions::calm(1));
    let w = world.clone();
    world.run(move || {
        w.unpark(w.task().id());
        w.unpark(w.task().id());
        w.park(ms(5));
        assert_eq!(w.now(), Nanos::ZERO, "WORLD-2: the token ends the park");
        w.park(ms(5));
        assert_eq!(w.now(), ms(5), "one token, one park");
    });
}

#[test]
fn park_ends_at_its_deadline_or_at_the_unpark() {
    let world = LabWorld::new(LabOptions::calm(1));
    let w = world.clone();
    world.run(move || {
        let (w2, me) = (w.clone(), w.task().id());
        let t = w.spawn_local("waker", move || {
            w2.sleep_until(ms(3));
            w2.unpark(me);
        });
        w.park(ms(10));
        assert_eq!(w.now(), ms(3));
        // A timer of the park that ended early must not end this one.
        w.park(ms(20));
        assert_eq!(w.now(), ms(20));
        assert!(w.join(t, ms(20)));
    });
}

#[test]
fn sleep_keeps_an_unpark_for_later() {
    let world = LabWorld::new(LabOptions::calm(1));
    let w = world.clone();
    world.run(move || {
        w.unpark(w.task().id());
        w.sleep_until(ms(2));
        assert_eq!(w.now(), ms(2));
        w.park(ms(9));
        assert_eq!(w.now(), ms(2));
    });
}

#[test]
fn tasks_share_virtual_cpus() {
    for (cpus, expected_us) in [(1, 45 * 4), (2, 45 * 2), (4, 45)] {
        let world = LabWorld::new(LabOptions {
            cpus,
            ..LabOptions::calm(1)
        });
        let w = world.clone();
        let run = world.run(move || {
            let tasks: Vec<_> = (0..4)
                .map(|_| {
                    let w = w.clone();
                    w.clone().spawn_local("t", move || {
                        for _ in 0..100 {
                            w.charge(Work::Copy, 1);
                        }
                    })
                })
                .collect();
            for t in tasks {
                assert!(w.join(t, ms(1_000)));
            }
        });
        assert_eq!(run.now, Nanos::from_micros(expected_us), "{cpus} CPUs");
    }
}

/// Charged work occupies a CPU: `tasks` jobs of `work` each on `cpus` CPUs, and when the last ends.
fn jobs(tasks: u64, cpus: usize, copies: u32, costs: Costs) -> Nanos {
    let world = LabWorld::new(LabOptions {
        cpus,
        costs,
        ..LabOptions::calm(1)
    });
    let w = world.clone();
    let run = world.run(move || {
        let tasks: Vec<_> = (0..tasks)
            .map(|_| {
                let w = w.clone();
                w.clone().spawn_local("t", move || {
                    for _ in 0..copies {
                        w.charge(Work::Copy, 1);
                    }
                })
            })
            .collect();
        for t in tasks {
            assert!(w.join(t, ms(1_000_000)));
        }
    });
    run.now
}

#[test]
fn work_occupies_its_cpu_to_the_nanosecond() {
    let costs = Costs {
        copy: 1_000,
        ..Costs::default()
    };
    for cpus in 1..6 {
        for tasks in 1..12u64 {
            // Shorter than a slice: whole jobs, as many rounds as it takes.
            let rounds = tasks.div_ceil(cpus as u64);
            let end = jobs(tasks, cpus, 900, costs.clone());
            assert_eq!(end, Nanos(rounds * 900_000), "{tasks} tasks, {cpus} CPUs");
            // Many slices long: the CPUs are shared evenly, within a slice for each round, and never idle too soon.
            let each = 20_000_000;
            let end = jobs(tasks, cpus, 20_000, costs.clone()).0;
            let least = (tasks * each).div_ceil(cpus as u64).max(each);
            assert!(
                (least..=rounds * each).contains(&end),
                "{tasks} tasks, {cpus} CPUs: {end}, at least {least}"
            );
        }
    }
}

/// Tasks that never wait, as many as CPUs, keep no other task off them.
#[test]
fn a_task_that_only_computes_gives_way_after_its_slice() {
    for cpus in 1..4u64 {
        let world = LabWorld::new(LabOptions {
            cpus: cpus as usize,
            ..LabOptions::calm(1)
        });
        let w = world.clone();
        let run = world.run(move || {
            let ran_at = Rc::new(Cell::new(Nanos(0)));
            let mut tasks: Vec<_> = (0..cpus)
                .map(|_| {
                    let w = w.clone();
                    w.clone().spawn_local("busy", move || {
                        // Equal pieces: the others' work ends within each of them.
                        for _ in 0..20_000 {
                            w.charge(Work::Copy, 3);
                        }
                    })
                })
                .collect();
            let (w2, at) = (w.clone(), ran_at.clone());
            tasks.push(w.spawn_local("late", move || at.set(w2.now())));
            for t in tasks {
                assert!(w.join(t, ms(1_000_000)));
            }
            ran_at.get()
        });
        assert!(run.now > ms(5), "{cpus} CPUs: the work is many slices long");
        assert!(run.value <= ms(2), "{cpus} CPUs: it ran at {:?}", run.value);
    }
}

#[test]
fn charge_pre_empts_unless_a_lock_is_held() {
    let interleaved = |ranks: u32| {
        let world = LabWorld::new(LabOptions {
            cpus: 1,
            preempt_ppm: 300_000,
            ..LabOptions::new(3)
        });
        let w = world.clone();
        world
            .run(move || {
                let inside = Rc::new(Cell::new(0));
                let met = Rc::new(Cell::new(false));
                let tasks: Vec<_> = (0..3)
                    .map(|_| {
                        let (w, inside, met) = (w.clone(), inside.clone(), met.clone());
                        w.clone().spawn_local("t", move || {
                            for _ in 0..50 {
                                w.task().lock_ranks.store(ranks, Ordering::Relaxed);
                                inside.set(inside.get() + 1);
                                w.charge(Work::Hit, 1);
                                met.set(met.get() || inside.get() > 1);
                                inside.set(inside.get() - 1);
                                w.task().lock_ranks.store(0, Ordering::Relaxed);
                                w.relax();
                            }
                        })
                    })
                    .collect();
                for t in tasks {
                    assert!(w.join(t, ms(1_000)));
                }
                met.get()
            })
            .value
    };
    assert!(interleaved(0), "a charge is a point of pre-emption");
    assert!(!interleaved(1), "LAB-3: but not under a lock");
}

/// A parked task's way back to a CPU takes time; that of a task that sleeps for a device does not.
#[test]
fn a_wake_up_costs_by_what_the_cpu_did_before() {
    let options = LabOptions {
        cpus: 1,
        costs: Costs {
            copy: 1_000_000,
            wake: 40_000,
            switch: 2_000,
            timer_slack: 500,
            ..Costs::default()
        },
        ..LabOptions::calm(1)
    };
    let world = LabWorld::new(options);
    let w = world.clone();
    let run = world.run(move || {
        w.park(ms(1));
        let idle = w.now();
        let w2 = w.clone();
        let me = w.task().id();
        let body = move || {
            w2.unpark(me);
            w2.charge(Work::Copy, 1);
        };
        w.spawn("busy", Box::new(body)).unwrap();
        w.park(ms(100));
        let busy = w.now();
        w.sleep_until(ms(50));
        (idle, busy, w.now())
    });
    let (idle, busy, slept) = run.value;
    assert_eq!(idle, Nanos(1_000_000 + 500 + 40_000));
    assert_eq!(busy, idle.plus(Nanos(1_000_000 + 2_000)));
    assert_eq!(slept, ms(50));
}

/// A deadline may come late by the slack, and no later than another timer of its CPU within that time.
#[test]
fn a_timer_takes_those_with_it_whose_time_has_come() {
    let us = Nanos::from_micros;
    let ends = |cpus: usize, deadlines: [u64; 2]| {
        let world = LabWorld::new(LabOptions {
            cpus,
            costs: Costs {
                timer_slack: 50_000,
                ..Costs::default()
            },
            ..LabOptions::calm(1)
        });
        let w = world.clone();
        let run = world.run(move || {
            let ends = Rc::new(Cell::new([Nanos::ZERO; 2]));
            let tasks: Vec<_> = (0..2)
                .map(|i| {
                    let (w, ends) = (w.clone(), ends.clone());
                    w.clone().spawn_local("t", move || {
                        w.park(us(deadlines[i]));
                        let mut all = ends.get();
                        all[i] = w.now();
                        ends.set(all);
                    })
                })
                .collect();
            for t in tasks {
                assert!(w.join(t, ms(1_000)));
            }
            ends.get()
        });
        run.value
    };
    assert_eq!(ends(1, [100, 130]), [us(150); 2], "130 has come by then");
    assert_eq!(ends(1, [100, 160]), [us(150), us(210)], "160 has not");
    assert_eq!(
        ends(2, [100, 130]),
        [us(150), us(180)],
        "another CPU's timer"
    );
}

/// Who wakes another pays for it; a device's completion does not, and its task does not pay either.
#[test]
fn waking_costs_the_waker() {
    let costs = Costs {
        unpark: 7_000,
        wake: 20_000,
        ..Costs::default()
    };
    let woken_by = |served: bool| {
        let world = LabWorld::new(LabOptions {
            costs: costs.clone(),
            ..LabOptions::calm(1)
        });
        let w = world.clone();
        let run = world.run(move || {
            let (w2, me) = (w.clone(), w.task().id());
            // Nobody sleeps there: nobody pays.
            let awake = w.spawn_local("awake", || ());
            let waker = w.spawn_local("waker", move || {
                w2.sleep_until(ms(1));
                match served {
                    true => w2.unpark_served(me),
                    false => w2.unpark(me),
                }
                w2.unpark(awake);
                w2.sleep_until(ms(2));
            });
            w.park(ms(100));
            let woken = w.now();
            assert!(w.join(waker, ms(100)));
            woken
        });
        (run.value, world.cpu_ns("waker"), world.cpu_ns(""))
    };
    let woken = Nanos(1_000_000 + 20_000);
    assert_eq!(
        woken_by(false),
        (woken, 7_000, 7_000),
        "time on an idle CPU is nobody's"
    );
    assert_eq!(woken_by(true), (ms(1), 0, 0));
}

#[test]
fn the_main_thread_waits_outside_of_run() {
    let world = LabWorld::new(LabOptions::calm(1));
    let w = world.clone();
    let me = world.task().id();
    let t = world.spawn_local("waker", move || {
        w.sleep_until(ms(4));
        w.unpark(me);
    });
    world.park(ms(50));
    assert_eq!(world.now(), ms(4));
    assert!(world.join(t, ms(50)));
    assert!(!world.join(world.spawn_local("forever", || ()), Nanos::ZERO));
}

#[test]
fn leaks_are_reported() {
    let world = LabWorld::new(LabOptions::calm(1));
    let w = world.clone();
    let run = world.run(move || {
        let w2 = w.clone();
        w.spawn_local("kswapd0", move || w2.park(Nanos::from_secs(100)));
        w.park(ms(1));
    });
    assert_eq!(run.leaked.len(), 1);
    assert!(run.leaked[0].starts_with("kswapd0 (Parked"));
}

#[test]
#[should_panic(expected = "planted")]
fn a_panic_in_a_task_reaches_the_caller() {
    let world = LabWorld::new(LabOptions::calm(1));
    let w = world.clone();
    world.run(move || {
        w.spawn_local("t", || panic!("planted"));
        w.park(ms(1));
    });
}

#[test]
#[should_panic(expected = "no end in sight")]
fn the_time_limit_names_who_waits() {
    let world = LabWorld::new(LabOptions {
        time_max: ms(10),
        ..LabOptions::calm(1)
    });
    let w = world.clone();
    world.run(move || {
        while w.now() < Nanos::from_secs(1_000) {
            w.park(w.now().plus(ms(3)));
        }
    });
}

#[test]
#[should_panic(expected = "SCHED-4: scenario goes round")]
fn sched_4_a_task_that_polls_without_working_is_named() {
    let world = LabWorld::new(LabOptions::calm(1));
    let w = world.clone();
    world.run(move || while w.now() < ms(1) {});
}

#[test]
#[should_panic(expected = "SCHED-4: scenario goes round")]
fn sched_4_so_is_one_whose_waits_have_ended_already() {
    let world = LabWorld::new(LabOptions::calm(1));
    let w = world.clone();
    world.run(move || {
        let forever = Cell::new(true);
        while forever.get() {
            w.park(ms(1));
        }
    });
}

#[test]
#[should_panic(expected = "no end in sight")]
fn work_without_end_meets_the_time_limit() {
    let world = LabWorld::new(LabOptions {
        time_max: ms(10),
        ..LabOptions::calm(1)
    });
    let w = world.clone();
    world.run(move || {
        let forever = Cell::new(true);
        while forever.get() {
            w.charge(Work::Hit, 1);
        }
    });
}

#[test]
#[should_panic(expected = "WORLD-1")]
#[cfg(debug_assertions)]
fn a_park_under_a_lock_is_refused() {
    let world = LabWorld::new(LabOptions::calm(1));
    let w = world.clone();
    world.run(move || {
        let lock = highwater_engine::sync::Lock::new(highwater_engine::sync::Rank::Lru, ());
        let _held = lock.lock(&*w);
        w.park(ms(1));
    });
}
