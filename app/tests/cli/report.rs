//! `halfbyte report`.

use crate::folder::Folder;
use std::io::Write;

/// A finished run in `run` whose recipe contains special characters of HTML.
fn trained() -> Folder {
    let folder = Folder::new();
    let name = "run_name=<script>alert(1)</script> & \"co\"";
    let samples = "sample_prompts=[\"Q: <b>what</b> A:\"]";
    let args = ["train", "recipe.toml", "--set", "eval_strategy=steps", "--set", name, "--set", samples];
    folder.run(&args).fine();
    folder
}

#[test]
fn the_page_stands_alone_and_escapes_everything() {
    let folder = trained();
    let said = folder.run(&["report", "run", "--out", "page.html"]).fine();
    assert!(said.out.contains("page.html: 3 logged records, 3 evaluations"), "{}", said.out);
    let page = std::fs::read_to_string(folder.path("page.html")).expect("a page");
    for outside in ["http:", "https:", "src=", "href=", "@import", "url(", "<b>what", "alert(1)</script>"] {
        assert!(!page.contains(outside), "{outside} is in the page");
    }
    assert_eq!(page.matches("<script>").count(), 1, "our own");
    for words in [
        "<h1>&lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;co&quot;</h1>",
        "aria-label=\"Loss\"",
        "aria-label=\"Learning rate\"",
        "aria-label=\"Gradient norm before clipping\"",
        "aria-label=\"Throughput, tokens per second\"",
        "Q: &lt;b&gt;what&lt;/b&gt; A:",
        "learning_rate = 0.01",
        "<th>total_flos</th>",
        "validation</span>",
    ] {
        assert!(page.contains(words), "{words} is not in the page");
    }
    assert!(!page.contains("class=\"note\""), "nothing is missing");
    let results = page.split("<h2>Results</h2>").nth(1).expect("results");
    let cells = results.split("<td class=\"n\">").skip(1).filter_map(|cell| cell.split("</td>").next());
    let cells: Vec<&str> = cells.collect();
    assert!(cells.len() > 5 && cells.iter().all(|cell| cell.len() <= 30 && !cell.contains('{')), "rounded: {cells:?}");
    // The axes have only numbers.
    assert!(!page.contains("NaN") && !page.contains(">inf"), "{page}");
    folder.run(&["report", "run"]).fine();
    assert_eq!(std::fs::read_to_string(folder.path("run/report.html")).expect("a page"), page, "the same again");
}

#[test]
fn a_killed_run_is_reported_and_a_damaged_log_is_refused() {
    let folder = trained();
    let metrics = folder.path("run/metrics.jsonl");
    let text = std::fs::read_to_string(&metrics).expect("metrics");
    let count = text.lines().count();
    let cut = text.trim_end().len() - 5;
    std::fs::write(&metrics, &text[..cut]).expect("written");
    let said = folder.run(&["report", "run"]).fine();
    assert!(said.out.contains(&format!("note: line {count} of metrics.jsonl is truncated")), "{}", said.out);
    assert!(said.out.contains("note: the run has not finished"), "{}", said.out);
    let page = std::fs::read_to_string(folder.path("run/report.html")).expect("a page");
    assert!(page.contains("is truncated and was skipped") && !page.contains("<h2>Results</h2>"));

    let mut file = std::fs::OpenOptions::new().append(true).open(&metrics).expect("opened");
    writeln!(file).expect("written");
    let place = format!("metrics.jsonl: line {count}: not a JSON object");
    folder.run(&["report", "run"]).refused(3, &[&place, "hint: "]);

    std::fs::write(&metrics, "").expect("written");
    folder.run(&["report", "run"]).fine();
    let page = std::fs::read_to_string(folder.path("run/report.html")).expect("a page");
    assert!(page.contains("Nothing has been logged yet"));
    folder.text("run/recipe.toml", "r = \n");
    folder.run(&["report", "run"]).refused(3, &["recipe.toml"]);
    folder.run(&["report", "model"]).refused(3, &["model", "metrics.jsonl", "output_dir"]);
}
