//! What a task body needs of the world it runs in: a file to work on, and a host that has time and tasks.
//!
//! The bodies of `tasks.rs` are generic over [`Handle`] and [`Host`], so the same body runs on the engine (threads or
//! coroutines) and on Linux's own page cache.

use crate::blocks::HeldBlock;
use crate::error::{CliError, Result};
use highwater_engine::world::{Nanos, TaskBody, Work, World};
use highwater_engine::{BlockOptions, Engine, Error, File, PageNo};
use std::sync::Arc;

/// Why an operation did not happen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OpError {
    /// No memory for it: counted, and the task goes on.
    Refused,
    /// Anything else: the arm has failed.
    Failed(String),
}

impl From<Error> for OpError {
    fn from(e: Error) -> OpError {
        match e {
            Error::OutOfMemory(_) | Error::AllPinned { .. } | Error::NoBlock(_) => OpError::Refused,
            e => OpError::Failed(e.to_string()),
        }
    }
}

/// A file as a task sees it.
pub trait Handle: Clone + Send + Sync + 'static {
    /// Its length in bytes.
    fn len(&self) -> u64;
    /// Bytes of a page.
    fn page_size(&self) -> usize;
    /// Fills `buf` from `offset`.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::result::Result<(), OpError>;
    /// Writes `buf` at `offset`.
    fn write_at(&self, buf: &[u8], offset: u64) -> std::result::Result<(), OpError>;
    /// Writes `buf` at `offset`; these bytes are durable when it returns (FUA), and no others need to be.
    fn write_through(&self, buf: &[u8], offset: u64) -> std::result::Result<(), OpError> {
        self.write_at(buf, offset)?;
        self.sync()
    }
    /// Reads 8 bytes of a page in place.
    fn touch(&self, page: u64) -> std::result::Result<u64, OpError>;
    /// Changes bytes of a page in place.
    fn touch_mut(&self, page: u64, bytes: &[u8]) -> std::result::Result<(), OpError>;
    /// Makes what was written durable.
    fn sync(&self) -> std::result::Result<(), OpError>;
    /// Counts what the calling task has done and the world has not counted yet.
    fn count_own(&self) {}
    /// Takes a block of 2^order frames out of the memory that caches the file.
    fn alloc_block(&self, order: u32, thp: bool) -> std::result::Result<HeldBlock, OpError> {
        let _ = (order, thp);
        Err(OpError::Failed("there are no blocks in this world".into()))
    }
}

/// A block of an engine's memory.
pub fn block_of<W: World>(
    engine: &Arc<Engine<W>>,
    order: u32,
    thp: bool,
) -> std::result::Result<HeldBlock, OpError> {
    let options = if thp {
        BlockOptions::thp()
    } else {
        BlockOptions::patient()
    };
    Ok(Box::new(engine.alloc_block(order, options)?))
}

impl<W: World> Handle for File<W> {
    fn count_own(&self) {
        self.engine().count_own_hits();
    }
    fn len(&self) -> u64 {
        File::len(self)
    }
    fn page_size(&self) -> usize {
        self.engine().config().frame_size
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::result::Result<(), OpError> {
        File::read_at(self, buf, offset)?;
        Ok(())
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> std::result::Result<(), OpError> {
        Ok(File::write_at(self, buf, offset)?)
    }
    fn write_through(&self, buf: &[u8], offset: u64) -> std::result::Result<(), OpError> {
        File::write_at(self, buf, offset)?;
        Ok(self.sync_range(offset..offset + buf.len() as u64)?)
    }
    fn touch(&self, page: u64) -> std::result::Result<u64, OpError> {
        let page = self.page(PageNo(page))?;
        Ok(page
            .first_chunk::<8>()
            .map_or(0, |b| u64::from_le_bytes(*b)))
    }
    fn touch_mut(&self, page: u64, bytes: &[u8]) -> std::result::Result<(), OpError> {
        let mut page = self.page_mut(PageNo(page))?;
        page[..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
    fn sync(&self) -> std::result::Result<(), OpError> {
        Ok(self.sync_data()?)
    }
    fn alloc_block(&self, order: u32, thp: bool) -> std::result::Result<HeldBlock, OpError> {
        block_of(self.engine(), order, thp)
    }
}

/// How long the calling task has stood still, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TaskStall {
    /// The longest single wait since [`Host::reset_longest`].
    pub longest_ns: u64,
}

/// Time and tasks.
pub trait Host: Send + Sync + 'static {
    /// Names a started task.
    type Id: Send;
    /// Now.
    fn now(&self) -> Nanos;
    /// Sleeps until `until`.
    fn sleep_until(&self, until: Nanos);
    /// Starts a task.
    fn spawn(&self, name: &str, body: TaskBody) -> Result<Self::Id>;
    /// Waits for a task's end until `until`; true when it has ended.
    fn join(&self, id: Self::Id, until: Nanos) -> bool;
    /// Charges what a task does itself for one operation; worlds in real time need not be told.
    fn charge_task(&self) {}
    /// How the calling task stood still.
    fn stall(&self) -> TaskStall;
    /// Forgets the calling task's longest wait.
    fn reset_longest(&self);
}

/// The engine's world as a host.
pub struct WorldHost<W: World>(pub Arc<W>);

impl<W: World> Host for WorldHost<W> {
    type Id = highwater_engine::TaskId;

    fn now(&self) -> Nanos {
        self.0.now()
    }
    fn sleep_until(&self, until: Nanos) {
        while self.0.now() < until {
            self.0.park(until);
        }
    }
    fn spawn(&self, name: &str, body: TaskBody) -> Result<Self::Id> {
        self.0.spawn(name, body).map_err(|e| {
            CliError::os(
                format!("task {name}"),
                e,
                "fewer threads in the scenario, or a higher `ulimit -u`",
            )
        })
    }
    fn join(&self, id: Self::Id, until: Nanos) -> bool {
        self.0.join(id, until)
    }
    fn charge_task(&self) {
        self.0.charge(Work::Task, 1);
    }
    fn stall(&self) -> TaskStall {
        // Relaxed: written by this very task.
        let longest_ns = self
            .0
            .task()
            .stall_longest_ns
            .load(std::sync::atomic::Ordering::Relaxed);
        TaskStall { longest_ns }
    }
    fn reset_longest(&self) {
        // Relaxed: as above.
        self.0
            .task()
            .stall_longest_ns
            .store(0, std::sync::atomic::Ordering::Relaxed);
    }
}
