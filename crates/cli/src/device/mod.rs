//! Profiles of devices for the lab: a model and its parameters, as a TOML file says it, or one of those built in.
//!
//! **Invariants.** PROFILE-1: a `Profile` that `load` returned passes `Model::check`: the lab can serve it.

mod load;
mod spec;

pub use load::load;

use crate::error::{CliError, Result, did_you_mean};
use highwater_lab::Model;
use serde::{Deserialize, Serialize};
use std::io::Read;

/// No profile is longer.
const PROFILE_BYTES_MAX: u64 = 1 << 20;

/// Name and text of each profile that comes with the command, in the order of the list.
pub const BUILTIN: [(&str, &str); 7] = [
    ("quick", include_str!("../../profiles/quick.toml")),
    ("hdd-7200", include_str!("../../profiles/hdd-7200.toml")),
    ("ssd-sata", include_str!("../../profiles/ssd-sata.toml")),
    ("nvme", include_str!("../../profiles/nvme.toml")),
    ("cloud-gp2", include_str!("../../profiles/cloud-gp2.toml")),
    ("cloud-gp3", include_str!("../../profiles/cloud-gp3.toml")),
    ("object-s3", include_str!("../../profiles/object-s3.toml")),
];

/// A profile, read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Profile {
    /// One sentence.
    pub about: String,
    /// The model and its parameters.
    pub model: Model,
}

/// A profile's text on its way to the child that runs an arm.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Named {
    /// A built-in name, or a path.
    pub name: String,
    /// The TOML.
    pub text: String,
}

impl Named {
    /// Reads it.
    ///
    /// # Errors
    /// As [`load()`].
    pub fn profile(&self) -> Result<Profile> {
        load(&self.name, &self.text)
    }
}

/// The profile `name`: built in, or a file; known to load.
///
/// # Errors
/// When there is none of that name, or it makes no sense.
pub fn find(name: &str) -> Result<Named> {
    let named = Named {
        text: text(name)?,
        name: name.to_string(),
    };
    named.profile()?;
    Ok(named)
}

/// The text of `name`.
pub fn text(name: &str) -> Result<String> {
    if let Some((_, text)) = BUILTIN.iter().find(|(n, _)| *n == name) {
        return Ok((*text).to_string());
    }
    let looks_like_a_path = name.contains('/') || name.ends_with(".toml");
    // A profile is a few kilobytes: what has no end is not read to it.
    let read = || {
        let mut text = String::new();
        std::fs::File::open(name)?
            .take(PROFILE_BYTES_MAX)
            .read_to_string(&mut text)?;
        Ok(text)
    };
    let exists = std::fs::metadata(name).is_ok();
    read().map_err(|e: std::io::Error| {
        if looks_like_a_path || exists {
            return CliError::usage(
                format!("cannot read the device profile {name}: {e}"),
                "`highwater device show nvme > mine.toml` writes one to start from; `highwater probe` measures one",
            );
        }
        let names = BUILTIN.map(|(n, _)| n);
        let hint = did_you_mean(name, names).map_or(String::new(), |n| format!("; did you mean {n:?}?"));
        CliError::usage(
            format!("there is no device {name:?}{hint}"),
            format!("one of {}, or the path of a TOML file", names.join(", ")),
        )
    })
}

/// The list of `highwater devices`.
///
/// # Errors
/// None: each built-in profile loads.
pub fn list() -> Result<String> {
    let mut out = String::new();
    for (name, text) in BUILTIN {
        out.push_str(&format!("{name:<12}{}\n", load(name, text)?.about));
    }
    out.push_str(
        "\n`highwater run rfc --world lab --device NAME` runs on one; `highwater device show NAME` prints its TOML;\n\
         `highwater probe PATH --out mine.toml` measures a disk of yours.\n",
    );
    Ok(out)
}
