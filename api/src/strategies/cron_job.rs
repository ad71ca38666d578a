//! CronJobs.

use serde_json::Value;

use super::check::{Faults, Field};
use super::fill::Fill;
use super::{job, pod_template, warnings};
use crate::{FieldError, Object};

const POD_TEMPLATE: &[&str] = &["spec", "jobTemplate", "spec", "template"];
const LONGEST_NAME: usize = 52;

/// Rules of CronJobs.
pub struct Strategy;

impl crate::Strategy for Strategy {
    fn set_defaults(&self, object: &mut Object) {
        let spec = pod_template::spec_of(object, POD_TEMPLATE);
        spec.fill("concurrencyPolicy", "Allow");
        spec.fill("suspend", false);
        spec.fill("successfulJobsHistoryLimit", 3);
        spec.fill("failedJobsHistoryLimit", 1);
        // The job's own defaults are filled in when a job is made; upstream leaves the template as it is.
    }

    fn prepare_for_create(&self, object: &mut Object) {
        object.set(&["status"], Value::Object(Default::default()));
    }

    fn validate(&self, object: &Object, _old: Option<&Object>) -> Vec<FieldError> {
        let mut faults = Faults::new();
        if object.name().len() > LONGEST_NAME {
            // The jobs' names are longer by the time they are made for.
            faults.invalid(&Field::at(object, &["metadata", "name"]), "must be no more than 52 characters");
        }
        let spec = Field::at(object, &["spec"]);
        let schedule = spec.get("schedule");
        if faults.must_be_given(&schedule)
            && let Err(message) = validate_schedule(schedule.text())
        {
            faults.invalid(&schedule, message);
        }
        for name in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
            faults.not_negative(&spec.get(name));
        }
        faults.must_be_one_of(&spec.get("concurrencyPolicy"), &["Allow", "Forbid", "Replace"]);
        let zone = spec.get("timeZone");
        if zone.is_set() && zone.text().is_empty() {
            faults.invalid(&zone, "timeZone must be nil or non-empty string");
        } else if zone.text().eq_ignore_ascii_case("local") {
            faults.invalid(
                &zone,
                "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
            );
        } else if zone.is_set() && jiff::tz::TimeZone::get(zone.text()).is_err() {
            faults.invalid(&zone, format!("unknown time zone {}", zone.text()));
        }
        let template = spec.get("jobTemplate").get("spec");
        job::validate_spec(&template, &mut faults);
        for name in ["selector", "manualSelector"] {
            let field = template.get(name);
            if field.is_set() && (name == "selector" || field.is_true()) {
                let text = match name {
                    "selector" => "`selector` will be auto-generated",
                    _ => "supported values: nil, false",
                };
                faults.invalid(&field, text);
            }
        }
        faults.0
    }

    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        let mut found = Vec::from_iter(warnings::name_of_pods(object, old));
        if warnings::is_news(object, old) {
            job::spec_warnings(&Field::at(object, &["spec", "jobTemplate", "spec"]), &mut found);
        }
        if old.is_some() && object.text(&["spec", "schedule"]).contains("TZ") {
            found.push("cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details".into());
        }
        found
    }
}

/// Checks a schedule: five fields, or `@hourly` and the like.
fn validate_schedule(schedule: &str) -> Result<(), String> {
    const NAMED: &[&str] = &["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];
    const MONTHS: &[&str] =
        &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    // Minute, hour, day of month, month, day of week.
    const RANGES: [(u32, u32, &[&str]); 5] =
        [(0, 59, &[]), (0, 23, &[]), (1, 31, &[]), (1, 12, MONTHS), (0, 6, DAYS)];
    if schedule.contains("TZ=") {
        return Err("cannot use TZ or CRON_TZ in schedule, use timeZone field instead".into());
    }
    if NAMED.contains(&schedule) || schedule.starts_with("@every ") {
        return Ok(());
    }
    if schedule.starts_with('@') {
        return Err(format!("unrecognized descriptor: {schedule}"));
    }
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != RANGES.len() {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    for (field, (low, high, names)) in fields.iter().zip(RANGES) {
        for part in field.split(',') {
            validate_range(part, low, high, names)?;
        }
    }
    Ok(())
}

/// One part of a field: `*`, `5`, `mon`, `1-5`, each with an optional `/2`.
fn validate_range(part: &str, low: u32, high: u32, names: &[&str]) -> Result<(), String> {
    let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
    if let Some(step) = step
        && number(step)? == 0
    {
        return Err(format!("step of range should be a positive number: {part}"));
    }
    if range == "*" || range == "?" {
        return Ok(());
    }
    let named = |text: &str| {
        let found = names.iter().position(|name| name.eq_ignore_ascii_case(text));
        found.map_or_else(|| number(text), |index| Ok(low + u32::try_from(index).unwrap_or_default()))
    };
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last) = (named(first)?, named(last)?);
    if first < low {
        return Err(format!("beginning of range ({first}) below minimum ({low}): {part}"));
    }
    if last > high {
        return Err(format!("end of range ({last}) above maximum ({high}): {part}"));
    }
    if first > last {
        return Err(format!("beginning of range ({first}) beyond end of range ({last}): {part}"));
    }
    Ok(())
}

fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| {
        format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_read_as_cron_reads_them() {
        for schedule in ["* * * * *", "*/5 0-6 1,15 jan-mar MON", "@hourly", "@every 1h", "0 0 ? * 0"] {
            assert_eq!(validate_schedule(schedule), Ok(()), "{schedule}");
        }
        for (schedule, message) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("TZ=UTC * * * * *", "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"),
        ] {
            assert_eq!(validate_schedule(schedule), Err(message.to_string()));
        }
    }
}
