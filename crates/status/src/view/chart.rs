//! Small bar charts, as SVG that the server writes: no script, no style of its own.

use super::archives::ArchiveRow;
use crate::figures::RepositoryFigures;
use crate::text;
use model::space::Space;
use std::collections::BTreeMap;

/// The chart's size in its own units.
pub const WIDTH: u64 = 600;
/// Likewise.
pub const HEIGHT: u64 = 100;
/// Bars of a chart by day.
const MOST: u64 = 200;

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

    /// What a repository took up on disk and what of it was unique, by day. A day without a measurement is as the one before.
    pub fn space(history: &[Space]) -> Vec<Chart> {
        let bytes = |value: f64| text::bytes(&(value as u64));
        let chart = |title: &str, figure: fn(&Space) -> u64| {
            let values: Vec<(f64, String)> = by_day(history)
                .into_iter()
                .map(|(day, space)| (figure(space) as f64, format!("{}: {}", date(day), text::bytes(&figure(space)))))
                .collect();
            Chart::of(title, &values, bytes)
        };
        [chart("on disk, by day", |space| space.segments), chart("unique, by day", |space| space.unique)].into_iter().flatten().collect()
    }

    /// What was stored in a repository until each day, for its archives that are still there: an estimate for the time before it was measured.
    pub fn stored(figures: &RepositoryFigures) -> Vec<Chart> {
        let bytes = |value: f64| text::bytes(&(value as u64));
        let mut sum = 0;
        let mut values = vec![];
        for (day, sums) in figures.days.iter().filter(|(_, sums)| sums.archives > 0) {
            sum += sums.deduplicated;
            values.push((sum as f64, format!("{}: {}", date(*day), text::bytes(&sum))));
        }
        let surplus = values.len().saturating_sub(MOST as usize);
        Chart::of("stored for the archives there are, by day", &values[surplus..], bytes).into_iter().collect()
    }
}

/// Days at equal distances, the last one among them, at most [`MOST`]; and what was measured last at the end of each.
fn by_day(history: &[Space]) -> Vec<(i64, &Space)> {
    let (Some(first), Some(last)) = (history.first(), history.last()) else { return vec![] };
    let days = last.day().saturating_sub(first.day()) + 1;
    let step = days.div_ceil(MOST);
    let mut days: Vec<u64> = (0..days.div_ceil(step)).map(|n| last.day() - n * step).collect();
    days.reverse();
    let of = |day: u64| Some((i64::try_from(day).ok()?, history[..history.partition_point(|space| space.day() <= day)].last()?));
    days.into_iter().filter_map(of).collect()
}

fn date(day: i64) -> String {
    use jiff::ToSpan;
    let date = i32::try_from(day).ok().and_then(|day| jiff::civil::date(1970, 1, 1).checked_add(day.days()).ok());
    date.map_or_else(String::new, |date| date.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Timestamp;

    fn space(day: i64, segments: u64) -> Space {
        Space {
            repository: "main".parse().unwrap(),
            time: Timestamp(day * 86_400_000_000 + 5),
            segments,
            freeable: 0,
            unique: segments / 2,
            chunks: 1,
        }
    }

    #[test]
    fn days_without_a_measurement_are_as_the_one_before() {
        assert!(Chart::space(&[]).is_empty() && Chart::space(&[space(10, 5)]).is_empty());
        let charts = Chart::space(&[space(0, 4_000), space(3, 2_000)]);
        let [disk, unique] = &charts[..] else { panic!("{charts:?}") };
        let heights: Vec<u64> = disk.bars.iter().map(|bar| bar.height).collect();
        assert_eq!(heights, [100, 100, 100, 50]);
        assert_eq!((disk.bars[1].label.as_str(), unique.bars[3].label.as_str()), ("1970-01-02: 4.00 kB", "1970-01-04: 1.00 kB"));
        // Years fit as well, to the last day.
        let years: Vec<Space> = (0..3000).map(|day| space(day, 1000 + day.unsigned_abs())).collect();
        let charts = Chart::space(&years);
        assert!(charts[0].bars.len() == 200 && charts[0].highest == "4.00 kB", "{}", charts[0].bars.len());
        assert!(charts[0].bars.last().unwrap().x < WIDTH);
    }
}
