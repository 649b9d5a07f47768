//! `borgcube user`.

use super::edit::{put, something};
use crate::complete;
use crate::context::Context;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::output::{cards, plans};
use clap::{ArgGroup, Subcommand};
use clap_complete::{ArgValueCandidates, CompletionCandidate};
use jiff::Zoned;
use jiff::civil::Date;
use model::web_user::{Role, SignInWay};
use model::{Timestamp, UserName, WebUser};
use wire::control::{Call, IssuedUser, WebUsers};

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add a user of the status pages, and print the token that the user signs in with
    Add(Add),
    /// List the users
    #[command(alias = "ls")]
    List,
    /// Show one user
    Show(Name),
    /// Change what a user may do
    Edit(Edit),
    /// Make a new token for a user; the old one is void at once
    Token(Name),
    /// Remove a user
    Remove(Name),
}

/// Options of `borgcube user add`.
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("way").args(["peer", "proxy"]), after_help = "\
A viewer looks. An operator also runs, cancels, checks, tests, holds, and enables and disables schedules. An administrator also changes records,
and deletes, releases and prunes archives. Nobody changes users, settings, repositories, hooks or SSH options on the pages.

The token is printed once and stored nowhere: whoever has it is this user.

Examples:
  borgcube user add alice --role operator --comment 'night shift'
  borgcube user add grafana --role viewer --expires 365d
  borgcube user add bob@example.net --role administrator --proxy")]
pub struct Add {
    /// Name of the user; the transaction log has it as web:NAME
    #[arg(value_name = "NAME")]
    name: UserName,
    /// Let the user do this: viewer, operator or administrator
    #[arg(long, value_name = "ROLE", add = ArgValueCandidates::new(roles))]
    role: Role,
    /// Take the Unix user of this name, who connects to the status daemon's Unix socket, without a token
    #[arg(long)]
    peer: bool,
    /// Take whom a web server before the status daemon has signed in by this name, without a token
    #[arg(long)]
    proxy: bool,
    /// Let it end then: 90d, 12h, a date such as 2027-03-31, or never
    #[arg(long, value_name = "WHEN", default_value = "never", hide_default_value = true, value_parser = expiry)]
    expires: Expiry,
    /// Keep a note with it: who it is, what for
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    comment: String,
}

/// Options of `borgcube user edit`.
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("switch").args(["enable", "disable"]), after_help = "\
Examples:
  borgcube user edit alice --disable
  borgcube user edit alice --role viewer --expires 2027-03-31")]
pub struct Edit {
    #[command(flatten)]
    name: Name,
    /// Let the user do this: viewer, operator or administrator
    #[arg(long, value_name = "ROLE", add = ArgValueCandidates::new(roles))]
    role: Option<Role>,
    /// Let the user sign in again
    #[arg(long)]
    enable: bool,
    /// Refuse the user until it is enabled again
    #[arg(long)]
    disable: bool,
    /// Let it end then: 90d, 12h, a date such as 2027-03-31, or never
    #[arg(long, value_name = "WHEN", value_parser = expiry)]
    expires: Option<Expiry>,
    /// Keep another note with it
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
}

/// A user's name.
#[derive(Debug, clap::Args)]
pub struct Name {
    /// Name of the user
    #[arg(value_name = "NAME", add = ArgValueCandidates::new(complete::web_users))]
    name: UserName,
}

/// When a user ends. (Two layers of `Option` would mean something else to clap.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Expiry(Option<Timestamp>);

fn expiry(text: &str) -> std::result::Result<Expiry, String> {
    expiry_from(text, &Zoned::now())
}

fn expiry_from(text: &str, now: &Zoned) -> std::result::Result<Expiry, String> {
    if text == "never" {
        return Ok(Expiry(None));
    }
    let wrong = || format!("{text:?} is no moment: write 90d, 12h, 2027-03-31 or never");
    let moment = match text.parse::<Date>() {
        Ok(date) => date.to_zoned(now.time_zone().clone()).map_err(|_| wrong())?,
        Err(_) => {
            let span: jiff::Span = text.parse().map_err(|_| wrong())?;
            now.checked_add(span).map_err(|_| wrong())?
        }
    };
    if moment <= *now {
        return Err(format!("{text} is over already"));
    }
    Ok(Expiry(Some(Timestamp(moment.timestamp().as_microsecond()))))
}

fn roles() -> Vec<CompletionCandidate> {
    Role::ALL.iter().map(|role| CompletionCandidate::new(role.as_str())).collect()
}

