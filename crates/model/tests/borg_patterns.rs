//! What is refused here of regular expressions, Python refuses as well: no config that works is turned away.

use model::borg_pattern::check_exclude;
use std::io::Write;
use std::process::{Command, Stdio};

/// Compiles each line, and prints 1 where that works.
const PYTHON: &str = "import re, sys, warnings
warnings.simplefilter('ignore')
for line in sys.stdin.read().split('\\n')[:-1]:
    try:
        re.compile(line)
        print(1)
    except (re.error, OverflowError, RecursionError, ValueError):
        print(0)
";

/// Pieces of which expressions are made.
const PIECES: [&str; 40] = [
    "a",
    "b",
    "\\.",
    "\\",
    "[",
    "]",
    "[^",
    "(",
    ")",
    "(?:",
    "(?P<n>",
    "(?P=n)",
    "(?=",
    "(?<!",
    "(?i)",
    "(?x)",
    "(?#",
    "(?s-i:",
    "(?(1)",
    "|",
    "*",
    "+",
    "?",
    "{2}",
    "{",
    "}",
    "{,3}",
    "^",
    "$",
    "-",
    ".",
    "[a-z]",
    "[]x]",
    "[[:alpha:]]",
    "#",
    " ",
    "(?",
    "P",
    "ä",
    ">",
];

#[test]
fn what_is_refused_python_refuses_as_well() {
    let mut seed = 88_172_645_463_325_252_u64;
    let mut next = |below: usize| {
        // xorshift64
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % below as u64).unwrap_or(0)
    };
    let expressions: Vec<String> = (0..20_000)
        .map(|_| {
            let pieces = 1 + next(7);
            (0..pieces).map(|_| PIECES[next(PIECES.len())]).collect()
        })
        .collect();
    let spawned = Command::new("python3").args(["-c", PYTHON]).env("PYTHONUTF8", "1").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut python = match spawned {
        Ok(python) => python,
        Err(e) => {
            eprintln!("\n!!!!! NOT RUN: regular expressions of Python: {e}\n");
            return;
        }
    };
    let mut input = python.stdin.take().expect("a pipe");
    let text: String = expressions.iter().map(|expression| format!("{expression}\n")).collect();
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = python.wait_with_output().expect("it ends");
    writer.join().expect("it ends").expect("it reads all");
    let taken: Vec<bool> = String::from_utf8_lossy(&output.stdout).lines().map(|line| line == "1").collect();
    assert_eq!(taken.len(), expressions.len());
    let (mut both, mut only_python) = (0, 0);
    for (expression, taken) in expressions.iter().zip(taken) {
        match (check_exclude(&format!("re:{expression}")), taken) {
            (Err(why), true) => panic!("Python takes {expression:?}: {why}"),
            (Err(_), false) => both += 1,
            (Ok(()), false) => only_python += 1,
            (Ok(()), true) => {}
        }
    }
    // It is worth something: most of what Python refuses is refused here.
    assert!(both > 5_000 && both > only_python, "{both} {only_python}");
}
