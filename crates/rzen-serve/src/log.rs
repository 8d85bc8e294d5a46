//! What whoever runs the server is told.

use std::io::{Write, stderr};

/// Writes a line to standard error. A server goes on where nobody reads it, or where it can't be written.
pub fn log(message: &str) {
    let _ = writeln!(stderr(), "serve: {message}");
}
