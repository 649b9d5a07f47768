//! `borgcube`: the command line of BorgCube.

fn main() -> std::process::ExitCode {
    cli::main()
}
