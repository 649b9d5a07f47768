//! Small bar charts, as SVG that the server writes: no script, no style of its own.

use super::archives::ArchiveRow;
use crate::figures::RepositoryFigures;
use crate::text;
use std::collections::BTreeMap;

/// The chart's size in its own units.
pub const WIDTH: u64 = 600;
/// Likewise.
pub const HEIGHT: u64 = 100;

/// One chart.
#[derive(Debug, Clone)]
pub struct Chart {
    /// What it shows.
    pub title: String,
    /// The same in a sentence, for who cannot see it.
    pub description: String,
    /// From left to right.
    pub bars: Vec<Bar>,
    /// What the highest bar is.
    pub highest: String,
}

/// One bar.
#[derive(Debug, Clone)]
pub struct Bar {
    /// Its left edge.
    pub x: u64,
    /// Its upper edge.
    pub y: u64,
    /// Its width.
    pub width: u64,
    /// Its height.
    pub height: u64,
    /// Shown when somebody points at it.
    pub label: String,
}

impl Chart {
    /// `values` from left to right, with their labels. None: there is nothing to see.
    fn of(title: &str, values: &[(f64, String)], show: impl Fn(f64) -> String) -> Option<Chart> {
        let highest = values.iter().map(|(value, _)| *value).fold(0.0, f64::max);
        if values.len() < 2 || highest <= 0.0 {
            return None;
        }
        let step = (WIDTH / values.len() as u64).clamp(2, 40);
        let bars = values.iter().enumerate().map(|(at, (value, label))| {
            // A bar of nothing at all is seen as well.
            let height = ((value / highest) * HEIGHT as f64).round().max(1.0) as u64;
            Bar { x: at as u64 * step, y: HEIGHT - height.min(HEIGHT), width: step - 1, height, label: label.clone() }
        });
        let (first, last) = (values.first()?, values.last()?);
        Some(Chart {
            title: title.to_owned(),
            description: format!("{title}: {} values, from {} to {}, at most {}", values.len(), show(first.0), show(last.0), show(highest)),
            bars: bars.collect(),
            highest: show(highest),
        })
    }

    /// Size, new data and duration of a client's archives, of each config.
    pub fn history(archives: &[ArchiveRow]) -> Vec<Chart> {
        let mut configs: BTreeMap<&str, Vec<&ArchiveRow>> = BTreeMap::new();
        for archive in archives.iter().rev().filter(|archive| !archive.incomplete) {
            configs.entry(&archive.label).or_default().push(archive);
        }
        let bytes = |value: f64| text::bytes(&(value as u64));
        let mut charts = vec![];
        // More would be no overview.
        for (label, archives) in configs.into_iter().take(4) {
            let values = |figure: &dyn Fn(&ArchiveRow) -> f64, show: &dyn Fn(f64) -> String| -> Vec<(f64, String)> {
                archives.iter().map(|a| (figure(a), format!("{}: {}", text::local(&a.start), show(figure(a))))).collect()
            };
            let size = |a: &ArchiveRow| a.statistics.original_size as f64;
            let new = |a: &ArchiveRow| a.statistics.deduplicated_size as f64;
            let long = |value: f64| text::duration(&value);
            charts.extend(Chart::of(&format!("{label}: size"), &values(&size, &bytes), bytes));
            charts.extend(Chart::of(&format!("{label}: newly stored"), &values(&new, &bytes), bytes));
            charts.extend(Chart::of(&format!("{label}: duration"), &values(&|a| a.duration, &long), long));
        }
        charts
    }

    /// What was stored in a repository until each day, for its archives that are still there.
    pub fn space(figures: &RepositoryFigures) -> Vec<Chart> {
        let bytes = |value: f64| text::bytes(&(value as u64));
        let mut sum = 0;
        let mut values = vec![];
        for (day, sums) in figures.days.iter().filter(|(_, sums)| sums.archives > 0) {
            sum += sums.deduplicated;
            values.push((sum as f64, format!("{}: {}", date(*day), text::bytes(&sum))));
        }
        let surplus = values.len().saturating_sub(200);
        Chart::of("stored for the archives there are, by day", &values[surplus..], bytes).into_iter().collect()
    }
}

fn date(day: i64) -> String {
    use jiff::ToSpan;
    let date = i32::try_from(day).ok().and_then(|day| jiff::civil::date(1970, 1, 1).checked_add(day.days()).ok());
    date.map_or_else(String::new, |date| date.to_string())
}
