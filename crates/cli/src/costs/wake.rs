//! What waking up costs: parks, unparks and timers of the OS world.

use super::measure::failed;
use crate::affinity::bind;
use crate::error::{CliError, Result};
use highwater::OsWorld;
use highwater_engine::world::{Nanos, TaskId, World};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Half a round trip of two threads that wake each other, each bound to its CPU.
pub(super) fn ping_pong(world: &Arc<OsWorld>, cpus: [usize; 2]) -> Result<f64> {
    const TURNS: u32 = 2_000;
    let turn = Arc::new(AtomicU32::new(0));
    let main = world.task().id();
    let (w, t) = (world.clone(), turn.clone());
    let body = move || {
        for i in 0..TURNS {
            // Acquire: pairs with the release of the other's turn.
            while t.load(Ordering::Acquire) != 2 * i + 1 {
                w.park(w.now().plus(Nanos::from_secs(1)));
            }
            // Release: pairs with the acquire above and below.
            t.store(2 * i + 2, Ordering::Release);
            w.unpark(main);
        }
    };
    let mut trips = Vec::new();
    beside(world, cpus, body, |other| {
        for i in 0..TURNS {
            let begin = Instant::now();
            // Release and acquire: as in the other thread.
            turn.store(2 * i + 1, Ordering::Release);
            world.unpark(other);
            while turn.load(Ordering::Acquire) != 2 * i + 2 {
                world.park(world.now().plus(Nanos::from_secs(1)));
            }
            trips.push(begin.elapsed().as_nanos() as f64);
        }
    })?;
    // The median trip: one that met another process says nothing of wake-ups.
    trips.sort_by(f64::total_cmp);
    Ok(trips[trips.len() / 2] / 2.0)
}

/// CPU of the call that wakes a thread which sleeps on the other CPU, on an idle one, in nanoseconds.
pub(super) fn unpark(world: &Arc<OsWorld>, cpus: [usize; 2]) -> Result<f64> {
    const WAKES: u32 = 300;
    let ends = Arc::new(AtomicU32::new(0));
    let (w, e) = (world.clone(), ends.clone());
    let body = move || {
        // Acquire: pairs with the release of the last wake.
        while e.load(Ordering::Acquire) == 0 {
            w.park(w.now().plus(Nanos::from_secs(1)));
        }
    };
    let mut all = Vec::new();
    beside(world, cpus, body, |sleeper| {
        for i in 0..WAKES {
            // Until it sleeps again, and its CPU has nothing to do.
            std::thread::sleep(Duration::from_micros(200));
            if i + 1 == WAKES {
                // Release: pairs with the acquire above.
                ends.store(1, Ordering::Release);
            }
            let begin = Instant::now();
            world.unpark(sleeper);
            all.push(begin.elapsed().as_nanos() as f64);
        }
    })?;
    all.sort_by(f64::total_cmp);
    Ok(all[all.len() / 2])
}

/// Runs `other` on a thread of the world's that is bound to the second CPU, and `mine` here, bound to the first.
fn beside(
    world: &Arc<OsWorld>,
    cpus: [usize; 2],
    other: impl FnOnce() + Send + 'static,
    mine: impl FnOnce(TaskId),
) -> Result<()> {
    let body = move || {
        let _bound = bind(&cpus[1..]);
        other();
    };
    let _bound = bind(&cpus[..1]);
    let task = world.spawn("costs-other", Box::new(body)).map_err(failed)?;
    mine(task);
    joined(world, task)
}

fn joined(world: &OsWorld, task: TaskId) -> Result<()> {
    if world.join(task, world.now().plus(Nanos::from_secs(10))) {
        return Ok(());
    }
    Err(CliError::failed(
        "costs: a thread did not end within 10 s",
        "a machine with less load",
    ))
}

/// How late a sleep of 300 µs ends, on a thread of the world's: those ask the kernel for no slack.
pub(super) fn late(world: &Arc<OsWorld>) -> Result<f64> {
    let (w, median) = (world.clone(), Arc::new(AtomicU64::new(0)));
    let out = median.clone();
    let body = move || {
        let mut all = Vec::new();
        for _ in 0..200 {
            let until = w.now().plus(Nanos::from_micros(300));
            while w.now() < until {
                w.park(until);
            }
            all.push(w.now().since(until).0);
        }
        all.sort_unstable();
        // Relaxed: read after the thread's end.
        out.store(all[all.len() / 2], Ordering::Relaxed);
    };
    let sleeper = world.spawn("costs-late", Box::new(body)).map_err(failed)?;
    joined(world, sleeper)?;
    // Relaxed: as above.
    Ok(median.load(Ordering::Relaxed) as f64)
}
