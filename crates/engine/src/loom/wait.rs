//! Sleeping: no wake-up is lost, and a deadline takes nothing with it.

use super::{
    model,
    rig::{LoomWorld, spawn},
};
use crate::mapping::SleepLock;
use crate::trace::VmStat;
use crate::wait::{Channel, WaitTable, Waited};
use crate::world::Nanos;
use loom::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

const LATER: Nanos = Nanos::from_secs(1);

struct Table {
    waits: WaitTable,
    stat: VmStat,
    flag: AtomicU32,
    lock: SleepLock,
}

fn table(moving_clock: bool) -> (Arc<LoomWorld>, Arc<Table>) {
    let world = LoomWorld::new(moving_clock);
    let table = Table {
        waits: WaitTable::new(),
        stat: VmStat::new(),
        flag: AtomicU32::new(0),
        lock: SleepLock::new(Channel::Invalidate(1)),
    };
    (world, Arc::new(table))
}

/// WAIT-1: change, then wake; enter, then look. The clock stands still, so a lost wake-up is a deadlock.
#[test]
fn wake_against_wait() {
    model(|| {
        let (world, t) = table(false);
        let (w, u) = (world.clone(), t.clone());
        let waker = spawn(&world, 1, move || {
            for n in 1..=2 {
                // Relaxed: the table's fences do the work.
                u.flag.store(n, Ordering::Relaxed);
                u.waits.wake(&*w, Channel::Progress);
            }
        });
        for n in 1..=2 {
            let waited = t
                .waits
                .wait(&*world, &t.stat, Channel::Progress, LATER, || {
                    t.flag.load(Ordering::Relaxed) >= n
                });
            assert_eq!(waited, Waited::Ready);
        }
        waker.join().expect("no panic");
        assert!(t.waits.is_empty());
    });
}

/// A sleeping lock is held by one at a time, and each who waits gets it.
#[test]
fn sleep_lock_excludes_and_wakes() {
    model(|| {
        let (world, t) = table(false);
        let cell = loom::sync::Arc::new(loom::cell::UnsafeCell::new(0));
        let (w, u, c) = (world.clone(), t.clone(), cell.clone());
        let other = spawn(&world, 1, move || {
            assert_eq!(u.lock.lock(&*w, &u.stat, &u.waits, LATER), Waited::Ready);
            c.with_mut(|_| ());
            u.lock.unlock(&*w, &u.waits);
        });
        while !t.lock.try_shared() {
            let _ = t.lock.wait_shared(&*world, &t.stat, &t.waits, LATER);
        }
        cell.with(|_| ());
        t.lock.drop_shared(&*world, &t.waits);
        other.join().expect("no panic");
        assert!(t.lock.try_shared(), "nobody holds it");
    });
}

/// A deadline beside the release: the lock is taken or it is not, and the caller knows which.
#[test]
fn sleep_lock_against_time_out() {
    model(|| {
        let (world, t) = table(true);
        assert!(t.lock.try_shared());
        let (w, u) = (world.clone(), t.clone());
        let waiter = spawn(&world, 1, move || {
            if u.lock.lock(&*w, &u.stat, &u.waits, LATER) == Waited::Ready {
                u.lock.unlock(&*w, &u.waits);
            }
        });
        world.time_out(1);
        t.lock.drop_shared(&*world, &t.waits);
        waiter.join().expect("no panic");
        assert!(t.lock.try_shared(), "a lock that nobody holds is taken");
        assert!(t.waits.is_empty());
    });
}
