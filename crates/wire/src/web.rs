//! Control calls about users of the status pages.

use model::WebUser;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Users.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WebUsers {
    /// By name.
    pub users: Vec<WebUser>,
}

/// A user, and the token that was just made for it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct IssuedUser {
    /// The record.
    pub user: WebUser,
    /// The token, 64 hex digits: this answer is the only place where it is. None: the user signs in another way.
    #[serde(default)]
    pub token: Option<String>,
}

/// Without the token, so that no log has it.
impl fmt::Debug for IssuedUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedUser").field("user", &self.user).field("token", &self.token.as_ref().map(|_| "..")).finish()
    }
}
