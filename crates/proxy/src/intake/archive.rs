//! Archive metadata that a client puts.

use crate::rules::Rule;
use crate::stop::{Stop, quoted, shown};
use borg::archive::{Archive, ChunkerParams};

/// Most chunks of an item stream: what fits into one metadata object (Borg 1.x: 20 MiB, 35 bytes each).
pub const MAX_ITEM_CHUNKS: usize = 600_000;

/// What is kept of archive metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The parsed metadata.
    pub archive: Archive,
    /// Algorithm and numbers.
    pub chunker_params: (String, Vec<u32>),
    /// Whether the client wrote the algorithm's name.
    pub chunker_named: bool,
    /// The client's working directory.
    pub cwd: Option<String>,
    /// What the client says about itself, escaped.
    pub claims: Vec<String>,
}

/// Reads metadata (its signature was checked when it was put) that the manifest names `name`.
pub fn accept(plaintext: &[u8], name: &[u8]) -> Result<Accepted, Stop> {
    let archive = Archive::parse_strict(plaintext).map_err(|error| Rule::ArchiveFormat.broken(error.to_string()))?;
    if archive.name != name {
        let detail = format!("the manifest says {:?}, the archive {:?}", quoted(name), quoted(&archive.name));
        Rule::ArchiveName.breach(detail)?;
    }
    if archive.recreate_cmdline.is_some() {
        Rule::ArchiveFormat.breach("the archive is marked as recreated")?;
    }
    if archive.items.len() > MAX_ITEM_CHUNKS {
        Rule::ArchiveFormat.breach(format!("an item stream of {} chunks", archive.items.len()))?;
    }
    let (chunker_params, chunker_named) = match &archive.chunker_params {
        Some(params) => (chunker(params)?, params.algorithm.is_some()),
        None => return Err(Rule::ArchiveFormat.broken("the archive does not say how it was chunked")),
    };
    let text = |bytes: &Vec<u8>| shown(&quoted(bytes));
    let cwd = archive.cwd.as_ref().map(text);
    let claims = claims(&archive);
    Ok(Accepted { archive, chunker_params, chunker_named, cwd, claims })
}

/// Borg 1.x: `buzhash,MIN_EXP,MAX_EXP,MASK_BITS,WINDOW` (1.1 leaves the word out) or, from 1.2 on, `fixed,BLOCK[,HEADER]`.
fn chunker(params: &ChunkerParams) -> Result<(String, Vec<u32>), Stop> {
    let bad = || Rule::ArchiveChunker.broken(format!("{:?} {:?}", params.algorithm.as_deref().map(quoted), params.numbers));
    let numbers: Vec<u32> = params.numbers.iter().map(|number| u32::try_from(*number)).collect::<Result<_, _>>().map_err(|_| bad())?;
    let algorithm = match (params.algorithm.as_deref(), numbers.as_slice()) {
        (None | Some(b"buzhash"), [min, max, mask, window])
            if (6..=23).contains(max) && min <= mask && mask <= max && *min >= 1 && (1..=1 << 16).contains(window) =>
        {
            "buzhash"
        }
        (Some(b"fixed"), [block]) if is_block(*block) => "fixed",
        (Some(b"fixed"), [block, header]) if is_block(*block) && *header <= borg::MAX_PLAINTEXT as u32 => "fixed",
        _ => return Err(bad()),
    };
    Ok((algorithm.to_owned(), numbers))
}

fn is_block(size: u32) -> bool {
    (64..=borg::MAX_PLAINTEXT as u32).contains(&size)
}

/// What the server replaces by its own knowledge, worth a note in the job's log.
fn claims(archive: &Archive) -> Vec<String> {
    let mut claims = Vec::new();
    let mut claim = |what: &str, value: Option<&[u8]>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            claims.push(format!("{what}={}", shown(&quoted(value))));
        }
    };
    claim("hostname", archive.hostname.as_deref());
    claim("username", archive.username.as_deref());
    claim("comment", archive.comment.as_deref());
    claim("time", Some(archive.time.as_bytes()));
    claim("time_end", archive.time_end.as_deref().map(str::as_bytes));
    claim("cmdline", Some(&archive.cmdline.join(&b' ')));
    let mut number = |what: &str, value: Option<u64>| {
        if let Some(value) = value {
            claims.push(format!("{what}={value}"));
        }
    };
    number("size", archive.size);
    number("csize", archive.csize);
    number("nfiles", archive.nfiles);
    claims
}

