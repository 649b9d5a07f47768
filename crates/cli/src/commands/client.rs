//! `borgcube client`.

use super::client_key;
use super::edit::{put, replace, set, something};
use super::restore_test;
use crate::complete;
use crate::context::{Context, absolute};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::output::{cards, lists};
use clap::{ArgGroup, Subcommand, ValueEnum};
use clap_complete::ArgValueCandidates;
use model::client::{BinaryUse, KeyUse, SshConnection};
use model::{Blackout, Client, ClientName, Connection, Timestamp};
use std::path::Path;
use wire::control::{ArchiveFilter, Archives, Call, Clients};

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add a host to back up
    Add(Box<Add>),
    /// List the clients
    #[command(alias = "ls")]
    List,
    /// Show one client
    Show(Name),
    /// Change how a client is reached
    Edit(Box<Edit>),
    /// Remove a client that has no configs; its archives stay
    Remove(Name),
    /// The SSH keys with which a client comes back, where it does not get one for each job
    #[command(subcommand)]
    Key(client_key::Command),
}

/// A client's name.
#[derive(Debug, clap::Args)]
pub struct Name {
    /// Client
    #[arg(value_name = "CLIENT", add = ArgValueCandidates::new(complete::clients))]
    name: ClientName,
}

/// Options of `borgcube client add`.
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("road").required(true).args(["local", "remote"]), after_help = "Examples:
  borgcube client add this-host --local
  borgcube client add web1 --remote root@web1.example.net --server borgcube-ssh@backup.example.net
  borgcube client add dmz1 --remote root@dmz1 --road carrier
  borgcube client add nas --remote admin@nas --server borgcube-ssh@backup:2222 --ssh-identity-file ~/.ssh/nas --remote-borg /opt/bin/borg")]
pub struct Add {
    /// Name of the new client; archives carry it as their host name
    #[arg(value_name = "CLIENT")]
    name: ClientName,
    /// Back up this machine itself, without SSH; not on an installed server, where that is --remote root@localhost
    #[arg(long)]
    local: bool,
    /// Reach the client by SSH as this login
    #[arg(long, value_name = "USER@HOST")]
    remote: Option<String>,
    #[command(flatten)]
    road: Road,
    /// Begin no scheduled backup of it in this time, such as 'mon-fri 08:00-18:00 Europe/Berlin'; repeatable
    #[arg(long, value_name = "WINDOW")]
    blackout: Vec<Blackout>,
    /// Let its backups use a Borg binary of this server: where it has none of its own that will do, always, or never
    #[arg(long, value_name = "WHEN")]
    borg_binary: Option<BinaryWhen>,
    /// Keep a note with it
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
}

/// How a client is reached.
#[derive(Debug, clap::Args)]
pub struct Road {
    /// Let the client reach this server as this login, which sshd knows from BorgCube's sshd_config.d
    #[arg(long, value_name = "USER@HOST[:PORT]", conflicts_with = "local")]
    server: Option<String>,
    /// Use this SSH program to the client; on an installed server only root may say so
    #[arg(long, value_name = "PROGRAM", conflicts_with = "local")]
    rsh: Option<String>,
    /// Give the SSH program this argument, too; repeatable. On an installed server only root may give some that can start programs
    #[arg(long, value_name = "ARGUMENT", conflicts_with = "local", allow_hyphen_values = true)]
    rsh_option: Vec<String>,
    /// Use this private key to the client
    #[arg(long, value_name = "FILE", conflicts_with = "local", value_hint = clap::ValueHint::FilePath)]
    ssh_identity_file: Option<String>,
    /// Run this borg on the client
    #[arg(long, value_name = "PROGRAM")]
    remote_borg: Option<String>,
    /// Keep Borg's cache in this directory on the client
    #[arg(long, value_name = "DIR")]
    remote_cache_dir: Option<String>,
    /// Let the client's borg use this SSH command to this server
    #[arg(long, value_name = "COMMAND", conflicts_with = "local", allow_hyphen_values = true)]
    client_rsh: Option<String>,
    /// Let the client connect back with an SSH key that is made for each job, or with a permanent one of its own
    #[arg(long, value_name = "KIND", conflicts_with = "local")]
    key: Option<KeyKind>,
    /// Let the client connect back to this server, or carry its data over this server's own connection to it
    #[arg(long = "road", value_name = "ROAD", conflicts_with = "local")]
    way: Option<Way>,
}

