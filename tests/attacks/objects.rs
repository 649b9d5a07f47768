//! A33 to A48: objects and what may be known of those of others.

use crate::Deed;

pub const DEEDS: &[Deed] = &[];
