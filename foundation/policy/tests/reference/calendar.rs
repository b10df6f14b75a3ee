//! Dates by arithmetic: the proleptic Gregorian calendar in UTC, and the summer time of Berlin since 1996.

const DAY: i64 = 86_400;

pub(crate) struct Fields {
    pub(crate) year: i64,
    /// From 0.
    pub(crate) month: i64,
    /// From 1.
    pub(crate) day: i64,
    /// From 0.
    pub(crate) day_of_year: i64,
    /// 0 is Sunday.
    pub(crate) weekday: i64,
    pub(crate) hours: i64,
    pub(crate) minutes: i64,
    pub(crate) seconds: i64,
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn lengths(year: i64) -> [i64; 12] {
    [
        31,
        if is_leap(year) { 29 } else { 28 },
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ]
}

/// Counts years and months one by one; slow and plain. Only for moments since 1970.
pub(crate) fn fields(unix: i64) -> Fields {
    let (mut days, rest) = (unix.div_euclid(DAY), unix.rem_euclid(DAY));
    let weekday = (days + 4).rem_euclid(7);
    let mut year = 1970;
    while days >= 365 + i64::from(is_leap(year)) {
        days -= 365 + i64::from(is_leap(year));
        year += 1;
    }
    let day_of_year = days;
    let mut month = 0;
    for length in lengths(year) {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    Fields {
        year,
        month,
        day: days + 1,
        day_of_year,
        weekday,
        hours: rest / 3600,
        minutes: rest / 60 % 60,
        seconds: rest % 60,
    }
}

fn unix(year: i64, month: i64, day: i64) -> i64 {
    let years: i64 = (1970..year).map(|y| 365 + i64::from(is_leap(y))).sum();
    let months: i64 = lengths(year).iter().take(usize::try_from(month).unwrap()).sum();
    (years + months + day - 1) * DAY
}

/// 01:00 UTC on the last Sunday of a month of 31 days.
fn switch(year: i64, month: i64) -> i64 {
    let last = unix(year, month, 31);
    last - fields(last).weekday * DAY + 3600
}

/// Seconds east of UTC.
pub(crate) fn offset(zone: &str, at: i64) -> i64 {
    let year = fields(at).year;
    match zone {
        "UTC" => 0,
        "+02:00" => 7200,
        "-05:30" => -(5 * 3600 + 1800),
        "Europe/Berlin" if (switch(year, 2)..switch(year, 9)).contains(&at) => 7200,
        "Europe/Berlin" => 3600,
        other => panic!("no such zone in this test: {other}"),
    }
}

pub(crate) fn rfc3339(at: i64) -> String {
    let f = fields(at);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        f.year,
        f.month + 1,
        f.day,
        f.hours,
        f.minutes,
        f.seconds
    )
}
