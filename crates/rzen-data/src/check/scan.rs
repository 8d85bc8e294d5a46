//! What is in the files.

use std::io::ErrorKind;
use std::path::Path;

use rayon::prelude::*;
use rzen_core::{Media, Part, VideoSource};

use super::picture_facts::PictureFacts;
use crate::{LoadError, Loader, media_is_there, media_sha256};

/// What is in a file.
pub(super) struct Scanned {
    /// The SHA-256 of its bytes, where it can be read.
    pub digest: Option<[u8; 32]>,
    pub seen: Result<Seen, Trouble>,
}

/// What a file shows.
pub(super) enum Seen {
    Picture(PictureFacts),
    /// The sampled frames of a clip.
    Clip(Vec<PictureFacts>),
}

/// Why a file shows nothing; the message names it.
pub(super) enum Trouble {
    Missing(String),
    Corrupt(String),
    /// Nothing here decodes it, or it took too long.
    Unchecked(String),
}

/// Files between two words about progress; few enough that the threads wait little for the last one.
const CHUNK: usize = 512;

/// Reads, hashes and decodes each file once, on all threads. `progress` hears how many are done.
pub(super) fn scan(loader: &Loader, media: &[Part], progress: &dyn Fn(usize, usize)) -> Vec<Scanned> {
    let mut scanned = Vec::with_capacity(media.len());
    for chunk in media.chunks(CHUNK) {
        progress(scanned.len(), media.len());
        scanned.par_extend(chunk.par_iter().map(|part| read(loader, part)));
    }
    progress(scanned.len(), media.len());
    scanned
}

fn read(loader: &Loader, part: &Part) -> Scanned {
    // Whatever stands there that is no file (a folder, a pipe) is refused by the loader.
    let path = path_of(part).map(|path| loader.options.root.join(path)).filter(|path| media_is_there(path));
    let digest = path.and_then(|path| media_sha256(&path).ok());
    let seen = match loader.load_part(part) {
        Ok(Media::Image(picture)) => Ok(Seen::Picture(PictureFacts::of(&picture, true))),
        Ok(Media::Frames(frames)) => {
            Ok(Seen::Clip(frames.iter().map(|frame| PictureFacts::of(frame, false)).collect()))
        }
        Ok(Media::Text(_)) => Ok(Seen::Clip(Vec::new())),
        Err(error) => Err(trouble(&error)),
    };
    Scanned { digest, seen }
}

fn path_of(part: &Part) -> Option<&Path> {
    match part {
        Part::Image(path) | Part::Video(VideoSource::File(path)) | Part::Document { path, .. } => Some(path),
        Part::Text(_) | Part::Video(VideoSource::Frames(_)) => None,
    }
}

fn trouble(error: &LoadError) -> Trouble {
    let message = error.to_string();
    match error {
        LoadError::Read { source, .. } if source.kind() == ErrorKind::NotFound => Trouble::Missing(message),
        LoadError::NoVideoDecoder { .. } | LoadError::Ffmpeg { .. } | LoadError::Timeout { .. } => {
            Trouble::Unchecked(message)
        }
        _ => Trouble::Corrupt(message),
    }
}
