//! Source trees with everything a file system can hold, and the comparison of two trees.

mod compare;
mod make;
mod modify;
mod random;

pub use compare::{Difference, assert_same, differences, listed};
pub use make::{Made, Spec, make};
pub use modify::{Changes, modify};
pub use random::Random;
