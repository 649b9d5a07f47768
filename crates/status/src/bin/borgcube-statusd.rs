//! `borgcube-statusd`: see the library.

fn main() -> std::process::ExitCode {
    status::cli::main()
}
