//! Archives of every kind, honest and hostile, read from an owner that has its objects in memory.

mod content;
mod escape;
mod floods;
mod holes;
mod owner;
mod trees;
