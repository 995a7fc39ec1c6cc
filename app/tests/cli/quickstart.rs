//! The README's first command, cut short.

use crate::folder::Folder;

#[test]
fn quickstart_asks_before_and_after_and_leaves_an_adapter() {
    let folder = Folder::new();
    let short = ["quickstart", "--set", "max_steps=2"];
    let said = folder.run(&short).fine();
    for words in ["  before ", "| after ", "| expected", "right answers", "quickstart/run"] {
        assert!(said.out.contains(words), "{words:?} is not in:\n{}", said.out);
    }
    let tables = |line: &&str| line.contains(" | ") && !line.contains("params") || line.contains("Perplexity");
    for line in said.out.lines().filter(tables) {
        assert!(line.chars().count() <= 80, "{line:?} is wider than 80 columns");
    }
    for file in ["recipe.toml", "model/config.json", "train.jsonl", "run/adapter_model.safetensors"] {
        assert!(folder.path("quickstart").join(file).is_file(), "{file} is missing");
    }
    let again = folder.run(&short);
    assert_eq!(again.out, "", "the refusal comes before any report");
    again.refused(2, &["already holds the results", "--overwrite"]);
}

#[test]
fn the_question_that_it_prints_has_the_answer_that_it_prints() {
    let folder = Folder::empty();
    let said = folder.run(&["quickstart", "--set", "num_train_epochs=3"]).fine();
    let (_, asked) = said.out.split_once("it has just answered this with ").expect("a question was answered rightly");
    let (answer, rest) = asked.split_once(':').expect("the command follows");
    let command = rest.lines().nth(1).expect("a line").trim();
    let (_, question) = command.split_once('"').expect("a quoted question");
    let (question, _) = question.split_once('"').expect("it ends");
    assert!(command.ends_with("--max-new-tokens 16"), "{command}");
    let said = folder.run(&["generate", "quickstart/run", question, "--max-new-tokens", "16"]).fine();
    assert_eq!(format!("{:?}", said.out.trim()), answer, "{question}");
}
