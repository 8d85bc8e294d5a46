//! A server of a stub, asked over HTTP.

mod client;
mod dialects;
mod life;
mod running;
#[path = "../../src/stub.rs"]
#[allow(dead_code)]
mod stub;

use rzen_serve::{ReadError, ServedModel};
