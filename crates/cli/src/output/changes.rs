//! What an apply would do.

use super::{count, shown};
use model::declarative::{Difference, Plan, Step, Verb, inline};
use serde_json::Value;

/// Longest value on one line.
const WIDTH: usize = 160;

/// Everything, and how much it is.
pub fn plan(plan: &Plan) -> String {
    let mut text: String = plan.changes.iter().map(step).collect();
    for obstacle in &plan.obstacles {
        text.push_str(&format!("! {}\n", shown(&obstacle.message)));
    }
    text.push_str(&format!("\n{}.\n", summary(plan)));
    text
}

/// `2 to add, 1 to change`.
pub fn summary(plan: &Plan) -> String {
    let parts = [(Verb::Add, "added"), (Verb::Change, "changed"), (Verb::Remove, "removed")];
    let mut parts: Vec<String> = parts
        .into_iter()
        .map(|(verb, word)| (plan.count(verb), word))
        .filter(|(n, _)| *n > 0)
        .map(|(n, word)| format!("{n} {word}"))
        .collect();
    if !plan.obstacles.is_empty() {
        parts.push(format!("{} in the way", count(plan.obstacles.len() as u64, "thing")));
    }
    parts.join(", ")
}

fn step(step: &Step) -> String {
    let sign = match step.action {
        Verb::Add => '+',
        Verb::Change => '~',
        Verb::Remove => '-',
    };
    let name = if step.name.is_empty() { String::new() } else { format!(" {}", step.name) };
    let mut text = format!("{sign} {}{}\n", step.kind, shown(&name));
    // What is removed is shown by its name alone: the fields are in the log, and in git.
    if step.action != Verb::Remove {
        step.fields.iter().for_each(|field| text.push_str(&difference(step.action, field)));
    }
    text
}

fn difference(verb: Verb, difference: &Difference) -> String {
    let Difference { field, old, new } = difference;
    if verb == Verb::Add {
        return format!("    {field} = {}\n", value(new.as_ref()));
    }
    if let (Some(Value::Array(old)), Some(Value::Array(new))) = (old, new) {
        let gone = old.iter().filter(|element| !new.contains(element)).map(|element| format!("        - {}\n", value(Some(element))));
        let come = new.iter().filter(|element| !old.contains(element)).map(|element| format!("        + {}\n", value(Some(element))));
        let elements: String = gone.chain(come).collect();
        // Otherwise it is another order.
        if !elements.is_empty() {
            return format!("    {field}:\n{elements}");
        }
    }
    format!("    {field}: {} -> {}\n", value(old.as_ref()), value(new.as_ref()))
}

fn value(value: Option<&Value>) -> String {
    let text = value.map_or_else(|| "(default)".to_owned(), inline);
    let cut: String = text.chars().take(WIDTH).collect();
    let more = if cut.len() < text.len() { "..." } else { "" };
    format!("{}{more}", shown(&cut))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::declarative::{Change, Kind, Obstacle, Record};
    use serde_json::json;

    #[test]
    fn a_plan_reads_like_a_plan() {
        let settings: model::Settings =
            serde_json::from_value(json!({"server_id": "s", "limits": {"per_client": 1, "per_repository": 8, "total": 16}})).unwrap();
        let step = |action, kind, name: &str, fields| Step {
            action,
            kind,
            name: name.to_owned(),
            fields,
            change: Change::Remove(Record::Settings(Box::new(settings.clone()))),
        };
        let field = |field, old: Option<Value>, new: Option<Value>| Difference { field, old, new };
        let made = Plan {
            changes: vec![
                step(Verb::Change, Kind::Settings, "", vec![field("total", None, Some(json!(4)))]),
                step(Verb::Add, Kind::Client, "web2", vec![field("remote", None, Some(json!("root@web2")))]),
                step(
                    Verb::Change,
                    Kind::Config,
                    "web1/etc",
                    vec![
                        field("paths", Some(json!(["/etc", "/old"])), Some(json!(["/etc", "/home\u{1b}"]))),
                        field("compression", Some(json!("lz4")), None),
                    ],
                ),
                step(Verb::Remove, Kind::Schedule, "nightly", vec![field("enabled", Some(json!(false)), None)]),
            ],
            obstacles: vec![Obstacle { kind: Kind::Repository, name: "x".into(), message: "repository x is not here".into() }],
        };
        let text = plan(&made);
        let wanted = "\
~ settings
    total: (default) -> 4
+ client web2
    remote = \"root@web2\"
~ config web1/etc
    paths:
        - \"/old\"
        + \"/home\\u001B\"
    compression: \"lz4\" -> (default)
- schedule nightly
! repository x is not here

1 added, 2 changed, 1 removed, 1 thing in the way.
";
        assert_eq!(text, wanted);
    }
}
