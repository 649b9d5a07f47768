//! `borgcube repository show`.

use super::damage::{self, Checked};
use super::repository::find;
use crate::context::Context;
use crate::control::Control;
use crate::error::Result;
use crate::output::cards;
use model::RepositoryName;
use model::space::Space;
use serde::Serialize;
use wire::control::{ArchiveSums, Call, RepositorySpace};

/// A repository with all that is known of it.
#[derive(Debug, Serialize)]
pub struct Shown {
    /// The record, and what checks have found.
    #[serde(flatten)]
    pub checked: Checked,
    /// What it takes up. None: that is not known.
    pub space: Option<Space>,
    /// Sums over its archives.
    pub archives: ArchiveSums,
    /// How many times what it takes up its archives' files are. None: that is not known.
    pub ratio: Option<f64>,
}

/// Shows one.
pub fn run(name: &RepositoryName, context: &Context) -> Result<()> {
    let mut control = context.control()?;
    let found = damage::checked(vec![find(&mut control, name)?], &mut control)?;
    for checked in found {
        let shown = with_space(checked, &mut control)?;
        context.show(&shown, &cards::repository(&shown))?;
    }
    Ok(())
}

fn with_space(checked: Checked, control: &mut Control) -> Result<Shown> {
    let name = checked.repository.name.clone();
    let mut archives = ArchiveSums::default();
    let mut after = None;
    let space = loop {
        let page = control.call::<RepositorySpace>(Call::GetSpace { name: name.clone(), after })?;
        archives = archives.plus(page.archives);
        if page.next.is_none() {
            break page.space;
        }
        after = page.next;
    };
    // What was measured before it moved to another host says nothing of what it is now.
    let space = space.filter(|_| !checked.repository.is_remote());
    let ratio = space.as_ref().filter(|space| space.unique > 0).map(|space| archives.original_size as f64 / space.unique as f64);
    Ok(Shown { checked, space, archives, ratio })
}
