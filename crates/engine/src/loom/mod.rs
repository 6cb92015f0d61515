//! Models that loom runs through every interleaving and every value a weak load may see, within a bound.
//!
//! The whole engine is in them, with the real words, locks, tables and functions; only the world is small: a task is a
//! loom thread, the clock stands still unless a model moves it, kswapd and the flusher do not run. The bytes of a frame
//! are told to loom (`Memory::bytes`), so two accesses that nothing orders are found even where they do not collide.
//!
//! **Bound.** At most [`PREEMPTIONS`] (or [`PREEMPTIONS_LONG`]) preemptions in one execution: a bug that needs more is not found. Atomics of
//! `sync::hint` (statistics, single-writer fields) are std's and are not explored.
//!
//! Run by `RUSTFLAGS="--cfg loom" cargo test -p highwater-engine --release --lib loom`.

mod compact;
mod frame;
mod mapping;
mod rig;
mod wait;
mod writeback;
mod zone;

/// Preemptions in one execution, beside the switches at which a thread waits.
const PREEMPTIONS: usize = 3;

/// The same for models of many steps.
const PREEMPTIONS_LONG: usize = 2;

/// Runs a model with the usual bound.
fn model(f: impl Fn() + Send + Sync + 'static) {
    bounded(PREEMPTIONS, f);
}

/// Runs a model of many steps.
fn long_model(f: impl Fn() + Send + Sync + 'static) {
    bounded(PREEMPTIONS_LONG, f);
}

fn bounded(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    let mut builder = ::loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    builder.check(f);
}
