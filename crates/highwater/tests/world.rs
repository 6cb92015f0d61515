//! The OS world: parking, threads, panics, shutdown.

use highwater::engine::World;
use highwater::engine::world::{Nanos, TaskId};
use highwater::{IoEngine, OsWorld};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::channel;

fn soon(world: &OsWorld, ms: u64) -> Nanos {
    world.now().plus(Nanos::from_millis(ms))
}

/// Two tasks hand a token to and fro. A lost wake-up would let a park run to its deadline with the token there.
#[test]
fn ping_pong_loses_no_wake_up() {
    const ROUNDS: u32 = 20_000;
    let world = OsWorld::new(IoEngine::Threads).unwrap();
    let token = Arc::new(AtomicU32::new(0));
    let lost = Arc::new(AtomicU64::new(0));
    let (tell, told) = channel::<TaskId>();
    let main = world.task().id();
    let play = {
        let (world, token, lost) = (world.clone(), token.clone(), lost.clone());
        move |me: u32, other: TaskId| {
            for round in 0..ROUNDS {
                while token.load(Ordering::SeqCst) != 2 * round + me {
                    let until = soon(&world, 2_000);
                    world.park(until);
                    if world.now() >= until && token.load(Ordering::SeqCst) == 2 * round + me {
                        lost.fetch_add(1, Ordering::Relaxed);
                    }
                }
                token.fetch_add(1, Ordering::SeqCst);
                world.unpark(other);
            }
        }
    };
    let (inner, theirs) = (world.clone(), play.clone());
    let id = world
        .spawn(
            "pong",
            Box::new(move || {
                tell.send(inner.task().id()).unwrap();
                theirs(1, main);
            }),
        )
        .unwrap();
    assert_eq!(told.recv().unwrap(), id, "spawn returns the task's own id");
    play(0, id);
    assert!(world.join(id, soon(&world, 5_000)));
    assert_eq!(token.load(Ordering::SeqCst), 2 * ROUNDS);
    assert_eq!(lost.load(Ordering::Relaxed), 0, "WORLD-2");
}

#[test]
fn join_keeps_its_deadline_and_panics_are_kept() {
    let world = OsWorld::new(IoEngine::Threads).unwrap();
    let go = Arc::new(AtomicBool::new(false));
    let (inner, flag) = (world.clone(), go.clone());
    let id = world
        .spawn(
            "a-name-longer-than-linux-shows",
            Box::new(move || {
                while !flag.load(Ordering::Acquire) {
                    inner.relax();
                }
                panic!("on purpose");
            }),
        )
        .unwrap();
    assert!(!world.join(id, soon(&world, 20)));
    go.store(true, Ordering::Release);
    assert!(world.join(id, soon(&world, 5_000)));
    assert!(world.join(id, world.now()), "joined before: ended");
    assert_eq!(
        world.panics(),
        ["a-name-longer-than-linux-shows: on purpose"]
    );
    assert!(world.shutdown());
}

#[test]
fn random_numbers_differ_and_cpus_are_known() {
    let world = OsWorld::new(IoEngine::Auto).unwrap();
    let mut seen: Vec<u64> = (0..1000).map(|_| world.random()).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 1000);
    assert!(world.cpus() >= 1);
    assert!(world.cpu() < 4096);
    let a = world.now();
    assert!(world.now() >= a);
}
