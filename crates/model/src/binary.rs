//! Borg binaries for clients that have no borg of their own: what is known of each, and which one fits a client.

use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// Version of the index that this program writes.
pub const INDEX_VERSION: u32 = 1;

/// Largest binary in bytes: ten times what Borg's are.
pub const LARGEST: u64 = 512 * 1024 * 1024;

/// Names that a sentence lists before it says how many more there are.
const LISTED: usize = 5;

/// A release of Borg, such as `1.4.5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BorgVersion {
    major: u32,
    minor: u32,
    patch: u32,
}

impl BorgVersion {
    /// The oldest that clients may have.
    pub const OLDEST: BorgVersion = BorgVersion { major: 1, minor: 1, patch: 10 };

    /// Whether clients may have it.
    #[must_use]
    pub fn is_supported(self) -> bool {
        self >= BorgVersion::OLDEST && self.major < 2
    }

    /// What `borg --version` said: `borg 1.4.5`. (Borg calls itself by the name of its file.)
    #[must_use]
    pub fn said(text: &str) -> Option<BorgVersion> {
        text.lines().find_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
            [_, version] => version.parse().ok(),
            _ => None,
        })
    }
}

impl FromStr for BorgVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<BorgVersion, String> {
        let numbers: Option<Vec<u32>> = text.split('.').map(number).collect();
        match numbers.as_deref() {
            Some(&[major, minor, patch]) => Ok(BorgVersion { major, minor, patch }),
            _ => Err(format!("{text:?} is no release of Borg: write it like 1.4.5")),
        }
    }
}

impl fmt::Display for BorgVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Digits and nothing else.
fn number(text: &str) -> Option<u32> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// A version of the GNU C library, such as `2.31`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Glibc {
    /// The first number.
    pub major: u32,
    /// The second one.
    pub minor: u32,
}

impl FromStr for Glibc {
    type Err = String;

    fn from_str(text: &str) -> Result<Glibc, String> {
        // Development versions have further numbers.
        let mut numbers = text.split('.').map(number);
        match (numbers.next(), numbers.next()) {
            (Some(Some(major)), Some(Some(minor))) => Ok(Glibc { major, minor }),
            _ => Err(format!("{text:?} is no version of glibc: write it like 2.31")),
        }
    }
}

impl fmt::Display for Glibc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Operating system and architecture, in one spelling for what `uname -s -m`, Borg's releases and Rust call differently: `linux-x86_64`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Platform {
    system: String,
    machine: String,
}

impl Platform {
    /// From two words in anybody's spelling.
    pub fn new(system: &str, machine: &str) -> Result<Platform, String> {
        for word in [system, machine] {
            if word.is_empty() || word.len() > 32 || !word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                return Err(format!("{word:?} names no operating system or architecture: write them like linux-x86_64"));
            }
        }
        let (system, machine) = (system.to_ascii_lowercase(), machine.to_ascii_lowercase());
        let system = if system == "macos" { "darwin".to_owned() } else { system };
        let machine = match machine.as_str() {
            "amd64" => "x86_64".to_owned(),
            "arm64" => "aarch64".to_owned(),
            "i386" | "i486" | "i586" | "x86" => "i686".to_owned(),
            arm if arm.starts_with("armv") => "arm".to_owned(),
            _ => machine,
        };
        Ok(Platform { system, machine })
    }

    /// Of a host whose `uname -s -m` says this, and whose programs have so many bits (`getconf LONG_BIT`): a 64 bit kernel runs hosts of 32 bit.
    pub fn of_host(system: &str, machine: &str, bits: &str) -> Result<Platform, String> {
        let mut platform = Platform::new(system, machine)?;
        if bits == "32" {
            platform.machine = match platform.machine.as_str() {
                "x86_64" => "i686".to_owned(),
                "aarch64" => "arm".to_owned(),
                _ => platform.machine,
            };
        }
        Ok(platform)
    }

    /// The operating system: `linux`, `freebsd`, `darwin`.
    #[must_use]
    pub fn system(&self) -> &str {
        &self.system
    }

    /// The architecture, as Linux calls it: `x86_64`, `aarch64`.
    #[must_use]
    pub fn machine(&self) -> &str {
        &self.machine
    }
}

impl FromStr for Platform {
    type Err = String;

