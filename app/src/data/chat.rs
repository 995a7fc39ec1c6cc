//! Reads conversations in the layouts of common data sets and formats them as marked text.

use std::ops::Range;

use serde_json::{Map, Value, json};

use crate::config::data::TrainOn;
use crate::data::markup::{APART, GIVEN, Literals, SPARE, TRAINED, escape, escape_value, token};
use crate::data::table::{Record, kind};
use crate::data::template::{Template, Undefined};
use halfbyte_core::error::{Error, Result};

/// One message: an object with `role`, `content` and any other fields of the data set, which templates may use.
pub type ChatMessage = Map<String, Value>;

/// The messages of a record.
#[derive(Clone, PartialEq, Debug)]
pub struct Conversation {
    /// All messages in order.
    pub messages: Vec<ChatMessage>,
    /// The number of messages that form the prompt, if the record separates it from the completion (TRL's `prompt` and
    /// `completion` as lists of messages).
    pub prompt: Option<usize>,
}

/// The conversation of a record: the column `messages` ({role, content}) or `conversations` ({from, value}), TRL's
/// lists `prompt` and `completion`, or a question and its answer in `instruction`, `input`, `output` or in `prompt` and
/// `completion` or `response`. `column` is the name of the list of messages if it has another one. As in LLaMA-Factory,
/// a column `system` holds the system message, and `history` the earlier turns.
pub fn conversation(record: &Record, column: Option<&str>) -> Result<Conversation> {
    let list = match column {
        Some(column) => Some((column, record.get(column)?)),
        None => ["messages", "conversations"].iter().find_map(|&name| record.0.get(name).map(|list| (name, list))),
    };
    let mut conversation = match list {
        Some((name, list)) => Conversation { messages: message_list(name, list)?, prompt: None },
        None if is_list(record, "prompt") && record.0.contains_key("completion") => {
            let mut messages = message_list("prompt", record.get("prompt")?)?;
            let prompt = Some(messages.len());
            messages.extend(message_list("completion", record.get("completion")?)?);
            Conversation { messages, prompt }
        }
        None => Conversation { messages: question_and_answer(record)?, prompt: None },
    };
    let starts_with_system = conversation.messages.first().is_some_and(|message| message["role"] == "system");
    if let Some(system) = filled(record, "system")?
        && !starts_with_system
    {
        conversation.messages.insert(0, new_message("system", system));
        conversation.prompt = conversation.prompt.map(|n| n + 1);
    }
    Ok(conversation)
}

/// Whether the record has a list in this column.
pub fn is_list(record: &Record, column: &str) -> bool {
    record.0.get(column).is_some_and(Value::is_array)
}

/// The text of a column that may be missing, null or empty.
fn filled<'a>(record: &'a Record, column: &str) -> Result<Option<&'a str>> {
    match record.0.get(column) {
        None | Some(Value::Null) => Ok(None),
        Some(_) => Ok(Some(record.text(column)?).filter(|text| !text.is_empty())),
    }
}

fn new_message(role: &str, content: &str) -> ChatMessage {
    Map::from_iter([("role".to_string(), role.into()), ("content".to_string(), escape(content).into())])
}

fn message_list(name: &str, list: &Value) -> Result<Vec<ChatMessage>> {
    let list = list
        .as_array()
        .ok_or_else(|| Error::input(format!("column `{name}` holds {}, not a list of messages", kind(list))))?;
    let numbered = list.iter().enumerate();
    numbered.map(|(i, m)| message(m).map_err(|e| e.at(format!("`{name}[{i}]`")))).collect()
}

fn message(value: &Value) -> Result<ChatMessage> {
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
    message.insert("content".into(), content.into());
    message.values_mut().for_each(escape_value);
    Ok(message)
}

