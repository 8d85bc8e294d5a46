//! A local model as one that is served.

use std::error::Error;

use rzen_core::Item;
use rzen_data::LoadError;
use rzen_model::{Encoded, ProcessError};
use rzen_serve::{ReadError, ServedModel};

use crate::embedder::LocalEmbedder;

impl ServedModel for LocalEmbedder {
    type Read = Encoded;

    fn dim(&self) -> usize {
        rzen_core::Embed::dim(self)
    }

    fn read(&self, item: &Item) -> Result<Encoded, ReadError> {
        self.encode_item(item).map_err(|error| read_error(&*error))
    }

    fn tokens(&self, read: &Encoded) -> usize {
        read.input_ids.len()
    }

    fn embed(&self, items: &[Encoded]) -> Result<Vec<Vec<f32>>, String> {
        Ok(self.embed_encoded(items))
    }
}

/// Whose fault it is that an item can't be read.
fn read_error(error: &(dyn Error + Send + Sync + 'static)) -> ReadError {
    let message = error.to_string();
    match error.downcast_ref::<LoadError>() {
        // The program and the disk are the server's own.
        Some(LoadError::Ffmpeg { .. } | LoadError::Read { .. } | LoadError::NotAFile { .. }) => {
            ReadError::Server(message)
        }
        Some(_) => ReadError::Media(message),
        None if error.is::<ProcessError>() => ReadError::Item(message),
        None => ReadError::Server(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fault_is_that_of_who_can_mend_it() {
        let path = || "a.png".into();
        let read = |error: Box<dyn Error + Send + Sync>| read_error(&*error);
        let ffmpeg = LoadError::Ffmpeg { path: path(), program: path(), source: std::io::Error::other("x") };
        assert!(matches!(read(Box::new(ffmpeg)), ReadError::Server(_)));
        let empty = LoadError::Empty { path: path() };
        assert!(matches!(read(Box::new(empty)), ReadError::Media(message) if message.contains("a.png")));
        assert!(matches!(read(Box::new(ProcessError::Nothing)), ReadError::Item(_)));
        assert!(matches!(read("else".into()), ReadError::Server(_)));
    }
}
