//! Templates of strangers, secrets, and text that would control a terminal.

use crate::folder::{Folder, Said};
use std::time::Instant;

fn inspect(folder: &Folder, template: &str) -> Said {
    let recipe = std::fs::read_to_string(folder.path("recipe.toml")).expect("read");
    let lines: Vec<&str> = recipe.lines().filter(|line| !line.starts_with("template")).collect();
    folder.text("hostile.toml", &format!("{}\ntemplate = '''{template}'''\n", lines.join("\n")));
    folder.run(&["inspect-data", "hostile.toml"])
}

#[test]
fn a_template_cannot_run_for_ever_or_take_all_memory() {
    let folder = Folder::new();
    let double = "{% set x = question %}".to_string() + &"{% set x = x ~ x %}".repeat(40) + "{{ x }}";
    for (template, words) in [
        ("{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}{{ question }}", "fuel"),
        (&double, "256 MiB"),
        ("{{ ('a' * 100000)|replace('a', 'b' * 100000) }}", "256 MiB"),
        ("{{ (['a'] * 100000)|join('b' * 100000) }}", "256 MiB"),
        ("{{ question|indent(1000000000) }}", "256 MiB"),
        ("{{ [question]|batch(1000000000, 'x') }}", "256 MiB"),
        (&format!("{{{{ {}1 }}}}", "-".repeat(100_000)), "longer than 16384"),
        (&format!("{{{{ {}1 }}}}", "not ".repeat(100_000)), "longer than 16384"),
        (&format!("{{{{ question{} }}}}", "|upper".repeat(50_000)), "longer than 16384"),
        (&format!("{{{{ 1{} }}}}", "+1".repeat(200_000)), "longer than 16384"),
        (&("{{ question }}".to_string() + &" ".repeat(2 << 20)), "bytes long"),
    ] {
        let began = Instant::now();
        let said = inspect(&folder, template);
        let name = template.get(..60).unwrap_or(template);
        assert!(
            matches!(said.code, Some(2 | 3)),
            "{name}: {:?}\n{}",
            said.code,
            said.err.get(..2000).unwrap_or(&said.err)
        );
        assert!(
            said.err.contains(words) && said.err.contains("hint"),
            "{name}: {}",
            said.err.get(..2000).unwrap_or(&said.err)
        );
        assert!(began.elapsed().as_secs() < 60, "{name}: {:?}", began.elapsed());
    }
    // Templates just within the limits work.
    for (template, code) in [
        (format!("{{{{ question ~ ({}1) }}}}", "-".repeat(16_000)), 0),
        (format!("{{{{ question{} }}}}", "|upper".repeat(2_000)), 0),
        (format!("{{{{ {:?} ~ question }}}}", "long text ".repeat(10_000)), 0),
    ] {
        let said = inspect(&folder, &(template + " {{ answer }}"));
        // The rows may be too long for the model; the template itself is accepted.
        assert!(
            said.code == Some(code) || said.err.contains("tokens"),
            "{:?} {}",
            said.code,
            said.err.get(..2000).unwrap_or(&said.err)
        );
    }
}

#[test]
fn no_message_repeats_a_secret() {
    let folder = Folder::new();
    for key in ["token", "use_auth_token", "hub_token", "push_to_hub_token"] {
        let said = folder.run(&["plan", "recipe.toml", "--set", &format!("{key}=hf_SECRET")]);
        said.refused(2, &[key, "HF_TOKEN"]);
        assert!(!said.err.contains("SECRET"), "{}", said.err);
    }
    let said = folder.run(&["plan", "recipe.toml", "--set", "token:hf_SECRET"]);
    said.refused(2, &["expected key=value"]);
    assert!(!said.err.contains("SECRET"), "{}", said.err);
    for endpoint in ["http://user:SECRET@127.0.0.1:9", "http://user:SECRET@127.0.0.1:9/a b", "user:SECRET@127.0.0.1"] {
        let environment = [("HF_ENDPOINT", endpoint), ("HF_TOKEN", "hf_SECRET"), ("HF_HOME", "cache")];
        let said = folder.run_with(&environment, &["plan", "recipe.toml", "--set", "model_name_or_path=a/b"]);
        assert!(said.code == Some(3) && !(said.err + &said.out).contains("SECRET"), "{endpoint}");
    }
}

#[test]
fn escape_sequences_of_data_are_shown_and_not_sent() {
    let folder = Folder::new();
    folder.text("data.jsonl", &"{\"question\": \"a\\u001b[2Jb\", \"answer\": \"c\\u0007\"}\n".repeat(24));
    let said = folder.run(&["inspect-data", "recipe.toml"]).fine();
    assert!(!said.out.contains('\u{1b}') && !said.out.contains('\u{7}') && said.out.contains("␛[2J"), "{}", said.out);
    let said = folder.run(&["plan", "recipe.toml", "--set", "model_name_or_path=\"a\\u001b[31mb\""]);
    said.refused(3, &["a␛[31mb"]);
}

#[test]
fn a_huge_name_is_shortened_and_answered_at_once() {
    let folder = Folder::new();
    let recipe = std::fs::read_to_string(folder.path("recipe.toml")).expect("read");
    let began = Instant::now();
    folder.text("long.toml", &format!("{}\n{} = 1\n", recipe, "k".repeat(5_000_000)));
    let said = folder.run(&["plan", "long.toml"]);
    said.refused(2, &["unknown key"]);
    assert!(said.err.len() < 5000 && began.elapsed().as_secs() < 15, "{} bytes, {:?}", said.err.len(), began.elapsed());
    let said = folder.run(&["plan", "recipe.toml", "--set", "per_device_train_batch_size=1048576"]);
    said.refused(2, &["tokens is too large", "per_device_train_batch_size"]);
    folder.text("long.toml", &recipe.replace("\"model\"", &format!("\"{}\"", "m".repeat(1_000_000))));
    let said = folder.run(&["plan", "long.toml"]);
    assert!(said.code == Some(3) && said.err.len() < 10_000, "{} bytes", said.err.len());
}

#[test]
fn small_slips_get_a_hint() {
    let folder = Folder::new();
    folder.run(&["plan", "recipe.toml", "--set", "tokenizer_name_or_path=./nowhere"]);
    let config = std::fs::read_to_string(folder.path("model/config.json")).expect("read");
    folder.text("model/config.json", &format!("\u{feff}{config}"));
    folder.run(&["plan", "recipe.toml"]).fine();
}
