//! The `[quantization]` section, and the compute type of a run.

use toml::Value;

use super::model_source::LoadDtype;
use super::raw::Raw;
use halfbyte_core::dtype::DType;
use halfbyte_core::error::Result;
use halfbyte_core::model::HEAD;
use halfbyte_core::quant::{QuantKind, Scheme};

/// How the base is quantized while it is loaded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quantization {
    /// `bnb_4bit_quant_type` (FP4 by default, as in BitsAndBytesConfig), `bnb_4bit_blocksize` and
    /// `bnb_4bit_use_double_quant`.
    pub scheme: Scheme,
    /// `llm_int8_skip_modules`: modules that stay in 16 bits.
    pub skip_modules: Vec<String>,
}

/// The keys that have an effect only if the base is quantized.
const DETAILS: [&str; 4] =
    ["bnb_4bit_quant_type", "bnb_4bit_use_double_quant", "bnb_4bit_blocksize", "llm_int8_skip_modules"];

const COMPUTE: &str = "bnb_4bit_compute_dtype";

impl Quantization {
    /// Reads the section, with a line for the report. Errors if it has other keys but `load_in_4bit` is not given.
    pub(super) fn read(raw: &Raw) -> Result<(Option<Self>, Option<String>)> {
        let kinds = [("nf4", QuantKind::Nf4), ("fp4", QuantKind::Fp4)];
        let scheme = Scheme {
            kind: raw.choice("bnb_4bit_quant_type", &kinds).unwrap_or(QuantKind::Fp4),
            blocksize: raw.count("bnb_4bit_blocksize", 1).unwrap_or(64),
            double: raw.flag("bnb_4bit_use_double_quant").unwrap_or(false),
        };
        let read = Self { scheme, skip_modules: raw.texts("llm_int8_skip_modules").unwrap_or_default() };
        if !scheme.blocksize.is_power_of_two() || !(32..=4096).contains(&scheme.blocksize) {
            let error = raw.wrong("bnb_4bit_blocksize", "expected a power of two from 32 to 4096");
            raw.report(error.hint("bitsandbytes uses 64"));
        }
        let given: Vec<&str> = DETAILS.into_iter().filter(|key| raw.has(key)).collect();
        match (raw.flag("load_in_4bit"), given.first()) {
            (Some(true), _) => {
                let note = head_note(&read.skip_modules);
                Ok((Some(read), note))
            }
            (None, Some(key)) => {
                Err(raw.wrong(key, "nothing is quantized without load_in_4bit").hint("add load_in_4bit = true"))
            }
            (_, Some(_)) => {
                Ok((None, Some(format!("`{}` has no effect with load_in_4bit = false", given.join("`, `")))))
            }
            (_, None) => Ok((None, None)),
        }
    }
}

/// A line for the report if transformers would quantize the head: its default for `llm_int8_skip_modules` has the head,
/// and a list that is given replaces the default.
fn head_note(skip: &[String]) -> Option<String> {
    (!skip.is_empty() && skip.iter().all(|name| name != HEAD)).then(|| {
        format!(
            "`llm_int8_skip_modules` does not name {HEAD}: transformers then quantizes the head; halfbyte always keeps it \
             in the compute type"
        )
    })
}

/// Keys and values of the resolved recipe; None for a key without a value.
pub(super) fn entries(quantization: Option<&Quantization>, compute: DType) -> Vec<(&'static str, Option<Value>)> {
    let mut entries = vec![
        ("load_in_4bit", quantization.is_some().then_some(true.into())),
        ("bf16", Some((compute == DType::Bf16).into())),
        ("fp16", Some((compute == DType::F16).into())),
        // Also without load_in_4bit, because the checkpoint may be quantized.
        (COMPUTE, Some(compute.torch_name().into())),
    ];
    if let Some(q) = quantization {
        entries.extend([
            ("bnb_4bit_quant_type", Some(q.scheme.kind.name().into())),
            ("bnb_4bit_use_double_quant", Some(q.scheme.double.into())),
            ("bnb_4bit_blocksize", Some(Value::from(q.scheme.blocksize as i64))),
            ("llm_int8_skip_modules", Some(q.skip_modules.clone().into())),
        ]);
    }
    entries
}

/// The compute type, with a line for the report: `bnb_4bit_compute_dtype`, or that of `bf16` or `fp16`, or float32 for
/// a 4-bit base (the default of BitsAndBytesConfig), or the type in which the model is loaded. Errors if two keys
/// contradict each other.
pub(super) fn compute(raw: &Raw, quantized: bool, load: LoadDtype) -> Result<(DType, Option<String>)> {
    let (bf16, fp16) = (raw.flag("bf16").unwrap_or(false), raw.flag("fp16").unwrap_or(false));
    if bf16 && fp16 {
        return Err(raw.wrong("fp16", "`bf16` is true as well").hint("keep one of them"));
    }
    let flag = [(bf16, "bf16", DType::Bf16), (fp16, "fp16", DType::F16)].into_iter().find(|(on, ..)| *on);
    let named = raw.text(COMPUTE).and_then(|text| {
        let dtype = DType::from_torch_name(&text);
        if dtype.is_none() {
            raw.report(raw.wrong(COMPUTE, "expected \"float32\", \"float16\" or \"bfloat16\""));
        }
        dtype
    });
    // It has no effect if the recipe turns quantization off.
    let named = if raw.flag("load_in_4bit") == Some(false) { None } else { named };
    match (named, flag) {
        (Some(dtype), Some((_, key, other))) if dtype != other => Err(raw
            .wrong(key, format!("{COMPUTE} is {}", dtype.torch_name()))
            .hint(format!("set {COMPUTE} = \"{}\", or {key} = false", other.torch_name()))),
        (Some(DType::F16), None) => {
            let note = "float16 compute without fp16 = true: HF keeps everything outside the 4-bit products in float32 \
                        and scales no loss; halfbyte computes in float16 and scales the loss";
            Ok((DType::F16, Some(note.into())))
        }
        (Some(dtype), _) => Ok((dtype, None)),
        (None, Some((_, _, dtype))) => Ok((dtype, None)),
        (None, None) => match load {
            LoadDtype::Named(dtype) if !quantized => Ok((dtype, None)),
            _ => Ok((DType::F32, None)),
        },
    }
}
