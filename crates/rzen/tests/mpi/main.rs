//! Training on several ranks, over MPI: `cargo xtask test --mpi`.

#[path = "../../../rzen-model/tests/encoder/case.rs"]
#[allow(dead_code)]
mod case;
#[path = "../it/command.rs"]
#[allow(dead_code)]
mod command;
mod ending;
mod gradients;
mod launch;
mod program;
#[path = "../../../rzen-model/tests/encoder/reference.rs"]
#[allow(dead_code)]
mod reference;
