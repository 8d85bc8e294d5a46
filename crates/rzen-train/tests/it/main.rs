//! The contract of the trainer, on a toy encoder.

mod bad_input;
mod child;
mod cut_files;
#[cfg(target_os = "linux")]
mod full_disk;
mod gradients;
#[cfg(unix)]
mod killed;
mod resume;
mod shared;
mod threads;
mod toy;
