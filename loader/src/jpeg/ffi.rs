//! A safe wrapper of the functions in `codec.c`; the only unsafe code of this crate.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int};
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::slice;

// Links the library that codec.c calls.
use mozjpeg_sys as _;

use crate::budget;

/// Length of libjpeg's message buffer, bytes.
const MESSAGE: usize = 200;

#[repr(C)]
struct Opaque {
    _private: [u8; 0],
}

/// How much one image may cost; `codec.c` describes the fields.
#[repr(C)]
struct Budget {
    memory: u64,
    work: u64,
    scans: u64,
}

static BUDGET: Budget =
    Budget { memory: budget::MAX_MEMORY, work: budget::MAX_WORK, scans: budget::MAX_SCANS as u64 };

unsafe extern "C" {
    fn loader_jpeg_new(quick: c_int) -> *mut Opaque;
    #[cfg(test)]
    fn loader_jpeg_quick(codec: *const Opaque) -> c_int;
    fn loader_jpeg_free(codec: *mut Opaque);
    fn loader_jpeg_message(codec: *const Opaque) -> *const c_char;
    fn loader_jpeg_header(
        codec: *mut Opaque,
        file: *const u8,
        length: usize,
        budget: *const Budget,
        size: *mut u32,
    ) -> c_int;
    fn loader_jpeg_start(
        codec: *mut Opaque,
        eighths: u32,
        fast: c_int,
        area: *mut u32,
        size: *mut u32,
        channels: *mut u32,
    ) -> c_int;
    fn loader_jpeg_read(codec: *mut Opaque, area: *const u32, pixels: *mut u8) -> c_int;
    fn loader_jpeg_encode(
        pixels: *const u8,
        width: u32,
        height: u32,
        channels: u32,
        quality: c_int,
        file: *mut *mut u8,
        length: *mut usize,
        message: *mut c_char,
    ) -> c_int;
    fn loader_jpeg_free_file(file: *mut u8);
    fn loader_jpeg_vectorised() -> c_int;
}

/// libjpeg's decoder and its working memory.
#[derive(Debug)]
pub(super) struct Codec(NonNull<Opaque>);

// SAFETY: the codec is not tied to the thread that made it, and it is used through `&mut` only.
unsafe impl Send for Codec {}

impl Drop for Codec {
    fn drop(&mut self) {
        // SAFETY: the pointer came from loader_jpeg_new and is freed once.
        unsafe { loader_jpeg_free(self.0.as_ptr()) }
    }
}

/// A file whose header has been read.
#[derive(Debug)]
pub(super) struct Opened<'a> {
    codec: &'a mut Codec,
    pub(super) width: u32,
    pub(super) height: u32,
    /// libjpeg keeps a pointer into the file.
    file: PhantomData<&'a [u8]>,
}

/// A file of which a region is about to be decoded.
#[derive(Debug)]
pub(super) struct Started<'a> {
    codec: &'a mut Codec,
    /// Left, top, width, height of the region that will be written, in pixels of the scaled image.
    pub(super) area: [u32; 4],
    /// Width, height of the scaled image.
    pub(super) size: [u32; 2],
    /// Channels per pixel: 3 (RGB), or 4 (CMYK).
    pub(super) channels: u32,
    file: PhantomData<&'a [u8]>,
}

impl Codec {
    /// `None` if there is not enough memory.
    pub(super) fn new() -> Option<Self> {
        // SAFETY: no precondition.
        NonNull::new(unsafe { loader_jpeg_new(1) }).map(Self)
    }

    /// A codec that leaves Huffman decoding to libjpeg, for comparison.
    #[cfg(test)]
    pub(super) fn without_entropy() -> Option<Self> {
        // SAFETY: no precondition.
        NonNull::new(unsafe { loader_jpeg_new(0) }).map(Self)
    }

