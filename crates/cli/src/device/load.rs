//! From text to a profile, or to an error that names the line, the column and what was expected.

use super::Profile;
use super::spec::{Build, CloudSpec, HddSpec, NvmeSpec, ObjectSpec, SsdSpec};
use crate::error::Result;
use crate::located::Source;
use highwater_lab::Model;
use highwater_lab::model::Bucket;
use serde::Deserialize;

/// What every profile says first.
#[derive(Deserialize)]
struct Head {
    model: ModelName,
    #[serde(default)]
    about: String,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ModelName {
    Hdd,
    Ssd,
    Nvme,
    Cloud,
    Object,
}

/// Reads the profile `text`, which came from `origin`.
///
/// # Errors
/// With line, column, the line itself, what was expected, and the nearest known word.
pub fn load(origin: &str, text: &str) -> Result<Profile> {
    let source = Source {
        origin,
        text,
        remedy: "`highwater devices` lists complete profiles; `highwater device show NAME` prints one, explained",
    };
    let head: Head = source.parse()?;
    let model = match head.model {
        ModelName::Hdd => source.parse::<HddSpec>()?.build(),
        ModelName::Ssd => source.parse::<SsdSpec>()?.build(),
        ModelName::Nvme => source.parse::<NvmeSpec>()?.build(),
        ModelName::Cloud => source.parse::<CloudSpec>()?.build(),
        ModelName::Object => source.parse::<ObjectSpec>()?.build(),
    };
    // PROFILE-1.
    model.check().map_err(|(name, expected)| {
        let said = name.split(", ").map(|n| source.key(n)).find(|k| k.end > 0);
        let message = format!("{name}: expected {expected}");
        source.at(said.unwrap_or(0..0), &message, None)
    })?;
    if let Model::Cloud(cloud) = &model {
        let buckets = [("iops", cloud.iops), ("bytes", cloud.bytes)];
        for (name, bucket) in buckets {
            if let Some(problem) = burst_problem(&bucket) {
                let message = format!("{name}: {problem}");
                return Err(source.at(source.key(name), &message, None));
            }
        }
    }
    Ok(Profile {
        about: head.about,
        model,
    })
}

/// What is said of a burst and would change nothing.
fn burst_problem(bucket: &Bucket) -> Option<String> {
    let Bucket {
        per_s,
        burst_per_s: burst,
        credits,
    } = *bucket;
    if (burst == 0) != (credits == 0) {
        return Some(
            "burst_per_s and credits make a burst together; expected both or neither".into(),
        );
    }
    (burst != 0 && burst <= per_s).then(|| {
        format!("burst_per_s = {burst} is no more than per_s = {per_s}; expected more, or no burst")
    })
}

#[cfg(test)]
mod tests {
    use super::super::BUILTIN;
    use super::*;
    use highwater_engine::Nanos;
    use highwater_lab::model;

    fn error(text: &str) -> String {
        load("d.toml", text).expect_err("must not load").to_string()
    }

    #[test]
    fn each_builtin_loads_and_says_what_it_is() {
        for (name, text) in BUILTIN {
            let profile = load(name, text).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(!profile.about.is_empty(), "{name}");
        }
    }

    #[test]
    fn what_a_builtin_says_is_what_its_model_has_by_default() {
        let of = |name: &str| {
            let text = super::super::text(name).unwrap();
            load(name, &text).unwrap().model
        };
        // What a run without --device has.
        assert_eq!(of("quick"), Model::default());
        assert_eq!(of("hdd-7200"), Model::Hdd(model::Hdd::default()));
        assert_eq!(of("nvme"), Model::Nvme(model::Nvme::default()));
        assert_eq!(of("cloud-gp3"), Model::Cloud(model::Cloud::default()));
        assert_eq!(of("object-s3"), Model::Object(model::Object::default()));
    }

    #[test]
    fn a_burst_that_would_be_none_is_refused() {
        let (_, text) = BUILTIN.iter().find(|b| b.0 == "cloud-gp2").unwrap();
        let line = |key: &str| text.lines().position(|l| l == key).unwrap() + 1;
        for (from, to, what) in [
            (
                "burst_per_s = 3000",
                "burst_per_s = 300",
                "= 300 is no more than per_s = 300",
            ),
            ("burst_per_s = 3000\n", "", "both or neither"),
            ("credits = 5400000\n", "", "both or neither"),
        ] {
            let e = error(&text.replace(from, to));
            assert!(
                e.starts_with(&format!("d.toml:{}:2: iops: ", line("[iops]"))),
                "{e}"
            );
            assert!(e.contains(what), "{e}");
        }
        let e = error(&format!("{text}burst_per_s = \"1GB/s\"\n"));
        assert!(
            e.starts_with(&format!("d.toml:{}:2: bytes: ", line("[bytes]"))),
            "{e}"
        );
    }

    #[test]
    fn what_is_not_said_is_the_model_s_default() {
        let p = load("d", "model = \"ssd\"\ndepth = 4\nread = \"90us\"\n").unwrap();
        let Model::Ssd(ssd) = p.model else {
            panic!("ssd")
        };
        assert_eq!(ssd.depth, 4);
        assert_eq!(ssd.read.max(), Nanos::from_micros(90));
        assert_eq!(ssd.write, model::Ssd::default().write);
    }

