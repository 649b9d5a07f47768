//! Triggers: unguessable ids that may start a schedule or a config.

use crate::names::{ConfigName, ScheduleName};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The id of a trigger: 128 random bits, 32 hex digits. Who knows it may use the trigger, so it is shown to operators only and logged short.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TriggerId(String);

/// A text that is no trigger's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a trigger's id has 32 hex digits; `borgcube trigger list` shows them")]
pub struct TriggerIdError;

impl TriggerId {
    /// The id with these random bits.
    #[must_use]
    pub fn from_random(bits: [u8; 16]) -> TriggerId {
        TriggerId(bits.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The whole id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its first eight digits: enough to tell triggers apart, too little to use one. For logs and notes.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..8).unwrap_or_default()
    }
}

impl FromStr for TriggerId {
    type Err = TriggerIdError;
    fn from_str(s: &str) -> Result<Self, TriggerIdError> {
        let right = s.len() == 32 && s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if right { Ok(TriggerId(s.to_owned())) } else { Err(TriggerIdError) }
    }
}

impl TryFrom<String> for TriggerId {
    type Error = TriggerIdError;
    fn try_from(s: String) -> Result<Self, TriggerIdError> {
        s.parse()
    }
}

impl From<TriggerId> for String {
    fn from(id: TriggerId) -> String {
        id.0
    }
}

impl fmt::Display for TriggerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Short, so that no log of errors tells the id.
impl fmt::Debug for TriggerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TriggerId({}..)", self.short())
    }
}

/// From where a trigger may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccessContext {
    /// The command line on this server.
    LocalCli,
    /// The status daemon, by anybody who knows the id.
    AnonymousWeb,
}

impl AccessContext {
    /// All of them.
    pub const ALL: [AccessContext; 2] = [AccessContext::LocalCli, AccessContext::AnonymousWeb];

    /// The word in records, JSON and the manual.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            AccessContext::LocalCli => "local-cli",
            AccessContext::AnonymousWeb => "anonymous-web",
        }
    }
}

impl fmt::Display for AccessContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for AccessContext {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|c| c.as_str() == s)
            .ok_or_else(|| format!("{s:?} is no access context; choose local-cli or anonymous-web"))
    }
}

/// What a trigger starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum TriggerTarget {
    /// All actions of a schedule.
    Schedule {
        /// The schedule.
        schedule: ScheduleName,
    },
    /// One backup config.
    Config {
        /// The config.
        config: ConfigName,
    },
}

impl fmt::Display for TriggerTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TriggerTarget::Schedule { schedule } => write!(f, "schedule {schedule}"),
            TriggerTarget::Config { config } => write!(f, "config {config}"),
        }
    }
}

/// An id that may start something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trigger {
    /// The id.
    pub id: TriggerId,
    /// From where it may be used.
    pub access: AccessContext,
    /// Whether it may be used at all.
    pub enabled: bool,
    /// Free text: who got it, what for.
    #[serde(default)]
    pub comment: String,
    /// What it starts.
    pub target: TriggerTarget,
    /// When it was added.
    pub created: Timestamp,
    /// When it was used last, with success.
    #[serde(default)]
    pub last_used: Option<Timestamp>,
}

/// Why a trigger was refused. To somebody who is anonymous all of them are the same answer; the log has the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TriggerRefusal {
    /// No trigger has that id.
    #[error("there is no such trigger")]
    Unknown,
    /// It is disabled.
    #[error("the trigger is disabled")]
    Disabled,
    /// It may not be used from there.
    #[error("the trigger is for {allowed}, not for {used}")]
    Context {
        /// From where it may be used.
        allowed: AccessContext,
        /// From where it was used.
        used: AccessContext,
    },
    /// Its schedule is disabled.
    #[error("the trigger's schedule is disabled")]
    ScheduleDisabled,
    /// Its schedule or config does not exist (any more).
    #[error("what the trigger starts does not exist any more")]
    TargetMissing,
    /// It is used more often than triggers are meant for.
    #[error("the trigger is used too often")]
    TooOften,
}

impl Trigger {
    /// Says what is wrong with a trigger before it is stored.
    pub fn check(&self) -> Result<(), String> {
        if self.comment.len() > 1000 || self.comment.chars().any(char::is_control) {
            return Err("a comment has at most 1000 characters, and no line breaks".into());
        }
        Ok(())
    }

    /// Whether it may be used from `context`.
    pub fn permit(&self, context: AccessContext) -> Result<(), TriggerRefusal> {
        if !self.enabled {
            return Err(TriggerRefusal::Disabled);
        }
        if self.access != context {
            return Err(TriggerRefusal::Context { allowed: self.access, used: context });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trigger(access: AccessContext) -> Trigger {
        Trigger {
            id: TriggerId::from_random([0xa5; 16]),
            access,
            enabled: true,
            comment: String::new(),
            target: TriggerTarget::Config { config: "web1/etc".parse().unwrap() },
            created: Timestamp(0),
            last_used: None,
        }
    }

    #[test]
    fn ids_are_128_bits_and_kept_out_of_logs() {
        let id = TriggerId::from_random([0xa5; 16]);
        assert_eq!(id.to_string(), "a5".repeat(16));
        assert_eq!(id.as_str().parse::<TriggerId>().unwrap(), id);
        assert!(!format!("{id:?}").contains("a5a5a5a5a5"));
        for bad in ["", "a5", &"A5".repeat(16), &"g5".repeat(16), &"a5".repeat(17)] {
            assert!(bad.parse::<TriggerId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn each_context_has_its_triggers() {
        use AccessContext::{AnonymousWeb, LocalCli};
        assert_eq!(trigger(LocalCli).permit(LocalCli), Ok(()));
        let refusal = trigger(LocalCli).permit(AnonymousWeb).unwrap_err();
        assert_eq!(refusal.to_string(), "the trigger is for local-cli, not for anonymous-web");
        assert!(trigger(AnonymousWeb).permit(LocalCli).is_err());
        let off = Trigger { enabled: false, ..trigger(LocalCli) };
        assert_eq!(off.permit(LocalCli), Err(TriggerRefusal::Disabled));
        assert_eq!(off.permit(AnonymousWeb), Err(TriggerRefusal::Disabled));
    }
}
