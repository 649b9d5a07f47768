//! The file `config` of a repository: INI with one section (Borg 1.x: fact 9.1). Lines that nobody asked about stay as they are.

use crate::RepositoryId;

/// Why a config is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// There is no section `repository`.
    #[error("no repository section found")]
    NoSection,
    /// A line is neither a section, an option, a comment nor a continuation.
    #[error("line {0} is not understood")]
    Line(usize),
    /// An option is missing.
    #[error("the option {0} is missing")]
    Missing(&'static str),
    /// An option makes no sense.
    #[error("{0} = {1:?} makes no sense")]
    Value(&'static str, String),
    /// Not version 1.
    #[error("repository version {0} is not supported")]
    Version(String),
}

/// What a config says; bytes and counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The repository's id.
    pub id: RepositoryId,
    /// Segments in one directory below `data`.
    pub segments_per_dir: u32,
    /// Bytes after which a new segment begins.
    pub max_segment_size: u64,
    /// Nothing may be compacted.
    pub append_only: bool,
    /// Most bytes of entries there may be; 0 means any number.
    pub storage_quota: u64,
    /// Bytes to leave free.
    pub additional_free_space: u64,
}

/// Borg 1.x: `max_segment_size` has to be less.
const SEGMENT_LIMIT: u64 = (1 << 32) - 20 * 1024 * 1024;

/// The text, line by line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    lines: Vec<String>,
}

impl Config {
    /// The config of a new repository.
    #[must_use]
    pub fn new(id: RepositoryId) -> Config {
        let text = format!(
            "[repository]\nversion = 1\nsegments_per_dir = 1000\nmax_segment_size = 524288000\nappend_only = 0\nstorage_quota = 0\n\
             additional_free_space = 0\nid = {}\n\n",
            id.to_hex()
        );
        Config { lines: text.lines().map(str::to_owned).collect() }
    }

    /// Reads a config.
    pub fn parse(text: &str) -> Result<Config, ConfigError> {
        // Carriage returns are part of the end of a line, also of the last one without a line feed: else it would be another one once written.
        let config = Config { lines: text.lines().map(|line| line.trim_end_matches('\r').to_owned()).collect() };
        let (mut section, mut option) = (false, false);
        for (number, line) in config.lines.iter().enumerate() {
            match kind(line) {
                Line::Section(_) => (section, option) = (true, false),
                Line::Option(..) if section => option = true,
                Line::Continuation if option => {}
                Line::Nothing => {}
                Line::Option(..) | Line::Continuation | Line::Other => return Err(ConfigError::Line(number + 1)),
            }
        }
        config.section().ok_or(ConfigError::NoSection)?;
        Ok(config)
    }

    /// The file's text.
    #[must_use]
    pub fn text(&self) -> String {
        self.lines.iter().flat_map(|line| [line, "\n"]).collect()
    }

    /// What it says, checked.
    pub fn settings(&self) -> Result<Settings, ConfigError> {
        let version = self.require("version")?;
        if version != "1" {
            return Err(ConfigError::Version(version));
        }
        let bad = |name, text: &str| ConfigError::Value(name, text.to_owned());
        let id = self.require("id")?;
        let per_dir = self.require("segments_per_dir")?;
        let max_segment_size = self.bytes("max_segment_size", None)?;
        if max_segment_size >= SEGMENT_LIMIT {
            return Err(bad("max_segment_size", &max_segment_size.to_string()));
        }
        let append_only = self.get("append_only").unwrap_or_default();
        Ok(Settings {
            id: RepositoryId::from_hex(&id).map_err(|_| bad("id", &id))?,
            segments_per_dir: per_dir.parse().ok().filter(|n| *n > 0).ok_or_else(|| bad("segments_per_dir", &per_dir))?,
            max_segment_size,
            append_only: match append_only.to_ascii_lowercase().as_str() {
                "1" | "yes" | "true" | "on" => true,
                "" | "0" | "no" | "false" | "off" => false,
                _ => return Err(bad("append_only", &append_only)),
            },
            storage_quota: self.bytes("storage_quota", Some(0))?,
            additional_free_space: self.bytes("additional_free_space", Some(0))?,
        })
    }

