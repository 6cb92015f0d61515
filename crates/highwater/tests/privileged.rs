//! What takes root: a full file system, a block device. Without the right to, each says that it was skipped.

mod common;

use common::disk_dir;
use highwater::{Cache, Error, IoErrorKind, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

/// Runs a command; its output, or `None` when it fails.
fn run(command: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(command).args(arguments).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

struct Mounted<'a>(&'a Path);
impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        assert!(run("umount", &["-l", &self.0.to_string_lossy()]).is_some());
    }
}

struct Loop(String);
impl Drop for Loop {
    fn drop(&mut self) {
        run("losetup", &["-d", &self.0]);
    }
}

#[test]
fn no_space_left_is_an_error_until_there_is_space() {
    let dir = disk_dir();
    let at = dir.path().join("tiny");
    std::fs::create_dir(&at).unwrap();
    if run(
        "mount",
        &[
            "-t",
            "tmpfs",
            "-o",
            "size=4m",
            "tmpfs",
            &at.to_string_lossy(),
        ],
    )
    .is_none()
    {
        eprintln!("SKIPPED: no right to mount a tmpfs");
        return;
    }
    let _mounted = Mounted(&at);
    std::fs::write(at.join("ballast"), vec![1; 2 << 20]).unwrap();
    let cache = Cache::builder().memory(16 << 20).build().unwrap();
    let path = at.join("data");
    let file = cache
        .open(&path, OpenOptions::new().write(true).create(true))
        .unwrap();
    file.write_at(&vec![9; 3 << 20], 0).unwrap();
    for _ in 0..2 {
        let error = file.sync_data().unwrap_err();
        let Error::Io { source, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(source.kind, IoErrorKind::NoSpace, "{error}");
    }
    let mut buf = vec![0; 3 << 20];
    assert_eq!(file.read_at(&mut buf, 0).unwrap(), 3 << 20);
    assert!(buf.iter().all(|b| *b == 9), "nothing is dropped");
    assert!(cache.close().is_err(), "what is not durable is not dropped");
    assert_eq!(
        file.read_at(&mut buf, 0).unwrap(),
        3 << 20,
        "and the cache stays usable"
    );
    std::fs::remove_file(at.join("ballast")).unwrap();
    file.sync_data().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), vec![9; 3 << 20]);
    drop(file);
    cache.close().unwrap();
}

#[test]
fn a_block_device() {
    let dir = disk_dir();
    let image = dir.path().join("image");
    let len = 24u64 << 20;
    std::fs::File::create(&image).unwrap().set_len(len).unwrap();
    let Some(device) = run("losetup", &["-f", "--show", &image.to_string_lossy()]) else {
        eprintln!("SKIPPED: no right to make a loop device");
        return;
    };
    let device = Loop(device);
    let cache = Cache::builder().memory(8 << 20).build().unwrap();
    let file = cache
        .open(&device.0, OpenOptions::new().write(true))
        .unwrap();
    assert_eq!(file.len(), len);
    for mib in 0..24u64 {
        file.write_at(&vec![mib as u8 + 1; 1 << 20], mib << 20)
            .unwrap();
    }
    let kind = |result: Result<(), Error>| match result {
        Err(Error::Io { source, .. }) => source.kind,
        other => panic!("{other:?}"),
    };
    let longer = kind(file.set_len(len + 4096));
    assert_eq!(longer, IoErrorKind::NoSpace, "a device does not grow");
    let shorter = kind(file.set_len(len - 4096));
    assert_eq!(shorter, IoErrorKind::Errno(libc::EINVAL), "nor shrink");
    assert_eq!(file.len(), len);
    file.sync_data().unwrap();
    // What is written behind its end is refused by the device, and there is a way back.
    file.write_at(&[9; 4096], len).unwrap();
    assert_eq!(kind(file.sync_data()), IoErrorKind::NoSpace);
    file.set_len(len).unwrap();
    file.sync_data().unwrap();
    // A hole in it reads as zeroes; its neighbours stay.
    file.discard((3 << 20) + 1..(4 << 20) + 1).unwrap();
    file.sync_data().unwrap();
    let mut buf = vec![0; 1 << 20];
    let zero = std::fs::File::open(&image).unwrap();
    zero.read_exact_at(&mut buf, 3 << 20).unwrap();
    assert!(buf[..4096].iter().all(|b| *b == 4) && buf[4096..].iter().all(|b| *b == 0));
    file.write_at(&vec![4; 1 << 20], 3 << 20).unwrap();
    file.sync_data().unwrap();
    let raw = std::fs::File::open(&image).unwrap();
    let mut buf = vec![0; 1 << 20];
    for mib in 0..24u64 {
        raw.read_exact_at(&mut buf, mib << 20).unwrap();
        assert!(buf.iter().all(|b| *b == mib as u8 + 1), "MiB {mib}");
        assert_eq!(file.read_at(&mut buf, mib << 20).unwrap(), 1 << 20);
        assert!(buf.iter().all(|b| *b == mib as u8 + 1), "MiB {mib}");
    }
    drop(file);
    cache.close().unwrap();
}
