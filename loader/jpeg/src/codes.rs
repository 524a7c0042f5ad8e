//! Tables for decoding the Huffman codes of JPEG: several symbols with one lookup.

use std::array;
use std::sync::OnceLock;

use crate::bits::{Bits, FILLED, LOOKAHEAD, extend};

const ENTRIES: usize = 1 << LOOKAHEAD;
/// The lookahead after `taken` of its bits have been taken, as far as it is known.
const fn after(ahead: usize, taken: u32) -> usize {
    (ahead << taken) & (ENTRIES - 1)
}

// The bits of a refill suffice for a DC coefficient and three lookups.
const _: () = assert!(LOOKAHEAD + 3 * LOOKAHEAD <= FILLED);

/// Maximum number of bits that one entry of `skips` takes: a refill suffices for a DC coefficient and two of these.
const MAX_SKIPPED: u32 = (FILLED - LOOKAHEAD) / 2;

/// The symbol of 16 zeros.
const ZEROS_16: u32 = 0xF0;

/// The coefficients of 8 x 8 pixels, in the order of rows.
pub(crate) type Block = [i16; 64];

/// A Huffman table as in the DHT segment.
#[repr(C)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    /// For each length, 1 to 16, the number of codes.
    pub(crate) counts: [u8; 17],
    /// The symbols, in the order of their codes.
    pub(crate) symbols: [u8; 256],
}

/// A code that the table does not have.
#[derive(Debug)]
pub(crate) struct BadCode;

/// Single symbols.
struct Symbols {
    /// What the rest was made from.
    table: Table,
    /// For each length: the end of its codes, as 16 bits; the number of its first symbol minus its first code.
    limits: [u32; 17],
    offsets: [i32; 17],
    /// The symbol that the lookahead begins with: symbol << 8 | length of its code; 0: a longer code, or none.
    found: [u16; ENTRIES],
}

impl Symbols {
    /// Makes the codes of T.81, annex C, and calls `each` with every one that fits the lookahead: symbol, length, code.
    /// None if the table is not a valid set of codes.
    fn new(table: &Table, mut each: impl FnMut(u32, u32, usize)) -> Option<Self> {
        let (mut limits, mut offsets, mut found) = ([0; 17], [0; 17], [0; ENTRIES]);
        let (mut code, mut number) = (0_usize, 0);
        for length in 1..=16_u32 {
            let count = usize::from(table.counts[length as usize]);
            let symbols = table.symbols.get(number..number + count)?;
            if code + count > 1 << length {
                return None;
            }
            offsets[length as usize] = number as i32 - code as i32;
            limits[length as usize] = ((code + count) << (16 - length)) as u32;
            if length <= LOOKAHEAD {
                for (code, &symbol) in (code..).zip(symbols) {
                    let spare = LOOKAHEAD - length;
                    found[code << spare..(code + 1) << spare].fill(u16::from(symbol) << 8 | length as u16);
                    each(u32::from(symbol), length, code);
                }
            }
            number += count;
            code = (code + count) << 1;
        }
        Some(Self { table: table.clone(), limits, offsets, found })
    }

    #[inline]
    fn take(&self, bits: &mut Bits) -> Result<u32, BadCode> {
        let mut found = u32::from(self.found[bits.peek()]);
        if found == 0 {
            found = self.find_long(bits.peek_16())?;
        }
        bits.take(found);
        Ok(found >> 8)
    }

    /// As `found`, for codes longer than the lookahead: DECODE of T.81, F.2.2.3. `ahead` is the next 16 bits.
    #[inline(never)]
    fn find_long(&self, ahead: u32) -> Result<u32, BadCode> {
        for length in LOOKAHEAD + 1..=16 {
            if ahead < self.limits[length as usize] {
                let number = (ahead >> (16 - length)) as i32 + self.offsets[length as usize];
                return Ok(u32::from(self.table.symbols[number as usize & 0xFF]) << 8 | length);
            }
        }
        Err(BadCode)
    }
}

