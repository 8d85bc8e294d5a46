//! Items as they stand in a request, in all of the dialects.

use std::path::Path;

use rzen_core::{Item, Part, VideoSource};

use crate::field::{Field, Object};
use crate::media::{Media, MediaKind, media};
use crate::refusal::Refusal;

/// An item whose media are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Where it stood, as `input[3]`.
    pub field: String,
    pub content: Vec<AskedPart>,
    pub instruction: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AskedPart {
    Text(String),
    Image(Media),
    Video(Media),
    Frames(Vec<Media>),
    Document { pdf: Media, page: u32 },
}

/// Most parts of an item, and most frames of a clip that is given as pictures.
const MOST_PARTS: usize = 64;

/// Most bytes of an item's texts. Models cut texts after a few thousand tokens, but make all of them first.
const MOST_TEXT: usize = 1 << 20;

impl Asked {
    /// A text, an object `{"content": …, "instruction"?}`, or one part by itself; `instruction` is that of the request, which
    /// an item's own goes before.
    pub fn read(field: &Field, instruction: Option<&str>) -> Result<Self, Refusal> {
        let own = |key| field.value.get(key).is_some();
        let (content, own_instruction) = match field.is_object() && own("content") {
            true => {
                let object = field.object(&["content", "instruction"])?;
                (content(&object.required("content")?)?, object.text("instruction")?)
            }
            false if field.is_object() => (vec![part(field)?], None),
            false => (content(field)?, None),
        };
        Asked::new(field, content, own_instruction.or(instruction))
    }

    /// The messages of a chat: one of the user, and one of the system before it, which is the instruction.
    pub fn of_messages(field: &Field, instruction: Option<&str>) -> Result<Self, Refusal> {
        let (mut found, mut system) = (None, None);
        for message in field.list(MOST_PARTS, "messages")? {
            let object = message.object(&["role", "content"])?;
            let (role, given) = (object.required("role")?, object.required("content")?);
            match role.text()? {
                "system" if system.is_none() && found.is_none() => system = Some(words(&given)?),
                "user" if found.is_none() => found = Some(content(&given)?),
                _ => {
                    return Err(role.refuse("is not as expected: one message of the `user`, with one of the `system` before it or none"));
                }
            }
        }
        let found = found.ok_or_else(|| field.refuse("has no message of the `user`"))?;
        Asked::new(field, found, system.as_deref().or(instruction))
    }

    /// A picture by itself.
    pub fn image(field: &Field, instruction: Option<&str>) -> Result<Self, Refusal> {
        Asked::new(field, vec![AskedPart::Image(media(field, MediaKind::Image)?)], instruction)
    }

    fn new(field: &Field, content: Vec<AskedPart>, instruction: Option<&str>) -> Result<Self, Refusal> {
        let texts = content.iter().map(|part| match part {
            AskedPart::Text(text) => text.len(),
            _ => 0,
        });
        let bytes = texts.sum::<usize>() + instruction.map_or(0, str::len);
        if bytes > MOST_TEXT {
            return Err(field.refuse(&format!("has {bytes} bytes of text, at most {MOST_TEXT} are taken")));
        }
        Ok(Asked { field: field.name.clone(), content, instruction: instruction.map(str::to_owned) })
    }

    /// Cuts the item's texts, its instruction first, to `most` bytes in all.
    pub fn cut(&mut self, most: usize) {
        let texts = self.content.iter_mut().filter_map(|part| match part {
            AskedPart::Text(text) => Some(text),
            _ => None,
        });
        let mut left = most;
        for text in self.instruction.iter_mut().chain(texts) {
            text.truncate(text.floor_char_boundary(left));
            left -= text.len();
        }
    }

    /// A text by itself.
    pub fn text(field: &str, text: &str) -> Self {
        let content = vec![AskedPart::Text(text.to_owned())];
        Asked { field: field.to_owned(), content, instruction: None }
    }

    /// The same item with its media as files in `folder`, which are called as their fields.
    ///
    /// # Errors
    /// If a file can't be written.
    pub fn write_under(&self, folder: &Path) -> std::io::Result<Item> {
        let file = |media: &Media| {
            let path = folder.join(&media.field);
            std::fs::write(&path, &media.bytes).map(|()| path)
        };
        let part = |part: &AskedPart| {
            Ok(match part {
                AskedPart::Text(text) => Part::Text(text.clone()),
                AskedPart::Image(media) => Part::Image(file(media)?),
                AskedPart::Video(media) => Part::Video(VideoSource::File(file(media)?)),
                AskedPart::Frames(frames) => {
                    Part::Video(VideoSource::Frames(frames.iter().map(file).collect::<Result<_, _>>()?))
                }
                AskedPart::Document { pdf, page } => Part::Document { path: file(pdf)?, page: *page },
            })
        };
        let content = self.content.iter().map(part).collect::<std::io::Result<_>>()?;
        Ok(Item { content, instruction: self.instruction.clone() })
    }

