//! Highwater: see the engine.
pub use highwater_engine as engine;
