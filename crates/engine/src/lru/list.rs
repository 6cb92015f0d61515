//! A doubly-linked list of frames, its links kept in the frames' descriptors.
//!
//! **State.** Head, tail and length, and the links of the frames on it, all under the lock of who owns the list: the
//! links are reached through `&self` of [`Links`], so that it is the owner's `&mut List` that stands for the lock.
//!
//! **Context.** Anyone with that lock. Never sleeps or allocates; every motion is O(1).
//!
//! **Invariants.**
//! - LIST-1: a frame is on at most one list, and a frame on none has no links: lists never share frames.
//! - LIST-2: next and prev mirror each other, from head to tail, over exactly `len` frames.
//!
//! **Kernel.** struct list_head. Head: most recently added. Tail: next to be reclaimed.
//!
//! **Tests.** Here, against a `VecDeque`.

use crate::frame::FrameNo;

/// Where the links of frames are. A frame that was never on a list has neither.
pub trait Links {
    /// The frame after `frame`, towards the tail.
    fn next(&self, frame: FrameNo) -> Option<FrameNo>;
    /// Sets the frame after `frame`.
    fn set_next(&self, frame: FrameNo, next: Option<FrameNo>);
    /// The frame before `frame`, towards the head.
    fn prev(&self, frame: FrameNo) -> Option<FrameNo>;
    /// Sets the frame before `frame`.
    fn set_prev(&self, frame: FrameNo, prev: Option<FrameNo>);
}

/// A list. The same `links` belong to all calls on it.
#[derive(Debug)]
pub struct List {
    head: Option<FrameNo>,
    tail: Option<FrameNo>,
    len: usize,
}

impl Default for List {
    fn default() -> List {
        List::new()
    }
}

impl List {
    /// An empty list.
    pub const fn new() -> List {
        List {
            head: None,
            tail: None,
            len: 0,
        }
    }

    /// True without a frame.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Frames on the list.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The frame added last.
    pub fn head(&self) -> Option<FrameNo> {
        self.head
    }

    /// The frame to be reclaimed next.
    pub fn tail(&self) -> Option<FrameNo> {
        self.tail
    }

    /// Adds `frame`, which is on no list, at the head.
    pub fn push_head(&mut self, links: &impl Links, frame: FrameNo) {
        self.assert_unlinked(links, frame);
        links.set_next(frame, self.head);
        match self.head {
            Some(head) => links.set_prev(head, Some(frame)),
            None => self.tail = Some(frame),
        }
        self.head = Some(frame);
        self.len += 1;
    }

    /// Adds `frame`, which is on no list, at the tail.
    pub fn push_tail(&mut self, links: &impl Links, frame: FrameNo) {
        self.assert_unlinked(links, frame);
        links.set_prev(frame, self.tail);
        match self.tail {
            Some(tail) => links.set_next(tail, Some(frame)),
            None => self.head = Some(frame),
        }
        self.tail = Some(frame);
        self.len += 1;
    }

    /// Takes `frame`, which is on this list, out of it.
    ///
    /// # Panics
    /// When it is not (as far as its neighbours tell), by LIST-1 or LIST-2.
    pub fn remove(&mut self, links: &impl Links, frame: FrameNo) {
        let (next, prev) = (links.next(frame), links.prev(frame));
        match prev {
            Some(prev) => {
                assert_eq!(
                    links.next(prev),
                    Some(frame),
                    "LIST-2: before frame {frame}"
                );
                links.set_next(prev, next);
            }
            None => {
                assert_eq!(
                    self.head,
                    Some(frame),
                    "LIST-1: frame {frame} is on another list or none"
                );
                self.head = next;
            }
        }
        match next {
            Some(next) => {
                assert_eq!(links.prev(next), Some(frame), "LIST-2: after frame {frame}");
                links.set_prev(next, prev);
            }
            None => {
                assert_eq!(
                    self.tail,
                    Some(frame),
                    "LIST-1: frame {frame} is on another list or none"
                );
                self.tail = prev;
            }
        }
        links.set_next(frame, None);
        links.set_prev(frame, None);
        self.len -= 1;
    }

    /// Puts `new`, which is on no list, in the place of `old`, which is on this one.
    ///
    /// # Panics
    /// When they are not (as far as their neighbours tell), by LIST-1 or LIST-2.
    pub fn replace(&mut self, links: &impl Links, old: FrameNo, new: FrameNo) {
        let next = links.next(old);
        self.remove(links, old);
        let Some(next) = next else {
            return self.push_tail(links, new);
        };
        self.assert_unlinked(links, new);
        let prev = links.prev(next);
        links.set_prev(new, prev);
        links.set_next(new, Some(next));
        links.set_prev(next, Some(new));
        match prev {
            Some(prev) => links.set_next(prev, Some(new)),
            None => self.head = Some(new),
        }
        self.len += 1;
    }

    /// Takes the frame at the tail.
    pub fn pop_tail(&mut self, links: &impl Links) -> Option<FrameNo> {
        let frame = self.tail()?;
        self.remove(links, frame);
        Some(frame)
    }

