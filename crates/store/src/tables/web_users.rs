//! Who may do what on the status pages.

use model::{UserName, WebUser};

use super::basics::name;
use super::kind;
use crate::error::Result;
use crate::key::{Key, KeyBytes, KeyParts};
use crate::record::Record;
use crate::table::Table;

impl Key for UserName {
    fn encode(&self) -> Result<Vec<u8>> {
        Ok(KeyBytes::new().text(self.as_str())?.finish())
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut parts = KeyParts::of(bytes);
        let name = name(&mut parts)?;
        parts.end().map(|()| name)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Record for WebUser {
    const KIND: u16 = kind::WEB_USER;
    const NAME: &'static str = "web user";
    const VERSION: u16 = 1;
}

/// `web-users`: [`WebUser`] by name.
pub struct WebUsers;

impl Table for WebUsers {
    type Key = UserName;
    type Record = WebUser;
    const NAME: &'static str = "web-users";
    fn key(record: &WebUser) -> UserName {
        record.name.clone()
    }
}
