//! `nf4/`: codes, scales and dequantized values of bitsandbytes' CUDA kernels, compared bit for bit with the definition
//! and with the op on the device that `HALFBYTE_DEVICE` names.

use std::path::Path;

use halfbyte_core::dtype::DType;
use halfbyte_core::op::{Nested, Phase, Purpose, View, Weight4};
use halfbyte_core::plan::plan;
use halfbyte_core::quant::QuantKind;
use halfbyte_core::quant::blockwise8;
use halfbyte_core::quant::codebook4::{self, NestedScales};
use halfbyte_core::tape::Tape;
use serde_json::Value;
use std::sync::Arc;

use crate::device;
use crate::rig::text;
use crate::tensors::{Tensors, equal_bits, equal_bytes, stems};
use crate::walk::{Case, Outcome};

pub fn cases(root: &Path) -> Vec<Case> {
    let folder = root.join("nf4");
    let mut cases = Vec::new();
    if folder.join("tables.safetensors").is_file() {
        let folder = folder.clone();
        cases.push(Case::new("tables", move || tables(&folder)));
    }
    let report: Value = std::fs::read_to_string(folder.join("report.json"))
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    for stem in stems(&folder, ".expected.safetensors") {
        let mut variants: Vec<String> = match Tensors::open(folder.join(format!("{stem}.safetensors"))) {
            Ok(file) => file.names().iter().filter_map(|n| n.strip_suffix(".weight")).map(String::from).collect(),
            Err(_) => vec!["unreadable".into()],
        };
        variants.sort();
        for variant in variants {
            let (folder, stem, facts) = (folder.clone(), stem.clone(), report["cases"][&stem].clone());
            cases.push(Case::new(format!("{stem} {variant}"), move || {
                let informational = facts["informational"].as_bool().unwrap_or(false);
                match compare(&folder, &stem, &variant, &facts["variants"][&variant]) {
                    Err(wrong) if informational => Ok(format!("informational only: {wrong}")),
                    outcome => outcome,
                }
            }));
        }
    }
    cases
}

fn tables(folder: &Path) -> Outcome {
    let file = Tensors::open(folder.join("tables.safetensors"))?;
    let tables: [(&str, &[f32]); 6] = [
        ("nf4_quant_map", &codebook4::NF4_LEVELS),
        ("fp4_quant_map", &codebook4::FP4_LEVELS),
        ("nf4_thresholds", &codebook4::NF4_THRESHOLDS),
        ("fp4_thresholds_abs", &codebook4::FP4_THRESHOLDS),
        ("dynamic_map_signed", &*blockwise8::SIGNED),
        ("dynamic_map_unsigned", &*blockwise8::UNSIGNED),
    ];
    for (name, ours) in tables {
        equal_bits(name, ours, &file.f32(name)?)?;
    }
    equal_bytes("fp4_code_of_rank", &codebook4::FP4_CODE_OF_RANK, &file.u8("fp4_code_of_rank")?)?;
    Ok("7 tables equal".into())
}

/// One variant `M = {nf4|fp4}.bs{blocksize}.{plain|dq}` of one case.
fn compare(folder: &Path, stem: &str, variant: &str, facts: &Value) -> Outcome {
    let file = Tensors::open(folder.join(format!("{stem}.safetensors")))?;
    let expected = Tensors::open(folder.join(format!("{stem}.expected.safetensors")))?;
    let parts: Vec<&str> = variant.split('.').collect();
    let [kind, blocksize, scales] = parts[..] else { return Err(format!("odd variant name {variant}")) };
    let kind = QuantKind::parse(kind).ok_or("unknown kind")?;
    let blocksize: usize = blocksize.strip_prefix("bs").and_then(|n| n.parse().ok()).ok_or("unknown block size")?;
    let weight = |suffix: &str| format!("{variant}.weight{suffix}");

    let input = expected.f32("input")?;
    let mut codes = vec![0; input.len().div_ceil(2)];
    let mut absmax = vec![0.0; input.len().div_ceil(blocksize)];
    codebook4::quantize(kind, blocksize, &input, &mut codes, &mut absmax);
    equal_bytes("codes", &codes, &file.u8(&weight(""))?)?;
    equal_bits("absmax", &absmax, &expected.f32(&format!("{variant}.absmax_f32"))?)?;
    equal_bits("quant_map", codebook4::levels(kind), &file.f32(&weight(".quant_map"))?)?;

    let plain = absmax.clone();
    let state = file.u8(&weight(&format!(".quant_state.bitsandbytes__{}", kind.name())))?;
    let state: Value = serde_json::from_slice(&state).map_err(|e| format!("quant_state: {e}"))?;
    let restored = if scales == "dq" {
        let golden = NestedScales {
            codes: file.u8(&weight(".absmax"))?,
            absmax: file.f32(&weight(".nested_absmax"))?,
            offset: state["nested_offset"].as_f64().ok_or("no nested_offset")? as f32,
        };
        equal_bits("nested_quant_map", &*blockwise8::SIGNED, &file.f32(&weight(".nested_quant_map"))?)?;
        let given = codebook4::nest(&absmax, golden.offset);
        equal_bytes("nested codes", &given.codes, &golden.codes)?;
        equal_bits("nested_absmax", &given.absmax, &golden.absmax)?;
        let own = codebook4::mean(&absmax);
        if (own - golden.offset).abs() > 1e-6 * golden.offset.abs() {
            return Err(format!("offset {own:e}, recorded {:e}", golden.offset));
        }
        if facts["nested_codes_stable_under_3ulp_offset"].as_bool() == Some(true) {
            equal_bytes("nested codes with our own offset", &codebook4::nest(&absmax, own).codes, &golden.codes)?;
        }
        golden.restore()
    } else {
        equal_bits("stored absmax", &absmax, &file.f32(&weight(".absmax"))?)?;
        absmax
    };
    equal_bits("absmax_restored", &restored, &expected.f32(&format!("{variant}.absmax_restored_f32"))?)?;
    let own = (scales == "dq").then(|| codebook4::nest(&plain, codebook4::mean(&plain)));
    on_device(kind, blocksize, &input, &codes, &plain, own)?;
    let compared = dequantized(&expected, variant, kind, blocksize, &codes, &restored)?;
    Ok(format!("{} codes, {} scales, {compared} equal", input.len(), restored.len()))
}

