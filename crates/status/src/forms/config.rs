//! Backup configs. Hooks, dumps and further options of borg create are on no form: they are commands, or lead to some.

use super::typed::WHOLE;
use super::{Control, Errors, Field, Formed, Known, Section, Typed, kept};
use model::hook::Commands;
use model::{BackupConfig, ConfigName, Timestamp, validate};
use store::Read;
use wire::control::Call;

/// Borg's, to choose from.
const COMPRESSIONS: [&str; 7] = ["none", "lz4", "zstd", "zstd,3", "zstd,10", "auto,zstd", "lzma,6"];

/// A config with nothing special, to see what is wrong with one field.
fn plain() -> Option<BackupConfig> {
    Some(BackupConfig {
        client: "client".parse().ok()?,
        label: "label".parse().ok()?,
        repository: "repository".parse().ok()?,
        paths: vec!["/".into()],
        excludes: vec![],
        patterns: vec![],
        one_file_system: false,
        compression: None,
        checkpoint_interval: None,
        read_special: false,
        ignore_inode: false,
        extra_options: vec![],
        target_age_hours: BackupConfig::TARGET_AGE_HOURS,
        commands: Commands::default(),
        created: Timestamp(0),
    })
}

/// The client and the label. Those of a new one are in two fields, of which the first has been filled by the address.
fn name(errors: &mut Errors, typed: &Typed, before: Option<&BackupConfig>, known: &Known) -> Option<ConfigName> {
    if let Some(before) = before {
        return Some(before.name());
    }
    let (client, label) = (errors.parse(typed, "client"), errors.parse(typed, "name"));
    let name = ConfigName { client: client?, label: label? };
    if !known.clients.contains(&name.client) {
        errors.add("client", format!("there is no client {}", name.client));
    }
    if known.configs.contains(&name) {
        errors.add("name", format!("there is a backup config {name} already: choose another label, or change that one"));
    }
    Some(name)
}

impl Formed for BackupConfig {
    const WHAT: &'static str = "backup config";
    const REST: Option<&'static str> = Some("borgcube config edit");

    fn blank(known: &Known, of: &str) -> Typed {
        let mut repositories = known.repositories.iter();
        // Of one there is no choice.
        let only = repositories.next().filter(|_| repositories.next().is_none());
        Typed::default()
            .with("client", of)
            .with_maybe("repository", only)
            .with("target_age_hours", BackupConfig::TARGET_AGE_HOURS)
            .with_switch("one_file_system", false)
    }

    fn fields(&self) -> Typed {
        Typed::default()
            .with("client", &self.client)
            .with("name", &self.label)
            .with("repository", &self.repository)
            .with_lines("paths", &self.paths)
            .with_lines("excludes", &self.excludes)
            .with_lines("patterns", &self.patterns)
            .with_switch("one_file_system", self.one_file_system)
            .with_maybe("compression", self.compression.as_ref())
            .with_maybe("checkpoint_interval", self.checkpoint_interval)
            .with_switch("read_special", self.read_special)
            .with_switch("ignore_inode", self.ignore_inode)
            .with("target_age_hours", self.target_age_hours)
    }

    fn read(typed: &Typed, before: Option<&BackupConfig>, known: &Known) -> Result<BackupConfig, Errors> {
        let mut errors = Errors::default();
        let name = name(&mut errors, typed, before, known);
        let repository = match typed.text("repository") {
            "" => {
                errors.add("repository", "choose where the archives go");
                None
            }
            _ => errors.parse(typed, "repository").filter(|repository| {
                let is_there = known.repositories.contains(repository);
                if !is_there {
                    errors.add("repository", format!("there is no repository {repository}"));
                }
                is_there
            }),
        };
        let mut lines = |field, of: fn(&BackupConfig) -> &Vec<String>| match kept(typed, before, field) {
            Some(before) => of(before).clone(),
            None => errors.exact_lines(typed, field, before.map(of).map_or(&[], Vec::as_slice), field == "paths"),
        };
        let paths = lines("paths", |config| &config.paths);
        let (excludes, patterns) = (lines("excludes", |config| &config.excludes), lines("patterns", |config| &config.patterns));
        let relative = paths.iter().find(|path| !path.starts_with('/') && !before.is_some_and(|before| before.paths.contains(path)));
        if let Some(path) = relative {
            errors.add("paths", format!("{path:?} is not an absolute path: write paths as the client sees them, from / on"));
        }
        let compression = Some(typed.text("compression")).filter(|text| !text.is_empty()).map(str::to_owned);
        let checkpoint_interval = errors.number(typed, "checkpoint_interval");
        let target_age_hours = errors.needed_number(typed, "target_age_hours");
        if let Some(plain) = plain() {
            let mut probe = |field, config: BackupConfig| errors.probe(field, validate::config(&config));
            probe("excludes", BackupConfig { excludes: excludes.clone(), ..plain.clone() });
            probe("patterns", BackupConfig { patterns: patterns.clone(), ..plain.clone() });
            probe("compression", BackupConfig { compression: compression.clone(), ..plain.clone() });
            probe("checkpoint_interval", BackupConfig { checkpoint_interval, ..plain.clone() });
            probe("target_age_hours", BackupConfig { target_age_hours, ..plain.clone() });
            if !paths.is_empty() {
                probe("paths", BackupConfig { paths: paths.clone(), ..plain });
            }
        }
        if let Some((plain, before)) = plain().zip(before)
            && let Err(sentence) = validate::config(&BackupConfig { extra_options: before.extra_options.clone(), ..plain })
        {
            errors.add(WHOLE, format!("{sentence}: an option that is on no form; `borgcube config edit` on the server changes it"));
        }
        let record = name.zip(repository).map(|(name, repository)| BackupConfig {
            client: name.client,
            label: name.label,
            repository,
            paths,
            excludes,
            patterns,
            one_file_system: typed.switch("one_file_system"),
            compression,
            checkpoint_interval,
            read_special: typed.switch("read_special"),
            ignore_inode: typed.switch("ignore_inode"),
            extra_options: before.map_or_else(Vec::new, |config| config.extra_options.clone()),
            target_age_hours,
            commands: before.map_or_else(Commands::default, |config| config.commands.clone()),
            created: before.map_or(known.now, |config| config.created),
        });
        // What is left is about paths that are missing, or do not go together with dumps.
        errors.end(record, "paths", validate::config)
    }

