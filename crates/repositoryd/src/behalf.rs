//! Who may read archives through the status daemon.
use crate::owner::Owner;
use model::Failure;
use model::web_user::Credential;

/// Their name.
pub fn admit(_owner: &Owner, _credential: &Credential) -> Result<String, Failure> {
    Err(crate::failures::internal("nobody yet"))
}
