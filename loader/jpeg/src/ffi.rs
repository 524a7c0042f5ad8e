//! The boundary to C: the only unsafe code of this crate.
//!
//! `codec.c` is a wrapper of libjpeg, called from here; in the other direction it calls `entropy.rs`. That is sound as long
//! as `codec.c` and libjpeg keep to this:
//!
//! - A codec reads the file it was given, and keeps pointers to it, only until the next file; it writes to what it is given
//!   only in the call that gives it.
//! - [`start`] and [`decode`] are called only inside [`simzss_jpeg_start`] and [`simzss_jpeg_read`], one at a time, with the
//!   state of the [`Callbacks`] that this call was given. Nothing else has a reference to the state then.
//! - They get a [`RawScan`] as `codec.c` declares it, and as many pointers to different blocks of 64 coefficients as they
//!   are given.
//! - No longjmp passes over Rust: `codec.c` reports what they return after they have returned, and the frames between its
//!   setjmp and libjpeg's longjmp are of C. A panic in them aborts the process.
//!
//! What a damaged file may do in `entropy.rs` needs no rule: that is safe code, for which every byte of the file is just a
//! number.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::slice;

// Links the library that codec.c calls.
use mozjpeg_sys as _;

use crate::codes::{Block, Table};
use crate::entropy::{COMPONENTS, Component, Damage, Entropy, Scan, TABLES};
use crate::{Error, Limits};

#[repr(C)]
struct Opaque {
    _private: [u8; 0],
}

/// As `struct limits`.
#[repr(C)]
struct RawLimits {
    memory: u64,
    work: u64,
    scans: u32,
}

/// As `struct scan`.
#[repr(C)]
struct RawScan<'a> {
    data: *const u8,
    length: usize,
    columns: u32,
    first_column: u32,
    end_column: u32,
    count: u32,
    components: [Component; COMPONENTS],
    dc_tables: [Option<&'a Table>; TABLES],
    ac_tables: [Option<&'a Table>; TABLES],
}

/// As `struct entropy`: how C calls [`Entropy`].
#[repr(C)]
struct Callbacks {
    state: *mut c_void,
    start: unsafe extern "C" fn(*mut c_void, *const RawScan, *mut usize) -> c_int,
    decode: unsafe extern "C" fn(*mut c_void, *mut &mut Block, usize) -> c_int,
}

unsafe extern "C" {
    fn simzss_jpeg_new() -> *mut Opaque;
    fn simzss_jpeg_free(codec: *mut Opaque);
    fn simzss_jpeg_message(codec: *const Opaque) -> *const c_char;
    fn simzss_jpeg_header(
        codec: *mut Opaque,
        file: *const u8,
        length: usize,
        limits: *const RawLimits,
        size: *mut u32,
    ) -> c_int;
    fn simzss_jpeg_start(
        codec: *mut Opaque,
        entropy: *const Callbacks,
        eighths: u32,
        fast: c_int,
        area: *mut u32,
        size: *mut u32,
        channels: *mut u32,
    ) -> c_int;
    fn simzss_jpeg_read(
        codec: *mut Opaque,
        entropy: *const Callbacks,
        area: *const u32,
        pixels: *mut u8,
    ) -> c_int;
    fn simzss_jpeg_encode(
        pixels: *const u8,
        width: u32,
        height: u32,
        channels: u32,
        quality: c_int,
        file: *mut *mut u8,
        length: *mut usize,
    ) -> c_int;
    fn simzss_jpeg_free_file(file: *mut u8);
    fn simzss_jpeg_vectorised() -> c_int;
}

/// See `struct entropy`.
unsafe extern "C" fn start(state: *mut c_void, scan: *const RawScan, length: *mut usize) -> c_int {
    // SAFETY: the state is that of a `Callbacks`, and nothing else has a reference to it; the scan is filled in, and its tables
    // are read before this returns.
    let (entropy, scan) = unsafe { (&mut *state.cast::<Entropy>(), &*scan) };
    let taken = entropy.start(&Scan {
        // SAFETY: the rest of the file.
        data: unsafe { slice::from_raw_parts(scan.data, scan.length) },
        components: &scan.components[..scan.count as usize],
        dc_tables: scan.dc_tables,
        ac_tables: scan.ac_tables,
        columns: scan.columns,
        needed_columns: scan.first_column..scan.end_column,
    });
    let Some(taken) = taken else { return 0 };
    // SAFETY: C reads the number from there.
    unsafe { *length = taken };
    1
}

/// See `struct entropy`.
unsafe extern "C" fn decode(state: *mut c_void, blocks: *mut &mut Block, count: usize) -> c_int {
    // SAFETY: as in `start`.
    let entropy = unsafe { &mut *state.cast::<Entropy>() };
    let blocks = if blocks.is_null() {
        None
    } else {
        // SAFETY: `count` pointers to blocks, of which no two are the same, and which nothing else uses until this returns.
        Some(unsafe { slice::from_raw_parts_mut(blocks, count) })
    };
    match entropy.decode(blocks) {
        Ok(()) => 0,
        Err(Damage::BadCode) => 1,
        Err(Damage::Ended) => 2,
    }
}

/// libjpeg's decoder, that of its coefficients, and their working memory.
pub(crate) struct Codec {
    codec: NonNull<Opaque>,
    /// None: libjpeg decodes the coefficients.
    entropy: Option<Box<Entropy>>,
    limits: Limits,
}

// SAFETY: the codec is not tied to the thread that made it, and it is used through `&mut` only.
unsafe impl Send for Codec {}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Codec").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Drop for Codec {
    fn drop(&mut self) {
        // SAFETY: the pointer came from simzss_jpeg_new and is freed once.
        unsafe { simzss_jpeg_free(self.codec.as_ptr()) }
    }
}

