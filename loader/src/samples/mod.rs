//! From a sample in a shard to a row of a batch: its image ([`crop`], [`pixels`], [`scaler`]) and its text ([`text`]). Threads
//! write the rows into the memory of a pool ([`buffers`]).

pub(crate) mod batch;
pub(crate) mod buffers;
pub(crate) mod crop;
pub(crate) mod pixels;
pub(crate) mod scaler;
pub(crate) mod set;
pub(crate) mod worker;

mod text;
