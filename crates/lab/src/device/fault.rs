//! The fault model of a lab device.
//!
//! What may go wrong, and what it leaves behind:
//! - **Read error** (`EIO`): the buffers hold anything; the medium is untouched. Transient, or permanent for the range.
//! - **Write error** (`EIO`, `ENOSPC`): any sectors of the write may have reached the medium, visibly. Transient, for a
//!   time, or permanent for the range.
//! - **Flush error**: of the writes completed before it, and of those in flight, the device drops a part and forgets it, though
//!   reads still see them (as Linux marks pages clean after a failed fsync), or keeps all: drawn.
//! - **Latency spike**: one request takes `spike` longer.
//! - **Hung request**: takes effect and completes only after `release_hung`.
//! - **Torn and reordered writes**: until a flush that succeeds, completed writes and those in flight reach the medium in
//!   any order, each whole, not at all, or in any of its sectors of 512 bytes.
//! - **Crash**: the durable image with any such subset; of two writes of one sector, either or neither.
//!
//! What never goes wrong: a truncation or a hole fails; a failed flush forgets a truncation (a file system has it in its
//! journal; zeroes it may have to write); bytes read back differ from bytes written; a request completes twice; a flush that succeeded
//! was not one; addresses are mixed up. Those would be a device without a contract.
//!
//! Rates are per million requests and drawn from the seed; programmed faults ([`Rule`]) come first.

use crate::rng::Rng;
use highwater_engine::io::IoOp;
use highwater_engine::{IoError, IoErrorKind, Nanos};
use std::ops::Range;

/// How often what goes wrong, per million. All zero by default.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FaultRates {
    /// Reads that fail.
    pub read_error_ppm: u32,
    /// Writes that fail with `EIO`.
    pub write_error_ppm: u32,
    /// Writes that fail with `ENOSPC`.
    pub no_space_ppm: u32,
    /// Of failing requests, those whose range fails for ever.
    pub permanent_ppm: u32,
    /// Flushes that fail.
    pub flush_error_ppm: u32,
    /// Of failing flushes, those that lose writes.
    pub flush_loss_ppm: u32,
    /// Requests that take `spike` longer.
    pub spike_ppm: u32,
    /// How much longer.
    pub spike: Nanos,
}

impl FaultRates {
    /// True when no request can fail by rate (it may be slow).
    pub fn is_clean(&self) -> bool {
        let slow_only = FaultRates {
            spike_ppm: self.spike_ppm,
            spike: self.spike,
            ..FaultRates::default()
        };
        *self == slow_only
    }
}

/// What a file has done wrong, by kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FaultCounts {
    /// Reads that failed.
    pub reads: u64,
    /// Writes that failed with `EIO`.
    pub writes: u64,
    /// Writes that failed with `ENOSPC`.
    pub no_space: u64,
    /// Flushes that failed and kept all writes.
    pub flushes: u64,
    /// Flushes that failed and lost writes.
    pub lossy_flushes: u64,
    /// Ranges that failed for good, or until `heal`.
    pub permanent: u64,
    /// Requests that took longer.
    pub spikes: u64,
}

impl std::ops::AddAssign for FaultCounts {
    fn add_assign(&mut self, other: FaultCounts) {
        self.reads += other.reads;
        self.writes += other.writes;
        self.no_space += other.no_space;
        self.flushes += other.flushes;
        self.lossy_flushes += other.lossy_flushes;
        self.permanent += other.permanent;
        self.spikes += other.spikes;
    }
}

/// A programmed fault: requests of `op` that touch `range` fail with `kind` before `until`, at most `times` times.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// Reads or writes.
    pub op: IoOp,
    /// Bytes of the file.
    pub range: Range<u64>,
    /// The error.
    pub kind: IoErrorKind,
    /// The end of the fault.
    pub until: Nanos,
    /// How many requests are still to fail.
    pub times: u64,
}

/// One file's faults.
pub(crate) struct Faults {
    pub rates: FaultRates,
    rules: Vec<Rule>,
    flushes_to_fail: u32,
    pub counts: FaultCounts,
}

impl Faults {
    pub fn new(rates: FaultRates) -> Faults {
        Faults {
            rates,
            rules: Vec::new(),
            flushes_to_fail: 0,
            counts: FaultCounts::default(),
        }
    }

    pub fn add(&mut self, rule: Rule) {
        self.rules.push(rule);
    }

    pub fn fail_flush(&mut self, n: u32) {
        self.flushes_to_fail = n;
    }

    /// Ends all faults, now and for good.
    pub fn heal(&mut self) {
        self.rates = FaultRates::default();
        self.rules.clear();
        self.flushes_to_fail = 0;
    }

    fn count(&mut self, op: IoOp, kind: IoErrorKind) {
        let count = match (op, kind) {
            (IoOp::Read, _) => &mut self.counts.reads,
            (IoOp::Write, IoErrorKind::NoSpace) => &mut self.counts.no_space,
            (IoOp::Write, _) => &mut self.counts.writes,
        };
        *count += 1;
    }

    /// Does this request fail?
    pub fn judge(
        &mut self,
        op: IoOp,
        range: Range<u64>,
        now: Nanos,
        rng: &mut Rng,
    ) -> Result<(), IoError> {
        let hit = |r: &Rule| r.op == op && r.range.start < range.end && range.start < r.range.end;
        self.rules.retain(|r| now < r.until && r.times > 0);
        if let Some(rule) = self.rules.iter_mut().find(|r| hit(r)) {
            rule.times -= 1;
            let error = IoError::new(rule.kind, range.start.max(rule.range.start));
            self.count(op, error.kind);
            return Err(error);
        }
        let kind = match op {
            IoOp::Read if rng.chance(self.rates.read_error_ppm) => IoErrorKind::Io,
            IoOp::Write if rng.chance(self.rates.write_error_ppm) => IoErrorKind::Io,
            IoOp::Write if rng.chance(self.rates.no_space_ppm) => IoErrorKind::NoSpace,
            _ => return Ok(()),
        };
        self.count(op, kind);
        let start = range.start;
        if rng.chance(self.rates.permanent_ppm) {
            self.counts.permanent += 1;
            self.add(Rule {
                op,
                range,
                kind,
                until: Nanos(u64::MAX),
                times: u64::MAX,
            });
        }
        Err(IoError::new(kind, start))
    }

    /// Does this flush fail, and if so, does it lose writes?
    pub fn judge_flush(&mut self, rng: &mut Rng) -> Option<bool> {
        let programmed = self.flushes_to_fail > 0;
        if programmed {
            self.flushes_to_fail -= 1;
        }
        if programmed || rng.chance(self.rates.flush_error_ppm) {
            let loses = rng.chance(self.rates.flush_loss_ppm);
            self.counts.flushes += u64::from(!loses);
            self.counts.lossy_flushes += u64::from(loses);
            return Some(loses);
        }
        None
    }
}
