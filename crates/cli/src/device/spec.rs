//! A profile's keys: each model's parameters as text has them, laid over the model's defaults.

use crate::quantile;
use crate::units::{Bytes, Span, from_text, parse_bytes, parse_duration};
use highwater_engine::Nanos;
use highwater_lab::Model;
use highwater_lab::model::{
    Bucket, Cloud, Completions, Curve, Elevator, Hdd, Latency, Nvme, Object, Rate, Scheduler, Ssd,
};
use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;

/// A profile's keys that become a model.
pub trait Build {
    /// The model; not yet checked.
    fn build(self) -> Model;
}

/// A spec of `Option`s over a model: `model` and `about` are the profile's own.
macro_rules! spec {
    ($spec:ident for $model:ident: $($field:ident $(as $to:ident)?: $type:ty),* $(,)?) => {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $spec {
            #[serde(rename = "model")]
            _model: IgnoredAny,
            #[serde(rename = "about", default)]
            _about: IgnoredAny,
            $($field: Option<$type>,)*
        }
        impl Build for $spec {
            fn build(self) -> Model {
                let mut model = $model::default();
                $(if let Some(value) = self.$field {
                    spec!(@set model, $field $($to)?, value);
                })*
                Model::$model(model)
            }
        }
    };
    (@set $model:ident, $field:ident, $value:ident) => { $model.$field = $value.into() };
    (@set $model:ident, $field:ident $to:ident, $value:ident) => { $model.$to = $value.into() };
}

spec!(HddSpec for Hdd:
    capacity: Bytes,
    rpm: Count,
    seek_track: Span,
    seek_average: Span,
    seek_full: Span,
    outer_rate as outer_bytes_per_s: Speed,
    inner_rate as inner_bytes_per_s: Speed,
    overhead: Span,
    depth: Count,
    elevator: ElevatorName,
    expire: Span,
    flush: Span,
);
spec!(SsdSpec for Ssd:
    depth: Count,
    ring: Ring,
    elevator: SchedulerName,
    completions: CompletionsName,
    wake: Span,
    read: Times,
    write: Times,
    read_crowd: Others,
    write_crowd: Others,
    read_request_rate: Speed,
    write_request_rate: Speed,
    read_rate: Speed,
    write_rate: Speed,
    read_rate_beside_copies: Speed,
    write_rate_beside_copies: Speed,
    read_segment: Span,
    write_segment: Span,
    write_adjoining: Span,
    read_iops: Count,
    write_iops: Count,
    flush: Times,
    flush_rate: Speed,
);
spec!(NvmeSpec for Nvme:
    depth: Count,
    channels: Count,
    stripe: Bytes,
    read: Times,
    write: Times,
    channel_read: Span,
    channel_write: Span,
    command: Span,
    read_rate: Speed,
    write_rate: Speed,
    flush: Span,
);
spec!(CloudSpec for Cloud:
    depth: Count,
    read: Times,
    write: Times,
    flush: Span,
    iops: Requests,
    bytes: Throughput,
    io_unit: Bytes,
);
spec!(ObjectSpec for Object:
    connections: Count,
    get: Times,
    put: Times,
    connection_rate: Speed,
    rate: Speed,
    request_bytes_max: Bytes,
    flush: Span,
);

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ElevatorName {
    Fifo,
    CLook,
    Ncq,
}

