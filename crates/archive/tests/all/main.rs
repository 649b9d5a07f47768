//! Archives of every kind, honest and hostile, read from an owner that has its objects in memory.

#![expect(clippy::unwrap_used, reason = "these are tests")]

mod content;
mod damage;
mod escape;
mod floods;
mod holes;
mod owner;
mod trees;
mod trial;
mod uses;
