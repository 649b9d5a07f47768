//! What sshd would do when a client comes back as `borgcube-ssh`: the output of `sshd -T -C user=borgcube-ssh,...`, judged.

use super::accounts::USER_KEYS;
use super::finding::{Finding, or_ok};
use std::collections::BTreeMap;
use unix::paths::USER_SSH;

const CHECK: &str = "sshd";
/// Answers for job keys and permanent keys.
pub const COMMAND: &str = "/usr/libexec/borgcube/borgcube-authorized-keys";
/// Where the package puts its settings.
pub const SNIPPET: &str = "/etc/ssh/sshd_config.d/borgcube.conf";

/// The settings: keyword in lower case, all its values.
#[derive(Debug, Default, Clone)]
pub struct Settings(BTreeMap<String, Vec<String>>);

impl Settings {
    /// From what `sshd -T` prints.
    #[must_use]
    pub fn parse(text: &str) -> Settings {
        let mut settings: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in text.lines() {
            if let Some((key, value)) = line.trim().split_once(' ') {
                settings.entry(key.to_lowercase()).or_default().push(value.trim().to_owned());
            }
        }
        Settings(settings)
    }

    fn one(&self, key: &str) -> &str {
        self.0.get(key).and_then(|values| values.first()).map_or("", String::as_str)
    }

    fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.get(key).into_iter().flatten().flat_map(|value| value.split_whitespace())
    }

    /// sshd's own word for "nothing".
    fn is_set(&self, key: &str) -> bool {
        !matches!(self.one(key), "" | "none")
    }
}

/// What else has to be known.
#[derive(Debug, Clone, Copy, Default)]
pub struct Surroundings {
    /// How many backups may run at once.
    pub parallel: u32,
    /// The password of `borgcube-ssh` in the shadow file begins with `!`; None: not known.
    pub locked: Option<bool>,
}

/// Judges the settings.
#[must_use]
pub fn check(settings: &Settings, around: Surroundings) -> Vec<Finding> {
    let mut findings = vec![];
    findings.extend(keys_command(settings));
    findings.extend(admission(settings, around.locked));
    findings.extend(connections(settings, around.parallel));
    or_ok(CHECK, findings, format!("lets {USER_SSH} in with job keys only"))
}

fn keys_command(settings: &Settings) -> Vec<Finding> {
    let command = settings.one("authorizedkeyscommand");
    if command.split_whitespace().next() != Some(COMMAND) {
        let sentence = match command {
            "" | "none" => format!("sshd does not ask {COMMAND}: the settings in {SNIPPET} are not in effect"),
            other => format!("sshd asks {other} for the keys of {USER_SSH} instead of {COMMAND}"),
        };
        return vec![
            Finding::problem(CHECK, sentence)
                .mend(format!(
                    "Is there {SNIPPET}, and near the top of /etc/ssh/sshd_config the line: Include /etc/ssh/sshd_config.d/*.conf"
                ))
                .mend("Only the first value of a setting counts: nothing above that line may set AuthorizedKeysCommand for everybody")
                .mend("Then: sshd -t && systemctl reload ssh"),
        ];
    }
    let user = settings.one("authorizedkeyscommanduser");
    if user != USER_KEYS {
        let sentence = format!("sshd runs {COMMAND} as {user}, which cannot read the job keys");
        return vec![
            Finding::problem(CHECK, sentence)
                .mend(format!("AuthorizedKeysCommandUser {USER_KEYS} in {SNIPPET}; then systemctl reload ssh")),
        ];
    }
    if !command.contains("%k") {
        let sentence = format!("sshd does not tell {COMMAND} which key a client has");
        return vec![
            Finding::problem(CHECK, sentence)
                .mend(format!("AuthorizedKeysCommand {COMMAND} %u %t %k in {SNIPPET}; then systemctl reload ssh")),
        ];
    }
    vec![]
}

