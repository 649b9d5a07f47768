//! `borgcube client key`: permanent SSH keys of clients.

use super::client::{all, find};
use crate::complete;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::output::Table;
use crate::output::tables::Column::{Text, Whole};
use clap::Subcommand;
use clap_complete::ArgValueCandidates;
use model::sshkey::{ClientKey, PublicKey, Sources};
use model::{Client, ClientName, Timestamp};
use serde::Serialize;
use wire::control::Call;

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Let a client come with this key: to a session of its own jobs, and to nothing else
    Add(Add),
    /// List the permanent keys
    #[command(alias = "ls")]
    List(List),
    /// Let a client come with this key no more
    Remove(Remove),
}

/// Options of `borgcube client key add`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  borgcube client key add web1 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI... root@web1'
  borgcube client key add web1 \"$(ssh root@web1 cat .ssh/id_ed25519.pub)\" --from 192.0.2.7,2001:db8::/64")]
pub struct Add {
    /// Client
    #[arg(value_name = "CLIENT", add = ArgValueCandidates::new(complete::clients))]
    name: ClientName,
    /// The line of its file *.pub; the comment behind the key is dropped
    #[arg(value_name = "KEY")]
    key: PublicKey,
    /// Accept the key from these addresses, networks or host patterns only, separated by commas
    #[arg(long, value_name = "SOURCES")]
    from: Option<Sources>,
}

/// Options of `borgcube client key list`.
#[derive(Debug, clap::Args)]
pub struct List {
    /// Those of this client only
    #[arg(value_name = "CLIENT", add = ArgValueCandidates::new(complete::clients))]
    name: Option<ClientName>,
}

/// Options of `borgcube client key remove`.
#[derive(Debug, clap::Args)]
pub struct Remove {
    /// Client
    #[arg(value_name = "CLIENT", add = ArgValueCandidates::new(complete::clients))]
    name: ClientName,
    /// The key's fingerprint (SHA256:...), or the key itself
    #[arg(value_name = "KEY")]
    key: String,
}

/// A key as `--json` shows it.
#[derive(Debug, Serialize)]
struct Row<'a> {
    client: &'a ClientName,
    fingerprint: String,
    #[serde(flatten)]
    key: &'a ClientKey,
}

impl<'a> Row<'a> {
    fn new(client: &'a Client, key: &'a ClientKey) -> Row<'a> {
        Row { client: &client.name, fingerprint: key.key.fingerprint(), key }
    }
}

/// Does it.
pub fn run(command: Command, context: &Context) -> Result<()> {
    match command {
        Command::Add(Add { name, key, from }) => add(&name, key, from, context),
        Command::List(List { name }) => list(name.as_ref(), context),
        Command::Remove(Remove { name, key }) => remove(&name, &key, context),
    }
}

fn add(name: &ClientName, key: PublicKey, from: Option<Sources>, context: &Context) -> Result<()> {
    let mut control = context.control()?;
    let previous = find(&mut control, name)?;
    let mut client = previous.clone();
    client.keys.retain(|known| known.key != key);
    client.keys.push(ClientKey { key, from, added: Timestamp::now() });
    control.tell(Call::UpdateClient { previous, client: client.clone() })?;
    let Some(added) = client.keys.last() else { return Ok(()) };
    let row = Row::new(&client, added);
    context.done(&row, &format!("Client {name} may come with the key {}.", row.fingerprint))
}

fn list(name: Option<&ClientName>, context: &Context) -> Result<()> {
    let mut clients = all(&mut context.control()?)?;
    if let Some(name) = name {
        clients = vec![find(&mut context.control()?, name)?];
    }
    let rows: Vec<Row<'_>> = clients.iter().flat_map(|client| client.keys.iter().map(move |key| Row::new(client, key))).collect();
    let columns = [Whole("CLIENT"), Whole("TYPE"), Whole("FINGERPRINT"), Text("FROM"), Whole("ADDED")];
    let table = Table::new(&columns, &rows, |row| {
        let from = row.key.from.as_ref().map(ToString::to_string).unwrap_or_default();
        vec![row.client.to_string(), row.key.key.kind(), row.fingerprint.clone(), from, row.key.added.to_local()]
    });
    context.list(&rows, table)
}

fn remove(name: &ClientName, key: &str, context: &Context) -> Result<()> {
    let mut control = context.control()?;
    let previous = find(&mut control, name)?;
    let given = key.parse::<PublicKey>().ok();
    let is_meant = |known: &ClientKey| known.key.fingerprint() == key || given.as_ref() == Some(&known.key);
    let Some(removed) = previous.keys.iter().find(|known| is_meant(known)).cloned() else {
        return Err(Error::not_found(format!("client {name} has no such key")).hint("borgcube client key list shows what there is."));
    };
    let mut client = previous.clone();
    client.keys.retain(|known| known.key != removed.key);
    control.tell(Call::UpdateClient { previous, client: client.clone() })?;
    context.done(&Row::new(&client, &removed), &format!("Client {name} may not come with the key {} any more.", removed.key.fingerprint()))
}
