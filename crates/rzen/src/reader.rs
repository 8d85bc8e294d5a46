//! Rows to encoded rows.

use std::path::PathBuf;
use std::sync::Arc;

use rzen_core::{LoadedItem, Sample};
use rzen_data::{BadRow, LoadOptions, LoadedSample, Loader, load_samples_with};
use rzen_model::{Encoded, Processor};

use crate::models;

/// What reading needs besides the rows.
#[derive(Clone)]
pub struct Reader {
    /// Decodes files.
    pub loader: Arc<Loader>,
    /// Encodes what was decoded.
    pub processor: Arc<Processor>,
}

impl Reader {
    /// Reads as `processor` wants it, within `limits`; paths are absolute.
    pub fn new(processor: Processor, limits: LoadOptions) -> Self {
        let loader = Arc::new(models::loader(processor.config(), PathBuf::new(), limits));
        Reader { loader, processor: Arc::new(processor) }
    }
}

/// Decodes, changes and encodes each sample in one go, so that few decoded files are held at once.
pub fn read_samples(
    reader: &Reader,
    samples: &[&Sample],
    change: impl Fn(&mut LoadedSample) + Sync,
) -> (Vec<(usize, EncodedSample)>, Vec<BadRow>) {
    load_samples_with(&reader.loader, samples, |mut sample| {
        change(&mut sample);
        Ok((sample.place, encode_sample(&reader.processor, &sample)?))
    })
}

/// The query, the positive and the hard negatives of a row.
pub type EncodedSample = (Encoded, Encoded, Vec<Encoded>);

fn encode_sample(processor: &Processor, sample: &LoadedSample) -> Result<EncodedSample, String> {
    let encode = |item: &LoadedItem| processor.process(item).map_err(|error| error.to_string());
    let hard = sample.hard_negatives.iter().map(encode).collect::<Result<_, _>>()?;
    Ok((encode(&sample.query)?, encode(&sample.positive)?, hard))
}
