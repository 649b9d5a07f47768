//! Paths of files in addresses, and names of files that browsers make: any bytes, percent-encoded (RFC 3986), never a way out.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

/// What need not be encoded in a segment of an address.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// What need not be encoded in `filename*` (RFC 8187).
const EXTENDED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');
/// File systems have no longer names.
const LONGEST: usize = 200;

/// The path that the segments of an address mean; None: it is no path that an archive could have.
#[must_use]
pub fn path(segments: &[&str]) -> Option<Vec<Vec<u8>>> {
    segments
        .iter()
        .map(|segment| {
            let name: Vec<u8> = percent_decode_str(segment).collect();
            let is_name = !matches!(name.as_slice(), b"" | b"." | b"..") && !name.contains(&b'/') && !name.contains(&0);
            is_name.then_some(name)
        })
        .collect()
}

/// A name as a segment of an address.
#[must_use]
pub fn segment(name: &[u8]) -> String {
    percent_encode(name, SEGMENT).to_string()
}

/// `Content-Disposition` for a file that is to be saved under this name (RFC 6266).
#[must_use]
pub fn attachment(name: &str) -> String {
    let name: String = name.chars().map(|c| if c == '/' || c == '\\' || c.is_control() { '_' } else { c }).collect();
    // The end of a name says what it is.
    let surplus = name.len().saturating_sub(LONGEST);
    let first = (surplus..=name.len()).find(|at| name.is_char_boundary(*at)).unwrap_or(0);
    let name = &name[first..];
    let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || " .-_()+,=@".contains(c) { c } else { '_' }).collect();
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{}", percent_encode(name.as_bytes(), EXTENDED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_nothing_else() {
        let ok = |segments: &[&str]| path(segments).unwrap().join(&b'/');
        assert_eq!(ok(&["etc", "a%20b"]), b"etc/a b");
        assert_eq!(ok(&["%ff%00".trim_end_matches("%00"), "%3Cscript%3E", "..%2e", "%"]), b"\xff/<script>/.../%");
        for bad in ["..", ".", "%2e%2e", "%2E.", "a%2fb", "a%00", "", "%2F", "%2e%2e%2fetc"] {
            assert_eq!(path(&["etc", bad]), None, "{bad}");
        }
        for name in [&b"a b%/"[..2], b"\xff\xfe", "ü".as_bytes(), b"<\"'&>?#", b"%2e"] {
            let text = segment(name);
            assert_eq!(path(&[&text]).unwrap(), [name], "{text}");
            assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~%".contains(&b)));
        }
    }

    #[test]
    fn names_that_browsers_cannot_misunderstand() {
        assert_eq!(attachment("a.txt"), "attachment; filename=\"a.txt\"; filename*=UTF-8''a.txt");
        assert_eq!(attachment("ü\".exe"), "attachment; filename=\"__.exe\"; filename*=UTF-8''%C3%BC%22.exe");
        assert_eq!(
            attachment("a\r\nSet-Cookie: x/../b"),
            "attachment; filename=\"a__Set-Cookie_ x_.._b\"; filename*=UTF-8''a__Set-Cookie%3A%20x_.._b"
        );
        let long = attachment(&("ü".repeat(5000) + ".tar"));
        assert!(long.len() < 2000 && long.ends_with(".tar"), "{long}");
    }
}
