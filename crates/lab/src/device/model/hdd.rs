//! A disk with an arm: seeks, rotation, zones, and an elevator that chooses what comes next.
//!
//! A request costs the controller's overhead, the seek from where the head is, the rotation to its first sector, and
//! its bytes at the speed of its zone. One that begins where the last one ended costs its bytes only (the drive's buffer
//! reads ahead and gathers writes). After a read the drive reads on into its buffer: the next read, if it begins less than
//! a track further on, waits for what lies between to pass under the head, and not for the platter to come round. The seek curve is Ruemmler and Wilkes' ("An introduction to disk drive modeling",
//! 1994): a square root for short seeks, a straight line for long ones, here through the data sheet's track-to-track,
//! average (a third of the stroke) and full-stroke times.
//!
//! The elevators: `Fifo`; `CLook`, one way over the addresses and back (the order of Linux' mq-deadline); `Ncq`, the
//! shortest positioning time among the first `depth` (what drives do with tagged commands). None lets a request wait
//! past `expire` before it becomes the next, oldest first.
//!
//! Left out: the write cache (a write ends on the platter), head switches, remapped sectors. Defaults: a 7,200 rpm drive
//! of 4 TB (data sheets of the Seagate Exos 7E8: 8.5 ms average, 215 MB/s outermost; the full stroke is a guess).

use super::{Access, DEPTH_EXPECTED, Rate, TIME_EXPECTED, TIME_MAX, Waiting, depth_fits, expect};
use highwater_engine::Nanos;
use highwater_engine::io::IoOp;

/// Which request comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Elevator {
    /// The oldest.
    Fifo,
    /// The next higher address; from the top back to the lowest.
    CLook,
    /// The one that is reached first, of the oldest `depth`.
    Ncq,
}

/// A disk with an arm.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hdd {
    /// Bytes.
    pub capacity: u64,
    /// Revolutions a minute.
    pub rpm: u32,
    /// A seek to the next track.
    pub seek_track: Nanos,
    /// A seek over a third of the stroke.
    pub seek_average: Nanos,
    /// A seek over all of it.
    pub seek_full: Nanos,
    /// Speed at the first byte, in bytes a second.
    pub outer_bytes_per_s: u64,
    /// Speed at the last byte, in bytes a second.
    pub inner_bytes_per_s: u64,
    /// What each request costs in the controller.
    pub overhead: Nanos,
    /// How many requests the drive knows of at one time.
    pub depth: usize,
    /// Which comes next.
    pub elevator: Elevator,
    /// How long a request may wait before it is the next.
    pub expire: Nanos,
    /// What a flush takes.
    pub flush: Nanos,
}

impl Default for Hdd {
    fn default() -> Hdd {
        Hdd {
            capacity: 4_000_000_000_000,
            rpm: 7_200,
            seek_track: Nanos::from_micros(800),
            seek_average: Nanos::from_micros(8_500),
            seek_full: Nanos::from_micros(18_000),
            outer_bytes_per_s: 215_000_000,
            inner_bytes_per_s: 105_000_000,
            overhead: Nanos::from_micros(100),
            depth: 32,
            elevator: Elevator::Ncq,
            expire: Nanos::from_millis(500),
            flush: Nanos::from_millis(8),
        }
    }
}

impl Hdd {
    pub(super) fn check(&self) -> Result<(), (&'static str, &'static str)> {
        expect(
            (1 << 20..=1 << 60).contains(&self.capacity),
            "capacity",
            "1MiB to 1EiB",
        )?;
        let turns = (1..=1_000_000).contains(&self.rpm);
        expect(turns, "rpm", "1 to 1000000 revolutions a minute")?;
        let seeks = self.seek_track <= self.seek_average && self.seek_average <= self.seek_full;
        expect(
            seeks,
            "seek_track, seek_average, seek_full",
            "times in this order",
        )?;
        // Below, a track would hold less than a sector.
        let speeds = self.inner_bytes_per_s >= 1_000_000;
        expect(speeds, "inner_bytes_per_s", "at least 1MB/s")?;
        let zones = (self.inner_bytes_per_s..=1 << 40).contains(&self.outer_bytes_per_s);
        expect(zones, "outer_bytes_per_s", "at least inner_bytes_per_s")?;
        expect(depth_fits(self.depth), "depth", DEPTH_EXPECTED)?;
        let times = [self.seek_full, self.overhead, self.expire, self.flush];
        expect(
            times.iter().max() <= Some(&TIME_MAX),
            "a time",
            TIME_EXPECTED,
        )
    }

    fn period(&self) -> u64 {
        60_000_000_000 / u64::from(self.rpm)
    }

    /// Bytes a second at `offset`: linear between the first byte and the last.
    fn speed(&self, offset: u64) -> u64 {
        let slower = self.outer_bytes_per_s - self.inner_bytes_per_s;
        let inward = u128::from(slower) * u128::from(offset.min(self.capacity));
        self.outer_bytes_per_s - (inward / u128::from(self.capacity)) as u64
    }

    /// Bytes of one revolution at `offset`.
    fn track(&self, offset: u64) -> u64 {
        (u128::from(self.speed(offset)) * u128::from(self.period()) / 1_000_000_000) as u64 + 1
    }