fn question_and_answer(record: &Record) -> Result<Vec<ChatMessage>> {
    let has = |column: &str| record.0.contains_key(column);
    let mut messages = Vec::new();
    let (question, answer) = if has("instruction") {
        for turn in turns(record)? {
            messages.extend([new_message("user", turn[0]), new_message("assistant", turn[1])]);
        }
        let instruction = record.text("instruction")?;
        let question = match filled(record, "input")? {
            Some(input) => format!("{instruction}\n\n{input}"),
            None => instruction.to_string(),
        };
        (question, record.text("output")?)
    } else if has("prompt") {
        (record.text("prompt")?.to_string(), record.text(if has("response") { "response" } else { "completion" })?)
    } else {
        let columns: Vec<&str> = record.columns().collect();
        return Err(Error::input("the record has no conversation: no column `messages` or `conversations`").hint(
            format!(
                "the columns are {}; name the list of messages with text_column, or write a template",
                columns.join(", ")
            ),
        ));
    };
    messages.extend([new_message("user", &question), new_message("assistant", answer)]);
    Ok(messages)
}

/// LLaMA-Factory's `history`: earlier questions with their answers.
fn turns(record: &Record) -> Result<Vec<[&str; 2]>> {
    let history = match record.0.get("history") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(history) => history,
    };
    history
        .as_array()
        .and_then(|list| list.iter().map(pair).collect::<Option<Vec<_>>>())
        .ok_or_else(|| Error::input("column `history` is not a list of [question, answer] pairs"))
}

fn pair(turn: &Value) -> Option<[&str; 2]> {
    let both = turn.as_array().filter(|both| both.len() == 2)?;
    Some([both[0].as_str()?, both[1].as_str()?])
}

/// How a conversation is formatted.
pub enum ChatFormat {
    /// A chat template: the model's own or the recipe's.
    Template(Box<ChatTemplate>),
    /// `[INST]` as text, each turn encoded separately (Mistral-7B v0.1 and v0.2, Mixtral-8x7B).
    MistralV1,
    /// `[INST]` as a token (Mistral-7B v0.3 and later).
    MistralV3,
}

/// A compiled `chat_template`.
pub struct ChatTemplate {
    template: Template,
    /// Whether the template marks the answers itself, with `{% generation %}`.
    marked: bool,
    /// Whether the text contains the current date.
    dated: bool,
    /// The variables of the template besides the messages.
    variables: Map<String, Value>,
}

impl ChatTemplate {
    /// Compiles `source`; `literals` are the tokenizer's special tokens.
    pub fn new(source: &str, literals: &Literals, bos: Option<u32>, eos: Option<u32>) -> Result<ChatTemplate> {
        let template = Template::new(source, Undefined::Empty, literals, None).map_err(|e| e.at("chat_template"))?;
        let mark = |id: Option<u32>| id.map(token).unwrap_or_default();
        let mut variables = Map::new();
        variables.insert("bos_token".into(), mark(bos).into());
        variables.insert("eos_token".into(), mark(eos).into());
        // transformers passes these even if there are none.
        variables.insert("tools".into(), Value::Null);
        variables.insert("documents".into(), Value::Null);
        let (marked, dated) = (source.contains("endgeneration"), source.contains("strftime_now"));
        Ok(ChatTemplate { template, marked, dated, variables })
    }

    /// Sets further variables, as `apply_chat_template(…, **variables)` does.
    pub fn with(mut self, variables: &Map<String, Value>) -> ChatTemplate {
        self.variables.extend(variables.clone());
        self
    }

    /// Whether the text depends on the current date.
    pub fn is_dated(&self) -> bool {
        self.dated && !self.variables.contains_key("date_string")
    }

    /// The marked text of a conversation. With `add_generation_prompt`, it ends where the next answer would begin.
    pub fn render(&self, messages: &[ChatMessage], add_generation_prompt: bool) -> Result<String> {
        let mut context = self.variables.clone();
        context.insert("messages".into(), json!(messages));
        context.insert("add_generation_prompt".into(), add_generation_prompt.into());
        self.template.render(context).map_err(|e| e.at("chat_template"))
    }

    /// The text with the answers marked. The mask of an answer begins exactly where generation begins: after the prompt
    /// of its turn. It ends after what the template writes behind the content of a last answer.
    fn marked(&self, messages: &[ChatMessage]) -> Result<String> {
        let whole = self.render(messages, false)?;
        if self.marked {
            return Ok(whole);
        }
        let mut out = String::with_capacity(whole.len() + 16);
        let mut done = 0;
        for turn in (0..messages.len()).filter(|&i| messages[i]["role"] == "assistant") {
            let answer = self.answer(&whole, messages, turn)?;
            let Some(answer) = answer.filter(|answer| done <= answer.start && answer.start <= answer.end) else {
                return Err(Error::usage(format!(
                    "chat_template: message {} renders differently when other messages follow, so its answer cannot be located",
                    turn + 1
                ))
                .hint("put {% generation %}…{% endgeneration %} around the answers in chat_template, or set train_on = \"all\""));
            };
            out += &whole[done..answer.start];
            out.push(TRAINED);
            out += &whole[answer.clone()];
            out.push(GIVEN);
            done = answer.end;
        }
        Ok(out + &whole[done..])
    }

