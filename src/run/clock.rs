//! Dates in UTC from seconds since 1970, for run names and manifests. No time zones, no leap seconds, no parsing.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970-01-01T00:00:00Z; 0 where the machine's clock stands before that.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Year, month (1-12) and day (1-31) of a day counted from 1970-01-01, in the proleptic Gregorian calendar.
///
/// Years are taken to begin in March, so that the leap day is the last of its year (Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", 2013).
pub fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468; // days from 0000-03-01
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153; // 0 = March
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// `2026-11-03` for seconds since 1970.
pub fn date(seconds: u64) -> String {
    let (year, month, day) = civil(seconds / 86_400);
    format!("{year:04}-{month:02}-{day:02}")
}

/// `2026-11-03T17:05:09Z` for seconds since 1970.
pub fn iso(seconds: u64) -> String {
    let s = seconds % 86_400;
    format!("{}T{:02}:{:02}:{:02}Z", date(seconds), s / 3600, s / 60 % 60, s % 60)
}

/// `hh:mm:ss` of a duration in seconds; `--:--:--` where it is not finite or negative.
pub fn hms(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "--:--:--".into();
    }
    let s = seconds.round() as u64;
    format!("{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        // From `date -u -d @N +%FT%TZ`.
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(iso(seconds), text);
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut before = civil(0);
        for day in 1..150_000 {
            let now = civil(day);
            let next_day = now == (before.0, before.1, before.2 + 1) && now.2 <= 31;
            let next_month = now == (before.0, before.1 + 1, 1) && before.2 >= 28 && now.1 <= 12;
            let next_year = now == (before.0 + 1, 1, 1) && (before.1, before.2) == (12, 31);
            assert!(next_day || next_month || next_year, "{before:?} then {now:?}");
            before = now;
        }
    }

    #[test]
    fn durations() {
        assert_eq!(hms(190.4), "00:03:10");
        assert_eq!(hms(360_000.0), "100:00:00");
        assert_eq!(hms(f64::NAN), "--:--:--");
    }
}
