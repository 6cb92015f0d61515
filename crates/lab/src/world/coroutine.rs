//! A task's coroutine and the stack under it.
//!
//! **Invariants.** CO-1: while a coroutine runs, and only then, its stack is the one that the handlers know (TRAP-1).

use crate::stack::{Area, LabStack, set_running};
use corosensei::{Coroutine, Yielder};
use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

/// Why a task did not end well.
pub(crate) enum Ended {
    /// Its body panicked.
    Panic(Box<dyn Any + Send>),
    /// Its stack was too small; what was on it is lost.
    Overflow,
}

/// What a finished body leaves.
pub(crate) type Outcome = Result<(), Ended>;
pub(crate) type YielderCell = Rc<Cell<*const Yielder<(), ()>>>;

/// One task's coroutine.
pub(crate) struct Co {
    inner: Coroutine<(), (), Outcome, LabStack>,
    /// The area of its stack, which is boxed: it stays where it is.
    area: *const Area,
}

impl Co {
    /// A coroutine that will run `body` on `stack`.
    pub fn new(stack: LabStack, yielder: YielderCell, body: impl FnOnce() + 'static) -> Co {
        let area = std::ptr::from_ref(stack.area());
        let inner = Coroutine::with_stack(stack, move |y: &Yielder<(), ()>, ()| -> Outcome {
            yielder.set(y);
            catch_unwind(AssertUnwindSafe(body)).map_err(Ended::Panic)
        });
        // CO-1: the handler needs what only the coroutine can make.
        let handler = inner.trap_handler();
        let co = Co { inner, area };
        co.with_area(|a| a.handler.set(Some(handler)));
        co
    }

    #[allow(unsafe_code)]
    fn with_area<R>(&self, f: impl FnOnce(&Area) -> R) -> R {
        // SAFETY: STACK-2: the coroutine owns the stack, which owns the area.
        f(unsafe { &*self.area })
    }

    /// Runs it until it waits (`None`) or ends.
    pub fn resume(&mut self) -> Option<Outcome> {
        let before = set_running(self.area);
        let outcome = self.inner.resume(()).as_return();
        set_running(before);
        // It may have ended before it met its world again.
        let late = outcome.is_some() && self.with_area(|a| a.late.get());
        if late {
            Some(Err(Ended::Overflow))
        } else {
            outcome
        }
    }

    pub fn done(&self) -> bool {
        self.inner.done()
    }

    pub fn started(&self) -> bool {
        self.inner.started()
    }

    /// Its stack, once it is done.
    pub fn into_stack(self) -> LabStack {
        self.inner.into_stack()
    }
}
