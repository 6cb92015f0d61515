//! Panics of tasks: the hook that prints them, and may capture a backtrace, runs on a stack of its own.
//!
//! The default hook takes some 22 KiB, a silent one 2 KiB: a panic must not overflow the small stack that it is about.
//!
//! **Context.** The panicking task's, which does not switch meanwhile.

use super::area::LabStack;
use super::trap;
use std::cell::RefCell;
use std::sync::Once;

/// Room for a formatted backtrace.
const SIZE: usize = 1 << 20;

thread_local! {
    static ASIDE: RefCell<Option<LabStack>> = const { RefCell::new(None) };
}

/// Puts the hook before the one that is there, once for the process. Other threads' panics pass through.
pub(crate) fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let stack = trap::running().and_then(|_| take_aside());
            let Some(mut stack) = stack else {
                return before(info);
            };
            let task = trap::set_running(std::ptr::null());
            corosensei::on_stack(&mut stack, || before(info));
            trap::set_running(task);
            ASIDE.with(|aside| aside.replace(Some(stack)));
        }));
    });
}

fn take_aside() -> Option<LabStack> {
    let kept = ASIDE.with(|aside| aside.borrow_mut().take());
    kept.or_else(|| LabStack::new(SIZE, None).ok())
}
