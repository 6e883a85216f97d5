//! Time as the machines get it: a parameter, never a clock they read.

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A moment for people: UTC with milliseconds, written as RFC 3339 (`2026-11-23T19:18:02.123Z`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);

    /// From milliseconds since 1970-01-01T00:00:00Z, held within the years 1970 to 9999.
    #[must_use]
    pub fn from_unix_millis(millis: i64) -> Self {
        Self(millis.clamp(0, 253_402_300_799_999))
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn unix_millis(self) -> i64 {
        self.0
    }

    /// The time from `earlier` to this, zero when `earlier` is later.
    #[must_use]
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0 - earlier.0).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at =
            OffsetDateTime::from_unix_timestamp(self.0.div_euclid(1000)).map_err(|_| fmt::Error)?;
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            at.year(),
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute(),
            at.second(),
            self.0.rem_euclid(1000)
        )
    }
}

impl std::str::FromStr for Timestamp {
    type Err = time::error::Parse;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let nanos = OffsetDateTime::parse(text, &Rfc3339)?.unix_timestamp_nanos();
        Ok(Self::from_unix_millis(
            i64::try_from(nanos / 1_000_000).unwrap_or(0),
        ))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One reading of both clocks: `mono` for deadlines, `wall` for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Never goes back; says nothing outside this process.
    pub mono: Instant,
    /// What stands in payloads; may jump when the system's clock is set.
    pub wall: Timestamp,
}

impl Now {
    /// Both clocks moved on by `by`.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        let millis = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        Self {
            mono: self.mono + by,
            wall: Timestamp::from_unix_millis(self.wall.0.saturating_add(millis)),
        }
    }
}

/// Reads the clocks. Only drivers call it; machines get a [`Now`].
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the clocks"
)]
pub fn now() -> Now {
    let wall = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let millis = i64::try_from(wall.as_millis()).unwrap_or(i64::MAX);
    Now {
        mono: Instant::now(),
        wall: Timestamp::from_unix_millis(millis),
    }
}

/// Completes at `deadline`, or never when there is none.
///
/// Cancel safe: dropping it loses nothing.
pub async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_rfc_3339_with_milliseconds() {
        let at = Timestamp::from_unix_millis(1_795_461_482_007);
        assert_eq!(at.to_string(), "2026-11-23T19:18:02.007Z");
        assert_eq!(at.to_string().parse::<Timestamp>().unwrap(), at);
        assert_eq!(
            "2026-11-23T20:18:02.007+01:00"
                .parse::<Timestamp>()
                .unwrap(),
            at
        );
        assert_eq!(
            serde_json::to_string(&at).unwrap(),
            "\"2026-11-23T19:18:02.007Z\""
        );
        assert!("yesterday".parse::<Timestamp>().is_err());
    }

    #[test]
    fn hostile_years_stay_in_range() {
        assert_eq!(
            Timestamp::from_unix_millis(i64::MAX).to_string(),
            "9999-12-31T23:59:59.999Z"
        );
        assert_eq!(
            Timestamp::from_unix_millis(-5).to_string(),
            "1970-01-01T00:00:00.000Z"
        );
    }
}
