//! Text with structure in it. Whatever formats a record returns one string, in which Unicode noncharacters (which no
//! text may contain) say what text alone cannot: here is a token, here begins what is trained on. So a `</s>` that a
//! record happens to contain stays text, and masks follow the structure and never a search in the answer.

use crate::error::{Error, Result};

/// `OPEN id CLOSE` is the token `id`.
const OPEN: char = '\u{FDD0}';
const CLOSE: char = '\u{FDD1}';
/// What follows is trained on.
pub const TRAINED: char = '\u{FDD2}';
/// What follows is not.
pub const GIVEN: char = '\u{FDD3}';
/// The text that follows is encoded by itself, with a space in front, as at the beginning of a text.
pub const APART: char = '\u{FDD4}';

fn is_mark(c: char) -> bool {
    (OPEN..=APART).contains(&c)
}

/// The mark of the token `id`.
pub fn token(id: u32) -> String {
    format!("{OPEN}{id}{CLOSE}")
}

/// An error if `text`, which comes from a record, contains a mark.
pub fn check(text: &str) -> Result<()> {
    // The marks' first byte is rare, and looking for a byte is fast.
    if text.bytes().any(|b| b == 0xEF) && text.contains(is_mark) {
        return Err(Error::input("the record contains a Unicode noncharacter (U+FDD0 to U+FDD4)")
            .hint("remove it: Unicode reserves them for uses such as ours, and no text has them"));
    }
    Ok(())
}

/// The literals that stand for tokens, and their ids.
#[derive(Clone, Default, Debug)]
pub struct Literals(Vec<(String, u32)>);

impl Literals {
    /// Longer ones first, so that of two that begin alike the longer is found.
    pub fn new(mut literals: Vec<(String, u32)>) -> Literals {
        literals.retain(|(text, _)| !text.is_empty());
        literals.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        Literals(literals)
    }

    /// The id of a literal.
    pub fn id(&self, literal: &str) -> Option<u32> {
        self.0.iter().find(|(text, _)| text == literal).map(|(_, id)| *id)
    }

    /// The literal of a token.
    pub fn literal(&self, id: u32) -> Option<&str> {
        self.0.iter().find(|(_, i)| *i == id).map(|(text, _)| text.as_str())
    }

    /// `text` with every literal replaced by the token's mark.
    pub fn mark(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let found = self.0.iter().find(|(literal, _)| rest.starts_with(literal));
            match found {
                Some((literal, id)) => {
                    out += &token(*id);
                    rest = &rest[literal.len()..];
                }
                None => {
                    out.push(first);
                    rest = &rest[first.len_utf8()..];
                }
            }
        }
        out
    }

    /// Whether `text` contains one of the literals.
    pub fn occur_in(&self, text: &str) -> bool {
        self.0.iter().any(|(literal, _)| text.contains(literal))
    }

    /// `text` with marks turned back into what they stand for: for people to read.
    pub fn unmark(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for part in parts(text, Scope::All, true) {
            match part.content {
                Content::Token(id) => out += self.literal(id).unwrap_or_default(),
                Content::Text { text, .. } => out += &text,
            }
        }
        out
    }
}

/// Where the literals of a conversation's roles stand: `<usr>` and `<bot>`, `[INST]` and `[/INST]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RoleMarkers {
    /// Begins what the user says.
    pub user: String,
    /// Begins what the assistant says.
    pub assistant: String,
}

impl RoleMarkers {
    /// `text` with marks at the role markers: what comes after an assistant's marker is trained on, up to the next
    /// user's.
    pub fn mark(&self, text: &str) -> String {
        let text = text.replace(&self.assistant, &format!("{}{TRAINED}", self.assistant));
        text.replace(&self.user, &format!("{GIVEN}{}", self.user))
    }
}

/// `train_on`: which tokens the loss sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Scope {
    /// Every token.
    #[default]
    All,
    /// The last answer.
    Completion,
    /// All answers.
    Assistant,
}

/// A token, or text that is encoded in one go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// What it is.
    pub content: Content,
    /// Whether it is trained on.
    pub trained: bool,
}

/// What a [`Part`] is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// A token.
    Token(u32),
    /// Text.
    Text {
        /// The text.
        text: String,
        /// Encoded by itself, with a space in front; else it continues what is before it.
        apart: bool,
    },
}