    pub fn has_media(&self) -> bool {
        self.content.iter().any(|part| !matches!(part, AskedPart::Text(_)))
    }
}

/// A text, or a list of parts.
fn content(field: &Field) -> Result<Vec<AskedPart>, Refusal> {
    if !field.is_list() {
        return Ok(vec![AskedPart::Text(field.text()?.to_owned())]);
    }
    field.list(MOST_PARTS, "parts")?.iter().map(part).collect()
}

/// The text of a message of the system.
fn words(field: &Field) -> Result<String, Refusal> {
    let parts = content(field)?;
    let text = |part| match part {
        AskedPart::Text(text) => Ok(text),
        _ => Err(field.refuse("holds something else than texts")),
    };
    Ok(parts.into_iter().map(text).collect::<Result<Vec<_>, _>>()?.concat())
}

/// rzen's own parts have one of the keys `text`, `image`, `video` or `document`; those of chats have a `type`.
fn part(field: &Field) -> Result<AskedPart, Refusal> {
    if field.value.as_str().is_some() {
        return Ok(AskedPart::Text(field.text()?.to_owned()));
    }
    if field.value.get("type").is_some() {
        return typed_part(field);
    }
    let object = field.object(&["text", "image", "video", "document", "page"])?;
    let [text, image, video, document] = ["text", "image", "video", "document"].map(|key| object.get(key));
    if object.get("page").is_some() && document.is_none() {
        return Err(field.refuse("has a `page` without `document`"));
    }
    match (text, image, video, document) {
        (Some(text), None, None, None) => Ok(AskedPart::Text(text.text()?.to_owned())),
        (None, Some(image), None, None) => Ok(AskedPart::Image(media(&image, MediaKind::Image)?)),
        (None, None, Some(video), None) if video.is_list() => frames(&video),
        (None, None, Some(video), None) => Ok(AskedPart::Video(media(&video, MediaKind::Video)?)),
        (None, None, None, Some(document)) => page_of(&object, &document),
        (None, None, None, None) => {
            Err(field.refuse("is empty; give it one of `text`, `image`, `video` or `document`"))
        }
        _ => Err(field.refuse("has several kinds of content; make each a part of its own")),
    }
}

fn frames(field: &Field) -> Result<AskedPart, Refusal> {
    let frames = field.list(MOST_PARTS, "frames")?;
    let frames = frames.iter().map(|frame| media(frame, MediaKind::Image));
    Ok(AskedPart::Frames(frames.collect::<Result<_, _>>()?))
}

fn page_of(object: &Object, document: &Field) -> Result<AskedPart, Refusal> {
    let page = object.get("page").map_or(Ok(1), |page| page.number(1))?;
    Ok(AskedPart::Document { pdf: media(document, MediaKind::Document)?, page })
}

