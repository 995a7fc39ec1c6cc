//! A recipe as written: TOML in sections or flat, plus `--set key=value`. Names are resolved here (aliases, keys
//! without effect, refused keys, typing errors); types of values are checked when they are read.
//!
//! A wrong key or value does not stop the reading: [`Raw`] collects all errors, so that a user sees them at once
//! ([`Raw::finish`]).

use std::cell::RefCell;

use toml::{Table, Value};

use super::keys::{SECRET, Section, Use, lookup, suggestion};
use crate::suggest::{nearest, shortened};
use halfbyte_core::error::{Error, Result};

/// The keys of a recipe with their values.
pub struct Raw {
    /// The file, for messages.
    file: String,
    entries: Vec<RawEntry>,
    /// One line for each key without effect.
    pub notes: Vec<String>,
    /// Wrong keys and values.
    errors: RefCell<Vec<Error>>,
    /// Contradictions between keys. They are reported only if all keys and values are right, because a wrong value may
    /// cause them.
    contradictions: RefCell<Vec<Error>>,
}

struct RawEntry {
    /// The main name of the key, not an alias.
    key: &'static str,
    /// The name that the user wrote.
    written: String,
    /// The value that the user wrote. It differs from the key's value if another program's key was used.
    written_value: Value,
    /// The recipe's file, or `--set`.
    place: String,
    value: Value,
}

const SET: &str = "--set";

impl Raw {
    /// Parses the recipe `text`, read from `file`, and applies the `overrides` (`key=value`). Errors only if the text
    /// is not TOML; wrong keys are reported by [`Raw::finish`].
    pub fn parse(text: &str, file: &str, overrides: &[String]) -> Result<Self> {
        let table: Table = toml::from_str(text).map_err(|e| {
            let line = e.span().map_or(1, |s| 1 + text[..s.start.min(text.len())].matches('\n').count());
            Error::usage(format!("{file}: line {line}: {}", e.message().replace('\n', ", ")))
                .hint("a recipe is a TOML file")
        })?;
        let mut raw = Self {
            file: file.into(),
            entries: Vec::new(),
            notes: Vec::new(),
            errors: RefCell::default(),
            contradictions: RefCell::default(),
        };
        for (key, value) in table {
            match value {
                Value::Table(inner) if is_section(&key) => {
                    inner.into_iter().for_each(|(key, value)| raw.add(&key, value, file));
                }
                value => raw.add(&key, value, file),
            }
        }
        overrides.iter().for_each(|setting| raw.set(setting));
        Ok(raw)
    }

    /// `key=value`, where value is TOML, or text if it is not TOML.
    fn set(&mut self, setting: &str) {
        let Some((key, text)) = setting.split_once('=') else {
            // Only the beginning, because the rest may be a secret.
            let end = setting.find(|c: char| !c.is_alphanumeric() && c != '_');
            let key = end.map_or(setting.to_string(), |end| format!("{}…", &setting[..end]));
            let error = Error::usage(format!("{SET} {key}: expected key=value"));
            return self.report(error.hint("for instance --set learning_rate=2e-4"));
        };
        let key = key.trim();
        // `training.learning_rate` is the same key as `learning_rate`.
        let key = key.split_once('.').filter(|(section, _)| is_section(section)).map_or(key, |(_, key)| key);
        let value = parsed(text).unwrap_or_else(|| Value::String(text.trim().into()));
        if let Some(target) = lookup(key).and_then(|key| key.target()) {
            self.entries.retain(|e| e.key != target);
        }
        self.add(key, value, SET);
    }

    fn add(&mut self, written: &str, value: Value, place: &str) {
        let Some(key) = lookup(written) else { return self.report(unknown(written, &value, place)) };
        match key.used {
            Use::NoEffect(why) => self.notes.push(format!("`{written}` has no effect here: {why}")),
            Use::Only(values, why) if !values.iter().any(|v| same(&value, v)) => {
                let fix = match values {
                    [] => format!("remove `{written}`"),
                    [value, ..] => format!("remove `{written}`, or write {written} = {value}"),
                };
                // A secret is not repeated: messages end in logs.
                let is = if why == SECRET { "not accepted".into() } else { brief(&value) };
                self.report(Error::usage(format!("{place}: `{written}` is {is}: {why}")).hint(fix));
            }
            Use::Only(..) => {}
            Use::Used(_) => self.insert(key.name, written, value.clone(), value, place),
            Use::Alias(of) => self.insert(of, written, value.clone(), value, place),
            Use::Means(of, values) => match values.iter().find(|(theirs, _)| same(&value, theirs)) {
                Some((_, ours)) => {
                    if let Some(ours) = parsed(ours) {
                        self.insert(of, written, value, ours, place);
                    }
                }
                None => {
                    let accepted: Vec<&str> = values.iter().map(|(theirs, _)| *theirs).collect();
                    let what = format!("{place}: `{written}` is {}: expected {}", brief(&value), accepted.join(" or "));
                    self.report(Error::usage(what).hint(format!("it sets `{of}`")));
                }
            },
        }
    }