    fn from_str(text: &str) -> Result<Platform, String> {
        let (system, machine) = text.split_once('-').ok_or_else(|| format!("{text:?} is no platform: write it like linux-x86_64"))?;
        Platform::new(system, machine)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.system, self.machine)
    }
}

/// Text in JSON is what people write.
macro_rules! as_text {
    ($($type:ty),*) => {$(
        impl TryFrom<String> for $type {
            type Error = String;
            fn try_from(text: String) -> Result<$type, String> {
                text.parse()
            }
        }
        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.to_string()
            }
        }
    )*};
}
as_text!(BorgVersion, Glibc, Platform);

/// The C library of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Libc {
    /// GNU's.
    Glibc(Glibc),
    /// musl, for which Borg's releases have nothing.
    Musl,
    /// It could not be found out, or there is none to speak of.
    Unknown,
}

impl Libc {
    /// From a client's word: `glibc-2.36`, `musl`; anything else is unknown.
    #[must_use]
    pub fn said(word: &str) -> Libc {
        match word.strip_prefix("glibc-").map(str::parse) {
            Some(Ok(version)) => Libc::Glibc(version),
            _ if word == "musl" => Libc::Musl,
            _ => Libc::Unknown,
        }
    }
}

/// A client, as far as a binary has to fit it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// System and architecture.
    pub platform: Platform,
    /// Its C library.
    pub libc: Libc,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.platform)?;
        match self.libc {
            Libc::Glibc(version) => write!(f, " with glibc {version}"),
            Libc::Musl => f.write_str(" with musl"),
            Libc::Unknown if self.platform.system() == "linux" => f.write_str(" with an unknown C library"),
            Libc::Unknown => Ok(()),
        }
    }
}

/// One binary of this server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binary {
    /// Its file's name in the directory.
    pub name: String,
    /// What it is.
    pub borg: BorgVersion,
    /// What it runs on.
    pub platform: Platform,
    /// The oldest glibc it runs with. None: it needs none.
    pub glibc: Option<Glibc>,
    /// Bytes.
    pub size: u64,
    /// SHA-256 in lower-case hexadecimal.
    pub sha256: String,
    /// Since when it is here.
    pub added: Timestamp,
}

impl Binary {
    /// The name that tells all of it: `borg-1.4.5-linux-x86_64-glibc2.35`.
    #[must_use]
    pub fn name_of(borg: BorgVersion, platform: &Platform, glibc: Option<Glibc>) -> String {
        match glibc {
            Some(glibc) => format!("borg-{borg}-{platform}-glibc{glibc}"),
            None => format!("borg-{borg}-{platform}"),
        }
    }

    /// Whether it runs there, as far as can be told from here.
    #[must_use]
    pub fn fits(&self, host: &Host) -> bool {
        let libc = match (self.glibc, host.libc) {
            (None, _) => true,
            (Some(oldest), Libc::Glibc(there)) => there >= oldest,
            (Some(_), Libc::Musl | Libc::Unknown) => false,
        };
        libc && self.platform == host.platform
    }

    fn check(&self) -> Result<(), String> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if !self.name.starts_with("borg-") || self.name.len() > 200 || !self.name.bytes().all(plain) {
            return Err(format!("{:?} is no name of a binary", self.name));
        }
        if self.sha256.len() != 64 || !self.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(format!("the checksum of {} is none", self.name));
        }
        if self.size == 0 || self.size > LARGEST {
            return Err(format!("{} cannot have {} bytes", self.name, self.size));
        }
        Ok(())
    }
}

/// The index beside the files: only what is in it is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    version: u32,
    /// The binaries, by name.
    pub binaries: Vec<Binary>,
}

impl Default for Index {
    fn default() -> Index {
        Index { version: INDEX_VERSION, binaries: vec![] }
    }
}

impl Index {
    /// Of these binaries.
    #[must_use]
    pub fn of(binaries: Vec<Binary>) -> Index {
        Index { binaries, ..Index::default() }
    }

