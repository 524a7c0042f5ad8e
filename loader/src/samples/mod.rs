//! From a sample in a shard to a row of a batch: its image ([`crop`], [`pixels`], [`scaler`]) and its text. Threads
//! write the rows into the memory of a pool ([`buffers`]).

pub mod buffers;
pub mod crop;
pub mod pixels;
pub mod scaler;

pub(crate) mod batch;
pub(crate) mod set;
pub(crate) mod worker;

mod text;
