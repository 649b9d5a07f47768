//! `borgcube-timers`: see the library.

fn main() -> std::process::ExitCode {
    scheduler::timers::main()
}
