//! Check configs.

use super::{Control, Errors, Field, Formed, Known, Section, Typed};
use model::check::{CheckPlan, Repositories};
use model::{CheckConfig, CheckName, Timestamp};
use store::Read;
use wire::control::Call;

/// The word for "those that match", which is no name of a repository.
const MATCHING: &str = "*";

fn plain(now: Timestamp) -> Option<CheckConfig> {
    Some(CheckConfig {
        name: "check".parse().ok()?,
        description: String::new(),
        repositories: Repositories::Matching(".*".into()),
        plan: CheckPlan::everything(false),
        created: now,
    })
}

fn repositories(errors: &mut Errors, typed: &Typed, before: Option<&CheckConfig>, known: &Known) -> Option<Repositories> {
    match typed.text("repository") {
        "" => {
            errors.add("repository", "choose which repositories are checked");
            None
        }
        MATCHING => {
            let stored =
                before.and_then(|before| if let Repositories::Matching(pattern) = &before.repositories { Some(pattern) } else { None });
            let pattern = typed.text_or("matching", stored.map(String::as_str));
            if pattern.is_empty() {
                errors.add("matching", "it is empty: write a regular expression for the repository's name, .* for all");
                return None;
            }
            let checked = model::schedule::whole_name("repository", pattern);
            errors.take("matching", checked.map(|_| Repositories::Matching(pattern.to_owned())))
        }
        _ => {
            let named = Repositories::Named(errors.parse(typed, "repository")?);
            let is_known = matches!(&named, Repositories::Named(name) if known.repositories.contains(name));
            if !is_known && before.is_none_or(|before| before.repositories != named) {
                errors.add("repository", format!("there is no repository {named}"));
            }
            Some(named)
        }
    }
}

impl Formed for CheckConfig {
    const WHAT: &'static str = "check config";
    const REST: Option<&'static str> = None;

    fn blank(_known: &Known, _of: &str) -> Typed {
        Typed::default()
            .with("repository", MATCHING)
            .with("matching", ".*")
            .with_switch("structure", true)
            .with_switch("archives", true)
            .with_switch("data", false)
            .with("promise_hours", CheckPlan::PROMISE_HOURS)
            .with("skip_hours", CheckPlan::PROMISE_HOURS / 2)
    }

    fn fields(&self) -> Typed {
        let (repository, matching) = match &self.repositories {
            Repositories::Named(name) => (name.as_str(), ""),
            Repositories::Matching(pattern) => (MATCHING, pattern.as_str()),
        };
        Typed::default()
            .with("name", &self.name)
            .with("description", &self.description)
            .with("repository", repository)
            .with("matching", matching)
            .with_switch("structure", self.plan.structure)
            .with_switch("archives", self.plan.archives)
            .with_switch("data", self.plan.data)
            .with("promise_hours", self.plan.promise_hours)
            .with("skip_hours", self.plan.skip_hours)
            .with_maybe("seconds", self.plan.seconds)
    }

    fn read(typed: &Typed, before: Option<&CheckConfig>, known: &Known) -> Result<CheckConfig, Errors> {
        let mut errors = Errors::default();
        let name: Option<CheckName> = errors.name(typed, CheckConfig::WHAT, before.map(|config| &config.name), &known.check_configs);
        let repositories = repositories(&mut errors, typed, before, known);
        let description = typed.text_or("description", before.map(|config| config.description.as_str())).to_owned();
        let promise_hours = errors.needed_number(typed, "promise_hours");
        let skip_hours = errors.number(typed, "skip_hours").unwrap_or(0);
        let plan = CheckPlan {
            structure: typed.switch("structure"),
            archives: typed.switch("archives"),
            data: typed.switch("data"),
            skip_hours,
            seconds: errors.number(typed, "seconds"),
            promise_hours,
            since: before.and_then(|config| config.plan.since),
        };
        if let Some(plain) = plain(known.now) {
            let mut probe = |field, config: CheckConfig| errors.probe(field, config.check());
            probe("description", CheckConfig { description: description.clone(), ..plain.clone() });
            let everything = CheckPlan::everything(false);
            probe("promise_hours", CheckConfig { plan: CheckPlan { promise_hours, ..everything.clone() }, ..plain.clone() });
            probe("seconds", CheckConfig { plan: CheckPlan { seconds: plan.seconds, ..everything.clone() }, ..plain.clone() });
            let parts = CheckPlan { structure: plan.structure, archives: plan.archives, data: plan.data, ..everything };
            probe("structure", CheckConfig { plan: parts, ..plain });
        }
        let record = name.zip(repositories).map(|(name, repositories)| CheckConfig {
            name,
            description,
            repositories,
            plan,
            created: before.map_or(known.now, |config| config.created),
        });
        errors.end(record, "skip_hours", CheckConfig::check)
    }

    fn sections(_typed: &Typed, before: Option<&CheckConfig>, known: &Known) -> Vec<Section> {
        let all = known.repositories.iter().map(|name| (name.to_string(), name.to_string()));
        let all = std::iter::once((MATCHING.to_owned(), "all matching the expression".to_owned())).chain(all).collect();
        vec![
            Section::new("", vec![Field::named("Name", before.is_none()), Field::description()]),
            Section::new(
                "Where",
                vec![
                    Field::new(
                        "repository",
                        "Repository",
                        Control::Choice(all),
                        "One, or with the first choice all whose names match the expression below.",
                    )
                    .required(),
                    Field::line("matching", "Expression", "A regular expression for the repository's whole name; .* for all."),
                ],
            ),
            Section::new(
                "What",
                vec![
                    Field::switch("structure", "Segment files", "Every entry is whole, and where the index has it."),
                    Field::switch("archives", "Archives", "Metadata and signatures, and that all chunks they refer to are there."),
                    Field::switch("data", "Data", "Every object decrypted, decompressed, and its id recomputed."),
                ],
            ),
            Section::new(
                "How often",
                vec![
                    Field::number(
                        "promise_hours",
                        "Everything once in so many hours",
                        "If it takes longer, the pages say that it is late. 336: two weeks.",
                    )
                    .required(),
                    Field::number(
                        "skip_hours",
                        "Leave out what was checked less than so many hours ago",
                        "So that each run does a part. 0: each run checks everything.",
                    ),
                    Field::number(
                        "seconds",
                        "End after so many seconds",
                        "The next check goes on there. Empty: it checks all that is due.",
                    ),
                ],
            ),
        ]
    }

    fn find(read: &Read<'_>, name: &str) -> store::Result<Option<CheckConfig>> {
        name.parse().map_or(Ok(None), |name| read.check_configs().get(&name))
    }

    fn name(&self) -> String {
        self.name.to_string()
    }

    fn page(&self) -> String {
        "/check-configs".to_owned()
    }

    fn place(&self) -> String {
        format!("/check-configs/{}", self.name)
    }

    fn add(self) -> Call {
        Call::AddCheckConfig { config: Box::new(self) }
    }

    fn update(self, previous: CheckConfig) -> Call {
        Call::UpdateCheckConfig { previous: Box::new(previous), config: Box::new(self) }
    }

    fn remove(&self) -> Call {
        Call::RemoveCheckConfig { name: self.name.clone() }
    }

    fn farewell(&self) -> &'static str {
        "What checks have found stays. No schedule may name it any more."
    }
}