    /// Whether `entropy.c` decoded the coefficients of the last image.
    #[cfg(test)]
    pub(super) fn was_quick(&self) -> bool {
        // SAFETY: the codec is alive.
        unsafe { loader_jpeg_quick(self.0.as_ptr()) != 0 }
    }

    fn message(&self) -> String {
        // SAFETY: the codec is alive, and its message ends with a 0 byte inside the codec.
        unsafe { CStr::from_ptr(loader_jpeg_message(self.0.as_ptr())) }.to_string_lossy().into_owned()
    }

    fn check(&self, status: c_int) -> Result<(), String> {
        if status == 0 { Ok(()) } else { Err(self.message()) }
    }

    pub(super) fn open<'a>(&'a mut self, file: &'a [u8]) -> Result<Opened<'a>, String> {
        let mut size = [0; 2];
        // SAFETY: `file` outlives the `Opened`, through which alone it is read; `size` has room for two numbers.
        let status = unsafe {
            loader_jpeg_header(
                self.0.as_ptr(),
                file.as_ptr(),
                file.len(),
                &raw const BUDGET,
                size.as_mut_ptr(),
            )
        };
        self.check(status)?;
        Ok(Opened { codec: self, width: size[0], height: size[1], file: PhantomData })
    }
}

impl<'a> Opened<'a> {
    /// Starts decoding at `eighths` / 8 of the size; `area` is left, top, width, height in the scaled image.
    pub(super) fn start(self, eighths: u32, fast: bool, area: [u32; 4]) -> Result<Started<'a>, String> {
        let (mut area, mut size, mut channels) = (area, [0; 2], 0);
        // SAFETY: the header has been read, as `self` proves; the arrays have the lengths that are written.
        let status = unsafe {
            loader_jpeg_start(
                self.codec.0.as_ptr(),
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
    /// Number of bytes that [`Started::read`] writes.
    pub(super) fn bytes(&self) -> usize {
        self.area[2] as usize * self.area[3] as usize * self.channels as usize
    }

    /// Decodes into `pixels`, which must have [`Started::bytes`] bytes.
    pub(super) fn read(self, pixels: &mut [u8]) -> Result<(), String> {
        assert_eq!(pixels.len(), self.bytes());
        // SAFETY: decoding has started, as `self` proves, and `pixels` is as long as the rows of the region.
        let status =
            unsafe { loader_jpeg_read(self.codec.0.as_ptr(), self.area.as_ptr(), pixels.as_mut_ptr()) };
        self.codec.check(status)
    }
}

/// Encodes `width` x `height` x `channels` bytes.
pub(super) fn encode(
    pixels: &[u8],
    width: u32,
    height: u32,
    channels: u32,
    quality: u8,
) -> Result<Vec<u8>, String> {
    assert_eq!(pixels.len(), width as usize * height as usize * channels as usize);
    let (mut file, mut length) = (std::ptr::null_mut(), 0);
    let mut message = [0_u8; MESSAGE];
    // SAFETY: `pixels` has the asserted length, `message` has the length of libjpeg's message buffer.
    let status = unsafe {
        loader_jpeg_encode(
            pixels.as_ptr(),
            width,
            height,
            channels,
            c_int::from(quality),
            &raw mut file,
            &raw mut length,
            message.as_mut_ptr().cast(),
        )
    };
    if status != 0 {
        let text = CStr::from_bytes_until_nul(&message).map(CStr::to_string_lossy);
        return Err(text.map_or_else(|_| "the JPEG encoder failed".to_owned(), std::borrow::Cow::into_owned));
    }
    // SAFETY: on success `file` has `length` bytes; it is freed once, after they are copied.
    unsafe {
        let bytes = slice::from_raw_parts(file, length).to_vec();
        loader_jpeg_free_file(file);
        Ok(bytes)
    }
}

/// See [`super::vectorised`].
pub(super) fn vectorised() -> bool {
    // SAFETY: no precondition.
    unsafe { loader_jpeg_vectorised() != 0 }
}
