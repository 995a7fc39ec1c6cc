//! The README's first command, cut short.

use crate::folder::Folder;

#[test]
fn quickstart_asks_before_and_after_and_leaves_an_adapter() {
    let folder = Folder::new();
    let short = ["quickstart", "--set", "max_steps=2"];
    let said = folder.run(&short).fine();
    for words in ["question ", "| before ", "| after ", "answered right", "quickstart/run"] {
        assert!(said.out.contains(words), "{words:?} is not in:\n{}", said.out);
    }
    for file in ["recipe.toml", "model/config.json", "train.jsonl", "run/adapter_model.safetensors"] {
        assert!(folder.path("quickstart").join(file).is_file(), "{file} is missing");
    }
    folder.run(&short).refused(2, &["already holds the results", "--overwrite"]);
}
