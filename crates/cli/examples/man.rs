//! Writes the man pages: those of `borgcube` and each of its subcommands from the definitions of their arguments, those of the other
//! programs from what they say to `--help` and from a page of text in docs/man, and those of the file formats from docs/man alone.
//!
//!     cargo run --example man -- OUT PROGRAMS [SOURCES]
//!
//! OUT is made; PROGRAMS is the directory of the built programs; SOURCES is docs/man. The date comes from `SOURCE_DATE_EPOCH`.

use clap::CommandFactory;
use clap_mangen::Man;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The programs that are not the command line.
const PROGRAMS: [&str; 9] = [
    "borgcubed",
    "borgcube-worker",
    "borgcube-proxy",
    "borgcube-session",
    "borgcube-repositoryd",
    "borgcube-scheduler",
    "borgcube-timers",
    "borgcube-authorized-keys",
    "borgcube-statusd",
];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(out), Some(programs)) = (arguments.next(), arguments.next()) else {
        return Err("usage: man OUT PROGRAMS [SOURCES]".into());
    };
    let sources = arguments.next().unwrap_or_else(|| "docs/man".into());
    fs::create_dir_all(&out)?;
    let date = date()?;
    let mut command = cli::args::Args::command();
    command.build();
    commands(&command, "borgcube", &date, &out)?;
    for program in PROGRAMS {
        let text = fs::read_to_string(sources.join(format!("{program}.8.in"))).map_err(|e| format!("docs/man/{program}.8.in: {e}"))?;
        let help = help(&programs.join(program))?;
        fs::write(out.join(format!("{program}.8")), page(program, &text, &help, &date))?;
    }
    let configuration = fs::read_to_string(sources.join("borgcube.toml.5.in")).map_err(|e| format!("docs/man/borgcube.toml.5.in: {e}"))?;
    let configuration = configuration.replace("@FORMAT@", &model::declarative::FORMAT.to_string()).replace("@KINDS@\n", &kinds());
    fs::write(out.join("borgcube.toml.5"), configuration.replace("@DATE@", &date).replace("@VERSION@", env!("CARGO_PKG_VERSION")))?;
    for entry in fs::read_dir(&sources)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "5" || extension == "8") {
            let text = fs::read_to_string(&path)?.replace("@DATE@", &date).replace("@VERSION@", env!("CARGO_PKG_VERSION"));
            fs::write(out.join(path.file_name().unwrap_or_default()), text)?;
        }
    }
    Ok(())
}

/// What borgcube.toml may have: the definitions by which it is read and written.
fn kinds() -> String {
    use model::declarative::Kind;
    let mut text = String::new();
    for kind in Kind::ALL {
        text.push_str(&format!(".SH {}\n{}\n", escaped(kind.heading()), escaped(kind.about())));
        for field in kind.fields() {
            let others: String = kind.alternatives(field).map(|other| format!(", or {}", other.name)).collect();
            let required = if field.required { format!(", required{others}") } else { others };
            text.push_str(&format!(".TP\n.BR {} \", {}{required}\"\n{}.\n", field.name, quoted(field.form.words()), escaped(field.about)));
        }
    }
    text
}

/// Text that troff takes as it is.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

/// The same within an argument in quotes.
fn quoted(text: &str) -> String {
    escaped(text).replace('"', "\"\"")
}

