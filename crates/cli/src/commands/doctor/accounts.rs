//! Users and groups of an installed server.

use super::finding::{Finding, or_ok};
use std::collections::BTreeMap;
use unix::paths::{GROUP_DATABASE, USER_DAEMON, USER_REPOSITORY, USER_SSH};

const CHECK: &str = "accounts";
/// Runs the AuthorizedKeysCommand.
pub const USER_KEYS: &str = "borgcube-keys";
/// Sessions have it beside their own user.
pub const GROUP_SESSION: &str = "borgcube-session";
/// The one command that makes all of them.
const MAKE: &str = "systemd-sysusers /usr/lib/sysusers.d/borgcube.conf";

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its number.
    pub uid: u32,
    /// Its own group.
    pub gid: u32,
    /// Its home directory.
    pub home: String,
    /// Its shell.
    pub shell: String,
}

/// What `/etc/passwd` and `/etc/group` say.
#[derive(Debug, Default, Clone)]
pub struct Accounts {
    users: BTreeMap<String, User>,
    groups: BTreeMap<String, (u32, Vec<String>)>,
}

impl Accounts {
    /// Lines that make no sense are no accounts.
    #[must_use]
    pub fn parse(passwd: &str, group: &str) -> Accounts {
        let user = |line: &str| {
            let fields: Vec<_> = line.split(':').collect();
            let [name, _, uid, gid, _, home, shell] = fields[..] else { return None };
            Some((name.to_owned(), User { uid: uid.parse().ok()?, gid: gid.parse().ok()?, home: home.into(), shell: shell.into() }))
        };
        let group_of = |line: &str| {
            let fields: Vec<_> = line.split(':').collect();
            let [name, _, gid, members] = fields[..] else { return None };
            let members = members.split(',').filter(|member| !member.is_empty()).map(str::to_owned).collect();
            Some((name.to_owned(), (gid.parse().ok()?, members)))
        };
        Accounts { users: passwd.lines().filter_map(user).collect(), groups: group.lines().filter_map(group_of).collect() }
    }

    /// A user by name.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name)
    }

    /// The name of a user; its number where it has none.
    #[must_use]
    pub fn user_name(&self, uid: u32) -> String {
        let found = self.users.iter().find(|(_, user)| user.uid == uid);
        found.map_or_else(|| uid.to_string(), |(name, _)| name.clone())
    }

    /// The name of a group; its number where it has none.
    #[must_use]
    pub fn group_name(&self, gid: u32) -> String {
        let found = self.groups.iter().find(|(_, (number, _))| *number == gid);
        found.map_or_else(|| gid.to_string(), |(name, _)| name.clone())
    }

    fn is_member(&self, user: &str, group: &str) -> bool {
        let Some((gid, members)) = self.groups.get(group) else { return false };
        members.iter().any(|member| member == user) || self.users.get(user).is_some_and(|u| u.gid == *gid)
    }
}

/// Whether all are there, and in the groups they need.
#[must_use]
pub fn check(accounts: &Accounts) -> Vec<Finding> {
    let mut findings = vec![];
    for user in [USER_DAEMON, USER_REPOSITORY, USER_SSH, USER_KEYS] {
        if accounts.user(user).is_none() {
            findings.push(Finding::problem(CHECK, format!("there is no user {user}")).run(MAKE));
        }
    }
    for group in [USER_DAEMON, GROUP_DATABASE, GROUP_SESSION] {
        if !accounts.groups.contains_key(group) {
            findings.push(Finding::problem(CHECK, format!("there is no group {group}")).run(MAKE));
        }
    }
    if !findings.is_empty() {
        return findings;
    }
    for user in [USER_DAEMON, USER_REPOSITORY] {
        if !accounts.is_member(user, GROUP_DATABASE) {
            let sentence = format!("user {user} is not in group {GROUP_DATABASE} and cannot open the database");
            findings.push(
                Finding::problem(CHECK, sentence)
                    .run(format!("usermod -aG {GROUP_DATABASE} {user} && systemctl restart borgcubed 'borgcube-repositoryd@*.service'")),
            );
        }
    }
    // A client that gets in as this user has only what its forced command gives it; these groups would open other doors.
    for group in [USER_DAEMON, GROUP_DATABASE, GROUP_SESSION] {
        for user in [USER_SSH, USER_KEYS] {
            if accounts.is_member(user, group) && !(user == USER_KEYS && group == USER_DAEMON) {
                let sentence = format!("user {user} is in group {group}: what clients reach must not have its rights");
                findings.push(Finding::problem(CHECK, sentence).run(format!("gpasswd -d {user} {group}")));
            }
        }
    }
    if let Some(user) = accounts.user(USER_SSH)
        && ["nologin", "false"].iter().any(|shell| user.shell.ends_with(shell))
    {
        let sentence = format!("the shell of {USER_SSH} is {}: sshd cannot run the forced command with it", user.shell);
        findings.push(
            Finding::problem(CHECK, sentence)
                .mend("The account has no password, and its keys run one command:")
                .run(format!("usermod -s /bin/sh {USER_SSH}")),
        );
    }
    or_ok(CHECK, findings, "users and groups are there")
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::finding::Verdict;
    use super::*;

    pub(in super::super) const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
        borgcube:x:990:990:BorgCube:/var/lib/borgcube:/usr/sbin/nologin\n\
        borgcube-repo:x:991:991::/nonexistent:/usr/sbin/nologin\n\
        borgcube-ssh:x:992:992::/nonexistent:/bin/sh\n\
        borgcube-keys:x:993:993::/nonexistent:/usr/sbin/nologin\n";
    pub(in super::super) const GROUP: &str = "root:x:0:\nborgcube:x:990:ada\nborgcube-repo:x:991:\nborgcube-ssh:x:992:\nborgcube-keys:x:993:\n\
        borgcube-db:x:994:borgcube,borgcube-repo\nborgcube-session:x:995:\n";

    #[test]
    fn a_sound_installation() {
        let found = check(&Accounts::parse(PASSWD, GROUP));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].verdict, Verdict::Ok, "{found:?}");
    }

    #[test]
    fn missing_users_and_groups() {
        let found = check(&Accounts::parse("", "nonsense\n:::\na:b:c:d"));
        assert_eq!(found.len(), 7);
        assert!(found.iter().all(|f| f.verdict == Verdict::Problem && f.mend == [MAKE]), "{found:?}");
    }

    #[test]
    fn wrong_memberships_and_shells() {
        let group = GROUP.replace("borgcube,borgcube-repo", "borgcube,borgcube-ssh");
        let passwd = PASSWD.replace("/bin/sh", "/usr/sbin/nologin");
        let found = check(&Accounts::parse(&passwd, &group));
        let said: Vec<_> = found.iter().map(|f| f.message.as_str()).collect();
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said[0].starts_with("user borgcube-repo is not in group borgcube-db"));
        assert!(said[1].starts_with("user borgcube-ssh is in group borgcube-db"));
        assert!(said[2].contains("shell"));
    }

    #[test]
    fn numbers_without_names_stay_numbers() {
        let accounts = Accounts::parse(PASSWD, GROUP);
        assert_eq!((accounts.user_name(990), accounts.user_name(4242)), ("borgcube".into(), "4242".into()));
        assert_eq!((accounts.group_name(994), accounts.group_name(4242)), ("borgcube-db".into(), "4242".into()));
    }
}
