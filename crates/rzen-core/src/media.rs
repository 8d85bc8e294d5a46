//! Content after decoding, before a model's processor.

/// An RGB picture in host memory.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
}

impl Picture {
    /// Wraps `rgb`, rows from the top, three bytes a pixel.
    ///
    /// # Panics
    /// If a side is 0 or `rgb` does not hold `width * height * 3` bytes.
    pub fn new(width: u32, height: u32, rgb: Vec<u8>) -> Self {
        assert!(width > 0 && height > 0, "a picture of {width}x{height} has no pixels");
        assert_eq!(
            rgb.len(),
            width as usize * height as usize * 3,
            "bytes of a {width}x{height} RGB picture"
        );
        Picture { width, height, rgb }
    }

    /// Pixels in a row.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows of pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// `[height, width, 3]` bytes.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }
}

impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Picture({}x{})", self.width, self.height)
    }
}

/// One decoded part.
#[derive(Clone, Debug, PartialEq)]
pub enum Media {
    /// Words.
    Text(String),
    /// A picture or a document page.
    Image(Picture),
    /// The sampled frames of a clip, in order.
    Frames(Vec<Picture>),
}

/// An item whose files have been read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadedItem {
    /// The decoded parts, in order.
    pub parts: Vec<Media>,
    /// The instruction, if the item has one.
    pub instruction: Option<String>,
}