    /// The frames from tail to head: in the order of reclaim.
    pub fn iter_from_tail<'a, L: Links>(
        &self,
        links: &'a L,
    ) -> impl Iterator<Item = FrameNo> + use<'a, L> {
        self.iter_after(links, None)
    }

    /// From the frame after `frame`, which is on this list, towards the head; without one from the tail.
    pub fn iter_after<'a, L: Links>(
        &self,
        links: &'a L,
        frame: Option<FrameNo>,
    ) -> impl Iterator<Item = FrameNo> + use<'a, L> {
        let first = match frame {
            Some(frame) => links.prev(frame),
            None => self.tail(),
        };
        std::iter::successors(first, |&frame| links.prev(frame))
    }

    /// Panics unless LIST-2 holds. Looks at every frame of the list.
    pub fn check_invariants(&self, links: &impl Links) {
        let (mut at, mut before, mut seen) = (self.head, None, 0);
        while let Some(frame) = at {
            assert_eq!(links.prev(frame), before, "LIST-2: before frame {frame}");
            seen += 1;
            assert!(seen <= self.len, "LIST-2: more than {} frames", self.len);
            (before, at) = (Some(frame), links.next(frame));
        }
        assert_eq!(
            (self.tail, self.len),
            (before, seen),
            "LIST-2: tail, length"
        );
    }

    fn assert_unlinked(&self, links: &impl Links, frame: FrameNo) {
        debug_assert!(
            links.next(frame).is_none() && links.prev(frame).is_none() && self.head != Some(frame),
            "LIST-1: frame {frame} is on a list already"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;
    use std::collections::VecDeque;

    /// (next, prev) of each frame.
    struct Table(Vec<Cell<(Option<FrameNo>, Option<FrameNo>)>>);

    impl Table {
        fn new(frames: usize) -> Table {
            Table(vec![Cell::new((None, None)); frames])
        }
    }

    impl Links for Table {
        fn next(&self, frame: FrameNo) -> Option<FrameNo> {
            self.0[frame.index()].get().0
        }
        fn set_next(&self, frame: FrameNo, next: Option<FrameNo>) {
            let link = &self.0[frame.index()];
            link.set((next, link.get().1));
        }
        fn prev(&self, frame: FrameNo) -> Option<FrameNo> {
            self.0[frame.index()].get().1
        }
        fn set_prev(&self, frame: FrameNo, prev: Option<FrameNo>) {
            let link = &self.0[frame.index()];
            link.set((link.get().0, prev));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Two lists over one table of links, so that frames move between them.
        #[test]
        fn same_as_a_deque(ops in prop::collection::vec((0u8..7, any::<bool>(), 0u32..24), 0..300)) {
            let links = Table::new(24);
            let mut lists = [List::new(), List::default()];
            let mut models = [VecDeque::new(), VecDeque::new()];
            for (op, which, frame) in ops {
                let frame = FrameNo(frame);
                let which = usize::from(which);
                let at = models.iter().position(|m| m.contains(&frame));
                let new = FrameNo((frame.0 + 1) % 24);
                let vacant = models.iter().all(|m| !m.contains(&new));
                let (list, model) = (&mut lists[which], &mut models[which]);
                match (op, at) {
                    (0, None) => {
                        list.push_head(&links, frame);
                        model.push_front(frame);
                    }
                    (1, None) => {
                        list.push_tail(&links, frame);
                        model.push_back(frame);
                    }
                    (2, _) => prop_assert_eq!(list.pop_tail(&links), model.pop_back()),
                    (6, Some(at)) if vacant => {
                        lists[at].replace(&links, frame, new);
                        for f in models[at].iter_mut().filter(|f| **f == frame) {
                            *f = new;
                        }
                    }
                    (3..=5, Some(at)) => {
                        let (list, model) = (&mut lists[at], &mut models[at]);
                        model.retain(|&f| f != frame);
                        match op {
                            3 => list.remove(&links, frame),
                            4 => {
                                list.remove(&links, frame);
                                list.push_head(&links, frame);
                                model.push_front(frame);
                            }
                            _ => {
                                list.remove(&links, frame);
                                list.push_tail(&links, frame);
                                model.push_back(frame);
                            }
                        }
                    }
                    _ => {}
                }
                for (list, model) in lists.iter().zip(&models) {
                    list.check_invariants(&links);
                    prop_assert_eq!(list.len(), model.len());
                    prop_assert_eq!((list.head(), list.tail()), (model.front().copied(), model.back().copied()));
                    prop_assert!(list.iter_from_tail(&links).eq(model.iter().rev().copied()));
                    if let Some(last) = model.back() {
                        let after = list.iter_after(&links, Some(*last));
                        prop_assert!(after.eq(model.iter().rev().skip(1).copied()));
                    }
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "LIST-1")]
    fn a_frame_on_no_list_is_not_removed() {
        let links = Table::new(2);
        let mut list = List::new();
        list.push_head(&links, FrameNo(0));
        list.remove(&links, FrameNo(1));
    }

    #[test]
    #[should_panic(expected = "LIST-1")]
    fn the_only_frame_of_another_list_is_not_removed() {
        let links = Table::new(2);
        let (mut a, mut b) = (List::new(), List::new());
        a.push_head(&links, FrameNo(0));
        b.push_head(&links, FrameNo(1));
        b.remove(&links, FrameNo(0));
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "LIST-1")]
    fn a_frame_is_on_one_list() {
        let links = Table::new(2);
        let (mut a, mut b) = (List::new(), List::new());
        a.push_head(&links, FrameNo(0));
        a.push_head(&links, FrameNo(1));
        b.push_head(&links, FrameNo(0));
    }
}