    fn insert(&mut self, key: &'static str, written: &str, written_value: Value, value: Value, place: &str) {
        match self.entries.iter().find(|e| e.key == key) {
            None => {
                let (written, place) = (written.into(), place.into());
                self.entries.push(RawEntry { key, written, written_value, place, value });
            }
            Some(other) if other.value == value => {}
            Some(other) => {
                let (first, second) = (brief(&other.written_value), brief(&written_value));
                let what = format!(
                    "{place}: `{} = {first}` and `{written} = {second}` are the same key with two values",
                    other.written
                );
                self.report(Error::usage(what).hint("keep one of them"));
            }
        }
    }

    /// Keeps an error about a wrong key or value for [`Raw::finish`].
    pub fn report(&self, error: Error) {
        self.errors.borrow_mut().push(error);
    }

    /// The value of `read`. If it is an error about contradicting keys, keeps it for [`Raw::finish`] and returns None.
    pub fn keep<T>(&self, read: Result<T>) -> Option<T> {
        read.map_err(|error| self.contradictions.borrow_mut().push(error)).ok()
    }

    /// Returns `read`, or all kept errors as one. Contradictions are reported only if every key and value is right.
    pub fn finish<T>(&self, read: Option<T>) -> Result<T> {
        let mut errors = self.errors.take();
        if errors.is_empty() {
            errors = self.contradictions.take();
        }
        match (read, errors.len()) {
            (Some(read), 0) => Ok(read),
            (_, 1) => Err(errors.remove(0)),
            _ => Err(Error::usage(errors.iter().map(Error::to_string).collect::<Vec<_>>().join("\n"))),
        }
    }

    fn entry(&self, key: &str) -> Option<&RawEntry> {
        debug_assert!(
            matches!(lookup(key).map(|key| key.used), Some(Use::Used(_))),
            "{key} is not in the table of keys"
        );
        self.entries.iter().find(|e| e.key == key)
    }

    /// Whether the recipe sets the key.
    pub fn has(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    /// The value as written.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.entry(key).map(|e| &e.value)
    }

    /// An error about the value of `key`, or about its absence.
    pub fn wrong(&self, key: &str, why: impl std::fmt::Display) -> Error {
        match self.entry(key) {
            Some(e) => Error::usage(format!("{}: `{}` is {}: {why}", e.place, e.written, brief(&e.written_value))),
            None => Error::usage(format!("{}: `{key}` is missing: {why}", self.file)),
        }
    }

    /// Prepends to `error` the place of the first key that it names in backticks.
    pub fn located(&self, error: Error) -> Error {
        let named = self.entries.iter().find(|e| error.what().contains(&format!("`{}`", e.key)));
        error.at(named.map_or(&self.file, |e| &e.place))
    }

    /// The value of `key`, converted by `read`. If the conversion fails, keeps an error for [`Raw::finish`] and returns
    /// None.
    fn read<'a, T>(&'a self, key: &str, what: &str, read: impl Fn(&'a Value) -> Option<T>) -> Option<T> {
        let value = read(self.value(key)?);
        if value.is_none() {
            self.report(self.wrong(key, format!("expected {what}")));
        }
        value
    }

    /// A boolean.
    pub fn flag(&self, key: &str) -> Option<bool> {
        self.read(key, "true or false", Value::as_bool)
    }

    /// A finite number.
    pub fn number(&self, key: &str) -> Option<f64> {
        self.read(key, "a number", |v| number(v).filter(|x| x.is_finite()))
    }

    /// A number of at least `low`.
    pub fn at_least(&self, key: &str, low: f64) -> Option<f64> {
        self.read(key, &format!("a number of at least {low}"), |v| number(v).filter(|x| x.is_finite() && *x >= low))
    }

    /// A whole number of at least `low` (and below 2³², as seeds are).
    pub fn count(&self, key: &str, low: usize) -> Option<usize> {
        self.whole(key, &format!("a whole number of at least {low}"), low, (1 << 32) - 1)
    }

