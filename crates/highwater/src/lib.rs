//! Highwater.
pub use highwater_engine as engine;
pub use highwater_engine::Error;
pub mod device;
pub mod world;
pub use device::{DirectIo, FileDevice, IoEngine, Limiter, OsQueue, RateLimited};
pub use world::OsWorld;
