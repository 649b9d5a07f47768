//! Lets a test switch one rule off, to see that the rule is what stops the attack. Does not exist in a release.

/// Names the rule, or, as `@FILE`, a file that does: then it is read anew at each question.
#[cfg(debug_assertions)]
const VARIABLE: &str = "BORGCUBE_TEST_RULE_OFF";

/// Whether a test has switched this rule off.
#[cfg(debug_assertions)]
#[must_use]
pub fn is_off(rule: &str) -> bool {
    let Ok(wanted) = std::env::var(VARIABLE) else { return false };
    let off = match wanted.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file).is_ok_and(|text| text.trim() == rule),
        None => wanted == rule,
    };
    if off {
        log::warn!("rule {rule} is switched off for a test");
    }
    off
}

/// No rule can be switched off.
#[cfg(not(debug_assertions))]
#[must_use]
pub const fn is_off(_rule: &str) -> bool {
    false
}
