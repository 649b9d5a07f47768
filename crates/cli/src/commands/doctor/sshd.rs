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
/// The same once more, for whoever has lost or changed them: dpkg brings a deleted file of /etc not back by itself.
const PRISTINE: &str = "/usr/share/borgcube/sshd_config.conf";
/// sshd's own settings.
pub const CONFIG: &str = "/etc/ssh/sshd_config";
/// New settings in effect, unless they are broken.
const RELOAD: &str = "sshd -t && systemctl reload ssh";

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
    /// How many clients may come back at once.
    pub parallel: u32,
    /// [`SNIPPET`] is there, and [`CONFIG`] includes its directory; None: not known.
    pub snippet: Option<(bool, bool)>,
    /// Something listens at one of sshd's ports; None: not known.
    pub listens: Option<bool>,
    /// The password of `borgcube-ssh` in the shadow file begins with `!`; None: not known.
    pub locked: Option<bool>,
}

/// Judges the settings.
#[must_use]
pub fn check(settings: &Settings, around: Surroundings) -> Vec<Finding> {
    let mut findings = vec![];
    findings.extend(keys_command(settings, around.snippet));
    if findings.is_empty() {
        findings.extend(passwords(settings));
    }
    if around.listens == Some(false) {
        let ports: Vec<_> = settings.all("port").collect();
        findings.push(not_running(format!("nothing listens at sshd's port {}: no client can come back", ports.join(" or "))));
    }
    findings.extend(admission(settings, around.locked));
    findings.extend(connections(settings, around.parallel));
    or_ok(CHECK, findings, format!("lets {USER_SSH} in with job keys only"))
}

/// sshd is there and does not run.
#[must_use]
pub fn not_running(sentence: String) -> Finding {
    Finding::problem(CHECK, sentence).run("systemctl restart ssh").mend("systemctl status ssh tells why, if it does not stay up")
}

fn keys_command(settings: &Settings, snippet: Option<(bool, bool)>) -> Vec<Finding> {
    let command = settings.one("authorizedkeyscommand");
    if command.split_whitespace().next() != Some(COMMAND) {
        let sentence = match command {
            "" | "none" => format!("sshd does not ask {COMMAND}: the settings in {SNIPPET} are not in effect"),
            other => format!("sshd asks {other} for the keys of {USER_SSH} instead of {COMMAND}"),
        };
        let mut finding = Finding::problem(CHECK, sentence);
        let (there, included) = snippet.unwrap_or((true, true));
        if !included {
            finding = finding.run(format!("sed -i '1i Include /etc/ssh/sshd_config.d/*.conf' {CONFIG}"));
        }
        if !there || !included {
            return vec![finding.run(restore())];
        }
        return vec![
            finding
                .mend(format!("Only the first value of a setting counts: nothing above the Include of {SNIPPET} in {CONFIG} may set AuthorizedKeysCommand"))
                .mend("If the file itself was changed:")
                .run(restore()),
        ];
    }
    let user = settings.one("authorizedkeyscommanduser");
    if user != USER_KEYS {
        let sentence = format!("sshd runs {COMMAND} as {user}, which cannot read the job keys");
        return vec![Finding::problem(CHECK, sentence).run(restore())];
    }
    if !command.contains("%k") {
        return vec![Finding::problem(CHECK, format!("sshd does not tell {COMMAND} which key a client has")).run(restore())];
    }
    vec![]
}

fn admission(settings: &Settings, locked: Option<bool>) -> Vec<Finding> {
    let mut findings = vec![];
    let mut wrong = |sentence: String, mend: String| findings.push(Finding::problem(CHECK, sentence).mend(mend + "; then:").run(RELOAD));
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
        let finding = Finding::problem(CHECK, format!("without PAM, sshd refuses the locked account {USER_SSH}"));
        findings.push(finding.mend("No password fits this one, and it is not locked:").run(format!("usermod -p '*' {USER_SSH}")));
    }
    findings
}

fn passwords(settings: &Settings) -> Option<Finding> {
    let asks = ["passwordauthentication", "kbdinteractiveauthentication"].into_iter().find(|key| settings.one(key) == "yes");
    let key = asks.filter(|_| settings.one("authenticationmethods") != "publickey")?;
    let finding = Finding::warning(CHECK, format!("sshd would ask a client for a password for {USER_SSH} ({key} yes)"));
    Some(
        finding.mend(format!("The account has none, so nobody gets in by it; all the same {SNIPPET} should switch it off:")).run(restore()),
    )
}

/// The package's settings, in effect.
fn restore() -> String {
    format!("cp {PRISTINE} {SNIPPET} && {RELOAD}")
}

