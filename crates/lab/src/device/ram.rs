//! A file on a lab disk.
#![allow(unsafe_code)]

use super::backlog::InFlight;
use super::fault::{FaultCounts, FaultRates, Faults, Rule};
use super::holes::Written;
use super::image::{Images, Sparse, torn_pieces};
use super::plug::Plug;
use super::queue::{LabQueue, segments};
use crate::cell::LabCell;
use crate::rng::{Rng, mix};
use highwater_engine::io::{IoBuf, IoOp, Lane, Request};
use highwater_engine::world::{Device, Queue};
use highwater_engine::{IoError, IoErrorKind, Nanos, World};
use std::ops::Range;
use std::rc::Rc;
use std::sync::{Arc, Weak};

/// How a file starts.
#[derive(Clone, Debug, Default)]
pub struct RamOptions {
    /// Its bytes.
    pub content: Vec<u8>,
    /// Its length, when it ends with a hole; never less than `content`.
    pub len: u64,
    /// What goes wrong.
    pub faults: FaultRates,
    /// Keep what `crash_image` needs (a second image and a log).
    pub crashes: bool,
    /// Keep the length only, and carry no byte: for the ghost memory of `LabOptions::ghost`. Reads leave their buffers
    /// as they are. Excludes `content` and `crashes`.
    pub ghost: bool,
    /// The file is sparse: blocks that nobody has written (`content` is) are holes, which are read as the file system
    /// reads them, without the disk and its faults. Else all its blocks lie on the disk, those of zeroes too.
    pub sparse: bool,
}

type Observer = Rc<dyn Fn(Moment)>;

/// What an observer is told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// A write has taken effect, at this byte.
    Written(u64),
    /// A flush has succeeded.
    Flushed,
}

struct State {
    images: Images,
    faults: Faults,
    scratch: Vec<u8>,
    /// Of a sparse file.
    written: Option<Written>,
    /// Where writes in flight begin that a failed flush has lost: what the device had taken of them.
    doomed: Vec<u64>,
}

/// A file of bytes in memory. See the module's head.
pub struct RamDevice {
    me: Weak<RamDevice>,
    queue: Arc<LabQueue>,
    /// Its first byte on the disk.
    base: u64,
    ghost: bool,
    state: LabCell<State>,
    observer: LabCell<Option<Observer>>,
}

impl RamDevice {
    /// A file on the disk `queue`.
    ///
    /// # Panics
    /// For a ghost with `content` or `crashes`; in a world of ghost memory, for a disk with bytes (GHOST-1).
    pub fn new(queue: &Arc<LabQueue>, options: RamOptions) -> Arc<RamDevice> {
        assert!(
            !options.ghost || (options.content.is_empty() && !options.crashes),
            "a ghost has no bytes to start from and none to lose"
        );
        assert!(
            options.ghost || !queue.world.is_ghost(),
            "GHOST-1: the frames of this world have no bytes that a disk could keep: use `ghost`"
        );
        let written = options.sparse.then(|| {
            let mut written = Written::default();
            written.add(0..options.content.len() as u64);
            written
        });
        let mut content = Sparse::default();
        content.write(0, &options.content);
        let len = options.len.max(content.len());
        content.truncate(len);
        Arc::new_cyclic(|me| RamDevice {
            me: me.clone(),
            queue: queue.clone(),
            base: queue.place(len),
            observer: LabCell::new(None),
            ghost: options.ghost,
            state: LabCell::new(State {
                images: Images::new(content, options.crashes),
                faults: Faults::new(options.faults),
                scratch: Vec::new(),
                written,
                doomed: Vec::new(),
            }),
        })
    }

    /// Adds a programmed fault.
    pub fn add_rule(&self, rule: Rule) {
        self.state.with(|s| s.faults.add(rule));
    }

    /// Writes that touch `range` fail with `kind` before `until`.
    pub fn fail_writes(&self, range: Range<u64>, kind: IoErrorKind, until: Nanos) {
        self.fail(IoOp::Write, range, kind, until);
    }

    /// Reads that touch `range` fail with `kind` before `until`.
    pub fn fail_reads(&self, range: Range<u64>, kind: IoErrorKind, until: Nanos) {
        self.fail(IoOp::Read, range, kind, until);
    }

