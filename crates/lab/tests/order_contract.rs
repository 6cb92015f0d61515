//! What the engine promises an order of pages (`PageOrder`), asked by an order that knows which frames it has: a frame enters
//! once, is touched and removed only while it is listed, and comes back only after it was isolated.

mod common;
#[allow(dead_code)]
#[path = "../examples/plain_lru.rs"]
mod plain_lru;

use common::{PAGE, lab};
use highwater_engine::{Nanos, PageNo};
use highwater_lab::{FrameNo, Frames, Isolated, Lengths, Order, PageOrder, Reason, Rng};
use plain_lru::PlainLru;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where a frame is, by the calls until now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    Away,
    Listed,
    Isolated,
}

/// How often it was called.
#[derive(Default)]
struct Calls {
    touched: AtomicU64,
    put_back: AtomicU64,
    removed: AtomicU64,
}

/// Plain LRU that looks at each call. An isolated frame that does not come back was evicted: it may enter again.
struct Strict {
    lru: PlainLru,
    at: Vec<At>,
    calls: Arc<Calls>,
}

impl Strict {
    fn moves(&mut self, frame: FrameNo, what: &str, from: &[At], to: At) {
        let at = &mut self.at[frame.index()];
        assert!(
            from.contains(at),
            "{what} of frame {frame}, which is {at:?}"
        );
        *at = to;
    }
}

fn one(n: &AtomicU64) {
    n.fetch_add(1, Ordering::Relaxed);
}

impl PageOrder for Strict {
    fn name(&self) -> &'static str {
        "strict"
    }

    fn wants_touch(&self) -> bool {
        true
    }

    fn insert(&mut self, frames: Frames<'_>, frame: FrameNo, active: bool) {
        self.moves(frame, "insert", &[At::Away, At::Isolated], At::Listed);
        self.lru.insert(frames, frame, active);
    }

    fn touch(&mut self, frames: Frames<'_>, frame: FrameNo) {
        self.moves(frame, "touch", &[At::Listed], At::Listed);
        one(&self.calls.touched);
        self.lru.touch(frames, frame);
    }

    fn isolate(&mut self, frames: Frames<'_>, out: &mut [FrameNo]) -> Isolated {
        let done = self.lru.isolate(frames, out);
        for frame in &out[..done.taken] {
            self.moves(*frame, "isolate", &[At::Listed], At::Isolated);
        }
        done
    }

    fn putback(&mut self, frames: Frames<'_>, frame: FrameNo, reason: Reason) {
        // `rotate` takes a listed page off and puts it back in one go: `remove` came before.
        let from = match reason {
            Reason::Written => &[At::Isolated, At::Away][..],
            _ => &[At::Isolated],
        };
        self.moves(frame, "putback", from, At::Listed);
        one(&self.calls.put_back);
        self.lru.putback(frames, frame, reason);
    }

    fn remove(&mut self, frames: Frames<'_>, frame: FrameNo) {
        self.moves(frame, "remove", &[At::Listed], At::Away);
        one(&self.calls.removed);
        self.lru.remove(frames, frame);
    }

    fn lengths(&self) -> Lengths {
        self.lru.lengths()
    }

    fn check_invariants(&self, frames: Frames<'_>) {
        self.lru.check_invariants(frames);
        let listed = self.at.iter().filter(|at| **at == At::Listed).count();
        assert_eq!(listed, self.lru.lengths().inactive, "frames listed");
    }
}

#[test]
fn an_order_is_called_of_the_frames_it_has() {
    let calls = Arc::new(Calls::default());
    for seed in 1..=6 {
        let counted = calls.clone();
        let order = Order::custom(move |frames| Strict {
            lru: PlainLru::default(),
            at: vec![At::Away; frames],
            calls: counted.clone(),
        });
        lab(
            seed,
            160,
            |config| config.order = order,
            move |rig| {
                let (file, _device) = rig.file(1, 400);
                let file = Rc::new(file);
                let jobs: Vec<_> = (0..6)
                    .map(|task| {
                        let file = file.clone();
                        rig.spawn("user", move || {
                            let mut rng = Rng::new(seed, task);
                            let mut buffer = vec![task as u8; PAGE as usize];
                            for _ in 0..600 {
                                let span = 1 + rng.below(400);
                                let page = rng.below(span);
                                match rng.below(40) {
                                    0 => drop(file.evict(page * PAGE..(page + 9) * PAGE)),
                                    1 => drop(file.discard(page * PAGE..(page + 3) * PAGE)),
                                    2..=9 => drop(file.write_at(&buffer, page * PAGE)),
                                    10..=19 => drop(file.page(PageNo(page))),
                                    _ => drop(file.read_at(&mut buffer, page * PAGE)),
                                }
                            }
                        })
                    })
                    .collect();
                for job in jobs {
                    rig.join(job, Nanos::from_secs(60));
                }
                rig.engine.check_invariants();
            },
        );
    }
    for (what, n) in [
        ("touched", &calls.touched),
        ("put back", &calls.put_back),
        ("removed", &calls.removed),
    ] {
        assert!(n.load(Ordering::Relaxed) > 100, "pages were {what}");
    }
}
