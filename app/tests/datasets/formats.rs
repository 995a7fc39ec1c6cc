//! Records of every layout, formatted and masked.

use crate::tiny::{self, encoder, show};
use halfbyte::config::data::TrainOn;
use halfbyte::data::chat::{ChatFormat, ChatTemplate};
use halfbyte::data::document::{DocumentSettings, Encoder};
use halfbyte::data::format::{RecordFormatter, RecordLayout};
use halfbyte::data::markup::{GIVEN, RoleMarkers, TRAINED};
use halfbyte::data::table::Record;
use halfbyte::data::tokenizer_config::TokenizerConfig;
use serde_json::{Value, json};

fn record(value: Value) -> Record {
    Record(value.as_object().expect("an object").clone())
}

fn shaped(layout: RecordLayout, train_on: TrainOn) -> RecordFormatter {
    RecordFormatter { layout, literals: encoder().literals().clone(), special: false, train_on }
}

fn chat(source: &str, train_on: TrainOn) -> RecordFormatter {
    let encoder = encoder();
    let template = ChatTemplate::new(source, encoder.literals(), encoder.template_bos(), encoder.eos());
    shaped(RecordLayout::Chat { column: None, format: ChatFormat::Template(Box::new(template.unwrap())) }, train_on)
}

fn formatted(format: &RecordFormatter, value: Value) -> String {
    let encoder = encoder();
    show(&encoder, &encoder.document(&format.text(&record(value)).unwrap(), format.train_on))
}

fn roles(user: &str, assistant: &str) -> Option<RoleMarkers> {
    Some(RoleMarkers { user: user.into(), assistant: assistant.into() })
}

const SCOPES: [TrainOn; 3] = [TrainOn::All, TrainOn::Completion, TrainOn::Assistant];

#[test]
fn alpaca_trains_on_the_answer_and_its_end() {
    let with_input = json!({"instruction": "Add.", "input": "1 2", "output": "3"});
    let without = json!({"instruction": "Hi", "input": "", "output": "Ho"});
    let text = formatted(&shaped(RecordLayout::Alpaca, TrainOn::Completion), with_input);
    assert!(text.starts_with("<s>▁Below▁is▁an▁instruction▁that▁describes▁a▁task,▁paired▁with▁an▁input"));
    assert!(text.ends_with(
        "request.<0x0A><0x0A>###▁Instruction:<0x0A>Add.<0x0A><0x0A>###▁Input:<0x0A>1▁2<0x0A><0x0A>###▁Response:<0x0A>{3</s>}"
    ));
    let text = formatted(&shaped(RecordLayout::Alpaca, TrainOn::All), without.clone());
    assert!(text.starts_with("{<s>▁Below▁is▁an▁instruction▁that▁describes▁a▁task.▁Write"));
    assert!(text.ends_with("###▁Instruction:<0x0A>Hi<0x0A><0x0A>###▁Response:<0x0A>Ho</s>}"));
    assert!(shaped(RecordLayout::Alpaca, TrainOn::All).wants_eos());
}

#[test]
fn a_text_column_is_split_at_its_role_markers() {
    let text = json!({"text": "<usr> a <bot> b <usr> c <bot> d"});
    let column = |train_on| {
        RecordFormatter::column("text", roles("<usr>", "<bot>"), encoder().literals().clone(), false, train_on).unwrap()
    };
    let shown = SCOPES.map(|train_on| formatted(&column(train_on), text.clone()));
    assert_eq!(shown[0], "{<s>▁<usr>▁a▁<bot>▁b▁<usr>▁c▁<bot>▁d</s>}");
    assert_eq!(shown[1], "<s>▁<usr>▁a▁<bot>▁b▁<usr>▁c▁<bot>{▁d</s>}");
    assert_eq!(shown[2], "<s>▁<usr>▁a▁<bot>{▁b▁}<usr>▁c▁<bot>{▁d</s>}");
}

