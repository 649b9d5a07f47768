//! Is the client's host key known to the user who connects to it? Without it, every job ends with `client-connection-failed`.

use super::finding::Finding;
use std::collections::BTreeMap;

/// What `ssh -G` says that matters here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Target {
    /// The name under which ssh looks for the host key.
    pub lookup: String,
    /// The host and the port it connects to.
    pub address: (String, u16),
    /// The files with known host keys.
    pub files: Vec<String>,
    /// Does not insist on a known host key.
    pub careless: bool,
}

/// From the output of `ssh -G ... HOST`.
#[must_use]
pub fn target(text: &str) -> Option<Target> {
    let settings: BTreeMap<&str, &str> = text.lines().rev().filter_map(|line| line.trim().split_once(' ')).collect();
    let host = settings.get("hostname")?;
    let port: u16 = settings.get("port")?.parse().ok()?;
    let name = settings.get("hostkeyalias").filter(|alias| **alias != "none").unwrap_or(host);
    let lookup = if port == 22 || settings.get("hostkeyalias").is_some_and(|alias| *alias != "none") {
        (*name).to_owned()
    } else {
        format!("[{name}]:{port}")
    };
    let files = ["userknownhostsfile", "globalknownhostsfile"].into_iter().filter_map(|key| settings.get(key));
    let files = files.flat_map(|value| value.split_whitespace()).filter(|file| *file != "none").map(str::to_owned).collect();
    let careless = settings.get("stricthostkeychecking").is_some_and(|value| matches!(*value, "no" | "off" | "false"));
    Some(Target { lookup, address: ((*host).to_owned(), port), files, careless })
}

/// Judges it; `known` says whether one of the files has a key for it.
#[must_use]
pub fn check(client: &str, target: &Target, known: bool) -> Finding {
    if target.careless {
        return Finding::warning("host-keys", format!("client {client}: ssh accepts any host key (StrictHostKeyChecking no)"))
            .mend(format!("Take that option away (borgcube client show {client}) and pin the key"));
    }
    if known {
        return Finding::ok("host-keys", format!("client {client}: the host key of {} is pinned", target.lookup));
    }
    let file = target.files.first().map_or("~/.ssh/known_hosts", String::as_str);
    let (host, port) = &target.address;
    Finding::problem("host-keys", format!("client {client}: no host key of {} is known", target.lookup))
        .mend(format!("ssh-keyscan -p {port} {host} | ssh-keygen -lf - shows it; compare it with: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub on {client}"))
        .mend(format!("If it is the same: ssh-keyscan -p {port} {host} >> {file}"))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    const PLAIN: &str = "user root\nhostname web1.example.net\nport 22\nstricthostkeychecking ask\n\
        userknownhostsfile /var/lib/borgcube/.ssh/known_hosts /var/lib/borgcube/.ssh/known_hosts2\n\
        globalknownhostsfile /etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2\n";

    #[test]
    fn how_ssh_names_a_host() {
        let found = target(PLAIN).unwrap();
        assert_eq!((found.lookup.as_str(), found.files.len(), found.careless), ("web1.example.net", 4, false));
        assert_eq!(target(&PLAIN.replace("port 22", "port 2222")).unwrap().lookup, "[web1.example.net]:2222");
        assert_eq!(target(&PLAIN.replace("port 22", "port 2222\nhostkeyalias web1")).unwrap().lookup, "web1");
        assert_eq!(target("hostname x\nport many"), None);
        assert_eq!(target(""), None);
    }

    #[test]
    fn what_is_said_of_it() {
        let found = target(PLAIN).unwrap();
        assert_eq!(check("web1", &found, true).verdict, Verdict::Ok);
        let unknown = check("web1", &found, false);
        assert_eq!(unknown.verdict, Verdict::Problem);
        assert!(unknown.mend[1].ends_with(">> /var/lib/borgcube/.ssh/known_hosts"), "{:?}", unknown.mend);
        let careless = target(&PLAIN.replace("stricthostkeychecking ask", "stricthostkeychecking no")).unwrap();
        assert_eq!(check("web1", &careless, false).verdict, Verdict::Warning);
    }
}
