//! Numbers as people read them.

/// Bytes in powers of 1000, as Borg prints them: `12 B`, `1.23 MB`.
pub fn bytes(size: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = size as f64;
    let mut unit = 0;
    // What would be rounded up to 1000.00 belongs to the next unit.
    while unit + 1 < UNITS.len() && value >= if unit == 0 { 1000.0 } else { 999.995 } {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{size} B") } else { format!("{value:.2} {}", UNITS[unit]) }
}

/// Bytes as `settings edit` takes them, and as people read them: `1024 (1.02 kB)`.
pub fn exactly(size: u64) -> String {
    format!("{size} ({})", bytes(size))
}

/// A number of things: `1 file`, `2 files`.
pub fn count(number: u64, thing: &str) -> String {
    let plural = match thing.strip_suffix('y') {
        Some(stem) if number != 1 && !stem.ends_with('a') => format!("{stem}ies"),
        _ if number != 1 => format!("{thing}s"),
        _ => thing.to_owned(),
    };
    format!("{number} {plural}")
}

/// Seconds as a length of time: `0.4 s`, `12 s`, `3 min 5 s`, `2 h 3 min`, `4 d 5 h`.
pub fn duration(seconds: f64) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_borg() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (1_234_567, "1.23 MB"),
            (999_999, "1.00 MB"),
            (123_456_789_012, "123.46 GB"),
            (u64::MAX, "18.45 EB"),
        ];
        for (size, text) in cases {
            assert_eq!(bytes(size), text);
        }
    }

    #[test]
    fn counts_and_durations() {
        assert_eq!(count(1, "file"), "1 file");
        assert_eq!(count(0, "file"), "0 files");
        assert_eq!(count(2, "repository"), "2 repositories");
        assert_eq!(count(7, "day"), "7 days");
        let cases = [(-1.0, "0.0 s"), (0.44, "0.4 s"), (12.4, "12 s"), (185.0, "3 min 5 s"), (7400.0, "2 h 3 min"), (364_000.0, "4 d 5 h")];
        for (seconds, text) in cases {
            assert_eq!(duration(seconds), text);
        }
    }
}
