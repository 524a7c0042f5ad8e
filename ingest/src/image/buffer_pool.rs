//! A buffer pool per thread: the memory of processed images is reused for the next one. Allocating megabytes per image from
//! the system, which zeroes them, takes longer than filling them.

use std::cell::RefCell;

use loader::DecodeError;

/// The number of buffers that one image needs: decoded, reduced in height, reduced in width.
const MAX_BUFFERS: usize = 3;
/// Larger buffers are freed, so that one huge image does not occupy memory for ever. A thread keeps at most `MAX_BUFFERS`
/// times this.
const MAX_BUFFER_BYTES: usize = 16 << 20;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Takes the largest buffer of the pool, with its old contents; a new one if the pool is empty.
pub(super) fn take_largest() -> Vec<u8> {
    SPARE.with_borrow_mut(|spare| {
        let at = (0..spare.len()).max_by_key(|&at| spare[at].capacity());
        at.map(|at| spare.swap_remove(at)).unwrap_or_default()
    })
}

/// Takes a buffer of this length, with undefined (old) contents. An error if there is not enough memory.
pub(super) fn take(length: usize) -> Result<Vec<u8>, DecodeError> {
    let mut found = SPARE.with_borrow_mut(|spare| {
        let enough = (0..spare.len()).filter(|&at| spare[at].capacity() >= length);
        let at = enough.min_by_key(|&at| spare[at].capacity());
        at.map(|at| spare.swap_remove(at)).unwrap_or_default()
    });
    found.try_reserve_exact(length.saturating_sub(found.len())).map_err(|_| DecodeError::Memory)?;
    found.resize(length, 0);
    Ok(found)
}

/// A new, empty buffer with room for `length` bytes. An error if there is not enough memory.
pub(super) fn with_room(length: usize) -> Result<Vec<u8>, DecodeError> {
    let mut new = Vec::new();
    new.try_reserve_exact(length).map_err(|_| DecodeError::Memory)?;
    Ok(new)
}

/// Returns the memory of pixels that are no longer needed to the pool.
pub(super) fn recycle(pixels: Vec<u8>) {
    if pixels.capacity() > MAX_BUFFER_BYTES {
        return;
    }
    SPARE.with_borrow_mut(|spare| {
        spare.push(pixels);
        if spare.len() > MAX_BUFFERS {
            spare.sort_by_key(|one| std::cmp::Reverse(one.capacity()));
            spare.truncate(MAX_BUFFERS);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_keeps_the_largest_buffers_that_are_not_huge() {
        for length in [100, 4000, 30, 2000, MAX_BUFFER_BYTES + 1, 1000] {
            recycle(vec![7; length]);
        }
        assert_eq!(take(1500).unwrap(), [7; 1500], "the smallest buffer that is large enough");
        assert_eq!(take(5000).unwrap(), [0; 5000], "a new buffer, because none is large enough");
        assert_eq!(take_largest().len(), 4000);
        assert_eq!(take_largest().len(), 1000);
        assert_eq!(take_largest().len(), 0);
    }
}
