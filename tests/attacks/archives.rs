//! A49 to A62: archives, manifest, time.

use crate::Deed;

pub const DEEDS: &[Deed] = &[];
