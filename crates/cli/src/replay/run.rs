//! The body of a `replay` task: takes records, waits for their time, does them.

use super::source::{Given, Source};
use super::{Op, Record};
use crate::plan::PlanTask;
use crate::target::{Handle, Host, OpError};
use crate::tasks::{Meter, Noted, Tally, Window};
use hdrhistogram::Histogram;
use highwater_engine::world::Nanos;
use std::sync::Mutex;

/// A larger request is done in pieces of so many bytes, so that a thread's buffer stays small.
const PIECE: u64 = 1 << 20;

/// What threads of a replay did beside what every task counts.
#[derive(Debug)]
pub struct ReplayTally {
    /// Reads, writes, discards and flushes that were done.
    pub ops: [u64; 4],
    /// Those of them that a flush went before.
    pub preflushes: u64,
    /// Those of them that were written through.
    pub fua_writes: u64,
    /// How long reads took, and writes, in nanoseconds.
    pub took: [Histogram<u64>; 2],
    /// How late requests began, in nanoseconds (`pace = "timestamps"`).
    pub late: Histogram<u64>,
    /// What the source had given when the last thread ended.
    pub given: Given,
}

impl ReplayTally {
    /// Nothing yet.
    pub fn new() -> ReplayTally {
        ReplayTally {
            ops: [0; 4],
            preflushes: 0,
            fua_writes: 0,
            took: [0; 2].map(|_| nanoseconds(600)),
            late: nanoseconds(86_400),
            given: Given::default(),
        }
    }

    /// Adds another thread's.
    pub fn add(&mut self, other: &ReplayTally) {
        for (sum, n) in self.ops.iter_mut().zip(other.ops) {
            *sum += n;
        }
        self.preflushes += other.preflushes;
        self.fua_writes += other.fua_writes;
        let both = self.took.iter_mut().zip(&other.took);
        for (sum, more) in both.chain([(&mut self.late, &other.late)]) {
            sum.add(more).expect("histograms of the same bounds");
        }
        // Counts of one source, which only grow: the largest is the last.
        let (a, b) = (&mut self.given, other.given);
        a.passes = a.passes.max(b.passes);
        a.discards = a.discards.max(b.discards);
        a.beyond = a.beyond.max(b.beyond);
        a.wrapped = a.wrapped.max(b.wrapped);
    }
}

/// Nothing yet of spans of up to so many seconds, to three digits.
fn nanoseconds(seconds: u64) -> Histogram<u64> {
    Histogram::new_with_bounds(1, seconds * 1_000_000_000, 3).expect("bounds of a histogram")
}

/// Runs a thread of a replay until the trace or the window ends. `start` is when the trace's first record is due.
pub fn run<H: Host, F: Handle>(
    host: &H,
    file: &F,
    task: &PlanTask,
    source: &Mutex<Source>,
    start: Nanos,
    window: &Window,
) -> Tally {
    let mut meter = Meter::new(host, task, window);
    let mut replay = ReplayTally::new();
    let timed = task.replay.as_ref().is_some_and(|r| r.speed.is_some());
    let mut buf = Vec::new();
    let mut turn = 0;
    let lock = || source.lock().unwrap_or_else(|e| e.into_inner());
    // Another virtual CPU may be behind the one that named the start: what begins before it would not count.
    host.sleep_until(start);
    while host.now() < window.end {
        let due = match lock().next() {
            Ok(Some(due)) => due,
            Ok(None) => break,
            Err(why) => {
                meter.fail(&why.to_string());
                break;
            }
        };
        let at = start.plus(Nanos(due.after_ns));
        if timed {
            host.sleep_until(at.min(window.end));
        }
        let Some(begin) = meter.begin() else { break };
        turn += 1;
        match meter.note(begin, operate(file, due.record, turn, &mut buf)) {
            Noted::Measured(took) => {
                replay.ops[due.record.op as usize] += 1;
                match due.record.op {
                    Op::Read => replay.took[0].saturating_record(took.0),
                    Op::Write => replay.took[1].saturating_record(took.0),
                    Op::Flush | Op::Discard => {}
                }
                replay.preflushes += u64::from(due.record.barrier.preflush);
                replay.fua_writes += u64::from(due.record.barrier.fua);
                if timed {
                    replay.late.saturating_record(begin.since(at).0.max(1));
                }
            }
            Noted::Passed => {}
            Noted::Failed => break,
        }
    }
    replay.given = lock().given();
    file.count_own();
    let mut tally = meter.end();
    tally.replay = Some(Box::new(replay));
    tally
}

/// Does one request; the bytes that it moved.
fn operate<F: Handle>(
    file: &F,
    record: Record,
    turn: u64,
    buf: &mut Vec<u8>,
) -> Result<u64, OpError> {
    let end = record.offset + record.len;
    let mut at = record.offset;
    if record.barrier.preflush {
        file.sync()?;
    }
    match record.op {
        Op::Flush => {
            file.sync()?;
            return Ok(0);
        }
        // The source gives none.
        Op::Discard => return Ok(0),
        Op::Read | Op::Write => {}
    }
    let piece = record.len.min(PIECE) as usize;
    if buf.len() < piece {
        buf.resize(piece, 0x5A);
    }
    while at < end {
        let n = (end - at).min(PIECE) as usize;
        let bytes = &mut buf[..n];
        if record.op == Op::Write {
            let stamp = turn.to_le_bytes();
            let s = stamp.len().min(n);
            bytes[..s].copy_from_slice(&stamp[..s]);
            match record.barrier.fua {
                true => file.write_through(bytes, at)?,
                false => file.write_at(bytes, at)?,
            }
        } else {
            file.read_at(bytes, at)?;
        }
        at += n as u64;
    }
    Ok(record.len)
}