fn admission(settings: &Settings, locked: Option<bool>) -> Vec<Finding> {
    let mut findings = vec![];
    let mut wrong = |sentence: String, mend: String| {
        findings.push(Finding::problem(CHECK, sentence).mend(mend).mend("Then: sshd -t && systemctl reload ssh"))
    };
    if settings.one("pubkeyauthentication") == "no" {
        wrong("sshd accepts no keys (PubkeyAuthentication no)".into(), format!("PubkeyAuthentication yes in {SNIPPET}"));
    }
    let methods = settings.one("authenticationmethods");
    if !matches!(methods, "" | "any") && !methods.split_whitespace().any(|list| list == "publickey") {
        wrong(
            format!("sshd wants more than a key (AuthenticationMethods {methods}), and nobody is there to give it"),
            format!("In {SNIPPET}, for {USER_SSH}: AuthenticationMethods publickey"),
        );
    }
    if settings.is_set("forcecommand") && !settings.one("forcecommand").contains("borgcube-proxy") {
        wrong(
            format!("ForceCommand {} replaces the command of our keys", settings.one("forcecommand")),
            format!("Take {USER_SSH} out of the Match block that sets it"),
        );
    }
    let matches = |key: &str| settings.all(key).any(|pattern| glob(pattern.split('@').next().unwrap_or(pattern), USER_SSH));
    if settings.all("allowusers").next().is_some() && !matches("allowusers") {
        wrong(
            format!("AllowUsers does not name {USER_SSH}: no client can come back"),
            format!("Add {USER_SSH} to AllowUsers in /etc/ssh/sshd_config"),
        );
    }
    if matches("denyusers") {
        wrong(format!("DenyUsers shuts {USER_SSH} out"), format!("Take {USER_SSH} out of DenyUsers in /etc/ssh/sshd_config"));
    }
    // The user is in no group but its own, which has its name.
    if settings.all("allowgroups").next().is_some() && !matches("allowgroups") {
        wrong(
            format!("AllowGroups does not name the group {USER_SSH}: no client can come back"),
            format!("Add {USER_SSH} to AllowGroups in /etc/ssh/sshd_config"),
        );
    }
    if matches("denygroups") {
        wrong(format!("DenyGroups shuts the group {USER_SSH} out"), "Take it out of DenyGroups in /etc/ssh/sshd_config".into());
    }
    if locked == Some(true) && settings.one("usepam") == "no" {
        wrong(
            format!("without PAM, sshd refuses the locked account {USER_SSH}"),
            format!("usermod -p '*' {USER_SSH} (no password fits, and it is not locked)"),
        );
    }
    for key in ["passwordauthentication", "kbdinteractiveauthentication"] {
        if settings.one(key) == "yes" && methods != "publickey" {
            let finding = Finding::warning(CHECK, format!("sshd would ask a client for a password for {USER_SSH} ({key} yes)"));
            findings
                .push(finding.mend(format!("The account has none, so nobody gets in by it; {SNIPPET} should switch it off all the same")));
            break;
        }
    }
    findings
}

/// Connections that sshd drops unseen look like a network that fails now and then.
fn connections(settings: &Settings, parallel: u32) -> Vec<Finding> {
    let mut findings = vec![];
    let numbers: Vec<u32> = settings.one("maxstartups").split(':').filter_map(|n| n.parse().ok()).collect();
    if let [start, rate, full] = numbers[..]
        && start < parallel
    {
        let sentence = format!(
            "MaxStartups {start}:{rate}:{full}: when more than {start} clients connect in the same moment, sshd drops {rate} % of them, and up to {parallel} backups may start at once"
        );
        let wanted = parallel.max(10) * 2;
        findings.push(
            Finding::warning(CHECK, sentence)
                .mend(format!("MaxStartups {wanted}:30:{} in /etc/ssh/sshd_config; then systemctl reload ssh", wanted * 5)),
        );
    }
    if let Ok(most) = settings.one("persourcemaxstartups").parse::<u32>()
        && most < 4
    {
        let sentence = format!("PerSourceMaxStartups {most}: clients behind one address (NAT) shut each other out");
        findings.push(Finding::warning(CHECK, sentence).mend("PerSourceMaxStartups none, or a number that fits the largest site"));
    }
    let penalties = settings.one("persourcepenalties");
    if !matches!(penalties, "" | "no") && !settings.is_set("persourcepenaltyexemptlist") {
        let sentence = "PerSourcePenalties is on (the default of OpenSSH 9.8 and later, as in Debian 13): an address whose connections fail to log in is shut out for up to ten minutes, with all clients behind it";
        findings.push(
            Finding::note(CHECK, sentence)
                .mend("If several clients share an address: PerSourcePenaltyExemptList 192.0.2.0/24 in /etc/ssh/sshd_config, with that network; then systemctl reload ssh"),
        );
    }
    findings
}

/// sshd's patterns: `*` and `?`; those that begin with `!` never admit anybody.
fn glob(pattern: &str, text: &str) -> bool {
    fn fits(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.first(), text.first()) {
            (None, None) => true,
            (Some(b'*'), _) => fits(&pattern[1..], text) || (!text.is_empty() && fits(pattern, &text[1..])),
            (Some(b'?'), Some(_)) => fits(&pattern[1..], &text[1..]),
            (Some(a), Some(b)) if a == b => fits(&pattern[1..], &text[1..]),
            _ => false,
        }
    }
    fits(pattern.as_bytes(), text.as_bytes())
}

