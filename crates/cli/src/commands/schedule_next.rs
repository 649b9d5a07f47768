//! `borgcube schedule next`, `calendar` and `history`: what is to run, and what became of what was.

use crate::complete;
use crate::context::{Context, write_out};
use crate::error::{Error, Result};
use crate::output::calendar::{Mark, month, speaks_utf8};
use crate::output::plans;
use clap_complete::ArgValueCandidates;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use model::{Occurrence, ScheduleName, Timestamp};
use serde::Serialize;
use wire::control::{Call, Due, History, OccurrenceFilter, Upcoming};

/// More than a month of hourly runs of some schedules; one page of the history.
const PAGE: u32 = 1000;

/// Options of `borgcube schedule next`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  borgcube schedule next -n 20
  borgcube schedule next nightly --calendar")]
pub struct Next {
    /// Show those of this schedule only, also if it is disabled
    #[arg(value_name = "SCHEDULE", add = ArgValueCandidates::new(complete::schedules))]
    name: Option<ScheduleName>,
    /// Show so many
    #[arg(long, short = 'n', value_name = "NUMBER", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    number: u32,
    /// Show this month as a calendar instead
    #[arg(long, conflicts_with = "number")]
    calendar: bool,
}

/// Options of `borgcube schedule calendar`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Days are those of this machine's time zone.

Examples:
  borgcube schedule calendar
  borgcube schedule calendar 2026-12 --schedule nightly")]
pub struct Calendar {
    /// Show this month (default: the present one)
    #[arg(value_name = "YYYY-MM", value_parser = first_day)]
    month: Option<Date>,
    /// Show this schedule only
    #[arg(long, short, value_name = "SCHEDULE", add = ArgValueCandidates::new(complete::schedules))]
    schedule: Option<ScheduleName>,
}

/// Options of `borgcube schedule history`.
#[derive(Debug, clap::Args)]
pub struct Past {
    /// Show that of this schedule only
    #[arg(value_name = "SCHEDULE", add = ArgValueCandidates::new(complete::schedules))]
    name: Option<ScheduleName>,
    /// Show those with smaller numbers only: the next page
    #[arg(long, value_name = "NUMBER")]
    before: Option<u64>,
    /// Show at most so many
    #[arg(long, short = 'n', value_name = "NUMBER", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

/// `2026-11` is its first day.
fn first_day(text: &str) -> std::result::Result<Date, String> {
    let day = (text.len() == 7).then(|| format!("{text}-01").parse::<Date>().ok()).flatten();
    day.ok_or_else(|| "a month is written YYYY-MM, such as 2026-11".into())
}

/// The list, or the present month.
pub fn next(args: &Next, context: &Context) -> Result<()> {
    if args.calendar {
        return calendar(&Calendar { month: None, schedule: args.name.clone() }, context);
    }
    let call = Call::NextOccurrences { name: args.name.clone(), count: args.number, from: None, until: None };
    let due = context.control()?.call::<Upcoming>(call)?.occurrences;
    context.list(&due, plans::upcoming(&due, Timestamp::now()))
}

/// What the history says.
pub fn history(args: &Past, context: &Context) -> Result<()> {
    let filter = OccurrenceFilter { schedule: args.name.clone(), before: args.before, limit: args.limit, from: None };
    let past = context.control()?.call::<History>(Call::ListOccurrences { filter })?.occurrences;
    context.list(&past, plans::history(&past))
}

/// A month as `--json` shows it.
#[derive(Debug, Serialize)]
struct Month {
    month: String,
    zone: String,
    past: Vec<Occurrence>,
    upcoming: Vec<Due>,
}

/// One month.
pub fn calendar(args: &Calendar, context: &Context) -> Result<()> {
    let zone = TimeZone::system();
    let now = Timestamp::now();
    let outside = |_| Error::usage("that month is too far away for a calendar");
    let today = jiff::Timestamp::from_microsecond(now.0).map_err(outside)?.to_zoned(zone.clone()).date();
    let first = args.month.unwrap_or(today).first_of_month();
    let begin = |day: Date| day.to_zoned(zone.clone()).map(|t| Timestamp(t.timestamp().as_microsecond())).map_err(outside);
    let (begins, ends) = (begin(first)?, begin(first.last_of_month().tomorrow().map_err(outside)?)?);
    let inside = |time: Timestamp| time >= begins && time < ends;
    let past: Vec<Occurrence> = past(args.schedule.as_ref(), begins, context)?.into_iter().filter(|o| inside(o.time)).collect();
    let upcoming = match ends > now {
        true => {
            let from = Some(begins.max(now));
            let call = Call::NextOccurrences { name: args.schedule.clone(), count: PAGE, from, until: Some(Timestamp(ends.0 - 1)) };
            context.control()?.call::<Upcoming>(call)?.occurrences
        }
        false => vec![],
    };
    if context.json {
        let zone = zone.iana_name().unwrap_or("local").to_owned();
        return context.print_json(&Month { month: first.strftime("%Y-%m").to_string(), zone, past, upcoming });
    }
    let day = |time: Timestamp| Some(jiff::Timestamp::from_microsecond(time.0).ok()?.to_zoned(zone.clone()).date());
    let mut marks: Vec<(Date, Mark)> = upcoming.iter().filter_map(|due| Some((day(due.time)?, Mark::Planned))).collect();
    for occurrence in &past {
        let mark = if occurrence.skipped().is_some() { Mark::Skipped } else { Mark::Ran };
        marks.extend(day(occurrence.time).map(|date| (date, mark)));
    }
    let utf8 = speaks_utf8(|name| std::env::var(name).ok());
    write_out(&month(first, today, &marks, utf8))
}

/// The history from `begins` on.
fn past(schedule: Option<&ScheduleName>, begins: Timestamp, context: &Context) -> Result<Vec<Occurrence>> {
    let mut control = context.control()?;
    let mut all: Vec<Occurrence> = vec![];
    loop {
        let before = all.last().map(|last| last.number);
        let filter = OccurrenceFilter { schedule: schedule.cloned(), from: Some(begins), before, limit: PAGE };
        let page = control.call::<History>(Call::ListOccurrences { filter })?.occurrences;
        let whole = page.len() == PAGE as usize;
        all.extend(page);
        if !whole {
            return Ok(all);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_are_years_and_months() {
        assert_eq!(first_day("2026-11"), Ok(Date::constant(2026, 11, 1)));
        for bad in ["", "2026", "2026-13", "2026-1", "11-2026", "2026-11-02"] {
            assert!(first_day(bad).unwrap_err().contains("YYYY-MM"), "{bad}");
        }
    }
}
