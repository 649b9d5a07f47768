//! Pages of long lists out of several indexes at once, without reading what is not on the page.

use crate::error::Result;
use crate::key::Key;
use crate::txn::Read;

/// Numbers that an index lists under any of some fronts.
pub(crate) struct Union {
    /// The index (or the table itself, with an empty front).
    pub(crate) index: &'static str,
    /// The fronts; a number follows each.
    pub(crate) fronts: Vec<Vec<u8>>,
}

impl Union {
    /// The largest number at or below `limit`.
    fn at_or_below(&self, read: Read<'_>, limit: u64) -> Result<Option<u64>> {
        let mut best = None;
        for front in &self.fronts {
            let key = [&front[..], &limit.encode()?].concat();
            let Some((found, _)) = read.at_or_before(self.index, &key)? else { continue };
            if let Some(number) = found.strip_prefix(&front[..]) {
                best = best.max(Some(u64::decode(number)?));
            }
        }
        Ok(best)
    }
}

/// The largest number at or below `limit` that is in every union. Each disagreement skips to the next candidate of the one that
/// is behind, so the effort follows the rarest union, not the longest list.
pub(crate) fn intersect_down(read: Read<'_>, unions: &[Union], limit: u64) -> Result<Option<u64>> {
    let mut candidate = limit;
    let mut agreed = 0;
    for union in unions.iter().cycle() {
        match union.at_or_below(read, candidate)? {
            None => return Ok(None),
            Some(number) if number == candidate && agreed > 0 => agreed += 1,
            Some(number) => (candidate, agreed) = (number, 1),
        }
        if agreed == unions.len() {
            return Ok(Some(candidate));
        }
    }
    Ok(None)
}
