//! Tests of [`super`].

use super::*;
use crate::config::recipe::Recipe;
use toml::Table;

fn value(text: &str) -> Option<toml::Value> {
    toml::from_str::<Table>(&format!("x = {text}")).ok()?.remove("x")
}

#[test]
fn the_table_is_consistent() {
    let names: Vec<&str> = all().map(|key| key.name).collect();
    for (i, key) in all().enumerate() {
        let name = key.name;
        assert!(!names[..i].contains(&name), "{name} is there twice");
        if let Some(target) = key.target() {
            assert!(matches!(lookup(target).map(|key| key.used), Some(Use::Used(_))), "{name} sets nothing");
        }
        match key.used {
            Use::Only(values, _) => values.iter().for_each(|v| assert!(value(v).is_some(), "{name}: {v}")),
            Use::Means(_, values) => {
                let both = values.iter().flat_map(|(theirs, ours)| [theirs, ours]).filter(|v| !v.is_empty());
                both.for_each(|v| assert!(value(v).is_some(), "{name}: {v}"));
            }
            _ => {}
        }
    }
}

#[test]
fn the_defaults_in_the_table_are_those_of_an_empty_recipe() {
    let text = "model_name_or_path = \"m\"\nload_in_4bit = true";
    let resolved: Table = Recipe::parse(text, "r.toml", &[]).expect("valid").resolved_toml().parse().expect("TOML");
    let mut compared = 0;
    for key in all() {
        let Use::Used(doc) = key.used else { continue };
        let is = resolved[doc.section.name()].get(key.name);
        match value(doc.default) {
            Some(default) => assert_eq!(is, Some(&default), "{}", key.name),
            None => assert!(doc.default.starts_with("none"), "{}: the default is neither TOML nor none", key.name),
        }
        compared += usize::from(value(doc.default).is_some());
    }
    assert!(compared > 40, "only {compared} defaults are TOML");
}

#[test]
fn a_description_says_what_a_user_asks() {
    let text = describe("lora_rank").expect("known");
    for word in ["another name of r", "[lora]", "whole number", "default   8", "also      lora_r, lora_rank", "rank of"]
    {
        assert!(text.contains(word), "{text:?} does not say {word:?}");
    }
    let text = describe("completion_only_loss").expect("known");
    assert!(text.contains("completion_only_loss = true means train_on = \"completion\""), "{text}");
    assert!(describe("train_on").expect("known").contains("completion_only_loss"), "ways to set it are named");
    assert!(describe("bias").expect("known").contains("accepted only as \"none\""));
    assert!(describe("hub_token").expect("known").contains("refused"));
    assert!(describe("use_cache").expect("known").contains("has no effect"));
    let error = describe("lora_rnak").expect_err("unknown").to_string();
    assert!(error.contains("did you mean `lora_rank`?"), "{error}");
}

#[test]
fn only_keys_that_do_something_are_suggested() {
    assert_eq!(suggestion("locl_rank"), Some("lora_rank"), "local_rank has no effect");
    assert_eq!(suggestion("eval_packig"), None, "eval_packing is refused");
    assert_eq!(suggestion("learning_rat"), Some("learning_rate"));
}

#[test]
fn every_key_has_a_text_of_whole_sentences() {
    for key in all() {
        let Use::Used(doc) = key.used else { continue };
        assert!(doc.text.ends_with('.') && doc.text.len() > 12, "{}: {:?}", key.name, doc.text);
        assert!(describe(key.name).is_ok(), "{}", key.name);
    }
}
