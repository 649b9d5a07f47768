//! The pages around forms: an empty one, one with a record in it, the same again with what is wrong, and the question before something goes.

use super::typed::{WHOLE, row_of};
use super::{Control, Errors, Field, Formed, Known, Section, Typed, spoken, version};
use crate::control::Trouble;
use crate::query::Unanswered;
use crate::text;
use crate::view::{ChangedGroup, Context, Frame};
use askama::Template;
use model::{BackupConfig, CheckConfig, Client, Policy, Schedule};
use schemars::JsonSchema;
use serde::Serialize;
use store::Read;
use wire::control::{Call, ErrorKind};

/// What a form is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A client.
    Client,
    /// A backup config.
    Config,
    /// A schedule.
    Schedule,
    /// A retention policy.
    Policy,
    /// A check config.
    CheckConfig,
}

/// What is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// It is a new one.
    Add,
    /// It is changed.
    Edit,
    /// It goes.
    Remove,
}

impl Verb {
    fn word(self) -> &'static str {
        match self {
            Verb::Add => "add",
            Verb::Edit => "edit",
            Verb::Remove => "remove",
        }
    }
}

/// What is done to which record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Of which kind.
    pub kind: Kind,
    /// What.
    pub verb: Verb,
    /// Its name; of a new config the name of its client, of other new records nothing.
    pub name: String,
}

impl Target {
    /// What the path of a page asks for, if it asks for a form.
    #[must_use]
    pub fn of_path(segments: &[&str]) -> Option<Target> {
        let target = |kind, verb, name: &str| Some(Target { kind, verb, name: name.to_owned() });
        let verb = |word| match word {
            "edit" => Some(Verb::Edit),
            "remove" => Some(Verb::Remove),
            _ => None,
        };
        let kind = |word| match word {
            "clients" => Some(Kind::Client),
            "schedules" => Some(Kind::Schedule),
            "policies" => Some(Kind::Policy),
            "check-configs" => Some(Kind::CheckConfig),
            _ => None,
        };
        match segments {
            ["clients", client, "configs", "new"] => target(Kind::Config, Verb::Add, client),
            ["clients", client, "configs", label, word] => target(Kind::Config, verb(word)?, &format!("{client}/{label}")),
            [of, "new"] => target(kind(of)?, Verb::Add, ""),
            [of, name, word] => target(kind(of)?, verb(word)?, name),
            _ => None,
        }
    }

    /// Whether its address may be that of a record with the name `new` as well.
    #[must_use]
    pub fn may_be_a_name(&self) -> bool {
        self.verb == Verb::Add && matches!(self.kind, Kind::Client | Kind::Policy)
    }

    /// The address of its page.
    #[must_use]
    pub fn path(&self) -> String {
        let list = self.kind.list("");
        match (self.kind, self.verb, self.name.split_once('/')) {
            (Kind::Config, Verb::Add, _) => format!("/clients/{}/configs/new", self.name),
            (Kind::Config, verb, Some((client, label))) => format!("/clients/{client}/configs/{label}/{}", verb.word()),
            (_, Verb::Add, _) => format!("{list}/new"),
            (_, verb, _) => format!("{list}/{}/{}", self.name, verb.word()),
        }
    }

    /// What an act is for: its name, and the fields that came with it.
    #[must_use]
    pub fn of_act(act: &str, sent: &Typed) -> Option<Target> {
        let (verb, kind) = act.split_once('-')?;
        let verb = [Verb::Add, Verb::Edit, Verb::Remove].into_iter().find(|known| known.word() == verb)?;
        let kind = KINDS.into_iter().find(|known| known.word() == kind)?;
        let name = match (verb, kind) {
            (Verb::Add, Kind::Config) => sent.text("client"),
            (Verb::Add, _) => "",
            (Verb::Edit | Verb::Remove, _) => sent.text("record"),
        };
        Some(Target { kind, verb, name: name.to_owned() })
    }

    /// The act that it is sent to.
    #[must_use]
    pub fn act(&self) -> String {
        format!("{}-{}", self.verb.word(), self.kind.word())
    }
}

