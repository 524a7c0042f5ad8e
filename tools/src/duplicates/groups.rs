//! Groups of connected items: a union-find forest.

/// Items `0..n`, each in one group.
pub(super) struct Groups(Vec<u32>);

impl Groups {
    /// Every item is a group of its own.
    pub(super) fn new(items: usize) -> Self {
        Self((0..items as u32).collect())
    }

    /// The group of an item: one of the group's items, the same for all of them.
    pub(super) fn of(&mut self, item: usize) -> usize {
        let mut at = item as u32;
        while self.0[at as usize] != at {
            // Halves the path.
            let above = self.0[self.0[at as usize] as usize];
            self.0[at as usize] = above;
            at = above;
        }
        at as usize
    }

    /// Makes the groups of two items one.
    pub(super) fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.of(a), self.of(b));
        // The smaller number stays, so that the order of calls does not matter.
        self.0[a.max(b)] = a.min(b) as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_connected_items() {
        let mut groups = Groups::new(6);
        for (a, b) in [(4, 5), (1, 3), (3, 4)] {
            groups.join(a, b);
        }
        let of: Vec<usize> = (0..6).map(|item| groups.of(item)).collect();
        assert_eq!(of, [0, 1, 2, 1, 1, 1]);
    }
}
