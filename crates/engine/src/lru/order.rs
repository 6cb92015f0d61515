//! What a page order is: the trait, what it sees of the frames, and what it is told. [`PageOrder`] has the whole of it, as
//! those who write one read it.

use super::list::Links;
use crate::frame::state::{ACTIVE, HOLDERS, LRU, REF1, REF2};
use crate::frame::{FrameNo, FrameTable, LruLinks};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The frames, as an order sees them: links for its lists, reference bits, and one bit of its own for each frame.
#[derive(Clone, Copy)]
pub struct Frames<'a>(&'a FrameTable);

/// What page a frame holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PageId {
    /// The file, as the cache counts them.
    pub mapping: u32,
    /// The page's number in the file.
    pub page: u64,
}

impl<'a> Frames<'a> {
    pub(crate) fn new(table: &'a FrameTable) -> Frames<'a> {
        Frames(table)
    }

    /// Frames of the cache: its capacity in pages.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never: a cache has frames.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The page in a frame that is on a list or isolated.
    pub fn page(&self, frame: FrameNo) -> PageId {
        let f = self.0.get(frame.0);
        PageId {
            mapping: f.mapping(),
            page: f.page(),
        }
    }

    /// Takes the references that look-ups have left since the last look: 0, 1, or 2 for more.
    pub fn take_references(&self, frame: FrameNo) -> u32 {
        self.0.get(frame.0).state.take_references()
    }

    /// Leaves one reference, as a look-up would.
    pub fn leave_reference(&self, frame: FrameNo) {
        let state = &self.0.get(frame.0).state;
        let flag = if state.peek() & REF1 == 0 { REF1 } else { REF2 };
        state.set(flag);
    }

    /// Does anybody hold the page shared now? A hint.
    pub fn is_held(&self, frame: FrameNo) -> bool {
        self.0.get(frame.0).state.peek() & HOLDERS != 0
    }

    /// The order's own bit of a frame (PG_active), such as which of two lists it is on. Cleared on a new frame; kept
    /// while the frame is isolated.
    pub fn is_active(&self, frame: FrameNo) -> bool {
        self.0.get(frame.0).state.peek() & ACTIVE != 0
    }

    /// Sets the order's own bit.
    pub fn set_active(&self, frame: FrameNo, active: bool) {
        let state = &self.0.get(frame.0).state;
        if active {
            state.set(ACTIVE);
        } else {
            state.clear(ACTIVE);
        }
    }

    /// Is the frame on a list of the order? For checks.
    pub fn is_listed(&self, frame: FrameNo) -> bool {
        self.0.get(frame.0).state.peek() & LRU != 0
    }
}

impl Links for Frames<'_> {
    fn next(&self, frame: FrameNo) -> Option<FrameNo> {
        LruLinks(self.0).next(frame)
    }
    fn set_next(&self, frame: FrameNo, next: Option<FrameNo>) {
        LruLinks(self.0).set_next(frame, next);
    }
    fn prev(&self, frame: FrameNo) -> Option<FrameNo> {
        LruLinks(self.0).prev(frame)
    }
    fn set_prev(&self, frame: FrameNo, prev: Option<FrameNo>) {
        LruLinks(self.0).set_prev(frame, prev);
    }
}

/// Why reclaim gives a page back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Reason {
    /// It is out of the index (truncated, or replaced): its last user frees it.
    Gone,
    /// Somebody holds it.
    Held,
    /// It is latched, being read, or was taken by somebody at the last moment.
    Busy,
    /// It has as many references as [`PageOrder::references_kept`] asks for.
    Referenced,
    /// It is dirty, or being written.
    Dirty,
    /// The same, and the policy wants it out of reclaim's way until it is clean.
    OutOfTheWay,
    /// Its write has ended, and reclaim wants to meet it next.
    Written,
}

/// How many pages an order has.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Lengths {
    /// Pages on the lists that feed reclaim (`nr_inactive_file`).
    pub inactive: usize,
    /// All others (`nr_active_file`).
    pub active: usize,
    /// Pages that `isolate` may hand out in the end: a pass at priority *p* tries this many >> *p*.
    pub candidates: usize,
    /// Pages that `refill` should look at: a pass at priority *p* looks at this many >> *p*.
    pub refill: usize,
}

/// What a call of `refill` did.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Refilled {
    /// Pages looked at (`pgrefill`).
    pub looked: usize,
    /// Pages moved towards reclaim (`pgdeactivate`).
    pub deactivated: usize,
}

/// What a call of `isolate` did.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Isolated {
    /// Frames handed out.
    pub taken: usize,
    /// Pages looked at, those included. Reclaim stops its pass when it is 0.
    pub looked: usize,
}

/// Which evicted pages leave a shadow, by which `refault` tells how long a page was gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ghosts {
    /// None.
    None,
    /// Those whose own bit is clear. The clock counts such evictions.
    Inactive,
    /// All. The clock counts evictions and activations (Linux's refault distance).
    All,
}