const KINDS: [Kind; 5] = [Kind::Client, Kind::Config, Kind::Schedule, Kind::Policy, Kind::CheckConfig];

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Client => "client",
            Kind::Config => "config",
            Kind::Schedule => "schedule",
            Kind::Policy => "policy",
            Kind::CheckConfig => "check-config",
        }
    }

    /// The entry of the navigation.
    fn section(self) -> &'static str {
        match self {
            Kind::Client | Kind::Config => "clients",
            Kind::Schedule | Kind::CheckConfig => "schedules",
            Kind::Policy => "policies",
        }
    }

    /// Where to go from a form of a new one that is given up.
    fn list(self, of: &str) -> String {
        match self {
            Kind::Config => format!("/clients/{of}"),
            Kind::Client => "/clients".to_owned(),
            Kind::Schedule => "/schedules".to_owned(),
            Kind::Policy => "/policies".to_owned(),
            Kind::CheckConfig => "/check-configs".to_owned(),
        }
    }
}

/// Something that is wrong, and where.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Wrong {
    /// The field's name; nothing: all of it.
    pub field: String,
    /// What people call the field.
    pub label: String,
    /// What is wrong.
    pub sentence: String,
}

/// A form.
#[derive(Debug, Template, Serialize, JsonSchema)]
#[template(path = "form.html")]
pub struct FormPage {
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) frame: Frame,
    /// What it is for: `Add a client`.
    pub title: String,
    /// The act that takes it.
    pub act: String,
    /// Fields that nobody sees, and that are sent with it: `record`, `version`, `previewed`.
    pub hidden: Vec<(String, String)>,
    /// The fields that people see.
    pub sections: Vec<Section>,
    /// What is wrong, from the top to the bottom.
    pub errors: Vec<Wrong>,
    /// What to know besides.
    pub notice: Option<String>,
    /// What a person should know about it all the same.
    pub warnings: Vec<String>,
    /// What would be otherwise. Only of a policy.
    pub preview: Option<Vec<ChangedGroup>>,
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) rest: Option<&'static str>,
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) submit: &'static str,
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) more: bool,
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) back: String,
}

/// The question before something goes.
#[derive(Debug, Template, Serialize, JsonSchema)]
#[template(path = "question.html")]
pub struct Question {
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) frame: Frame,
    /// What is asked.
    pub title: String,
    /// What to know before.
    pub sentence: String,
    /// The act that takes the answer.
    pub act: String,
    /// Fields that are sent with it: `record`, `version`.
    pub hidden: Vec<(String, String)>,
    /// Why it was not done.
    pub error: Option<String>,
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) back: String,
}

/// What a form, or the answer to a question, leads to.
#[derive(Debug)]
pub enum Prepared {
    /// This is to be carried out.
    Call {
        /// The call.
        call: Box<Call>,
        /// The page to show then.
        page: String,
        /// What was done then, in a sentence.
        done: String,
    },
    /// The form once more, with what is wrong with it, or what it would do.
    Form(Box<FormPage>),
    /// The question once more.
    Question(Box<Question>),
}

impl Prepared {
    /// Whether something is wrong with what was sent.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Prepared::Call { .. } => false,
            Prepared::Form(page) => !page.errors.is_empty(),
            Prepared::Question(question) => question.error.is_some(),
        }
    }
}

impl Prepared {
    /// What is wrong, in one sentence.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        let sentence = |wrong: &Wrong| match wrong.field.as_str() {
            "" => wrong.sentence.clone(),
            field => format!("{field}: {}", wrong.sentence),
        };
        match self {
            Prepared::Call { .. } => None,
            Prepared::Form(page) => (!page.errors.is_empty()).then(|| page.errors.iter().map(sentence).collect::<Vec<_>>().join("; ")),
            Prepared::Question(question) => question.error.clone(),
        }
    }

    /// As programs get it.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        match self {
            Prepared::Call { .. } => serde_json::Value::Null,
            Prepared::Form(page) => serde_json::to_value(page).unwrap_or_default(),
            Prepared::Question(question) => serde_json::to_value(question).unwrap_or_default(),
        }
    }
}

