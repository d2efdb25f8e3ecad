//! What commands print. Who reads may have read enough, as `head` does: that ends the program, and is
//! no failure. The standard macros of these names panic then.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};

use super::Failure;

/// Prints without the end of a line.
macro_rules! print {
    ($($text:tt)*) => { $crate::cli::stdout::write(format_args!($($text)*)) };
}

/// Prints a line.
macro_rules! println {
    ($($text:tt)*) => { print!("{}\n", format_args!($($text)*)) };
}

/// Writes to standard output, or ends the program if that cannot be.
pub(super) fn write(text: Arguments<'_>) {
    let mut out = io::stdout().lock();
    let Err(error) = out.write_fmt(text).and_then(|()| out.flush()) else { return };
    if error.kind() == ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
    let failure = Failure::Internal(format!("standard output: {error}"));
    eprintln!("{failure}");
    std::process::exit(failure.exit_code().into());
}
