//! `borgcube doctor`: what is wrong with this installation, and how to mend it.
//!
//! Looking ([`gather`], [`clients`]) and judging (everything else: pure functions over what was seen) are apart.

pub mod accounts;
pub mod clients;
pub mod credentials;
pub mod finding;
pub mod gather;
pub mod hostkeys;
pub mod machine;
pub mod places;
pub mod repositories;
pub mod services;
pub mod sshd;

use super::attention;
use crate::complete;
use crate::context::{Context, write_out};
use crate::error::{Error, Result};
use clap_complete::ArgValueCandidates;
use finding::{Finding, Verdict, summary, text};
use model::{ClientName, Timestamp};
use serde::Serialize;
use std::process::ExitCode;

/// Options of `borgcube doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
First says what is damaged or overdue. Looks at users, directories, sockets, repositories, secrets, sshd, clock, space, borg, host keys and units. Nothing is changed. \
On an installed server root sees all of it; for others the checks that need root are skipped, and it says so.

Lines behind a $ are commands that mend it: root types them as they stand, from the first to the last. Words in capitals stand \
for what only you know. With --json they are the field \"run\".

Exit codes: 0 if nothing is wrong (notes and warnings may be there), 1 if there are problems.

Examples:
  borgcube doctor
  borgcube doctor --client web1
  borgcube doctor --json | jq '.findings[] | select(.verdict == \"problem\")'")]
pub struct Args {
    /// Connect to this client, too, and from there back to this server; compare host keys, clocks and borgs; repeatable
    #[arg(long, value_name = "CLIENT", add = ArgValueCandidates::new(complete::clients))]
    client: Vec<ClientName>,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    problems: usize,
    warnings: usize,
    findings: &'a [Finding],
}

/// Looks, judges and tells. Problems are exit code 1.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode> {
    let findings = examine(args, context)?;
    let number = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let problems = number(Verdict::Problem);
    if context.json {
        context.print_json(&Report { problems, warnings: number(Verdict::Warning), findings: &findings })?;
    } else {
        let shown: Vec<_> = findings.iter().filter(|f| !context.quiet || f.verdict >= Verdict::Warning).cloned().collect();
        write_out(&text(&shown))?;
        context.say(&summary(&findings))?;
    }
    Ok(if problems > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn examine(args: &Args, context: &Context) -> Result<Vec<Finding>> {
    let (records, server) = gather::records(context);
    let answered = server.verdict == Verdict::Ok;
    let attention = attention::judge(&records.attention, Timestamp::now());
    let repositories: Vec<String> = records.repositories.iter().map(|repository| repository.name.to_string()).collect();
    let accounts = gather::accounts();
    // What others depend on comes before them, so that it can be mended from the first line to the last.
    let mut findings = vec![];
    let mut server = Some(server);
    if answered {
        // Backups that are lost come before everything that can be mended.
        findings.extend(attention);
        findings.extend(server.take());
    }
    match &context.state {
        None => findings.extend(gather::people(&accounts)),
        Some(state) => {
            findings.push(Finding::note(
                "accounts",
                "everything runs as one user, so nothing is isolated: for hosts you do not trust, install the packages",
            ));
            if !state.exists() {
                findings.push(
                    Finding::problem("directories", format!("{} is missing", state.display()))
                        .mend("Is the state directory named rightly?"),
                );
                return Ok(findings);
            }
        }
    }
    findings.extend(gather::places(context, &accounts, &repositories));
    findings.extend(gather::owners(context, &accounts, &records.repositories));
    findings.extend(gather::credentials(context, &records.repositories));
    match &context.state {
        None => findings.extend(gather::sshd(records.parallel, None)),
        Some(_) => {
            findings.push(Finding::skipped("sshd", "borgcube up needs no sshd; --client NAME tries the way back of a client"));
        }
    }
    findings.extend(gather::clock(records.newest));
    findings.extend(gather::space(context, &records.repositories));
    findings.push(gather::borg());
    if answered {
        findings.extend(clients::look(&records.clients, context));
    } else {
        findings.push(Finding::skipped("records", "repositories and clients are not known while borgcubed does not answer"));
    }
    match &context.state {
        None => findings.extend(gather::units(&repositories)),
        Some(_) => findings.push(Finding::skipped("units", "borgcube up needs no systemd")),
    }
    findings.extend(server);
    for name in args.client.iter().filter(|_| answered) {
        let Some(client) = records.clients.iter().find(|client| client.name == *name) else {
            return Err(Error::not_found(format!("there is no client {name}")).hint("borgcube client list shows what there is."));
        };
        findings.extend(clients::visit(client, context));
    }
    Ok(findings)
}
