//! The program `borgcube` as people run it.

mod commands;
mod fake;
mod waiting;
