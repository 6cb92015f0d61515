//! The lab: Highwater's engine on coroutines, in virtual time, on device models with seeded faults, beside a byte-exact
//! shadow of every file.
//!
//! The engine that runs here is the one that runs on threads and io_uring; only the [`World`] is another. A seed draws
//! the options, the schedule, the devices' moods and the workload, and repeats them exactly.
//!
//! # An order of pages of your own
//!
//! [`PageOrder`] is what decides which page is tried for reclaim first. A crate that depends on this one alone can have
//! another (`examples/plain_lru.rs` is a longer one):
//!
//! ```
//! use highwater_lab::engine::backing::PlainBacking;
//! use highwater_lab::engine::{Config, Engine, FileId, FileOptions};
//! use highwater_lab::*;
//! use std::sync::Arc;
//!
//! /// A clock: first in, first out, with a second chance for a page that was used meanwhile.
//! #[derive(Default)]
//! struct Clock(List);
//!
//! impl PageOrder for Clock {
//!     fn name(&self) -> &'static str {
//!         "clock"
//!     }
//!     fn insert(&mut self, frames: Frames<'_>, frame: FrameNo, _active: bool) {
//!         self.0.push_head(&frames, frame);
//!     }
//!     fn isolate(&mut self, frames: Frames<'_>, out: &mut [FrameNo]) -> Isolated {
//!         let (mut taken, mut looked) = (0, 0);
//!         while taken < out.len() && looked < 4 * out.len() {
//!             let Some(frame) = self.0.pop_tail(&frames) else { break };
//!             looked += 1;
//!             if frames.take_references(frame) > 0 {
//!                 self.0.push_head(&frames, frame);
//!             } else {
//!                 out[taken] = frame;
//!                 taken += 1;
//!             }
//!         }
//!         Isolated { taken, looked }
//!     }
//!     fn putback(&mut self, frames: Frames<'_>, frame: FrameNo, reason: Reason) {
//!         match reason {
//!             Reason::Gone | Reason::Written => self.0.push_tail(&frames, frame),
//!             _ => self.0.push_head(&frames, frame),
//!         }
//!     }
//!     fn remove(&mut self, frames: Frames<'_>, frame: FrameNo) {
//!         self.0.remove(&frames, frame);
//!     }
//!     fn lengths(&self) -> Lengths {
//!         let (inactive, candidates) = (self.0.len(), self.0.len());
//!         Lengths { inactive, candidates, ..Lengths::default() }
//!     }
//!     fn check_invariants(&self, frames: Frames<'_>) {
//!         self.0.check_invariants(&frames);
//!     }
//! }
//!
//! /// Pages that 2,000 reads of 8 MiB read from the disk, through 2 MiB.
//! fn misses(order: Order) -> u64 {
//!     let world = LabWorld::new(LabOptions::calm(7));
//!     let queue = LabQueue::new(&world, QueueOptions::default());
//!     let device = RamDevice::new(&queue, RamOptions { len: 8 << 20, ..RamOptions::default() });
//!     let inner = world.clone();
//!     let run = world.run(move || {
//!         let engine = Engine::new(inner, Config { order, ..Config::new(2 << 20) }).unwrap();
//!         let (id, backing) = (FileId { dev: 1, ino: 1 }, Arc::new(PlainBacking::new(device)));
//!         let file = engine.open(id, backing, FileOptions { write: false }).unwrap();
//!         let mut random = Rng::new(7, 0);
//!         let mut page = [0; 4096];
//!         for _ in 0..2_000 {
//!             let span = 1 + random.below(2_048);
//!             file.read_at(&mut page, random.below(span) * 4096).unwrap();
//!         }
//!         engine.check_invariants();
//!         let misses = engine.stats().get("misses");
//!         drop(file);
//!         engine.close().unwrap();
//!         misses
//!     });
//!     run.value
//! }
//!
//! let (clock, two_list) = (misses(Order::custom(|_| Clock::default())), misses(Order::TwoList));
//! assert!(clock > 0 && two_list > 0);
//! println!("clock {clock}, two-list {two_list}");
//! ```
//!
//! [`World`]: highwater_engine::World
#![deny(unsafe_code)]

mod cell;
pub mod crash;
pub mod device;
pub mod rng;
mod sampler;
pub mod shadow;
pub mod soak;
pub mod stack;
mod trace;
mod world;

pub use device::{
    Cap, FaultRates, LabQueue, Model, Moment, QueueOptions, RamDevice, RamOptions, Rule, model,
};
/// The engine that runs here.
pub use highwater_engine as engine;
pub use highwater_engine::{
    FrameNo, Frames, Ghosts, Isolated, Lengths, Links, List, Order, PageId, PageOrder, Reason,
    Refilled,
};
pub use rng::Rng;
pub use sampler::Sampler;
pub use shadow::{Mismatch, Shadow};
pub use trace::TraceHash;
pub use world::{Costs, LabArena, LabOptions, LabWorld, Run};
