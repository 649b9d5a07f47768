//! Job logs: one JSON object a line. The writer keeps a bound; readers follow by reading on, so no reader needs a buffer of its own.

use model::Timestamp;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use wire::worker::LogLine;

/// Bytes of a log that only the daemon itself writes on.
const CAP: u64 = 64 * 1024 * 1024;
/// Lines of a job log in one reply.
pub const CHUNK_LINES: usize = 1000;
/// About so many bytes of a job log in one reply.
pub const CHUNK_BYTES: usize = 1024 * 1024;
/// Longest text of one line, in bytes.
const LONGEST: usize = 64 * 1024;

/// A line of the daemon's own.
pub fn line(level: &str, message: impl Into<String>) -> LogLine {
    LogLine { time: Timestamp::now(), level: level.into(), source: "borgcube".into(), message: message.into() }
}

/// Appends to a job's log.
#[derive(Debug)]
pub struct JobLog {
    file: File,
    size: u64,
    cap: u64,
    truncated: bool,
    /// Lines that could not be written because the disk was full, since the last that could.
    lost: u64,
}

impl JobLog {
    /// Opens the log for appending, mode 0600.
    pub fn open(path: &Path) -> io::Result<JobLog> {
        JobLog::with_cap(path, CAP)
    }

    /// The same for a log that may have so many bytes.
    pub fn with_cap(path: &Path, cap: u64) -> io::Result<JobLog> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        let size = file.seek(SeekFrom::End(0))?;
        let mut log = JobLog { file, size, cap, truncated: size >= cap, lost: 0 };
        // Somebody was killed in the middle of a line.
        let mut last = [b'\n'];
        if size > 0 {
            log.file.read_exact_at(&mut last, size - 1)?;
        }
        if last != [b'\n'] {
            log.append(b"\n")?;
        }
        Ok(log)
    }

    /// Appends lines of a worker, as far as the bound allows.
    pub fn write(&mut self, lines: Vec<LogLine>) -> io::Result<()> {
        for mut line in lines {
            if self.truncated {
                return Ok(());
            }
            for (text, limit) in [(&mut line.level, 32), (&mut line.source, 32), (&mut line.message, LONGEST)] {
                cut(text, limit);
            }
            let bytes = encode(&line)?;
            if self.size + bytes.len() as u64 > self.cap {
                self.truncated = true;
                let message = format!("the log has reached its limit of {} bytes; what follows is dropped", self.cap);
                return self.append(&encode(&self::line("warning", message))?);
            }
            self.append(&bytes)?;
        }
        Ok(())
    }

    /// Appends a line of the daemon's own, whatever the size.
    pub fn note(&mut self, line: &LogLine) -> io::Result<()> {
        self.append(&encode(line)?)
    }

    /// A line is there as a whole or not at all.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.lost > 0 {
            let notice = encode(&line("warning", format!("{} lines could not be written: no space", self.lost)))?;
            self.lost += 1;
            self.append_bytes(&notice)?;
            self.lost = 0;
        }
        self.append_bytes(bytes).inspect_err(|_| self.lost += 1)
    }

    fn append_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err(e) = self.file.write_all(bytes) {
            self.file.set_len(self.size)?;
            return Err(e);
        }
        self.size += bytes.len() as u64;
        Ok(())
    }
}

fn encode(line: &LogLine) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Shortens `text` to at most `limit` bytes.
pub fn cut(text: &mut String, limit: usize) {
    if text.len() > limit {
        let end = (0..=limit).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
}

/// Reads a job's log from the beginning, and on while it grows.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    file: Option<File>,
    /// What is read and not given out yet.
    buffer: Vec<u8>,
}

impl LogReader {
    /// Of a log that need not exist yet.
    pub fn new(path: PathBuf) -> LogReader {
        LogReader { path, file: None, buffer: vec![] }
    }

    /// The next lines, at most [`CHUNK_LINES`] and about [`CHUNK_BYTES`]. Empty: there is nothing more at present.
    pub fn next_chunk(&mut self) -> io::Result<Vec<LogLine>> {
        self.read()?;
        let mut lines = vec![];
        let mut from = 0;
        while lines.len() < CHUNK_LINES {
            let Some(length) = self.buffer[from..].iter().position(|b| *b == b'\n') else { break };
            let bytes = &self.buffer[from..from + length];
            if !bytes.is_empty() {
                lines.push(decode(bytes));
            }
            from += length + 1;
        }
        if lines.is_empty() && from == 0 && self.buffer.len() >= CHUNK_BYTES {
            // No log of ours has such a line; whoever damaged it must not stop the reader.
            lines.push(decode(&self.buffer));
            from = self.buffer.len();
        }
        self.buffer.drain(..from);
        Ok(lines)
    }

