//! Models of devices: when a request ends, from parameters that a user can state.
//!
//! Each model is a struct of parameters with published or stated defaults, and a server that keeps its state. A server
//! says when a request ends that reaches it at a time. In front of an arm, and of a ring of descriptors, requests wait on
//! the host's side: then the server also chooses which of them it takes (`take`), and is told when one has left
//! (`leave`). What a model leaves out, its head says.
//!
//! **Context.** Called under the queue's cell; never sleeps. Draws from the queue's stream of random numbers only, and
//! one draw for each request of [`Ssd`], so that a seed names a run.
//! **Invariants.**
//! - MODEL-1: a request ends after it reached the device.
//! - MODEL-2: parameters that `Model::check` accepts serve every request in finite time.

mod cloud;
mod curve;
mod deadline;
mod dispatch;
mod hdd;
mod latency;
mod nvme;
mod object;
mod round;
mod simulate;
mod ssd;
#[cfg(test)]
mod ssd_tests;
#[cfg(test)]
mod tests;

pub use cloud::{Bucket, Cloud};
pub use curve::{Curve, Share};
pub use hdd::{Elevator, Hdd};
pub use latency::{Latency, Rate};
pub use nvme::Nvme;
pub use object::Object;
pub use simulate::{Beside, HandIn, Load, Simulated};
pub use ssd::{COPIES_PER_S, Completions, Scheduler, Ssd};

use crate::rng::Rng;
use highwater_engine::Nanos;
use highwater_engine::io::IoOp;

/// A kind of device and its parameters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Model {
    /// A disk with an arm.
    Hdd(Hdd),
    /// A flash disk behind SATA, and whatever was measured.
    Ssd(Ssd),
    /// A flash disk whose channels show.
    Nvme(Nvme),
    /// A network disk with limits and bursts.
    Cloud(Cloud),
    /// An object store.
    Object(Object),
}

impl Default for Model {
    fn default() -> Model {
        Model::Ssd(Ssd::default())
    }
}

/// What a request asks of the device.
#[derive(Clone, Copy, Debug)]
pub(in crate::device) struct Access {
    pub op: IoOp,
    /// The first byte on the device.
    pub offset: u64,
    pub len: u64,
    /// Pieces of memory that do not adjoin.
    pub segments: u32,
    /// A spike on top.
    pub extra: u64,
    /// How much memory CPUs copy meanwhile, in MB/s.
    pub copying: u32,
}

/// A request that the device has not taken.
#[derive(Clone, Copy, Debug)]
pub(in crate::device) struct Waiting {
    pub token: u64,
    pub access: Access,
    pub since: u64,
}

impl Model {
    /// How many requests the device takes at one time.
    pub fn depth(&self) -> usize {
        match self {
            Model::Hdd(m) => m.depth,
            Model::Ssd(m) => m.depth,
            Model::Nvme(m) => m.depth,
            Model::Cloud(m) => m.depth,
            Model::Object(m) => m.connections,
        }
    }

    /// The largest request that the device takes, in bytes.
    pub fn request_bytes_max(&self) -> usize {
        match self {
            Model::Object(m) => m.request_bytes_max as usize,
            _ => 1 << 20,
        }
    }

    /// The most pieces of memory of one request: as many as the largest has pages where that is more than a disk's, or
    /// what its ring has room for.
    pub fn segments_max(&self) -> usize {
        match self {
            Model::Ssd(m) if m.ring > 0 => (m.ring - ssd::HEADERS) as usize,
            _ => (self.request_bytes_max() / 4096).max(254),
        }
    }

    /// The model and how quick it is, in a few words.
    pub fn summary(&self) -> String {
        let us = |l: &Latency| format!("{}..{}", l.at(0).0 / 1_000, l.max().0 / 1_000);
        match self {
            Model::Hdd(m) => format!("hdd {} rpm, {:?}", m.rpm, m.elevator),
            Model::Ssd(m) => format!(
                "ssd depth {} read {} write {} flush {} us, {} ns/KiB",
                m.depth,
                us(&m.read),
                us(&m.write),
                us(&m.flush),
                m.write_rate.time(1024)
            ),
            Model::Nvme(m) => format!("nvme depth {}, {} channels", m.depth, m.channels),
            Model::Cloud(m) => format!(
                "cloud {} requests/s, {} bytes/s",
                m.iops.per_s, m.bytes.per_s
            ),
            Model::Object(m) => format!("object, {} connections", m.connections),
        }
    }

    /// The first parameter that makes no sense, and what was expected.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        match self {
            Model::Hdd(m) => m.check(),
            Model::Ssd(m) => m.check(),
            Model::Nvme(m) => m.check(),
            Model::Cloud(m) => m.check(),
            Model::Object(m) => m.check(),
        }
    }

    /// A device that has just been switched on.
    pub(in crate::device) fn server(&self) -> Server {
        match self {
            Model::Hdd(m) => Server::Hdd(hdd::Arm::new(m.clone())),
            Model::Ssd(m) => Server::Ssd(ssd::Flash::new(m.clone())),
            Model::Nvme(m) => Server::Nvme(nvme::Channels::new(m.clone())),
            Model::Cloud(m) => Server::Cloud(cloud::Volume::new(m.clone())),
            Model::Object(m) => Server::Object(object::Store::new(m.clone())),
        }
    }
}

