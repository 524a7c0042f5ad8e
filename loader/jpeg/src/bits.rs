//! Reads the bits of an entropy-coded segment.

/// Number of bits of the lookahead. A decoder's table of steps then has 8 KiB: those for luma and chroma fit the L1 cache
/// together.
pub(crate) const LOOKAHEAD: u32 = 11;

/// Minimum number of bits after a refill.
pub(crate) const FILLED: u32 = 56;

/// More bytes than an MCU can have: a symbol has at most 16 bits of code and 15 of value, a block 64 symbols, an MCU ten
/// blocks. A power of two.
const MAX_MCU: usize = 4096;
const _: () = assert!(10 * 64 * 31 / 8 + 16 < MAX_MCU);

/// Number of bytes that may be looked at from the start of an MCU on.
pub(crate) const WINDOW: usize = MAX_MCU + 8;

/// The next bits of a segment.
pub(crate) struct Bits<'a> {
    window: &'a [u8; WINDOW],
    /// The next `count` bits, from the highest on, followed by more bits.
    ahead: u64,
    /// Modulo 64, which is what a processor's shifts take: the higher bits have no meaning.
    count: u32,
    /// The place of the next byte to add.
    next: u32,
}

/// What is kept from one MCU to the next: `ahead` and `count` of [`Bits`].
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rest {
    ahead: u64,
    count: u32,
}

impl Rest {
    /// Number of bits.
    pub(crate) fn count(self) -> usize {
        self.count as usize & 63
    }
}

impl<'a> Bits<'a> {
    #[inline]
    pub(crate) fn new(rest: Rest, window: &'a [u8; WINDOW]) -> Self {
        Self { window, ahead: rest.ahead, count: rest.count, next: 0 }
    }

    /// The rest, and the number of bytes that have been added.
    #[inline]
    pub(crate) fn rest(&self) -> (Rest, usize) {
        (Rest { ahead: self.ahead, count: self.count }, self.next as usize)
    }

    /// Adds the bytes that fit, without a branch on their number: a byte that fits only in part is added again by the
    /// next refill.
    #[inline]
    pub(crate) fn refill(&mut self) {
        // It is less, which the compiler does not know.
        let next = self.next as usize % MAX_MCU;
        let bytes = self.window[next..next + 8].first_chunk().copied().unwrap_or_default();
        self.ahead |= u64::from_be_bytes(bytes) >> (self.count & 63);
        self.next += !self.count >> 3 & 7;
        self.count |= FILLED;
    }

    /// Takes as many bits as the lowest six bits of `count` say; the others are ignored.
    #[inline]
    pub(crate) fn take(&mut self, count: u32) {
        self.ahead <<= count & 63;
        self.count = self.count.wrapping_sub(count);
    }

    /// The lookahead.
    #[inline]
    pub(crate) fn peek(&self) -> usize {
        (self.ahead >> (64 - LOOKAHEAD)) as usize
    }

    /// The next 16 bits.
    #[inline]
    pub(crate) fn peek_16(&self) -> u32 {
        (self.ahead >> 48) as u32
    }

    /// Takes a value of `size` bits, 1 to 15. EXTEND of T.81, F.2.2.1: those that begin with the bit 0 are negative.
    #[inline]
    pub(crate) fn take_value(&mut self, size: u32) -> i32 {
        let value = (self.ahead >> (64 - size)) as i32;
        self.take(size);
        extend(value, size)
    }
}

/// EXTEND of T.81, F.2.2.1: values that begin with the bit 0 are negative.
#[inline]
pub(crate) fn extend(value: i32, size: u32) -> i32 {
    if value < 1 << (size - 1) { value - (1 << size) + 1 } else { value }
}
