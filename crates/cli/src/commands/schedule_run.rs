//! What a run by hand or by a trigger has led to, for people.

use crate::context::Context;
use crate::error::Result;
use crate::output::{plans, shown};
use wire::control::{Call, Ran};

/// Calls a method that runs something, and says what came of it.
pub fn report(call: Call, context: &Context) -> Result<()> {
    let ran: Ran = context.control()?.call(call)?;
    for warning in &ran.warnings {
        context.note(&format!("Warning: {}", shown(warning)));
    }
    context.done(&ran, plans::ran(&ran).trim_end())
}
