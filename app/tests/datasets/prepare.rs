//! Records to rows and their report, good data and bad.

use std::io::Write;

use crate::tiny::{encoder, show};
use halfbyte::config::data::{OverLength, PackingStrategy, TrainOn};
use halfbyte::data::document::Encoder;
use halfbyte::data::format::RecordFormatter;
use halfbyte::data::markup::RoleMarkers;
use halfbyte::data::prepare::{PreparedRows, RowRules, prepare};
use halfbyte::data::report::{Report, show_rows};
use halfbyte::data::source::DataFiles;
use halfbyte::data::table::Table;
use halfbyte_core::error::Result;

const RULES: RowRules = RowRules { longest: 8, over_length: OverLength::Truncate, packing: None };

fn table(texts: &[&str]) -> Table {
    let mut file = tempfile::Builder::new().suffix(".jsonl").tempfile().unwrap();
    for text in texts {
        writeln!(file, "{}", serde_json::json!({ "text": text })).unwrap();
    }
    file.flush().unwrap();
    // The table keeps the file mapped when its name is gone.
    DataFiles::path(file.path()).unwrap().load("train").unwrap()
}

fn format(train_on: TrainOn) -> RecordFormatter {
    let roles = (train_on != TrainOn::All).then(|| RoleMarkers { user: "Q".into(), assistant: "A".into() });
    RecordFormatter::column("text", roles, encoder().literals().clone(), false, train_on).unwrap()
}

fn prepared(texts: &[&str], train_on: TrainOn, rules: RowRules) -> Result<PreparedRows> {
    prepare(&table(texts), &format(train_on), &encoder(), rules, &|_| {})
}

fn rows(encoder: &Encoder, prepared: &PreparedRows) -> Vec<Vec<String>> {
    let dataset = &prepared.dataset;
    let piece =
        |p: &halfbyte::data::packing::DocumentSlice| show(encoder, &dataset.tokens.piece(p.document, p.start..p.end));
    (0..dataset.rows.len()).map(|row| dataset.rows.row(row).iter().map(piece).collect()).collect()
}

#[test]
fn everything_worth_knowing_is_counted() {
    // "Qab" is <s> ▁ Q a b </s>: 6 tokens.
    let texts = ["Qab", "Qab", "", "QaAb", "Qabcdefg Axyz", "A</s>"];
    let prepared = prepared(&texts, TrainOn::Assistant, RULES).unwrap();
    let encoder = encoder();
    assert_eq!(rows(&encoder, &prepared), [vec!["<s>▁QaA{b</s>}"], vec!["<s>▁A{</s></s>}"]]);
    let c = prepared.counts;
    assert_eq!((c.records, c.rows, c.empty, c.duplicates), (6, 2, 1, 1));
    // Two without an answer, one whose answer is cut off.
    assert_eq!((c.untrained, c.too_long, c.literal_special), (3, 1, 1));
    assert_eq!((c.missing_eos, c.double_bos), (0, 0));
    assert_eq!((c.tokens, c.trained), (7 + 8, 2 + 5));
    let all: usize = prepared.lengths.iter().sum();
    assert_eq!(c.tokens_lost, all - 15);
}

#[test]
fn packing_fills_rows_and_wrapping_cuts() {
    let texts = ["a", "bcdef", "bc", "d"];
    // 4, 8, 5 and 4 tokens.
    let packed = |packing| {
        let rules = RowRules { longest: 9, packing: Some(packing), ..RULES };
        rows(&encoder(), &prepared(&texts, TrainOn::All, rules).unwrap())
    };
    assert_eq!(
        packed(PackingStrategy::Bfd),
        [vec!["{<s>▁bcdef</s>}"], vec!["{<s>▁bc</s>}", "{<s>▁a</s>}"], vec!["{<s>▁d</s>}"]]
    );
    assert_eq!(
        packed(PackingStrategy::Wrapped),
        [vec!["{<s>▁a</s>}", "{<s>▁bcd}"], vec!["{ef</s>}", "{<s>▁bc</s>}", "{<s>}"]]
    );
}

