//! Is the client's host key known to the user who connects to it? Without it, every job ends with `client-connection-failed`.

use super::finding::Finding;
use crate::context::shell_word;
use std::collections::BTreeMap;
use std::path::Path;

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

/// How a command reaches the file with known host keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinning {
    /// In front of a command that reads and writes as the user who connects; empty, or with a space at its end.
    pub prefix: String,
    /// The files that have a key of the host now.
    pub known_in: Vec<String>,
}

/// Judges whether a key is known.
#[must_use]
pub fn check(client: &str, target: &Target, pinning: &Pinning) -> Finding {
    if target.careless {
        return Finding::warning("host-keys", format!("client {client}: ssh accepts any host key (StrictHostKeyChecking no)"))
            .mend(format!("Take that option away (borgcube client show {client}) and pin the key"));
    }
    if !pinning.known_in.is_empty() {
        return Finding::ok("host-keys", format!("client {client}: the host key of {} is pinned", target.lookup));
    }
    let finding = Finding::problem("host-keys", format!("client {client}: no host key of {} is known", target.lookup));
    finding.mend(compare(client, target)).mend("If it is the same:").run(pin(target, &pinning.prefix))
}

/// The client has shown another key than the one that is known.
#[must_use]
pub fn changed(client: &str, target: &Target, pinning: &Pinning) -> Finding {
    let sentence = format!("client {client}: {} has another host key than the one that is pinned", target.lookup);
    let mut finding = Finding::problem("host-keys", sentence)
        .mend("Was it installed anew? If not, somebody may stand in between: find out before you go on.")
        .mend(compare(client, target))
        .mend("If it is the same:");
    let lookup = shell_word(Path::new(&target.lookup));
    for file in &pinning.known_in {
        // ssh-keygen writes a new file that only its user can read; the one of the whole machine is everybody's.
        let word = shell_word(Path::new(file));
        finding = finding.run(match file.starts_with("/etc/") {
            true => format!("ssh-keygen -R {lookup} -f {word} && chmod 0644 {word}"),
            false => format!("{}ssh-keygen -R {lookup} -f {word}", pinning.prefix),
        });
    }
    finding.run(pin(target, &pinning.prefix))
}

fn compare(client: &str, target: &Target) -> String {
    let (host, port) = &target.address;
    format!(
        "Compare what ssh-keyscan -p {port} {host} | ssh-keygen -lf - shows with what ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub shows on {client}."
    )
}

/// The command that takes the key as it is now.
fn pin(target: &Target, prefix: &str) -> String {
    let (host, port) = &target.address;
    let file = target.files.first().map_or("~/.ssh/known_hosts", String::as_str);
    let scanned = if *port == 22 { host.clone() } else { format!("[{host}]:{port}") };
    let name = if scanned == target.lookup { String::new() } else { format!(" | sed 's/^[^ ]*/{}/'", target.lookup.replace('/', "\\/")) };
    format!("ssh-keyscan -p {port} {}{name} | {prefix}tee -a {}", shell_word(Path::new(host)), shell_word(Path::new(file)))
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

    fn pinning(known_in: &[&str]) -> Pinning {
        Pinning { prefix: "runuser -u borgcube -- ".into(), known_in: known_in.iter().map(|file| (*file).to_owned()).collect() }
    }

    #[test]
    fn what_is_said_of_it() {
        let found = target(PLAIN).unwrap();
        assert_eq!(check("web1", &found, &pinning(&["/etc/ssh/ssh_known_hosts"])).verdict, Verdict::Ok);
        let unknown = check("web1", &found, &pinning(&[]));
        assert_eq!(unknown.verdict, Verdict::Problem);
        let pin = "ssh-keyscan -p 22 web1.example.net | runuser -u borgcube -- tee -a /var/lib/borgcube/.ssh/known_hosts";
        assert_eq!(unknown.run, [pin]);
        let careless = target(&PLAIN.replace("stricthostkeychecking ask", "stricthostkeychecking no")).unwrap();
        assert_eq!(check("web1", &careless, &pinning(&[])).verdict, Verdict::Warning);
        let files = ["/etc/ssh/ssh_known_hosts", "/var/lib/borgcube/.ssh/known_hosts"];
        assert_eq!(
            changed("web1", &found, &pinning(&files)).run,
            [
                "ssh-keygen -R web1.example.net -f /etc/ssh/ssh_known_hosts && chmod 0644 /etc/ssh/ssh_known_hosts",
                "runuser -u borgcube -- ssh-keygen -R web1.example.net -f /var/lib/borgcube/.ssh/known_hosts",
                pin
            ]
        );
    }

    #[test]
    fn a_key_is_pinned_under_the_name_that_ssh_looks_for() {
        let alias = target(&PLAIN.replace("port 22", "port 2222\nhostkeyalias web1")).unwrap();
        assert!(pin(&alias, "").contains("| sed 's/^[^ ]*/web1/' | tee -a"), "{}", pin(&alias, ""));
        let port = target(&PLAIN.replace("port 22", "port 2222")).unwrap();
        assert!(pin(&port, "").starts_with("ssh-keyscan -p 2222 web1.example.net | tee"), "{}", pin(&port, ""));
    }
}