    /// Reads an index. The error says what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Index, String> {
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let head: Head = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        if head.version != INDEX_VERSION {
            return Err(format!("it is of version {}, and this BorgCube knows version {INDEX_VERSION}", head.version));
        }
        let index: Index = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        index.binaries.iter().try_for_each(Binary::check)?;
        Ok(index)
    }

    /// The bytes of the index.
    pub fn to_json(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec_pretty(self).map_err(|e| e.to_string())
    }

    /// The binary for a host: of those that fit the newest borg, and of these the one made for the newest glibc.
    #[must_use]
    pub fn choose(&self, host: &Host) -> Option<&Binary> {
        self.binaries.iter().filter(|binary| binary.fits(host)).max_by(|a, b| a.borg.cmp(&b.borg).then(a.glibc.cmp(&b.glibc)))
    }

    /// Why there is none for a host, as the end of a sentence.
    #[must_use]
    pub fn none_for(&self, host: &Host) -> String {
        let mut near: Vec<&Binary> = self.binaries.iter().collect();
        // Those of the same platform say most about what is wrong.
        near.sort_by_key(|binary| if binary.platform == host.platform { Ordering::Less } else { Ordering::Greater });
        let mut names: Vec<String> = near.iter().take(LISTED).map(|binary| binary.name.clone()).collect();
        if near.len() > LISTED {
            names.push(format!("{} more", near.len() - LISTED));
        }
        let there = if names.is_empty() { "there is none at all".to_owned() } else { format!("there is {}", names.join(", ")) };
        format!("no Borg binary of this server fits {host}: {there}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(borg: &str, platform: &str, glibc: Option<&str>) -> Binary {
        let (borg, platform) = (borg.parse().unwrap(), platform.parse().unwrap());
        let glibc = glibc.map(|glibc| glibc.parse().unwrap());
        let name = Binary::name_of(borg, &platform, glibc);
        Binary { name, borg, platform, glibc, size: 1, sha256: "ab".repeat(32), added: Timestamp(0) }
    }

    fn host(system: &str, machine: &str, bits: &str, libc: &str) -> Host {
        Host { platform: Platform::of_host(system, machine, bits).unwrap(), libc: Libc::said(libc) }
    }

    #[test]
    fn the_choice() {
        let index = Index {
            binaries: vec![
                binary("1.2.9", "linux-x86_64", Some("2.24")),
                binary("1.4.3", "linux-x86_64", Some("2.31")),
                binary("1.4.3", "linux-x86_64", Some("2.36")),
                binary("1.4.5", "linux-x86_64", Some("2.35")),
                binary("1.4.5", "linux-aarch64", Some("2.35")),
                binary("1.4.4", "linux-i686", None),
                binary("1.4.10", "freebsd-x86_64", None),
                binary("1.4.9", "freebsd-x86_64", None),
            ],
            ..Index::default()
        };
        let chosen = |host: Host| index.choose(&host).map(|binary| binary.name.clone());
        for (host, expected) in [
            // The newest borg, and among equal ones the newest glibc.
            (host("Linux", "x86_64", "64", "glibc-2.41"), Some("borg-1.4.5-linux-x86_64-glibc2.35")),
            (host("Linux", "x86_64", "64", "glibc-2.35"), Some("borg-1.4.5-linux-x86_64-glibc2.35")),
            (host("Linux", "x86_64", "64", "glibc-2.34"), Some("borg-1.4.3-linux-x86_64-glibc2.31")),
            (host("Linux", "x86_64", "64", "glibc-2.28"), Some("borg-1.2.9-linux-x86_64-glibc2.24")),
            // 2.9 is older than 2.24.
            (host("Linux", "x86_64", "64", "glibc-2.9"), None),
            (host("Linux", "x86_64", "64", "musl"), None),
            (host("Linux", "x86_64", "64", "-"), None),
            (host("Linux", "aarch64", "64", "glibc-2.36"), Some("borg-1.4.5-linux-aarch64-glibc2.35")),
            // A kernel of 64 bit says nothing about the programs.
            (host("Linux", "aarch64", "32", "glibc-2.36"), None),
            (host("Linux", "x86_64", "32", "musl"), Some("borg-1.4.4-linux-i686")),
            (host("Linux", "i586", "32", "glibc-2.36"), Some("borg-1.4.4-linux-i686")),
            (host("FreeBSD", "amd64", "64", "-"), Some("borg-1.4.10-freebsd-x86_64")),
            (host("Linux", "riscv64", "64", "glibc-2.41"), None),
        ] {
            assert_eq!(chosen(host.clone()).as_deref(), expected, "{host}");
        }
        let equal = Index {
            binaries: vec![binary("1.4.3", "linux-x86_64", Some("2.36")), binary("1.4.3", "linux-x86_64", Some("2.9"))],
            ..Index::default()
        };
        let chosen = equal.choose(&host("Linux", "x86_64", "64", "glibc-2.41")).unwrap();
        assert_eq!(chosen.glibc, Some(Glibc { major: 2, minor: 36 }));
    }

    #[test]
    fn why_there_is_none() {
        let far = ["linux-aarch64", "linux-i686", "freebsd-x86_64", "darwin-x86_64", "linux-riscv64"];
        let mut binaries: Vec<Binary> = far.map(|platform| binary("1.4.5", platform, None)).into();
        let musl = host("Linux", "x86_64", "64", "musl");
        assert!(Index::default().none_for(&musl).ends_with("fits linux-x86_64 with musl: there is none at all"));
        binaries.push(binary("1.4.5", "linux-x86_64", Some("2.35")));
        let index = Index { binaries, ..Index::default() };
        let said = index.none_for(&host("Linux", "x86_64", "64", "glibc-2.31"));
        assert!(said.contains("fits linux-x86_64 with glibc 2.31: there is borg-1.4.5-linux-x86_64-glibc2.35, "), "{said}");
        assert!(said.ends_with(", 1 more"), "{said}");
        assert!(!index.none_for(&host("FreeBSD", "arm64", "64", "-")).contains("C library"));
    }

    #[test]
    fn versions() {
        let version = |text: &str| text.parse::<BorgVersion>();
        for (text, fine) in [("1.1.9", false), ("1.1.10", true), ("1.2.0", true), ("1.4.5", true), ("2.0.0", false), ("0.30.0", false)] {
            assert_eq!(version(text).unwrap().is_supported(), fine, "{text}");
        }
        for bad in ["", "1.4", "1.4.5.1", "1.4.0rc1", "2.0.0b14", "+1.4.5", "1..5", "borg 1.4.5", "99999999999.1.1"] {
            assert!(version(bad).is_err(), "{bad:?}");
        }
        assert_eq!(BorgVersion::said("banner\nborg 1.4.5\n"), version("1.4.5").ok());
        assert_eq!(BorgVersion::said("borg-linux-glibc236-x86_64 1.4.5\n"), version("1.4.5").ok());
        assert_eq!(BorgVersion::said("borg 1.4.0rc1"), None);
        assert_eq!("2.36.9000".parse(), Ok(Glibc { major: 2, minor: 36 }));
        for bad in ["", "2", "2.", "x.y", "-1.2"] {
            assert!(bad.parse::<Glibc>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn platforms_have_one_spelling() {
        for (text, expected) in [
            ("Linux-amd64", "linux-x86_64"),
            ("linux-arm64", "linux-aarch64"),
            ("linux-armv7l", "linux-arm"),
            ("macos-arm64", "darwin-aarch64"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), expected);
        }
        for bad in ["", "linux", "linux-", "-x86_64", "linux-x86_64-glibc", "../-x", "linux-$(x)", "linux- "] {
            assert!(bad.parse::<Platform>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_index_is_read_again_and_nothing_else() {
        let index = Index { binaries: vec![binary("1.4.5", "linux-x86_64", Some("2.35"))], ..Index::default() };
        let bytes = index.to_json().unwrap();
        assert_eq!(Index::parse(&bytes).unwrap(), index);
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains(r#""borg": "1.4.5""#) && text.contains(r#""glibc": "2.35""#), "{text}");
        for (from, to) in [
            (r#""version": 1"#, r#""version": 2"#),
            ("borg-1.4.5-linux", "../borg"),
            ("borg-1.4.5-linux", "borg-/../x"),
            ("abab", "ABAB"),
            ("abab", ""),
            (r#""size": 1"#, r#""size": 0"#),
            (r#""borg": "1.4.5""#, r#""borg": "x""#),
        ] {
            assert!(text.contains(from));
            assert!(Index::parse(text.replace(from, to).as_bytes()).is_err(), "{from} {to}");
        }
        assert!(Index::parse(text.replace(r#""version": 1"#, r#""version": 2"#).as_bytes()).unwrap_err().contains("version 2"));
        assert!(Index::parse(b"").is_err());
    }
}
