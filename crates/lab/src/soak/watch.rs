//! The task that watches over a soak: trouble, rest, the end.

use super::user::User;
use super::{CrashPoint, Soak, Subject, Trouble, now, volume};
use crate::device::Moment;
use highwater_engine::io::IoOp;
use highwater_engine::{Error, IoErrorKind, Nanos, World};
use std::rc::Rc;

/// The longest that one operation may take: the engine's own limits (30 s for a request, 10 s for a latch or memory),
/// a few of them after each other.
const STUCK: Nanos = Nanos::from_secs(120);
/// The same in steps of the scheduler, for one that wakes and sleeps and wakes: whole runs take a third of it.
const STUCK_STEPS: u64 = 1_000_000;
/// How long after the end of trouble a sync may still fail.
const HEAL: Nanos = Nanos::from_secs(60);
/// The longest outage. Where writers are not throttled, all of memory is soon what cannot be written, and every operation
/// that needs a frame takes the ten seconds of an allocation that fails: thousands of them would take hours.
const OUTAGE_MAX: Nanos = Nanos::from_secs(40);
/// So often files are opened anew, at most, for what they have lost.
const REOPENS: u64 = 24;
/// How often the watch looks.
const LOOK: Nanos = Nanos::from_millis(2);

fn nap(soak: &Soak, span: Nanos) {
    soak.world.sleep_until(now(soak).plus(span));
}

/// Runs the users to their end, then the end itself.
pub(super) fn watch(soak: &Rc<Soak>) {
    for s in &soak.subjects {
        // Weak: the soak owns the device.
        let weak = Rc::downgrade(soak);
        s.device.observe(move |moment| {
            let Some(soak) = weak.upgrade() else { return };
            match moment {
                Moment::Written(_) => soak.passed(&soak.writes, CrashPoint::Write),
                Moment::Flushed => soak.passed(&soak.flushes, CrashPoint::Flush),
            }
        });
    }
    let users: Vec<_> = (0..soak.options.tasks)
        .map(|n| {
            let theirs = soak.clone();
            soak.world
                .spawn_local(&format!("user{n}"), move || User::new(&theirs, n).run())
        })
        .collect();
    let total = soak.options.ops;
    let parts = rests(soak);
    let mut rests = (1..parts).map(|n| n * total / parts).peekable();
    while soak.users.borrow().iter().any(|u| !u.ended) {
        nap(soak, LOOK);
        check_progress(soak);
        check_budget(soak);
        let ops = soak.ops.get();
        if ops >= total * 7 / 10 || outage_is_long(soak) {
            heal(soak);
        } else {
            trouble(soak);
        }
        if rests.next_if(|at| ops >= *at).is_some() {
            rest(soak);
        }
        let lost = |s: &Subject| s.volume.is_none() && s.has_lost();
        if soak.subjects.iter().any(lost) && soak.reopened.get() < REOPENS {
            pause(soak);
            reopen(soak);
            soak.pause.set(false);
        }
    }
    for id in users {
        assert!(soak.world.join(id, now(soak).plus(STUCK)));
    }
    finish(soak);
}

/// Between so many parts of a run all come to rest. Where flushes fail, files are closed oftener then: what a flush loses that
/// nobody waits for is told to the next who opens the file.
fn rests(soak: &Soak) -> u64 {
    match soak.options.trouble.has(Trouble::Flushes) {
        true => 16,
        false => 4,
    }
}

/// SOAK-2.
fn check_progress(soak: &Soak) {
    for (n, user) in soak.users.borrow().iter().enumerate() {
        let since = now(soak).since(user.since);
        let steps = soak.world.steps() - user.since_step;
        assert!(
            user.ended || user.outside || (since < STUCK && steps < STUCK_STEPS),
            "SOAK-2: user{n} has been in {} for {since:?} and {steps} steps, {} operations done",
            user.doing,
            soak.ops.get()
        );
    }
}

/// SOAK-7.
fn check_budget(soak: &Soak) {
    // A mark that never falls: what was taken for a moment between two looks is in it.
    let taken = soak.world.arena_bytes_max();
    let budget = soak.options.memory;
    assert!(
        taken <= budget,
        "SOAK-7: the engine took {taken} bytes of a budget of {budget}"
    );
    let stats = soak.world.uninterrupted(|| soak.engine.stats());
    let on_lists: u64 = [
        "nr_free_pages",
        "nr_unpopulated",
        "nr_inactive_file",
        "nr_active_file",
    ]
    .iter()
    .map(|name| stats.get(name))
    .sum();
    assert!(
        on_lists <= stats.frames,
        "SOAK-7: {on_lists} frames free or on lists, of {}",
        stats.frames
    );
}

/// Causes the trouble that needs a hand.
fn trouble(soak: &Soak) {
    for trouble in soak.options.trouble.iter() {
        let draw = soak.crash_rng.borrow_mut().below(1_000);
        match trouble {
            Trouble::BadRange | Trouble::NoSpace if draw < 20 => fail_writes(soak, trouble),
            Trouble::Hangs if draw < 10 => hang(soak, draw),
            Trouble::Outage => begin_outage(soak),
            _ => {}
        }
    }
}