/// Runs `$f` with the record's type.
macro_rules! by_kind {
    ($kind:expr, $f:ident($($argument:expr),*)) => {
        match $kind {
            Kind::Client => $f::<Client>($($argument),*),
            Kind::Config => $f::<BackupConfig>($($argument),*),
            Kind::Schedule => $f::<Schedule>($($argument),*),
            Kind::Policy => $f::<Policy>($($argument),*),
            Kind::CheckConfig => $f::<CheckConfig>($($argument),*),
        }
    };
}

/// The form, or the question, as it is shown first.
///
/// # Errors
/// There is no such record.
pub fn first(c: &Context<'_>, target: &Target, known: &Known) -> Result<Prepared, Unanswered> {
    by_kind!(target.kind, first_of(c, target, known))
}

/// What becomes of what somebody sent. `is_page`: by a form on a page, where a policy is shown before it is stored.
///
/// # Errors
/// The database cannot be read.
pub fn prepare(c: &Context<'_>, target: &Target, sent: &Typed, known: &Known, is_page: bool) -> Result<Prepared, Unanswered> {
    by_kind!(target.kind, prepare_of(c, target, sent, known, is_page))
}

/// The form once more, because borgcubed did not do what it says.
///
/// # Errors
/// The database cannot be read.
pub fn refused(c: &Context<'_>, target: &Target, sent: &Typed, known: &Known, trouble: &Trouble) -> Result<Prepared, Unanswered> {
    by_kind!(target.kind, refused_of(c, target, sent, known, trouble))
}

/// Whether there is a record of this name.
///
/// # Errors
/// The database cannot be read.
pub fn is_there(read: &Read<'_>, kind: Kind, name: &str) -> store::Result<bool> {
    fn of<T: Formed>(read: &Read<'_>, name: &str) -> store::Result<bool> {
        T::find(read, name).map(|found| found.is_some())
    }
    by_kind!(kind, of(read, name))
}

/// Something that a form does, for the API's document.
pub struct Description {
    /// The act.
    pub act: String,
    /// The path of its page.
    pub path: String,
    /// What it does.
    pub about: String,
    /// What it takes.
    pub fields: Vec<Field>,
}

/// All that forms do.
#[must_use]
pub fn descriptions() -> Vec<Description> {
    fn of<T: Formed>(kind: Kind) -> Vec<Description> {
        let known = Known::default();
        let describe = |verb: Verb| {
            let name = match (kind, verb) {
                (Kind::Config, Verb::Add) => "{client}",
                (Kind::Config, _) => "{client}/{label}",
                _ => "{name}",
            };
            let target = Target { kind, verb, name: name.to_owned() };
            let fields = T::sections(&T::blank(&known, ""), None, &known).into_iter().flat_map(|section| section.fields);
            let fields = fields.filter(|field| verb == Verb::Add || !["name", "client"].contains(&field.name.as_str()));
            let (fields, about) = match verb {
                Verb::Add => (fields.collect(), format!("Add a {}", T::WHAT)),
                Verb::Edit => (fields.collect(), format!("Change a {}; what is not sent stays", T::WHAT)),
                Verb::Remove => (vec![], format!("Remove a {}", T::WHAT)),
            };
            Description { act: target.act(), path: target.path(), about, fields }
        };
        [Verb::Add, Verb::Edit, Verb::Remove].map(describe).into()
    }
    KINDS.into_iter().flat_map(|kind| by_kind!(kind, of(kind))).collect()
}

/// The first field that was sent and is none of this act: a mistake in writing must not pass for a value that was left out.
#[must_use]
pub fn unknown_field(act: &str, sent: &Typed) -> Option<String> {
    let description = descriptions().into_iter().find(|description| description.act == act)?;
    let is_known = |name: &str| {
        let same_row = |field: &Field| row_of(name).is_some_and(|row| row_of(&field.name) == Some(row));
        OF_EVERY_FORM.contains(&name) || description.fields.iter().any(|field| field.name == name || same_row(field))
    };
    sent.names().find(|name| !is_known(name)).map(str::to_owned)
}