#[test]
fn rows_longer_than_allowed_follow_the_rule() {
    let with = |over_length| prepared(&["abcdefgh", "a"], TrainOn::All, RowRules { over_length, ..RULES });
    let lengths = |rule| with(rule).unwrap().dataset.rows.lengths();
    assert_eq!(lengths(OverLength::Truncate), [8, 4]);
    assert_eq!(lengths(OverLength::Split), [8, 3, 4]);
    assert_eq!(lengths(OverLength::Drop), [4]);
    let error = with(OverLength::Error).err().unwrap().to_string();
    assert!(
        error.contains(".jsonl line 1: 11 tokens, but max_seq_length is 8\n  hint: raise max_seq_length"),
        "{error}"
    );
}

#[test]
fn data_that_trains_nothing_is_an_error() {
    let what = |texts: &[&str], train_on, rules| prepared(texts, train_on, rules).err().unwrap().to_string();
    let masked = what(&["Qab", "Qcd"], TrainOn::Completion, RULES);
    assert!(masked.starts_with("no token of any of the 2 records is trained on: all labels are masked\n  hint:"));
    assert!(what(&["Qaaaaaaaaaaa A b"], TrainOn::Completion, RULES).contains("within max_seq_length?"));
    assert!(what(&["", ""], TrainOn::All, RULES).contains("none of the 2 records has any text"));
    let wrapped = RowRules { longest: 100, packing: Some(PackingStrategy::Wrapped), ..RULES };
    assert!(what(&["a"], TrainOn::All, wrapped).contains("4 tokens do not fill one row of 100"));
}

#[test]
fn the_first_bad_record_is_named_however_the_threads_ran() {
    let mut texts = vec!["a"; 3000];
    let table = {
        texts[5] = "b";
        let mut file = tempfile::Builder::new().suffix(".jsonl").tempfile().unwrap();
        for (i, text) in texts.iter().enumerate() {
            let key = if i == 1234 || i == 1300 || i == 2999 { "txt" } else { "text" };
            writeln!(file, "{}", serde_json::json!({ key: text })).unwrap();
        }
        DataFiles::path(file.path()).unwrap().load("train").unwrap()
    };
    for _ in 0..5 {
        let error = prepare(&table, &format(TrainOn::All), &encoder(), RULES, &|_| {}).err().unwrap().to_string();
        assert!(error.contains("line 1235: there is no column `text`\n  hint: did you mean `txt`?"), "{error}");
    }
}

#[test]
fn the_report_says_what_deserves_attention() {
    let texts = ["Qab", "QaAb", "Qabcdefg Axyz", "A</s>"];
    let prepared = prepared(&texts, TrainOn::Assistant, RULES).unwrap();
    let report = Report::new("train", &prepared, RULES, Some(3), &encoder());
    let text = report.text();
    for line in [
        "train: 4 records, 2 rows, 15 tokens, 46.7 % of them trained on",
        "  3 optimizer steps",
        "  tokens of a record: median 8, longest 16",
        "  end tokens of records: </s> (3)",
        "! 1 of 4 records longer than 8: cut off there (over_length)",
        "! 2 of 4 records without a token that is trained on (all labels masked): left out",
        "! 1 of 4 records with <s> or </s> as plain text: set special_in_template if they are tokens",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
    assert!(!text.contains("duplicates") && !text.contains("packing"));
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!((&json["records"], &json["steps"], &json["histogram"][0][1]), (&4.into(), &3.into(), &4.into()));
    assert_eq!(show_rows(&prepared.dataset, &encoder(), [0], false), "row 1:\n  <s>│▁│Q│a│A│{b│</s>}\n");
    let colored = show_rows(&prepared.dataset, &encoder(), [0], true);
    assert!(colored.contains("\x1b[32mb") && !colored.contains('{'));
}
