//! Clients. One that is this machine itself is added with `borgcube client add`: what it would run, it would run here.

use super::{Errors, Field, Formed, Known, Section, Typed, kept};
use model::client::{BinaryUse, KeyUse, Road, SshConnection};
use model::{Blackout, Client, Connection, validate};
use store::Read;
use wire::control::Call;

const ROADS: [(&str, &str); 2] =
    [("back", "the client connects to this server by SSH"), ("carrier", "through the connection that this server has made")];
const KEYS: [(&str, &str); 2] = [("job", "a new one for each backup, made by this server"), ("permanent", "one of its own, which stays")];
const BINARIES: [(&str, &str); 3] = [
    ("if-needed", "sent where the client has none that will do"),
    ("always", "always sent, whatever the client has"),
    ("never", "never sent: the client's own"),
];

fn word<T: serde::Serialize>(value: T) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// One of the words that the model knows.
fn choose<T: serde::de::DeserializeOwned>(errors: &mut Errors, typed: &Typed, field: &str) -> Option<T> {
    let text = typed.text(field);
    let wrong = |_| format!("{:?} is none of what can be chosen", super::typed::shortened(text));
    errors.take(field, serde_json::from_value(text.into()).map_err(wrong))
}

/// A client with nothing special.
fn plain(known: &Known, connection: Connection) -> Option<Client> {
    Some(Client {
        name: "client".parse().ok()?,
        description: String::new(),
        connection,
        keys: vec![],
        blackouts: vec![],
        borg_binary: BinaryUse::IfNeeded,
        created: known.now,
    })
}

fn ssh(errors: &mut Errors, typed: &Typed, before: &SshConnection) -> Option<SshConnection> {
    let connection = SshConnection {
        remote: typed.text_or("remote", Some(&before.remote)).to_owned(),
        server: typed.text_or("server", Some(&before.server)).to_owned(),
        road: choose(errors, typed, "road")?,
        key: choose(errors, typed, "key")?,
        ..before.clone()
    };
    let check = |connection: SshConnection| Connection::Ssh(connection).check();
    // Each beside its own field: the other one is a good one.
    let (remote, server) = (connection.remote.clone(), connection.server.clone());
    errors.probe(
        "remote",
        match remote.is_empty() {
            true => Err("it is empty: write the login by which this server reaches the client, such as root@web1".into()),
            false => check(SshConnection { remote, road: Road::Carrier, ..SshConnection::default() }),
        },
    );
    errors.probe(
        "server",
        match (server.is_empty(), connection.road) {
            (true, Road::Carrier) => Ok(()),
            (true, Road::Back) => {
                Err("it is empty: write how the client reaches this server, such as borgcube-ssh@backup.example.net".into())
            }
            (false, _) => check(SshConnection { remote: "client".into(), server, ..SshConnection::default() }),
        },
    );
    Some(connection)
}

impl Formed for Client {
    const WHAT: &'static str = "client";
    const REST: Option<&'static str> = Some("borgcube client edit");

    fn blank(known: &Known, _of: &str) -> Typed {
        let key = if known.installed { KeyUse::Job } else { KeyUse::Permanent };
        Typed::default().with("road", "back").with("key", word(key)).with("borg_binary", "if-needed")
    }

    fn fields(&self) -> Typed {
        let typed = Typed::default()
            .with("name", &self.name)
            .with("description", &self.description)
            .with_lines("blackouts", &self.blackouts)
            .with("borg_binary", self.borg_binary.word());
        match &self.connection {
            Connection::Local { .. } => typed,
            Connection::Ssh(ssh) => {
                let typed = typed.with("remote", &ssh.remote).with("server", &ssh.server);
                typed.with("road", word(ssh.road)).with("key", word(ssh.key))
            }
        }
    }