/// What a program sends for a switch that is neither on nor off: nobody knows what was meant.
#[must_use]
pub fn wrong_switch(act: &str, sent: &Typed) -> Option<String> {
    let description = descriptions().into_iter().find(|description| description.act == act)?;
    let switches = description.fields.into_iter().filter(|field| matches!(field.control, Control::Switch));
    let is_wrong = |text: &str| !matches!(text, "" | "yes" | "true" | "on" | "1" | "no" | "false" | "off" | "0");
    let mut wrong = switches.filter(|field| is_wrong(sent.text(&field.name)));
    wrong.next().map(|field| format!("{} is true or false, not {:?}", field.name, super::typed::shortened(sent.text(&field.name))))
}

/// What says which record is meant, and who sends it.
const OF_EVERY_FORM: [&str; 8] = ["record", "version", "client", "preview", "previewed", "more", "csrf", "back"];

/// A form at work.
struct Making<'a, T> {
    c: &'a Context<'a>,
    target: &'a Target,
    known: &'a Known,
    before: Option<T>,
    typed: Typed,
}

impl<'a, T: Formed> Making<'a, T> {
    fn new(c: &'a Context<'a>, target: &'a Target, known: &'a Known, sent: &Typed) -> Result<Option<Making<'a, T>>, Unanswered> {
        let before = match target.verb {
            Verb::Add => None,
            Verb::Edit | Verb::Remove => match T::find(c.read, &target.name)? {
                Some(before) => Some(before),
                None => return Ok(None),
            },
        };
        let base = before.as_ref().map_or_else(|| T::blank(known, &target.name), T::fields);
        Ok(Some(Making { c, target, known, before, typed: base.overlaid(sent) }))
    }

    fn hidden(&self) -> Vec<(String, String)> {
        match &self.before {
            Some(before) => vec![("record".into(), before.name()), ("version".into(), version(before))],
            None if self.target.kind == Kind::Config => vec![("client".into(), self.target.name.clone())],
            None => vec![],
        }
    }

    fn back(&self) -> String {
        self.before.as_ref().map_or_else(|| self.target.kind.list(&self.target.name), T::page)
    }

    /// The page. `is_stale`: show what is stored now beside what was typed.
    fn page(self, errors: &Errors, is_stale: bool) -> FormPage {
        let stored = self.before.as_ref().filter(|_| is_stale).map(T::fields);
        let mut sections = filled(self.target.kind, &self.typed, self.before.as_ref(), self.known);
        let mut wrong = vec![];
        if let Some(sentence) = errors.of(WHOLE) {
            wrong.push(Wrong { field: String::new(), label: String::new(), sentence: sentence.clone() });
        }
        let mut shown = vec![];
        for field in sections.iter_mut().flat_map(|section| &mut section.fields) {
            field.error = errors.of(&field.name).cloned();
            let differs = stored.as_ref().map(|stored| stored.raw(&field.name)).filter(|stored| *stored != field.value);
            field.stored = differs.filter(|_| field.control != Control::Fixed).map(|stored| spoken(&field.control, stored));
            shown.push(field.name.clone());
            let label = field.label.clone();
            wrong.extend(field.error.clone().map(|sentence| Wrong { field: field.name.clone(), label, sentence }));
        }
        // What belongs to a field that this form has not is said all the same.
        let elsewhere = errors.iter().filter(|(field, _)| *field != WHOLE && !shown.contains(field));
        wrong.extend(elsewhere.map(|(field, sentence)| Wrong { field: String::new(), label: field.clone(), sentence: sentence.clone() }));
        let (title, submit) = match &self.before {
            Some(before) => (format!("Change {} {}", T::WHAT, before.name()), "Save"),
            None => (format!("Add a {}", T::WHAT), "Add"),
        };
        FormPage {
            frame: self.c.frame(self.target.kind.section()),
            title,
            act: self.target.act(),
            hidden: self.hidden(),
            back: self.back(),
            sections,
            errors: wrong,
            notice: None,
            warnings: vec![],
            preview: None,
            rest: T::REST,
            submit,
            more: self.target.kind == Kind::Schedule,
        }
    }

    fn question(self, error: Option<String>) -> Question {
        let (hidden, back) = (self.hidden(), self.back());
        let (name, sentence) = self.before.map_or_else(Default::default, |before| (before.name(), before.farewell()));
        Question {
            frame: self.c.frame(self.target.kind.section()),
            title: format!("Remove {} {name}?", T::WHAT),
            sentence: sentence.to_owned(),
            act: self.target.act(),
            hidden,
            error,
            back,
        }
    }
}

