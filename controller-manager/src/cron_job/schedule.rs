//! Cron schedules: five fields, or a word such as `@daily`.

use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};

/// When a CronJob is due, to the minute.
#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    /// At every time that matches.
    Calendar {
        /// One bit for each minute, hour, day of the month, month and day of the week (0 is Sunday).
        minutes: u64,
        hours: u64,
        days: u64,
        months: u64,
        weekdays: u64,
        /// Whether either kind of day was left open; if not, a match of one of them is enough.
        any_day: bool,
    },
    /// `@every 1h30m`.
    Every(SignedDuration),
}

/// A schedule finds its next time within this many days, or never (30 February).
const HORIZON_DAYS: u32 = 5 * 366;

impl Schedule {
    /// Reads a schedule; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Schedule, String> {
        let fields = match text.trim() {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            text => match text.strip_prefix("@every ") {
                Some(period) => return every(period),
                None => text,
            },
        };
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), text));
        };
        const MONTHS: &[&str] =
            &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
        const WEEKDAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
        // Sunday may be written as 7, too.
        let weekdays = field(weekday, 0, 7, WEEKDAYS, 0)?;
        let is_open = |field: &str| field.starts_with('*') || field.starts_with('?');
        Ok(Schedule::Calendar {
            minutes: field(minute, 0, 59, &[], 0)?,
            hours: field(hour, 0, 23, &[], 0)?,
            days: field(day, 1, 31, &[], 0)?,
            months: field(month, 1, 12, MONTHS, 1)?,
            weekdays: (weekdays | weekdays >> 7) & 0x7f,
            any_day: is_open(day) || is_open(weekday),
        })
    }

    /// The first time after `after`; `None` when there is none.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Schedule::Every(period) => after.checked_add(*period).ok(),
            Schedule::Calendar { minutes, hours, .. } => {
                let local = after.to_zoned(zone.clone()).datetime();
                let mut date = local.date();
                for day in 0..HORIZON_DAYS {
                    if self.has_day(date.at(0, 0, 0, 0)) {
                        let (first_hour, first_minute) = (local.hour(), local.minute());
                        for hour in (0..24).filter(|hour| hours >> hour & 1 == 1) {
                            if day == 0 && hour < first_hour {
                                continue;
                            }
                            for minute in (0..60).filter(|minute| minutes >> minute & 1 == 1) {
                                if day == 0 && hour == first_hour && minute < first_minute {
                                    continue;
                                }
                                // A time that daylight saving skips is not one; of two the first one counts.
                                let ambiguous = zone.to_ambiguous_zoned(date.at(hour, minute, 0, 0));
                                let found = ambiguous.compatible().ok()?.timestamp();
                                if found > after {
                                    return Some(found);
                                }
                            }
                        }
                    }
                    date = date.tomorrow().ok()?;
                }
                None
            }
        }
    }

    fn has_day(&self, at: DateTime) -> bool {
        let Schedule::Calendar { days, months, weekdays, any_day, .. } = self else { return true };
        let by_date = days >> at.day() & 1 == 1;
        let by_weekday = weekdays >> at.weekday().to_sunday_zero_offset() & 1 == 1;
        let day_fits = if *any_day { by_date && by_weekday } else { by_date || by_weekday };
        months >> at.month() & 1 == 1 && day_fits
    }
}

/// `5`, `*`, `1-5`, `*/15`, `0-30/10`, `mon-fri`, and lists of these.
fn field(text: &str, least: u32, most: u32, names: &[&str], first_name: u32) -> Result<u64, String> {
    let number = |text: &str| -> Result<u32, String> {
        let named = names.iter().zip(first_name..).find(|(name, _)| text.eq_ignore_ascii_case(name));
        let number = named.map_or_else(|| text.parse().ok(), |(_, number)| Some(number));
        let number = number.ok_or_else(|| format!("failed to parse int from {text}"))?;
        match (least..=most).contains(&number) {
            true => Ok(number),
            false => Err(format!("{number} is not between {least} and {most}: {text}")),
        }
    };
    let mut bits = 0;
    for part in text.split(',') {
        let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
        // `* * * * 7/…` aside, a star never means the second Sunday.
        let last = if most == 7 { 6 } else { most };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" || range == "?" => (least, last),
            Some((first, last)) => (number(first)?, number(last)?),
            None if step.is_some() => (number(range)?, last),
            None => (number(range)?, number(range)?),
        };
        let step = match step {
            Some(step) => step
                .parse()
                .ok()
                .filter(|step| *step > 0)
                .ok_or(format!("step of range should be a positive number: {part}"))?,
            None => 1,
        };
        if first > last {
            return Err(format!("beginning of range ({first}) beyond end of range ({last}): {part}"));
        }
        bits |= (first..=last).step_by(step).fold(0, |bits, number| bits | 1u64 << number);
    }
    Ok(bits)
}

fn every(period: &str) -> Result<Schedule, String> {
    let period: SignedDuration =
        period.trim().parse().map_err(|_| format!("failed to parse duration @every {period}"))?;
    // Rounded to seconds, and never without a pause.
    Ok(Schedule::Every(SignedDuration::from_secs(period.as_secs().max(1))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, after: &str) -> String {
        let schedule = Schedule::parse(schedule).unwrap();
        let next = schedule.next(after.parse().unwrap(), &TimeZone::UTC);
        next.map_or("never".into(), |next| next.to_string())
    }

    #[test]
    fn times_come_as_the_fields_say() {
        for (schedule, after, expected) in [
            ("*/15 * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:15:00Z"),
            ("*/15 * * * *", "2026-01-01T00:14:59Z", "2026-01-01T00:15:00Z"),
            ("0 0 * * *", "2026-12-31T12:00:00Z", "2027-01-01T00:00:00Z"),
            ("30 4 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T04:30:00Z"),
            ("0 9 * * mon-fri", "2026-11-20T10:00:00Z", "2026-11-23T09:00:00Z"),
            ("0 0 13 * 5", "2026-11-01T00:00:00Z", "2026-11-06T00:00:00Z"),
            ("0 0 * * 7", "2026-11-20T00:00:00Z", "2026-11-22T00:00:00Z"),
            ("5,10 1-3 * jan *", "2026-01-01T03:10:00Z", "2026-01-02T01:05:00Z"),
            ("0 0 30 2 *", "2026-01-01T00:00:00Z", "never"),
            ("@hourly", "2026-01-01T00:30:00Z", "2026-01-01T01:00:00Z"),
            ("@every 1h30m", "2026-01-01T00:30:00Z", "2026-01-01T02:00:00Z"),
        ] {
            assert_eq!(next(schedule, after), expected, "{schedule} after {after}");
        }
    }

    #[test]
    fn a_time_zone_shifts_the_fields_and_is_known_on_every_machine() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let daily = Schedule::parse("30 9 * * *").unwrap();
        let next = |after: &str| daily.next(after.parse().unwrap(), &zone).unwrap().to_string();
        assert_eq!(next("2026-01-01T09:00:00Z"), "2026-01-02T08:30:00Z");
        assert_eq!(next("2026-07-01T00:00:00Z"), "2026-07-01T07:30:00Z", "in summer it is an hour earlier");
    }

    #[test]
    fn nonsense_is_refused() {
        for schedule in ["", "* * * *", "60 * * * *", "* * * * 8", "5-1 * * * *", "*/0 * * * *", "a * * * *"]
        {
            assert!(Schedule::parse(schedule).is_err(), "{schedule:?}");
        }
    }
}
