//! Distributions of values in a fixed amount of memory, however many values are counted.

/// Longer sides are counted as this length, pixels.
const LONGEST_SIDE: usize = 1 << 15;

/// How often each value up to a limit occurred. Larger values count as the limit.
#[derive(Debug)]
pub(crate) struct Distribution {
    counts: Vec<u64>,
    total: u64,
}

impl Distribution {
    pub(super) fn up_to(limit: usize) -> Self {
        Self { counts: vec![0; limit + 1], total: 0 }
    }

    pub(super) fn add(&mut self, value: usize) {
        let last = self.counts.len() - 1;
        self.counts[value.min(last)] += 1;
        self.total += 1;
    }

    /// Number of values counted.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// How often values in the range occurred.
    pub(crate) fn within(&self, range: std::ops::Range<usize>) -> u64 {
        let end = range.end.min(self.counts.len());
        self.counts.get(range.start..end).unwrap_or_default().iter().sum()
    }

    /// The smallest value that at least this share of all values do not exceed; 0 when nothing was counted.
    pub(crate) fn quantile(&self, share: f64) -> usize {
        let wanted = ((share * self.total as f64).ceil() as u64).max(1);
        let mut seen = 0;
        self.counts
            .iter()
            .position(|count| {
                seen += count;
                seen >= wanted
            })
            .unwrap_or(0)
    }
}

/// The grid of image sizes starts at 16 pixels and has this many cells per doubling of the size.
const CELLS_PER_OCTAVE: f64 = 4.0;
/// Cells per axis: up to 16 * 2^11 = 32,768 pixels.
pub(crate) const CELLS: usize = 44;

/// Widths and heights of images.
#[derive(Debug)]
pub(crate) struct Sizes {
    /// Number of images by width (column) and height (row) of the grid, row by row.
    grid: Vec<u64>,
    pub(crate) shorter: Distribution,
    pub(crate) longer: Distribution,
    /// Size of the first image; none before it.
    first: Option<(u32, u32)>,
    uniform: bool,
    pub(crate) landscape: u64,
    pub(crate) portrait: u64,
}

impl Sizes {
    pub(super) fn new() -> Self {
        Self {
            grid: vec![0; CELLS * CELLS],
            shorter: Distribution::up_to(LONGEST_SIDE),
            longer: Distribution::up_to(LONGEST_SIDE),
            first: None,
            uniform: true,
            landscape: 0,
            portrait: 0,
        }
    }

    pub(super) fn add(&mut self, width: u32, height: u32) {
        self.grid[cell(height) * CELLS + cell(width)] += 1;
        self.shorter.add(width.min(height) as usize);
        self.longer.add(width.max(height) as usize);
        self.landscape += u64::from(width > height);
        self.portrait += u64::from(height > width);
        self.uniform &= *self.first.get_or_insert((width, height)) == (width, height);
    }

    /// Number of images counted.
    pub(crate) fn total(&self) -> u64 {
        self.shorter.total()
    }

    /// The size of all images, if they all have the same.
    pub(crate) fn only(&self) -> Option<(u32, u32)> {
        self.first.filter(|_| self.uniform)
    }

    /// Number of images whose width is in this column and height in this row of the grid.
    pub(crate) fn at(&self, column: usize, row: usize) -> u64 {
        self.grid[row * CELLS + column]
    }
}

fn cell(side: u32) -> usize {
    let octaves = (f64::from(side.max(1)) / 16.0).log2();
    ((octaves * CELLS_PER_OCTAVE).floor().max(0.0) as usize).min(CELLS - 1)
}

/// The smallest size in a cell of the grid, pixels.
pub(crate) fn cell_start(cell: usize) -> f64 {
    16.0 * (cell as f64 / CELLS_PER_OCTAVE).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_counted_values() {
        let mut words = Distribution::up_to(10);
        assert_eq!(words.quantile(0.5), 0);
        for value in [3, 5, 5, 9, 40] {
            words.add(value);
        }
        // In order: 3 5 5 9 and 40, which counts as 10.
        assert_eq!([0.0, 0.2, 0.5, 0.61, 1.0].map(|share| words.quantile(share)), [3, 3, 5, 9, 10]);
        assert_eq!((words.within(4..10), words.within(10..99), words.total()), (3, 1, 5));
    }

    #[test]
    fn cells_start_at_cell_start() {
        for at in 0..CELLS {
            let start = cell_start(at);
            assert_eq!(cell(start.ceil() as u32), at);
            assert_eq!(cell(start.ceil() as u32 - 1), at.saturating_sub(1));
        }
        assert_eq!((cell(1), cell(16), cell(32), cell(u32::MAX)), (0, 0, 4, CELLS - 1));
    }
}
