use super::*;
use crate::device::IoEngine;
use std::sync::mpsc;

struct Rig {
    world: Arc<OsWorld>,
    opens: Arc<Opens>,
    file: tempfile::NamedTempFile,
}

type AnyDevice = Opened<Arc<dyn Device>>;

impl Rig {
    fn new(wait_max: Nanos) -> Rig {
        Rig {
            world: OsWorld::new(IoEngine::Threads).expect("a world"),
            opens: Arc::new(Opens::new(wait_max)),
            file: tempfile::NamedTempFile::new().expect("a file"),
        }
    }

    fn patient() -> Rig {
        Rig::new(Nanos::from_secs(3_600))
    }

    fn open(&self, write: bool) -> Result<AnyDevice, Error> {
        self.open_beside(self.file.path(), write, || ())
    }

    /// Opens `path`, and calls `midway` while it has the turn.
    fn open_beside(
        &self,
        path: &Path,
        write: bool,
        midway: impl FnOnce(),
    ) -> Result<AnyDevice, Error> {
        let options = OpenOptions::new().read(true).write(write);
        self.opens
            .open_as(&self.world, path, &options, |device, _| {
                midway();
                Ok(Arc::new(device))
            })
    }

    fn known(&self) -> usize {
        self.opens.table.files.lock().len()
    }

    /// The lock of an open file, as if its last device were just being dropped: nobody uses it any more, and it has not been
    /// given back.
    fn dying(&self, opened: AnyDevice) -> TableLock {
        let entry = self.opens.table.files.lock();
        let Some(Entry::Open(file)) = entry.get(&opened.id) else {
            panic!("not in the table");
        };
        let lock = file.lock.upgrade().expect("open");
        drop(entry);
        drop(opened);
        Arc::into_inner(lock).expect("no other device")
    }

    /// Another cache's lock on the file.
    fn elsewhere(&self, exclusive: bool) -> Result<FileLock, Error> {
        let file = self.file.reopen().expect("open");
        FileLock::new(self.file.path(), file.into(), exclusive)
    }
}

#[test]
fn an_open_for_writing_upgrades_whichever_device_the_cache_has() {
    let rig = Rig::patient();
    // The first is closed just when the file is opened again: the cache has the second.
    let first = rig.open(false).expect("open");
    let second = rig.open(false).expect("open");
    drop(first);
    let third = rig.open(true).expect("open");
    second.backing.write_now(0, &[7; 4096]).expect("upgraded");
    third.backing.write_now(4096, &[7; 4096]).expect("a write");
}

/// OPENS-3: the cache has the device of the reader, which came while the file was open for writing.
#[test]
fn an_open_for_writing_upgrades_the_device_of_a_reader_that_a_writer_left_behind() {
    let rig = Rig::patient();
    let first = rig.open(true).expect("open");
    let second = rig.open(false).expect("open");
    drop(first);
    let _third = rig.open(true).expect("open");
    second.backing.write_now(0, &[7; 4096]).expect("upgraded");
}

/// OPENS-3: the reader comes later, and is the first to have the cache map the file.
#[test]
fn the_device_of_a_reader_can_write_beside_a_writer() {
    let rig = Rig::patient();
    let _writer = rig.open(true).expect("open");
    let reader = rig.open(false).expect("open");
    reader.backing.write_now(0, &[7; 4096]).expect("a write");
    reader.backing.truncate(5).expect("a length");
}

/// OPENS-2.
#[test]
fn a_lock_that_is_being_given_back_is_waited_for_and_delays_no_other_file() {
    let rig = Rig::patient();
    let other = tempfile::NamedTempFile::new().expect("a file");
    let dying = rig.dying(rig.open(true).expect("open"));
    std::thread::scope(|s| {
        let (tell, told) = mpsc::channel();
        let rig = &rig;
        s.spawn(move || tell.send(rig.open(true).map(drop)));
        // Whether it waits already or not.
        rig.open_beside(other.path(), true, || ()).expect("another");
        assert!(
            told.try_recv().is_err(),
            "opened beside a lock that is held"
        );
        drop(dying);
        told.recv().expect("its answer").expect("open");
    });
    assert_eq!(rig.known(), 0, "of closed files the table knows nothing");
}

/// OPENS-2: the wait has a deadline.
#[test]
fn a_lock_that_is_never_given_back_is_not_waited_for_without_an_end() {
    let rig = Rig::new(Nanos::from_millis(1));
    let _dying = rig.dying(rig.open(true).expect("open"));
    let Err(Error::TimedOut { what, .. }) = rig.open(true) else {
        panic!("not given back");
    };
    assert!(what.contains("gives back"), "{what}");
}

/// OPENS-1.
#[test]
fn an_open_that_takes_long_delays_those_of_its_own_file_only() {
    let rig = Rig::new(Nanos::from_millis(1));
    let other = tempfile::NamedTempFile::new().expect("a file");
    let first = rig.open_beside(rig.file.path(), true, || {
        rig.open_beside(other.path(), true, || ()).expect("another");
        let Err(Error::TimedOut { what, .. }) = rig.open(true) else {
            panic!("two at a time");
        };
        assert_eq!(what, "another open of the file");
    });
    let _second = rig.open(true).expect("the turn has ended");
    drop(first);
}

#[test]
fn an_open_that_fails_or_panics_leaves_nothing_behind() {
    let rig = Rig::new(Nanos::from_millis(1));
    for already_open in [false, true] {
        let open = already_open.then(|| rig.open(true).expect("open"));
        let planted = std::panic::AssertUnwindSafe(|| {
            let _ = rig.open_beside(rig.file.path(), true, || {
                std::panic::resume_unwind(Box::new("planted"))
            });
        });
        assert!(std::panic::catch_unwind(planted).is_err());
        let options = OpenOptions::new().write(true);
        let failed = rig.opens.open_as(
            &rig.world,
            rig.file.path(),
            &options,
            |_, _| -> Result<Arc<()>, Error> { Err(Error::ReadOnly) },
        );
        assert_eq!(failed.err(), Some(Error::ReadOnly));
        assert_eq!(rig.known(), usize::from(already_open));
        assert_eq!(rig.elsewhere(true).is_ok(), !already_open);
        drop(open);
        rig.elsewhere(true).expect("given back");
    }
    // Refused at once, by another cache.
    let held = rig.elsewhere(true).expect("lock");
    assert!(matches!(rig.open(true), Err(Error::Conflict(_))));
    drop(held);
    rig.open(true).expect("open");
}

/// Threads that open and close one file as they like meet nobody's lock but each other's, which they share.
#[test]
fn opens_and_closes_of_one_file_by_many_threads_never_conflict() {
    let rig = Rig::patient();
    std::thread::scope(|s| {
        for n in 0..4 {
            let rig = &rig;
            s.spawn(move || {
                for round in 0..300 {
                    rig.open((n + round) % 3 == 0).expect("open");
                }
            });
        }
    });
    assert_eq!(rig.known(), 0);
    rig.elsewhere(true).expect("given back");
}
