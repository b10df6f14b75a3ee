//! Durations as rules write them: `8h`, `30m`, `90s`, `1h30m`, `2d`.

use std::time::Duration;

/// Longest duration a rule can set: ten years of days.
const MAX_SECONDS: u64 = 3650 * 86_400;

/// Reads a duration of whole seconds, at least one; `Err` says what to write instead.
pub(crate) fn parse(text: &str) -> Result<Duration, &'static str> {
    const WRITE: &str = "write a duration such as 8h, 30m, 90s or 1h30m";
    let mut seconds: u64 = 0;
    let mut rest = text;
    // Units go from large to small, each at most once: 30m1h is a mistake more often than a wish.
    let mut last_unit = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at_checked(digits).ok_or(WRITE)?;
        let unit = match after.chars().next() {
            Some('d') => 86_400,
            Some('h') => 3600,
            Some('m') => 60,
            Some('s') => 1,
            _ => return Err(WRITE),
        };
        let number: u64 = number.parse().map_err(|_| WRITE)?;
        if unit >= last_unit {
            return Err(WRITE);
        }
        last_unit = unit;
        seconds = number
            .checked_mul(unit)
            .and_then(|s| seconds.checked_add(s))
            .ok_or("it is longer than ten years")?;
        rest = after.get(1..).unwrap_or("");
    }
    match seconds {
        0 => Err("it must be at least one second"),
        s if s > MAX_SECONDS => Err("it is longer than ten years"),
        s => Ok(Duration::from_secs(s)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_add_up() {
        for (text, seconds) in [
            ("8h", 28_800),
            ("30m", 1800),
            ("90s", 90),
            ("1h30m", 5400),
            ("2d", 172_800),
            ("1d2h3m4s", 93_784),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "8",
            "h",
            "8H",
            "-1h",
            "1.5h",
            "8 h",
            "30m1h",
            "1h1h",
            "0s",
            "99999999999999999999s",
            "4000d",
            "8hé",
            "8é",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
