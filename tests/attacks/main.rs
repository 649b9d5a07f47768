//! What a client with a valid token can try, attack by attack as docs/threat-model.md numbers them: each is made by a client that
//! speaks the real protocol with a real session of a running BorgCube, ends with the rule or the cause that is its answer, and leaves
//! repository and database as they were.

mod afterwards;
mod archives;
mod hostile;
mod objects;
mod oracle;
mod protocol;
mod resources;
mod restore;
mod rules;
mod start;
mod world;

use hostile::{Hostile, Said};

/// What breaks one rule, and nothing before it. Tests use it, and `each_rule_is_needed` does it with the rule switched off: then it must
/// end in some other way. Up to the last call everything must work; that call's answer is the result.
pub struct Deed {
    /// The rule's name.
    pub rule: &'static str,
    /// The test that claims it.
    pub test: &'static str,
    /// What the client does when the repository is open.
    pub deed: fn(&mut Hostile) -> Said,
}

impl Deed {
    /// Whether only the client of a restore can do it.
    pub fn restores(&self) -> bool {
        self.rule.starts_with("restore-")
    }
}

/// All of them; every rule has one.
pub fn deeds() -> impl Iterator<Item = &'static Deed> {
    [protocol::DEEDS, resources::DEEDS, objects::DEEDS, archives::DEEDS, restore::DEEDS].into_iter().flatten()
}

/// The deed that belongs to a test and a rule.
#[track_caller]
pub fn deed(rule: &str, test: &str) -> &'static Deed {
    deeds().find(|deed| deed.rule == rule && deed.test == test).unwrap_or_else(|| panic!("{test} has no deed for {rule}"))
}
