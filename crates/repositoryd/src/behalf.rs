//! Who may read archives through the status daemon. What that daemon says about somebody is not believed: the credential is looked at here.

use crate::failures::of_store;
use crate::owner::Owner;
use model::web_user::{Credential, Role, WebSettings, WebUser, identify};
use model::{Cause, Failure, Timestamp};

/// The person's name in logs, if the person may read archives now.
pub fn admit(owner: &Owner, credential: &Credential) -> Result<String, Failure> {
    let known = owner.store.read(|read| Ok((read.settings()?.map(|settings| settings.web).unwrap_or_default(), read.web_users().list()?)));
    let (settings, users) = known.map_err(|e| of_store(&e))?;
    judge(settings, &users, credential, Timestamp::now()).map_err(|why| {
        let why = unix::logging::escape(&why);
        log::warn!("nothing is read through the status pages: {why}");
        Failure::new(Cause::RepositoryError, why)
    })
}

fn judge(settings: WebSettings, users: &[WebUser], credential: &Credential, now: Timestamp) -> Result<String, String> {
    if !settings.downloads {
        return Err("archives are not read through the status pages; `borgcube settings edit --web-downloads on` allows it".into());
    }
    let user = identify(users, settings, credential, now).map_err(|refusal| refusal.to_string())?;
    if user.role < Role::Operator {
        return Err(format!("the user {} is {}; reading archives takes an operator", user.name, user.role.with_article()));
    }
    Ok(user.actor())
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::token::Token;
    use model::web_user::{SignIn, TokenHash};

    const NOW: Timestamp = Timestamp(1_000_000);

    fn user(name: &str, role: Role, sign_in: SignIn) -> WebUser {
        let name = name.parse().unwrap();
        WebUser { name, role, sign_in, enabled: true, created: Timestamp(0), expires: None, comment: String::new() }
    }

    #[test]
    fn an_operator_with_a_token_and_nobody_else() {
        let token = |byte: u8| Token::from_random([byte; 32]);
        let shown = |byte: u8| Credential::Token { token: token(byte).to_hex() };
        let by_token = |byte: u8| SignIn::Token { hash: TokenHash::of(&token(byte)) };
        let disabled = WebUser { enabled: false, ..user("off", Role::Administrator, by_token(4)) };
        let expired = WebUser { expires: Some(NOW), ..user("late", Role::Administrator, by_token(5)) };
        let users = [
            user("viewer", Role::Viewer, by_token(1)),
            user("operator", Role::Operator, by_token(2)),
            user("admin", Role::Administrator, by_token(3)),
            disabled,
            expired,
            user("peer", Role::Operator, SignIn::Peer),
            user("proxy", Role::Operator, SignIn::Proxy),
        ];
        let on = WebSettings { downloads: true, ..WebSettings::default() };
        let may = |settings, credential: &Credential| judge(settings, &users, credential, NOW);
        assert_eq!(may(on, &shown(2)).unwrap(), "web:operator");
        assert_eq!(may(on, &shown(3)).unwrap(), "web:admin");
        for refused in [shown(1), shown(4), shown(5), shown(6), Credential::Token { token: String::new() }] {
            assert!(may(on, &refused).is_err());
        }
        let (peer, proxy) = (Credential::Peer { name: "peer".into() }, Credential::Proxy { name: "proxy".into() });
        assert!(may(on, &peer).is_err() && may(on, &proxy).is_err(), "names are not believed by themselves");
        assert!(may(WebSettings { peer: true, ..on }, &peer).is_ok() && may(WebSettings { peer: true, ..on }, &proxy).is_err());
        assert!(may(WebSettings { proxy: true, ..on }, &proxy).is_ok());
        let off = WebSettings { downloads: false, peer: true, proxy: true };
        for credential in [shown(2), shown(3), peer, proxy] {
            assert!(may(off, &credential).unwrap_err().contains("--web-downloads on"));
        }
    }
}
