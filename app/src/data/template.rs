//! Jinja templates with the settings of transformers' chat templates: `trim_blocks` and `lstrip_blocks`, Python's
//! string methods, `raise_exception`, `tojson`, loop controls, and `{% generation %}` around trained text.

use std::borrow::Cow;
use std::io;
use std::ops::Range;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value, ValueKind};
use minijinja::{Environment, ErrorKind, UndefinedBehavior};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter};

use crate::data::markup::{GIVEN, Literals, RoleMarkers, TRAINED};
use crate::data::template_limits::check_source;
use crate::limits::budget::with_budget;
use crate::suggest::nearest;
use crate::track::clock::Moment;
use halfbyte_core::error::{Error, Result};

/// A compiled template.
pub struct Template {
    environment: Environment<'static>,
    /// Maps positions to the source text of the user.
    literals: Literals,
}

/// The name of the only template in an environment.
const NAME: &str = "template";

/// The functions that transformers gives to chat templates.
const FUNCTIONS: [&str; 2] = ["raise_exception", "strftime_now"];

/// Instructions that one rendering may execute: about a second. A chat template takes about a hundred for each message.
const FUEL: u64 = 10_000_000;
/// Bytes that compiling or one rendering may allocate.
const MEMORY: usize = 256 << 20;
/// Bytes of the stack on which a template is compiled. It is reserved, not used.
const STACK: usize = 256 << 20;
/// How a template treats undefined names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Undefined {
    /// Printing one is an error, because the record lacks that column.
    Refused,
    /// They print as empty text, as chat templates expect.
    Empty,
}