/// What `--key` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum KeyKind {
    Job,
    Permanent,
}

/// What `--borg-binary` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum BinaryWhen {
    IfNeeded,
    Always,
    Never,
}

impl From<BinaryWhen> for BinaryUse {
    fn from(when: BinaryWhen) -> BinaryUse {
        match when {
            BinaryWhen::IfNeeded => BinaryUse::IfNeeded,
            BinaryWhen::Always => BinaryUse::Always,
            BinaryWhen::Never => BinaryUse::Never,
        }
    }
}

/// What `--road` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Way {
    Back,
    Carrier,
}

/// Options of `borgcube client edit`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Lists are replaced as a whole.

Examples:
  borgcube client edit web1 --remote-borg /usr/local/bin/borg
  borgcube client edit web1 --rsh-option=-4 --rsh-option=-oConnectTimeout=20 --clear description
  borgcube client edit web1 --blackout 'mon-fri 08:00-18:00 Europe/Berlin' --blackout '02:00-03:00 UTC'
  borgcube client edit web1 --local")]
pub struct Edit {
    /// Client
    #[arg(value_name = "CLIENT", add = ArgValueCandidates::new(complete::clients))]
    name: ClientName,
    /// Back up this machine itself from now on, without SSH; not on an installed server
    #[arg(long, conflicts_with = "remote")]
    local: bool,
    /// Reach the client by SSH as this login
    #[arg(long, value_name = "USER@HOST")]
    remote: Option<String>,
    #[command(flatten)]
    road: Road,
    /// Begin no scheduled backup of it in this time; repeatable, and instead of the windows it has
    #[arg(long, value_name = "WINDOW", conflicts_with = "no_blackout")]
    blackout: Vec<Blackout>,
    /// Let scheduled backups of it begin at any time
    #[arg(long)]
    no_blackout: bool,
    /// Let its backups use a Borg binary of this server: where it has none of its own that will do, always, or never
    #[arg(long, value_name = "WHEN")]
    borg_binary: Option<BinaryWhen>,
    /// Keep a note with it
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Forget this setting; repeatable
    #[arg(long, value_name = "SETTING")]
    clear: Vec<Clearable>,
}

/// What `--clear` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Clearable {
    Description,
    Rsh,
    RshOptions,
    SshIdentityFile,
    RemoteBorg,
    RemoteCacheDir,
    ClientRsh,
}

/// Does it.
pub fn run(command: Command, context: &Context) -> Result<()> {
    match command {
        Command::Add(args) => add(*args, context),
        Command::List => {
            let mut control = context.control()?;
            let clients = all(&mut control)?;
            let listed = restore_test::with_clients(clients, &restore_test::all(&mut control)?);
            context.list(&listed, lists::clients(&listed))
        }
        Command::Show(Name { name }) => {
            let mut control = context.control()?;
            let client = find(&mut control, &name)?;
            let listed = restore_test::with_clients(vec![client], &restore_test::all(&mut control)?);
            listed.iter().try_for_each(|listed| context.show(listed, &cards::client(listed)))
        }
        Command::Edit(args) => edit(*args, context),
        Command::Key(command) => client_key::run(command, context),
        Command::Remove(Name { name }) => {
            let mut control = context.control()?;
            let client = find(&mut control, &name)?;
            let filter = ArchiveFilter { client: Some(name.clone()), limit: 1, ..Default::default() };
            let has_archives = !control.call::<Archives>(Call::ListArchives { filter })?.archives.is_empty();
            control.tell(Call::RemoveClient { name: name.clone() })?;
            let archives = if has_archives { " Its archives stay." } else { "" };
            context.done(&client, &format!("Removed client {name}.{archives}"))
        }
    }
}

