//! Marked text: a string in which Unicode noncharacters, which cannot occur in text, encode special tokens and the
//! borders of trained spans. A `</s>` in a record therefore remains text, and the mask follows the structure of the
//! record instead of a text search for the answer.

use std::borrow::Cow;

use serde_json::Value;

use crate::config::data::TrainOn;

/// `OPEN id CLOSE` is the token `id`; `OPEN ESCAPED n CLOSE` is the character n, which would otherwise be read as a
/// mark.
const OPEN: char = '\u{FDD0}';
const ESCAPED: char = '=';
const CLOSE: char = '\u{FDD1}';
/// The text that follows is trained.
pub const TRAINED: char = '\u{FDD2}';
/// The text that follows is not trained.
pub const GIVEN: char = '\u{FDD3}';
/// The text that follows is encoded separately, like the beginning of a text: with a space in front.
pub const APART: char = '\u{FDD4}';
/// Never occurs in marked text; the encoder uses it internally.
pub const SPARE: char = '\u{FDD5}';

fn is_mark(c: char) -> bool {
    (OPEN..=SPARE).contains(&c)
}

/// The mark of the token `id`.
pub fn token(id: u32) -> String {
    format!("{OPEN}{id}{CLOSE}")
}

/// Escapes all noncharacters in the text of a record, so that none is read as a mark. Valid text has none, but a file
/// can.
pub fn escape(text: &str) -> Cow<'_, str> {
    // The first byte of a mark is rare, and searching for a byte is fast.
    if !text.bytes().any(|b| b == 0xEF) || !text.contains(is_mark) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_mark(c) {
            true => out += &format!("{OPEN}{ESCAPED}{}{CLOSE}", u32::from(c)),
            false => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Whether any text in a value needs [`escape_value`].
pub fn has_marks(value: &Value) -> bool {
    match value {
        Value::String(text) => matches!(escape(text), Cow::Owned(_)),
        Value::Array(items) => items.iter().any(has_marks),
        Value::Object(fields) => fields.values().any(has_marks),
        _ => false,
    }
}

/// Escapes all texts in a value.
pub fn escape_value(value: &mut Value) {
    match value {
        Value::String(text) => *text = escape(text).into_owned(),
        Value::Array(items) => items.iter_mut().for_each(escape_value),
        Value::Object(fields) => fields.values_mut().for_each(escape_value),
        _ => {}
    }
}

/// The literal texts of special tokens (`</s>`), with their ids.
#[derive(Clone, Default, Debug)]
pub struct Literals {
    /// Longest first, so that the longer of two with a common prefix is matched.
    all: Vec<(String, u32)>,
    /// The first bytes of all literals, for a fast search.
    first: Vec<u8>,
}

impl Literals {
    /// A set of literals, without empty ones.
    pub fn new(mut all: Vec<(String, u32)>) -> Literals {
        all.retain(|(text, _)| !text.is_empty());
        all.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        let mut first: Vec<u8> = all.iter().map(|(text, _)| text.as_bytes()[0]).collect();
        first.sort();
        first.dedup();
        Literals { all, first }
    }

    /// The id of a literal.
    pub fn id(&self, literal: &str) -> Option<u32> {
        self.all.iter().find(|(text, _)| text == literal).map(|(_, id)| *id)
    }

    /// The literal of a token.
    pub fn literal(&self, id: u32) -> Option<&str> {
        self.all.iter().find(|(_, i)| *i == id).map(|(text, _)| text.as_str())
    }

    /// `text` with every literal replaced by the token's mark.
    pub fn mark(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        // The bytes before `done` are copied; the search continues at `at`.
        let (mut done, mut at) = (0, 0);
        while let Some(next) = text.as_bytes()[at..].iter().position(|b| self.first.contains(b)) {
            at += next;
            // The first byte of a literal may occur within another character.
            let here = text.get(at..).unwrap_or_default();
            match self.all.iter().find(|(literal, _)| here.starts_with(literal)) {
                Some((literal, id)) => {
                    out += &text[done..at];
                    out += &token(*id);
                    at += literal.len();
                    done = at;
                }
                None => at += 1,
            }
        }
        out + &text[done..]
    }

    /// Replaces the marks in `text` by the text that they represent, for display.
    pub fn unmark(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for part in parts(text, TrainOn::All, true) {
            match part.content {
                PartContent::Token(id) => out += self.literal(id).unwrap_or_default(),
                PartContent::Text { text, .. } => out += &text,
            }
        }
        out
    }
}

/// The texts that mark the roles of a conversation in plain text: `<usr>` and `<bot>`, or `[INST]` and `[/INST]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RoleMarkers {
    /// Begins a part of the user.
    pub user: String,
    /// Begins a part of the assistant.
    pub assistant: String,
}

impl RoleMarkers {
    /// Adds marks at the role markers of `text`: the text from an assistant's marker to the next user's marker is
    /// trained.
    pub fn mark(&self, text: &str) -> String {
        let text = text.replace(&self.assistant, &format!("{}{TRAINED}", self.assistant));
        text.replace(&self.user, &format!("{GIVEN}{}", self.user))
    }
}

/// A special token, or a text that is encoded in one call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MarkedPart {
    /// The token or the text.
    pub content: PartContent,
    /// Whether the part is trained.
    pub trained: bool,
}