fn typed_part(field: &Field) -> Result<AskedPart, Refusal> {
    const TYPES: [&str; 4] = ["text", "image_url", "image_base64", "video_url"];
    let kind = Field { name: format!("{}.type", field.name), value: &field.value["type"] };
    let name = kind.text()?;
    if !TYPES.contains(&name) {
        return Err(kind.refuse(&format!("is not known; known are {}", TYPES.join(", "))));
    }
    let given = field.object(&["type", name])?.required(name)?;
    if name == "text" {
        return Ok(AskedPart::Text(given.text()?.to_owned()));
    }
    // `{"url": …}` as of OpenAI, or the URL itself.
    let url = match given.is_object() {
        true => given.object(&["url", "detail"])?.required("url")?,
        false => given,
    };
    match name {
        "video_url" => Ok(AskedPart::Video(media(&url, MediaKind::Video)?)),
        _ => Ok(AskedPart::Image(media(&url, MediaKind::Image)?)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(value: &Value) -> Result<Asked, Refusal> {
        Asked::read(&Field { name: "input".into(), value }, Some("Find it."))
    }

    fn bytes(field: &str) -> Media {
        Media { field: field.into(), bytes: b"hello".to_vec() }
    }

    #[test]
    fn parts_of_all_dialects_are_read() {
        let gif = "data:image/gif;base64,R0lGODlh";
        let own = json!({ "instruction": "Look: ", "content": [
            "plain", { "text": "a" }, { "image": "aGVsbG8=" }, { "video": gif }, { "video": ["aGVsbG8=", "aGVsbG8="] },
            { "document": "aGVsbG8=", "page": 2 }, { "document": "aGVsbG8=" },
        ] });
        let asked = read(&own).unwrap();
        assert_eq!(asked.instruction.as_deref(), Some("Look: "));
        let video = Media { field: "input.content[3].video".into(), bytes: b"GIF89a".to_vec() };
        let expected = [
            AskedPart::Text("plain".into()),
            AskedPart::Text("a".into()),
            AskedPart::Image(bytes("input.content[2].image")),
            AskedPart::Video(video),
            AskedPart::Frames(vec![bytes("input.content[4].video[0]"), bytes("input.content[4].video[1]")]),
            AskedPart::Document { pdf: bytes("input.content[5].document"), page: 2 },
            AskedPart::Document { pdf: bytes("input.content[6].document"), page: 1 },
        ];
        assert_eq!(asked.content, expected);
        let messages = json!([
            { "role": "system", "content": [{ "type": "text", "text": "Ask." }] },
            { "role": "user", "content": [
                { "type": "image_url", "image_url": { "url": "data:image/png;base64,aGVsbG8=", "detail": "low" } },
                { "type": "image_url", "image_url": "aGVsbG8=" },
                { "type": "video_url", "video_url": { "url": gif } },
                { "type": "text", "text": "words" },
            ] },
        ]);
        let field = Field { name: "messages".into(), value: &messages };
        let asked = Asked::of_messages(&field, None).unwrap();
        assert_eq!((asked.instruction.as_deref(), asked.content.len()), (Some("Ask."), 4));
        assert_eq!(asked.content[0], AskedPart::Image(bytes("messages[1].content[0].image_url.url")));
        // A part by itself, and a text.
        assert_eq!(read(&json!({ "image": "aGVsbG8=" })).unwrap().content.len(), 1);
        assert_eq!(
            read(&json!("a")).unwrap(),
            Asked { instruction: Some("Find it.".into()), ..Asked::text("input", "a") }
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (value, field, problem) in [
            (json!({ "content": [] }), "input.content", "empty list"),
            (json!({ "content": [{}] }), "input.content[0]", "is empty"),
            (json!({ "content": [{ "text": "a", "image": "b" }] }), "input.content[0]", "several kinds"),
            (json!({ "content": [{ "text": "a", "page": 1 }] }), "input.content[0]", "without `document`"),
            (
                json!({ "content": [{ "document": "aGVsbG8=", "page": 0 }] }),
                "input.content[0].page",
                "from 1 on",
            ),
            (json!({ "content": [{ "imgae": "a" }] }), "input.content[0].imgae", "not known"),
            (json!({ "content": "a", "extra": 1 }), "input.extra", "not known"),
            (json!({ "content": [{ "type": "audio", "audio": "a" }] }), "input.content[0].type", "not known"),
            (json!({ "content": [{ "type": "image_url" }] }), "input.content[0].image_url", "missing"),
            (json!({ "content": [{ "video": "#EXTM3U" }] }), "input.content[0].video", "neither"),
            (json!({ "content": vec!["a"; 65] }), "input.content", "at most 64"),
            (json!("a".repeat(MOST_TEXT)), "input", "bytes of text"),
        ] {
            let refusal = read(&value).unwrap_err();
            assert_eq!(refusal.field.as_deref(), Some(field), "{}", refusal.message);
            assert!(refusal.message.contains(problem), "{}", refusal.message);
        }
        for messages in [
            json!([{ "role": "assistant", "content": "a" }]),
            json!([{ "role": "user", "content": "a" }, { "role": "user", "content": "b" }]),
            json!([{ "role": "system", "content": "a" }]),
            json!([{ "role": "system", "content": [{ "image": "aGVsbG8=" }] }]),
        ] {
            let field = Field { name: "messages".into(), value: &messages };
            assert_eq!(Asked::of_messages(&field, None).unwrap_err().status, 400, "{messages}");
        }
    }

    #[test]
    fn texts_are_cut_between_letters() {
        let parts = json!({ "content": ["aä", { "image": "aGVsbG8=" }, "b", "c"], "instruction": "öx" });
        for (most, expected) in [
            (0, ["", "", "", ""]),
            (2, ["ö", "", "", ""]),
            (5, ["öx", "a", "b", ""]),
            (9, ["öx", "aä", "b", "c"]),
        ] {
            let mut asked = read(&parts).unwrap();
            asked.cut(most);
            let texts = [0, 2, 3].map(|at| match &asked.content[at] {
                AskedPart::Text(text) => text.clone(),
                other => panic!("{other:?}"),
            });
            let all: Vec<String> = asked.instruction.into_iter().chain(texts).collect();
            assert_eq!(all, expected, "{most}");
        }
    }

    #[test]
    fn files_are_called_as_their_fields() {
        let folder = tempfile::tempdir().unwrap();
        let asked = read(&json!({ "content": [{ "document": "aGVsbG8=", "page": 3 }] })).unwrap();
        let item = asked.write_under(folder.path()).unwrap();
        let path = folder.path().join("input.content[0].document");
        assert_eq!(std::fs::read(&path).unwrap(), b"hello");
        assert_eq!(item.content, [Part::Document { path, page: 3 }]);
    }
}