fn add(args: Add, context: &Context) -> Result<()> {
    let connection = match args.remote {
        Some(remote) => {
            let key = fresh_key(context, args.road.client_rsh.is_some());
            Connection::Ssh(with_road(SshConnection { remote, key, ..Default::default() }, args.road))
        }
        None => Connection::Local { remote_borg: args.road.remote_borg, remote_cache_dir: args.road.remote_cache_dir },
    };
    let client = Client {
        name: args.name,
        description: args.description.unwrap_or_default(),
        connection,
        keys: vec![],
        blackouts: args.blackout,
        borg_binary: args.borg_binary.map(Into::into).unwrap_or_default(),
        created: Timestamp::now(),
    };
    check(&client)?;
    context.control()?.tell(Call::AddClient { client: client.clone() })?;
    context.done(&client, &format!("Added client {}.", client.name))
}

/// Which keys a new client uses. An installed server's sshd asks BorgCube for keys; of the embedded default it knows nothing.
fn fresh_key(context: &Context, has_own_command: bool) -> KeyUse {
    if context.layout.is_installed() && !has_own_command { KeyUse::Job } else { KeyUse::Permanent }
}

fn check(client: &Client) -> Result<()> {
    if let Connection::Ssh(ssh) = &client.connection
        && ssh.road == model::client::Road::Back
        && ssh.server.is_empty()
    {
        return Err(Error::usage("how the client reaches this server is missing: --server USER@HOST[:PORT]")
            .hint("Where it cannot reach this server at all: --road carrier"));
    }
    client.check().map_err(Error::usage)
}

fn with_road(mut ssh: SshConnection, road: Road) -> SshConnection {
    put(&mut ssh.server, road.server);
    set(&mut ssh.rsh, road.rsh);
    replace(&mut ssh.rsh_options, road.rsh_option);
    set(&mut ssh.ssh_identity_file, road.ssh_identity_file.map(|file| here(&file)));
    set(&mut ssh.remote_borg, road.remote_borg);
    set(&mut ssh.remote_cache_dir, road.remote_cache_dir);
    set(&mut ssh.client_rsh, road.client_rsh);
    put(
        &mut ssh.key,
        road.key.map(|key| match key {
            KeyKind::Job => KeyUse::Job,
            KeyKind::Permanent => KeyUse::Permanent,
        }),
    );
    put(
        &mut ssh.road,
        road.way.map(|way| match way {
            Way::Back => model::client::Road::Back,
            Way::Carrier => model::client::Road::Carrier,
        }),
    );
    ssh
}

/// The worker that uses the file has another working directory than the person who names it.
fn here(file: &str) -> String {
    let path = absolute(Path::new(file)).ok().and_then(|p| p.to_str().map(str::to_owned));
    path.unwrap_or_else(|| file.to_owned())
}

fn edit(args: Edit, context: &Context) -> Result<()> {
    let mut control = context.control()?;
    let previous = find(&mut control, &args.name)?;
    let fresh = fresh_key(context, args.road.client_rsh.is_some());
    let client = edited(&previous, args, fresh)?;
    something(&previous, &client, "client edit")?;
    control.tell(Call::UpdateClient { previous, client: client.clone() })?;
    context.done(&client, &format!("Changed client {}.", client.name))
}

/// The record after the edit. One that becomes remote uses the keys `fresh`, unless it is said.
fn edited(previous: &Client, args: Edit, fresh: KeyUse) -> Result<Client> {
    let mut client = previous.clone();
    put(&mut client.description, args.description);
    if args.no_blackout || !args.blackout.is_empty() {
        client.blackouts = args.blackout;
    }
    put(&mut client.borg_binary, args.borg_binary.map(Into::into));
    client.connection = match (client.connection, args.remote) {
        (Connection::Ssh(ssh), None) if !args.local => Connection::Ssh(with_road(ssh, args.road)),
        (Connection::Ssh(ssh), Some(remote)) => Connection::Ssh(with_road(SshConnection { remote, ..ssh }, args.road)),
        (Connection::Local { remote_borg, remote_cache_dir }, Some(remote)) => {
            let before = SshConnection { remote, remote_borg, remote_cache_dir, key: fresh, ..Default::default() };
            Connection::Ssh(with_road(before, args.road))
        }
        (before, None) => local(&before, args.road)?,
    };
    for field in args.clear {
        clear(&mut client, field);
    }
    check(&client)?;
    Ok(client)
}