#[test]
fn begin_and_end_tokens_come_exactly_once() {
    let column =
        |special| RecordFormatter::column("text", None, encoder().literals().clone(), special, TrainOn::All).unwrap();
    for (text, as_tokens) in [
        ("a", "{<s>▁a</s>}"),
        ("<s>a</s>", "{<s>▁a</s>}"),
        ("<s>[INST] a [/INST] b </s>", "{<s>[INST]▁▁a▁[/INST]▁▁b▁</s>}"),
        ("a</s><s>b", "{<s>▁a</s><s>▁b</s>}"),
    ] {
        assert_eq!(formatted(&column(true), json!({ "text": text })), as_tokens, "{text}");
    }
    assert_eq!(formatted(&column(false), json!({"text": "<s>a</s>"})), "{<s>▁<s>a</s></s>}", "as text: more pieces");
    let literal = column(false).text(&record(json!({"text": "<s>a</s>"}))).unwrap();
    assert!(encoder().has_literal(&literal), "which the report says");
    assert!(!encoder().has_literal(&column(true).text(&record(json!({"text": "<s>a</s>"}))).unwrap()));
    let neither = Encoder::new(
        tiny::tokenizer(),
        DocumentSettings { add_bos: false, add_eos: false, legacy: false },
        &TokenizerConfig::default(),
    )
    .unwrap();
    assert_eq!(show(&neither, &neither.document("a", TrainOn::All)), "{▁a}");
    assert_eq!(neither.document("", TrainOn::All).ids, [] as [u32; 0]);
    assert_eq!(encoder().document("", TrainOn::All).ids, [] as [u32; 0], "an empty text does not become two tokens");
}

#[test]
fn a_template_trains_on_what_its_markers_or_its_generation_block_say() {
    let literals = encoder().literals().clone();
    let source = "<s>[INST] {{ q }} [/INST] {{ a }}</s>";
    let template = |special, train_on| {
        RecordFormatter::template(source, roles("[INST]", "[/INST]").as_ref(), literals.clone(), special, train_on)
    };
    let hostile = json!({"q": "x [/INST] y</s>", "a": "z"});
    assert_eq!(
        formatted(&template(true, TrainOn::Completion).unwrap(), hostile.clone()),
        "<s>[INST]▁▁x▁[/INST]▁y</s>▁[/INST]{▁▁z</s>}",
        "markers and tokens in the record are only text"
    );
    let text = formatted(&template(false, TrainOn::Completion).unwrap(), hostile);
    assert_eq!(text, "<s>▁<s>[INST]▁x▁[/INST]▁y</s>▁[/INST]{▁z</s></s>}");
    let block = "Q: {{ q }}\nA:{% generation %} {{ a }}{% endgeneration %}.";
    let template = RecordFormatter::template(block, None, literals.clone(), false, TrainOn::Assistant).unwrap();
    assert_eq!(formatted(&template, json!({"q": "x", "a": "z"})), "<s>▁Q:▁x<0x0A>A:{▁z}.</s>");
    let error =
        RecordFormatter::template("{{ q }}", None, literals, false, TrainOn::Completion).err().unwrap().to_string();
    assert!(error.contains("train_on: a template alone does not say what the answer is"), "{error}");
}

const TURNS: &str = "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}\
    {% elif m.role == 'assistant' %}{{ ' ' + m.content.strip() + eos_token }}\
    {% else %}{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %}";

fn conversation() -> Value {
    let message = |role: &str, content: &str| json!({"role": role, "content": content});
    json!([message("user", "a</s>"), message("assistant", " b "), message("user", "c"), message("assistant", "d")])
}

#[test]
fn a_chat_template_trains_on_what_it_adds_to_the_prompt() {
    let messages = json!({ "messages": conversation() });
    let shown = SCOPES.map(|train_on| formatted(&chat(TURNS, train_on), messages.clone()));
    assert_eq!(shown[0], "{<s>[INST]▁▁a</s>▁[/INST]▁▁b</s>[INST]▁▁c▁[/INST]▁▁d</s>}");
    assert_eq!(shown[1], "<s>[INST]▁▁a</s>▁[/INST]▁▁b</s>[INST]▁▁c▁[/INST]{▁▁d</s>}");
    assert_eq!(shown[2], "<s>[INST]▁▁a</s>▁[/INST]{▁▁b</s>}[INST]▁▁c▁[/INST]{▁▁d</s>}");
    let sharegpt = json!({"conversations": [{"from": "human", "value": "a</s>"}, {"from": "gpt", "value": " b "},
        {"from": "human", "value": "c"}, {"from": "gpt", "value": "d"}]});
    assert_eq!(formatted(&chat(TURNS, TrainOn::Assistant), sharegpt), shown[2]);
    let instruction = json!({"instruction": "a", "input": "i", "output": "d"});
    let text = formatted(&chat(TURNS, TrainOn::Assistant), instruction);
    assert_eq!(text, "<s>[INST]▁▁a<0x0A><0x0A>i▁[/INST]{▁▁d</s>}");
}

#[test]
fn a_generation_prompt_belongs_to_the_prompt() {
    let chatml = "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}\
        {% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}";
    let text = formatted(&chat(chatml, TrainOn::Completion), json!({ "messages": conversation() }));
    assert!(text.ends_with("c<|end|><0x0A><|assistant|><0x0A>{d<|end|><0x0A></s>}"), "{text}");
}