/// A file whose header has been read.
#[derive(Debug)]
pub(crate) struct Opened<'a> {
    codec: &'a mut Codec,
    size: [u32; 2],
    /// libjpeg keeps a pointer into the file.
    file: PhantomData<&'a [u8]>,
}

/// A file of which a region is about to be decoded.
#[derive(Debug)]
pub(crate) struct Started<'a> {
    codec: &'a mut Codec,
    area: [u32; 4],
    size: [u32; 2],
    channels: u32,
    file: PhantomData<&'a [u8]>,
}

impl Codec {
    /// `None` if there is not enough memory.
    pub(crate) fn new(limits: Limits) -> Option<Self> {
        Self::with(Some(Entropy::new()), limits)
    }

    /// A codec that leaves Huffman decoding to libjpeg, for comparison.
    #[cfg(test)]
    pub(crate) fn without_entropy(limits: Limits) -> Option<Self> {
        Self::with(None, limits)
    }

    fn with(entropy: Option<Box<Entropy>>, limits: Limits) -> Option<Self> {
        // SAFETY: no precondition.
        NonNull::new(unsafe { simzss_jpeg_new() }).map(|codec| Self { codec, entropy, limits })
    }

    /// Whether `entropy.rs` decoded the coefficients of the last image.
    #[cfg(test)]
    pub(crate) fn was_quick(&self) -> bool {
        self.entropy.as_ref().is_some_and(|entropy| entropy.has_scan())
    }

    /// For one call of `codec.c`.
    fn callbacks(&mut self) -> Callbacks {
        let state = self.entropy.as_deref_mut().map_or(ptr::null_mut(), |entropy| (&raw mut *entropy).cast());
        Callbacks { state, start, decode }
    }

    fn check(&self, status: c_int) -> Result<(), Error> {
        let limits = &self.limits;
        // The numbers of `codec.c`.
        Err(match status {
            0 => return Ok(()),
            2 => Error::Truncated,
            3 => Error::TooLarge { limit: limits.memory },
            4 => Error::TooManyScans { limit: limits.scans },
            5 => Error::TooMuchWork { limit: limits.work },
            6 => Error::Outside,
            7 => Error::Memory,
            _ => {
                // SAFETY: the codec is alive, and its message ends with a 0 byte inside the codec.
                let message = unsafe { CStr::from_ptr(simzss_jpeg_message(self.codec.as_ptr())) };
                Error::Damaged(message.to_string_lossy().into_owned())
            }
        })
    }

