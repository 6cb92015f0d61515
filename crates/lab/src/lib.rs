//! The lab world.
pub use highwater_engine as engine;
