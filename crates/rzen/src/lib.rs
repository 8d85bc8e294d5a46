//! rzen

pub mod report;