fn local(before: &Connection, road: Road) -> Result<Connection> {
    let ssh_only = road.server.is_some()
        || road.rsh.is_some()
        || !road.rsh_option.is_empty()
        || road.ssh_identity_file.is_some()
        || road.client_rsh.is_some()
        || road.key.is_some()
        || road.way.is_some();
    if ssh_only {
        return Err(Error::usage("a local client has no SSH settings").hint("--remote USER@HOST makes it one that is reached by SSH."));
    }
    let (mut borg, mut cache) = (before.remote_borg().map(str::to_owned), before.remote_cache_dir().map(str::to_owned));
    set(&mut borg, road.remote_borg);
    set(&mut cache, road.remote_cache_dir);
    Ok(Connection::Local { remote_borg: borg, remote_cache_dir: cache })
}

fn clear(client: &mut Client, field: Clearable) {
    match (&mut client.connection, field) {
        (_, Clearable::Description) => client.description.clear(),
        (Connection::Local { remote_borg, .. }, Clearable::RemoteBorg) => *remote_borg = None,
        (Connection::Local { remote_cache_dir, .. }, Clearable::RemoteCacheDir) => *remote_cache_dir = None,
        (Connection::Local { .. }, _) => {}
        (Connection::Ssh(ssh), Clearable::Rsh) => ssh.rsh = None,
        (Connection::Ssh(ssh), Clearable::RshOptions) => ssh.rsh_options.clear(),
        (Connection::Ssh(ssh), Clearable::SshIdentityFile) => ssh.ssh_identity_file = None,
        (Connection::Ssh(ssh), Clearable::RemoteBorg) => ssh.remote_borg = None,
        (Connection::Ssh(ssh), Clearable::RemoteCacheDir) => ssh.remote_cache_dir = None,
        (Connection::Ssh(ssh), Clearable::ClientRsh) => ssh.client_rsh = None,
    }
}

/// All clients.
pub fn all(control: &mut Control) -> Result<Vec<Client>> {
    Ok(control.call::<Clients>(Call::ListClients {})?.clients)
}

