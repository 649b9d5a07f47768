//! Schedules, what became of them, and the month.

use super::{Context, Frame};
use crate::query::{Query, Unanswered};
use crate::text;
use askama::Template;
use jiff::civil::Date;
use jiff::{ToSpan, tz::TimeZone};
use model::{Occurrence, Outcome, Schedule, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;
use store::OccurrenceFilter;

/// Entries of the history on the page.
const HISTORY: usize = 30;
/// Occurrences of one schedule in a month's calendar: one for each hour.
const MOST: usize = 31 * 24;

/// A schedule.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ScheduleRow {
    /// Its name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Whether it runs.
    pub enabled: bool,
    /// When, as it was written.
    pub recurrence: String,
    /// In whose calendar.
    pub zone: String,
    /// What it does.
    pub actions: Vec<String>,
    /// When it is due next.
    #[schemars(with = "Option<i64>")]
    pub next: Option<Timestamp>,
    /// The newest entry of its history.
    pub last: Option<OccurrenceRow>,
}

/// An entry of a schedule's history.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct OccurrenceRow {
    /// Its number.
    pub number: u64,
    /// The schedule.
    pub schedule: String,
    /// When it was due.
    #[schemars(with = "i64")]
    pub time: Timestamp,
    /// `run` or `skip`.
    pub outcome: &'static str,
    /// Why it was skipped, in one word.
    pub reason: Option<&'static str>,
    /// The jobs that were created.
    pub jobs: Vec<u64>,
    /// What was left out, and why.
    pub left_out: Vec<String>,
}

impl OccurrenceRow {
    fn of(occurrence: &Occurrence) -> OccurrenceRow {
        let (outcome, reason, jobs, left_out) = match &occurrence.outcome {
            Outcome::Run { jobs, left_out, .. } => ("run", None, jobs.clone(), left_out),
            Outcome::Skip { reason, left_out } => ("skip", Some(reason.as_str()), vec![], left_out),
        };
        OccurrenceRow {
            number: occurrence.number,
            schedule: occurrence.schedule.to_string(),
            time: occurrence.time,
            outcome,
            reason,
            jobs,
            left_out: left_out.iter().map(|left| format!("{}: {}", left.what, left.reason.as_str())).collect(),
        }
    }
}

/// A day of the calendar.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Day {
    /// `2026-11-22`.
    pub date: String,
    /// Its number in the month.
    pub number: u8,
    /// It belongs to the month that is shown.
    pub inside: bool,
    /// It is today.
    pub today: bool,
    /// What is due: the schedule, the time of its first occurrence, and how many there are on that day.
    pub due: Vec<DueOnDay>,
}

/// A schedule on one day.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct DueOnDay {
    /// The schedule.
    pub schedule: String,
    /// `02:30`, its first time on that day, by the server's clock.
    pub first: String,
    /// How often on that day.
    pub times: u64,
}

/// Schedules.
#[derive(Debug, Template, Serialize, JsonSchema)]
#[template(path = "schedules.html")]
pub struct SchedulesPage {
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) frame: Frame,
    /// By name.
    pub schedules: Vec<ScheduleRow>,
    /// What became of the last occurrences, the newest first; at most 30.
    pub history: Vec<OccurrenceRow>,
    /// The month that is shown, `2026-11`.
    pub month: String,
    /// The one before.
    pub previous_month: String,
    /// The one after.
    pub next_month: String,
    /// Whole weeks, from Monday to Sunday.
    pub weeks: Vec<Vec<Day>>,
}