    /// The seek over `distance` bytes.
    fn seek(&self, distance: u64) -> u64 {
        if distance < self.track(0) {
            return 0;
        }
        let x = (distance as f64 / self.capacity as f64).min(1.0);
        let ns = |t: Nanos| t.0 as f64;
        let (track, average, full) = (
            ns(self.seek_track),
            ns(self.seek_average),
            ns(self.seek_full),
        );
        // Square root and the four operations are exact in IEEE 754: the same on every machine.
        let time = if x < 1.0 / 3.0 {
            track + (average - track) * (3.0 * x).sqrt()
        } else {
            average + (full - average) * (x - 1.0 / 3.0) * 1.5
        };
        time as u64
    }
}

pub(in crate::device) struct Arm {
    hdd: Hdd,
    /// The byte under the head: one past the last served.
    head: u64,
    /// Since when the drive reads on behind the head: the last request was a read, and ended then.
    reads_on: Option<u64>,
    /// Does it serve a request?
    busy: bool,
}

impl Arm {
    pub fn new(hdd: Hdd) -> Arm {
        Arm {
            hdd,
            head: 0,
            reads_on: None,
            busy: false,
        }
    }

    pub fn flush(&self) -> Nanos {
        self.hdd.flush
    }

    /// From `at`, how long until the head is over the request's first byte, or the buffer has it.
    fn positioning(&self, at: u64, access: &Access) -> u64 {
        let offset = access.offset;
        if offset == self.head {
            return 0;
        }
        let (period, track) = (self.hdd.period(), self.hdd.track(offset));
        if let (IoOp::Read, Some(since)) = (access.op, self.reads_on)
            && (self.head..self.head + track).contains(&offset)
        {
            let between = Rate::bytes_per_s(self.hdd.speed(offset)).time(offset - self.head);
            return (since + between).saturating_sub(at);
        }
        let seek = self.hdd.seek(offset.abs_diff(self.head));
        let there = (u128::from(offset % track) * u128::from(period) / u128::from(track)) as u64;
        let now = (at + seek) % period;
        seek + (there + period - now) % period
    }

    /// Which of `waiting`, oldest first, the arm begins now, if it is idle.
    pub fn take(&mut self, now: u64, waiting: &[Waiting]) -> Option<usize> {
        if self.busy || waiting.is_empty() {
            return None;
        }
        self.busy = true;
        Some(self.choose(now, waiting))
    }

    /// The arm has served its request.
    pub fn leave(&mut self) {
        self.busy = false;
    }

    /// Which of `pending`, oldest first and not empty, is the next at `now`.
    pub fn choose(&self, now: u64, pending: &[Waiting]) -> usize {
        if pending[0].since + self.hdd.expire.0 <= now {
            return 0;
        }
        let nearest = |f: &dyn Fn(&Waiting) -> (bool, u64), n: usize| {
            let of = pending.iter().enumerate().take(n);
            of.min_by_key(|(_, w)| f(w)).map_or(0, |(i, _)| i)
        };
        match self.hdd.elevator {
            Elevator::Fifo => 0,
            Elevator::CLook => nearest(
                &|w| (w.access.offset < self.head, w.access.offset),
                pending.len(),
            ),
            Elevator::Ncq => nearest(
                &|w| (false, self.positioning(now, &w.access)),
                self.hdd.depth,
            ),
        }
    }

    /// When a request ends that the arm begins at `at`.
    pub fn end_of(&mut self, at: u64, access: &Access) -> u64 {
        let begun = at + self.hdd.overhead.0;
        let begun = begun + self.positioning(begun, access);
        let bytes = Rate::bytes_per_s(self.hdd.speed(access.offset)).time(access.len);
        self.head = access.offset + access.len;
        let end = begun + bytes.max(1) + access.extra;
        self.reads_on = (access.op == IoOp::Read).then_some(end);
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 64 requests of 4 KiB, one after the other, each `step` bytes behind the start of the last: nanoseconds each.
    fn each(op: IoOp, step: i64) -> u64 {
        let mut arm = Arm::new(Hdd::default());
        let mut now = 0;
        for n in 0..64 {
            let access = Access {
                op,
                offset: ((1 << 30) + n * step) as u64,
                len: 4096,
                segments: 1,
                extra: 0,
                copying: 0,
            };
            now = arm.end_of(now, &access);
        }
        now / 64
    }

    #[test]
    fn a_read_just_behind_the_last_does_not_wait_for_the_platter() {
        let turn = Hdd::default().period();
        assert!(each(IoOp::Read, 4096) < turn / 10, "in sequence");
        for gap in [1, 2, 8, 64] {
            let step = 4096 * (gap + 1);
            let took = each(IoOp::Read, step);
            assert!(
                took < turn / 10 + 25_000 * gap as u64,
                "{gap} pages: {took} ns"
            );
            // What was not read is not in the buffer, and what lies before the head comes round.
            assert!(each(IoOp::Read, -step) > turn / 2);
        }
        assert!(each(IoOp::Write, 8192) > turn / 2, "a write waits");
    }
}
