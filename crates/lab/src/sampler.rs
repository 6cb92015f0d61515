//! Checks the engine's invariants while something else runs in the lab.
//!
//! **Context.** A task of the lab, beside the user's: it looks between their steps, with them inside the engine.
//! **Tests.** `tests/planted.rs`: it finds a frame that is wrong.

use crate::rng::Rng;
use crate::world::LabWorld;
use highwater_engine::{Engine, Nanos, TaskId, World};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

/// The time between two looks of the sampler, in virtual time.
const SAMPLE_EVERY: Nanos = Nanos::from_millis(10);
/// Frames that it looks at each time.
const SAMPLE_FRAMES: u64 = 256;

/// A task of the lab that checks the engine's invariants on a random slice of frames, again and again, as a check of all
/// would take seconds of real time on a large machine. It charges no work: the tasks beside it lose no virtual time.
pub struct Sampler {
    task: TaskId,
    stop: Rc<Cell<bool>>,
    checks: Rc<Cell<u64>>,
}

/// How long until the next look after so many: twice as long after each 20,000, so that a trace of a week takes no minutes.
fn every(checks: u64) -> Nanos {
    let doublings = (checks / 20_000).min(20) as u32;
    Nanos(SAMPLE_EVERY.0 << doublings)
}

impl Sampler {
    /// Starts it on `world`, whose memory `engine` keeps.
    pub fn start(world: &Arc<LabWorld>, engine: &Arc<Engine<LabWorld>>, seed: u64) -> Sampler {
        let (stop, checks) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
        let (w, engine) = (world.clone(), engine.clone());
        let (stopped, done) = (stop.clone(), checks.clone());
        let mut rng = Rng::new(seed, 0x5A);
        let frames = engine.stats().frames;
        let task = world.spawn_local("sampler", move || {
            while !stopped.get() {
                let first = rng.below(frames);
                w.uninterrupted(|| engine.check_frames(first, SAMPLE_FRAMES));
                done.set(done.get() + 1);
                w.park(w.now().plus(every(done.get())));
            }
        });
        Sampler { task, stop, checks }
    }

    /// Ends it; how often it looked.
    pub fn stop(self, world: &LabWorld) -> u64 {
        self.stop.set(true);
        world.unpark(self.task);
        while !world.join(self.task, world.now().plus(SAMPLE_EVERY)) {}
        self.checks.get()
    }
}
