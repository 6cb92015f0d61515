//! A block device that somebody else has, a mounted file system or a device above it, is neither overwritten nor formatted.
//! Takes a loop device, and so root; without the right to one it says that it was skipped.

mod common;

use common::{ok, refuses};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;

struct Loop(String);

impl Loop {
    fn over(image: &Path) -> Option<Loop> {
        let made = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(image)
            .output()
            .ok()?;
        let name = String::from_utf8_lossy(&made.stdout).trim().to_owned();
        made.status.success().then_some(Loop(name))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.0]).status();
    }
}

#[test]
fn a_mounted_device_is_not_overwritten() {
    let dir = common::temp();
    let image = dir.path().join("image");
    let bytes = vec![0x5a; 16 << 20];
    std::fs::write(&image, &bytes).unwrap();
    let Some(device) = Loop::over(&image) else {
        eprintln!("SKIPPED: no right to make a loop device");
        return;
    };
    // As a mount has it: nobody else may.
    let mounted: File = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_EXCL)
        .open(&device.0)
        .unwrap();
    let probe = ["probe", &device.0, "--duration", "300ms"];
    refuses(&[&probe[..], &["--write"]].concat(), 1, &["busy", "umount"]);
    let create = ["volume", "create", &device.0, "--size", "4MiB", "--force"];
    refuses(&create, 1, &["busy", "umount"]);
    mounted.sync_all().unwrap();
    assert!(std::fs::read(&image).unwrap() == bytes);
    // Reading harms nobody.
    ok(&probe);
    drop(mounted);
    ok(&create);
}
