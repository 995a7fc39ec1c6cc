//! Refuses templates that the engine could not compile or render safely, before it sees them.

use halfbyte_core::error::{Error, Result};
use std::collections::BTreeSet;

/// The most bytes of a template. The longest published ones have 30 KB.
const LONGEST: usize = 1 << 20;
/// The most bytes of one tag outside of quoted text, which bounds how deep operators nest.
const LONGEST_TAG: usize = 16 << 10;

/// Errors if `source` cannot be compiled and rendered safely.
pub(super) fn check_source(source: &str) -> Result<()> {
    check_length(source)?;
    check_namespaces(source)
}

/// Errors if the template, or one of its tags, is too long to be compiled safely.
fn check_length(source: &str) -> Result<()> {
    let refused = |what: String| Err(Error::usage(what).hint("do you trust the model's chat_template?"));
    if source.len() > LONGEST {
        return refused(format!("the template is {} bytes long: the limit is {LONGEST}", source.len()));
    }
    // A tag ends at `}`; braces inside of it only make the parts shorter than the tag is.
    let (mut length, mut quote, mut inside) = (0, None, false);
    let bytes = source.as_bytes();
    for (i, &b) in bytes.iter().enumerate() {
        let next = bytes.get(i + 1);
        match (inside, quote) {
            (false, _) if b == b'{' && matches!(next, Some(b'{' | b'%')) => (inside, length) = (true, 0),
            (true, None) if matches!(b, b'}' | b'%') && next == Some(&b'}') => inside = false,
            (true, None) if matches!(b, b'"' | b'\'') => quote = Some(b),
            (true, Some(q)) if b == q && bytes[i - 1] != b'\\' => quote = None,
            (true, None) => length += 1,
            _ => {}
        }
        if length > LONGEST_TAG {
            return refused(format!("a tag of the template is longer than {LONGEST_TAG} bytes"));
        }
    }
    Ok(())
}

/// Errors if a namespace is used as a value. If one contained itself, printing it would overflow the stack. Only
/// `{% set NAME = namespace(…) %}` makes one, and after that only its attributes may be read and set.
fn check_namespaces(source: &str) -> Result<()> {
    let words = words(source);
    let at = |i: usize, back: usize| i.checked_sub(back).map_or("", |i| words[i].as_str());
    let is_made = |i: usize| words[i] == "namespace" && at(i, 1) == "=" && at(i, 3) == "set";
    let names: BTreeSet<&str> = (0..words.len()).filter(|i| is_made(*i)).map(|i| at(i, 2)).collect();
    for (i, word) in words.iter().enumerate() {
        let next = words.get(i + 1).map_or("", String::as_str);
        let wrong = match word.as_str() {
            "namespace" => next == "(" && !is_made(i),
            name => names.contains(name) && at(i, 1) != "." && !matches!(next, "." | "[" | "=" | "is"),
        };
        if wrong {
            let what = format!("template: `{word}` is used as a value: of a namespace, only attributes can be used");
            return Err(Error::usage(what).hint("write {% set ns = namespace(x=…) %}, then ns.x"));
        }
    }
    Ok(())
}

/// The names and the signs in the tags of a template, without quoted text.
fn words(source: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut rest = source;
    while let Some(start) = rest.find("{{").into_iter().chain(rest.find("{%")).min() {
        rest = &rest[start + 2..];
        words.push("{".into());
        let (mut quote, mut escaped, mut in_name) = (None, false, false);
        let mut end = rest.len();
        for (i, c) in rest.char_indices() {
            match quote {
                Some(_) if escaped => escaped = false,
                Some(_) if c == '\\' => escaped = true,
                Some(q) if c == q => quote = None,
                Some(_) => {}
                None if rest[i..].starts_with("}}") || rest[i..].starts_with("%}") => {
                    end = i;
                    break;
                }
                None if c == '"' || c == '\'' => (quote, in_name) = (Some(c), false),
                None if c.is_alphanumeric() || c == '_' => {
                    match words.last_mut().filter(|_| in_name) {
                        Some(word) => word.push(c),
                        None => words.push(c.into()),
                    }
                    in_name = true;
                }
                None => {
                    if !c.is_whitespace() {
                        words.push(c.into());
                    }
                    in_name = false;
                }
            }
        }
        rest = &rest[end..];
    }
    words
}
