//! ms-swift's rows for embedding models, new and old.
//!
//! New: `messages`, `positive_messages` and `negative_messages`, each with media of its own (`images`,
//! `positive_images`, …). Old: `query`, `response` and `rejected_response`, whose marks share one list of `images`.

use rzen_core::Part;

use super::draft::{Draft, words};
use super::media::Media;
use super::placeholders::take_marks;
use super::record::{Record, list_of, record_of, text_of};
use super::{ImportReport, Refusal};
use crate::cell::Cell;

pub(super) fn read(
    record: &mut Record,
    media: &mut Media,
    _: &mut ImportReport,
) -> Result<Vec<Draft>, Refusal> {
    if let Some(label) = record.text("label")?
        && label.parse() != Ok(1.0)
    {
        return Err(format!(
            "`label` is {label}: the two don't belong together; only pairs of label 1 train"
        )
        .into());
    }
    match record.take("messages") {
        Some(cell) => messages(cell, record, media),
        None => responses(record, media),
    }
}

fn messages(cell: Cell, record: &mut Record, media: &mut Media) -> Result<Vec<Draft>, Refusal> {
    let mut query = Conversation::read(cell, "messages", record)?;
    let mut shown = Shown::read(record, "")?.remove(0);
    let mut draft = Draft { instruction: query.system.take(), ..Draft::default() };
    draft.query = shown.item(&query.user, record, media)?;
    if let Some(answer) = &query.assistant {
        draft.positives.push(shown.item(answer, record, media)?);
    }
    for (column, prefix) in [("positive_messages", "positive_"), ("negative_messages", "negative_")] {
        let Some(cell) = record.take(column) else { continue };
        let conversations = conversations(cell, column, record)?;
        let mut media_of = Shown::read(record, prefix)?;
        while media_of.last().is_some_and(|shown| shown.count() == 0) {
            media_of.pop();
        }
        media_of.resize_with(conversations.len().max(media_of.len()), Shown::default);
        if media_of.len() > conversations.len() {
            let (media, items) = (media_of.len(), conversations.len());
            return Err(format!("`{prefix}…` lists media of {media} items for {items} in `{column}`").into());
        }
        for (conversation, shown) in conversations.into_iter().zip(&mut media_of) {
            if conversation.system.is_some() || conversation.assistant.is_some() {
                return Err(format!("`{column}` holds more than a user's message").into());
            }
            let item = shown.item(&conversation.user, record, media)?;
            shown.all_taken(column)?;
            if prefix == "positive_" { draft.positives.push(item) } else { draft.negatives.push(item) }
        }
    }
    rejected(record, media, &mut shown, &mut draft)?;
    shown.all_taken("messages")?;
    Ok(vec![draft])
}

/// The old form.
fn responses(record: &mut Record, media: &mut Media) -> Result<Vec<Draft>, Refusal> {
    let query = record.required_text("query")?;
    let positive = record.required_text("response")?;
    let mut shown = Shown::read(record, "")?.remove(0);
    let mut draft = Draft::pair(shown.item(&query, record, media)?, shown.item(&positive, record, media)?);
    draft.instruction = record.text("system")?;
    rejected(record, media, &mut shown, &mut draft)?;
    shown.all_taken("query")?;
    Ok(vec![draft])
}

fn rejected(
    record: &mut Record,
    media: &mut Media,
    shown: &mut Shown,
    draft: &mut Draft,
) -> Result<(), Refusal> {
    let column = "rejected_response";
    let texts = match record.take(column) {
        None => Vec::new(),
        Some(Cell::List(cells)) => cells,
        Some(cell) => vec![cell],
    };
    for cell in texts {
        let text = text_of(cell, column)?.unwrap_or_default();
        draft.negatives.push(shown.item(&text, record, media)?);
    }
    Ok(())
}

/// The messages of one item.
#[derive(Default)]
struct Conversation {
    system: Option<String>,
    user: String,
    assistant: Option<String>,
}

impl Conversation {
    fn read(cell: Cell, column: &str, record: &Record) -> Result<Self, String> {
        let mut conversation = Conversation::default();
        for cell in list_of(cell, column)? {
            let mut message = record_of(cell, column, record)?;
            let text = message.text("content")?.unwrap_or_default();
            let role = message.required_text("role")?;
            let taken = match role.as_str() {
                "system" => conversation.system.replace(text).is_some(),
                "assistant" => conversation.assistant.replace(text).is_some(),
                "user" => !std::mem::replace(&mut conversation.user, text).is_empty(),
                _ => {
                    return Err(format!(
                        "`{column}` has a message of `{role}`, expected user, assistant or system"
                    ));
                }
            };
            if taken {
                return Err(format!("`{column}` has two messages of `{role}`, expected one"));
            }
        }
        Ok(conversation)
    }
}

/// Conversations of several items, or of one.
fn conversations(cell: Cell, column: &str, record: &Record) -> Result<Vec<Conversation>, String> {
    let cells = list_of(cell, column)?;
    match cells.first() {
        Some(Cell::Struct(_)) => Ok(vec![Conversation::read(Cell::List(cells), column, record)?]),
        _ => cells.into_iter().map(|cell| Conversation::read(cell, column, record)).collect(),
    }
}

/// Media that marks in texts stand for, those to come last first.
#[derive(Default)]
struct Shown {
    pictures: Vec<Cell>,
    clips: Vec<Cell>,
}

impl Shown {
    /// The media of each item; of one item where the columns have no prefix.
    fn read(record: &mut Record, prefix: &str) -> Result<Vec<Shown>, String> {
        let mut shown: Vec<Shown> = Vec::new();
        for (end, is_clip) in [("images", false), ("videos", true)] {
            let column = format!("{prefix}{end}");
            let cells = record.take(&column).map_or(Ok(Vec::new()), |cell| list_of(cell, &column))?;
            let is_nested = matches!(cells.first(), Some(Cell::List(_)));
            let items = if is_nested { cells } else { vec![Cell::List(cells)] };
            for (place, item) in items.into_iter().enumerate() {
                if shown.len() <= place {
                    shown.push(Shown::default());
                }
                let mut cells = list_of(item, &column)?;
                cells.reverse();
                if is_clip { shown[place].clips = cells } else { shown[place].pictures = cells }
            }
        }
        Ok(shown)
    }

    /// The words of a text and the media of its marks.
    fn item(&mut self, text: &str, record: &Record, media: &mut Media) -> Result<Vec<Part>, Refusal> {
        let (text, pictures) = take_marks(text, "<image>");
        let (text, clips) = take_marks(&text, "<video>");
        let missing = |what| format!("a text has more marks for {what} than there are {what}");
        let mut parts = Vec::new();
        for _ in 0..pictures {
            let picture = self.pictures.pop().ok_or_else(|| missing("pictures"))?;
            parts.extend(media.picture_of(picture, "images", &record.folder)?);
        }
        for _ in 0..clips {
            let clip = text_of(self.clips.pop().ok_or_else(|| missing("clips"))?, "videos")?;
            parts.push(media.clip(&clip.unwrap_or_default(), &record.folder)?);
        }
        parts.extend(words(&text));
        Ok(parts)
    }

    fn count(&self) -> usize {
        self.pictures.len() + self.clips.len()
    }

    fn all_taken(&self, column: &str) -> Result<(), String> {
        match self.count() {
            0 => Ok(()),
            left => Err(format!("`{column}` has {left} pictures and clips without a mark in its texts")),
        }
    }
}