/// From a fifth of the run on every write of the files that may fail does, until trouble ends, or `OUTAGE_MAX` is over.
fn begin_outage(soak: &Soak) {
    if soak.ops.get() < soak.options.ops / 5 || soak.outage.get().is_some() {
        return;
    }
    soak.outage.set(Some(now(soak)));
    for (n, s) in soak.subjects.iter().enumerate() {
        if !soak.options.is_spared(n) {
            s.device
                .fail_writes(0..u64::MAX, IoErrorKind::Io, Nanos(u64::MAX));
        }
    }
}

fn outage_is_long(soak: &Soak) -> bool {
    let begun = soak.outage.get();
    begun.is_some_and(|begun| now(soak).since(begun) >= OUTAGE_MAX)
}

/// Writes of some file fail for 300 ms, all or those of a range.
fn fail_writes(soak: &Soak, trouble: Trouble) {
    let mut rng = soak.crash_rng.borrow_mut();
    let n = rng.below(soak.subjects.len() as u64) as usize;
    let len = soak.options.files[n].1;
    let start = rng.below(len);
    let (range, kind) = match trouble {
        Trouble::NoSpace => (0..u64::MAX, IoErrorKind::NoSpace),
        _ => (start..start + len / 8, IoErrorKind::Io),
    };
    if !soak.options.is_spared(n) {
        let until = now(soak).plus(Nanos::from_millis(300));
        soak.subjects[n].device.fail_writes(range, kind, until);
    }
}

/// A request of some disk hangs for up to two seconds.
fn hang(soak: &Soak, draw: u64) {
    let n = (draw % soak.queues.len() as u64) as usize;
    if soak.options.spared == Some(n) {
        return;
    }
    let op = if draw < 5 { IoOp::Read } else { IoOp::Write };
    soak.queues[n].hang_next(op, 1);
    nap(soak, Nanos::from_millis(200 * draw));
    release(soak, n);
}

fn release(soak: &Soak, n: usize) {
    let hung = soak.queues[n].release_hung() as u64;
    soak.hung.set(soak.hung.get() + hung);
}

fn heal(soak: &Soak) {
    if !soak.healed.replace(true) {
        for s in &soak.subjects {
            s.device.heal();
        }
        for n in 0..soak.queues.len() {
            release(soak, n);
        }
    }
}

/// Stops the users.
fn pause(soak: &Soak) {
    soak.pause.set(true);
    let inside = || soak.users.borrow().iter().any(|u| !u.outside && !u.ended);
    while inside() {
        nap(soak, LOOK);
        check_progress(soak);
    }
}

/// The files that have lost something are opened anew, once their users have heard of all that is lost; so are others now
/// and then. What is on volumes stays open: no sync makes good what they have lost.
fn reopen(soak: &Soak) {
    for (n, s) in soak.subjects.iter().enumerate() {
        if s.volume.is_some() {
            continue;
        }
        // Else what is dirty stays so, and belongs to the flusher, or to the next who opens the file.
        if s.has_lost() || soak.crash_rng.borrow_mut().chance(500_000) {
            hear(soak, n);
        }
        let len = s.file().len();
        look_ahead(soak, n);
        drop(s.handle.take());
        // Some time for the flusher, to which a file belongs that nobody has open.
        let length = soak.crash_rng.borrow_mut().pick(&[0, 1, 700]);
        nap(soak, Nanos::from_millis(length));
        let file = Subject::open(&soak.engine, s.id, &s.backing);
        assert_eq!(file.len(), len, "the length of file {n}, opened anew");
        *s.handle.borrow_mut() = Some(file);
        let lost = s.lost.take();
        s.well.set(None);
        s.shadow.borrow_mut().lose(&lost);
        soak.reopened.set(soak.reopened.get() + 1);
    }
}

/// Pages of the file `n` are being read when it is closed. What they hold others compare.
fn look_ahead(soak: &Soak, n: usize) {
    let (s, frame) = (&soak.subjects[n], soak.options.frame_size);
    let at = soak.crash_rng.borrow_mut().below(s.file().len().max(1));
    let began = now(soak);
    if let Err(e) = s.file().read_at(&mut vec![0; 2 * frame], at) {
        soak.tolerate(n, "read_at", began, &e);
    }
}

/// A sync, so that its user has heard of all that is lost of the file `n`.
fn hear(soak: &Soak, n: usize) {
    if let Err(e) = sync(soak, n) {
        let s = &soak.subjects[n];
        s.note_lost(&e);
        s.doubtful.set(true);
    }
}

