//! Units of systemd: what `systemctl show` says of them.

use super::finding::{Finding, or_ok};
use std::collections::BTreeMap;

const CHECK: &str = "units";

/// The target says which units there are.
const TARGET: &str = include_str!("../../../../../systemd/system/borgcube.target");

/// What [`parse`] needs to be asked for.
pub const PROPERTIES: &str = "Id,LoadState,ActiveState,UnitFileState,Result,NeedDaemonReload";

/// A unit as systemd knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unit {
    /// Its name.
    pub id: String,
    /// `loaded`, `not-found`, `masked`, `bad-setting`, ...
    pub load: String,
    /// `active`, `inactive`, `failed`, ...
    pub active: String,
    /// `enabled`, `disabled`, `static`, ...
    pub file: String,
    /// Why it failed: `exit-code`, `watchdog`, ...
    pub result: String,
    /// Its file was changed since.
    pub reload: bool,
}

/// The units that an installed server has, and whether each has to be active all the time. The others are started by a socket, a timer
/// or a path and must only not have failed.
#[must_use]
pub fn expected(repositories: &[String]) -> Vec<(String, bool)> {
    let wanted = TARGET.lines().filter_map(|line| line.strip_prefix("Wants=")).flat_map(str::split_whitespace);
    let fixed = std::iter::once("borgcube.target").chain(wanted).map(|unit| (unit.to_owned(), !unit.ends_with(".service")));
    let owners = repositories
        .iter()
        .flat_map(|name| [(format!("borgcube-repositoryd@{name}.socket"), true), (format!("borgcube-repositoryd@{name}.service"), false)]);
    fixed.chain(owners).collect()
}

/// The output of `systemctl show --property=...` for several units: blocks with a blank line between them.
#[must_use]
pub fn parse(text: &str) -> Vec<Unit> {
    let block = |block: &str| {
        let values: BTreeMap<&str, &str> = block.lines().filter_map(|line| line.split_once('=')).collect();
        let value = |name: &str| values.get(name).copied().unwrap_or_default().to_owned();
        Unit {
            id: value("Id"),
            load: value("LoadState"),
            active: value("ActiveState"),
            file: value("UnitFileState"),
            result: value("Result"),
            reload: value("NeedDaemonReload") == "yes",
        }
    };
    text.split("\n\n").map(block).filter(|unit| !unit.id.is_empty()).collect()
}

/// Judges them; `failed` are all failed units of BorgCube, schedules included.
#[must_use]
pub fn check(expected: &[(String, bool)], units: &[Unit], failed: &[String]) -> Vec<Finding> {
    let mut findings = vec![];
    for (name, always) in expected {
        match units.iter().find(|unit| unit.id == *name) {
            Some(unit) => findings.extend(judge(unit, *always)),
            None => findings.push(Finding::problem(CHECK, format!("systemd knows nothing of {name}")).run("systemctl daemon-reload")),
        }
    }
    for name in failed.iter().filter(|name| !expected.iter().any(|(known, _)| known == *name)) {
        findings.push(has_failed(name, ""));
    }
    if units.iter().any(|unit| unit.reload) {
        findings.push(Finding::warning(CHECK, "unit files were changed since systemd read them").run("systemctl daemon-reload"));
    }
    or_ok(CHECK, findings, format!("{} as they should be", crate::output::count(expected.len() as u64, "unit")))
}

fn judge(unit: &Unit, always: bool) -> Option<Finding> {
    let Unit { id, load, active, file, result, .. } = unit;
    if load == "masked" {
        return Some(
            Finding::problem(CHECK, format!("{id} is masked: it can never start"))
                .run(format!("systemctl unmask {}{id} && systemctl start {id}", if file == "masked-runtime" { "--runtime " } else { "" })),
        );
    }
    if load != "loaded" {
        let finding = Finding::problem(CHECK, format!("{id} is not installed ({load})"));
        return Some(
            finding.run("systemctl daemon-reload").mend("If it is still so, its file is gone; install the package borgcube-server again"),
        );
    }
    if active == "failed" {
        return Some(has_failed(id, result));
    }
    if always && active != "active" {
        let again = if file == "disabled" { " and would not start at boot" } else { "" };
        let finding = Finding::problem(CHECK, format!("{id} is {active}{again}"));
        return Some(finding.run(format!("systemctl {} {id}", if file == "static" { "start" } else { "enable --now" })));
    }
    if always && file == "disabled" {
        return Some(Finding::warning(CHECK, format!("{id} runs, but will not start at boot")).run(format!("systemctl enable {id}")));
    }
    None
}

