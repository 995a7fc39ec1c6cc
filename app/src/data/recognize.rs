//! Chooses the layout of records: the one that the recipe names, or the one that the columns imply.

use crate::config::chat_templates;
use crate::config::data::{DataConfig, TextFormat, TrainOn};
use crate::data::chat::{ChatFormat, ChatTemplate, is_list};
use crate::data::document::Encoder;
use crate::data::format::{RecordFormatter, RecordLayout};
use crate::data::markup::RoleMarkers;
use crate::data::table::{Record, Table};
use crate::data::tokenizer_config::TokenizerConfig;
use halfbyte_core::error::{Error, Result};
use serde_json::json;

/// The formatter for the records. `first` reads the first record; it is called only if the recipe sets no format, so
/// that the columns decide. Errors if neither determines the layout.
pub fn formatter(
    data: &DataConfig,
    first: impl Fn() -> Result<Record>,
    encoder: &Encoder,
    config: &TokenizerConfig,
) -> Result<RecordFormatter> {
    let literals = encoder.literals().clone();
    let roles = data.role_markers.clone().map(|[user, assistant]| RoleMarkers { user, assistant });
    let special = data.special_in_template;
    let train_on = data.train_on.unwrap_or(TrainOn::All);
    if let Some(template) = &data.template {
        return RecordFormatter::template(template, roles.as_ref(), literals, special, train_on);
    }
    let column = || data.text_column.clone().unwrap_or("text".into());
    let chat = |format| RecordLayout::Chat { column: data.text_column.clone(), format };
    let (layout, by_default) = match text_format(data, &first)? {
        TextFormat::Text => return RecordFormatter::column(&column(), roles, literals, special, train_on),
        TextFormat::Template => return Err(Error::usage("format = \"template\" needs `template`")),
        TextFormat::Alpaca => (RecordLayout::Alpaca, TrainOn::All),
        TextFormat::Dialog => (RecordLayout::Dialog { name: column() }, TrainOn::All),
        TextFormat::MistralInstruct => (chat(ChatFormat::MistralV1), TrainOn::All),
        TextFormat::MistralInstructV3 => (chat(ChatFormat::MistralV3), TrainOn::All),
        TextFormat::InputOutput => (RecordLayout::Segments, TrainOn::Assistant),
        TextFormat::Messages | TextFormat::ShareGpt => (chat(template(data, encoder, config)?), TrainOn::All),
        // As in TRL: the loss of a record with a completion covers the completion only.
        TextFormat::PromptCompletion if is_list(&first()?, "prompt") => {
            (chat(template(data, encoder, config)?), TrainOn::Completion)
        }
        TextFormat::PromptCompletion => (RecordLayout::PromptCompletion, TrainOn::Completion),
    };
    Ok(RecordFormatter { layout, literals, special, train_on: data.train_on.unwrap_or(by_default) })
}

/// The chat template of the recipe, or the model's own.
fn template(data: &DataConfig, encoder: &Encoder, config: &TokenizerConfig) -> Result<ChatFormat> {
    let source = match (&data.chat_template, &config.chat_template) {
        (Some(text), _) => chat_templates::source(text),
        (None, Some(own)) => own,
        (None, None) => {
            let names = chat_templates::NAMED.map(|named| named.name).join(", ");
            return Err(Error::usage("the model folder has no chat_template")
                .hint(format!("give chat_template: a Jinja template, or one of the names {names}")));
        }
    };
    let template = ChatTemplate::new(source, encoder.literals(), encoder.template_bos(), encoder.eos())?;
    let variables: serde_json::Map<_, _> =
        data.chat_template_kwargs.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    Ok(ChatFormat::Template(Box::new(template.with(&variables))))
}

/// The first record of the data.
pub fn first_record(table: &Table) -> Result<Record> {
    if table.is_empty() {
        return Err(Error::input("the data set is empty"));
    }
    table.record(0)
}

