//! Trains the embedded taggers from tagged sentences. The result is deterministic: the same sentences in the same order
//! give the same bytes on any machine.

mod brill;
mod perceptron;
mod sentences;
mod teacher;

pub use brill::{BrillOptions, brill};
pub use perceptron::{PerceptronOptions, perceptron};
pub use sentences::{Sentence, sentences};
pub use teacher::retag;

pub use crate::tagger::{Tag, brill_rules};