fn has_failed(id: &str, result: &str) -> Finding {
    let why = if result.is_empty() || result == "success" { String::new() } else { format!(" ({result})") };
    Finding::problem(CHECK, format!("{id} has failed{why}"))
        .mend(format!("journalctl -u {id} -n 30 tells why; when that is mended:"))
        .run(format!("systemctl reset-failed {id} && systemctl start {id}"))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    fn show(id: &str, load: &str, active: &str, file: &str, result: &str) -> String {
        format!("Id={id}\nLoadState={load}\nActiveState={active}\nUnitFileState={file}\nResult={result}\nNeedDaemonReload=no\n")
    }

    #[test]
    fn the_target_says_which_units_there_are() {
        let names: Vec<_> = expected(&[]).into_iter().filter(|(_, always)| *always).map(|(name, _)| name).collect();
        for unit in ["borgcube.target", "borgcubed.socket", "borgcube-session.socket", "borgcube-timers.path"] {
            assert!(names.iter().any(|name| name == unit), "{unit}: {names:?}");
        }
    }

    fn healthy() -> String {
        let blocks = expected(&["main".into()]).into_iter().map(|(name, always)| {
            let active = if always { "active" } else { "inactive" };
            show(&name, "loaded", active, "enabled", "success")
        });
        blocks.collect::<Vec<_>>().join("\n")
    }

    fn all(text: &str, failed: &[&str]) -> Vec<Finding> {
        let failed: Vec<String> = failed.iter().map(|name| (*name).to_owned()).collect();
        check(&expected(&["main".into()]), &parse(text), &failed)
    }

    #[test]
    fn a_sound_installation() {
        let found = all(&healthy(), &[]);
        assert_eq!((found.len(), found[0].verdict), (1, Verdict::Ok), "{found:?}");
    }

    #[test]
    fn each_kind_of_broken_unit_has_its_sentence() {
        let text = healthy();
        let with = |id: &str, load: &str, active: &str, file: &str, result: &str| {
            let always = expected(&["main".into()]).iter().any(|(name, always)| name == id && *always);
            let before = show(id, "loaded", if always { "active" } else { "inactive" }, "enabled", "success");
            assert!(text.contains(&before));
            all(&text.replace(&before, &show(id, load, active, file, result)), &[])
        };
        let one = |found: Vec<Finding>| {
            assert_eq!(found.len(), 1, "{found:?}");
            (found[0].verdict, found[0].message.clone(), found[0].mend[0].clone())
        };
        let (verdict, said, mend) = one(with("borgcubed.socket", "loaded", "inactive", "disabled", "success"));
        assert_eq!((verdict, said.as_str()), (Verdict::Problem, "borgcubed.socket is inactive and would not start at boot"));
        assert_eq!(mend, "systemctl enable --now borgcubed.socket");
        let (_, said, _) = one(with("borgcubed.service", "loaded", "failed", "enabled", "watchdog"));
        assert_eq!(said, "borgcubed.service has failed (watchdog)");
        let (_, said, _) = one(with("borgcube.target", "masked", "inactive", "masked", ""));
        assert!(said.contains("masked"));
        let (_, said, mend) = one(with("borgcube-timers.path", "not-found", "inactive", "", ""));
        assert!(said.contains("not-found") && mend == "systemctl daemon-reload", "{said} {mend}");
        let (verdict, ..) = one(with("borgcube.target", "loaded", "active", "disabled", "success"));
        assert_eq!(verdict, Verdict::Warning);
    }

    #[test]
    fn failed_schedules_and_unknown_units_are_told() {
        let found = all(&healthy(), &["borgcube-schedule@nightly.service"]);
        assert!(found[0].message.contains("borgcube-schedule@nightly.service has failed"));
        let found = all("garbage", &[]);
        assert_eq!(found.len(), expected(&["main".into()]).len());
        assert!(parse("").is_empty());
    }

    #[test]
    fn a_changed_file_is_a_warning() {
        let found = all(&healthy().replacen("NeedDaemonReload=no", "NeedDaemonReload=yes", 1), &[]);
        assert_eq!((found[0].verdict, found[0].mend[0].as_str()), (Verdict::Warning, "systemctl daemon-reload"));
    }
}