impl SchedulesPage {
    /// With the month that the query asks for, or the present one.
    pub fn new(c: &Context<'_>, query: &Query) -> Result<SchedulesPage, Unanswered> {
        let zone = TimeZone::system();
        let today = date_of(c.now, &zone);
        let first = match query.text("month") {
            Some(text) => month(text)?,
            None => today.first_of_month(),
        };
        let schedules = c.read.schedules().list()?;
        let mut rows = vec![];
        for schedule in &schedules {
            rows.push(row(c, schedule)?);
        }
        let history = c.read.occurrences().page(&OccurrenceFilter::default(), HISTORY)?;
        let shown = |date: Date| date.strftime("%Y-%m").to_string();
        Ok(SchedulesPage {
            frame: c.frame("schedules"),
            schedules: rows,
            history: history.iter().map(OccurrenceRow::of).collect(),
            month: shown(first),
            previous_month: shown(first.saturating_sub(1.month())),
            next_month: shown(first.saturating_add(1.month())),
            weeks: weeks(&schedules, first, today, c.now, &zone),
        })
    }
}

fn date_of(moment: Timestamp, zone: &TimeZone) -> Date {
    jiff::Timestamp::from_microsecond(moment.0).map_or(Date::ZERO, |moment| moment.to_zoned(zone.clone()).date())
}

fn month(text: &str) -> Result<Date, Unanswered> {
    let wrong = || Unanswered::BadRequest("parameter month: write a year and a month, such as 2026-11".into());
    let (year, month) = text.split_once('-').ok_or_else(wrong)?;
    let year: i16 = year.parse().map_err(|_| wrong())?;
    // Further away nobody plans, and a rule would be asked for ages.
    if !(2000..=2100).contains(&year) {
        return Err(wrong());
    }
    Date::new(year, month.parse().map_err(|_| wrong())?, 1).map_err(|_| wrong())
}

fn row(c: &Context<'_>, schedule: &Schedule) -> Result<ScheduleRow, Unanswered> {
    let next = schedule.enabled.then(|| schedule.recurrence.next_after(c.now.max(schedule.handled))).flatten();
    Ok(ScheduleRow {
        name: schedule.name.to_string(),
        description: schedule.description.clone(),
        enabled: schedule.enabled,
        recurrence: schedule.recurrence.text().to_owned(),
        zone: schedule.recurrence.zone().to_owned(),
        actions: schedule.actions.iter().map(ToString::to_string).collect(),
        next,
        last: c.read.occurrences().last(&schedule.name)?.as_ref().map(OccurrenceRow::of),
    })
}

/// The weeks that the month beginning at `first` touches. Past days show nothing that is due: what became of it is in the history.
fn weeks(schedules: &[Schedule], first: Date, today: Date, now: Timestamp, zone: &TimeZone) -> Vec<Vec<Day>> {
    let begin = first.saturating_sub(i64::from(first.weekday().to_monday_zero_offset()).days());
    let last = first.last_of_month();
    let end = last.saturating_add((7 - i64::from(last.weekday().to_monday_zero_offset())).days());
    let moment = |date: Date| date.to_zoned(zone.clone()).map_or(now, |zoned| Timestamp(zoned.timestamp().as_microsecond()));
    let mut due: std::collections::BTreeMap<Date, Vec<DueOnDay>> = std::collections::BTreeMap::new();
    for schedule in schedules.iter().filter(|schedule| schedule.enabled) {
        let after = moment(begin).max(now).max(schedule.handled);
        for time in schedule.recurrence.between(after, Timestamp(moment(end).0 - 1), MOST) {
            let on_day = due.entry(date_of(time, zone)).or_default();
            match on_day.last_mut().filter(|last| last.schedule == schedule.name.as_str()) {
                Some(last) => last.times += 1,
                None => {
                    let first = time.to_local().get(11..16).unwrap_or_default().to_owned();
                    on_day.push(DueOnDay { schedule: schedule.name.to_string(), first, times: 1 });
                }
            }
        }
    }
    let mut weeks = vec![];
    let mut date = begin;
    while date < end && weeks.len() < 6 {
        let mut week = vec![];
        for _ in 0..7 {
            week.push(Day {
                date: date.to_string(),
                number: date.day().unsigned_abs(),
                inside: date.month() == first.month(),
                today: date == today,
                due: due.remove(&date).unwrap_or_default(),
            });
            date = date.saturating_add(1.day());
        }
        weeks.push(week);
    }
    weeks
}
