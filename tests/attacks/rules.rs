//! Every rule has an attack that it, and nothing else, answers.

use crate::hostile::{Hostile, Said};
use crate::world::World;
use crate::{Deed, deeds};
use proxy::rules::Rule;
use std::collections::BTreeSet;

/// The owner's rules. Three of them no client can break: `token` is what makes a session; for `archive-complete` a session would have to
/// pass over its own `method-order`; and metadata of more item chunks than `item-stream-size` allows is larger than `object-size`. The
/// owner's own tests are the session that does so (`crates/repositoryd/tests/faults.rs`), and switch them off.
const OWNERS: [&str; 2] = ["unknown-chunk", "chunk-size"];

/// With its rule switched off, an attack must end in some other way. What way, the table that is printed says: where it is `done`, only
/// that rule stands between the attack and the repository.
#[test]
fn each_rule_is_needed() {
    let world = World::new();
    let (mut table, mut wrong) = (String::new(), Vec::new());
    let rules: BTreeSet<&str> = Rule::all().map(Rule::name).chain(OWNERS).collect();
    for rule in &rules {
        let of_rule: Vec<&Deed> = deeds().filter(|deed| deed.rule == *rule).collect();
        if of_rule.is_empty() {
            wrong.push(format!("{rule}: no attack claims it"));
        }
        for deed in of_rule {
            let mut told = String::new();
            let mut attempt = |off: &str| {
                world.switch_off(off);
                let act = |client: &mut Hostile| {
                    let said = (deed.deed)(client);
                    told = rule_told(&said);
                    // What went through so far may as well become an archive.
                    if off == *rule && matches!(said, Said::Value(_)) {
                        client.commit_if_heard();
                    }
                };
                let verdict = if deed.restores() { world.attempt_restore(act) } else { world.attempt(act) };
                (verdict, std::mem::take(&mut told))
            };
            let ((with, told), (without, told_without)) = (attempt(""), attempt(rule));
            // Before a token was shown there is no job that could be told.
            let is_named = matches!(*rule, "open-arguments" | "token-not-own") || (with.word == "policy-violation" && with.name == *rule);
            if !is_named || !["", rule].contains(&told.as_str()) {
                wrong.push(format!("{rule}: {} was told {told:?} and led to {with:?}", deed.test));
            }
            if without.name == *rule || told_without == *rule {
                wrong.push(format!("{rule}: switched off, {} was still told {told_without:?} and led to {without:?}", deed.test));
            }
            table.push_str(&format!("{rule:20} {:40} {} {} {}\n", deed.test, without.state, without.word, without.name));
        }
    }
    println!("with the rule switched off:\n{table}");
    for deed in deeds().filter(|deed| !rules.contains(deed.rule)) {
        wrong.push(format!("{} claims {}, which is no rule", deed.test, deed.rule));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The rule that an answer names, if any.
fn rule_told(said: &Said) -> String {
    let Said::Exception(exception) = said else { return String::new() };
    let rule = exception.short.first().and_then(|line| line.strip_prefix("BorgCube refused this "));
    rule.and_then(|rest| rest.split(": ").nth(1)).unwrap_or_default().to_owned()
}

/// The switch is in one place, which a release does not have.
#[test]
fn no_release_has_the_switch() {
    let variable = ["BORGCUBE_TEST", "_RULE_OFF"].concat();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let (mut stack, mut found) = (vec![root.join("crates")], Vec::new());
    while let Some(directory) = stack.pop() {
        for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                stack.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") && std::fs::read_to_string(&path).unwrap().contains(&variable) {
                found.push(path);
            }
        }
    }
    let [only] = found.as_slice() else { panic!("the switch is in {found:?}") };
    let text = std::fs::read_to_string(only).unwrap();
    assert!(text.contains(&format!("#[cfg(debug_assertions)]\nconst VARIABLE: &str = \"{variable}\";")), "not only in debug builds");
    assert!(text.contains("#[cfg(not(debug_assertions))]\n#[must_use]\npub const fn is_off(_rule: &str) -> bool {\n    false\n}"));
    // Where releases were built after the last change of the switch, the programs themselves are asked.
    for program in ["borgcube-session", "borgcube-repositoryd"] {
        let path = root.join("target/release").join(program);
        let age = |path: &std::path::Path| path.metadata().and_then(|m| m.modified()).ok();
        if age(&path) > age(only) {
            let bytes = std::fs::read(&path).unwrap();
            assert!(!bytes.windows(variable.len()).any(|w| w == variable.as_bytes()), "{program} has the switch");
        }
    }
}
