//! `vm.dirty_bytes` and `vm.dirty_background_bytes` for the length of a run, restored on every exit path.

use super::{read, write};
use crate::cleanup::{Undo, undo};
use crate::error::Result;
use std::path::{Path, PathBuf};

/// Sets the machine's dirty limits to `background` and `limit` percent of `memory`.
///
/// # Errors
/// Without the right to.
pub fn fair_dirty_limits(memory: u64, background: u8, limit: u8) -> Result<Vec<Undo>> {
    let vm = Path::new("/proc/sys/vm");
    let share = |percent: u8| memory / 100 * u64::from(percent);
    let background = set(
        vm,
        "dirty_background_bytes",
        "dirty_background_ratio",
        share(background),
    )?;
    let limit = set(vm, "dirty_bytes", "dirty_ratio", share(limit))?;
    Ok(vec![background, limit])
}

/// Sets `name`, remembering it and the ratio that setting it clears.
fn set(vm: &Path, name: &str, ratio: &str, bytes: u64) -> Result<Undo> {
    let (bytes_file, ratio_file) = (vm.join(name), vm.join(ratio));
    let old_bytes = read(&bytes_file).unwrap_or_else(|_| "0".to_string());
    let old_ratio = read(&ratio_file).unwrap_or_else(|_| "0".to_string());
    let guard = undo({
        let (bytes_file, ratio_file) = (bytes_file.clone(), ratio_file);
        move || restore(bytes_file, old_bytes, ratio_file, old_ratio)
    });
    write(&bytes_file, &bytes.to_string())?;
    Ok(guard)
}

/// Writes back whichever of the pair was in force; the kernel clears the other.
fn restore(bytes_file: PathBuf, old_bytes: String, ratio_file: PathBuf, old_ratio: String) {
    let (file, value) = if old_bytes == "0" {
        (ratio_file, old_ratio)
    } else {
        (bytes_file, old_bytes)
    };
    if read(&file).is_ok_and(|now| now == value) {
        return;
    }
    if let Err(e) = std::fs::write(&file, &value) {
        say!(
            "highwater: could not restore {}: {e}; try: echo {value} > {}",
            file.display(),
            file.display()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_in_force_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        for (bytes, ratio) in [("0", "20"), ("1000000", "0")] {
            std::fs::write(file("dirty_bytes"), bytes).unwrap();
            std::fs::write(file("dirty_ratio"), ratio).unwrap();
            let guard = set(dir.path(), "dirty_bytes", "dirty_ratio", 12345).unwrap();
            assert_eq!(read(&file("dirty_bytes")).unwrap(), "12345");
            // As the kernel does.
            std::fs::write(file("dirty_ratio"), "0").unwrap();
            drop(guard);
            let in_force = if bytes == "0" {
                ("dirty_ratio", ratio)
            } else {
                ("dirty_bytes", bytes)
            };
            assert_eq!(read(&file(in_force.0)).unwrap(), in_force.1);
        }
    }
}
