//! What BorgCube's tests stand on: the real borgs, source trees with everything a file system can hold, a real
//! sshd, and a whole BorgCube in a temporary directory.
//!
//! It is deliberately not: a fake of anything. What a test needs and this machine lacks is reported, by
//! [`borgs::not_run`] or by a panic with a sentence, never replaced by something simpler.
//!
//! Who may use it: tests (as a dev-dependency, and the package `tests`). Programs must not link it: its helpers
//! panic where a test should fail.

pub mod borgs;
pub mod manager;
pub mod process;
pub mod retry;
pub mod sshd;
pub mod system;
pub mod tree;
pub mod world;

pub use borgs::Borg;
pub use manager::Manager;
pub use retry::retry_until;
pub use sshd::Sshd;
pub use system::TestSystem;
pub use world::BorgWorld;