    fn fail(&self, op: IoOp, range: Range<u64>, kind: IoErrorKind, until: Nanos) {
        self.add_rule(Rule {
            op,
            range,
            kind,
            until,
            times: u64::MAX,
        });
    }

    /// The next `n` flushes fail; `losing` says whether they lose writes.
    pub fn fail_flush(&self, n: u32, losing: bool) {
        self.state.with(|s| {
            s.faults.rates.flush_loss_ppm = if losing { 1_000_000 } else { 0 };
            s.faults.fail_flush(n);
        });
    }

    /// From now on so much goes wrong.
    pub fn set_faults(&self, rates: FaultRates) {
        self.state.with(|s| s.faults.rates = rates);
    }

    /// Ends all faults of this file, permanent ones included.
    pub fn heal(&self) {
        self.state.with(|s| s.faults.heal());
    }

    /// How many requests and flushes have failed.
    pub fn failures(&self) -> u64 {
        let c = self.fault_counts();
        c.reads + c.writes + c.no_space + c.flushes + c.lossy_flushes
    }

    /// What went wrong until now, by kind.
    pub fn fault_counts(&self) -> FaultCounts {
        self.state.with(|s| s.faults.counts)
    }

    /// Calls `f` at each [`Moment`] from now on: on the stack that ends the request, and outside of every cell. It must
    /// not wait.
    pub fn observe(&self, f: impl Fn(Moment) + 'static) {
        self.observer.with(|o| *o = Some(Rc::new(f)));
    }

    fn notify(&self, moment: Moment) {
        let observer = self.observer.with(|o| o.clone());
        if let Some(f) = observer {
            f(moment);
        }
    }

    /// The bytes that reads see now.
    ///
    /// # Panics
    /// For a ghost, which has none.
    pub fn visible(&self) -> Vec<u8> {
        assert!(!self.ghost, "a ghost keeps no bytes");
        self.state.with(|s| {
            let image = s.images.visible();
            let mut bytes = vec![0; image.len() as usize];
            image.read(0, &mut bytes);
            bytes
        })
    }

    /// What a power failure now would leave: the durable image with any part of the unflushed and in-flight writes.
    /// The file itself goes on unharmed.
    ///
    /// # Panics
    /// For a ghost, which has none; without [`RamOptions::crashes`].
    pub fn crash_image(&self, rng: &mut Rng) -> Vec<u8> {
        assert!(!self.ghost, "a ghost keeps no bytes");
        let models = self.state.with(|s| s.images.models_crashes());
        assert!(models, "a crash of a disk without `RamOptions::crashes`");
        let in_flight = self.queue.writes_of(self, |request| {
            let mut data = Vec::with_capacity(request.len());
            for buf in &request.bufs {
                // SAFETY: IO-1: the request is in flight, so its buffers are valid and nobody writes to them.
                data.extend_from_slice(unsafe { bytes_of(buf) });
            }
            (request.offset, data)
        });
        self.state
            .with(|s| s.images.crash(rng, in_flight.into_iter()))
    }

    /// Carries a request out, in completion context.
    pub(super) fn perform(&self, request: &Request, sum: u64) -> Result<(), IoError> {
        if request.op == IoOp::Write && !self.ghost {
            assert_eq!(
                sum,
                sum_of(&request.bufs),
                "DEV-1: the bytes of {request:?} changed while it was in flight"
            );
        }
        let result = self.carry_out(request.op, request.offset, &request.bufs);
        if request.op == IoOp::Write && result.is_ok() {
            self.notify(Moment::Written(request.offset));
        }
        result
    }

