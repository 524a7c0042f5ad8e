//! The pool of image buffers. The buffers are the loader's own memory or come from the consumer, for example pinned memory.
//!
//! - An [`ImageBuffer`] holds the images of one batch.
//! - A [`RowBuffer`] is the part of it for one row. Threads write the rows of a batch at the same time, so a buffer gives
//!   out its memory as one row buffer per row and takes them back, in the same order, when all of them are written.
//! - [`Images`] is a filled buffer, as part of a [`Batch`](crate::Batch). When it is dropped, its buffer returns to the
//!   pool of the iterator it came from and is filled again.
//! - An [`Allocator`] makes a new buffer when the pool is empty. A run needs as many buffers as there are batches at the
//!   same time: `prefetch` + 1, and those that the consumer keeps.

use std::any::Any;
use std::fmt;
use std::ops::Deref;

use bytes::BytesMut;
use crossbeam::channel::Sender;

/// A row buffer: the part of an [`ImageBuffer`] for one row of the batch.
pub trait RowBuffer: AsMut<[u8]> + Any + Send {}

impl<T: AsMut<[u8]> + Any + Send> RowBuffer for T {}

/// An image buffer for one batch.
pub trait ImageBuffer: Any + Send {
    /// Gives out its memory as `rows` row buffers of `bytes` bytes each, in row order. Their content does not matter.
    /// They must not overlap, because different threads write them.
    fn lend(&mut self, rows: usize, bytes: usize) -> Vec<Box<dyn RowBuffer>>;

    /// Takes back the row buffers from [`ImageBuffer::lend`], in the same order.
    fn take_back(&mut self, rows: Vec<Box<dyn RowBuffer>>);

    /// The memory of all rows, one after another; empty while it is lent.
    fn bytes(&self) -> &[u8];
}

/// Makes a new buffer of this many bytes. Called when no buffer of the pool is free; an error ends the iteration.
pub type Allocator = Box<dyn FnMut(usize) -> Result<Box<dyn ImageBuffer>, String> + Send>;

/// The loader's own memory: one allocation, which is split into rows and joined again without a copy.
#[derive(Debug, Default)]
pub(crate) struct HeapBuffer(BytesMut);

impl ImageBuffer for HeapBuffer {
    fn lend(&mut self, rows: usize, bytes: usize) -> Vec<Box<dyn RowBuffer>> {
        let mut memory = std::mem::take(&mut self.0);
        memory.resize(rows * bytes, 0);
        (0..rows).map(|_| Box::new(memory.split_to(bytes)) as Box<dyn RowBuffer>).collect()
    }

    fn take_back(&mut self, rows: Vec<Box<dyn RowBuffer>>) {
        for row in rows {
            let row: Box<dyn Any> = row;
            if let Ok(row) = row.downcast::<BytesMut>() {
                self.0.unsplit(*row);
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
    buffer: Option<Box<dyn ImageBuffer>>,
    /// The pool to return the buffer to.
    pool: Option<Sender<Box<dyn ImageBuffer>>>,
}

impl Images {
    pub(crate) fn new(buffer: Box<dyn ImageBuffer>, pool: Sender<Box<dyn ImageBuffer>>) -> Self {
        Self { buffer: Some(buffer), pool: Some(pool) }
    }

    /// The buffer, if it is of type `B`. A consumer that provides the memory finds its own buffer with this.
    pub fn buffer<B: ImageBuffer>(&self) -> Option<&B> {
        let buffer: &dyn Any = self.buffer.as_deref()?;
        buffer.downcast_ref()
    }
}

impl Deref for Images {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], |buffer| buffer.bytes())
    }
}

/// A clone has its own memory and does not return it to a pool.
impl Clone for Images {
    fn clone(&self) -> Self {
        Self { buffer: Some(Box::new(HeapBuffer(BytesMut::from(&**self)))), pool: None }
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
        if let (Some(buffer), Some(pool)) = (self.buffer.take(), self.pool.take()) {
            // Fails when the iteration has ended; the memory is then freed.
            let _ = pool.send(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heap_memory_is_split_and_joined_without_a_copy() {
        let mut buffer = HeapBuffer::default();
        let mut addresses = Vec::new();
        for round in 0..3_u8 {
            let mut lent = buffer.lend(4, 100);
            for (row, memory) in lent.iter_mut().enumerate() {
                (**memory).as_mut().fill(round * 4 + row as u8);
            }
            buffer.take_back(lent);
            assert!(
                buffer
                    .bytes()
                    .chunks(100)
                    .enumerate()
                    .all(|(row, memory)| memory == [round * 4 + row as u8; 100])
            );
            assert_eq!(buffer.bytes().len(), 400);
            addresses.push(buffer.bytes().as_ptr());
        }
        assert!(addresses.iter().all(|&address| address == addresses[0]), "the same memory every time");
    }
}
