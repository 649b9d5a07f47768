//! Figures as people read them. Everything takes references, as templates pass them.

use model::Timestamp;

/// Bytes in powers of 1000, as Borg prints them: `12 B`, `1.23 MB`.
#[must_use]
pub fn bytes(size: &u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = *size as f64;
    let mut unit = 0;
    // What would be rounded up to 1000.00 belongs to the next unit.
    while unit + 1 < UNITS.len() && value >= if unit == 0 { 1000.0 } else { 999.995 } {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{size} B") } else { format!("{value:.2} {}", UNITS[unit]) }
}

/// A number with a thin space between thousands.
#[must_use]
pub fn number(number: &u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// Seconds as a length of time: `0.4 s`, `12 s`, `3 min 5 s`, `2 h 3 min`, `4 d 5 h`.
#[must_use]
pub fn duration(seconds: &f64) -> String {
    let seconds = seconds.max(0.0);
    if seconds < 10.0 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        3600..86_400 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// How long ago, or how soon: `5 min ago`, `in 3 h`.
#[must_use]
pub fn ago(moment: &Timestamp, now: &Timestamp) -> String {
    let seconds = now.seconds_since(*moment);
    let length = seconds.abs();
    let text = match length as u64 {
        0..5 => return "now".to_owned(),
        5..60 => format!("{} s", length as u64),
        60..3600 => format!("{} min", length as u64 / 60),
        3600..172_800 => format!("{} h", length as u64 / 3600),
        _ => format!("{} days", length as u64 / 86_400),
    };
    if seconds < 0.0 { format!("in {text}") } else { format!("{text} ago") }
}

/// In the server's own zone, to the minute.
#[must_use]
pub fn local(moment: &Timestamp) -> String {
    let text = moment.to_local();
    text.get(..16).map_or(text.clone(), str::to_owned)
}

/// In the server's own zone, to the second.
#[must_use]
pub fn exactly(moment: &Timestamp) -> String {
    moment.to_local()
}

/// For machines.
#[must_use]
pub fn rfc3339(moment: &Timestamp) -> String {
    moment.to_rfc3339()
}

/// An id's beginning, by which people tell it from others.
#[must_use]
pub fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

/// How much smaller the new data is than the whole: `98.7 %`. None: there is nothing.
#[must_use]
pub fn saved(original: &u64, deduplicated: &u64) -> Option<String> {
    (*original > 0).then(|| format!("{:.1} %", 100.0 * (1.0 - *deduplicated as f64 / *original as f64).max(0.0)))
}

/// `1 file`, `2 files`.
#[must_use]
pub fn count(number: &u64, thing: &str) -> String {
    let plural = match thing.strip_suffix('y') {
        Some(stem) if *number != 1 => format!("{stem}ies"),
        _ if *number != 1 => format!("{thing}s"),
        _ => thing.to_owned(),
    };
    format!("{} {plural}", self::number(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_people_read_them() {
        assert_eq!(bytes(&999), "999 B");
        assert_eq!(bytes(&1_234_567), "1.23 MB");
        assert_eq!(number(&1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(number(&12), "12");
        assert_eq!(count(&1, "archive"), "1 archive");
        assert_eq!(count(&2, "repository"), "2 repositories");
        let now = Timestamp(1_795_287_991_055_717);
        assert_eq!(ago(&now.plus_seconds(-7200), &now), "2 h ago");
        assert_eq!(ago(&now.plus_seconds(300), &now), "in 5 min");
        assert_eq!(ago(&now, &now), "now");
        assert_eq!(saved(&1000, &13).unwrap(), "98.7 %");
        assert_eq!(saved(&0, &0), None);
    }
}