/// Takes marked text apart. Text is cut only at tokens, where training begins or ends, and where marks say so.
/// `legacy`: text after a token stands by itself, as transformers' `legacy=True` has it.
pub fn parts(marked: &str, scope: Scope, legacy: bool) -> Vec<Part> {
    // With `Completion`, only the last answer counts.
    let first_answer = match scope {
        Scope::Completion => marked.rfind(TRAINED).unwrap_or(marked.len()),
        Scope::All | Scope::Assistant => 0,
    };
    let mut parts: Vec<Part> = Vec::new();
    let (mut trained, mut apart) = (scope == Scope::All, true);
    let mut at = 0;
    while at < marked.len() {
        let rest = &marked[at..];
        let end = rest.find(is_mark).unwrap_or(rest.len());
        if end > 0 {
            match parts.last_mut() {
                Some(Part { content: Content::Text { text, .. }, trained: t }) if *t == trained && !apart => {
                    text.push_str(&rest[..end]);
                }
                _ => parts.push(Part { content: Content::Text { text: rest[..end].into(), apart }, trained }),
            }
            (at, apart) = (at + end, false);
            continue;
        }
        at += OPEN.len_utf8();
        match rest.chars().next() {
            Some(OPEN) => {
                let inside = rest[OPEN.len_utf8()..].split(CLOSE).next().unwrap_or_default();
                parts.extend(inside.parse().ok().map(|id| Part { content: Content::Token(id), trained }));
                at = (at + inside.len() + CLOSE.len_utf8()).min(marked.len());
                apart = legacy;
            }
            Some(TRAINED) => trained |= at > first_answer,
            Some(GIVEN) => trained = scope == Scope::All,
            Some(APART) => apart = true,
            _ => {}
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(marked: &str, scope: Scope, legacy: bool) -> String {
        let show = |part: &Part| {
            let content = match &part.content {
                Content::Token(id) => format!("#{id}"),
                Content::Text { text, apart: true } => format!("^{text}"),
                Content::Text { text, apart: false } => text.clone(),
            };
            if part.trained { format!("({content})") } else { content }
        };
        parts(marked, scope, legacy).iter().map(show).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn answers_are_what_follows_the_assistants_marker() {
        let roles = RoleMarkers { user: "[INST]".into(), assistant: "[/INST]".into() };
        let literals = Literals::new(vec![("<s>".into(), 1), ("</s>".into(), 2)]);
        let marked = literals.mark(&roles.mark("<s>[INST] a [/INST] b</s>[INST] c [/INST] d</s>"));
        assert_eq!(
            shown(&marked, Scope::Assistant, true),
            "#1|^[INST] a [/INST]|( b)|(#2)|^[INST] c [/INST]|( d)|(#2)"
        );
        assert_eq!(shown(&marked, Scope::Completion, false), "#1|[INST] a [/INST] b|#2|[INST] c [/INST]|( d)|(#2)");
        assert_eq!(shown(&marked, Scope::All, true), "(#1)|(^[INST] a [/INST] b)|(#2)|(^[INST] c [/INST] d)|(#2)");
        assert_eq!(literals.unmark(&marked), "<s>[INST] a [/INST] b</s>[INST] c [/INST] d</s>");
        assert_eq!(shown("no answer", Scope::Completion, true), "^no answer");
    }

    #[test]
    fn text_apart_is_a_part_of_its_own() {
        let marked = format!("{}{APART}a{APART}b{TRAINED}{}c{GIVEN}", token(7), token(8));
        assert_eq!(shown(&marked, Scope::Assistant, false), "#7|^a|^b|(#8)|(c)");
    }

    #[test]
    fn longer_literals_win_and_marks_in_records_are_refused() {
        let literals = Literals::new(vec![("[I".into(), 5), ("[INST]".into(), 6), (String::new(), 9)]);
        assert_eq!(literals.mark("x[INST][I"), format!("x{}{}", token(6), token(5)));
        assert!(literals.occur_in("a[Ib") && !literals.occur_in("[ I"));
        assert!(check("\u{FDCF} \u{FDD5} \u{FEFF}").is_ok());
        assert!(check(&token(1)).is_err());
        // Marks that records cannot contain still may not lead to a panic.
        for broken in ["\u{FDD0}", "\u{FDD0}x", "\u{FDD0}\u{FDD1}", "\u{FDD1}", "\u{FDD0}99999999999\u{FDD1}y"] {
            assert!(parts(broken, Scope::All, true).len() <= 1, "{broken:?}");
        }
    }
}