    fn read(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            match File::open(&self.path) {
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
                file => self.file = Some(file?),
            }
        }
        // A line is shorter than a chunk, so that there is a whole one in a full buffer.
        if let Some(file) = &mut self.file
            && self.buffer.len() < CHUNK_BYTES
        {
            let room = (CHUNK_BYTES - self.buffer.len()) as u64;
            file.take(room).read_to_end(&mut self.buffer)?;
        }
        Ok(())
    }
}

/// A line that is damaged is shown as it is.
fn decode(bytes: &[u8]) -> LogLine {
    serde_json::from_slice(bytes).unwrap_or_else(|_| {
        let text = unix::logging::escape_bytes(&bytes[..bytes.len().min(1000)]);
        LogLine { time: Timestamp(0), level: "warning".into(), source: "borgcube".into(), message: format!("a damaged line: {text}") }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(number: usize, text: &str) -> Vec<LogLine> {
        (0..number).map(|n| line("info", format!("{n} {text}"))).collect()
    }

    fn directory() -> PathBuf {
        let path = std::env::temp_dir().join(format!("bc-joblog-{}", unix::random::hex(8).unwrap()));
        std::fs::create_dir(&path).unwrap();
        path
    }

    #[test]
    fn what_is_written_is_read_and_followed() {
        let dir = directory();
        let path = dir.join("1.jsonl");
        let mut reader = LogReader::new(path.clone());
        assert_eq!(reader.next_chunk().unwrap(), []);
        let mut log = JobLog::open(&path).unwrap();
        log.write(lines(2500, "x\ny")).unwrap();
        let sizes: Vec<_> = (0..4).map(|_| reader.next_chunk().unwrap().len()).collect();
        assert_eq!(sizes, [1000, 1000, 500, 0]);
        log.note(&line("error", "the end")).unwrap();
        let rest = reader.next_chunk().unwrap();
        assert_eq!(rest.len(), 1);
        assert_eq!((rest[0].level.as_str(), rest[0].message.as_str()), ("error", "the end"));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn chunks_are_bounded_by_bytes_and_lose_nothing() {
        let dir = directory();
        let path = dir.join("1.jsonl");
        let mut log = JobLog::open(&path).unwrap();
        log.write(lines(100, &"\u{1}".repeat(2 * LONGEST))).unwrap();
        let mut reader = LogReader::new(path);
        let mut count = 0;
        loop {
            let chunk = reader.next_chunk().unwrap();
            if chunk.is_empty() {
                break;
            }
            assert!(serde_json::to_vec(&chunk).unwrap().len() <= CHUNK_BYTES + 1024);
            for line in &chunk {
                assert!(line.message.starts_with(&format!("{count} ")));
                assert!(line.message.len() <= LONGEST + 3);
                count += 1;
            }
        }
        assert_eq!(count, 100);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_flood_ends_with_a_line_that_says_so() {
        let dir = directory();
        let path = dir.join("1.jsonl");
        let cap = 1024 * 1024;
        let mut log = JobLog::with_cap(&path, cap).unwrap();
        for _ in 0..30 {
            log.write(lines(100, &"x".repeat(1000))).unwrap();
        }
        log.note(&line("error", "failed")).unwrap();
        let size = std::fs::metadata(&path).unwrap().len();
        assert!(size > cap - 2000 && size < cap + 1000, "{size}");
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.matches("reached its limit").count(), 1);
        assert!(text.trim_end().ends_with("\"message\":\"failed\"}"));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn half_a_line_is_closed_and_shown() {
        let dir = directory();
        let path = dir.join("1.jsonl");
        std::fs::write(&path, b"{\"time\":1,\"lev").unwrap();
        let mut log = JobLog::open(&path).unwrap();
        log.note(&line("info", "after")).unwrap();
        let read = LogReader::new(path).next_chunk().unwrap();
        assert_eq!(read.len(), 2);
        assert!(read[0].message.contains("damaged"));
        assert_eq!(read[1].message, "after");
        std::fs::remove_dir_all(dir).unwrap();
    }
}
