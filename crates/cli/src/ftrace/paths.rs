//! Which file each arm's trace goes to.

use crate::error::{CliError, Result};
use crate::plan::{Arm, WorldName};
use std::fs::File;
use std::path::{Path, PathBuf};

const REMEDY: &str = "--ftrace with a file in a directory that exists and that you may write to";

/// The file of each run of an arm: `path` itself for one alone, else with the arm's name before the extension, and with a
/// number for an arm that runs again. None for arms that have no engine (`raw`).
///
/// # Errors
/// When `path` cannot name a file, or an arm runs on Linux's own page cache.
pub fn paths<'a>(
    path: &Path,
    arms: impl IntoIterator<Item = &'a Arm>,
) -> Result<Vec<Option<PathBuf>>> {
    let arms: Vec<&Arm> = arms.into_iter().collect();
    if !names_a_file(path) {
        return Err(CliError::usage(
            format!(
                "--ftrace {}: this is not the name of a file",
                path.display()
            ),
            "--ftrace trace.txt",
        ));
    }
    if arms.iter().any(|a| a.world == WorldName::Linux) {
        return Err(CliError::usage(
            "--ftrace traces this engine, and --world linux runs without it",
            "--world os,lab --ftrace trace.txt; the kernel traces itself under /sys/kernel/tracing",
        ));
    }
    let traced = |a: &Arm| a.world != WorldName::Raw;
    let alone = arms.iter().filter(|a| traced(a)).count() == 1;
    let mut all: Vec<Option<PathBuf>> = Vec::new();
    for arm in arms {
        if !traced(arm) {
            all.push(None);
            continue;
        }
        let mut one = if alone {
            path.to_path_buf()
        } else {
            with_name(path, &slug(&arm.title()))
        };
        let mut n = 1;
        while all.contains(&Some(one.clone())) {
            n += 1;
            one = with_name(path, &format!("{}-{n}", slug(&arm.title())));
        }
        all.push(Some(one));
    }
    Ok(all)
}

/// A title as a part of a file's name.
fn slug(title: &str) -> String {
    let keep = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '_';
    title
        .chars()
        .map(|c| if keep(c) { c } else { '-' })
        .collect()
}

/// The file of the scenario `name`, where several run; what names no file stays as it is, for [`paths`] to refuse.
pub fn of_scenario(path: &Path, name: &str) -> PathBuf {
    match names_a_file(path) {
        true => with_name(path, &slug(name)),
        false => path.to_path_buf(),
    }
}

fn names_a_file(path: &Path) -> bool {
    path.as_os_str() != "-" && path.file_name().is_some() && !path.is_dir()
}

fn with_name(path: &Path, name: &str) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    path.with_file_name(match path.extension() {
        Some(end) => format!("{stem}.{name}.{}", end.to_string_lossy()),
        None => format!("{stem}.{name}"),
    })
}

/// Creates the file, or empties it.
///
/// # Errors
/// What the file system answers.
pub fn try_create(path: &Path) -> Result<File> {
    File::create(path).map_err(|e| CliError::os(format!("--ftrace {}", path.display()), e, REMEDY))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::arms;
    use crate::scenario::find;
    use highwater_engine::Preset;

    fn named(path: &str, presets: &[Preset], raw: bool) -> Vec<Option<String>> {
        let scenario = find("slow-disk").unwrap();
        let arms = arms(&scenario, &[WorldName::Lab], presets, false, raw);
        let all = paths(Path::new(path), &arms).unwrap();
        all.into_iter()
            .map(|p| p.map(|p| p.display().to_string()))
            .collect()
    }

    #[test]
    fn one_arm_has_the_file_and_several_have_one_each() {
        let own = |s: &str| Some(s.to_string());
        assert_eq!(
            named("d/t.txt", &[Preset::V3_2], true),
            [own("d/t.txt"), None, None, None]
        );
        assert_eq!(
            named("d/t.txt", &[Preset::V3_2, Preset::Highwater], false),
            [own("d/t.lab-3.2.txt"), own("d/t.lab-highwater.txt")]
        );
        // As with --repeat 2.
        assert_eq!(
            named("t", &[Preset::V3_2, Preset::V3_2], false),
            [own("t.lab-3.2"), own("t.lab-3.2-2")]
        );
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let scenario = find("slow-disk").unwrap();
        let lab = arms(&scenario, &[WorldName::Lab], &[Preset::V3_2], false, false);
        for bad in ["-", ".", "/", ".."] {
            let e = paths(Path::new(bad), &lab).unwrap_err();
            assert!(e.message.contains("not the name of a file"), "{e}");
            assert_eq!(of_scenario(Path::new(bad), "rfc"), Path::new(bad));
        }
        assert_eq!(
            of_scenario(Path::new("d/t.txt"), "rfc"),
            Path::new("d/t.rfc.txt")
        );
        let linux = arms(&scenario, &[WorldName::Linux], &[], false, false);
        assert!(paths(Path::new("t"), &linux).is_err());
        let e = try_create(Path::new("/no/such/dir/t")).unwrap_err();
        assert!(e.message.contains("/no/such/dir/t"), "{e}");
    }
}
