//! The fields of each kind of object, in the order in which they are written: what the file may have, what the manual says of it, and
//! where it is in the record.

use super::form::{Form, through};
use crate::hook::{Dump, Hook};
use crate::retention::Scope;
use crate::schedule::Action;
use crate::trigger::TriggerTarget;
use serde_json::Value;

/// A field of the file.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Where it is in the record.
    pub path: &'static [&'static str],
    /// How it is written.
    pub form: Form,
    /// It has to be there.
    pub required: bool,
    /// What it is, for the manual: a sentence without a full stop.
    pub about: &'static str,
}

const fn field(name: &'static str, path: &'static [&'static str], form: Form, about: &'static str) -> Field {
    Field { name, path, form, required: false, about }
}

const fn required(name: &'static str, path: &'static [&'static str], form: Form, about: &'static str) -> Field {
    Field { name, path, form, required: true, about }
}

/// A permanent key of a client without when it was added.
fn client_key(value: &Value) -> Result<Value, String> {
    let mut value = value.clone();
    if let Some(key) = value.as_object_mut() {
        key.entry("added").or_insert(0.into());
    }
    let mut full = through::<crate::sshkey::ClientKey>(&value)?;
    if let Some(key) = full.as_object_mut() {
        key.insert("added".into(), 0.into());
    }
    Ok(full)
}

/// A hook; a limit that nobody gave is the usual one.
fn hook(value: &Value) -> Result<Value, String> {
    limited::<Hook>(value, Hook::SECONDS)
}

/// A dump; a limit that nobody gave is the usual one.
fn dump(value: &Value) -> Result<Value, String> {
    limited::<Dump>(value, Dump::SECONDS)
}

fn limited<T: serde::Serialize + serde::de::DeserializeOwned>(value: &Value, seconds: u32) -> Result<Value, String> {
    let mut value = value.clone();
    if let Some(command) = value.as_object_mut() {
        command.entry("seconds").or_insert(seconds.into());
    }
    through::<T>(&value)
}

pub(super) const SETTINGS: &[Field] = &[
    field("per_client", &["limits", "per_client"], Form::Number, "Jobs that may run on one client at once"),
    field("per_repository", &["limits", "per_repository"], Form::Number, "Jobs that may run on one repository at once"),
    field("total", &["limits", "total"], Form::Number, "Jobs that may run at once in all"),
    field("objects", &["sessions", "objects"], Form::Number, "Objects that one backup may send"),
    field("small_objects", &["sessions", "small_objects"], Form::Number, "Of these, objects of less than 64 bytes"),
    field("bytes", &["sessions", "bytes"], Form::Number, "Bytes that one backup may send, compressed"),
    field("checkpoints", &["sessions", "checkpoints"], Form::Number, "Checkpoints that one backup may make"),
    field(
        "proposals_per_minute",
        &["sessions", "proposals_per_minute"],
        Form::Number,
        "Archives and checkpoints that are judged in a minute, beside the first 32",
    ),
    field("start_seconds", &["sessions", "start_seconds"], Form::Number, "Seconds until a client's borg must have begun"),
    field("idle_seconds", &["sessions", "idle_seconds"], Form::Number, "Seconds that a client may be silent"),
    field("total_seconds", &["sessions", "total_seconds"], Form::Number, "Seconds that a backup may last"),
    field("grace_seconds", &["sessions", "grace_seconds"], Form::Number, "Seconds before the speed of a message counts"),
    field("bytes_per_second", &["sessions", "bytes_per_second"], Form::Number, "The least speed of a message after that"),
    field("client_archives", &["sessions", "client_archives"], Form::Number, "Archives that a client may have in a repository"),
    field(
        "client_bytes",
        &["sessions", "client_bytes"],
        Form::Number,
        "Bytes that a client's archives may hold in a repository, compressed, what it shares with others counted in full",
    ),
    field("log_bytes", &["sessions", "log_bytes"], Form::Number, "Bytes of what the client of one backup writes that are kept"),
    field("web_peer", &["web", "peer"], Form::Switch, "Believe the status daemon which Unix user is at its Unix socket"),
    field("web_proxy", &["web", "proxy"], Form::Switch, "Believe the status daemon whom a web server before it has signed in"),
];

pub(super) const REPOSITORY: &[Field] = &[
    required("url", &["url"], Form::Text, "An absolute path, or ssh://USER@HOST[:PORT]/PATH"),
    field("description", &["description"], Form::Text, "A note"),
    required(
        "repository_id",
        &["repository_id"],
        Form::Text,
        "Borg's repository id, 64 hex digits; it cannot be changed: another id is another repository",
    ),
    required("encryption", &["encryption"], Form::Text, "Borg's encryption mode, such as repokey-blake2; it cannot be changed"),
    field("remote_borg", &["remote_borg"], Form::Text, "The borg program that serves it, here or on the host of an ssh:// URL"),
    field("rsh", &["rsh"], Form::Text, "The SSH command for an ssh:// URL"),
];

pub(super) const CLIENT: &[Field] = &[
    field("local", &["connection", "kind"], Form::Local, "The client is this machine itself, without SSH; not on an installed server"),
    field("remote", &["connection", "remote"], Form::Text, "USER@HOST, or a host alias of ssh_config; every client but a local one has it"),
    field("description", &["description"], Form::Text, "A note"),
    field("rsh", &["connection", "rsh"], Form::Text, "The SSH program (default: ssh)"),
    field("rsh_options", &["connection", "rsh_options"], Form::Texts, "Further arguments for it, before the host"),
    field(
        "ssh_identity_file",
        &["connection", "ssh_identity_file"],
        Form::Text,
        "The file with the private key for it, on the server; the key itself is never in the configuration",
    ),
    field("remote_borg", &["connection", "remote_borg"], Form::Text, "The borg program on the client (default: borg)"),
    field("remote_cache_dir", &["connection", "remote_cache_dir"], Form::Text, "Where the client's Borg cache is"),
    field("server", &["connection", "server"], Form::Text, "How the client reaches this server: USER@HOST[:PORT]"),
    field(
        "road",
        &["connection", "road"],
        Form::Text,
        "back: the client connects back by SSH (the default); carrier: the server's own connection carries the backup",
    ),
    field(
        "key",
        &["connection", "key"],
        Form::Text,
        "job: the client comes with a key made for each job (the default); permanent: with its own, see keys",
    ),
    field("client_rsh", &["connection", "client_rsh"], Form::Text, "The client's SSH command to this server"),
    field(
        "keys",
        &["keys"],
        Form::Tables(client_key),
        "Its permanent public keys: { key = \"TYPE BASE64\" }, and from = \"ADDRESSES\" if it may come only from there",
    ),
    field(
        "blackouts",
        &["blackouts"],
        Form::Blackouts,
        "When no scheduled backup of it begins, such as \"mon-fri 08:00-18:00 Europe/Berlin\"",
    ),
    field(
        "borg_binary",
        &["borg_binary"],
        Form::Text,
        "Whether its backups use a Borg binary of this server: if-needed (the default), always, never",
    ),
];

pub(super) const CONFIG: &[Field] = &[
    required("repository", &["repository"], Form::Text, "Where the archives go"),
    field("paths", &["paths"], Form::Texts, "What is backed up, as the client sees it"),
    field("excludes", &["excludes"], Form::Texts, "As borg create --exclude"),
    field("patterns", &["patterns"], Form::Texts, "As borg create --pattern"),
    field("one_file_system", &["one_file_system"], Form::Switch, "Stay on the file systems of the paths"),
    field("compression", &["compression"], Form::Text, "As borg create --compression"),
    field("checkpoint_interval", &["checkpoint_interval"], Form::Number, "Seconds between checkpoints (default: Borg's)"),
    field("read_special", &["read_special"], Form::Switch, "Read block devices and FIFOs as if they were regular files"),
    field("ignore_inode", &["ignore_inode"], Form::Switch, "Leave inode numbers out when files are compared with the last backup"),
    field("extra_options", &["extra_options"], Form::Texts, "Further options of borg create, each one argument"),
    field(
        "target_age_hours",
        &["target_age_hours"],
        Form::Number,
        "Hours after which a person has to hear that there is no newer good backup (default: 26)",
    ),
    field(
        "hooks",
        &["hooks"],
        Form::Tables(hook),
        "Commands around the backup, for the client's sh: { name = \"NAME\", before = \"...\", after = \"...\", seconds = 600, on_failure = \"fail\"          or \"warn\" }; see borgcube-hook-add(1)",
    ),
    field(
        "dumps",
        &["dumps"],
        Form::Tables(dump),
        "Commands whose output is a file of the archive: { name = \"NAME\", command = \"...\", seconds = 21600, spool = false }; see          borgcube-dump-add(1)",
    ),
];

pub(super) const POLICY: &[Field] = &[
    field("description", &["description"], Form::Text, "A note"),
    field("within", &["within"], Form::Text, "Everything younger is kept: 36H, 14d, 8w, 6m, 2y"),
    field(
        "keep",
        &["keep"],
        Form::Keep,
        "How many periods keep their newest archive: secondly, minutely, hourly, daily, weekly, monthly, 13weekly, 3monthly, yearly; \"all\" for all",
    ),
    field("minimum", &["minimum"], Form::Number, "So many of the newest archives of a config are kept whatever the rules say (default: 3)"),
    field("zone", &["zone"], Form::Text, "The time zone in which days, weeks and so on begin (default: UTC)"),
    field("most_per_day", &["most_per_day"], Form::Number, "More archives of a config in 24 hours stop pruning (default: 48)"),
    field("grace_hours", &["grace_hours"], Form::Number, "Hours from the decision to the deletion (default: 168)"),
    field(
        "applies",
        &["applies"],
        Form::Tables(through::<Scope>),
        "What it decides about: { kind = \"config\", config = \"CLIENT/LABEL\" }, or { kind = \"configs\", client = \"REGEX\", label = \"REGEX\" }",
    ),
];

pub(super) const CHECK_CONFIG: &[Field] = &[
    required("repository", &["repositories"], Form::Variant("named"), "It is for this repository"),
    required(
        "matching",
        &["repositories"],
        Form::Variant("matching"),
        "It is for all repositories whose whole name matches this regular expression, \".*\" for all",
    ),
    field("description", &["description"], Form::Text, "A note"),
    field(
        "structure",
        &["structure"],
        Form::Switch,
        "Check segment files: that every entry is whole, and where the index has it (default: true)",
    ),
    field(
        "archives",
        &["archives"],
        Form::Switch,
        "Check the manifest, the archives' metadata and signatures, and that all chunks they refer to are there (default: true)",
    ),
    field(
        "data",
        &["data"],
        Form::Switch,
        "Check the content of every object: decrypted, decompressed, its id recomputed (default: false)",
    ),
    field(
        "promise_hours",
        &["promise_hours"],
        Form::Number,
        "Everything is to be checked once in so many hours; whether it is, borgcube repository show tells (default: 336, two weeks)",
    ),
    field(
        "skip_hours",
        &["skip_hours"],
        Form::Number,
        "What was checked less than so many hours ago is left out (default: 0, so nothing is; borgcube check-config add takes half of promise_hours)",
    ),
    field(
        "seconds",
        &["seconds"],
        Form::Number,
        "A check ends after so many seconds, and the next one goes on with what was not checked for longest (default: it checks all that is due)",
    ),
];

pub(super) const SCHEDULE: &[Field] = &[
    required(
        "recurrence",
        &["recurrence"],
        Form::Recurrence,
        "When, with a time zone: \"daily 02:30 Europe/Berlin\", or the lines of RFC 5545; see borgcube-schedule-add(1)",
    ),
    field("description", &["description"], Form::Text, "A note"),
    field("enabled", &["enabled"], Form::Switch, "false: its occurrences are recorded as skipped (default: true)"),
    field("jitter_seconds", &["jitter_seconds"], Form::Number, "A run begins up to so many seconds later"),
    required(
        "actions",
        &["actions"],
        Form::Tables(through::<Action>),
        "What is done, in this order; each { kind = \"KIND\", ... } as borgcube schedule show --json has it",
    ),
];

pub(super) const TRIGGER: &[Field] = &[
    required(
        "target",
        &["target"],
        Form::Table(through::<TriggerTarget>),
        "What it starts: { kind = \"schedule\", schedule = \"NAME\" } or { kind = \"config\", config = \"CLIENT/LABEL\" }",
    ),
    required("access", &["access"], Form::Text, "From where it may be used: local-cli or anonymous-web"),
    field("comment", &["comment"], Form::Text, "Who got it, what for"),
    field("enabled", &["enabled"], Form::Switch, "Whether it may be used (default: true)"),
];
