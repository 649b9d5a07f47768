//! borg
