//! Macros for lines of text, which stand in for those of the same names in the standard library. Those panic when the
//! line cannot be written, and the program ends in the middle of its work with exit code 101: for a message, because the
//! terminal or the program that read it (`2>&1 | head`) is gone. A crate takes these instead with
//! `#[macro_use(eprintln)] extern crate loader;`.

/// Prints a message on standard error. A message that cannot be written is lost, and the work continues.
#[macro_export]
macro_rules! eprintln {
    ($($text:tt)*) => { $crate::program::message(::std::format_args!($($text)*)) };
}

/// Prints a line of results on standard output. If it cannot be written, for example to a full disk, the program ends
/// with exit code 1; a reader that closed the pipe early, such as `head`, is no failure.
#[macro_export]
macro_rules! println {
    ($($text:tt)*) => { $crate::program::result(::std::format_args!("{}\n", ::std::format_args!($($text)*))) };
}

/// The same without a line break.
#[macro_export]
macro_rules! print {
    ($($text:tt)*) => { $crate::program::result(::std::format_args!($($text)*)) };
}
