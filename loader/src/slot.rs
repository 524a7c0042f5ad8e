//! Memory for the images of batches: the loader's own, or lent by the consumer, as pinned memory is.
//!
//! Threads write the rows of a batch side by side. So a [`Slot`] parts with its memory in pieces, one a row, gets
//! them back in the same order when all are written, and travels in the batch as [`Images`]. When these are dropped
//! the slot goes back to the iterator it came from, which fills it again: a run needs as many slots as batches exist
//! at a time, `prefetch` + 1 and those that the consumer holds.

use std::any::Any;
use std::fmt;
use std::ops::Deref;

use bytes::BytesMut;
use crossbeam::channel::Sender;

/// A row's part of a slot.
pub trait Piece: AsMut<[u8]> + Any + Send {}

impl<T: AsMut<[u8]> + Any + Send> Piece for T {}

/// Memory for the images of one batch.
pub trait Slot: Any + Send {
    /// Its memory as `rows` pieces of `bytes` each, what they hold being of no interest. They are distinct, as
    /// other threads write them.
    fn lend(&mut self, rows: usize, bytes: usize) -> Vec<Box<dyn Piece>>;

    /// Takes back what it lent, in the order in which it lent it.
    fn take_back(&mut self, pieces: Vec<Box<dyn Piece>>);

    /// All rows, one after the other; empty while they are lent.
    fn bytes(&self) -> &[u8];
}

/// Makes a slot for this many bytes when none is free; an error ends the iteration.
pub type Lender = Box<dyn FnMut(usize) -> Result<Box<dyn Slot>, String> + Send>;

/// The loader's own memory: one allocation, parted and joined without a copy.
#[derive(Debug, Default)]
pub(crate) struct Plain(BytesMut);

impl Slot for Plain {
    fn lend(&mut self, rows: usize, bytes: usize) -> Vec<Box<dyn Piece>> {
        let mut memory = std::mem::take(&mut self.0);
        memory.resize(rows * bytes, 0);
        (0..rows).map(|_| Box::new(memory.split_to(bytes)) as Box<dyn Piece>).collect()
    }

    fn take_back(&mut self, pieces: Vec<Box<dyn Piece>>) {
        for piece in pieces {
            let piece: Box<dyn Any> = piece;
            if let Ok(piece) = piece.downcast::<BytesMut>() {
                self.0.unsplit(*piece);
            }
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The images of a batch, as bytes; gives its memory back when dropped.
#[derive(Default)]
pub struct Images {
    slot: Option<Box<dyn Slot>>,
    home: Option<Sender<Box<dyn Slot>>>,
}

impl Images {
    pub(crate) fn new(slot: Box<dyn Slot>, home: Sender<Box<dyn Slot>>) -> Self {
        Self { slot: Some(slot), home: Some(home) }
    }

    /// The slot, if it is of this kind: how a consumer finds what it lent.
    pub fn slot<S: Slot>(&self) -> Option<&S> {
        let slot: &dyn Any = self.slot.as_deref()?;
        slot.downcast_ref()
    }
}

impl Deref for Images {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.slot.as_ref().map_or(&[], |slot| slot.bytes())
    }
}

/// A copy has memory of its own.
impl Clone for Images {
    fn clone(&self) -> Self {
        Self { slot: Some(Box::new(Plain(BytesMut::from(&**self)))), home: None }
    }
}

impl PartialEq for Images {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl fmt::Debug for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Images of {} bytes", self.len())
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        if let (Some(slot), Some(home)) = (self.slot.take(), self.home.take()) {
            // Nobody takes it when the iteration has ended.
            let _ = home.send(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_memory_is_parted_and_joined_without_a_copy() {
        let mut slot = Plain::default();
        let mut places = Vec::new();
        for round in 0..3_u8 {
            let mut pieces = slot.lend(4, 100);
            for (row, piece) in pieces.iter_mut().enumerate() {
                (**piece).as_mut().fill(round * 4 + row as u8);
            }
            slot.take_back(pieces);
            assert!(
                slot.bytes()
                    .chunks(100)
                    .enumerate()
                    .all(|(row, piece)| piece == [round * 4 + row as u8; 100])
            );
            assert_eq!(slot.bytes().len(), 400);
            places.push(slot.bytes().as_ptr());
        }
        assert!(places.iter().all(|&place| place == places[0]), "the same memory every time");
    }
}
