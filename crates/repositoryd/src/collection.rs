//! What a proposed archive refers to, checked reference by reference as it comes in.

use crate::jobs::Job;
use crate::viewlist;
use borg::Id;
use model::Failure;
use wire::session::{Reference, Violation};

/// References that may pile up before duplicates are thrown out.
const PILE: usize = 1 << 20;

/// Chunks of an item stream that fit into an archive's metadata, which is one object (Borg 1.x: 34 bytes each).
const ITEMS: usize = borg::MAX_PLAINTEXT / 34;

/// The item stream and the references of one proposal.
pub struct Collection {
    items: Vec<Id>,
    references: Vec<Reference>,
    pile: usize,
    /// The first rule that was broken.
    violation: Option<Violation>,
}

impl Default for Collection {
    fn default() -> Self {
        Collection { items: vec![], references: vec![], pile: PILE, violation: None }
    }
}

impl Collection {
    /// Chunks of the item stream, in order. They belong to what the archive refers to.
    pub fn items(&mut self, job: &Job, ids: &[[u8; 32]]) -> Result<(), Failure> {
        if self.items.len() + ids.len() > ITEMS {
            self.note("item-stream-size", format!("the item stream has more than {ITEMS} chunks"));
            return Ok(());
        }
        for id in ids {
            let id = Id(*id);
            match job.entry(&id)? {
                Some(entry) => {
                    self.items.push(id);
                    self.references.push(entry);
                }
                None => self.note("unknown-chunk", format!("the item stream has chunk {id}, which this client did not send")),
            }
        }
        Ok(())
    }

    /// References of items. Sizes must be the recorded ones; a stored size that the client does not know is filled in.
    pub fn references(&mut self, job: &Job, references: impl Iterator<Item = Reference>) -> Result<(), Failure> {
        for mut reference in references {
            let id = Id(reference.id);
            match job.entry(&id)? {
                None => self.note("unknown-chunk", format!("an item refers to chunk {id}, which this client did not send")),
                Some(entry) if entry.size != reference.size => {
                    self.note("chunk-size", format!("an item says that chunk {id} has {} bytes, it has {}", reference.size, entry.size));
                }
                Some(entry) => {
                    if reference.csize == 0 {
                        reference.csize = entry.csize;
                    }
                    self.references.push(reference);
                }
            }
        }
        if self.references.len() >= self.pile {
            viewlist::normalise(&mut self.references);
            self.pile = PILE.max(self.references.len() * 2);
        }
        Ok(())
    }

    /// Notes a broken rule; the first one counts.
    pub fn note(&mut self, rule: &str, detail: String) {
        if unix::rule_switch::is_off(rule) {
            return;
        }
        self.violation.get_or_insert_with(|| Violation { rule: rule.to_owned(), detail });
    }

    /// What was left of a collection.
    pub fn of(items: Vec<Id>, references: Vec<Reference>, violation: Option<Violation>) -> Collection {
        let pile = PILE.max(references.len() * 2);
        Collection { items, references, pile, violation }
    }

    /// For [`Collection::of`].
    pub fn parts(self) -> (Vec<Id>, Vec<Reference>, Option<Violation>) {
        (self.items, self.references, self.violation)
    }

    /// The item stream, and all references sorted, each id once.
    pub fn finish(mut self) -> Result<(Vec<Id>, Vec<Reference>), Violation> {
        if let Some(violation) = self.violation {
            return Err(violation);
        }
        viewlist::normalise(&mut self.references);
        Ok((self.items, self.references))
    }
}
