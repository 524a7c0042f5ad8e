//! The pool of image buffers. The buffers are the loader's own memory or come from the consumer, for example pinned memory.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::ops::Deref;

use bytes::BytesMut;
use crossbeam::channel::Sender;

/// A row buffer: the part of an [`ImageBuffer`] for one row of the batch. Every type with these bounds is one.
pub trait RowBuffer: AsMut<[u8]> + Any + Send {}

impl<T: AsMut<[u8]> + Any + Send> RowBuffer for T {}

/// Memory for the images of one batch, for [`Loader::batches_in`](crate::Loader::batches_in): implement it to have images
/// decoded straight into memory of your own, such as pinned memory or a tensor of another language.
///
/// The threads of the loader write the rows of a batch at the same time. So a buffer gives out its memory as one
/// [`RowBuffer`] per row and takes them back, in the same order, when all of them are written. The batch then has the
/// buffer as [`Batch::images`](crate::Batch::images); [`Images::buffer`] returns it as the type that it has. When the
/// images are dropped, the buffer returns to the pool of its iterator and is filled again. A run needs as many buffers as
/// there are batches at the same time: `prefetch` + 1, and those that the consumer keeps.
///
/// Memory that is known by its address:
///
/// ```
/// use std::{slice, sync::Arc};
///
/// use loader::{ImageBuffer, Loader, Position, RowBuffer};
///
/// /// What owns the memory; here a vector, elsewhere a tensor.
/// struct Memory(*mut u8, usize);
/// // SAFETY: rows do not overlap, and the whole is read only while no row is lent.
/// unsafe impl Send for Memory {}
/// unsafe impl Sync for Memory {}
/// # impl Drop for Memory {
/// #     fn drop(&mut self) {
/// #         drop(unsafe { Vec::from_raw_parts(self.0, self.1, self.1) });
/// #     }
/// # }
///
/// struct Row { memory: Arc<Memory>, start: usize, length: usize }
/// impl AsMut<[u8]> for Row {
///     fn as_mut(&mut self) -> &mut [u8] {
///         // SAFETY: inside the memory, which lives as long as this, and in no other row.
///         unsafe { slice::from_raw_parts_mut(self.memory.0.add(self.start), self.length) }
///     }
/// }
///
/// struct Lent { memory: Arc<Memory>, is_lent: bool }
/// impl ImageBuffer for Lent {
///     fn lend(&mut self, rows: usize, bytes: usize) -> Vec<Box<dyn RowBuffer>> {
///         assert!(!self.is_lent && rows * bytes == self.memory.1);
///         self.is_lent = true;
///         let row = |row| Row { memory: Arc::clone(&self.memory), start: row * bytes, length: bytes };
///         (0..rows).map(|number| Box::new(row(number)) as Box<dyn RowBuffer>).collect()
///     }
///
///     fn take_back(&mut self, rows: Vec<Box<dyn RowBuffer>>) {
///         drop(rows);
///         self.is_lent = false;
///     }
///
///     fn bytes(&self) -> &[u8] {
///         // SAFETY: no row is lent, so nobody writes.
///         if self.is_lent { &[] } else { unsafe { slice::from_raw_parts(self.memory.0, self.memory.1) } }
///     }
/// }
///
/// # fn allocate(bytes: usize) -> *mut u8 {
/// #     Box::into_raw(vec![0_u8; bytes].into_boxed_slice()).cast()
/// # }
/// fn own_memory(loader: &Loader) -> Result<*const u8, loader::Error> {
///     let allocator = Box::new(|bytes| {
///         let memory = Arc::new(Memory(allocate(bytes), bytes));
///         Ok(Box::new(Lent { memory, is_lent: false }) as Box<dyn ImageBuffer>)
///     });
///     let mut batches = loader.batches_in(Position::default(), allocator);
///     let batch = batches.next().expect("batches have no end")?;
///     let buffer: &Lent = batch.images.buffer().expect("made by the allocator");
///     Ok(buffer.memory.0)
/// }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// #     let folder = tempfile::tempdir()?;
/// #     let mut tar = tar::Builder::new(std::fs::File::create(folder.path().join("0.tar"))?);
/// #     let jpeg = loader::jpeg::encode(&[90; 64 * 48 * 3], 64, 48, 90)?;
/// #     for (name, data) in [("a.jpg", &jpeg[..]), ("a.txt", b"a grey wall")] {
/// #         let mut header = tar::Header::new_ustar();
/// #         header.set_size(data.len() as u64);
/// #         tar.append_data(&mut header, name, data)?;
/// #     }
/// #     tar.finish()?;
/// #     let shards = loader::shards::list([folder.path()])?;
/// #     own_memory(&Loader::open(loader::Settings::new(shards, 1))?)?;
/// #     Ok(())
/// # }
/// ```
pub trait ImageBuffer: Any + Send + Sync {
    /// Gives out its memory as `rows` row buffers of `bytes` bytes each, in row order. Their content does not matter.
    /// They must not overlap, because different threads write them.
    fn lend(&mut self, rows: usize, bytes: usize) -> Vec<Box<dyn RowBuffer>>;

    /// Takes back the row buffers from [`ImageBuffer::lend`], in the same order.
    fn take_back(&mut self, rows: Vec<Box<dyn RowBuffer>>);

    /// The memory of all rows, one after another; empty while it is lent.
    fn bytes(&self) -> &[u8];
}

/// Makes a new buffer of this many bytes. Called when no buffer of the pool is free; an error ends the iteration.
pub type Allocator =
    Box<dyn FnMut(usize) -> Result<Box<dyn ImageBuffer>, Box<dyn Error + Send + Sync>> + Send>;

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
