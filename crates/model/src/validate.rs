//! What a record must be like before it is stored. Pure; the sentences say what to write instead.

use crate::{BackupConfig, Blackout, Client, Repository, Settings};

/// Longest description.
const DESCRIPTION: usize = 1000;
/// Most paths, patterns and so on of one config, and their length together: a worker gets them in one message.
const CONFIG_ENTRIES: usize = 10_000;
const CONFIG_BYTES: usize = 512 * 1024;

type Checked = Result<(), String>;

/// A repository.
pub fn repository(repository: &Repository) -> Checked {
    crate::repository::check_url(&repository.url)?;
    description(&repository.description)?;
    let id = &repository.repository_id;
    if id.len() != 64 || !id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(format!("repository id {:?} is not usable: Borg's has 64 lower-case hex digits", shortened(id)));
    }
    program("remote_borg", repository.remote_borg.as_deref())?;
    program("rsh", repository.rsh.as_deref())
}

/// A client.
pub fn client(client: &Client) -> Checked {
    client.check()?;
    if client.blackouts.len() > Blackout::MAX {
        return Err(format!("a client has at most {} blackouts", Blackout::MAX));
    }
    client.blackouts.iter().try_for_each(Blackout::check)?;
    description(&client.description)
}

/// A config.
pub fn config(config: &BackupConfig) -> Checked {
    config.check()?;
    let texts = || config.paths.iter().chain(&config.excludes).chain(&config.patterns).chain(&config.extra_options);
    if texts().count() > CONFIG_ENTRIES || texts().map(String::len).sum::<usize>() > CONFIG_BYTES {
        return Err(format!(
            "a config has at most {CONFIG_ENTRIES} paths, patterns and options of {} KiB in all; make two",
            CONFIG_BYTES / 1024
        ));
    }
    Ok(())
}

/// Settings, as a change of the present ones.
pub fn settings(present: &Settings, settings: &Settings) -> Checked {
    if present.server_id != settings.server_id {
        return Err("the server's id is made once and cannot be changed: it names cache directories on the clients".into());
    }
    let limits = [settings.limits.per_client, settings.limits.per_repository, settings.limits.total];
    if limits.iter().any(|limit| !(1..=1000).contains(limit)) {
        return Err("each limit is a number of jobs from 1 to 1000".into());
    }
    if let Some(limit) = settings.sessions.wrong() {
        return Err(format!("the limit {limit} is too small for any backup"));
    }
    Ok(())
}

fn description(text: &str) -> Checked {
    if text.len() > DESCRIPTION || text.chars().any(char::is_control) {
        return Err(format!("a description is one line of at most {DESCRIPTION} bytes"));
    }
    Ok(())
}

fn program(what: &str, value: Option<&str>) -> Checked {
    match value {
        Some(v) if v.is_empty() || v.len() > 1000 || v.starts_with('-') || v.chars().any(char::is_control) => {
            Err(format!("{what} {:?} is not usable: give a program's name or path", shortened(v)))
        }
        _ => Ok(()),
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Limits;
    use crate::{EncryptionMode, Timestamp};

    fn good() -> Repository {
        Repository {
            name: "main".parse().unwrap(),
            url: "/srv/borg".into(),
            description: String::new(),
            repository_id: "ab".repeat(32),
            encryption: EncryptionMode::Repokey,
            remote_borg: None,
            rsh: None,
            created: Timestamp(0),
        }
    }

    #[test]
    fn repositories() {
        assert_eq!(repository(&good()), Ok(()));
        for bad in [
            Repository { url: "srv".into(), ..good() },
            Repository { repository_id: "AB".repeat(32), ..good() },
            Repository { repository_id: "ab".into(), ..good() },
            Repository { description: "a\nb".into(), ..good() },
            Repository { description: "x".repeat(1001), ..good() },
            Repository { remote_borg: Some("-x".into()), ..good() },
            Repository { rsh: Some("ssh\n".into()), ..good() },
        ] {
            assert!(repository(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn limits_and_the_server_id() {
        let present = Settings { server_id: "a".into(), limits: Limits::default(), sessions: Default::default(), web: Default::default() };
        assert_eq!(settings(&present, &present), Ok(()));
        assert!(settings(&present, &Settings { server_id: "b".into(), ..present.clone() }).is_err());
        assert!(settings(&present, &Settings { limits: Limits { total: 0, ..Limits::default() }, ..present.clone() }).is_err());
    }
}
