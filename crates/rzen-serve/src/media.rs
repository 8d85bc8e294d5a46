//! Media as they stand in a request.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::field::Field;
use crate::refusal::Refusal;

/// What bytes are said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MediaKind {
    Image,
    Video,
    Document,
}

/// Bytes of a file, and the field that they stood in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Media {
    pub field: String,
    pub bytes: Vec<u8>,
}

/// The bytes of a `data:` URI, or of base64 alone.
///
/// # Errors
/// If it is an address or neither, or of clips, if the bytes begin like no container of video.
pub(crate) fn media(field: &Field, kind: MediaKind) -> Result<Media, Refusal> {
    let text = field.text()?.trim();
    let base64 = match text.get(..5).filter(|scheme| scheme.eq_ignore_ascii_case("data:")) {
        Some(_) => data_of(text).ok_or_else(|| {
            field.refuse("is a `data:` URI without base64; write `data:image/png;base64,…`")
        })?,
        None if is_address(text) => {
            return Err(field.refuse(
                "is an address, and this server opens no connections and no files; send the bytes themselves, as \
                 `data:image/png;base64,…`",
            ));
        }
        None => text,
    };
    let neither = "is neither a `data:` URI nor base64; send the bytes as `data:image/png;base64,…`";
    let bytes = STANDARD.decode(base64).map_err(|_| field.refuse(neither))?;
    if bytes.is_empty() {
        return Err(field.refuse("holds no bytes"));
    }
    if kind == MediaKind::Video && !is_video(&bytes) {
        let problem =
            "begins like no clip; expected GIF, WebP, MP4, MOV, Matroska, WebM, AVI, MPEG, FLV, Ogg or ASF";
        return Err(Refusal::media(&field.name, format!("`{}` {problem}", field.name)));
    }
    Ok(Media { field: field.name.clone(), bytes })
}

/// What follows `;base64,`.
fn data_of(text: &str) -> Option<&str> {
    let (head, data) = text.split_once(',')?;
    head.to_ascii_lowercase().ends_with(";base64").then_some(data)
}

/// `http://…`, `file:…` and the like; base64 has no colon.
fn is_address(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, _)| {
        !scheme.is_empty()
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    })
}

/// Whether bytes begin as a container that holds its video itself. Play lists, which ffmpeg follows to other files, begin
/// otherwise.
fn is_video(bytes: &[u8]) -> bool {
    let at = |place: usize, magic: &[u8]| bytes.get(place..).is_some_and(|rest| rest.starts_with(magic));
    let boxes: [&[u8]; 6] = [b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"];
    let heads: [&[u8]; 12] = [
        b"GIF8",
        b"\x89PNG",
        b"\xff\xd8\xff",
        b"BM",
        b"II*\0",
        b"MM\0*",
        b"\x1a\x45\xdf\xa3",
        b"FLV",
        b"OggS",
        b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
        b"\0\0\x01\xba",
        b"\0\0\x01\xb3",
    ];
    boxes.iter().any(|name| at(4, name))
        || heads.iter().any(|head| at(0, head))
        || (at(0, b"RIFF") && (at(8, b"WEBP") || at(8, b"AVI ")))
        || (at(0, b"\x47") && at(188, b"\x47"))
        || (at(4, b"\x47") && at(196, b"\x47"))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn read(text: &str, kind: MediaKind) -> Result<Vec<u8>, Refusal> {
        let value = Value::from(text);
        media(&Field { name: "input[0].image".into(), value: &value }, kind).map(|media| media.bytes)
    }

    #[test]
    fn bytes_come_as_data_uris_or_base64() {
        for text in [
            "data:image/png;base64,aGVsbG8=",
            "DATA:image/png;x=y;BASE64,aGVsbG8=",
            "aGVsbG8=",
            " aGVsbG8=\n",
        ] {
            assert_eq!(read(text, MediaKind::Image).as_deref(), Ok(&b"hello"[..]), "{text}");
        }
    }

    #[test]
    fn addresses_and_paths_are_refused() {
        for text in [
            "http://127.0.0.1/a.png",
            "https://example.com/a.png",
            "HTTP:\\\\good@169.254.169.254",
            "file:///etc/passwd",
            "ftp://a",
            "gopher:a",
        ] {
            let refusal = read(text, MediaKind::Image).unwrap_err();
            assert!(refusal.message.contains("opens no connections"), "{text}: {}", refusal.message);
            assert_eq!(refusal.field.as_deref(), Some("input[0].image"));
        }
        for text in ["/etc/passwd", "../a.png", "a.png", "data:image/png,abc", "data:image/png;base64,?", ""]
        {
            assert_eq!(read(text, MediaKind::Image).unwrap_err().status, 400, "{text}");
        }
    }

    #[test]
    fn clips_begin_as_clips() {
        let clip = |bytes: &[u8]| read(&STANDARD.encode(bytes), MediaKind::Video);
        for bytes in [&b"GIF89a..."[..], b"\0\0\0\x20ftypisom", b"RIFF....AVI LIST", b"\x1a\x45\xdf\xa3"] {
            assert!(clip(bytes).is_ok(), "{bytes:?}");
        }
        let play_lists =
            [&b"#EXTM3U\nfile:///home/a.mp4"[..], b"ffconcat version 1.0\nfile a", b"<?xml><MPD>"];
        for bytes in play_lists.into_iter().chain([&b"RIFF....WAVE"[..], b"G"]) {
            assert_eq!(clip(bytes).unwrap_err().status, 422, "{bytes:?}");
        }
    }
}