    /// An option's value, its lines joined with line feeds; None if there is none.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<String> {
        let (first, end) = self.find(name)?;
        let Line::Option(_, value) = kind(&self.lines[first]) else { return None };
        let rest = self.lines[first + 1..end].iter().filter(|line| matches!(kind(line), Line::Continuation));
        let value: Vec<&str> = std::iter::once(value).chain(rest.map(|line| line.trim())).collect();
        Some(value.join("\n").trim().to_owned())
    }

    /// Sets an option; further lines of the value are indented, as Python's configparser writes them.
    pub fn set(&mut self, name: &str, value: &str) {
        let mut lines = value.trim().lines();
        let mut new = vec![format!("{name} = {}", lines.next().unwrap_or_default())];
        new.extend(lines.map(|line| format!("\t{line}")));
        let place = match self.find(name) {
            Some((first, end)) => first..end,
            None => {
                let (begin, mut end) = self.section().unwrap_or((0, self.lines.len()));
                while end > begin && matches!(kind(&self.lines[end - 1]), Line::Nothing) {
                    end -= 1;
                }
                end..end
            }
        };
        self.lines.splice(place, new);
    }

    fn require(&self, name: &'static str) -> Result<String, ConfigError> {
        self.get(name).filter(|value| !value.is_empty()).ok_or(ConfigError::Missing(name))
    }

    /// A number of bytes, perhaps with a decimal suffix (Borg 1.x: `parse_file_size`).
    fn bytes(&self, name: &'static str, default: Option<u64>) -> Result<u64, ConfigError> {
        let Some(text) = self.get(name).filter(|text| !text.is_empty()) else { return default.ok_or(ConfigError::Missing(name)) };
        let exponent = text.chars().last().and_then(|last| "KMGTP".find(last.to_ascii_uppercase()));
        let number = if exponent.is_some() { &text[..text.len() - 1] } else { &text };
        let factor = exponent.map_or(1.0, |n| 1000f64.powi(n as i32 + 1));
        let whole = number.parse::<u64>().ok().filter(|_| exponent.is_none());
        let value = whole.or_else(|| number.parse::<f64>().ok().filter(|n| *n >= 0.0 && n.is_finite()).map(|n| (n * factor) as u64));
        value.ok_or_else(|| ConfigError::Value(name, text.clone()))
    }

    /// First line behind the section's head, and the line after its last.
    fn section(&self) -> Option<(usize, usize)> {
        let begin = self.lines.iter().position(|line| matches!(kind(line), Line::Section("repository")))? + 1;
        let length = self.lines[begin..].iter().position(|line| matches!(kind(line), Line::Section(_)));
        Some((begin, length.map_or(self.lines.len(), |length| begin + length)))
    }

    /// The lines of an option.
    fn find(&self, name: &str) -> Option<(usize, usize)> {
        let (begin, end) = self.section()?;
        let first = (begin..end).find(|n| matches!(kind(&self.lines[*n]), Line::Option(key, _) if key.eq_ignore_ascii_case(name)))?;
        let last = (first + 1..end).take_while(|n| !matches!(kind(&self.lines[*n]), Line::Option(..)));
        // Empty lines and comments behind the value are not part of it.
        let last = last.filter(|n| matches!(kind(&self.lines[*n]), Line::Continuation)).last();
        Some((first, last.unwrap_or(first) + 1))
    }
}

enum Line<'a> {
    Section(&'a str),
    Option(&'a str, &'a str),
    Continuation,
    Nothing,
    Other,
}

fn kind(line: &str) -> Line<'_> {
    let text = line.trim();
    if text.is_empty() || text.starts_with(['#', ';']) {
        return Line::Nothing;
    }
    if line.starts_with(char::is_whitespace) {
        return Line::Continuation;
    }
    if let Some(name) = text.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
        return Line::Section(name);
    }
    match text.find(['=', ':']) {
        Some(at) if at > 0 => Line::Option(text[..at].trim(), text[at + 1..].trim()),
        _ => Line::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: RepositoryId = RepositoryId([0xab; 32]);

    #[test]
    fn a_new_config_says_what_borg_says() {
        let config = Config::new(ID);
        let settings = config.settings().unwrap();
        assert_eq!((settings.id, settings.segments_per_dir, settings.max_segment_size), (ID, 1000, 524_288_000));
        assert_eq!(Config::parse(&config.text()).unwrap(), config);
    }

    #[test]
    fn carriage_returns_end_lines() {
        for text in ["[repository]\nversion = 1\nid = 5\r", "[repository]\r\nversion = 1\r\nid = 5\r\r\n"] {
            let config = Config::parse(text).unwrap();
            assert_eq!(Config::parse(&config.text()).as_ref(), Ok(&config));
            assert_eq!(config.get("id").unwrap(), "5");
        }
    }

    #[test]
    fn a_key_of_lines_is_kept_with_everything_else() {
        let text = "# mine\n[other]\nx = 1\n[repository]\nversion = 1\nfuture: yes\nkey = one\n\ttwo\n\nid = 5\n\n[last]\ny=2\n";
        let mut config = Config::parse(text).unwrap();
        assert_eq!(config.get("key").unwrap(), "one\ntwo");
        assert_eq!(config.get("FUTURE").unwrap(), "yes");
        assert_eq!(config.get("y"), None);
        config.set("key", "a\nb\nc\n");
        assert_eq!(config.text(), text.replace("one\n\ttwo", "a\n\tb\n\tc"));
        config.set("new", "1");
        assert!(config.text().contains("id = 5\nnew = 1\n\n[last]"), "{}", config.text());
        assert_eq!(config.get("new").unwrap(), "1");
    }

    #[test]
    fn sizes_have_suffixes() {
        let mut config = Config::new(ID);
        for (text, bytes) in [("5", 5), ("2K", 2000), ("1.5M", 1_500_000), ("3g", 3_000_000_000)] {
            config.set("storage_quota", text);
            assert_eq!(config.settings().unwrap().storage_quota, bytes, "{text}");
        }
        config.set("storage_quota", "many");
        assert!(matches!(config.settings(), Err(ConfigError::Value("storage_quota", _))));
    }

    #[test]
    fn what_is_no_config() {
        assert_eq!(Config::parse(""), Err(ConfigError::NoSection));
        assert_eq!(Config::parse("[repository]\nrubbish\n"), Err(ConfigError::Line(2)));
        assert_eq!(Config::parse("x = 1\n[repository]\n"), Err(ConfigError::Line(1)));
        let with = |name: &str, value: &str| {
            let mut config = Config::new(ID);
            config.set(name, value);
            config.settings().unwrap_err()
        };
        assert_eq!(with("version", "2"), ConfigError::Version("2".into()));
        assert!(matches!(with("id", "xyz"), ConfigError::Value("id", _)));
        assert!(matches!(with("max_segment_size", "4294967295"), ConfigError::Value("max_segment_size", _)));
        assert!(matches!(with("segments_per_dir", "0"), ConfigError::Value("segments_per_dir", _)));
        assert!(matches!(with("append_only", "perhaps"), ConfigError::Value("append_only", _)));
    }
}
