//! rzen