/// A request on its way to its end.
#[derive(Clone, Copy, Debug)]
pub(in crate::device) struct Served {
    /// When it ends, or, not signalled, when the server is through with it.
    pub at: u64,
    /// The host knows when it ends; otherwise the server says so of it when it has nothing left to do.
    pub signalled: bool,
}

/// A model's state.
pub(in crate::device) enum Server {
    Hdd(hdd::Arm),
    Ssd(ssd::Flash),
    Nvme(nvme::Channels),
    Cloud(cloud::Volume),
    Object(object::Store),
}

impl Server {
    /// Do requests wait on the host's side until the device takes them?
    pub fn has_front(&self) -> bool {
        match self {
            Server::Hdd(_) => true,
            Server::Ssd(s) => s.has_front(),
            _ => false,
        }
    }

    /// Which of `waiting`, oldest first, the device takes at `now`; none when it has no room.
    pub fn take(&mut self, now: u64, waiting: &[Waiting]) -> Option<usize> {
        match self {
            Server::Hdd(arm) => arm.take(now, waiting),
            Server::Ssd(s) => s.take(now, waiting),
            _ => None,
        }
    }

    /// A request of so many segments that was taken has left.
    pub fn leave(&mut self, segments: u32) {
        match self {
            Server::Hdd(arm) => arm.leave(),
            Server::Ssd(s) => s.leave(segments),
            _ => {}
        }
    }

    /// Does a request that hangs keep its room on the device? An arm goes on to the next; the descriptors of a ring are
    /// the device's until it answers.
    pub fn hung_stays(&self) -> bool {
        !matches!(self, Server::Hdd(_))
    }

    /// When a request ends that reaches the device at `at` (behind a front: that it takes at `at`).
    pub fn end_of(&mut self, at: u64, access: &Access, rng: &mut Rng) -> u64 {
        self.serve(at, access, rng).at
    }

    /// What becomes of a request that the device takes at `at`.
    pub fn serve(&mut self, at: u64, access: &Access, rng: &mut Rng) -> Served {
        let end = match self {
            Server::Hdd(s) => s.end_of(at, access),
            Server::Ssd(s) => return s.serve(at, access, rng),
            Server::Nvme(s) => s.end_of(at, access, rng),
            Server::Cloud(s) => s.end_of(at, access, rng),
            Server::Object(s) => s.end_of(at, access, rng),
        };
        Served {
            at: end,
            signalled: true,
        }
    }

    /// When the next step of a request is that was `served` until now; None: it has ended.
    pub fn put_off(&self, now: u64, served: &mut Served) -> Option<u64> {
        let Server::Ssd(server) = self else {
            return None;
        };
        if served.signalled {
            return None;
        }
        let busy = server.busy_until();
        served.at = busy;
        if busy <= now {
            served.signalled = true;
            served.at = now + server.round_delay();
        }
        (served.at > now).then_some(served.at)
    }

    /// When a flush ends that begins at `at`.
    pub fn flush_end(&mut self, at: u64, rng: &mut Rng) -> u64 {
        match self {
            Server::Hdd(s) => at + s.flush().0,
            Server::Ssd(s) => s.flush_end(at, rng),
            Server::Nvme(s) => at + s.flush().0,
            Server::Cloud(s) => at + s.flush().0,
            Server::Object(s) => at + s.flush().0,
        }
    }
}

/// Places that serve one request each.
struct Places(Vec<u64>);

impl Places {
    fn new(n: usize) -> Places {
        Places(vec![0; n])
    }

    /// How many serve a request at `at`.
    fn busy(&self, at: u64) -> u64 {
        self.0.iter().filter(|end| **end > at).count() as u64
    }

    /// The place that is free first, and when a request may begin there.
    fn earliest(&mut self, at: u64) -> (&mut u64, u64) {
        let place = self.0.iter_mut().min().unwrap_or_else(|| unreachable!());
        let start = at.max(*place);
        (place, start)
    }
}

/// `Err` with a parameter's name and what was expected, unless `good`.
fn expect(
    good: bool,
    name: &'static str,
    expected: &'static str,
) -> Result<(), (&'static str, &'static str)> {
    if good { Ok(()) } else { Err((name, expected)) }
}

/// May so many be served at one time? As many as an NVMe queue has commands, at most.
fn depth_fits(n: usize) -> bool {
    (1..=1 << 16).contains(&n)
}
const DEPTH_EXPECTED: &str = "1 to 65536 requests at one time";

/// The bound of every time in a model: an hour.
const TIME_MAX: Nanos = Nanos::from_secs(3_600);
const TIME_EXPECTED: &str = "at most an hour";
