//! The records of a task, in the trace's order, for all its threads.
//!
//! A thread takes the next record when it is free: each thread's records are in the trace's order, and at most `threads`
//! requests are outstanding. Discards, and records beyond the file's end where that is allowed, are counted here.
//!
//! **Context.** Taken under a mutex by the task's threads; reading a file, it never parks in the engine's world, so in the
//! lab no other coroutine runs meanwhile.

use super::lines::{Lines, parse};
use super::resolve::{Beyond, PlanReplay};
use super::{Line, Op, Parser, Record};

/// A request to do, and when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Due {
    /// What.
    pub record: Record,
    /// Nanoseconds after the task's start (`pace = "timestamps"`), scaled; 0 in a closed loop.
    pub after_ns: u64,
}

/// What a source has given so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Given {
    /// Ends of the trace that were reached.
    pub passes: u64,
    /// Discards, which are not done.
    pub discards: u64,
    /// Records beyond the file's end that were left out.
    pub beyond: u64,
    /// Records beyond the file's end that were moved into it.
    pub wrapped: u64,
}

/// Reads the trace of one task.
pub struct Source {
    plan: PlanReplay,
    file_len: u64,
    open: Option<(Lines, Parser)>,
    given: Given,
    /// Records given in this pass.
    in_pass: u64,
    /// The last pass is over; other threads of the task may still ask.
    ended: bool,
}

impl Source {
    /// A source at the start of the trace, for a file of `file_len` bytes. Opens nothing yet.
    pub fn new(plan: PlanReplay, file_len: u64) -> Source {
        Source {
            plan,
            file_len: file_len.max(1),
            open: None,
            given: Given::default(),
            in_pass: 0,
            ended: false,
        }
    }

    /// What it has given.
    pub fn given(&self) -> Given {
        self.given
    }

    /// The next request; none at the end.
    ///
    /// # Errors
    /// A trace that can no longer be read, or that now has records beyond the file's end.
    pub fn next(&mut self) -> Result<Option<Due>, String> {
        while !self.ended {
            let Some(record) = self.record()? else {
                self.given.passes += 1;
                let empty = std::mem::take(&mut self.in_pass) == 0;
                // A pass without a request takes no time: another one would not end either.
                self.ended = empty || !self.plan.repeat;
                self.open = None;
                continue;
            };
            let Some(record) = self.place(record)? else {
                continue;
            };
            self.in_pass += 1;
            let after_ns = self.after_ns(record.time_ns);
            return Ok(Some(Due { record, after_ns }));
        }
        Ok(None)
    }

    /// The trace's next record of any kind; none at its end.
    fn record(&mut self) -> Result<Option<Record>, String> {
        let path = &self.plan.path;
        let gone = |e| format!("the trace {}: {e}", path.display());
        if self.open.is_none() {
            let parser = Parser::new(self.plan.format, self.plan.select.clone());
            self.open = Some((Lines::open(path).map_err(gone)?, parser));
        }
        let (lines, parser) = self.open.as_mut().expect("opened above");
        while let Some(next) = lines.next().map_err(gone)? {
            // Bad lines have been counted and named before the run.
            if let Line::Record(record) = parse(parser, next) {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// The record within the file, if it is to be done (TASK-1).
    fn place(&mut self, mut record: Record) -> Result<Option<Record>, String> {
        match record.op {
            Op::Flush => return Ok(Some(record)),
            Op::Discard => {
                self.given.discards += 1;
                return Ok(None);
            }
            Op::Read | Op::Write => {}
        }
        if record.offset + record.len <= self.file_len {
            return Ok(Some(record));
        }
        match self.plan.beyond {
            Beyond::Refuse => Err(format!(
                "the trace {} asks for offset {} + {} bytes, beyond the file's {}: it has changed since it was read, or --memory was scaled down to fit the disk and the file with it",
                self.plan.path.display(),
                record.offset,
                record.len,
                self.file_len
            )),
            Beyond::Skip => {
                self.given.beyond += 1;
                Ok(None)
            }
            Beyond::Wrap => {
                self.given.wrapped += 1;
                record.len = record.len.min(self.file_len);
                record.offset = (record.offset % self.file_len).min(self.file_len - record.len);
                Ok(Some(record))
            }
        }
    }

    fn after_ns(&self, time_ns: u64) -> u64 {
        let Some(speed) = self.plan.speed else {
            return 0;
        };
        // A record that is dated before the first is due at once.
        let since = time_ns.saturating_sub(self.plan.first_ns);
        let all = since as f64 + self.given.passes as f64 * self.plan.span_ns as f64;
        (all / speed) as u64
    }
}
