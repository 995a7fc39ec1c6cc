//! Each named chat template gives the same text as the published one (tests/data/chat-templates/record.py).

use halfbyte::config::chat_templates::{NAMED, named};
use halfbyte::config::data::TrainOn;
use halfbyte::data::chat::{ChatFormat, ChatMessage, ChatTemplate, Conversation};
use halfbyte::data::markup::Literals;
use serde_json::Value;

/// Mistral's published v3 texts put the system message before the last question and omit it if the conversation ends
/// with an answer. Ours put it before the first question, as their v1 does.
const SYSTEM_FIRST: [&str; 2] = ["mistral-v3", "mistral-v3-tekken"];

fn literals() -> Literals {
    Literals::new(vec![("<s>".into(), 1), ("</s>".into(), 2)])
}

fn template(name: &str) -> ChatTemplate {
    let source = named(name).unwrap_or_else(|| panic!("{name} is not known")).source;
    ChatTemplate::new(source, &literals(), Some(1), Some(2)).expect(name)
}

fn messages(case: &Value) -> Vec<ChatMessage> {
    case["messages"].as_array().expect("a list").iter().map(|m| m.as_object().expect("an object").clone()).collect()
}

#[test]
fn renderings_are_those_of_the_published_texts() {
    let recorded: Value = serde_json::from_str(include_str!("../data/chat-templates/rendered.json")).expect("JSON");
    let recorded = recorded["templates"].as_array().expect("a list");
    let names: Vec<&str> = recorded.iter().map(|t| t["name"].as_str().expect("a name")).collect();
    assert_eq!(names, NAMED.map(|named| named.name), "every template was recorded");
    let mut compared = 0;
    for entry in recorded {
        let name = entry["name"].as_str().expect("a name");
        let template = template(name);
        for case in entry["cases"].as_array().expect("a list") {
            let messages = messages(case);
            let answered = messages.len() > 2 && messages[0]["role"] == "system";
            if SYSTEM_FIRST.contains(&name) && answered {
                continue;
            }
            let prompt = case["add_generation_prompt"].as_bool().expect("a flag");
            let text = template.render(&messages, prompt).map(|marked| literals().unmark(&marked));
            match case["text"].as_str() {
                Some(want) => assert_eq!(text.expect(name), want, "{name}: {messages:?}"),
                None => assert!(text.is_err(), "{name} is published to refuse {messages:?}"),
            }
            compared += 1;
        }
    }
    assert!(compared >= 100, "only {compared} renderings compared");
}

#[test]
fn a_system_message_stands_before_the_first_question() {
    let message = |role: &str, content: &str| {
        ChatMessage::from_iter([("role".to_string(), role.into()), ("content".to_string(), content.into())])
    };
    let messages = [message("system", "S"), message("user", "a"), message("assistant", "b"), message("user", "c")];
    let render = |name: &str| literals().unmark(&template(name).render(&messages, true).expect(name));
    assert_eq!(render("mistral-v3"), "<s>[INST] S\n\na[/INST] b</s>[INST] c[/INST]");
    assert_eq!(render("mistral-v3-tekken"), "<s>[INST]S\n\na[/INST]b</s>[INST]c[/INST]");
}

#[test]
fn answers_are_trained_on_from_where_generation_begins_to_the_token_that_ends_them() {
    let message = |role: &str, content: &str| {
        ChatMessage::from_iter([("role".to_string(), role.into()), ("content".to_string(), content.into())])
    };
    let messages =
        vec![message("user", "a"), message("assistant", "b"), message("user", "c"), message("assistant", "d")];
    let (trained, given) = (halfbyte::data::markup::TRAINED, halfbyte::data::markup::GIVEN);
    for (name, answers) in [
        ("chatml", ["b<|im_end|>", "d<|im_end|>"]),
        ("llama-2", [" b </s>", " d </s>"]),
        ("llama-3", ["b<|eot_id|>", "d<|eot_id|>"]),
        ("mistral-v1", [" b</s>", " d</s>"]),
        ("mistral-v3", [" b</s>", " d</s>"]),
        ("mistral-v3-tekken", ["b</s>", "d</s>"]),
        ("mistral-v7", [" b</s>", " d</s>"]),
        ("alpaca", ["b</s>", "d</s>"]),
        ("vicuna", [" b</s>", " d</s>"]),
        ("zephyr", ["b</s>", "d</s>"]),
    ] {
        let template = template(name);
        let prompt = template.render(&messages[..3], true).expect(name);
        let format = ChatFormat::Template(Box::new(template));
        let conversation = Conversation { messages: messages.clone(), prompt: None };
        let marked = format.text(&conversation, &literals(), TrainOn::Assistant).expect(name);
        let seen: Vec<String> = marked
            .split(trained)
            .skip(1)
            .map(|part| literals().unmark(part.split(given).next().unwrap_or_default()))
            .collect();
        assert_eq!(seen, answers, "{name}");
        let before = &marked[..marked.rfind(trained).expect("marked")];
        assert_eq!(
            literals().unmark(before),
            literals().unmark(&prompt),
            "{name}: generation begins where the mask does"
        );
    }
}