impl Template {
    /// Compiles `source`. In its own text (never in a record's), `literals` become tokens, and `roles` determine which
    /// text is trained.
    pub fn new(
        source: &str,
        undefined: Undefined,
        literals: &Literals,
        roles: Option<&RoleMarkers>,
    ) -> Result<Template> {
        let mut environment = Environment::new();
        // Without this, errors have no name and no column in release builds.
        environment.set_debug(true);
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.expect("the delimiters are the usual ones"));
        environment.set_undefined_behavior(match undefined {
            Undefined::Refused => UndefinedBehavior::SemiStrict,
            Undefined::Empty => UndefinedBehavior::Lenient,
        });
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", |format: String| -> Result<String, minijinja::Error> {
            Moment::now().strftime(&format).ok_or_else(|| {
                minijinja::Error::new(ErrorKind::InvalidOperation, format!("strftime_now cannot write {format:?}"))
            })
        });
        environment.add_filter("trained_on", |text: String| format!("{TRAINED}{text}{GIVEN}"));
        environment.add_filter("tojson", to_json);
        // Python and JSON print these differently.
        environment.set_formatter(|out, state, value| match value.kind() {
            ValueKind::None => out.write_str("None").map_err(minijinja::Error::from),
            ValueKind::Bool => {
                out.write_str(if value.is_true() { "True" } else { "False" }).map_err(minijinja::Error::from)
            }
            _ => minijinja::escape_formatter(out, state, value),
        });
        environment.set_fuel(Some(FUEL));
        check_source(source)?;
        let marked = match roles {
            Some(roles) => Cow::Owned(roles.mark(source)),
            None => Cow::Borrowed(source),
        };
        let marked = literals.mark(&generation_as_filter(&marked));
        let template = Template { environment, literals: literals.clone() };
        template.with(marked)
    }

    fn with(mut self, source: String) -> Result<Template> {
        let environment = &mut self.environment;
        // Compiling recurses once per nested operator.
        let compiled = std::thread::scope(|scope| {
            let compile = || with_budget(MEMORY, || environment.add_template_owned(NAME, source));
            let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, compile);
            let thread = thread.map_err(|e| Error::system(format!("cannot start a thread: {e}")))?;
            thread.join().map_err(|_| Error::input("the template cannot be compiled"))
        })?;
        match compiled {
            Ok(()) => Ok(self),
            Err(error) => Err(self.explain(&error)),
        }
    }

    /// Renders with the variables of `context`. The result is marked text.
    pub fn render(&self, context: impl Serialize) -> Result<String> {
        let template = self.environment.get_template(NAME).map_err(|e| self.explain(&e))?;
        with_budget(MEMORY, || template.render(Serde(context))).map_err(|e| self.explain(&e))
    }

    /// [`Template::render`] for a record. The error for an undefined name lists the columns.
    pub fn render_record(&self, record: &serde_json::Map<String, serde_json::Value>) -> Result<String> {
        let template = self.environment.get_template(NAME).map_err(|e| self.explain(&e))?;
        with_budget(MEMORY, || template.render(Serde(record))).map_err(|error| {
            let explained = self.explain(&error);
            if error.kind() != ErrorKind::UndefinedError {
                return explained;
            }
            let columns = || record.keys().map(String::as_str);
            let mut unknown: Vec<String> = template.undeclared_variables(false).into_iter().collect();
            unknown.retain(|name| !record.contains_key(name) && !FUNCTIONS.contains(&name.as_str()));
            unknown.sort();
            match unknown.iter().find_map(|name| nearest(name, columns())) {
                Some(near) => explained.hint(format!("did you mean `{near}`?")),
                None => explained.hint(format!("the columns are {}", columns().collect::<Vec<_>>().join(", "))),
            }
        })
    }

    /// The columns that the template reads, in the order in which it names them.
    pub fn columns(&self) -> Vec<String> {
        let Ok(template) = self.environment.get_template(NAME) else { return Vec::new() };
        let source = template.source();
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        let first = |name: &str| {
            let found = source.match_indices(name).map(|(at, _)| at);
            let mut whole =
                found.filter(|at| !source[..*at].ends_with(is_part) && !source[at + name.len()..].starts_with(is_part));
            // The word may also occur in text outside of expressions.
            whole.find(|at| source[..*at].rfind('{') > source[..*at].rfind('}'))
        };
        let mut columns: Vec<String> = template.undeclared_variables(false).into_iter().collect();
        columns.retain(|name| !FUNCTIONS.contains(&name.as_str()));
        columns.sort_by_key(|name| first(name));
        columns
    }

    /// An error with the line and column of the template as the user wrote it.
    fn explain(&self, error: &minijinja::Error) -> Error {
        let what = match error.detail() {
            Some(detail) => detail.to_string(),
            None => error.kind().to_string(),
        };
        let mut cause = String::new();
        if let Some(source) = std::error::Error::source(error) {
            cause = format!(" ({source})");
        }
        Error::usage(format!("template{}: {what}{cause}", self.position(error)))
            .hint("a template is Jinja, with Python's string methods: {{ column.strip() }}")
    }

    fn position(&self, error: &minijinja::Error) -> String {
        let source = error.template_source();
        if let (Some(Range { start, .. }), Some(source)) = (error.range(), source)
            && let Some(before) = source.get(..start)
        {
            let before = self.literals.unmark(before);
            let line = 1 + before.matches('\n').count();
            let column = 1 + before.rsplit('\n').next().unwrap_or_default().chars().count();
            return format!(" line {line} column {column}");
        }
        error.line().map(|line| format!(" line {line}")).unwrap_or_default()
    }
}

/// The filter `tojson` of transformers' chat templates: `json.dumps(value, ensure_ascii=False, indent=indent)`.
fn to_json(value: Value, options: Kwargs) -> Result<String, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    options.assert_all_used()?;
    let mut out = Vec::new();
    let written = match indent {
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, SpacedJson)),
        Some(width) => {
            let indent = " ".repeat(width.min(64));
            let pretty = PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, pretty))
        }
    };
    written.map_err(|e| minijinja::Error::new(ErrorKind::BadSerialization, e.to_string()))?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// Python's way to write JSON on one line: a space after each comma and colon.
struct SpacedJson;

impl Formatter for SpacedJson {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }
    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.begin_array_value(writer, first)
    }
    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

