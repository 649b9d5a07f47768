//! `borgcube-repositoryd`: see the library.

fn main() -> std::process::ExitCode {
    repositoryd::main()
}