    /// The place of the answer `turn` in `whole`, the text of all messages. Some templates write an answer differently
    /// when other messages follow (Qwen3 leaves out its thoughts), so its end is found from behind, with a placeholder
    /// as the answer: what follows it in the whole text begins with what follows it when it is the last message.
    fn answer(&self, whole: &str, messages: &[ChatMessage], turn: usize) -> Result<Option<Range<usize>>> {
        let mut replaced = messages.to_vec();
        replaced[turn].insert("content".into(), SPARE.to_string().into());
        let (among, last) = (self.render(&replaced, false)?, self.render(&replaced[..=turn], false)?);
        let (Some((before, _)), Some((_, following))) = (among.split_once(SPARE), among.rsplit_once(SPARE)) else {
            return Ok(None);
        };
        let prompt = self.render(&messages[..turn], true)?;
        // The prompt of a new answer may have more than that of an earlier one, such as an empty thought.
        let start = [prompt.as_str(), before].into_iter().find(|text| whole.starts_with(text)).map(str::len);
        let ending = last.rsplit_once(SPARE).map(|(_, ending)| ending);
        let ending = ending.filter(|ending| whole.ends_with(following) && following.starts_with(ending));
        let end = ending.and_then(|ending| Some(whole.len().checked_sub(following.len())? + ending.len()));
        Ok(start.zip(end).map(|(start, end)| start..end))
    }

    /// The text with everything after the prompt marked as trained.
    fn marked_completion(&self, messages: &[ChatMessage], prompt: usize) -> Result<String> {
        let plain = |text: String| text.replace([TRAINED, GIVEN], "");
        let before = plain(self.render(&messages[..prompt], true)?);
        let whole = plain(self.render(messages, false)?);
        match whole.strip_prefix(&before) {
            Some(completion) => Ok(format!("{before}{TRAINED}{completion}")),
            None => Err(Error::usage(
                "chat_template: the prompt renders differently when a completion follows, so the completion cannot be located",
            )
            .hint("set train_on = \"assistant\" or \"all\"")),
        }
    }
}

impl ChatFormat {
    /// The marked text of a conversation. Answers are marked unless all tokens are trained.
    pub fn text(&self, conversation: &Conversation, literals: &Literals, train_on: TrainOn) -> Result<String> {
        let messages = &conversation.messages;
        match (self, train_on, conversation.prompt) {
            (ChatFormat::Template(template), TrainOn::All, _) => template.render(messages, false),
            (ChatFormat::Template(template), TrainOn::Completion, Some(prompt)) => {
                template.marked_completion(messages, prompt)
            }
            (ChatFormat::Template(template), ..) => template.marked(messages),
            (ChatFormat::MistralV1, ..) => mistral(messages, literals, false),
            (ChatFormat::MistralV3, ..) => mistral(messages, literals, true),
        }
    }
}

/// Formats a conversation like mistral-common: the system message is prepended to the first user message (v1) or the
/// last (v3), with an empty line between them; each content is encoded separately.
fn mistral(messages: &[ChatMessage], literals: &Literals, v3: bool) -> Result<String> {
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
            // Since v2, mistral-common strips trailing spaces of answers.
            "assistant" if v3 => {
                let content = content.trim_end_matches(' ');
                out += &format!("{APART}{TRAINED}{content}{}{GIVEN}", special("</s>")?);
            }
            "assistant" => out += &format!("{APART}{TRAINED}{content}{}{GIVEN}", special("</s>")?),
            "system" => {}
            other => {
                return Err(Error::input(format!("message {}: this format has no role `{other}`", turn + 1)).hint(
                    "the Mistral formats have the roles system, user and assistant; a chat_template may support others",
                ));
            }
        }
    }
    Ok(out)
}