/// What sshd demands of the program and of every directory above it; `facts` are (path, uid, mode), from the program up.
#[must_use]
pub fn program(facts: &[(String, Option<(u32, u32)>)]) -> Option<Finding> {
    let wrong = |sentence: String| Finding::problem(CHECK, sentence);
    for (path, fact) in facts {
        match fact {
            None => return Some(wrong(format!("{path} is missing")).mend("apt install --reinstall borgcube-server")),
            Some((uid, _)) if *uid != 0 => {
                return Some(
                    wrong(format!("{path} does not belong to root: sshd does not run {COMMAND}")).mend(format!("chown root {path}")),
                );
            }
            Some((_, mode)) if mode & 0o022 != 0 => {
                let sentence = format!("{path} can be changed by others (mode {:04o}): sshd does not run {COMMAND}", mode & 0o7777);
                return Some(wrong(sentence).mend(format!("chmod go-w {path}")));
            }
            Some(_) => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    const GOOD: &str = "port 22\nusepam yes\npubkeyauthentication yes\npasswordauthentication no\nkbdinteractiveauthentication no\n\
        authorizedkeyscommand /usr/libexec/borgcube/borgcube-authorized-keys %t %k\nauthorizedkeyscommanduser borgcube-keys\n\
        forcecommand none\nmaxstartups 100:30:500\npersourcemaxstartups none\nauthenticationmethods any\n";

    fn judge(text: &str) -> Vec<Finding> {
        check(&Settings::parse(text), Surroundings { parallel: 16, locked: Some(true) })
    }

    fn only(text: &str) -> Finding {
        let mut found = judge(text);
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    #[test]
    fn the_snippet_in_effect() {
        assert_eq!(only(GOOD).verdict, Verdict::Ok);
    }

    #[test]
    fn what_keeps_clients_out_is_a_problem_with_its_reason() {
        for (from, to, word) in [
            ("/usr/libexec/borgcube/borgcube-authorized-keys %t %k", "none", "are not in effect"),
            ("/usr/libexec/borgcube/borgcube-authorized-keys %t %k", "/usr/bin/sss_ssh_authorizedkeys", "sshd asks /usr/bin/sss_ssh"),
            (" %t %k", "", "which key"),
            ("borgcube-keys", "nobody", "as nobody"),
            ("pubkeyauthentication yes", "pubkeyauthentication no", "accepts no keys"),
            ("authenticationmethods any", "authenticationmethods publickey,password", "more than a key"),
            ("forcecommand none", "forcecommand /usr/sbin/nologin", "replaces the command"),
            ("port 22", "allowusers root\nallowusers admin@192.0.2.*", "AllowUsers"),
            ("port 22", "denyusers borgcube-*", "DenyUsers"),
            ("port 22", "allowgroups ssh-users", "AllowGroups"),
            ("port 22", "denygroups borgcube-ssh", "DenyGroups"),
            ("usepam yes", "usepam no", "locked"),
        ] {
            assert!(GOOD.contains(from));
            let finding = only(&GOOD.replace(from, to));
            assert_eq!(finding.verdict, Verdict::Problem, "{to}");
            assert!(finding.message.contains(word), "{to}: {}", finding.message);
            assert!(!finding.mend.is_empty(), "{to}");
        }
    }

    #[test]
    fn patterns_admit() {
        for line in ["allowusers root borgcube-ssh", "allowusers borgcube-ssh@192.0.2.0/24", "allowusers *", "allowgroups borgcube-?sh"] {
            assert_eq!(only(&GOOD.replace("port 22", line)).verdict, Verdict::Ok, "{line}");
        }
    }

    #[test]
    fn dropped_connections_are_foretold() {
        let finding = only(&GOOD.replace("100:30:500", "10:30:100"));
        assert_eq!(finding.verdict, Verdict::Warning);
        assert!(finding.mend[0].contains("MaxStartups 32:30:160"), "{finding:?}");
        let finding = only(&GOOD.replace("persourcemaxstartups none", "persourcemaxstartups 1"));
        assert!(finding.message.contains("NAT"));
    }

    #[test]
    fn penalties_of_debian_13_are_a_note_until_somebody_is_exempt() {
        let on = format!(
            "{GOOD}persourcepenalties crash:90 authfail:5 noauth:1 grace-exceeded:20 refuseconnection:10 max:600 min:15\npersourcepenaltyexemptlist none\n"
        );
        assert_eq!(only(&on).verdict, Verdict::Note);
        assert_eq!(only(&on.replace("exemptlist none", "exemptlist 10.0.0.0/8")).verdict, Verdict::Ok);
        assert_eq!(only(&format!("{GOOD}persourcepenalties no\n")).verdict, Verdict::Ok);
    }

    #[test]
    fn an_empty_answer_is_a_problem() {
        assert!(judge("").iter().any(|f| f.verdict == Verdict::Problem));
    }

    #[test]
    fn passwords_are_worth_a_warning() {
        assert_eq!(only(&GOOD.replace("passwordauthentication no", "passwordauthentication yes")).verdict, Verdict::Warning);
    }

    #[test]
    fn a_program_that_others_can_change_is_not_run() {
        let chain = |uid, mode| vec![(COMMAND.to_owned(), Some((0, 0o755))), ("/usr/libexec".to_owned(), Some((uid, mode)))];
        assert_eq!(program(&chain(0, 0o755)), None);
        assert!(program(&chain(0, 0o775)).unwrap().mend[0].contains("chmod go-w /usr/libexec"));
        assert!(program(&chain(1000, 0o755)).unwrap().mend[0].contains("chown root"));
        assert!(program(&[(COMMAND.to_owned(), None)]).unwrap().message.contains("missing"));
    }
}
