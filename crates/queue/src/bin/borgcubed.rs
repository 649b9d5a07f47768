//! The queue daemon.

fn main() -> std::process::ExitCode {
    queue::daemon::main()
}