    fn read(typed: &Typed, before: Option<&Client>, known: &Known) -> Result<Client, Errors> {
        let mut errors = Errors::default();
        let name = errors.name(typed, Client::WHAT, before.map(|client| &client.name), &known.clients);
        let connection = match before.map(|client| &client.connection) {
            Some(local @ Connection::Local { .. }) => Some(local.clone()),
            Some(Connection::Ssh(before)) => ssh(&mut errors, typed, before).map(Connection::Ssh),
            None => ssh(&mut errors, typed, &SshConnection::default()).map(Connection::Ssh),
        };
        let description = typed.text_or("description", before.map(|client| client.description.as_str())).to_owned();
        let local = || Connection::Local { remote_borg: None, remote_cache_dir: None };
        if let Some(plain) = plain(known, local()) {
            errors.probe("description", validate::client(&Client { description: description.clone(), ..plain }));
        }
        let borg_binary = choose(&mut errors, typed, "borg_binary");
        if let (Some(borg_binary), Some(before)) = (borg_binary, before)
            && let Some(plain) = plain(known, before.connection.clone())
            && plain.check().is_ok()
        {
            errors.probe("borg_binary", Client { borg_binary, ..plain }.check());
        }
        let blackouts = blackouts(&mut errors, typed, before);
        let record = name.zip(connection).zip(borg_binary).map(|((name, connection), borg_binary)| Client {
            name,
            description,
            connection,
            keys: before.map_or_else(Vec::new, |client| client.keys.clone()),
            blackouts,
            borg_binary,
            created: before.map_or(known.now, |client| client.created),
        });
        // What is left is about the key and the client's own command.
        let last = if before.is_some() { "key" } else { super::typed::WHOLE };
        errors.end(record, last, validate::client)
    }

    fn sections(_typed: &Typed, before: Option<&Client>, _known: &Known) -> Vec<Section> {
        let mut reached = vec![];
        if !before.is_some_and(|client| matches!(client.connection, Connection::Local { .. })) {
            let login = "How this server logs in on the client by SSH: USER@HOST, such as root@web1, or a name from its ssh_config.";
            reached.extend([
                Field::line("remote", "Login on the client", login).required(),
                Field::choice(
                    "road",
                    "How backups come here",
                    &ROADS,
                    "Choose the second if the client cannot reach this server (a firewall, NAT): the next field may stay empty then.",
                ),
                Field::line(
                    "server",
                    "This server, as the client reaches it",
                    "USER@HOST or USER@HOST:PORT, such as borgcube-ssh@backup.example.net. Needed if the client connects to this server.",
                ),
                Field::choice(
                    "key",
                    "SSH key that it comes with",
                    &KEYS,
                    "A new one each time needs nothing on the client. One that stays is added at the server with borgcube client key add.",
                ),
            ]);
        }
        let more = vec![
            Field::choice(
                "borg_binary",
                "Borg program of this server",
                &BINARIES,
                "Programs that root has put on this server (borgcube binary add) can be sent to clients whose own borg is missing or too old.",
            ),
            Field::lines(
                "blackouts",
                "Times without scheduled backups",
                "One per line, with its time zone: mon-fri 08:00-18:00 Europe/Berlin, or 22:00-06:00 UTC for every day. What runs already goes on.",
            ),
        ];
        let mut sections = vec![Section::new("", vec![Field::named("Name", before.is_none()), Field::description()])];
        if !reached.is_empty() {
            sections.push(Section::new("Connection", reached));
        }
        sections.push(Section::new("Backups", more));
        sections
    }

    fn find(read: &Read<'_>, name: &str) -> store::Result<Option<Client>> {
        name.parse().map_or(Ok(None), |name| read.clients().get(&name))
    }

    fn name(&self) -> String {
        self.name.to_string()
    }

    fn page(&self) -> String {
        format!("/clients/{}", self.name)
    }

    fn place(&self) -> String {
        self.page()
    }

    fn add(self) -> Call {
        Call::AddClient { client: self }
    }

    fn update(self, previous: Client) -> Call {
        Call::UpdateClient { previous, client: self }
    }

    fn remove(&self) -> Call {
        Call::RemoveClient { name: self.name.clone() }
    }

    fn farewell(&self) -> &'static str {
        "Its archives stay. It has to have no backup configs any more."
    }
}

/// One per line. As they were typed before, they are as they were.
fn blackouts(errors: &mut Errors, typed: &Typed, before: Option<&Client>) -> Vec<Blackout> {
    if let Some(before) = kept(typed, before, "blackouts") {
        return before.blackouts.clone();
    }
    let lines = typed.lines("blackouts", &[]);
    if lines.len() > Blackout::MAX {
        errors.add("blackouts", format!("a client has at most {} blackouts", Blackout::MAX));
        return vec![];
    }
    lines.iter().filter_map(|line| errors.take("blackouts", line.parse())).collect()
}
