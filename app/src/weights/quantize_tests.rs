//! Tests of [`super`].

use super::*;
use crate::weights::safetensors::{Output, tests::Folder, write};
use serde_json::{Value, json};
use std::path::Path;

const SCHEME: Scheme = Scheme { kind: QuantKind::Nf4, blocksize: 32, double: true };
const SHAPE: [usize; 2] = [24, 40];

fn values() -> Vec<f32> {
    (0..24 * 40).map(|i| ((i * 7919 % 997) as f32 - 498.0) * 1e-3).collect()
}

/// The tensors that bitsandbytes stores for `q` under the module name "m".
fn stored(q: &QuantizedWeight) -> Vec<Output<'static>> {
    let bytes = |name: &str, shape: Vec<usize>, data: Vec<u8>| Output {
        name: format!("m.weight{name}"),
        dtype: DType::U8,
        shape,
        data: data.into(),
    };
    let floats =
        |name: &str, values: &[f32]| Output::floats(format!("m.weight{name}"), DType::F32, vec![values.len()], values);
    let mut state = json!({"quant_type": "nf4", "blocksize": q.blocksize, "dtype": "bfloat16", "shape": q.shape});
    let mut tensors =
        vec![bytes("", vec![q.codes.len(), 1], q.codes.clone()), floats(".quant_map", codebook4::levels(q.kind))];
    match &q.absmax {
        Absmax::Plain(absmax) => tensors.push(floats(".absmax", absmax)),
        Absmax::Nested(nested) => {
            tensors.push(bytes(".absmax", vec![nested.codes.len()], nested.codes.clone()));
            tensors.push(floats(".nested_absmax", &nested.absmax));
            tensors.push(floats(".nested_quant_map", &*blockwise8::SIGNED));
            state["nested_blocksize"] = 256.into();
            state["nested_dtype"] = "float32".into();
            state["nested_offset"] = f64::from(nested.offset).into();
        }
    }
    tensors.push(bytes(
        ".quant_state.bitsandbytes__nf4",
        vec![state.to_string().len()],
        state.to_string().into_bytes(),
    ));
    tensors
}

fn read(tensors: &[Output]) -> Result<Option<QuantizedWeight>> {
    let folder = Folder::new("quantized");
    write(&folder.0.join("model.safetensors"), tensors).expect("written");
    QuantizedWeight::read(&TensorFiles::open(&folder.0).expect("valid"), "m", SHAPE)
}

#[test]
fn prequantized_tensors_are_read() {
    for double in [true, false] {
        let q = QuantizedWeight::new(Scheme { double, ..SCHEME }, DType::Bf16, SHAPE, &values());
        assert_eq!(read(&stored(&q)).expect("valid"), Some(q));
    }
    let plain = Output::floats("m.weight".into(), DType::Bf16, SHAPE.to_vec(), &values());
    assert_eq!(read(&[plain]).expect("valid"), None);
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let q = QuantizedWeight::new(SCHEME, DType::Bf16, SHAPE, &values());
    let without = |suffix: &str| {
        let tensors: Vec<Output> = stored(&q).into_iter().filter(|t| !t.name.ends_with(suffix)).collect();
        read(&tensors).expect_err(suffix).to_string()
    };
    for suffix in [".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"] {
        assert!(without(suffix).contains(suffix), "{suffix}");
    }
    let changed = |name: &str, change: &dyn Fn(&mut Output)| {
        let mut tensors = stored(&q);
        tensors.iter_mut().filter(|t| t.name.ends_with(name)).for_each(change);
        read(&tensors).expect_err(name).to_string()
    };
    let short = changed("m.weight", &|t| {
        t.data.to_mut().pop();
        t.shape[0] -= 1;
    });
    assert!(short.contains("`m.weight` has 479 elements, expected 480"), "{short}");
    let table = changed(".nested_quant_map", &|t| t.data.to_mut()[0] ^= 1);
    assert!(table.contains("nested_quant_map") && table.contains("bitsandbytes"), "{table}");
    let state = |key: &str, value: Value| {
        let message = changed("bitsandbytes__nf4", &|t| {
            let mut state: Value = serde_json::from_slice(&t.data).expect("JSON");
            state[key] = value.clone();
            t.data = state.to_string().into_bytes().into();
            t.shape = vec![t.data.len()];
        });
        assert!(message.contains(&format!("`{key}`")), "{key}: {message}");
    };
    state("blocksize", json!(96));
    state("blocksize", json!(0));
    state("dtype", json!("int8"));
    state("shape", json!([40, 24]));
    state("nested_blocksize", json!(128));
    state("nested_offset", json!("x"));
    state("quant_type", json!("fp4"));
    let garbage = changed("bitsandbytes__nf4", &|t| t.data.to_mut().fill(0xff));
    assert!(garbage.contains("UTF-8"), "{garbage}");
}

#[test]
fn weights_are_cast_before_they_are_quantized() {
    // The two values lie on either side of a threshold in f32; both round to 0.86328125 in bf16.
    let mut wide = values();
    wide[0] = 1.0;
    wide[1] = 0.8614784;
    wide[2] = 0.8614786;
    let folder = Folder::new("cast");
    write(&folder.0.join("model.safetensors"), &[Output::floats("m.weight".into(), DType::F32, SHAPE.to_vec(), &wide)])
        .expect("written");
    let checkpoint = TensorFiles::open(&folder.0).expect("valid");
    let codes = |dtype| {
        let q = QuantizedWeight::from_checkpoint(&checkpoint, "m", SHAPE, dtype, SCHEME).expect("fits");
        (q.codes[0] & 15, q.codes[1] >> 4)
    };
    assert_eq!(codes(DType::F32), (14, 15));
    assert_eq!(codes(DType::Bf16), (15, 15));
}

#[test]
fn the_type_of_loading_is_the_recipes() {
    let config = |more: &str| {
        let text = format!(
            r#"{{"model_type": "llama", "vocab_size": 8, "hidden_size": 8, "intermediate_size": 8,
                "num_hidden_layers": 1, "num_attention_heads": 2{more}}}"#
        );
        crate::config::config_json::parse(&text, Path::new("config.json")).expect("valid")
    };
    let folder = Folder::new("load");
    write(&folder.0.join("model.safetensors"), &[Output::floats("a".into(), DType::Bf16, vec![1], &[1.0])])
        .expect("written");
    let checkpoint = TensorFiles::open(&folder.0).expect("valid");
    let dtype = |said, more: &str, quantized| load_dtype(said, &config(more), &checkpoint, quantized);
    let named = r#", "torch_dtype": "float32""#;
    assert_eq!(dtype(LoadDtype::Named(DType::F32), "", true), DType::F32);
    assert_eq!(dtype(LoadDtype::Unsaid, named, true), DType::F16);
    assert_eq!(dtype(LoadDtype::Unsaid, named, false), DType::F32);
    assert_eq!(dtype(LoadDtype::Auto, named, true), DType::F32);
    assert_eq!(dtype(LoadDtype::Auto, "", true), DType::Bf16);
}