/// The format that the recipe names, or that the columns of the first record imply.
fn text_format(data: &DataConfig, first: impl Fn() -> Result<Record>) -> Result<TextFormat> {
    if let Some(format) = data.format {
        return Ok(format);
    }
    let wants_chat = data.chat_template.is_some();
    if data.text_column.is_some() {
        return Ok(if wants_chat { TextFormat::Messages } else { TextFormat::Text });
    }
    let record = first()?;
    let columns: Vec<&str> = record.columns().collect();
    let has = |names: &[&str]| names.iter().all(|name| columns.contains(name));
    // With a chat template, a question and its answer are a conversation.
    let or_chat = |format| if wants_chat { TextFormat::Messages } else { format };
    Ok(match () {
        () if has(&["messages"]) => TextFormat::Messages,
        () if has(&["conversations"]) => TextFormat::ShareGpt,
        () if has(&["segments"]) => TextFormat::InputOutput,
        () if has(&["instruction", "output"]) => or_chat(TextFormat::Alpaca),
        () if is_list(&record, "prompt") && has(&["completion"]) => TextFormat::PromptCompletion,
        () if has(&["prompt", "completion"]) => or_chat(TextFormat::PromptCompletion),
        () if has(&["text"]) => TextFormat::Text,
        () => {
            return Err(Error::input(format!(
                "no known format fits the data, whose columns are {}",
                columns.join(", ")
            ))
            .hint(format!("give text_column, template (\"{{{{ column }}}}\") or format: {}", TextFormat::names())));
        }
    })
}

/// Lines for the report: keys without effect in this layout, tokens that the tokenizer lacks, and which tokens are
/// trained if the layout decides it.
pub fn notes(data: &DataConfig, formatter: &RecordFormatter) -> Vec<String> {
    let (column, roles, chat) = match &formatter.layout {
        RecordLayout::Template(_) => (false, true, false),
        RecordLayout::Column { .. } => (true, true, false),
        RecordLayout::Alpaca | RecordLayout::PromptCompletion | RecordLayout::Segments => (false, false, false),
        RecordLayout::Dialog { .. } => (true, false, false),
        RecordLayout::Chat { format, .. } => (true, false, matches!(format, ChatFormat::Template(_))),
    };
    let given = [
        ("text_column", data.text_column.is_some() && !column),
        ("role_markers", data.role_markers.is_some() && !roles),
        ("chat_template", data.chat_template.is_some() && !chat),
        ("chat_template_kwargs", !data.chat_template_kwargs.is_empty() && !chat),
    ];
    let unused: Vec<&str> = given.into_iter().filter(|(_, unused)| *unused).map(|(key, _)| key).collect();
    let unused = (!unused.is_empty()).then(|| format!("`{}` has no effect with this format", unused.join("`, `")));

    let named = data.chat_template.as_deref().and_then(chat_templates::named).filter(|_| chat);
    let missing: Vec<&str> = named.map_or(Vec::new(), |named| {
        named.tokens.iter().copied().filter(|token| formatter.literals.id(token).is_none()).collect()
    });
    let missing = (!missing.is_empty()).then(|| {
        format!(
            "the tokenizer has no token {}: the chat template writes it as plain text, and so will the model",
            missing.join(", ")
        )
    });

    let by_layout = match (data.train_on, formatter.train_on) {
        (None, TrainOn::Completion) => Some("train_on is not given: the loss sees completions only, as in TRL".into()),
        (None, TrainOn::Assistant) => Some("train_on is not given: the labels of the segments decide".into()),
        _ => None,
    };
    let dated = match &formatter.layout {
        RecordLayout::Chat { format: ChatFormat::Template(template), .. } => template.is_dated(),
        _ => false,
    };
    let dated = dated.then(|| {
        "the chat template writes today's date into every document; chat_template_kwargs = { date_string = \"26 Jul 2024\" } \
         keeps it the same on other days"
            .into()
    });
    [unused, missing, by_layout, dated].into_iter().flatten().collect()
}
