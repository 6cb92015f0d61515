//! What must be undone however the command ends: files, cgroups, loop devices, sysctls, children.
//!
//! An [`Undo`] runs its action once: when it is dropped (return, error, panic), or when SIGINT, SIGTERM or SIGHUP
//! arrives or the command otherwise ends at once ([`end`]), newest first. `kill -9` cannot be caught; the next run's message about left-over directories is for that.
//!
//! **State.** `ACTIONS`: a mutex; held only to take an action out, never while it runs. `RUNNING`: actions that a drop has
//! taken out and not finished; raised with `ACTIONS` held, so that who finds no action left sees those that run.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

type Action = Box<dyn FnOnce() + Send>;

static ACTIONS: Mutex<Vec<(u64, Action)>> = Mutex::new(Vec::new());
static NEXT: AtomicU64 = AtomicU64::new(1);
/// Held while the signal's actions run, so that the main thread does not exit in their midst.
static ENDING: Mutex<()> = Mutex::new(());
/// Actions that drops are running: unlinking a large file takes seconds, and a signal must not end the process meanwhile.
static RUNNING: AtomicU64 = AtomicU64::new(0);
/// A signal waits for them so long at the most.
const RUNNING_WAIT: Duration = Duration::from_secs(60);
static WATCHING: OnceLock<()> = OnceLock::new();
/// A signal arrived, or the reader of what is printed went away: somebody ends the process.
static ENDS: AtomicBool = AtomicBool::new(false);

/// Returns at once, unless the process is being ended: then never, so that nobody reports what that broke.
pub fn wait_if_ending() {
    while is_ending() {
        std::thread::park();
    }
}

/// Is somebody in [`end`]?
pub fn is_ending() -> bool {
    // Acquire: pairs with the release in `end`, which comes before any action.
    ENDS.load(Ordering::Acquire)
}

/// An action that will run. Dropping it runs it now.
#[must_use]
pub struct Undo(u64);

/// Registers `action`.
pub fn undo(action: impl FnOnce() + Send + 'static) -> Undo {
    // Relaxed: only uniqueness matters.
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    lock(&ACTIONS).push((id, Box::new(action)));
    Undo(id)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

impl Drop for Undo {
    fn drop(&mut self) {
        let action = {
            let mut actions = lock(&ACTIONS);
            let at = actions.iter().position(|(id, _)| *id == self.0);
            at.map(|at| (Running::new(), actions.remove(at)))
        };
        match action {
            Some((_running, (_, action))) => action(),
            // A signal took it: wait until its actions are done.
            None => drop(lock(&ENDING)),
        }
    }
}

/// Counts an action that a drop runs, a panic of it included.
struct Running;

impl Running {
    fn new() -> Running {
        // Relaxed: ordered by the lock of ACTIONS, which the caller holds.
        RUNNING.fetch_add(1, Ordering::Relaxed);
        Running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Release: pairs with the acquire in `others_done`, which then may end the process.
        RUNNING.fetch_sub(1, Ordering::Release);
    }
}

/// Waits at most `limit` for the actions that drops are running; true when there are none.
fn others_done(limit: Duration) -> bool {
    let begin = Instant::now();
    // Acquire: what the actions did is done when the process ends.
    while RUNNING.load(Ordering::Acquire) > 0 {
        if begin.elapsed() >= limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Runs every action, newest first.
pub fn run_all() {
    let _ending = lock(&ENDING);
    loop {
        let action = lock(&ACTIONS).pop();
        match action {
            Some((_, action)) => action(),
            None => return,
        }
    }
}

/// Undoes everything and ends the process.
pub fn end(code: i32) -> ! {
    // Release: whoever sees what an action did sees the flag too.
    ENDS.store(true, Ordering::Release);
    run_all();
    others_done(RUNNING_WAIT);
    std::process::exit(code);
}

/// Starts the thread that ends the process cleanly on a signal; the exit code is 128 + the signal's number.
pub fn watch_signals() {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    WATCHING.get_or_init(|| {
        let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP]) else {
            say!("highwater: cannot catch signals: on Ctrl-C its temporary files stay");
            return;
        };
        let _ = std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                if let Some(signal) = signals.forever().next() {
                    end(128 + signal);
                }
            });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn a_signal_waits_for_an_action_that_a_drop_is_running() {
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let (entered, inside) = std::sync::mpsc::channel::<()>();
        let guard = undo(move || {
            entered.send(()).unwrap();
            wait.recv().unwrap();
        });
        let dropping = std::thread::spawn(move || drop(guard));
        inside.recv().unwrap();
        assert!(!others_done(Duration::from_millis(20)));
        go.send(()).unwrap();
        dropping.join().unwrap();
        assert!(others_done(RUNNING_WAIT));
    }

    #[test]
    fn an_action_runs_once_on_drop_and_on_panic() {
        let count = Arc::new(AtomicU32::new(0));
        let add = |n: u32| {
            let count = count.clone();
            undo(move || {
                count.fetch_add(n, Ordering::SeqCst);
            })
        };
        drop(add(1));
        assert_eq!(count.load(Ordering::SeqCst), 1);
        let guard = add(10);
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _guard = guard;
            std::panic::resume_unwind(Box::new(()));
        }));
        assert!(unwound.is_err());
        assert_eq!(count.load(Ordering::SeqCst), 11);
    }
}
