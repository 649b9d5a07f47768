//! What the doctor says about one thing.

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Was not looked at, and why.
    Skipped,
    /// Worth knowing; nothing has to be done.
    Note,
    /// Works, and may not work tomorrow.
    Warning,
    /// Backups fail, or the installation is not as safe as it promises.
    Problem,
}

impl Verdict {
    /// The word in front of a line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Skipped => "skipped",
            Verdict::Note => "note",
            Verdict::Warning => "WARNING",
            Verdict::Problem => "PROBLEM",
        }
    }
}

/// One sentence about one thing, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check: a word that stays the same, for scripts.
    pub check: &'static str,
    /// How bad it is.
    pub verdict: Verdict,
    /// What was found.
    pub message: String,
    /// What to do, in this order: sentences and commands.
    pub mend: Vec<String>,
    /// Those of them that are commands: root types them as they stand. Words in capitals stand for something that only a person knows.
    pub run: Vec<String>,
}

impl Finding {
    /// A finding that needs no mending.
    pub fn new(check: &'static str, verdict: Verdict, message: impl Into<String>) -> Finding {
        Finding { check, verdict, message: message.into(), mend: vec![], run: vec![] }
    }

    /// As it should be.
    pub fn ok(check: &'static str, message: impl Into<String>) -> Finding {
        Finding::new(check, Verdict::Ok, message)
    }

    /// Not looked at.
    pub fn skipped(check: &'static str, why: impl Into<String>) -> Finding {
        Finding::new(check, Verdict::Skipped, why)
    }

    /// Worth knowing.
    pub fn note(check: &'static str, message: impl Into<String>) -> Finding {
        Finding::new(check, Verdict::Note, message)
    }

    /// May not work tomorrow.
    pub fn warning(check: &'static str, message: impl Into<String>) -> Finding {
        Finding::new(check, Verdict::Warning, message)
    }

    /// Wrong.
    pub fn problem(check: &'static str, message: impl Into<String>) -> Finding {
        Finding::new(check, Verdict::Problem, message)
    }

    /// With one more sentence about what to do.
    #[must_use]
    pub fn mend(mut self, what: impl Into<String>) -> Finding {
        self.mend.push(what.into());
        self
    }

    /// With one more command that mends it, or a part of it.
    #[must_use]
    pub fn run(mut self, command: impl Into<String>) -> Finding {
        let command = command.into();
        self.run.push(command.clone());
        self.mend(command)
    }
}

/// What was found, or one sentence that all is well.
pub fn or_ok(check: &'static str, findings: Vec<Finding>, well: impl Into<String>) -> Vec<Finding> {
    if findings.is_empty() { vec![Finding::ok(check, well)] } else { findings }
}

/// As people read it: one line a finding, what to do below it, commands behind a `$`.
#[must_use]
pub fn text(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or_default();
    let mut text = String::new();
    for Finding { check, verdict, message, mend, run } in findings {
        text.push_str(&format!("{:<8} {check:<width$}  {}\n", verdict.word(), crate::output::shown(message)));
        for line in mend {
            let sign = if run.contains(line) { "$ " } else { "" };
            text.push_str(&format!("{:>indent$}{sign}{}\n", "", crate::output::shown(line), indent = 8 + 1 + width + 2 + 2));
        }
    }
    text
}

/// The last line: what all of it comes to.
#[must_use]
pub fn summary(findings: &[Finding]) -> String {
    let number = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count() as u64;
    let (problems, warnings, skipped) = (number(Verdict::Problem), number(Verdict::Warning), number(Verdict::Skipped));
    let mut parts = vec![];
    for (n, what) in [(problems, "problem"), (warnings, "warning")] {
        if n > 0 {
            parts.push(crate::output::count(n, what));
        }
    }
    let mut text = if parts.is_empty() { "Nothing is wrong".to_owned() } else { parts.join(" and ") };
    if skipped > 0 {
        text.push_str(&format!("; {} not made", crate::output::count(skipped, "check")));
    }
    text.push('.');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_for_three_in_the_morning() {
        let findings = [
            Finding::ok("clock", "synchronised"),
            Finding::problem("sockets", "/run/x is missing").mend("Why?").run("systemctl start borgcubed.socket"),
        ];
        let want = "ok       clock    synchronised\nPROBLEM  sockets  /run/x is missing\n                    Why?\n                    $ systemctl start borgcubed.socket\n";
        assert_eq!(text(&findings), want);
        assert_eq!(summary(&findings), "1 problem.");
        assert_eq!(summary(&findings[..1]), "Nothing is wrong.");
        let skipped = [Finding::skipped("sshd", "no"), Finding::warning("space", "little")];
        assert_eq!(summary(&skipped), "1 warning; 1 check not made.");
    }

    #[test]
    fn nothing_in_a_finding_moves_the_cursor() {
        assert!(!text(&[Finding::ok("x", "a\u{1b}[2J")]).contains('\u{1b}'));
    }
}