/// Syncs the file `n`; the shadow hears of it. An error is one that the trouble may cause.
fn sync(soak: &Soak, n: usize) -> Result<(), Error> {
    let s = &soak.subjects[n];
    let promise = s.shadow.borrow_mut().begin_sync(None);
    let (healed, began) = (soak.healed.get(), now(soak));
    s.telling(|| s.file().sync_all())
        .inspect_err(|e| soak.tolerate(n, "sync", began, e))?;
    assert!(
        !s.has_lost(),
        "file {n}: a sync succeeds after DurabilityLost"
    );
    s.shadow.borrow_mut().keep(&promise);
    s.well.set(healed.then(|| now(soak)));
    Ok(())
}

/// Stops the users, lets the engine come to rest, and checks its invariants.
fn rest(soak: &Soak) {
    pause(soak);
    reopen(soak);
    if !soak.options.trouble.may_fail() || soak.healed.get() {
        sync_all(soak);
        nap(soak, Nanos::from_millis(300));
        check_books(soak);
    }
    soak.pause.set(false);
}

/// The engine's invariants and the volumes', while nothing is in flight.
fn check_books(soak: &Soak) {
    soak.engine.check_invariants();
    let isolated = soak.engine.stats().get("nr_isolated_file");
    assert_eq!(isolated, 0, "SOAK-7: nobody reclaims");
    for s in soak.subjects.iter().filter(|s| !s.has_lost()) {
        if let Some(volume) = &s.volume {
            volume.check_invariants();
        }
    }
}

/// SOAK-3: every file syncs, at once without trouble, in time after it.
fn sync_all(soak: &Soak) {
    let limit = now(soak).plus(HEAL);
    for (n, s) in soak.subjects.iter().enumerate() {
        while let Err(e) = sync(soak, n) {
            if matches!(e, Error::DurabilityLost { .. }) {
                s.note_lost(&e);
                break;
            }
            assert!(
                now(soak) < limit,
                "SOAK-3: file {n}: sync still fails {HEAL:?} after trouble: {e}; {:?}",
                s.volume.as_ref().map(|v| v.info())
            );
            nap(soak, Nanos::from_millis(100));
        }
    }
}

fn finish(soak: &Soak) {
    heal(soak);
    decide(soak);
    sync_all(soak);
    for n in 0..soak.subjects.len() {
        check_device(soak, n);
    }
    if soak.options.trouble.cuts() {
        soak.cut();
    }
    nap(soak, Nanos::from_millis(300));
    check_books(soak);
    check_budget(soak);
    let lost = soak.subjects.iter().any(Subject::has_lost);
    if let Err(e) = soak.engine.close() {
        // After lost durability the cache never closes cleanly: its user gives it up.
        assert!(lost || soak.options.trouble.may_fail(), "close failed: {e}");
        soak.engine.abandon();
    }
    for s in &soak.subjects {
        assert!(
            s.file().read_at(&mut [0; 1], 0).is_err(),
            "a read succeeds after close"
        );
    }
}

/// What is on the device of the file `n` after its last sync is the shadow.
fn check_device(soak: &Soak, n: usize) {
    let s = &soak.subjects[n];
    let image = match soak.options.volumes[n] {
        None => s.device.visible(),
        // What is lost was not committed, and is not what a mount would find. Reads see it all the same.
        Some(_) if s.has_lost() => return read_all(soak, n),
        Some(on) => {
            let found = volume::recover(s.device.visible(), on, soak.options.frame_size);
            assert!(found.damaged.is_empty(), "SOAK-9: file {n}: damaged");
            found.bytes
        }
    };
    let exact = s.shadow.borrow().check_exact(&image);
    // Pages that the device lost under the engine are still in memory or were read from it: what reads see is
    // exact even then.
    soak.agree(n, "device after sync", exact);
}

/// Reads the pages whose content only a read can tell.
fn decide(soak: &Soak) {
    for (n, s) in soak.subjects.iter().enumerate() {
        let undecided = s.shadow.borrow().undecided();
        for page in undecided {
            read_page(soak, n, page);
        }
    }
}

/// Reads all of the file `n`, from its device.
fn read_all(soak: &Soak, n: usize) {
    let s = &soak.subjects[n];
    let began = now(soak);
    if let Err(e) = s.file().evict(0..u64::MAX) {
        soak.tolerate(n, "evict", began, &e);
    }
    let pages = s.file().len().div_ceil(soak.options.frame_size as u64);
    (0..pages).for_each(|page| read_page(soak, n, page));
}

fn read_page(soak: &Soak, n: usize, page: u64) {
    let (s, frame) = (&soak.subjects[n], soak.options.frame_size as u64);
    let mut buf = vec![0; frame as usize];
    let range = page * frame..(page + 1) * frame;
    let access = s.shadow.borrow_mut().begin_read(range.clone());
    let Some(access) = access else {
        panic!("file {n}: an access is still open at the end")
    };
    let count = s
        .file()
        .read_at(&mut buf, range.start)
        .unwrap_or_else(|e| panic!("file {n}: read after trouble: {e}"));
    let verdict = s.shadow.borrow_mut().end_read(access, Some(&buf[..count]));
    soak.agree(n, "last read", verdict);
}