#[cfg(test)]
mod tests {
    use super::*;
    use borg::{Id, Key};

    fn archive() -> Archive {
        Archive {
            name: b"job-1".to_vec(),
            comment: Some(Vec::new()),
            hostname: Some(b"other\nhost".to_vec()),
            username: Some(b"root".to_vec()),
            time: "2026-01-02T03:04:05.000006".into(),
            time_end: Some("2026-01-02T03:04:06.000006".into()),
            cmdline: vec![b"borg".to_vec(), b"create".to_vec()],
            items: vec![Id([1; 32])],
            chunker_params: Some(ChunkerParams { algorithm: Some(b"buzhash".to_vec()), numbers: vec![19, 23, 21, 4095] }),
            size: Some(1),
            ..Archive::default()
        }
    }

    fn rule(archive: &Archive) -> String {
        let packed = archive.pack(&Key::none(), [1; 64]);
        match accept(&packed, b"job-1") {
            Err(Stop::Violation(v)) => v.rule,
            Ok(_) => "accepted".into(),
            other => panic!("{other:?}"),
        }
    }

    fn with(change: impl FnOnce(&mut Archive)) -> String {
        let mut archive = archive();
        change(&mut archive);
        rule(&archive)
    }

    #[test]
    fn what_stock_borgs_write_is_accepted() {
        assert_eq!(rule(&archive()), "accepted");
        let unnamed = ChunkerParams { algorithm: None, numbers: vec![19, 23, 21, 4095] };
        assert_eq!(with(|a| a.chunker_params = Some(unnamed)), "accepted");
        let fixed = ChunkerParams { algorithm: Some(b"fixed".to_vec()), numbers: vec![4 << 20, 0] };
        assert_eq!(with(|a| a.chunker_params = Some(fixed)), "accepted");
        assert_eq!(with(|a| a.cwd = Some(b"/root".to_vec())), "accepted");
        assert_eq!(with(|a| a.items.clear()), "accepted");
        let accepted = accept(&archive().pack(&Key::none(), [1; 64]), b"job-1").unwrap();
        assert_eq!(accepted.chunker_params, ("buzhash".to_owned(), vec![19, 23, 21, 4095]));
        assert!(accepted.claims.contains(&"hostname=other\\nhost".to_owned()), "{:?}", accepted.claims);
        assert!(accepted.claims.contains(&"cmdline=borg create".to_owned()));
    }

    #[test]
    fn a56_a59_what_they_do_not_write() {
        assert_eq!(with(|a| a.name = b"job-2".to_vec()), "archive-name");
        assert_eq!(with(|a| a.recreate_cmdline = Some(vec![])), "archive-format");
        assert_eq!(with(|a| drop(a.other.insert(b"item_ptrs".to_vec(), vec![0x90]))), "archive-format");
        assert_eq!(with(|a| a.time = "9999".into()), "archive-format");
        assert_eq!(with(|a| a.chunker_params = None), "archive-format");
        assert_eq!(with(|a| a.items = vec![Id([1; 32]); MAX_ITEM_CHUNKS + 1]), "archive-format");
        for (algorithm, numbers) in [
            (Some("buzhash"), vec![19, 24, 21, 4095]),
            (Some("buzhash"), vec![22, 23, 21, 4095]),
            (Some("buzhash"), vec![19, 20, 21, 4095]),
            (Some("buzhash"), vec![19, 23, 21, 0]),
            (Some("buzhash"), vec![0, 23, 21, 4095]),
            (Some("buzhash"), vec![19, 23, 21, u64::MAX]),
            (Some("buzhash"), vec![19, 23, 21]),
            (Some("fixed"), vec![0]),
            (Some("fixed"), vec![1 << 30]),
            (Some("fixed"), vec![4096, 1 << 30]),
            (None, vec![4096]),
            (Some("rabin"), vec![19, 23, 21, 4095]),
        ] {
            let params = ChunkerParams { algorithm: algorithm.map(|a| a.as_bytes().to_vec()), numbers };
            assert_eq!(with(|a| a.chunker_params = Some(params.clone())), "archive-chunker", "{params:?}");
        }
    }
}