    /// A size from `low` to 2²⁰, so that products of several fit 64 bits.
    pub fn size(&self, key: &str, low: usize) -> Option<usize> {
        self.whole(key, &format!("a whole number from {low} to {}", 1 << 20), low, 1 << 20)
    }

    fn whole(&self, key: &str, what: &str, low: usize, high: usize) -> Option<usize> {
        let whole = |v: &Value| v.as_integer().and_then(|n| usize::try_from(n).ok());
        self.read(key, what, |v| whole(v).filter(|n| (low..=high).contains(n)))
    }

    /// A string.
    pub fn text(&self, key: &str) -> Option<String> {
        self.read(key, "a text in quotes", |v| v.as_str().map(String::from))
    }

    /// One of `names`.
    pub fn choice<T: Copy>(&self, key: &str, names: &[(&str, T)]) -> Option<T> {
        let text = self.value(key)?.as_str();
        let found = text.and_then(|text| names.iter().find(|(name, _)| *name == text)).map(|(_, value)| *value);
        if found.is_none() {
            let list: Vec<String> = names.iter().map(|(name, _)| format!("\"{name}\"")).collect();
            let error = self.wrong(key, format!("expected one of {}", list.join(", ")));
            self.report(match text.and_then(|text| nearest(text, names.iter().map(|(name, _)| *name))) {
                Some(near) => error.hint(format!("did you mean \"{near}\"?")),
                None => error,
            });
        }
        found
    }

    /// One text or a list of texts.
    pub fn texts(&self, key: &str) -> Option<Vec<String>> {
        self.read(key, "a text or a list of texts", |v| match v {
            Value::String(one) => Some(vec![one.clone()]),
            Value::Array(list) => list.iter().map(|v| v.as_str().map(String::from)).collect(),
            _ => None,
        })
    }

    /// A whole number or a list of them.
    pub fn counts(&self, key: &str) -> Option<Vec<usize>> {
        let one = |v: &Value| v.as_integer().and_then(|n| usize::try_from(n).ok());
        self.read(key, "a whole number or a list of them", |v| match v {
            Value::Array(list) => list.iter().map(one).collect(),
            v => one(v).map(|n| vec![n]),
        })
    }

    /// A table of values of any kind.
    pub fn table(&self, key: &str) -> Option<Table> {
        self.read(key, "a table: { name = value }", |v| v.as_table().cloned())
    }

    /// A table of numbers, in the order in which it was written.
    pub fn numbers(&self, key: &str) -> Option<Vec<(String, f64)>> {
        self.read(key, "a table of numbers", |v| {
            v.as_table()?.iter().map(|(key, v)| Some((key.clone(), number(v)?))).collect()
        })
    }
}

/// The first name of `value` in a table of names.
pub(super) fn name<T: PartialEq>(names: &[(&'static str, T)], value: T) -> Value {
    let found = names.iter().find(|(_, v)| *v == value);
    Value::from(found.map_or("", |(name, _)| name))
}

fn is_section(name: &str) -> bool {
    Section::ALL.iter().any(|s| s.name() == name)
}

fn unknown(written: &str, value: &Value, place: &str) -> Error {
    let is_table = matches!(value, Value::Table(_));
    let kind = if is_table { "section or key" } else { "key" };
    let error = Error::usage(format!("{place}: unknown {kind} `{}`", shortened(written, 100)));
    let section = nearest(written, Section::ALL.iter().map(|s| s.name()).filter(|_| is_table));
    match section.or_else(|| suggestion(written)) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error.hint(
            "keys are named as in TrainingArguments, LoraConfig and BitsAndBytesConfig; `halfbyte keys` lists them",
        ),
    }
}

fn number(value: &Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|n| n as f64))
}

/// Parses a TOML value; None if `text` is not TOML.
fn parsed(text: &str) -> Option<Value> {
    toml::from_str::<Table>(&format!("value = {text}")).ok().and_then(|mut table| table.remove("value"))
}

/// Whether `value` equals the TOML value `text`; 0 and 0.0 are equal.
fn same(value: &Value, text: &str) -> bool {
    parsed(text).is_some_and(|wanted| wanted == *value || number(&wanted).is_some_and(|n| number(value) == Some(n)))
}

/// `value` as TOML on one line, shortened.
fn brief(value: &Value) -> String {
    let text = value.to_string().replace('\n', " ");
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