/// The codes of DC coefficients.
pub(crate) struct DcCodes {
    symbols: Symbols,
    /// The difference that is in the lookahead with all its bits: difference << 8 | bits to take; 0: none.
    differences: [u32; ENTRIES],
}

impl DcCodes {
    /// None if the table cannot be used.
    pub(crate) fn new(table: &Table) -> Option<Self> {
        let mut differences = [0; ENTRIES];
        let symbols = Symbols::new(table, |size, length, code| {
            let spare = LOOKAHEAD - length;
            if size > spare {
                return;
            }
            for (rest, to) in differences[code << spare..(code + 1) << spare].iter_mut().enumerate() {
                let value = if size == 0 { 0 } else { extend((rest >> (spare - size)) as i32, size) };
                *to = (value as u32) << 8 | (length + size);
            }
        })?;
        Some(Self { symbols, differences })
    }

    pub(crate) fn table(&self) -> &Table {
        &self.symbols.table
    }

    /// A DC coefficient minus that of the component's last block. At most [`LOOKAHEAD`] bits have then been taken since
    /// the last refill.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "without it, an eighth of a photo takes an eighth more")]
    pub(crate) fn difference(&self, bits: &mut Bits) -> Result<i32, BadCode> {
        bits.refill();
        let difference = self.differences[bits.peek()];
        if difference != 0 {
            bits.take(difference);
            return Ok(difference as i32 >> 8);
        }
        let size = self.symbols.take(bits)? & 15;
        let difference = if size > 0 { bits.take_value(size) } else { 0 };
        bits.refill();
        Ok(difference)
    }
}

/// The coefficients that are in the lookahead with all their bits, at most two, and whether the end of the block follows.
///
/// - bits 0 to 5: number of bits to take
/// - bits 6 to 9: zeros before the first coefficient
/// - bits 10 to 15: distance to the last item, the second coefficient or the end of the block; 63: no step
/// - bit 16: whether the end of the block follows
/// - bits 17 to 22: value of the second coefficient
/// - bits 23 to 31: value of the first coefficient
///
/// A step with one coefficient has it as its second, too. A step with only the end of the block stores a zero where a zero
/// is.
#[derive(Clone, Copy)]
struct Step(u32);

impl Step {
    const NONE: Self = Self(63 << 10);
    const END: u32 = 1 << 16;
    const ONE_FURTHER: u32 = 1 << 10;
    /// What fits.
    const MAX_FIRST_SIZE: u32 = 8;
    const MAX_SECOND: i32 = 31;

    fn end(taken: u32) -> Self {
        Self(taken | Self::END | Self::ONE_FURTHER)
    }

    fn coefficient(taken: u32, run: u32, value: i32) -> Self {
        Self(taken | run << 6 | run << 10 | (value as u32) << 23)
    }

    fn followed_by_end(self, end: Self) -> Self {
        Self(self.0 + end.taken() + Self::ONE_FURTHER + Self::END)
    }

    fn followed_by(self, next: Self) -> Self {
        let second = (next.first() as u32 & 63) << 17;
        Self(self.0 + next.taken() + (next.run() + 1) * Self::ONE_FURTHER + second)
    }

    fn is_none(self) -> bool {
        self.last() == 63
    }

    #[inline]
    fn taken(self) -> u32 {
        self.0 & 63
    }

    #[inline]
    fn run(self) -> u32 {
        self.0 >> 6 & 15
    }

    #[inline]
    fn last(self) -> u32 {
        self.0 >> 10 & 63
    }

    #[inline]
    fn ends(self) -> u32 {
        self.0 >> 16 & 1
    }

    #[inline]
    fn second(self) -> i32 {
        (self.0 << 9) as i32 >> 26
    }

    #[inline]
    fn first(self) -> i32 {
        self.0 as i32 >> 23
    }
}

