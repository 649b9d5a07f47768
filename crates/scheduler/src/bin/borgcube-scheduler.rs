//! `borgcube-scheduler`: see the library.

fn main() -> std::process::ExitCode {
    scheduler::cli::main()
}