/// The fields of a form, and what is in them.
pub(super) fn filled<T: Formed>(kind: Kind, typed: &Typed, before: Option<&T>, known: &Known) -> Vec<Section> {
    let stored = before.map(T::fields);
    let mut sections = T::sections(typed, before, known);
    for field in sections.iter_mut().flat_map(|section| &mut section.fields) {
        field.value = typed.raw(&field.name).to_owned();
        if let Some(stored) = stored.as_ref().filter(|stored| field.control != Control::Fixed && !stored.is_carried(&field.name)) {
            field.control = Control::Fixed;
            field.required = false;
            field.value = stored.raw(&field.name).to_owned();
            field.hint = format!(
                "There is a line break in the midst of this, which a form cannot carry. Here it stays as it is; at the server, borgcube {} edit changes it.",
                kind.word()
            );
        }
        match &mut field.control {
            Control::Switch => field.value = if typed.switch(&field.name) { "yes" } else { "no" }.to_owned(),
            // What it has is to be chosen, also if it is gone by now: browsers would choose the first one.
            Control::Choice(options) if !field.value.is_empty() && !options.iter().any(|(word, _)| *word == field.value) => {
                options.push((field.value.clone(), field.value.clone()));
            }
            _ => {}
        }
    }
    sections
}

fn missing<T: Formed>(name: &str) -> Unanswered {
    Unanswered::NotFound(format!("there is no {} {name}", T::WHAT))
}

fn first_of<T: Formed>(c: &Context<'_>, target: &Target, known: &Known) -> Result<Prepared, Unanswered> {
    if target.kind == Kind::Config && target.verb == Verb::Add && !known.clients.iter().any(|client| client.as_str() == target.name) {
        return Err(missing::<Client>(&target.name));
    }
    let making = Making::<T>::new(c, target, known, &Typed::default())?.ok_or_else(|| missing::<T>(&target.name))?;
    Ok(match target.verb {
        Verb::Remove => Prepared::Question(Box::new(making.question(None))),
        Verb::Add | Verb::Edit => {
            let mut page = making.page(&Errors::default(), false);
            if target.kind == Kind::Policy {
                page.submit = SHOW;
            }
            Prepared::Form(Box::new(page))
        }
    })
}

/// What the button says that shows a policy before it is stored.
const SHOW: &str = "Show what it would do";

