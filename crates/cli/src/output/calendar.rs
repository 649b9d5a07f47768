//! A month on the screen: 80 columns, the days with runs marked.

use jiff::civil::Date;
use std::collections::BTreeMap;

/// Columns of one day; seven of them fit into 80.
const CELL: usize = 11;
/// Columns that the marks of a day have.
const MARKS: usize = 7;

/// What happens, or happened, on a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// It ran.
    Ran,
    /// It was skipped, for a reason that is on record.
    Skipped,
    /// It is to run.
    Planned,
}

impl Mark {
    const ALL: [Mark; 3] = [Mark::Ran, Mark::Skipped, Mark::Planned];

    fn sign(self, utf8: bool) -> char {
        match (self, utf8) {
            (Mark::Ran, true) => '✓',
            (Mark::Skipped, true) => '✗',
            (Mark::Planned, true) => '•',
            (Mark::Ran, false) => '+',
            (Mark::Skipped, false) => '-',
            (Mark::Planned, false) => '*',
        }
    }
}

/// Whether the terminal's locale says that it shows UTF-8. As in setlocale(3): LC_ALL before LC_CTYPE before LANG.
pub fn speaks_utf8(variable: impl Fn(&str) -> Option<String>) -> bool {
    let said = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(variable).find(|value| !value.is_empty());
    said.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

/// The month of `first`, with `>` before `today` and with its marks and how often each.
pub fn month(first: Date, today: Date, marks: &[(Date, Mark)], utf8: bool) -> String {
    let first = first.first_of_month();
    let title = first.strftime("%B %Y").to_string();
    let mut text = format!("{}{title}\n", " ".repeat((CELL * 7).saturating_sub(title.len()) / 2));
    let weekdays: String = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"].iter().map(|day| format!("{day:<CELL$}")).collect();
    text.push_str(&format!("{}\n", weekdays.trim_end()));
    let mut counts: BTreeMap<Date, [usize; 3]> = BTreeMap::new();
    for (date, mark) in marks {
        counts.entry(*date).or_default()[*mark as usize] += 1;
    }
    let before = usize::try_from(first.weekday().to_monday_zero_offset()).unwrap_or(0);
    let mut line = " ".repeat(CELL * before);
    for day in 1..=first.days_in_month() {
        let Ok(date) = Date::new(first.year(), first.month(), day) else { continue };
        let pointer = if date == today { '>' } else { ' ' };
        let cell = format!("{pointer}{day:>2} {}", counts.get(&date).map(|n| signs(n, utf8)).unwrap_or_default());
        line.push_str(&format!("{cell:<CELL$}"));
        if date.weekday() == jiff::civil::Weekday::Sunday || day == first.days_in_month() {
            text.push_str(line.trim_end());
            text.push('\n');
            line.clear();
        }
    }
    let legend = [("ran", Mark::Ran), ("skipped", Mark::Skipped), ("to run", Mark::Planned)];
    let legend: Vec<String> = legend.iter().map(|(what, mark)| format!("{} {what}", mark.sign(utf8))).collect();
    text.push_str(&format!("\n{}\n", legend.join("   ")));
    text
}

/// `✓2 •1`, as much of it as there is room for.
fn signs(counts: &[usize; 3], utf8: bool) -> String {
    let present = || Mark::ALL.into_iter().filter(|mark| counts[*mark as usize] > 0);
    let counted: Vec<String> = present().map(|mark| format!("{}{}", mark.sign(utf8), counts[mark as usize])).collect();
    let fits = |text: &String| text.chars().count() <= MARKS;
    let bare = || present().map(|mark| mark.sign(utf8)).collect();
    [counted.join(" "), counted.concat()].into_iter().find(fits).unwrap_or_else(bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(day: i8) -> Date {
        Date::constant(2026, 11, day)
    }

    #[test]
    fn a_month_in_ascii() {
        let mut marks = vec![(date(1), Mark::Ran), (date(22), Mark::Ran), (date(22), Mark::Skipped)];
        marks.extend((23..=30).map(|day| (date(day), Mark::Planned)));
        marks.push((date(29), Mark::Planned));
        let expected = "                                November 2026
Mon        Tue        Wed        Thu        Fri        Sat        Sun
                                                                    1 +1
  2          3          4          5          6          7          8
  9         10         11         12         13         14         15
 16         17         18         19         20         21        >22 +1 -1
 23 *1      24 *1      25 *1      26 *1      27 *1      28 *1      29 *2
 30 *1

+ ran   - skipped   * to run
";
        assert_eq!(month(date(5), date(22), &marks, false), expected);
    }

    #[test]
    fn it_fits_into_80_columns_whatever_happens() {
        let busy: Vec<_> = (1..=30).flat_map(|day| Mark::ALL.map(|mark| vec![(date(day), mark); 24])).flatten().collect();
        let text = month(date(1), date(1), &busy, true);
        assert!(text.lines().all(|line| line.chars().count() < 80), "{text}");
        assert!(text.contains(" 30 ✓✗•"), "{text}");
        assert!(month(date(1), date(1), &busy[..24], true).contains("> 1 ✓24"), "{text}");
    }

    #[test]
    fn the_locale_decides() {
        let with = |set: &[(&str, &str)]| {
            let set: BTreeMap<String, String> = set.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
            speaks_utf8(|name| set.get(name).cloned())
        };
        assert!(with(&[("LANG", "de_DE.UTF-8")]));
        assert!(with(&[("LC_ALL", ""), ("LC_CTYPE", "C.utf8")]));
        assert!(!with(&[("LC_ALL", "C"), ("LANG", "de_DE.UTF-8")]));
        assert!(!with(&[]));
    }
}
