//! Retention: which archives a policy keeps, by which rule, and when it must not decide at all.
//!
//! The rules are those of `borg prune` 1.2 and 1.4, and for honest archives so is the result. What is different: the archives are those of
//! one backup config in one repository, their times are the server's, and where something looks wrong (a burst of archives, a clock that
//! jumped, an archive that nobody has looked at) the answer is [`Stop`] instead of a plan.
//!
//! ```
//! use model::retention::{Count, Period};
//! assert_eq!("7".parse::<Count>().unwrap(), Count::Number(7));
//! assert_eq!(Period::Quarterly13Weekly.as_str(), "13weekly");
//! ```

mod doubt;
mod period;
mod plan;
mod policy;
mod scope;

pub use doubt::{Jump, Reason, Situation, Stop, TOLERANCE, jump};
pub use period::{Count, Interval, Period, Zone};
pub use plan::{Candidate, Fate, Rule, Standing, Verdict, plan};
pub use policy::{Confirmation, Policy};
pub use scope::{Ambiguous, Policies, Scope};

#[cfg(test)]
mod tests;