/// Checks that the op on the device gives these codes and scales. With double quantization, it computes its own offset.
fn on_device(
    kind: QuantKind,
    block: usize,
    input: &[f32],
    codes: &[u8],
    absmax: &[f32],
    nested: Option<NestedScales>,
) -> Result<(), String> {
    let mut t = Tape::new(1, DType::Bf16);
    let mut buf = |name: &str, cols, dtype| t.resident(name, 1, cols, dtype, Purpose::Exchange);
    let x = buf("x", input.len(), DType::F32);
    let scale = if nested.is_some() { DType::U8 } else { DType::F32 };
    let to = Weight4 {
        kind,
        block,
        codes: buf("codes", codes.len(), DType::U8),
        absmax: buf("absmax", absmax.len(), scale),
        nested: nested.as_ref().map(|n| Nested {
            absmax: buf("nested", n.absmax.len(), DType::F32),
            offset: buf("offset", 1, DType::F32),
        }),
    };
    t.quantize_into(x, to);
    t.finish(Phase::Begin);
    let program = Arc::new(t.program());
    let mut device = device::open(DType::Bf16, Box::new(|_| ()))?;
    device.allocate(program.clone(), Arc::new(plan(&program))).map_err(text)?;
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    device.write(x.buf, 0, &bytes(input)).map_err(text)?;
    device.run(Phase::Begin, 0).map_err(text)?;
    let mut equal = |what: &str, view: View, want: Vec<u8>| {
        let mut found = vec![0; want.len()];
        device.read(view.buf, 0, &mut found).map_err(text)?;
        equal_bytes(&format!("{what} of the op"), &found, &want)
    };
    equal("codes", to.codes, codes.to_vec())?;
    match (&nested, to.nested) {
        (Some(nested), Some(second)) => {
            equal("nested codes", to.absmax, nested.codes.clone())?;
            equal("nested absmax", second.absmax, bytes(&nested.absmax))?;
            equal("offset", second.offset, bytes(&[nested.offset]))
        }
        _ => equal("absmax", to.absmax, bytes(absmax)),
    }
}

/// Compares the dequantized values in every recorded type. Returns the names of these types.
fn dequantized(
    expected: &Tensors,
    variant: &str,
    kind: QuantKind,
    blocksize: usize,
    codes: &[u8],
    absmax: &[f32],
) -> Result<String, String> {
    let mut compared = Vec::new();
    for (name, dtype) in [("f32", DType::F32), ("bf16", DType::Bf16), ("f16", DType::F16)] {
        let key = format!("{variant}.dequant_{name}");
        if expected.has(&key) {
            let golden = expected.f32(&key)?;
            let mut ours = vec![0.0; golden.len()];
            codebook4::dequantize(kind, blocksize, codes, absmax, &mut ours, |x| dtype.round(x));
            equal_bits(&key, &ours, &golden)?;
            compared.push(name);
        }
    }
    if compared.is_empty() { Err("no dequantized values recorded".into()) } else { Ok(compared.join("+")) }
}