/// Does it.
pub fn run(command: Command, context: &Context) -> Result<()> {
    match command {
        Command::Add(args) => add(args, context),
        Command::List => {
            let users = all(&mut context.control()?)?;
            context.list(&users, plans::web_users(&users))
        }
        Command::Show(Name { name }) => {
            let user = find(&mut context.control()?, &name)?;
            context.show(&user, &cards::web_user(&user))
        }
        Command::Edit(args) => edit(args, context),
        Command::Token(Name { name }) => {
            let issued = context.control()?.call::<IssuedUser>(Call::RenewWebToken { name })?;
            tell(&issued, &format!("Made a new token for user {}; the old one is void.", issued.user.name), context)
        }
        Command::Remove(Name { name }) => {
            let mut control = context.control()?;
            let user = find(&mut control, &name)?;
            control.tell(Call::RemoveWebUser { name })?;
            context.done(&user, &format!("Removed user {}.", user.name))
        }
    }
}

fn add(args: Add, context: &Context) -> Result<()> {
    let sign_in = match (args.peer, args.proxy) {
        (true, _) => SignInWay::Peer,
        (_, true) => SignInWay::Proxy,
        _ => SignInWay::Token,
    };
    let call = Call::AddWebUser { name: args.name, role: args.role, sign_in, expires: args.expires.0, comment: args.comment };
    let mut control = context.control()?;
    let issued = control.call::<IssuedUser>(call)?;
    tell(&issued, &format!("Added user {}, {}.", issued.user.name, issued.user.role), context)?;
    let web = super::settings::get(&mut control)?.web;
    let off = (sign_in == SignInWay::Peer && !web.peer) || (sign_in == SignInWay::Proxy && !web.proxy);
    if off {
        context.note(&format!("Signing in by {sign_in} is off: borgcube settings edit --web-{sign_in} on allows it."));
    }
    Ok(())
}

/// The token is what was asked for: it is printed even to who wants quiet.
fn tell(issued: &IssuedUser, sentence: &str, context: &Context) -> Result<()> {
    if context.json {
        return context.print_json(issued);
    }
    let Some(token) = &issued.token else { return context.say(sentence) };
    context.note(&format!("{sentence} This is the token, and it is shown only now:"));
    crate::context::write_out(&format!("{token}\n"))
}

fn edit(args: Edit, context: &Context) -> Result<()> {
    let mut control = context.control()?;
    let previous = find(&mut control, &args.name.name)?;
    let mut user = previous.clone();
    put(&mut user.role, args.role);
    put(&mut user.expires, args.expires.map(|expiry| expiry.0));
    put(&mut user.comment, args.comment);
    user.enabled = (user.enabled || args.enable) && !args.disable;
    something(&previous, &user, "user edit")?;
    control.tell(Call::UpdateWebUser { previous: Box::new(previous), user: Box::new(user.clone()) })?;
    context.done(&user, &format!("Changed user {}.", user.name))
}

/// All users.
pub fn all(control: &mut Control) -> Result<Vec<WebUser>> {
    Ok(control.call::<WebUsers>(Call::ListWebUsers {})?.users)
}

fn find(control: &mut Control, name: &UserName) -> Result<WebUser> {
    let found = all(control)?.into_iter().find(|user| user.name == *name);
    found.ok_or_else(|| Error::not_found(format!("there is no user {name}")).hint("borgcube user list shows who there is."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(subcommand)]
        command: Command,
    }

    #[test]
    fn a_user_has_a_role_and_one_way_to_sign_in() {
        let parse = |words: &str| Cli::try_parse_from(format!("x {words}").split_whitespace());
        assert!(parse("add alice --role operator").is_ok());
        assert!(parse("add bob@example.net --role viewer --proxy --expires 90d").is_ok());
        assert!(parse("add alice").is_err());
        assert!(parse("add alice --role root").is_err());
        assert!(parse("add -x --role viewer").is_err());
        assert!(parse("add alice --role viewer --peer --proxy").is_err());
        assert!(parse("edit alice --enable --disable").is_err());
    }

    #[test]
    fn when_a_user_ends() {
        let now: Zoned = "2026-11-22T12:00:00+00:00[UTC]".parse().unwrap();
        let after = |text: &str| expiry_from(text, &now).map(|expiry| expiry.0.map(|t| t.to_rfc3339()));
        assert_eq!(after("never").unwrap(), None);
        assert_eq!(after("90d").unwrap().as_deref(), Some("2027-02-20T12:00:00Z"));
        assert_eq!(after("12h").unwrap().as_deref(), Some("2026-11-23T00:00:00Z"));
        assert_eq!(after("2027-03-31").unwrap().as_deref(), Some("2027-03-31T00:00:00Z"));
        for bad in ["", "soon", "2026-11-22", "-5d", "0d", "99999999999d"] {
            assert!(after(bad).is_err(), "{bad}");
        }
    }
}