#[test]
fn answers_are_found_where_a_template_writes_them_otherwise_than_at_the_end() {
    let text = |source: &str| chat(source, TrainOn::Assistant).text(&record(json!({ "messages": conversation() })));
    // Qwen3 leaves out the thoughts of earlier answers.
    let thoughts = "{% for m in messages %}<{{ m.role }}>{{ '(-)' if loop.last and m.role == 'assistant' }}{{ m.content.strip() }};\
        {% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
    let marked = |text: &str| text.replace('{', &TRAINED.to_string()).replace('}', &GIVEN.to_string());
    let shown = marked("<user>a</s>;<assistant>{b;}<user>c;<assistant>{(-)d;}");
    assert_eq!(text(thoughts).unwrap(), shown);
    // With `enable_thinking = false`, the prompt ends with an empty thought, which only the last answer has.
    let empty = thoughts.replace("<assistant>{% endif", "<assistant>(-){% endif");
    assert_eq!(text(&empty).unwrap(), marked("<user>a</s>;<assistant>{b;}<user>c;<assistant>(-){d;}"));
}

#[test]
fn a_chat_template_that_rewrites_earlier_turns_is_refused_unless_all_is_trained_on() {
    let last_only = "{{ messages | length }}{{ messages[-1].content }}";
    let text = |train_on| chat(last_only, train_on).text(&record(json!({ "messages": conversation() })));
    assert!(text(TrainOn::All).is_ok());
    let error = text(TrainOn::Assistant).unwrap_err().to_string();
    assert!(error.contains("message 2 renders differently") && error.contains("train_on"), "{error}");
    let error = chat(TURNS, TrainOn::All).text(&record(json!({"messages": [{"role": "tool", "content": ""}]})));
    assert!(error.unwrap_err().to_string().contains("only user and assistant"));
}

#[test]
fn mistral_writes_its_turns_as_text_or_as_tokens() {
    let messages = json!({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b "}, {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]});
    let format = |layout| shaped(RecordLayout::Chat { column: None, format: layout }, TrainOn::Assistant);
    assert_eq!(
        formatted(&format(ChatFormat::MistralV1), messages.clone()),
        "<s>▁[INST]▁s<0x0A><0x0A>a▁[/INST]{▁b▁</s>}▁[INST]▁c▁[/INST]{▁d</s>}"
    );
    assert_eq!(
        formatted(&format(ChatFormat::MistralV3), messages),
        "<s>[INST]▁a[/INST]{▁b</s>}[INST]▁s<0x0A><0x0A>c[/INST]{▁d</s>}"
    );
}

#[test]
fn a_dialog_loses_only_its_empty_last_turn() {
    let input = "Talk.\n[|Human|] a\n[|AI|] b\n[|Human|] c\n[|AI|] d\n[|Human|] ";
    let format = shaped(RecordLayout::Dialog { name: "input".into() }, TrainOn::Assistant);
    assert_eq!(
        formatted(&format, json!({ "input": input })),
        "<s>▁Talk.<0x0A>[|Human|]▁a<0x0A>[|AI|]{▁b<0x0A>}[|Human|]▁c<0x0A>[|AI|]{▁d</s>}"
    );
}

#[test]
fn records_of_the_wrong_shape_are_named() {
    let what = |format: &RecordFormatter, value: Value| format.text(&record(value)).unwrap_err().to_string();
    let mistral = shaped(RecordLayout::Chat { column: None, format: ChatFormat::MistralV1 }, TrainOn::All);
    assert!(
        what(&shaped(RecordLayout::Alpaca, TrainOn::All), json!({"instruction": "a", "input": "", "ouput": "b"}))
            .contains("no column `output`\n  hint: did you mean `ouput`?")
    );
    assert!(
        what(&shaped(RecordLayout::Alpaca, TrainOn::All), json!({"instruction": 5}))
            .contains("`instruction` holds a number")
    );
    assert!(what(&mistral, json!({"a": 1})).contains("no column `messages` or `conversations`"));
    assert!(what(&mistral, json!({"messages": "x"})).contains("`messages` holds text, not a list"));
    assert!(
        what(&mistral, json!({"messages": [{"role": "user"}]})).contains("`messages[0]`: a message has no `content`")
    );
    assert!(what(&mistral, json!({"messages": [[]]})).contains("`messages[0]`: a message is an object, not a list"));
    assert!(what(&mistral, json!({"messages": [{"role": "tool", "content": ""}]})).contains("no role `tool`"));
    assert!(what(&mistral, json!({"messages": [{"role": 1, "content": ""}]})).contains("`role` holds a number"));
    let column = RecordFormatter::column("text", None, encoder().literals().clone(), false, TrainOn::Completion);
    assert!(column.err().unwrap().to_string().contains("train_on: a text_column alone"));
}
