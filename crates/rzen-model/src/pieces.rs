//! How much goes through the fused pass at once, and so what its memory is predicted from.

/// Patches that go through the vision tower together, if no picture has more: memory stays bounded, and weights
/// are still read seldom.
pub(crate) const PATCHES: usize = 2560;

/// Rows that go through an MLP at once: as many as the largest task of the kernels takes.
pub(crate) const MLP_ROWS: usize = 640;