/// One page for the command and, recursively, for each of its subcommands.
fn commands(command: &clap::Command, name: &str, date: &str, out: &Path) -> Result<(), Box<dyn Error>> {
    let page = Man::new(command.clone())
        .title(name.to_uppercase())
        .section("1")
        .date(date)
        .source(concat!("BorgCube ", env!("CARGO_PKG_VERSION")))
        .manual("BorgCube");
    let mut text = vec![];
    page.render(&mut text)?;
    let mut text = tidy(&String::from_utf8(text)?);
    text.push_str(".SH \"SEE ALSO\"\n");
    let above = name.rsplit_once('-').map(|(above, _)| above).filter(|above| above.starts_with("borgcube"));
    let mut others: Vec<String> = above.into_iter().map(|above| format!("\\fB{}\\fR(1)", above.replace('-', "\\-"))).collect();
    others.extend(["\\fBborgcubed\\fR(8)", "\\fBborgcube\\-files\\fR(5)", "\\fBborg\\fR(1)"].map(str::to_owned));
    text.push_str(&others.join(",\n"));
    text.push('\n');
    fs::write(out.join(format!("{name}.1")), text)?;
    for subcommand in command.get_subcommands().filter(|sub| sub.get_name() != "help" && !sub.is_hide_set()) {
        commands(subcommand, &format!("{name}-{}", subcommand.get_name()), date, out)?;
    }
    Ok(())
}

/// What mandoc finds untidy in generated pages: paragraphs without text, spaces at the ends of lines, empty lines.
fn tidy(text: &str) -> String {
    let mut lines: Vec<&str> = vec![];
    let mut literal = false;
    for line in text.lines() {
        let line = line.trim_end();
        literal = match line {
            ".nf" => true,
            ".fi" => false,
            _ => literal,
        };
        let heading = lines.last().is_some_and(|last| last.starts_with(".SH") || last.starts_with(".SS"));
        let line = if line.is_empty() && !literal { ".PP" } else { line };
        if (line == ".PP" || line == ".br") && (heading || lines.last().is_some_and(|last| *last == ".PP")) {
            continue;
        }
        if line.starts_with(".SH") && lines.last().is_some_and(|last| *last == ".PP" || *last == ".br") {
            lines.pop();
        }
        lines.push(line);
    }
    while lines.last().is_some_and(|last| *last == ".PP" || *last == ".br") {
        lines.pop();
    }
    lines.join("\n") + "\n"
}

/// What a program says of itself. The daemons refuse unknown arguments with the same text, so the exit code does not matter.
fn help(program: &Path) -> Result<String, Box<dyn Error>> {
    let said = Command::new(program).arg("--help").env_clear().stdin(Stdio::null()).output();
    let said = said.map_err(|e| format!("{}: {e}", program.display()))?;
    let text = if said.stdout.is_empty() { said.stderr } else { said.stdout };
    let text = String::from_utf8(text)?;
    if text.trim().is_empty() {
        return Err(format!("{} --help says nothing", program.display()).into());
    }
    Ok(text)
}

/// A page: its text has a first line `name \- what it is`, then sections; the arguments come behind the first of them.
fn page(program: &str, text: &str, help: &str, date: &str) -> String {
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let title = program.to_uppercase();
    let version = env!("CARGO_PKG_VERSION");
    let sections = rest.trim_start().split_once("\n.SH ").map_or_else(
        || rest.trim().to_owned(),
        |(description, others)| format!("{}\n.SH ARGUMENTS\n{}.SH {}", description.trim(), literal(help), others.trim()),
    );
    format!(".TH {title} 8 \"{date}\" \"BorgCube {version}\" \"BorgCube\"\n.SH NAME\n{first}\n{sections}\n")
}

/// Text as it is.
fn literal(text: &str) -> String {
    let mut out = String::from(".nf\n");
    for line in text.trim().lines() {
        let line = line.trim_end().replace('\\', "\\e").replace('-', "\\-");
        let guard = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
        out.push_str(&format!("{guard}{line}\n"));
    }
    out + ".fi\n"
}

/// `YYYY-MM-DD` of `SOURCE_DATE_EPOCH`, or of today.
fn date() -> Result<String, Box<dyn Error>> {
    let seconds: i64 = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text.parse().map_err(|_| format!("SOURCE_DATE_EPOCH is not a number: {text}"))?,
        Err(_) => model::Timestamp::now().plus_seconds(0).seconds_since(model::Timestamp(0)) as i64,
    };
    let day = model::Timestamp(0).plus_seconds(seconds).to_rfc3339();
    Ok(day.chars().take(10).collect())
}
