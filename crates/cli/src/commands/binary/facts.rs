//! What a file tells of itself: the names of Borg's releases, and the first bytes of programs. Pure.

use model::binary::{BorgVersion, Glibc, Platform};

/// Enough of a file for [`head`].
pub const HEAD: usize = 64;

/// What a name says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Only names that this program has made say it.
    pub borg: Option<BorgVersion>,
    pub system: Option<&'static str>,
    pub machine: Option<&'static str>,
    pub glibc: Option<Glibc>,
}

/// Reads `borg-linux-glibc231-x86_64`, `borg-linux-glibc235-arm64-gh`, `borg-freebsd-14-x86_64`, `borg-linuxnew64`, and the names of the
/// directory itself. (The words of Borg 1.1 and 1.2, such as `new`, mean another glibc in each release.)
pub fn named(name: &str) -> Named {
    let mut facts = Named::default();
    let Some(rest) = name.strip_prefix("borg-") else { return facts };
    for word in rest.split(['-', '_']) {
        facts.system = facts.system.or(match word {
            _ if word.starts_with("linux") => Some("linux"),
            _ if word.starts_with("freebsd") => Some("freebsd"),
            _ if word.starts_with("macos") || word == "darwin" => Some("darwin"),
            _ => None,
        });
        facts.glibc = facts.glibc.or(word.strip_prefix("glibc").and_then(glibc));
        facts.borg = facts.borg.or(word.parse().ok());
    }
    let ends = |endings: &[&str]| endings.iter().any(|ending| rest.contains(ending));
    facts.machine = if ends(&["x86_64", "amd64"]) {
        Some("x86_64")
    } else if ends(&["arm64", "aarch64"]) {
        Some("aarch64")
    } else {
        None
    };
    facts
}

/// `231`, or `2.31`.
fn glibc(digits: &str) -> Option<Glibc> {
    if digits.contains('.') {
        return digits.parse().ok();
    }
    let (major, minor) = digits.split_at_checked(1)?;
    format!("{major}.{minor}").parse().ok()
}

/// What a file begins with.
#[derive(Debug, PartialEq, Eq)]
pub enum Head {
    /// A program for this architecture; the system, where the file says it.
    Program { system: Option<&'static str>, machine: Option<&'static str> },
    /// Something compressed.
    Archive,
    /// Anything else, such as a script.
    Other,
}

/// Looks at the first bytes: ELF (System V ABI, figure 4-3: e_ident, e_machine), Mach-O of 64 bit, gzip, xz, zip.
pub fn head(bytes: &[u8]) -> Head {
    if [&b"\x1f\x8b"[..], b"\xfd7zXZ", b"PK\x03\x04", b"BZh", b"\x28\xb5\x2f\xfd"].iter().any(|magic| bytes.starts_with(magic)) {
        return Head::Archive;
    }
    if let Some([0xcf, 0xfa, 0xed, 0xfe, cpu @ ..]) = bytes.first_chunk::<8>() {
        let machine = match u32::from_le_bytes(*cpu) {
            0x0100_0007 => Some("x86_64"),
            0x0100_000c => Some("aarch64"),
            _ => None,
        };
        return Head::Program { system: Some("darwin"), machine };
    }
    let Some([0x7f, b'E', b'L', b'F', class, order, _, abi, ..]) = bytes.first_chunk::<HEAD>() else { return Head::Other };
    let machine = match order {
        2 => u16::from_be_bytes([bytes[18], bytes[19]]),
        _ => u16::from_le_bytes([bytes[18], bytes[19]]),
    };
    let machine = match (machine, class, order) {
        (62, 2, 1) => Some("x86_64"),
        (183, 2, 1) => Some("aarch64"),
        (3, 1, 1) => Some("i686"),
        (40, 1, 1) => Some("arm"),
        (21, 2, 1) => Some("ppc64le"),
        (22, 2, 2) => Some("s390x"),
        (243, 2, 1) => Some("riscv64"),
        _ => None,
    };
    // Linux and most others leave it 0.
    let system = match abi {
        9 => Some("freebsd"),
        3 => Some("linux"),
        _ => None,
    };
    Head::Program { system, machine }
}