/// The order in which pages are tried for reclaim.
///
/// An order keeps frames on lists of its own ([`List`](crate::List)), linked through their descriptors, so that it needs no
/// memory: what it has lies in its struct. Whether a tried page *can* go (it is held, dirty, being written) is reclaim's
/// business, which says why a page comes back as a [`Reason`].
///
/// ```text
///            refault?                    touch (on request)
/// miss ──► insert ──► on a list ───────────────────────────► on a list
///                       │ isolate                 ▲ putback (Reason)
///                       ▼                         │
///                    isolated ── reclaim looks ───┴──► evicted, leaves a shadow (Ghosts)
/// ```
///
/// **Context.** Every method runs under the LRU lock (`Rank::Lru`): it must not sleep, allocate, or take long.
///
/// **Invariants.** Of an order, checked by the engine around it:
/// - ORDER-1: `isolate` hands out frames that are on the order's lists, each once, and takes them off.
/// - ORDER-2: after any method, `inactive + active` of [`Lengths`] is the number of frames on its lists.
///
/// A cache gets one by [`Config::order`](crate::Config::order), as [`Order::custom`]. Hits by look-up leave references,
/// which [`Frames::take_references`] takes; an order that must see each hit as it happens says
/// [`wants_touch`](PageOrder::wants_touch).
pub trait PageOrder: Send {
    /// Its name, as reports have it.
    fn name(&self) -> &'static str;

    /// True when `touch` shall be called on each hit. It costs each hit the LRU lock.
    fn wants_touch(&self) -> bool {
        false
    }

    /// Which evicted pages are remembered.
    fn ghosts(&self) -> Ghosts {
        Ghosts::None
    }

    /// With so many references a page that reclaim could take is put back as [`Reason::Referenced`]. The default is
    /// never: the order looks at references in `isolate` or `touch`.
    fn references_kept(&self) -> u32 {
        u32::MAX
    }

    /// A page comes back whose shadow is `distance` ticks of the clock old (1: the last eviction). True when it belongs
    /// among the kept pages; `insert` is then told.
    fn refault(&mut self, frames: Frames<'_>, distance: u32) -> bool {
        let _ = (frames, distance);
        false
    }

    /// A page enters. `active`: `refault` said so, or it replaces a page whose own bit is set.
    fn insert(&mut self, frames: Frames<'_>, frame: FrameNo, active: bool);

    /// A hit on a page that is on a list. Only with `wants_touch`.
    fn touch(&mut self, frames: Frames<'_>, frame: FrameNo) {
        let _ = (frames, frame);
    }

    /// Looks at up to `n` of the kept pages, and moves those that are not used any more towards reclaim.
    fn refill(&mut self, frames: Frames<'_>, n: usize) -> Refilled {
        let _ = (frames, n);
        Refilled::default()
    }

    /// Takes up to `out.len()` pages off the lists, the first to go first.
    fn isolate(&mut self, frames: Frames<'_>, out: &mut [FrameNo]) -> Isolated;

    /// A page that was isolated, or removed for it to come back elsewhere, comes back.
    fn putback(&mut self, frames: Frames<'_>, frame: FrameNo, reason: Reason);

    /// A page that is on a list leaves: it was truncated, evicted by name, taken for a block of frames, or its writeback has
    /// ended and `putback` follows.
    fn remove(&mut self, frames: Frames<'_>, frame: FrameNo);

    /// The number of pages.
    fn lengths(&self) -> Lengths;

    /// Panics where an invariant of the order does not hold. May look at every frame.
    fn check_invariants(&self, frames: Frames<'_>);
}

/// Makes the order of a cache of so many frames.
type Factory = dyn Fn(usize) -> Box<dyn PageOrder> + Send + Sync;

/// Which order a cache has.
#[derive(Clone, Default)]
pub enum Order {
    /// Linux's active and inactive list, with the refault distance.
    #[default]
    TwoList,
    /// S3-FIFO: a small queue, a main queue, and ghosts.
    S3Fifo,
    /// The user's own: the name and what makes it.
    Custom(Arc<Factory>),
}

impl Order {
    /// The built-in ones.
    pub const BUILTIN: [Order; 2] = [Order::TwoList, Order::S3Fifo];

    /// An order of one's own; `make` gets the number of frames.
    pub fn custom<O: PageOrder + 'static>(
        make: impl Fn(usize) -> O + Send + Sync + 'static,
    ) -> Order {
        Order::Custom(Arc::new(move |frames| Box::new(make(frames))))
    }

    /// The name as scenarios and reports have it.
    pub fn name(&self) -> &'static str {
        match self {
            Order::TwoList => "two-list",
            Order::S3Fifo => "s3-fifo",
            Order::Custom(_) => "custom",
        }
    }

    pub(crate) fn make(&self, frames: usize) -> Box<dyn PageOrder> {
        match self {
            Order::TwoList => Box::new(super::two_list::TwoList::default()),
            Order::S3Fifo => Box::new(super::s3_fifo::S3Fifo::default()),
            Order::Custom(make) => make(frames),
        }
    }
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Order {
    type Err = String;
    fn from_str(s: &str) -> Result<Order, String> {
        let mut all = Order::BUILTIN.into_iter();
        all.find(|o| o.name() == s).ok_or_else(|| {
            let names = Order::BUILTIN.map(|o| o.name());
            format!("unknown order {s:?}; there are {}", names.join(", "))
        })
    }
}
