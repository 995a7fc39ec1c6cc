//! Conversations: from the shapes in which data sets keep them to marked text.

use serde_json::{Map, Value, json};

use crate::data::marks::{APART, GIVEN, Literals, TRAINED, escape, token};
use crate::data::table::{Record, kind};
use crate::data::template::{Template, Undefined};
use halfbyte_core::error::{Error, Result};

/// One message; an object with `role`, `content` and whatever else the data set gives (templates may use it).
pub type Message = Map<String, Value>;

/// The conversation of a record: the column `messages` ({role, content}) or `conversations` ({from, value}), or a
/// question and its answer in `instruction`, `input`, `output` or in `prompt` and `completion` or `response`.
/// `column` names the list of messages where it has another name.
pub fn messages(record: &Record, column: Option<&str>) -> Result<Vec<Message>> {
    let list = match column {
        Some(column) => Some((column, record.get(column)?)),
        None => ["messages", "conversations"].iter().find_map(|&name| record.0.get(name).map(|list| (name, list))),
    };
    let Some((name, list)) = list else {
        return question_and_answer(record);
    };
    let list = list
        .as_array()
        .ok_or_else(|| Error::input(format!("column `{name}` holds {}, not a list of messages", kind(list))))?;
    let numbered = list.iter().enumerate();
    numbered.map(|(i, m)| message(m).map_err(|e| e.at(format!("`{name}[{i}]`")))).collect()
}

fn message(value: &Value) -> Result<Message> {
    let object =
        value.as_object().ok_or_else(|| Error::input(format!("a message is an object, not {}", kind(value))))?;
    let field = |names: [&str; 2]| {
        let found = names.iter().find_map(|name| object.get(*name).map(|value| (name, value)));
        let (name, value) =
            found.ok_or_else(|| Error::input(format!("a message has no `{}` (or `{}`)", names[0], names[1])))?;
        value.as_str().ok_or_else(|| Error::input(format!("`{name}` holds {}, not text", kind(value))))
    };
    let role = match field(["role", "from"])? {
        "human" => "user",
        "gpt" | "bot" | "model" => "assistant",
        other => other,
    };
    let content = field(["content", "value"])?;
    let mut message = object.clone();
    message.remove("from");
    message.remove("value");
    message.insert("role".into(), role.into());
    message.insert("content".into(), escape(content).into());
    Ok(message)
}

fn question_and_answer(record: &Record) -> Result<Vec<Message>> {
    let has = |column: &str| record.0.contains_key(column);
    let (question, answer) = if has("instruction") {
        let instruction = record.text("instruction")?;
        let input = if has("input") { record.text("input")? } else { "" };
        let question = if input.is_empty() { instruction.to_string() } else { format!("{instruction}\n\n{input}") };
        (question, record.text("output")?)
    } else if has("prompt") {
        (record.text("prompt")?.to_string(), record.text(if has("response") { "response" } else { "completion" })?)
    } else {
        let columns: Vec<&str> = record.columns().collect();
        return Err(Error::input("there is no conversation: no column `messages` or `conversations`").hint(format!(
            "the columns are {}; name the list of messages with text_column, or write a template",
            columns.join(", ")
        )));
    };
    let message = |role: &str, content: &str| json!({"role": role, "content": escape(content)}).as_object().cloned();
    Ok([message("user", &question), message("assistant", answer)].into_iter().flatten().collect())
}

/// How a conversation becomes text.
pub enum Layout {
    /// The model's own `chat_template`.
    Template(Box<ChatTemplate>),
    /// `[INST]` as text, each turn encoded by itself (Mistral-7B v0.1 and v0.2, Mixtral-8x7B).
    MistralV1,
    /// `[INST]` as a token (Mistral-7B v0.3 and later).
    MistralV3,
}

/// A compiled `chat_template`.
pub struct ChatTemplate {
    template: Template,
    /// Whether the template itself says what the assistant says.
    marked: bool,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    /// Compiles `source`; `literals` are the tokenizer's special tokens.
    pub fn new(source: &str, literals: &Literals, bos: Option<u32>, eos: Option<u32>) -> Result<ChatTemplate> {
        let template = Template::new(source, Undefined::Empty, literals, None).map_err(|e| e.at("chat_template"))?;
        let mark = |id: Option<u32>| id.map(token).unwrap_or_default();
        Ok(ChatTemplate { template, marked: source.contains("endgeneration"), bos: mark(bos), eos: mark(eos) })
    }

    fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let context = json!({
            "messages": messages,
            "add_generation_prompt": add_generation_prompt,
            "bos_token": self.bos,
            "eos_token": self.eos,
        });
        self.template.render(context).map_err(|e| e.at("chat_template"))
    }

    /// What the assistant says is what the template adds to the prompt of that turn; so a mask begins exactly where
    /// generation would.
    fn marked(&self, messages: &[Message]) -> Result<String> {
        let whole = self.render(messages, false)?;
        if self.marked {
            return Ok(whole);
        }
        let mut out = String::with_capacity(whole.len() + 16);
        let mut done = 0;
        for turn in (0..messages.len()).filter(|&i| messages[i]["role"] == "assistant") {
            let prompt = self.render(&messages[..turn], true)?;
            let answered = self.render(&messages[..=turn], false)?;
            if !whole.starts_with(&answered) || !answered.starts_with(&prompt) || prompt.len() < done {
                return Err(Error::usage(format!(
                    "chat_template: message {} is written differently when others follow, so its answer cannot be told apart",
                    turn + 1
                ))
                .hint("put {% generation %}…{% endgeneration %} around the answers in chat_template, or set train_on = \"all\""));
            }
            out += &whole[done..prompt.len()];
            out.push(TRAINED);
            out += &whole[prompt.len()..answered.len()];
            out.push(GIVEN);
            done = answered.len();
        }
        Ok(out + &whole[done..])
    }
}

impl Layout {
    /// The marked text of a conversation. `answers`: whether what the assistant says must be marked.
    pub fn text(&self, messages: &[Message], literals: &Literals, answers: bool) -> Result<String> {
        match self {
            Layout::Template(template) if answers => template.marked(messages),
            Layout::Template(template) => template.render(messages, false),
            Layout::MistralV1 => mistral(messages, literals, false),
            Layout::MistralV3 => mistral(messages, literals, true),
        }
    }
}

/// As mistral-common writes it: the system message joins the first user message (v1) or the last (v3), with an empty
/// line between; every content is encoded by itself.
fn mistral(messages: &[Message], literals: &Literals, v3: bool) -> Result<String> {
    let special = |literal: &str| {
        literals.id(literal).map(token).ok_or_else(|| {
            Error::usage(format!("format: the tokenizer has no token {literal}"))
                .hint("mistral-v3 needs a tokenizer with [INST] as a token; use mistral-v1 with the others")
        })
    };
    let of = |role: &'static str| messages.iter().enumerate().filter(move |(_, m)| m["role"] == role);
    let system: Vec<&str> = of("system").filter_map(|(_, m)| m["content"].as_str()).collect();
    let system_turn = if v3 { of("user").next_back() } else { of("user").next() }.map(|(turn, _)| turn);
    let mut out = special("<s>")?;
    for (turn, message) in messages.iter().enumerate() {
        let content = message["content"].as_str().unwrap_or_default();
        match message["role"].as_str().unwrap_or_default() {
            "user" => {
                let joined = match system_turn == Some(turn) && !system.is_empty() {
                    true => format!("{}\n\n{content}", system.join("\n\n")),
                    false => content.to_string(),
                };
                if v3 {
                    out += &format!("{}{APART}{joined}{}", special("[INST]")?, special("[/INST]")?);
                } else {
                    out += &format!("{APART}[INST] {joined} [/INST]");
                }
            }
            // mistral-common takes spaces off the end of answers since v2.
            "assistant" if v3 => {
                let content = content.trim_end_matches(' ');
                out += &format!("{APART}{TRAINED}{content}{}{GIVEN}", special("</s>")?);
            }
            "assistant" => out += &format!("{APART}{TRAINED}{content}{}{GIVEN}", special("</s>")?),
            "system" => {}
            other => {
                return Err(Error::input(format!("message {}: the role `{other}` has no place here", turn + 1))
                    .hint("the Mistral formats know system, user and assistant; chat_template may know more"));
            }
        }
    }
    Ok(out)
}
