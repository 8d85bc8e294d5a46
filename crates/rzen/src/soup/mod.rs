//! Soups: how adapters are combined, and the search for weights.

mod choice;
mod scorer;
mod search;
mod trials;

pub use choice::{SoupChoice, SoupMethod};
pub use scorer::{Scorer, ScorerOptions, What};
pub(crate) use scorer::{alone_as_it_is, joined};
pub use search::{Found, Search, search};
pub use trials::Trials;