    pub(crate) fn open<'a>(&'a mut self, file: &'a [u8]) -> Result<Opened<'a>, Error> {
        let limits =
            RawLimits { memory: self.limits.memory, work: self.limits.work, scans: self.limits.scans };
        let mut size = [0; 2];
        // SAFETY: `file` outlives the `Opened`, through which alone it is read; `size` has room for two numbers.
        let status = unsafe {
            simzss_jpeg_header(
                self.codec.as_ptr(),
                file.as_ptr(),
                file.len(),
                &raw const limits,
                size.as_mut_ptr(),
            )
        };
        self.check(status)?;
        Ok(Opened { codec: self, size, file: PhantomData })
    }
}

impl<'a> Opened<'a> {
    /// Width, height of the stored image.
    pub(crate) fn size(&self) -> [u32; 2] {
        self.size
    }

    /// Starts decoding at `eighths` / 8 of the size; `area` is left, top, width, height in the scaled image.
    pub(crate) fn start(self, eighths: u32, fast: bool, area: [u32; 4]) -> Result<Started<'a>, Error> {
        let (mut area, mut size, mut channels) = (area, [0; 2], 0);
        if let Some(entropy) = &mut self.codec.entropy {
            entropy.forget();
        }
        let callbacks = self.codec.callbacks();
        // SAFETY: the header has been read, as `self` proves; the arrays have the lengths that are written.
        let status = unsafe {
            simzss_jpeg_start(
                self.codec.codec.as_ptr(),
                &raw const callbacks,
                eighths,
                c_int::from(fast),
                area.as_mut_ptr(),
                size.as_mut_ptr(),
                &raw mut channels,
            )
        };
        self.codec.check(status)?;
        Ok(Started { codec: self.codec, area, size, channels, file: PhantomData })
    }
}

impl Started<'_> {
    /// Left, top, width, height of the region that will be written, in pixels of the scaled image.
    pub(crate) fn area(&self) -> [u32; 4] {
        self.area
    }

    /// Width, height of the scaled image.
    pub(crate) fn size(&self) -> [u32; 2] {
        self.size
    }

    /// Channels per pixel: 3 (RGB), or 4 (CMYK).
    pub(crate) fn channels(&self) -> u32 {
        self.channels
    }

    /// Number of bytes that [`Started::read`] writes.
    pub(crate) fn bytes(&self) -> usize {
        self.area[2] as usize * self.area[3] as usize * self.channels as usize
    }

    /// Decodes into `pixels`, which must have [`Started::bytes`] bytes.
    pub(crate) fn read(self, pixels: &mut [u8]) -> Result<(), Error> {
        assert_eq!(pixels.len(), self.bytes());
        let callbacks = self.codec.callbacks();
        // SAFETY: decoding has started, as `self` proves, and `pixels` is as long as the rows of the region.
        let status = unsafe {
            simzss_jpeg_read(
                self.codec.codec.as_ptr(),
                &raw const callbacks,
                self.area.as_ptr(),
                pixels.as_mut_ptr(),
            )
        };
        self.codec.check(status)
    }
}

/// Encodes `width` x `height` x `channels` bytes; the sides are 1 to 65,500.
pub(crate) fn encode(
    pixels: &[u8],
    width: u32,
    height: u32,
    channels: u32,
    quality: u8,
) -> Result<Vec<u8>, Error> {
    assert_eq!(pixels.len(), width as usize * height as usize * channels as usize);
    let (mut file, mut length) = (ptr::null_mut(), 0);
    // SAFETY: `pixels` has the asserted length.
    let status = unsafe {
        simzss_jpeg_encode(
            pixels.as_ptr(),
            width,
            height,
            channels,
            c_int::from(quality),
            &raw mut file,
            &raw mut length,
        )
    };
    if status != 0 {
        return Err(Error::Memory);
    }
    // SAFETY: on success `file` has `length` bytes; it is freed once, after they are copied.
    unsafe {
        let bytes = slice::from_raw_parts(file, length).to_vec();
        simzss_jpeg_free_file(file);
        Ok(bytes)
    }
}

/// See [`crate::vectorised`].
pub(crate) fn vectorised() -> bool {
    // SAFETY: no precondition.
    unsafe { simzss_jpeg_vectorised() != 0 }
}
