//! The help and error texts of the program, as on a terminal of 80 columns. After a change of a text, this command
//! writes the new snapshots; read the diff: `SNAPSHOTS=overwrite cargo test -p halfbyte --test cli -- help`.

use crate::folder::{Folder, Said};
use crate::project::project;
use snapbox::{Data, assert_data_eq};
use std::path::PathBuf;

const COMMANDS: [&str; 12] = [
    "quickstart",
    "train",
    "plan",
    "inspect-data",
    "generate",
    "report",
    "inspect",
    "tokenize",
    "devices",
    "keys",
    "completions",
    "man",
];

fn snapshot(name: &str) -> Data {
    let path: PathBuf = project().join("app/tests/cli/snapshots").join(name);
    Data::read_from(&path, None)
}

/// The program on a terminal of this width.
fn run(columns: &str, args: &[&str]) -> Said {
    Folder::empty().run_with(&[("COLUMNS", columns)], args)
}

#[test]
fn help_is_as_written_down() {
    assert_data_eq!(run("80", &["--help"]).fine().out, snapshot("halfbyte.txt"));
    for command in COMMANDS {
        assert_data_eq!(run("80", &[command, "--help"]).fine().out, snapshot(&format!("{command}.txt")));
    }
}

#[test]
fn help_fits_its_terminal_and_shows_examples() {
    for command in COMMANDS {
        for columns in ["80", "120"] {
            let text = run(columns, &[command, "--help"]).fine().out;
            let widest = text.lines().map(|line| line.chars().count()).max();
            assert!(widest <= columns.parse().ok(), "{command} at {columns}: {widest:?}\n{text}");
            let examples = text.split("\nExamples:\n").nth(1).expect("examples");
            let starts = ["  halfbyte ", "  echo ", "      "];
            assert!(
                examples.lines().all(|line| starts.iter().any(|start| line.starts_with(start))),
                "wrapped: {examples}"
            );
        }
    }
    let all = run("80", &["--help"]).fine().out;
    assert!(COMMANDS.iter().all(|command| all.contains(&format!("\n  {command} "))), "{all}");
}

/// Common mistakes of users. Their messages are in the snapshot.
const MISTAKES: [&[&str]; 10] = [
    &["trian", "recipe.toml"],
    &["train"],
    &["train", "recipe.toml", "--resum"],
    &["train", "nothing.toml"],
    &["train", "recipe.toml", "--set", "learning_rat=1"],
    &["train", "recipe.toml", "--set", "model_name_or_path=mistral-7b-v0.1"],
    &["train", "recipe.toml", "--set", "max_seq_length=65"],
    &["generate", "nowhere", "Hello"],
    &["keys", "learning_rat"],
    &["man", "trian"],
];

#[test]
fn mistakes_are_refused_in_these_words() {
    let folder = Folder::new();
    let mut text = String::new();
    for args in MISTAKES {
        let said = folder.run_with(&[("COLUMNS", "80")], args);
        let code = said.code.expect("an exit code");
        text += &format!("$ halfbyte {}\n{}{}[{code}]\n\n", args.join(" "), said.out, said.err);
    }
    assert_data_eq!(text, snapshot("mistakes.txt"));
}

#[test]
fn with_json_an_error_is_an_event() {
    let folder = Folder::new();
    for (args, kind, code) in [
        (&["train", "nothing.toml", "--json"][..], "input", 3),
        (&["train", "recipe.toml", "--json", "--set", "learning_rat=1"], "usage", 2),
        (&["train", "--json"], "usage", 2),
        (&["generate", "nowhere", "x", "--json"], "input", 3),
    ] {
        let said = folder.run(args);
        let last = said.out.lines().last().unwrap_or_default();
        let event: serde_json::Value = serde_json::from_str(last).expect(last);
        assert_eq!((event["event"].as_str(), event["kind"].as_str()), (Some("error"), Some(kind)), "{last}");
        assert_eq!((event["exit_code"].as_i64(), said.code), (Some(code), Some(code as i32)), "{last}");
        let message = event["message"].as_str().expect("a message");
        assert!(said.err.contains(message), "people see it too: {message:?} is not in {}", said.err);
    }
    let event: serde_json::Value = serde_json::from_str(&folder.run(&["keys", "learning_rat"]).out).unwrap_or_default();
    assert!(event.is_null(), "only where it is asked for");
}

#[test]
fn color_is_for_terminals_and_for_those_who_ask() {
    let folder = Folder::new();
    let colored = |environment: &[(&str, &str)]| {
        let said = folder.run_with(environment, &["train", "nothing.toml"]);
        assert_eq!(said.code, Some(3));
        said.err.contains('\u{1b}')
    };
    assert!(!colored(&[]), "a pipe is not a terminal");
    assert!(colored(&[("CLICOLOR_FORCE", "1")]));
    assert!(!colored(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
    let rows = |environment: &[(&str, &str)]| folder.run_with(environment, &["inspect-data", "recipe.toml"]).fine().out;
    assert!(!rows(&[]).contains('\u{1b}') && rows(&[("CLICOLOR_FORCE", "1")]).contains('\u{1b}'));
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let text = run("80", &["completions", shell]).fine().out;
        assert!(COMMANDS.iter().all(|command| text.contains(command)) && text.contains("max-seq-length"), "{shell}");
    }
    let page = run("80", &["man"]).fine().out;
    assert!(page.contains(".TH halfbyte 1") && page.contains("Exit codes:"), "{page}");
    for command in COMMANDS {
        let page = run("80", &["man", command]).fine().out;
        assert!(page.contains(&format!(".TH halfbyte-{command} 1")), "{page}");
    }
}

#[test]
fn keys_are_explained_one_by_one_and_all_together() {
    let all = run("80", &["keys"]).fine().out;
    for name in ["[model]", "learning_rate", "target_modules", "bnb_4bit_quant_type", "fsdp"] {
        assert!(all.contains(name), "{name} is not in\n{all}");
    }
    let said = |name: &str| run("80", &["keys", name]).fine().out;
    assert!(said("learning_rate").starts_with("learning_rate"));
    assert!(said("base_model").contains("another name of model_name_or_path"));
    assert!(said("streaming").contains("false"));
    run("80", &["keys", "learning_rat"]).refused(2, &["did you mean `learning_rate`?"]);
}

#[test]
#[cfg(unix)]
fn a_reader_that_goes_away_is_no_error() {
    for args in ["--help", "keys", "inspect mixtral-8x7b-v0.1 --tree"] {
        let line = format!("{} {args} | head -n 1; exit ${{PIPESTATUS[0]}}", crate::folder::program().display());
        let mut shell = std::process::Command::new("bash");
        shell.args(["-c", &line]);
        let said = Said::of(Folder::empty().start_command(shell));
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{args}");
    }
}