/// One client.
pub fn find(control: &mut Control, name: &ClientName) -> Result<Client> {
    let found = all(control)?.into_iter().find(|c| c.name == *name);
    found.ok_or_else(|| Error::not_found(format!("there is no client {name}")).hint("borgcube client list shows what there is."))
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

    fn edit_of(words: &str) -> Edit {
        match Cli::try_parse_from(format!("x edit web1 {words}").split_whitespace()).map(|c| c.command) {
            Ok(Command::Edit(edit)) => *edit,
            Ok(_) => panic!("not an edit"),
            Err(e) => panic!("{e}"),
        }
    }

    fn client() -> Client {
        Client {
            name: "web1".parse().unwrap(),
            description: "old".into(),
            connection: Connection::Ssh(SshConnection {
                remote: "root@web1".into(),
                server: "borgcube-ssh@backup".into(),
                rsh_options: vec!["-4".into()],
                remote_borg: Some("/opt/borg".into()),
                ..Default::default()
            }),
            blackouts: vec![],
            borg_binary: Default::default(),
            keys: vec![],
            created: Timestamp(0),
        }
    }

    fn edited(previous: &Client, args: Edit) -> Result<Client> {
        super::edited(previous, args, KeyUse::Permanent)
    }

    #[test]
    fn keys_and_roads() {
        let ssh = |client: &Client| match &client.connection {
            Connection::Ssh(ssh) => ssh.clone(),
            Connection::Local { .. } => panic!("local"),
        };
        let after = edited(&client(), edit_of("--key permanent --road carrier")).unwrap();
        assert_eq!((ssh(&after).key, ssh(&after).road), (KeyUse::Permanent, model::client::Road::Carrier));
        let after = edited(&after, edit_of("--key job --road back")).unwrap();
        assert_eq!((ssh(&after).key, ssh(&after).road), (KeyUse::Job, model::client::Road::Back));
        assert!(edited(&after, edit_of("--client-rsh ssh")).is_err(), "whose key would that be?");
        let local = edited(&client(), edit_of("--local")).unwrap();
        assert!(edited(&local, edit_of("--key job")).is_err());
        assert!(edited(&local, edit_of("--remote root@x --road carrier")).is_ok(), "no server is needed");
        assert_eq!(ssh(&edited(&local, edit_of("--remote root@x --server b@s")).unwrap()).key, KeyUse::Permanent);
    }

    #[test]
    fn binaries_of_this_server() {
        assert!(edited(&client(), edit_of("--borg-binary always")).is_err(), "it has a borg that is named");
        let always = edited(&client(), edit_of("--borg-binary always --clear remote-borg")).unwrap();
        assert_eq!((always.borg_binary, always.binary_use()), (BinaryUse::Always, BinaryUse::Always));
        assert_eq!(edited(&always, edit_of("--description x")).unwrap().borg_binary, BinaryUse::Always);
        assert!(edited(&always, edit_of("--remote-borg /opt/borg")).is_err());
        assert_eq!(client().binary_use(), BinaryUse::Never);
    }

    #[test]
    fn only_what_was_named_changes() {
        let after = edited(&client(), edit_of("--server other@backup:22 --clear remote-borg --rsh-option -6")).unwrap();
        let Connection::Ssh(ssh) = &after.connection else { panic!("{after:?}") };
        assert_eq!(ssh.server, "other@backup:22");
        assert_eq!(ssh.remote, "root@web1");
        assert_eq!(ssh.rsh_options, ["-6"]);
        assert_eq!(ssh.remote_borg, None);
        assert_eq!(after.description, "old");
    }

    #[test]
    fn blackouts_are_replaced_as_a_whole() {
        let edit = |words: &[&str]| match Cli::try_parse_from([&["x", "edit", "web1"], words].concat()).map(|c| c.command) {
            Ok(Command::Edit(edit)) => *edit,
            _ => panic!("not an edit"),
        };
        let with = edited(&client(), edit(&["--blackout", "mon-fri 08:00-18:00 UTC", "--blackout", "02:00-03:00 UTC"])).unwrap();
        let texts: Vec<String> = with.blackouts.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["mon,tue,wed,thu,fri 08:00-18:00 UTC", "02:00-03:00 UTC"]);
        assert_eq!(edited(&with, edit(&["--description", "x"])).unwrap().blackouts.len(), 2);
        assert_eq!(edited(&with, edit(&["--blackout", "00:00-01:00 UTC"])).unwrap().blackouts.len(), 1);
        assert!(edited(&with, edit(&["--no-blackout"])).unwrap().blackouts.is_empty());
        let refused = Cli::try_parse_from(["x", "edit", "web1", "--blackout", "08:00-18:00"]).map(drop).unwrap_err().to_string();
        assert!(refused.contains("mon-fri 08:00-18:00 Europe/Berlin"), "{refused}");
    }

    #[test]
    fn a_client_becomes_local_and_remote_again() {
        let local = edited(&client(), edit_of("--local")).unwrap();
        assert_eq!(local.connection, Connection::Local { remote_borg: Some("/opt/borg".into()), remote_cache_dir: None });
        assert!(edited(&local, edit_of("--rsh ssh2")).is_err());
        assert!(edited(&local, edit_of("--remote root@x")).is_err(), "the server is missing");
        let remote = edited(&local, edit_of("--remote root@x --server b@s")).unwrap();
        assert_eq!(remote.connection.remote_borg(), Some("/opt/borg"));
    }

    #[test]
    fn a_new_client_needs_one_road() {
        let parse = |words: &str| Cli::try_parse_from(format!("x add web1 {words}").split_whitespace());
        assert!(parse("").is_err());
        assert!(parse("--local --remote root@x --server b@s").is_err());
        assert!(
            check(&Client { connection: Connection::Ssh(SshConnection { remote: "root@x".into(), ..Default::default() }), ..client() })
                .is_err()
        );
        assert!(parse("--local --rsh x").is_err());
        assert!(parse("--local --remote-borg /opt/borg").is_ok());
        assert!(parse("--remote root@x --server b@s --rsh-option=-oX=y").is_ok());
    }
}