    fn sections(_typed: &Typed, before: Option<&BackupConfig>, known: &Known) -> Vec<Section> {
        let repositories = known.repositories.iter().map(|name| (name.to_string(), name.to_string()));
        let repositories = std::iter::once((String::new(), "choose one".to_owned())).chain(repositories).collect();
        let paths = "Absolute paths as the client sees them, one per line.";
        vec![
            Section::new(
                "",
                vec![
                    Field::new("client", "Client", Control::Fixed, ""),
                    Field::named("Label", before.is_none()),
                    Field::new(
                        "repository",
                        "Repository",
                        Control::Choice(repositories),
                        "Where its archives go. Several configs may share one: what is the same in them is stored once.",
                    )
                    .required(),
                    Field::number(
                        "target_age_hours",
                        "Target age in hours",
                        "With no good backup for so long, the pages, metrics and reports say so. 26: a day, and two hours more.",
                    )
                    .required(),
                ],
            ),
            Section::new(
                "What is backed up",
                vec![
                    Field::lines("paths", "Paths", paths),
                    Field::lines(
                        "excludes",
                        "Left out",
                        "One pattern per line, as borg create --exclude takes them: */.cache, /home/*/tmp, or with re: a regular expression.",
                    ),
                    Field::lines(
                        "patterns",
                        "Patterns",
                        "For what the field above cannot say. Lines as borg create --pattern takes them, of which the first that fits counts: + /home/*/mail, then - /home.",
                    ),
                    Field::switch(
                        "one_file_system",
                        "Stay on the file systems of the paths",
                        "What is mounted below a path (disks, network, /proc) is left out, unless it is a path of its own.",
                    ),
                    Field::switch(
                        "read_special",
                        "Read block devices and FIFOs as if they were files",
                        "For paths such as /dev/vg/root. A FIFO that nobody writes to stops the backup for ever.",
                    ),
                ],
            ),
            Section::new(
                "How",
                vec![
                    Field::suggesting(
                        "compression",
                        "Compression",
                        COMPRESSIONS.map(str::to_owned).to_vec(),
                        "As borg create --compression takes it: zstd,3 is a good choice. Empty: Borg's default, lz4.",
                    ),
                    Field::number(
                        "checkpoint_interval",
                        "Seconds between checkpoints",
                        "After a checkpoint, a backup that breaks off goes on from there the next time. Empty: Borg's default, half an hour.",
                    ),
                    Field::switch(
                        "ignore_inode",
                        "Recognise unchanged files without their inode number",
                        "For network file systems, whose inode numbers change: without this every file would be read again.",
                    ),
                ],
            ),
        ]
    }

    fn find(read: &Read<'_>, name: &str) -> store::Result<Option<BackupConfig>> {
        name.parse().map_or(Ok(None), |name| read.configs().get(&name))
    }

    fn name(&self) -> String {
        BackupConfig::name(self).to_string()
    }

    fn page(&self) -> String {
        format!("/clients/{}", self.client)
    }

    fn place(&self) -> String {
        format!("/clients/{}/configs/{}", self.client, self.label)
    }

    fn add(self) -> Call {
        Call::AddConfig { config: self }
    }

    fn update(self, previous: BackupConfig) -> Call {
        Call::UpdateConfig { previous, config: self }
    }

    fn remove(&self) -> Call {
        Call::RemoveConfig { name: BackupConfig::name(self) }
    }

    fn farewell(&self) -> &'static str {
        "Its archives stay, and policies go on deciding about them. Nothing is backed up by it any more."
    }
}