    fn carry_out(&self, op: IoOp, offset: u64, bufs: &[IoBuf]) -> Result<(), IoError> {
        let now = self.queue.world.now();
        let len: usize = bufs.iter().map(|b| b.len).sum();
        self.queue.rng.with(|rng| {
            self.state.with(|s| {
                let range = offset..offset + len as u64;
                let verdict = if op == IoOp::Read && s.is_hole(range.clone()) {
                    Ok(())
                } else {
                    s.faults.judge(op, range.clone(), now, rng)
                };
                if let (IoOp::Write, Some(written)) = (op, &mut s.written) {
                    // A failed write has its blocks, too: they were given before it.
                    written.add(range);
                }
                match op {
                    // A failed write of a ghost may have reached any of its bytes: it has none.
                    IoOp::Write if self.ghost => s.images.grow(offset + len as u64),
                    IoOp::Read if self.ghost => {}
                    IoOp::Read => {
                        let mut at = offset;
                        for buf in bufs {
                            // SAFETY: IO-1: the buffers are the device's until it completes the request; they do
                            // not overlap.
                            let bytes = unsafe { bytes_of_mut(buf) };
                            match verdict {
                                Ok(()) => s.images.visible().read(at, bytes),
                                // A failed read leaves anything: here, what nobody wrote.
                                Err(_) => bytes.fill(0xEE),
                            }
                            at += buf.len as u64;
                        }
                    }
                    IoOp::Write if verdict.is_ok() && bufs.len() == 1 => {
                        // SAFETY: IO-1: as below.
                        s.images.write(offset, unsafe { bytes_of(&bufs[0]) });
                    }
                    IoOp::Write => {
                        s.scratch.clear();
                        for buf in bufs {
                            // SAFETY: IO-1: the buffers are valid and nobody writes to them until the request is
                            // completed.
                            s.scratch.extend_from_slice(unsafe { bytes_of(buf) });
                        }
                        write_or_tear(s, offset, verdict.is_ok(), rng);
                    }
                }
                if op == IoOp::Write
                    && let Some(at) = s.doomed.iter().position(|doomed| *doomed == offset)
                {
                    s.doomed.swap_remove(at);
                    if verdict.is_ok() {
                        s.images.lose_last();
                    }
                }
                verdict
            })
        })
    }

    /// Does a request of `op` find nothing to read?
    fn reads_hole(&self, op: IoOp, offset: u64, len: usize) -> bool {
        let range = offset..offset + len as u64;
        op == IoOp::Read && self.state.with(|s| s.is_hole(range))
    }

    /// Adds a request to what goes to the disk, or ends it here. In a frame of its own: callers' stacks are measured, and
    /// this need not lie under the disk's.
    #[inline(never)]
    fn add(&self, plug: &mut Plug<Box<InFlight>>, lane: Lane, request: Request) {
        let Some(device) = self.me.upgrade() else {
            unreachable!("a device in use is alive")
        };
        let len = request.len();
        assert!(
            !request.bufs.is_empty() && request.bufs.iter().all(|b| b.len > 0),
            "DEV-3: a piece of {request:?} is empty"
        );
        assert!(
            len <= self.queue.request_bytes_max()
                && request.bufs.len() <= self.queue.segments_max().max(2),
            "DEV-4: {request:?} is too large"
        );
        let hole = self.reads_hole(request.op, request.offset, len);
        let sum = match request.op {
            IoOp::Write if !self.ghost => sum_of(&request.bufs),
            _ => 0,
        };
        let entry = Box::new(InFlight {
            device,
            lane,
            request,
            sum,
        });
        match hole {
            true => self.queue.end_now(entry),
            false => plug.add(entry, len as u64),
        }
    }

    /// Gives these to the disk.
    #[expect(clippy::vec_box, reason = "the disk keeps them as boxes")]
    fn start(&self, entries: Vec<Box<InFlight>>) {
        for entry in entries {
            let at = self.base + entry.request.offset;
            self.queue.start(entry, at, self.spike());
        }
    }

    /// How much longer a request takes by mood.
    fn spike(&self) -> Nanos {
        let rates = self.state.with(|s| s.faults.rates);
        if self.queue.rng.with(|r| r.chance(rates.spike_ppm)) {
            self.state.with(|s| s.faults.counts.spikes += 1);
            rates.spike
        } else {
            Nanos::ZERO
        }
    }
}

impl State {
    fn is_hole(&self, range: Range<u64>) -> bool {
        self.written.as_ref().is_some_and(|w| w.is_hole(range))
    }
}

/// Writes `scratch`; after an error, any sectors of it, visibly.
fn write_or_tear(s: &mut State, offset: u64, ok: bool, rng: &mut Rng) {
    if ok {
        s.images.write(offset, &s.scratch);
    } else {
        for (at, piece) in torn_pieces(offset, &s.scratch, 300_000, rng) {
            s.images.write(at, piece);
        }
    }
}