/// Rewrites `{% generation %}`, which transformers uses around answers, to a filter block that marks them.
fn generation_as_filter(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        // From the third character on: `{%}` begins a tag, and its `%}` does not end it.
        let Some(end) = tag[2..].find("%}").map(|at| at + 2) else { break };
        let (tag, after) = tag.split_at(end + 2);
        let renamed = match tag[2..end].trim_matches(['-', '+']).trim() {
            "generation" => tag.replace("generation", "filter trained_on"),
            "endgeneration" => tag.replace("endgeneration", "endfilter"),
            _ => tag.to_string(),
        };
        out += before;
        out += &renamed;
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::markup::token;
    use serde_json::json;

    fn template(source: &str) -> Result<Template> {
        let literals = Literals::new(vec![("<s>".into(), 1), ("</s>".into(), 2)]);
        Template::new(source, Undefined::Refused, &literals, None)
    }

    fn rendered(source: &str, record: serde_json::Value) -> Result<String> {
        template(source)?.render_record(record.as_object().unwrap())
    }

    #[test]
    fn a_namespace_cannot_contain_itself() {
        let begun = "{% set ns = namespace(x=1) %}";
        for rest in [
            "{% set ns.x = ns %}{{ ns }}",
            "{% set ns.x = [ns] %}{{ ns.x }}",
            "{% set other = ns %}{% set other.x = ns.x %}",
            "{% set other = [namespace()] %}",
        ] {
            let error = template(&format!("{begun}{rest}")).err().expect(rest).to_string();
            assert!(error.contains("namespace"), "{error}");
        }
        let used =
            "{% set ns.x = ns.x ~ a['ns'] ~ a.ns ~ ' ns ' %}{% if ns.x and ns is defined %}{{ ns['x'] }}{% endif %} ns";
        assert!(template(&format!("{begun}{used}")).is_ok());
    }

    #[test]
    fn a_tag_that_is_not_one_is_an_error() {
        for source in ["{%}", "{%}{% endif %}", "{{ a }}{%}"] {
            assert!(template(source).is_err(), "{source}");
        }
    }

    #[test]
    fn templates_behave_as_in_python() {
        for (source, want) in [
            ("{{ a.replace('x', 'y').strip() }}|{{ a.split()[0] }}", "yy|xx"),
            ("{{ a.startswith(' ') }} {{ none }} {{ a.upper().lower().title() }}", "True None  Xx "),
            ("{% if n > 1 %}\nbig\n{% endif %}\n{{ n }}", "big\n3"),
            ("  {% for w in words %}\n- {{ w }}\n  {% endfor %}", "- p\n- q\n"),
            ("{{ words|tojson }} {{ words[1:] | length }} {{ 'p' in words }}", "[\"p\", \"q\"] 1 True"),
            ("{% for w in words %}{% if w == 'q' %}{% break %}{% endif %}{{ w }}{% endfor %}", "p"),
            ("{% set ns = namespace(k=0) %}{% for w in words %}{% set ns.k = ns.k + 1 %}{% endfor %}{{ ns.k }}", "2"),
            ("{{ missing or 'else' }}{% if missing is defined %}!{% endif %}{{ f }}", "else1.5"),
            ("{{ {'k': ['<é>', 1]} | tojson }}", "{\"k\": [\"<é>\", 1]}"),
            ("{{ {'k': [1]} | tojson(indent=2) }}", "{\n  \"k\": [\n    1\n  ]\n}"),
        ] {
            let record = json!({"a": " xx ", "none": null, "n": 3, "words": ["p", "q"], "f": 1.5});
            assert_eq!(rendered(source, record).unwrap(), want, "{source}");
        }
    }

    #[test]
    fn literals_are_tokens_in_the_template_and_text_in_the_record() {
        let text = rendered("<s>{{ '<s>' + q }}</s>", json!({"q": "a</s>"})).unwrap();
        assert_eq!(text, format!("{}{}a</s>{}", token(1), token(1), token(2)));
    }

    #[test]
    fn generation_blocks_mark_what_is_trained_on() {
        let text = rendered("Q{%- generation -%} {{ q }}{% endgeneration %}!", json!({"q": "a"})).unwrap();
        assert_eq!(text, format!("Q{TRAINED}a{GIVEN}!"));
    }

    #[test]
    fn errors_name_the_place_in_the_template_as_written() {
        let wrong = |source: &str| rendered(source, json!({"input": "x", "n": 5})).unwrap_err().to_string();
        assert_eq!(
            wrong("<s>a\n</s></s>{{ input }}{{ imput }}"),
            "template line 2 column 23: `imput` is undefined\n  hint: did you mean `input`?"
        );
        assert!(wrong("{{ answer }}").ends_with("hint: the columns are input, n"));
        assert!(wrong("<s>{% if input %}").starts_with("template line 1"), "{}", wrong("<s>{% if input %}"));
        assert!(wrong("<s>\n{{ input | uper }}").starts_with("template line 2 column"));
        assert!(wrong("{{ raise_exception('roles must alternate') }}").contains("roles must alternate"));
        assert!(wrong("{{ n.strip() }}").contains("strip"));
    }
}
