//! Moments, as whole microseconds: they compare, store and travel without rounding.

use serde::{Deserialize, Serialize};

/// Microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The system's wall clock. For programs; rules take the moment as an argument.
    pub fn now() -> Timestamp {
        Timestamp(jiff::Timestamp::now().as_microsecond())
    }

    /// Whole and fractional seconds from `earlier` to `self`; negative when the clock went back.
    pub fn seconds_since(self, earlier: Timestamp) -> f64 {
        (self.0.saturating_sub(earlier.0)) as f64 / 1_000_000.0
    }

    /// This moment moved by `seconds`.
    pub fn plus_seconds(self, seconds: i64) -> Timestamp {
        Timestamp(self.0.saturating_add(seconds.saturating_mul(1_000_000)))
    }

    /// `2026-11-21T23:59:59Z`, for machines.
    pub fn to_rfc3339(self) -> String {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(t) => t.to_string(),
            Err(_) => format!("@{}us", self.0),
        }
    }

    /// `2026-11-21T23:59:59` in UTC, the form inside archive names.
    pub fn to_name(self) -> String {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(t) => t.strftime("%Y-%m-%dT%H:%M:%S").to_string(),
            Err(_) => format!("{}", self.0),
        }
    }

    /// `2026-11-21 23:59:59` in the machine's own zone, for people.
    pub fn to_local(self) -> String {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(t) => t.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
            Err(_) => format!("@{}us", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_utc_and_sort_like_time() {
        let t = Timestamp(1_795_287_991_055_717);
        assert_eq!(t.to_name(), "2026-11-21T19:06:31");
        assert!(t.to_name() < t.plus_seconds(3600).to_name());
        assert_eq!(t.plus_seconds(2).seconds_since(t), 2.0);
    }
}
