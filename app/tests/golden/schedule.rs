//! Compares learning rates, step counts and the group-by-length order with `transformers.Trainer`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use halfbyte::data::sampler::group_by_length;
use halfbyte::train::length::Length;
use halfbyte::train::schedule::{Schedule, ScheduleKind, warmup_steps};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::walk::{Case, Outcome};

/// One case for each learning-rate table, Trainer run and ordering, and one for all warm-up roundings.
pub fn cases(root: &Path) -> Vec<Case> {
    let dir = root.join("schedule");
    let mut cases = Vec::new();
    if let Some(tables) = read(&dir.join("lr_tables.json")) {
        let rate = tables["lr"].as_f64().expect("lr");
        for (name, spec) in tables["tables"].as_object().expect("tables").clone() {
            let file = dir.join("lr_tables.safetensors");
            cases.push(Case::new(format!("lr {name}"), move || learning_rates(&file, &name, &spec, rate)));
        }
    }
    if let Some(steps) = read(&dir.join("steps.json")) {
        for run in steps["trainer"].as_array().expect("trainer").clone() {
            let name = ["samples", "batch", "accum", "epochs", "max_steps", "drop_last"]
                .map(|k| run.get(k).map(|v| format!(" {k}={v}")).unwrap_or_default())
                .concat();
            cases.push(Case::new(format!("steps{name}"), move || trainer_steps(&run)));
        }
        let roundings = steps["warmup"].as_array().expect("warmup").clone();
        cases.push(Case::new("warm-up rounding", move || warm_up_rounding(&roundings)));
    }
    if let Some(orders) = read(&dir.join("group_by_length.json")) {
        for case in orders["cases"].as_array().expect("cases").clone() {
            let name = format!("group_by_length {}", case["name"].as_str().expect("name"));
            cases.push(Case::new(name, move || order(&case)));
        }
    }
    cases
}

fn read(path: &PathBuf) -> Option<Value> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(serde_json::from_str(&text).expect("a golden file is valid JSON"))
}

/// Compares a table of learning rates (f64) within 1e-12 relative.
fn learning_rates(file: &Path, name: &str, spec: &Value, rate: f64) -> Outcome {
    let bytes = std::fs::read(file).map_err(|e| e.to_string())?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|e| e.to_string())?;
    let want: Vec<f64> = tensors
        .tensor(name)
        .map_err(|e| e.to_string())?
        .data()
        .chunks_exact(8)
        .map(|b| f64::from_le_bytes(b.try_into().expect("8 bytes")))
        .collect();
    let number = |key: &str| spec.get(key).and_then(Value::as_f64);
    let kwargs: BTreeMap<String, f64> = spec
        .get("kwargs")
        .and_then(Value::as_object)
        .map(|o| o.iter().map(|(k, v)| (k.clone(), v.as_f64().expect("number"))).collect())
        .unwrap_or_default();
    let total = number("num_training_steps").ok_or("no num_training_steps")? as usize;
    let warmup = warmup_steps(total, number("warmup_steps").unwrap_or(0.0), number("warmup_ratio").unwrap_or(0.0));
    if Some(warmup as f64) != number("num_warmup_steps") {
        return Err(format!("{warmup} warm-up steps"));
    }
    let shape =
        ScheduleKind::parse(spec["scheduler"].as_str().expect("scheduler"), &kwargs).map_err(|e| e.to_string())?;
    let schedule = Schedule::new(shape, rate, warmup, total).map_err(|e| e.to_string())?;
    let mut worst: f64 = 0.0;
    for (step, &want) in want.iter().enumerate() {
        let got = schedule.rate(step);
        let error = if got == want { 0.0 } else { (got - want).abs() / want.abs().max(1e-12 * rate) };
        if error.is_nan() || error > 1e-12 {
            return Err(format!("step {step}: {got:e}, recorded {want:e}"));
        }
        worst = worst.max(error);
    }
    Ok(format!("{} steps, worst {worst:.0e} relative", want.len()))
}

fn trainer_steps(run: &Value) -> Outcome {
    let count = |key: &str| run.get(key).and_then(Value::as_u64).map(|n| n as usize);
    let number = |key: &str| run.get(key).and_then(Value::as_f64).unwrap_or(0.0);
    // `max_steps` is an input if `epochs` is absent, else an output.
    let epochs = run.get("epochs").and_then(Value::as_f64);
    let length = Length {
        samples: count("samples").ok_or("no samples")?,
        batch: count("batch").ok_or("no batch")?,
        accumulation: count("accum").ok_or("no accum")?,
        epochs: epochs.unwrap_or(3.0),
        max_steps: if epochs.is_none() { count("max_steps") } else { None },
        drop_last: run.get("drop_last").and_then(Value::as_bool).unwrap_or(false),
    };
    let steps = length.steps().map_err(|e| e.to_string())?;
    let got = [
        ("dataloader_length", steps.micro_batches_per_epoch),
        ("update_steps_per_epoch", steps.per_epoch),
        ("max_steps", steps.total),
        ("epochs_loop", steps.epochs),
        ("warmup_steps_used", warmup_steps(steps.total, number("warmup_steps"), number("warmup_ratio"))),
    ];
    for (key, got) in got {
        if count(key) != Some(got) {
            return Err(format!("{key} {got}, recorded {:?}", count(key)));
        }
    }
    Ok(format!("{} steps", steps.total))
}

fn warm_up_rounding(cases: &[Value]) -> Outcome {
    for case in cases {
        let (total, ratio) = (case["max_steps"].as_u64().ok_or("max_steps")?, case["warmup_ratio"].as_f64());
        let got = warmup_steps(total as usize, 0.0, ratio.ok_or("warmup_ratio")?);
        if Some(got as u64) != case["warmup_steps"].as_u64() {
            return Err(format!("{got} for {case}"));
        }
    }
    Ok(format!("{} roundings", cases.len()))
}

fn order(case: &Value) -> Outcome {
    let list = |key: &str| -> Vec<usize> {
        case[key].as_array().expect(key).iter().map(|v| v.as_u64().expect(key) as usize).collect()
    };
    let batch = case["sampler_batch"].as_u64().ok_or("sampler_batch")? as usize;
    let want = list("order");
    let got = group_by_length(&list("lengths"), batch, list("permutation"));
    match got.iter().zip(&want).position(|(g, w)| g != w) {
        None if got.len() == want.len() => Ok(format!("{} rows", got.len())),
        None => Err(format!("{} rows, recorded {}", got.len(), want.len())),
        Some(i) => Err(format!("place {i}: row {}, recorded {}", got[i], want[i])),
    }
}