    #[test]
    fn a_latency_may_be_a_table_of_quantiles() {
        let text = "model = \"ssd\"\nread = { min = \"50us\", p50 = \"80us\", p99_9 = \"2ms\" }\n";
        let Model::Ssd(ssd) = load("d", text).unwrap().model else {
            panic!("ssd")
        };
        assert_eq!(ssd.read.at(500_000), Nanos::from_micros(80));
        assert_eq!(ssd.read.at(999_000), Nanos::from_millis(2));
        for (table, want) in [
            ("{ p50 = \"80us\", p40 = \"90us\" }", "do not descend"),
            ("{ p500 = \"80us\" }", "p500"),
            ("{ median = \"80us\" }", "median"),
            ("{ }", "at least one quantile"),
            ("{ p50 = 3 }", "invalid type"),
        ] {
            let e = error(&format!("model = \"ssd\"\nread = {table}\n"));
            assert!(e.starts_with("d.toml:2:"), "{e}");
            assert!(e.contains(want), "{e}");
        }
    }

    #[test]
    fn a_crowd_is_a_table_of_requests_under_way() {
        let text = "model = \"ssd\"\nwrite_crowd = { x4 = \"32us\", x2 = \"7us\" }\nring = 256\nelevator = \"deadline\"\n";
        let Model::Ssd(ssd) = load("d", text).unwrap().model else {
            panic!("ssd")
        };
        let us = Nanos::from_micros;
        let curve = model::Curve::points(vec![(1, us(7)), (3, us(32))]).unwrap();
        assert_eq!(ssd.write_crowd, curve);
        let front = (ssd.ring, ssd.elevator);
        assert_eq!(front, (256, model::Scheduler::Deadline));
        for (value, want) in [
            ("\"7us\"", "times by requests under way"),
            ("{ x1 = \"7us\" }", "x1"),
            ("{ p50 = \"7us\" }", "p50"),
            ("{ x2 = \"7us\", x3 = \"5us\" }", "do not descend"),
        ] {
            let e = error(&format!("model = \"ssd\"\nread_crowd = {value}\n"));
            assert!(e.starts_with("d.toml:2:"), "{e}");
            assert!(e.contains(want), "{e}");
        }
    }

    #[test]
    fn unknown_models_and_parameters_get_a_hint() {
        let e = error("about = \"a\"\nmodel = \"nmve\"\n");
        assert!(e.starts_with("d.toml:2:9: unknown variant `nmve`"), "{e}");
        assert!(e.contains("did you mean `nvme`?"), "{e}");
        let e = error("model = \"nvme\"\nchanels = 4\n");
        assert!(e.starts_with("d.toml:2:1: unknown field `chanels`"), "{e}");
        assert!(e.contains("did you mean `channels`?"), "{e}");
        assert!(e.contains("highwater device show"), "{e}");
        let e = error("depth = 4\n");
        assert!(e.contains("missing field `model`"), "{e}");
    }

    #[test]
    fn impossible_values_name_their_place() {
        for (text, place, want) in [
            ("model = \"ssd\"\ndepth = 0", "d.toml:2:9", "at least 1"),
            ("model = \"ssd\"\ndepth = -3", "d.toml:2:9", "-3"),
            ("model = \"hdd\"\nrpm = 0", "d.toml:2:7", "at least 1"),
            (
                "model = \"hdd\"\nrpm = 9000000",
                "d.toml:2:1",
                "revolutions",
            ),
            ("model = \"hdd\"\nrpm = 7200.5", "d.toml:2:7", "7200.5"),
            (
                "model = \"hdd\"\n\nelevator = \"lift\"",
                "d.toml:3:12",
                "c-look",
            ),
            (
                "model = \"hdd\"\nseek_track = \"9ms\"",
                "d.toml:2:1",
                "in this order",
            ),
            (
                "model = \"hdd\"\ninner_rate = \"0MB/s\"",
                "d.toml:2:14",
                "more than 0",
            ),
            (
                "model = \"hdd\"\nouter_rate = \"fast\"",
                "d.toml:2:14",
                "200MB/s",
            ),
            (
                "model = \"ssd\"\nread_rate = \"5\"",
                "d.toml:2:13",
                "200MB/s",
            ),
            (
                "model = \"ssd\"\nread_rate = 5",
                "d.toml:2:13",
                "a speed in quotes",
            ),
            (
                "model = \"nvme\"\nchannels = 0",
                "d.toml:2:12",
                "at least 1",
            ),
            ("model = \"nvme\"\nstripe = \"1B\"", "d.toml:2:1", "512B"),
            ("model = \"nvme\"\nread = \"5\"", "d.toml:2:8", "no time"),
            (
                "model = \"nvme\"\nflush = \"-5ms\"",
                "d.toml:2:9",
                "no time",
            ),
            ("model = \"ssd\"\nread = \"90m\"", "d.toml:2:1", "an hour"),
            ("model = \"ssd\"\nwake = \"1ms\"", "d.toml:2:1", "alone"),
            ("model = \"ssd\"\nring = 2", "d.toml:2:1", "descriptors"),
            (
                "model = \"ssd\"\nelevator = \"kyber\"",
                "d.toml:2:12",
                "deadline",
            ),
            (
                "model = \"cloud\"\n[iops]\nper_s = 0",
                "d.toml:3:9",
                "at least 1",
            ),
            (
                "model = \"cloud\"\n[iops]\ncredits = 5",
                "d.toml:2:1",
                "per_s",
            ),
            (
                "model = \"object\"\nrequest_bytes_max = \"1KiB\"",
                "d.toml:2:1",
                "4KiB",
            ),
        ] {
            let e = error(text);
            assert!(e.starts_with(place), "{text:?}: {e}");
            assert!(e.contains(want), "{text:?}: {e}");
        }
    }

    #[test]
    fn no_text_makes_it_panic() {
        for (name, text) in BUILTIN {
            for cut in (0..text.len()).filter(|c| text.is_char_boundary(*c)) {
                let _ = load(name, &text[..cut]);
            }
        }
    }
}
