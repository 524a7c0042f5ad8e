//! The buffer pool for the images of batches. The buffers are the loader's own memory or come from the consumer, for
//! example pinned memory.
//!
//! - A [`Slot`] is the image buffer of one batch.
//! - A [`Piece`] is a row buffer: the part of it for one row. Threads write the rows of a batch at the same time, so a
//!   slot gives out its memory as one piece per row and takes the pieces back, in the same order, when all of them are
//!   written.
//! - [`Images`] is a filled slot, as part of a [`Batch`](crate::Batch). When it is dropped, its slot returns to the
//!   pool of the iterator it came from and is filled again.
//! - A [`Lender`] is the allocator that makes a new slot when the pool is empty. A run needs as many slots as there are
//!   batches at the same time: `prefetch` + 1, and those that the consumer keeps.

use std::any::Any;
use std::fmt;
use std::ops::Deref;

use bytes::BytesMut;
use crossbeam::channel::Sender;

/// A row buffer: the part of a [`Slot`] for one row of the batch.
pub trait Piece: AsMut<[u8]> + Any + Send {}

impl<T: AsMut<[u8]> + Any + Send> Piece for T {}

/// An image buffer for one batch.
pub trait Slot: Any + Send {
    /// Gives out its memory as `rows` row buffers of `bytes` bytes each, in row order. Their content does not matter.
    /// They must not overlap, because different threads write them.
    fn lend(&mut self, rows: usize, bytes: usize) -> Vec<Box<dyn Piece>>;

    /// Takes back the row buffers from [`Slot::lend`], in the same order.
    fn take_back(&mut self, pieces: Vec<Box<dyn Piece>>);

    /// The memory of all rows, one after another; empty while it is lent.
    fn bytes(&self) -> &[u8];
}

/// The allocator of a buffer pool: makes a new slot of this many bytes. Called when no slot is free; an error ends the
/// iteration.
pub type Lender = Box<dyn FnMut(usize) -> Result<Box<dyn Slot>, String> + Send>;

/// The loader's own memory: one allocation, which is split into rows and joined again without a copy.
#[derive(Debug, Default)]
pub(crate) struct HeapSlot(BytesMut);

impl Slot for HeapSlot {
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

/// The images of a batch, as bytes. Returns its memory to the pool when dropped.
#[derive(Default)]
pub struct Images {
    slot: Option<Box<dyn Slot>>,
    /// The pool to return the slot to.
    pool: Option<Sender<Box<dyn Slot>>>,
}

impl Images {
    pub(crate) fn new(slot: Box<dyn Slot>, pool: Sender<Box<dyn Slot>>) -> Self {
        Self { slot: Some(slot), pool: Some(pool) }
    }

    /// The slot, if it is of type `S`. A consumer that provides the memory finds its own buffer with this.
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

/// A clone has its own memory and does not return it to a pool.
impl Clone for Images {
    fn clone(&self) -> Self {
        Self { slot: Some(Box::new(HeapSlot(BytesMut::from(&**self)))), pool: None }
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
        if let (Some(slot), Some(pool)) = (self.slot.take(), self.pool.take()) {
            // Fails when the iteration has ended; the memory is then freed.
            let _ = pool.send(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heap_memory_is_split_and_joined_without_a_copy() {
        let mut slot = HeapSlot::default();
        let mut addresses = Vec::new();
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
            addresses.push(slot.bytes().as_ptr());
        }
        assert!(addresses.iter().all(|&address| address == addresses[0]), "the same memory every time");
    }
}