/// Connections that sshd drops unseen look like a network that fails now and then.
fn connections(settings: &Settings, parallel: u32) -> Vec<Finding> {
    let mut findings = vec![];
    let numbers: Vec<u32> = settings.one("maxstartups").split(':').filter_map(|n| n.parse().ok()).collect();
    if let [start, rate, full] = numbers[..]
        && start < parallel
    {
        let sentence = format!(
            "MaxStartups {start}:{rate}:{full}: when more than {start} clients connect in the same moment, sshd drops {rate} % of them, and up to {parallel} of them may start at once"
        );
        let wanted = parallel.max(10) * 2;
        // Unlike other settings, of this one some versions of sshd take the last that they read.
        let command = format!(
            "sed -i 's/^[[:space:]]*MaxStartups/#&/I' {CONFIG} /etc/ssh/sshd_config.d/*.conf; echo 'MaxStartups {wanted}:30:{}' >/etc/ssh/sshd_config.d/00-maxstartups.conf && {RELOAD}",
            wanted * 5
        );
        findings.push(Finding::warning(CHECK, sentence).run(command));
    }
    if let Ok(most) = settings.one("persourcemaxstartups").parse::<u32>()
        && most < 4
    {
        let sentence = format!("PerSourceMaxStartups {most}: clients behind one address (NAT) shut each other out");
        findings.push(
            Finding::warning(CHECK, sentence)
                .mend("Where clients share an address:")
                .run(format!("echo 'PerSourceMaxStartups none' >/etc/ssh/sshd_config.d/00-persource.conf && {RELOAD}")),
        );
    }
    let penalties = settings.one("persourcepenalties");
    if !matches!(penalties, "" | "no") && !settings.is_set("persourcepenaltyexemptlist") {
        let sentence = "PerSourcePenalties is on (the default of OpenSSH 9.8 and later, as in Debian 13): an address whose connections fail to log in is shut out for up to ten minutes, with all clients behind it";
        findings.push(
            Finding::note(CHECK, sentence)
                .mend("If several clients share an address, with that network:")
                .run(format!("echo 'PerSourcePenaltyExemptList NETWORK/BITS' >/etc/ssh/sshd_config.d/00-penalties.conf && {RELOAD}")),
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

/// Whether the text of a `sshd_config` includes the directory of [`SNIPPET`] for everybody.
#[must_use]
pub fn includes(config: &str) -> bool {
    let before_match = config.lines().map(str::trim).take_while(|line| !line.to_lowercase().starts_with("match "));
    let mut words = before_match.filter_map(|line| line.split_once([' ', '\t', '=']));
    words.any(|(key, value)| key.eq_ignore_ascii_case("include") && value.contains("sshd_config.d/"))
}

/// The ports that sshd's settings name.
#[must_use]
pub fn ports(settings: &Settings) -> Vec<u16> {
    settings.all("port").filter_map(|port| port.parse().ok()).collect()
}

/// The ports with a listener, from the text of `/proc/net/tcp` or `tcp6`.
#[must_use]
pub fn listening(proc_net_tcp: &str) -> Vec<u16> {
    // The state of a listener is 0A.
    let port = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next()?.rsplit(':').next()?;
        (fields.nth(1)? == "0A").then(|| u16::from_str_radix(local, 16).ok())?
    };
    proc_net_tcp.lines().filter_map(port).collect()
}

/// What sshd demands of the program and of every directory above it; `facts` are (path, uid, mode), from the program up.
#[must_use]
pub fn program(facts: &[(String, Option<(u32, u32)>)]) -> Option<Finding> {
    let wrong = |sentence: String| Finding::problem(CHECK, sentence);
    for (path, fact) in facts {
        match fact {
            None => return Some(wrong(format!("{path} is missing")).mend("Install the package borgcube-server again")),
            Some((uid, _)) if *uid != 0 => {
                return Some(
                    wrong(format!("{path} does not belong to root: sshd does not run {COMMAND}")).run(format!("chown root {path}")),
                );
            }
            Some((_, mode)) if mode & 0o022 != 0 => {
                let sentence = format!("{path} can be changed by others (mode {:04o}): sshd does not run {COMMAND}", mode & 0o7777);
                return Some(wrong(sentence).run(format!("chmod go-w {path}")));
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
        check(&Settings::parse(text), Surroundings { parallel: 16, locked: Some(true), ..Default::default() })
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
        assert!(finding.run[0].contains("echo 'MaxStartups 32:30:160' >"), "{finding:?}");
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
    fn a_snippet_that_is_gone_or_not_included_is_brought_back() {
        let none = Settings::parse(&GOOD.replace("authorizedkeyscommand /usr", "x /usr"));
        let runs = |snippet| check(&none, Surroundings { parallel: 1, snippet, ..Default::default() }).remove(0).run;
        let restore = "cp /usr/share/borgcube/sshd_config.conf /etc/ssh/sshd_config.d/borgcube.conf && sshd -t && systemctl reload ssh";
        assert_eq!(runs(Some((false, true))), [restore]);
        let include = "sed -i '1i Include /etc/ssh/sshd_config.d/*.conf' /etc/ssh/sshd_config";
        assert_eq!(runs(Some((true, false))), [include, restore]);
        assert_eq!(runs(None), [restore]);
        assert!(includes("# x\nInclude /etc/ssh/sshd_config.d/*.conf\nPort 22") && includes("include\t/etc/ssh/sshd_config.d/*.conf"));
        assert!(!includes("#Include /etc/ssh/sshd_config.d/*.conf\nMatch User x\nInclude /etc/ssh/sshd_config.d/*.conf"));
    }

    #[test]
    fn who_listens_at_a_port_according_to_the_kernel() {
        let text = "  sl  local_address rem_address   st tx_queue\n\
            0: 00000000:0016 00000000:0000 0A 00000000:00000000\n   1: 0100007F:8000 0100007F:0016 01 0:0\nnonsense\n";
        assert_eq!(listening(text), [22]);
        assert_eq!(ports(&Settings::parse("port 22\nport 2222\n")), [22, 2222]);
        let stopped = check(&Settings::parse(GOOD), Surroundings { listens: Some(false), ..Default::default() });
        assert_eq!((stopped.len(), stopped[0].run[0].as_str()), (1, "systemctl restart ssh"));
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