/// The content of a [`MarkedPart`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PartContent {
    /// The id of a token.
    Token(u32),
    /// Text that is encoded in one call.
    Text {
        /// The text without marks.
        text: String,
        /// Whether the text is encoded like the beginning of a text, with a space in front. If not, it continues the
        /// previous part.
        apart: bool,
    },
}

/// Splits marked text into parts, at tokens, at the borders of trained spans, and at [`APART`]. With `legacy`, text
/// after a token is encoded separately, as in transformers with `legacy=True`.
pub fn parts(marked: &str, train_on: TrainOn, legacy: bool) -> Vec<MarkedPart> {
    // With `Completion`, only the last answer is trained.
    let first_answer = match train_on {
        TrainOn::Completion => marked.rfind(TRAINED).unwrap_or(marked.len()),
        TrainOn::All | TrainOn::Assistant => 0,
    };
    let mut parts: Vec<MarkedPart> = Vec::new();
    let (mut trained, mut apart) = (train_on == TrainOn::All, true);
    let mut at = 0;
    while at < marked.len() {
        let rest = &marked[at..];
        let end = rest.find(is_mark).unwrap_or(rest.len());
        let mut push = |more: &str| match parts.last_mut() {
            Some(MarkedPart { content: PartContent::Text { text, .. }, trained: t }) if *t == trained && !apart => {
                text.push_str(more);
            }
            _ => parts.push(MarkedPart { content: PartContent::Text { text: more.into(), apart }, trained }),
        };
        if end > 0 {
            push(&rest[..end]);
            (at, apart) = (at + end, false);
            continue;
        }
        at += OPEN.len_utf8();
        match rest.chars().next() {
            Some(OPEN) => {
                let inside = rest[OPEN.len_utf8()..].split(CLOSE).next().unwrap_or_default();
                at = (at + inside.len() + CLOSE.len_utf8()).min(marked.len());
                if let Some(number) = inside.strip_prefix(ESCAPED) {
                    if let Some(c) = number.parse().ok().and_then(char::from_u32) {
                        push(c.encode_utf8(&mut [0; 4]));
                    }
                    apart = false;
                } else {
                    parts.extend(inside.parse().ok().map(|id| MarkedPart { content: PartContent::Token(id), trained }));
                    apart = legacy;
                }
            }
            Some(TRAINED) => trained |= at > first_answer,
            Some(GIVEN) => trained = train_on == TrainOn::All,
            Some(APART) => apart = true,
            _ => {}
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(marked: &str, train_on: TrainOn, legacy: bool) -> String {
        let show = |part: &MarkedPart| {
            let content = match &part.content {
                PartContent::Token(id) => format!("#{id}"),
                PartContent::Text { text, apart: true } => format!("^{text}"),
                PartContent::Text { text, apart: false } => text.clone(),
            };
            if part.trained { format!("({content})") } else { content }
        };
        parts(marked, train_on, legacy).iter().map(show).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn answers_are_what_follows_the_assistants_marker() {
        let roles = RoleMarkers { user: "[INST]".into(), assistant: "[/INST]".into() };
        let literals = Literals::new(vec![("<s>".into(), 1), ("</s>".into(), 2)]);
        let marked = literals.mark(&roles.mark("<s>[INST] a [/INST] b</s>[INST] c [/INST] d</s>"));
        assert_eq!(
            shown(&marked, TrainOn::Assistant, true),
            "#1|^[INST] a [/INST]|( b)|(#2)|^[INST] c [/INST]|( d)|(#2)"
        );
        assert_eq!(shown(&marked, TrainOn::Completion, false), "#1|[INST] a [/INST] b|#2|[INST] c [/INST]|( d)|(#2)");
        assert_eq!(shown(&marked, TrainOn::All, true), "(#1)|(^[INST] a [/INST] b)|(#2)|(^[INST] c [/INST] d)|(#2)");
        assert_eq!(literals.unmark(&marked), "<s>[INST] a [/INST] b</s>[INST] c [/INST] d</s>");
        assert_eq!(shown("no answer", TrainOn::Completion, true), "^no answer");
    }

    #[test]
    fn text_apart_is_a_part_of_its_own() {
        let marked = format!("{}{APART}a{APART}b{TRAINED}{}c{GIVEN}", token(7), token(8));
        assert_eq!(shown(&marked, TrainOn::Assistant, false), "#7|^a|^b|(#8)|(c)");
    }

    #[test]
    fn longer_literals_win_and_marks_in_records_are_only_text() {
        let literals = Literals::new(vec![("[I".into(), 5), ("[INST]".into(), 6), (String::new(), 9)]);
        assert_eq!(literals.mark("x[INST][I"), format!("x{}{}", token(6), token(5)));
        assert!(matches!(escape("\u{FDCF} \u{FDD6} \u{FEFF}"), Cow::Borrowed(_)));
        let hostile = format!("a{}b{TRAINED}{SPARE}", token(6));
        assert_eq!(shown(&escape(&hostile), TrainOn::Assistant, true), format!("^{hostile}"));
        assert_eq!(literals.unmark(&escape(&hostile)), hostile);
        // Records cannot contain these marks, but they must not cause a panic.
        for broken in ["\u{FDD0}", "\u{FDD0}x", "\u{FDD0}\u{FDD1}", "\u{FDD1}", "\u{FDD0}99999999999\u{FDD1}y"] {
            assert!(parts(broken, TrainOn::All, true).len() <= 1, "{broken:?}");
        }
    }
}
