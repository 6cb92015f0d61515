//! The lab: Highwater's engine on coroutines, in virtual time, on device models with seeded faults, beside a byte-exact
//! shadow of every file.
//!
//! The engine that runs here is the one that runs on threads and io_uring; only the [`World`] is another. A seed draws
//! the options, the schedule, the devices' moods and the workload, and repeats them exactly.
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
