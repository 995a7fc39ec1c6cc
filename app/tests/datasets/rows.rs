//! A seed or a slice gives the rows that numpy and the `datasets` library give (tests/data/rows/record.py).

use halfbyte::config::data::TestSize;
use halfbyte::data::random::Pcg64;
use halfbyte::data::subset::{Slice, shuffle, slices, train_test_split};
use serde_json::Value;

fn recorded(key: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("../data/rows/rows.json")).expect("rows.json");
    let cases = all[key].as_array().expect("a list").clone();
    assert!(!cases.is_empty());
    cases
}

fn numbers(value: &Value) -> Vec<usize> {
    value.as_array().expect("a list").iter().map(|v| v.as_u64().expect("a number") as usize).collect()
}

#[test]
fn permutations_are_numpys() {
    for case in recorded("permutations") {
        let entropy: Vec<u64> = case["entropy"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap()).collect();
        let order = Pcg64::new(&entropy).permutation(case["n"].as_u64().unwrap() as usize);
        assert_eq!(order, numbers(&case["order"]), "entropy {entropy:?}");
    }
}

#[test]
fn shuffles_are_those_of_datasets() {
    for case in recorded("shuffles") {
        let rows = numbers(&case["rows"]);
        assert_eq!(shuffle(rows.len(), case["seed"].as_u64().unwrap()), rows);
    }
}

#[test]
fn train_test_splits_are_those_of_datasets() {
    for case in recorded("train_test_splits") {
        let size = match case["fraction"].as_bool().unwrap() {
            true => TestSize::Share(case["test_size"].as_f64().unwrap()),
            false => TestSize::Rows(case["test_size"].as_u64().unwrap() as usize),
        };
        let rows = case["n"].as_u64().unwrap() as usize;
        let both = train_test_split(rows, size, case["seed"].as_u64().unwrap()).unwrap();
        assert_eq!(both, (numbers(&case["train"]), numbers(&case["test"])), "{size:?} of {rows}");
    }
}

#[test]
fn slices_are_those_of_datasets() {
    for case in recorded("slices") {
        let sizes: Vec<(String, usize)> =
            case["sizes"].as_object().unwrap().iter().map(|(k, v)| (k.clone(), v.as_u64().unwrap() as usize)).collect();
        let spec = case["spec"].as_str().unwrap();
        let want: Vec<Slice> = case["parts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| Slice {
                split: p[0].as_str().unwrap().into(),
                start: p[1].as_u64().unwrap() as usize,
                end: p[2].as_u64().unwrap() as usize,
            })
            .collect();
        assert_eq!(slices(spec, &sizes).unwrap(), want, "{spec} of {sizes:?}");
    }
}
