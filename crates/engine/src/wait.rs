//! The wait table: every sleep of the engine on something that another task will make true.
//!
//! A waiter enters a bucket under a channel, looks at its condition, and parks. Whoever may have made the condition true
//! calls [`WaitTable::wake`], which takes all waiters of the channel out and unparks them.
//!
//! **State.** A bucket's list: its lock (`Rank::Wait`). Its count: changed under the lock, read without.
//! **Context.** Waiting: any task without engine locks. Waking: any, completion context included.
//!
//! **Invariants.**
//! - WAIT-1: a waiter enters the bucket, then looks; a waker changes the state, then looks at the bucket; a SeqCst fence
//!   stands between the two steps on both sides. So at least one of them sees the other.
//! - WAIT-2: every wait has a deadline. One that fires while the waiter is still in the bucket and the condition is true
//!   is a lost wake-up: counted, and a panic in debug builds and in the lab.
//!
//! **Kernel.** wait_queue_head_t, wait_on_bit, folio_wait_table.
//! **Tests.** `loom/wait.rs`, and every seed of the lab.

use crate::sync::{AtomicU32, Lock, Ordering, Rank, fence};
use crate::trace::{Event, VmStat};
use crate::world::{Nanos, TaskId, World};

/// Few in loom's models: channels share buckets there.
const BUCKETS: usize = if cfg!(loom) { 2 } else { 64 };

/// What a task waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Channel {
    /// A frame's latch, fill or writeback.
    Frame(u32),
    /// A mapping's invalidate lock.
    Invalidate(u32),
    /// A mapping's turn to sync.
    Sync(u32),
    /// The end of a mapping's writeback, or of a read of it.
    Writeback(u32),
    /// The end of a mapping.
    Gone(u32),
    /// Completed writes anywhere: reclaimers and writers.
    Progress,
    /// The dirty pages' fall below the limit.
    Dirty,
}

impl Channel {
    fn bucket(self) -> usize {
        let (kind, n) = match self {
            Channel::Frame(n) => (0, n),
            Channel::Invalidate(n) => (11, n),
            Channel::Sync(n) => (22, n),
            Channel::Writeback(n) => (33, n),
            Channel::Progress => (44, 0),
            Channel::Dirty => (55, 0),
            Channel::Gone(n) => (63, n),
        };
        (kind + n as usize) % BUCKETS
    }
}

#[repr(align(64))]
struct Bucket {
    count: AtomicU32,
    waiters: Lock<Vec<(Channel, TaskId)>>,
}

/// How a wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) enum Waited {
    /// The condition is true.
    Ready,
    /// The deadline passed first.
    TimedOut,
}

/// All who sleep.
pub(crate) struct WaitTable {
    buckets: Box<[Bucket]>,
}

impl WaitTable {
    pub(crate) fn new() -> WaitTable {
        WaitTable {
            buckets: (0..BUCKETS)
                .map(|_| Bucket {
                    count: AtomicU32::new(0),
                    waiters: Lock::new(Rank::Wait, Vec::new()),
                })
                .collect(),
        }
    }

    /// Sleeps until `ready` or until `until`. `ready` may take what it looks for: after it has said yes it is not asked
    /// again.
    pub(crate) fn wait<W: World>(
        &self,
        world: &W,
        stat: &VmStat,
        channel: Channel,
        until: Nanos,
        mut ready: impl FnMut() -> bool,
    ) -> Waited {
        let task = world.task();
        task.assert_may_sleep();
        let bucket = &self.buckets[channel.bucket()];
        let mut entered = false;
        // The deadline fired while we slept, and nobody had taken us out.
        let mut unwoken = false;
        loop {
            if !entered {
                let mut waiters = bucket.waiters.lock(world);
                waiters.push((channel, task.id()));
                // Relaxed: the fence below orders it (WAIT-1).
                bucket.count.fetch_add(1, Ordering::Relaxed);
            }
            // WAIT-1: our entry is visible before we look.
            fence(Ordering::SeqCst);
            if ready() {
                if unwoken {
                    self.expect_waker(world, stat, channel);
                }
                self.leave(world, bucket, channel);
                return Waited::Ready;
            }
            if world.now() >= until {
                self.leave(world, bucket, channel);
                // The last look: `ready` may take what it looks for, so its answer is never thrown away.
                return if ready() {
                    Waited::Ready
                } else {
                    Waited::TimedOut
                };
            }
            world.park(until);
            entered = self.is_in(world, bucket, channel);
            unwoken = entered && world.now() >= until;
        }
    }

    /// The condition is true at the deadline and nobody has told us. The waker may have been pre-empted on its way: gives it a
    /// moment before calling it lost (WAIT-2).
    #[cold]
    fn expect_waker<W: World>(&self, world: &W, stat: &VmStat, channel: Channel) {
        let bucket = &self.buckets[channel.bucket()];
        let until = world.now().plus(GRACE);
        while world.now() < until {
            if !self.is_in(world, bucket, channel) {
                return;
            }
            world.park(until);
        }
        if self.is_in(world, bucket, channel) {
            lost_wakeup(world, stat, channel);
        }
    }

    fn is_in<W: World>(&self, world: &W, bucket: &Bucket, channel: Channel) -> bool {
        let waiters = bucket.waiters.lock(world);
        waiters.contains(&(channel, world.task().id()))
    }

    /// Takes the caller out, unless a waker has done so.
    fn leave<W: World>(&self, world: &W, bucket: &Bucket, channel: Channel) {
        let mut waiters = bucket.waiters.lock(world);
        let me = (channel, world.task().id());
        let Some(at) = waiters.iter().position(|w| *w == me) else {
            return;
        };
        waiters.remove(at);
        // Relaxed: a count that is too high costs a look; see `wake`.
        bucket.count.fetch_sub(1, Ordering::Relaxed);
    }

    /// Wakes all who wait on `channel`. Cheap when nobody does.
    pub(crate) fn wake<W: World>(&self, world: &W, channel: Channel) {
        let bucket = &self.buckets[channel.bucket()];
        // WAIT-1: our change of the state is visible before we look.
        fence(Ordering::SeqCst);
        // Relaxed: ordered by the fence.
        if bucket.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut woken = [TaskId(0); 16];
        loop {
            let mut n = 0;
            {
                let mut waiters = bucket.waiters.lock(world);
                waiters.retain(|(c, task)| {
                    if *c == channel && n < woken.len() {
                        woken[n] = *task;
                        n += 1;
                        return false;
                    }
                    true
                });
                // Relaxed: changed under the lock.
                bucket.count.fetch_sub(n as u32, Ordering::Relaxed);
            }
            for task in &woken[..n] {
                world.unpark(*task);
            }
            if n < woken.len() {
                return;
            }
        }
    }

    /// WAIT-2: nobody waits. For the end of a cache.
    pub(crate) fn is_empty(&self) -> bool {
        // Relaxed: called when no task is inside.
        self.buckets
            .iter()
            .all(|b| b.count.load(Ordering::Relaxed) == 0)
    }
}

/// How long a waker may be under way between its change and its call.
const GRACE: Nanos = Nanos::from_millis(50);

fn lost_wakeup<W: World>(world: &W, stat: &VmStat, channel: Channel) {
    stat.add(world.cpu(), Event::LostWakeups, 1);
    tracing::error!(?channel, "WAIT-2: lost wake-up");
    assert!(
        !(cfg!(debug_assertions) || world.is_lab()),
        "WAIT-2: lost wake-up on {channel:?}"
    );
}