/// # Safety
/// The buffer is valid, and nobody writes to it while the slice lives.
unsafe fn bytes_of<'a>(buf: &IoBuf) -> &'a [u8] {
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(buf.ptr, buf.len) }
}

/// # Safety
/// The buffer is valid, and nobody else touches it while the slice lives.
unsafe fn bytes_of_mut<'a>(buf: &IoBuf) -> &'a mut [u8] {
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts_mut(buf.ptr, buf.len) }
}

/// A sum over all bytes, four words at a time.
fn sum_of(bufs: &[IoBuf]) -> u64 {
    let mut lanes = [1u64, 2, 3, 4];
    for buf in bufs {
        // SAFETY: IO-1: as in `carry_out`.
        let bytes = unsafe { bytes_of(buf) };
        let (blocks, rest) = bytes.as_chunks::<32>();
        for block in blocks {
            for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<8>().0) {
                *lane = (*lane ^ u64::from_le_bytes(*word)).wrapping_mul(0x9fb2_1c65_1e98_df25);
                *lane ^= *lane >> 32;
            }
        }
        for byte in rest {
            lanes[0] = mix(lanes[0] ^ u64::from(*byte));
        }
    }
    lanes.iter().fold(0, |sum, lane| mix(sum ^ lane))
}

impl Device for RamDevice {
    fn queue(&self) -> Arc<dyn Queue> {
        self.queue.clone()
    }

    fn submit(&self, lane: Lane, batch: &mut Vec<Request>) {
        let mut plug = Plug::new();
        for request in batch.drain(..) {
            self.queue.world.charge_request(segments(&request.bufs));
            self.start(plug.make_room());
            self.add(&mut plug, lane, request);
        }
        self.start(plug.end());
    }

    fn read_now(&self, offset: u64, bufs: &[IoBuf]) -> Result<(), IoError> {
        let len = bufs.iter().map(|b| b.len).sum();
        if self.reads_hole(IoOp::Read, offset, len) {
            self.queue.world.charge_syscall();
        } else {
            self.queue
                .serve_now(IoOp::Read, self.base + offset, bufs, self.spike());
        }
        self.carry_out(IoOp::Read, offset, bufs)
    }

    fn write_now(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        let bufs = [IoBuf {
            ptr: buf.as_ptr().cast_mut(),
            len: buf.len(),
        }];
        self.queue
            .serve_now(IoOp::Write, self.base + offset, &bufs, self.spike());
        let result = self.carry_out(IoOp::Write, offset, &bufs);
        if result.is_ok() {
            self.notify(Moment::Written(offset));
        }
        result
    }

    fn flush(&self) -> Result<(), IoError> {
        // DEV-2: what completes while the flush runs is not covered.
        let mark = self.state.with(|s| s.images.mark());
        self.queue.serve_flush();
        let in_flight = self.queue.writes_of(self, |request| request.offset);
        let result = self.queue.rng.with(|rng| {
            self.state.with(|s| match s.faults.judge_flush(rng) {
                None => {
                    s.images.persist(mark);
                    Ok(())
                }
                Some(loses) => {
                    if loses {
                        s.images.lose(mark, rng);
                        let lost = in_flight.iter().filter(|_| rng.chance(500_000));
                        s.doomed.extend(lost);
                    }
                    Err(IoError::new(IoErrorKind::Io, 0))
                }
            })
        });
        if result.is_ok() {
            self.notify(Moment::Flushed);
        }
        result
    }

    fn len(&self) -> Result<u64, IoError> {
        Ok(self.state.with(|s| s.images.visible().len()))
    }

    fn truncate(&self, len: u64) -> Result<(), IoError> {
        self.queue.serve_flush();
        self.state.with(|s| {
            s.images.truncate(len);
            if let Some(written) = &mut s.written {
                written.truncate(len);
            }
        });
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), IoError> {
        self.queue
            .serve_now(IoOp::Write, self.base + offset, &[], Nanos::ZERO);
        self.state.with(|s| {
            match self.ghost {
                true => s.images.grow(offset.saturating_add(len)),
                false => s.images.punch(offset, len),
            }
            if let Some(written) = &mut s.written {
                written.add(offset..offset.saturating_add(len));
            }
        });
        Ok(())
    }
}
