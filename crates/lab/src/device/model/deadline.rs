//! Linux' elevator mq-deadline (block/mq-deadline.c): which of the requests that wait comes next.
//!
//! Requests go in batches of up to `FIFO_BATCH` of one direction, each at the next address after the last one's. A new
//! batch is of reads, unless writes have stood back for `WRITES_STARVED` batches of them. It goes on where the last batch
//! of its direction ended; where nothing lies beyond, or the direction's oldest has waited past its time, it begins with
//! the oldest. Left out: I/O priorities, and merging (the cache merges before it submits).

use super::Waiting;
use highwater_engine::io::IoOp;

/// Requests of a batch.
const FIFO_BATCH: u32 = 16;
/// Batches of reads that go before the writes that wait.
const WRITES_STARVED: u32 = 2;
/// How long a read, and a write, may wait until a batch begins with it: nanoseconds.
const EXPIRE: [u64; 2] = [500_000_000, 5_000_000_000];

/// The elevator's state; reads are at 0 and writes at 1.
pub(super) struct Deadline {
    /// The direction of the batch.
    direction: usize,
    /// How many of it have gone.
    batch: u32,
    /// Where each direction's last request began.
    last: [u64; 2],
    starved: u32,
}

impl Default for Deadline {
    fn default() -> Deadline {
        Deadline {
            direction: 1,
            batch: 0,
            last: [0; 2],
            starved: 0,
        }
    }
}

fn direction(waiting: &Waiting) -> usize {
    usize::from(waiting.access.op == IoOp::Write)
}

impl Deadline {
    /// Which of `waiting`, oldest first, comes next at `now`; it is taken to go.
    pub fn choose(&mut self, now: u64, waiting: &[Waiting]) -> Option<usize> {
        let of = |d: usize| {
            let all = waiting.iter().enumerate();
            all.filter(move |(_, w)| direction(w) == d)
        };
        let beyond = |d: usize, last: u64| {
            let ahead = of(d).filter(|(_, w)| w.access.offset >= last);
            ahead.min_by_key(|(_, w)| w.access.offset).map(|(i, _)| i)
        };
        let ahead = beyond(self.direction, self.last[self.direction]);
        let next = match ahead {
            Some(next) if self.batch < FIFO_BATCH => next,
            _ => {
                let oldest = [of(0).next(), of(1).next()];
                let d = self.turn(oldest.map(|o| o.is_some()))?;
                let (first, w) = oldest[d]?;
                let expired = w.since + EXPIRE[d] <= now;
                (self.direction, self.batch) = (d, 0);
                let ahead = beyond(d, self.last[d]);
                ahead.filter(|_| !expired).unwrap_or(first)
            }
        };
        self.batch += 1;
        self.last[self.direction] = waiting[next].access.offset;
        Some(next)
    }

    /// The direction of a new batch, of those that have requests.
    fn turn(&mut self, [reads, writes]: [bool; 2]) -> Option<usize> {
        if reads {
            if !writes {
                return Some(0);
            }
            self.starved += 1;
            if self.starved <= WRITES_STARVED {
                return Some(0);
            }
        }
        if writes {
            self.starved = 0;
            return Some(1);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::Access;
    use super::*;

    fn waiting(op: IoOp, offset: u64, since: u64) -> Waiting {
        Waiting {
            token: offset,
            since,
            access: Access {
                op,
                offset,
                len: 4096,
                segments: 1,
                extra: 0,
                copying: 0,
            },
        }
    }

    /// In which order `all` go from `now` on: the offsets.
    fn order(elevator: &mut Deadline, now: u64, mut all: Vec<Waiting>) -> Vec<u64> {
        let mut order = Vec::new();
        while let Some(next) = elevator.choose(now, &all) {
            order.push(all.remove(next).access.offset);
        }
        assert!(all.is_empty());
        order
    }

    #[test]
    fn a_batch_ascends_and_the_next_one_begins_with_the_oldest() {
        let mut elevator = Deadline::default();
        let read = |offset| waiting(IoOp::Read, offset, 0);
        let all = vec![read(50), read(20), read(90)];
        assert_eq!(order(&mut elevator, 0, all), [20, 50, 90]);
        // Nothing beyond 90: the oldest, and up from there.
        let all = vec![read(50), read(20), read(60)];
        assert_eq!(order(&mut elevator, 0, all), [50, 60, 20]);
    }

    #[test]
    fn sixteen_are_a_batch_and_an_expired_request_begins_one() {
        let mut elevator = Deadline::default();
        let now = EXPIRE[0];
        let mut all = vec![waiting(IoOp::Read, 500, 0)];
        all.extend((1..=40).map(|n| waiting(IoOp::Read, n, now)));
        // The oldest has expired, so it begins; then nothing lies beyond it.
        let got = order(&mut elevator, now, all);
        assert_eq!(got[..3], [500, 1, 2]);
        let mut all: Vec<_> = (1..=40)
            .map(|n| waiting(IoOp::Read, 500 + n, now))
            .collect();
        elevator = Deadline::default();
        assert_eq!(elevator.choose(now, &all), Some(0));
        all.remove(0);
        all.insert(0, waiting(IoOp::Read, 3, 0));
        let got = order(&mut elevator, now, all);
        assert_eq!(got[14..17], [516, 3, 517], "the 17th begins a batch");
    }

    #[test]
    fn writes_stand_back_for_two_batches_of_reads() {
        let mut elevator = Deadline::default();
        let mut all: Vec<_> = (0..20).map(|n| waiting(IoOp::Write, n, 0)).collect();
        all.extend((100..164).map(|n| waiting(IoOp::Read, n, 0)));
        let got = order(&mut elevator, 0, all);
        let reads = |part: &[u64]| part.iter().all(|o| *o >= 100);
        assert_eq!(got[..16], (0..16).collect::<Vec<_>>());
        assert!(reads(&got[16..48]), "{got:?}");
        assert_eq!(got[48..52], [16, 17, 18, 19]);
        assert!(reads(&got[52..]), "{got:?}");
    }
}