impl From<ElevatorName> for Elevator {
    fn from(name: ElevatorName) -> Elevator {
        match name {
            ElevatorName::Fifo => Elevator::Fifo,
            ElevatorName::CLook => Elevator::CLook,
            ElevatorName::Ncq => Elevator::Ncq,
        }
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum SchedulerName {
    None,
    Deadline,
}

impl From<SchedulerName> for Scheduler {
    fn from(name: SchedulerName) -> Scheduler {
        match name {
            SchedulerName::None => Scheduler::None,
            SchedulerName::Deadline => Scheduler::Deadline,
        }
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum CompletionsName {
    Each,
    Together,
}

impl From<CompletionsName> for Completions {
    fn from(name: CompletionsName) -> Completions {
        match name {
            CompletionsName::Each => Completions::Each,
            CompletionsName::Together => Completions::Together,
        }
    }
}

/// A ring's descriptors; 0: no ring.
#[derive(Clone, Copy, Deserialize)]
#[serde(transparent)]
struct Ring(u32);

impl From<Ring> for u32 {
    fn from(ring: Ring) -> u32 {
        ring.0
    }
}

/// A number from 1 to a million.
#[derive(Clone, Copy)]
struct Count(u32);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Count, D::Error> {
        match i64::deserialize(d)? {
            n @ 1..=100_000_000 => Ok(Count(n as u32)),
            n => Err(D::Error::custom(format_args!(
                "{n} makes no sense here; expected at least 1 and at most 100000000"
            ))),
        }
    }
}

impl From<Count> for usize {
    fn from(n: Count) -> usize {
        n.0 as usize
    }
}
impl From<Count> for u32 {
    fn from(n: Count) -> u32 {
        n.0
    }
}
impl From<Count> for u64 {
    fn from(n: Count) -> u64 {
        n.0.into()
    }
}
impl From<Bytes> for u64 {
    fn from(n: Bytes) -> u64 {
        n.0
    }
}
impl From<Span> for Nanos {
    fn from(span: Span) -> Nanos {
        Nanos(span.0.as_nanos() as u64)
    }
}

/// Bytes a second: `"3GB/s"`.
#[derive(Clone, Copy)]
struct Speed(u64);

from_text!(Speed, "a speed in quotes, such as \"200MB/s\"", |text| {
    let bytes = text.trim().strip_suffix("/s").unwrap_or(text).trim();
    // A bare number would be bytes a second, which nobody means.
    let has_unit = bytes.ends_with(|c: char| c.is_ascii_alphabetic());
    match parse_bytes(bytes) {
        Ok(0) => Err(format!(
            "{text:?} never ends; expected more than 0, such as \"200MB/s\""
        )),
        Ok(n) if has_unit => Ok(Speed(n)),
        _ => Err(format!(
            "{text:?} is no speed; expected a number and a unit, such as \"200MB/s\" or \"3GiB/s\""
        )),
    }
});

impl From<Speed> for u64 {
    fn from(speed: Speed) -> u64 {
        speed.0
    }
}
impl From<Speed> for Rate {
    fn from(speed: Speed) -> Rate {
        Rate::bytes_per_s(speed.0)
    }
}

/// Requests a second, with a burst.
#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Requests {
    per_s: Count,
    burst_per_s: Option<Count>,
    credits: Option<Count>,
}

impl From<Requests> for Bucket {
    fn from(r: Requests) -> Bucket {
        Bucket {
            per_s: r.per_s.into(),
            burst_per_s: r.burst_per_s.map_or(0, u64::from),
            credits: r.credits.map_or(0, u64::from),
        }
    }
}

/// Bytes a second, with a burst.
#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Throughput {
    per_s: Speed,
    burst_per_s: Option<Speed>,
    credits: Option<Bytes>,
}

impl From<Throughput> for Bucket {
    fn from(t: Throughput) -> Bucket {
        Bucket {
            per_s: t.per_s.into(),
            burst_per_s: t.burst_per_s.map_or(0, u64::from),
            credits: t.credits.map_or(0, u64::from),
        }
    }
}

/// A latency: one time, or a table of quantiles.
struct Times(Latency);

impl From<Times> for Latency {
    fn from(times: Times) -> Latency {
        times.0
    }
}

impl<'de> Deserialize<'de> for Times {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Times, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Times;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a time in quotes, such as \"60us\", or quantiles, such as { p50 = \"60us\", p99 = \"200us\" }",
                )
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Times, E> {
                let time = parse_duration(text).map_err(E::custom)?;
                Ok(Times(Latency::constant(Span(time).into())))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Times, A::Error> {
                let mut points: Vec<(u32, Nanos)> = Vec::new();
                while let Some(key) = map.next_key::<String>()? {
                    let ppm = quantile::parse(&key).ok_or_else(|| {
                        A::Error::custom(format_args!(
                            "{key:?} is no quantile; {}",
                            quantile::EXPECTED
                        ))
                    })?;
                    points.push((ppm, map.next_value::<Span>()?.into()));
                }
                points.sort_by_key(|p| p.0);
                let latency = Latency::quantiles(points)
                    .map_err(|e| A::Error::custom(format_args!("expected {e}")))?;
                Ok(Times(latency))
            }
        }
        d.deserialize_any(Text)
    }
}

/// What others under way add: a table from how many requests there are to a time.
struct Others(Curve);

impl From<Others> for Curve {
    fn from(others: Others) -> Curve {
        others.0
    }
}

impl<'de> Deserialize<'de> for Others {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Others, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Others;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "times by requests under way, such as { x2 = \"7us\", x32 = \"300us\" }",
                )
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Others, A::Error> {
                let mut points: Vec<(u32, Nanos)> = Vec::new();
                while let Some(key) = map.next_key::<String>()? {
                    let all = key.strip_prefix('x').and_then(|n| n.parse::<u32>().ok());
                    let others = all.and_then(|n| n.checked_sub(1)).filter(|n| *n > 0);
                    let others = others.ok_or_else(|| {
                        A::Error::custom(format_args!(
                            "{key:?} is no number of requests; expected x2 (one other), x4 and such"
                        ))
                    })?;
                    points.push((others, map.next_value::<Span>()?.into()));
                }
                points.sort_by_key(|p| p.0);
                let curve = Curve::points(points)
                    .map_err(|e| A::Error::custom(format_args!("expected {e}")))?;
                Ok(Others(curve))
            }
        }
        d.deserialize_any(Text)
    }
}
