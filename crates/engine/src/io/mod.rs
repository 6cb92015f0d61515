//! Requests: what travels between the engine and a device, and who owns the bytes meanwhile.
//!
//! A [`Request`] owns the right to touch its buffers until it is completed. It is *moved* into the device's in-flight
//! table and ends in [`Request::complete`]; one that is dropped completes with an error, so that no page stays under
//! I/O for ever.
//!
//! **Invariants.**
//! - IO-1: a frame named by a request is LOADING or WRITEBACK from before the submission to the completion; its memory
//!   is neither freed nor given to anybody else in between, so the pointers in `bufs` stay valid.
//! - IO-2: each request completes exactly once.
//!
//! **Kernel.** bio, bio_endio.

use crate::error::{IoError, IoErrorKind};
use std::fmt;
use std::sync::Arc;

/// Read or write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IoOp {
    /// From the device into frames.
    Read,
    /// From frames to the device.
    Write,
}

/// Which submission queue a request takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lane {
    /// The flusher's own: only the flusher submits to it and reaps it.
    Flusher,
    /// Everyone else's: readahead, sync, writes from reclaim. Completed by a task of the device.
    Shared,
}

/// One piece of memory of a request. A frame, or several that are neighbours in memory.
#[derive(Clone, Copy, Debug)]
pub struct IoBuf {
    /// First byte.
    pub ptr: *mut u8,
    /// Length in bytes.
    pub len: usize,
}

#[allow(unsafe_code)]
// SAFETY: IO-1: whoever holds the request that names this buffer may touch it, on any thread.
unsafe impl Send for IoBuf {}
#[allow(unsafe_code)]
// SAFETY: IO-1, as above; a shared `IoBuf` gives out only its address.
unsafe impl Sync for IoBuf {}

/// Where completions go: the engine.
pub trait IoSink: Send + Sync + 'static {
    /// Takes back a finished request. Runs in completion context: must not sleep, and may take engine locks.
    #[doc(alias = "bio_endio")]
    fn io_done(&self, request: &mut Request, result: Result<(), IoError>);
}

/// One read or write of consecutive bytes of a device, from or into pieces of memory.
#[doc(alias = "bio")]
pub struct Request {
    /// Read or write.
    pub op: IoOp,
    /// First byte on the device.
    pub offset: u64,
    /// The memory, in order.
    pub bufs: Vec<IoBuf>,
    /// The frames behind `bufs`, for the engine.
    pub frames: Vec<u32>,
    /// The engine's own: who asked for it and when.
    pub cookie: u64,
    sink: Option<Arc<dyn IoSink>>,
}

impl Request {
    /// A request that ends at `sink`.
    pub fn new(op: IoOp, offset: u64, sink: Arc<dyn IoSink>) -> Request {
        Request {
            op,
            offset,
            bufs: Vec::new(),
            frames: Vec::new(),
            cookie: 0,
            sink: Some(sink),
        }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.bufs.iter().map(|b| b.len).sum()
    }

    /// Is `frame` the neighbour in memory of its last one?
    pub(crate) fn follows(&self, frame: u32) -> bool {
        self.frames.last().is_some_and(|last| last + 1 == frame)
    }

    /// The bytes of a write, piece by piece: they do not change until the request has ended.
    ///
    /// # Panics
    /// For a read, whose buffers are the device's to fill.
    pub fn write_bytes(&self) -> impl Iterator<Item = &[u8]> {
        assert_eq!(self.op, IoOp::Write, "only a write has bytes to show");
        self.bufs.iter().map(|b| {
            #[allow(unsafe_code)]
            // SAFETY: IO-1: the frames are under WRITEBACK while this request lives, so nobody writes them (FRAME-4), and
            // they stay mapped; frames of an arena are initialised.
            unsafe {
                std::slice::from_raw_parts(b.ptr, b.len)
            }
        })
    }

    /// The bytes of a read that has ended, or that nobody else has yet, piece by piece.
    ///
    /// # Panics
    /// For a write, whose bytes are the cache's.
    pub fn read_bytes(&mut self) -> impl Iterator<Item = &mut [u8]> {
        assert_eq!(self.op, IoOp::Read, "only a read has bytes to fill");
        self.bufs.iter_mut().map(|b| {
            #[allow(unsafe_code)]
            // SAFETY: IO-1: the frames are LOADING while this request lives, so whoever holds it alone may touch their
            // bytes, which stay mapped; frames of an arena are initialised, and the pieces do not overlap.
            unsafe {
                std::slice::from_raw_parts_mut(b.ptr, b.len)
            }
        })
    }

    /// True of a request without bytes.
    pub fn is_empty(&self) -> bool {
        self.bufs.is_empty()
    }

    /// Ends the request: hands it back to the engine with its result.
    pub fn complete(mut self, result: Result<(), IoError>) {
        self.finish(result);
    }

    fn finish(&mut self, result: Result<(), IoError>) {
        // IO-2: the sink is taken, so a second completion finds none.
        if let Some(sink) = self.sink.take() {
            sink.io_done(self, result);
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.finish(Err(IoError::new(IoErrorKind::Dropped, self.offset)));
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}+{}", self.op, self.offset, self.len())
    }
}