/// The codes of AC coefficients.
pub(crate) struct AcCodes {
    symbols: Symbols,
    steps: [Step; ENTRIES],
    /// Made when coefficients are first passed over, which most files never need.
    skips: OnceLock<[Skip; ENTRIES]>,
    /// [`ORDER`], here because a register has the address of the other tables.
    order: [Place; ORDER.len()],
}

impl AcCodes {
    /// None if the table cannot be used.
    pub(crate) fn new(table: &Table) -> Option<Self> {
        let mut single = [Step::NONE; ENTRIES];
        let symbols = Symbols::new(table, |symbol, length, code| {
            let (size, run, spare) = (symbol & 15, symbol >> 4, LOOKAHEAD - length);
            if size > spare || size > Step::MAX_FIRST_SIZE || symbol == ZEROS_16 {
                return;
            }
            for (rest, to) in single[code << spare..(code + 1) << spare].iter_mut().enumerate() {
                *to = if size == 0 {
                    Step::end(length)
                } else {
                    Step::coefficient(length + size, run, extend((rest >> (spare - size)) as i32, size))
                };
            }
        })?;
        let steps = array::from_fn(|ahead| join(&single, ahead));
        Some(Self { symbols, steps, skips: OnceLock::new(), order: ORDER })
    }

    pub(crate) fn table(&self) -> &Table {
        &self.symbols.table
    }

    /// Writes the AC coefficients into a block of zeros. Before it, at most [`LOOKAHEAD`] bits have been taken since the
    /// last refill.
    #[inline]
    pub(crate) fn read(&self, bits: &mut Bits, block: &mut Block) -> Result<(), BadCode> {
        // The number of the next coefficient; below 64 wherever a lookup begins.
        let mut at = 1;
        'block: loop {
            'steps: {
                for _ in 0..3 {
                    let step = self.steps[bits.peek()];
                    let last = at + step.last();
                    if last >= 64 {
                        break 'steps;
                    }
                    bits.take(step.0);
                    // In this order, because a step with one coefficient has it in both places and its value is the first.
                    block[self.order[(last - step.ends()) as usize] as usize] = step.second() as i16;
                    block[self.order[(at + step.run()) as usize] as usize] = step.first() as i16;
                    if step.ends() != 0 {
                        return Ok(());
                    }
                    at = last + 1;
                    if at >= 64 {
                        return Ok(());
                    }
                }
                bits.refill();
                continue 'block;
            }

            bits.refill();
            let symbol = self.symbols.take(bits)?;
            let size = symbol & 15;
            if size > 0 {
                at += symbol >> 4;
                block[self.order[at as usize] as usize] = bits.take_value(size) as i16;
                at += 1;
            } else if symbol == ZEROS_16 {
                at += 16;
            } else {
                return Ok(());
            }
            if at >= 64 {
                return Ok(());
            }
            bits.refill();
        }
    }

    /// Passes over the AC coefficients of a block; as [`AcCodes::read`] otherwise.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "without it, an eighth of a photo takes an eighth more")]
    pub(crate) fn skip(&self, bits: &mut Bits) -> Result<(), BadCode> {
        let skips = self.skips.get_or_init(|| array::from_fn(|ahead| Skip::of(&self.symbols, ahead)));
        let mut at = 1;
        loop {
            let found = 'lookups: {
                let mut skip = Skip::NONE;
                for _ in 0..2 {
                    // If there is none, nothing is taken, the next lookup is the same, and that is noticed after it.
                    skip = skips[bits.peek()];
                    let next = at + skip.coefficients();
                    if next >= 64 {
                        if at + skip.last() >= 64 {
                            break 'lookups false;
                        }
                        bits.take(skip.taken());
                        return Ok(());
                    }
                    bits.take(skip.taken());
                    at = next;
                }
                !skip.is_none()
            };
            bits.refill();
            if found {
                continue;
            }

            let symbol = self.symbols.take(bits)?;
            let size = symbol & 15;
            if size == 0 && symbol != ZEROS_16 {
                return Ok(());
            }
            bits.take(size);
            at += (symbol >> 4) + 1;
            if at >= 64 {
                return Ok(());
            }
            bits.refill();
        }
    }
}

