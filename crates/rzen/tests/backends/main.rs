//! Every device that is compiled in and there gives the reference's vectors, and the same in any company.
//!
//! The tests are those that `rzen-model` runs on the CPU, here on the CPU, on all WGPU adapters and on all CUDA devices.
//! `cargo xtask test --backend wgpu,cuda` compiles backends in. A test of a backend that isn't compiled in, or finds no
//! device, says `skipped`; `RZEN_NEED_DEVICES=wgpu` makes it fail instead, so that a build machine can't pass by finding
//! nothing.

#[path = "../../../rzen-model/tests/encoder/case.rs"]
#[allow(dead_code)]
mod case;
#[path = "../../../rzen-model/tests/encoder/company.rs"]
mod company;
#[path = "../../../rzen-model/tests/encoder/golden.rs"]
mod golden;
#[path = "../../../rzen-model/tests/encoder/reference.rs"]
#[allow(dead_code)]
mod reference;
#[path = "../../../rzen-model/tests/encoder/table.rs"]
mod table;

use std::sync::Mutex;

use golden::Place;
use rzen::device;

/// Runs `test` on every device of `kind`, one test at a time: each device serves all threads, and a software
/// driver takes all cores.
fn on_each(kind: &str, test: impl Fn(&Place)) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let devices: Vec<_> =
        device::found().into_iter().filter(|found| found.name.split(':').next() == Some(kind)).collect();
    if devices.is_empty() {
        let why = match device::available().contains(&kind) {
            true => "no device was found",
            false => "not compiled in",
        };
        let needed = std::env::var("RZEN_NEED_DEVICES").unwrap_or_default();
        assert!(!needed.split(',').any(|needed| needed == kind), "{kind} is needed, but {why}");
        return eprintln!("skipped: {kind}: {why}");
    }
    for found in devices {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        println!("{}: {:?}", found.name, found.device);
        test(&match kind {
            "cpu" => Place::cpu(),
            _ => Place::gpu(found.device),
        });
    }
}

macro_rules! suite {
    ($($kind:ident),*) => {$(
        mod $kind {
            use crate::{company, golden, on_each, table};

            #[test]
            fn golden_embeddings() {
                on_each(stringify!($kind), golden::embeddings);
            }

            #[test]
            fn golden_every_layer() {
                on_each(stringify!($kind), golden::every_layer);
            }

            #[test]
            fn golden_bf16() {
                on_each(stringify!($kind), golden::bf16);
            }

            #[test]
            fn golden_adapters_apply() {
                on_each(stringify!($kind), golden::adapters);
            }

            #[test]
            fn golden_company_changes_nothing() {
                on_each(stringify!($kind), company::of_golden_cases);
            }

            #[test]
            fn golden_company_changes_nothing_at_block_sizes() {
                on_each(stringify!($kind), company::at_block_sizes);
            }

            #[test]
            fn golden_a_token_table_on_the_cpu_gives_the_same_vectors() {
                on_each(stringify!($kind), table::gives_the_same_vectors);
            }

            #[test]
            fn a_token_table_may_be_larger_than_a_buffer() {
                on_each(stringify!($kind), table::may_be_larger_than_a_buffer);
            }
        }
    )*};
}

suite!(cpu, wgpu, cuda);