/// The platform, from everything that says something about it.
pub fn platform(given: Option<Platform>, named: &Named, head: &Head) -> Result<Platform, String> {
    let (system, machine) = match head {
        Head::Program { system, machine } => (*system, *machine),
        Head::Archive => {
            return Err("this is an archive, not a program: of Borg's releases, take the single file (the name without .tgz)".into());
        }
        Head::Other if given.is_none() => {
            return Err(
                "this is no program of Linux, FreeBSD or macOS; if clients can run it all the same, say where: --platform linux-x86_64"
                    .into(),
            );
        }
        Head::Other => (None, None),
    };
    let differs = |what: &str, told: &str, is: &str| Err(format!("the {what} is said to be {told}, and the file is a program for {is}"));
    if let Some(given) = given {
        return match (machine, system) {
            (Some(is), _) if is != given.machine() => differs("architecture", given.machine(), is),
            (_, Some(is)) if is != given.system() => differs("operating system", given.system(), is),
            _ => Ok(given),
        };
    }
    match (named.machine, machine) {
        (Some(told), Some(is)) if told != is => return differs("architecture", told, is),
        _ => {}
    }
    let system = match (named.system, system) {
        (Some(told), Some(is)) if told != is => return differs("operating system", told, is),
        // Nearly everything that does not say what it is for is for Linux.
        (told, is) => told.or(is).unwrap_or("linux"),
    };
    match named.machine.or(machine) {
        Some(machine) => Platform::new(system, machine),
        None => {
            Err(format!("the architecture of this program is not known; say it: --platform {system}-ARCHITECTURE, as uname -m calls it"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(class: u8, order: u8, abi: u8, machine: u16) -> Vec<u8> {
        let mut bytes = vec![0; HEAD];
        bytes[..8].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, order, 1, abi]);
        bytes[18..20].copy_from_slice(&if order == 2 { machine.to_be_bytes() } else { machine.to_le_bytes() });
        bytes
    }

    #[test]
    fn names_of_releases() {
        let check = |name: &str, system: Option<&str>, machine: Option<&str>, glibc: Option<&str>| {
            let facts = named(name);
            let told = facts.glibc.map(|glibc| glibc.to_string());
            assert_eq!((facts.system, facts.machine, told.as_deref()), (system, machine, glibc), "{name}");
            facts.borg.map(|borg| borg.to_string())
        };
        let (linux, x86) = (Some("linux"), Some("x86_64"));
        check("borg-linux-glibc231-x86_64", linux, x86, Some("2.31"));
        check("borg-linux-glibc235-x86_64-gh", linux, x86, Some("2.35"));
        check("borg-linux-glibc235-arm64-gh", linux, Some("aarch64"), Some("2.35"));
        check("borg-linux-glibc228", linux, None, Some("2.28"));
        check("borg-linuxnewer64", linux, None, None);
        check("borg-freebsd-14-x86_64-gh", Some("freebsd"), x86, None);
        check("borg-freebsd13", Some("freebsd"), None, None);
        check("borg-macos-15-arm64-gh", Some("darwin"), Some("aarch64"), None);
        check("borg-macosx64", Some("darwin"), None, None);
        check("borg", None, None, None);
        check("x86_64-linux", None, None, None);
        let own = model::binary::Binary::name_of("1.4.5".parse().unwrap(), &"linux-x86_64".parse().unwrap(), "2.35".parse().ok());
        assert_eq!(check(&own, linux, x86, Some("2.35")).as_deref(), Some("1.4.5"));
    }

    #[test]
    fn first_bytes_of_programs() {
        let program = |bytes: &[u8]| match head(bytes) {
            Head::Program { system, machine } => (system, machine),
            other => panic!("{other:?}"),
        };
        assert_eq!(program(&elf(2, 1, 0, 62)), (None, Some("x86_64")));
        assert_eq!(program(&elf(2, 1, 3, 183)), (Some("linux"), Some("aarch64")));
        assert_eq!(program(&elf(2, 1, 9, 62)), (Some("freebsd"), Some("x86_64")));
        assert_eq!(program(&elf(2, 2, 0, 22)), (None, Some("s390x")));
        assert_eq!(program(&elf(1, 1, 0, 62)), (None, None));
        assert_eq!(program(b"\xcf\xfa\xed\xfe\x0c\0\0\x01...."), (Some("darwin"), Some("aarch64")));
        assert_eq!(head(b"\x1f\x8b\x08"), Head::Archive);
        for other in [&b""[..], b"\x7fELF", b"#!/bin/sh\n", &elf(2, 1, 0, 62)[..HEAD - 1]] {
            assert_eq!(head(other), Head::Other);
        }
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(program(&own).1, Platform::new("linux", std::env::consts::ARCH).ok().as_ref().map(Platform::machine));
    }

    #[test]
    fn what_contradicts_is_refused_and_what_is_unknown_asked_for() {
        let told = |given: Option<&str>, name: &str, bytes: &[u8]| {
            platform(given.map(|given| given.parse().unwrap()), &named(name), &head(bytes)).map(|platform| platform.to_string())
        };
        let x86 = elf(2, 1, 0, 62);
        assert_eq!(told(None, "borg", &x86).unwrap(), "linux-x86_64");
        assert_eq!(told(None, "borg-freebsd14", &x86).unwrap(), "freebsd-x86_64");
        assert_eq!(told(Some("freebsd-amd64"), "borg-linux-glibc231-x86_64", &x86).unwrap(), "freebsd-x86_64");
        assert_eq!(told(Some("linux-x86_64"), "borg", b"#!/bin/sh\n").unwrap(), "linux-x86_64");
        assert!(told(None, "borg-linux-glibc235-arm64-gh", &x86).unwrap_err().contains("said to be aarch64"));
        assert!(told(Some("linux-aarch64"), "borg", &x86).unwrap_err().contains("said to be aarch64"));
        assert!(told(Some("linux-x86_64"), "borg", &elf(2, 1, 9, 62)).unwrap_err().contains("freebsd"));
        assert!(told(None, "borg-linux-glibc231-x86_64", b"#!/bin/sh\n").unwrap_err().contains("--platform"));
        assert!(told(None, "borg", &elf(2, 1, 0, 999)).unwrap_err().contains("uname -m"));
        assert!(told(Some("linux-x86_64"), "borg.tgz", b"\x1f\x8b\x08").unwrap_err().contains(".tgz"));
    }
}