/// The symbols that are in the lookahead, without their values, of which the last may end beyond it.
///
/// - bits 0 to 4: number of bits to take, with the values; 0: no symbol
/// - bits 5 to 9: distance to the last coefficient
/// - bits 10 to 15: number of coefficients; 63 if the end of the block follows
#[derive(Clone, Copy)]
struct Skip(u16);

impl Skip {
    const NONE: Self = Self(0);

    fn of(symbols: &Symbols, ahead: usize) -> Self {
        let (mut taken, mut at, mut last) = (0, 0, 0);
        while taken < LOOKAHEAD {
            let found = u32::from(symbols.found[after(ahead, taken)]);
            let (length, symbol) = (found & 0xFF, found >> 8);
            let (size, run) = (symbol & 15, symbol >> 4);
            if length == 0 || taken + length > LOOKAHEAD || taken + length + size > MAX_SKIPPED {
                break;
            }
            if size == 0 && symbol != ZEROS_16 {
                taken += length;
                last = at;
                at = 63;
                break;
            }
            if at + run > 30 {
                break;
            }
            taken += length + size;
            last = at + run;
            at = last + 1;
        }
        Self((at << 10 | last << 5 | taken) as u16)
    }

    #[inline]
    fn is_none(self) -> bool {
        self.0 == 0
    }

    #[inline]
    fn taken(self) -> u32 {
        u32::from(self.0) & 31
    }

    #[inline]
    fn last(self) -> u32 {
        u32::from(self.0) >> 5 & 31
    }

    #[inline]
    fn coefficients(self) -> u32 {
        u32::from(self.0) >> 10
    }
}

/// The step of a lookahead: that of its first symbol, with what follows it.
fn join(single: &[Step; ENTRIES], ahead: usize) -> Step {
    let mut step = single[ahead];
    for coefficients in 1..=2 {
        if step.is_none() || step.ends() != 0 {
            break;
        }
        let next = single[after(ahead, step.taken())];
        if next.is_none() || step.taken() + next.taken() > LOOKAHEAD {
            break;
        }
        if next.ends() != 0 {
            step = step.followed_by_end(next);
        } else if coefficients == 1 && next.first().abs() <= Step::MAX_SECOND {
            step = step.followed_by(next);
        } else {
            break;
        }
    }
    step
}

/// A place in a block, by its row and column. An enumeration, because the compiler then knows that it is inside.
#[rustfmt::skip]
#[derive(Clone, Copy)]
enum Place {
    P00, P01, P02, P03, P04, P05, P06, P07,
    P10, P11, P12, P13, P14, P15, P16, P17,
    P20, P21, P22, P23, P24, P25, P26, P27,
    P30, P31, P32, P33, P34, P35, P36, P37,
    P40, P41, P42, P43, P44, P45, P46, P47,
    P50, P51, P52, P53, P54, P55, P56, P57,
    P60, P61, P62, P63, P64, P65, P66, P67,
    P70, P71, P72, P73, P74, P75, P76, P77,
}

/// The places in zigzag order, with room for a run beyond the end, as a damaged file may have.
#[rustfmt::skip]
const ORDER: [Place; 64 + 16] = {
    #[allow(clippy::enum_glob_use)]
    use Place::*;
    [
        P00, P01, P10, P20, P11, P02, P03, P12, P21, P30, P40, P31, P22, P13, P04, P05,
        P14, P23, P32, P41, P50, P60, P51, P42, P33, P24, P15, P06, P07, P16, P25, P34,
        P43, P52, P61, P70, P71, P62, P53, P44, P35, P26, P17, P27, P36, P45, P54, P63,
        P72, P73, P64, P55, P46, P37, P47, P56, P65, P74, P75, P66, P57, P67, P76, P77,
        P77, P77, P77, P77, P77, P77, P77, P77, P77, P77, P77, P77, P77, P77, P77, P77,
    ]
};
