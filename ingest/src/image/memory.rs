//! Memory of pictures that are no longer needed, for the next picture on the same thread: asking the system for megabytes
//! a picture, which it hands over zeroed, costs more than filling them.

use std::cell::RefCell;

/// As many as one picture needs on its way: decoded, shrunk on one side, on both.
const MOST: usize = 3;
/// Larger ones are given back, so that one huge picture does not hold its memory for ever. Bounds what a thread keeps to
/// `MOST` times this.
const LARGEST: usize = 16 << 20;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// The largest there is, with whatever is in it.
pub(super) fn largest() -> Vec<u8> {
    SPARE.with_borrow_mut(|spare| {
        let at = (0..spare.len()).max_by_key(|&at| spare[at].capacity());
        at.map(|at| spare.swap_remove(at)).unwrap_or_default()
    })
}

/// So many bytes, with whatever is in them.
pub(super) fn bytes(length: usize) -> Vec<u8> {
    let mut found = SPARE.with_borrow_mut(|spare| {
        let enough = (0..spare.len()).filter(|&at| spare[at].capacity() >= length);
        let at = enough.min_by_key(|&at| spare[at].capacity());
        at.map(|at| spare.swap_remove(at)).unwrap_or_default()
    });
    found.resize(length, 0);
    found
}

/// Takes the memory of pixels that are no longer needed.
pub(super) fn spend(pixels: Vec<u8>) {
    if pixels.capacity() > LARGEST {
        return;
    }
    SPARE.with_borrow_mut(|spare| {
        spare.push(pixels);
        if spare.len() > MOST {
            spare.sort_by_key(|one| std::cmp::Reverse(one.capacity()));
            spare.truncate(MOST);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_the_largest_of_what_is_not_huge() {
        for length in [100, 4000, 30, 2000, LARGEST + 1, 1000] {
            spend(vec![7; length]);
        }
        assert_eq!(bytes(1500), [7; 1500], "the smallest that is enough");
        assert_eq!(bytes(5000), [0; 5000], "new, as none is enough");
        assert_eq!(largest().len(), 4000);
        assert_eq!(largest().len(), 1000);
        assert_eq!(largest().len(), 0);
    }
}
