//! What is served.

use rzen_core::Item;

/// A model in two steps, of which the first runs for some items while the second runs for others.
///
/// This is [`Embed`](rzen_core::Embed) cut in two: media are decoded and texts tokenized outside of the thread that computes, a bad
/// file is known before anything is computed with it, and batches are cut by tokens that were counted.
pub trait ServedModel: Send + Sync + 'static {
    /// An item as the model takes it.
    type Read: Send + 'static;

    /// Numbers in a vector.
    fn dim(&self) -> usize;

    /// Reads and decodes the files of an item, which have whole paths, and makes its tokens. Called from several threads at once.
    ///
    /// # Errors
    /// What is wrong with the item, or with this server.
    fn read(&self, item: &Item) -> Result<Self::Read, ReadError>;

    /// Tokens that the model computes of an item, those of pictures and of the template too.
    fn tokens(&self, read: &Self::Read) -> usize;

    /// One vector for each item, in order. Called from one thread; vectors are checked before they leave.
    ///
    /// # Errors
    /// What is told to whoever runs the server; a panic counts as one.
    fn embed(&self, items: &[Self::Read]) -> Result<Vec<Vec<f32>>, String>;
}

/// Why an item could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// A file can't be decoded, or asks for more than the limits allow.
    #[error("{0}")]
    Media(String),
    /// The item as a whole is wrong.
    #[error("{0}")]
    Item(String),
    /// Nothing is wrong with the item. Told to whoever runs the server, not to whoever asked.
    #[error("{0}")]
    Server(String),
}
