//! Macros for lines of text, which stand in for those of the same names in the standard library. Those panic when the
//! line cannot be written, and the program ends in the middle of its work with exit code 101: for a message, because the
//! terminal or the program that read it (`2>&1 | head`) is gone. A crate takes these instead with
//! `#[macro_use(eprintln)] extern crate program;`.

use std::fmt::Arguments;
use std::io::{self, Write};

use disk::foreign_files::visible_lines;

/// Prints a message on standard error. A message that cannot be written is lost, and the work continues.
#[macro_export]
macro_rules! eprintln {
    ($($text:tt)*) => { $crate::message(::std::format_args!($($text)*)) };
}

/// Prints a line of results on standard output. If it cannot be written, for example to a full disk, the program ends
/// with exit code 1; a reader that closed the pipe early, such as `head`, is no failure.
#[macro_export]
macro_rules! println {
    ($($text:tt)*) => { $crate::result(::std::format_args!("{}\n", ::std::format_args!($($text)*))) };
}

/// The same without a line break.
#[macro_export]
macro_rules! print {
    ($($text:tt)*) => { $crate::result(::std::format_args!($($text)*)) };
}

/// Prints a message on standard error; for the macro [`eprintln!`](crate::eprintln). Captions, keys, hosts and errors of
/// servers may contain what a terminal obeys, which is shown as its code.
pub fn message(text: Arguments<'_>) {
    // In one piece, so that the messages of several processes are not mixed within a line.
    let _ = io::stderr().write_all(format!("{}\n", visible_lines(&text.to_string())).as_bytes());
}

/// Prints results on standard output, for the macro [`println!`](crate::println). That the reader closes the pipe early,
/// as `head` does, is not an error; after any other failure the program ends with exit code 1. What a terminal obeys is
/// shown as its code, as by [`message`].
pub fn result(text: Arguments<'_>) {
    match io::stdout().write_all(visible_lines(&text.to_string()).as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            message(format_args!("error: cannot write to standard output: {error}"));
            std::process::exit(1);
        }
        _ => {}
    }
}