fn prepare_of<T: Formed>(c: &Context<'_>, target: &Target, sent: &Typed, known: &Known, is_page: bool) -> Result<Prepared, Unanswered> {
    let Some(making) = Making::<T>::new(c, target, known, sent)? else { return gone::<T>(c, target, sent, known) };
    let is_stale = making.before.as_ref().is_some_and(|before| version(before) != sent.text("version"));
    if target.verb == Verb::Remove {
        let what = making.before.as_ref().filter(|_| !is_stale).map(|before| (before.remove(), before.name()));
        return Ok(match what {
            Some((call, name)) => {
                let page = target.kind.list(name.split('/').next().unwrap_or_default());
                Prepared::Call { call: Box::new(call), page, done: format!("Removed {} {name}.", T::WHAT) }
            }
            None => {
                let sentence = "it was changed by somebody else since this was asked: look at it again, then answer once more";
                Prepared::Question(Box::new(making.question(Some(sentence.to_owned()))))
            }
        });
    }
    if !sent.raw("more").is_empty() {
        return Ok(Prepared::Form(Box::new(making.page(&Errors::default(), false))));
    }
    if is_stale {
        return Ok(stale(making));
    }
    let record = match T::read(&making.typed, making.before.as_ref(), known) {
        Ok(record) => record,
        Err(errors) => {
            let mut page = making.page(&errors, false);
            if target.kind == Kind::Policy {
                page.submit = SHOW;
            }
            return Ok(Prepared::Form(Box::new(page)));
        }
    };
    if making.before.as_ref() == Some(&record) {
        return Ok(Prepared::Form(Box::new(making.page(&Errors::of_all("nothing is different from what is stored"), false))));
    }
    let wants_preview = !sent.raw("preview").is_empty();
    let seen = record.decides(making.before.as_ref());
    if let Some(seen) = seen.filter(|seen| wants_preview || (is_page && sent.text("previewed") != seen)) {
        let preview = record.preview(c, making.before.as_ref())?;
        let mut page = making.page(&Errors::default(), false);
        page.hidden.push(("previewed".into(), seen));
        page.notice = Some("Nothing is saved yet. This is what it would do; what you change now is shown once more.".into());
        page.preview = Some(preview);
        page.warnings = record.warnings();
        return Ok(Prepared::Form(Box::new(page)));
    }
    let (name, page) = (record.name(), record.page());
    let (call, done) = match making.before {
        Some(before) => (record.update(before), format!("Changed {} {name}.", T::WHAT)),
        None => (record.add(), format!("Added {} {name}.", T::WHAT)),
    };
    Ok(Prepared::Call { call: Box::new(call), page, done })
}

/// Somebody else was faster.
fn stale<T: Formed>(making: Making<'_, T>) -> Prepared {
    let name = making.before.as_ref().map(T::name).unwrap_or_default();
    let sentence = format!(
        "{} {name} was changed by somebody else since this form was filled, and nothing was saved. What you typed is still here; where something else is \
         stored now, that is written beside it. Saving again puts yours in its place",
        T::WHAT
    );
    Prepared::Form(Box::new(making.page(&Errors::of_all(sentence), true)))
}

/// Somebody else has removed it.
fn gone<T: Formed>(c: &Context<'_>, target: &Target, sent: &Typed, known: &Known) -> Result<Prepared, Unanswered> {
    if target.verb == Verb::Remove {
        return Err(missing::<T>(&target.name));
    }
    let (of, name) = target.name.split_once('/').unwrap_or(("", &target.name));
    let anew = Target { kind: target.kind, verb: Verb::Add, name: of.to_owned() };
    let Some(making) = Making::<T>::new(c, &anew, known, &sent.clone().with("name", name))? else {
        return Err(missing::<T>(&target.name));
    };
    let sentence =
        format!("{} {} was removed by somebody else meanwhile. What you typed is still here, and can be added anew", T::WHAT, target.name);
    Ok(Prepared::Form(Box::new(making.page(&Errors::of_all(sentence), false))))
}

fn refused_of<T: Formed>(c: &Context<'_>, target: &Target, sent: &Typed, known: &Known, trouble: &Trouble) -> Result<Prepared, Unanswered> {
    let Some(making) = Making::<T>::new(c, target, known, sent)? else { return gone::<T>(c, target, sent, known) };
    let is_stale = making.before.as_ref().is_some_and(|before| version(before) != sent.text("version"));
    if target.verb == Verb::Remove {
        return Ok(Prepared::Question(Box::new(making.question(Some(trouble.to_string())))));
    }
    if is_stale {
        return Ok(stale(making));
    }
    let is_taken = matches!(trouble, Trouble::Refused(error) if error.kind == ErrorKind::AlreadyExists);
    // Of a name that was taken in this moment the form knows as much by now.
    let errors = if is_taken { T::read(&making.typed, None, known).err() } else { None };
    let errors = errors.unwrap_or_else(|| Errors::of_all(trouble.to_string()));
    Ok(Prepared::Form(Box::new(making.page(&errors, false))))
}
