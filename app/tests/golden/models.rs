//! `models/*-bnb-4bit`: compares checkpoints that bitsandbytes quantized with our quantization of the same model.

use std::path::Path;

use halfbyte::config::recipe::LoadDtype;
use halfbyte::weights::names::{check, is_quantized};
use halfbyte::weights::quantize::{Absmax, QuantizedWeight, Scheme, load_dtype};
use halfbyte::weights::safetensors::TensorFiles;
use halfbyte_core::model::linears;

use crate::tensors::{equal_bits, equal_bytes};
use crate::walk::{Case, Outcome};

pub fn cases(root: &Path) -> Vec<Case> {
    let suffix = "-bnb-4bit";
    let mut cases = Vec::new();
    for name in crate::tensors::stems(&root.join("models"), suffix) {
        let root = root.join("models");
        cases.push(Case::new(format!("{name}{suffix}"), move || {
            compare(&root.join(&name), &root.join(format!("{name}{suffix}"))).map_err(|e| e.to_string())?
        }));
    }
    cases
}

fn compare(original: &Path, quantized: &Path) -> halfbyte_core::error::Result<Outcome> {
    let config = halfbyte::config::config_json::open(quantized)?;
    let Some(stored) = config.quantization.clone() else { return Ok(Err("no quantization_config".into())) };
    let (original_config, ours) = (halfbyte::config::config_json::open(original)?, TensorFiles::open(original)?);
    let theirs = TensorFiles::open(quantized)?;
    check(&ours, &original_config)?;
    check(&theirs, &config)?;
    let scheme = Scheme { kind: stored.kind, blocksize: 64, double: stored.double_quant };
    let mut count = 0;
    for module in linears(&config) {
        let shape = [module.out_features, module.in_features];
        let read = QuantizedWeight::read(&theirs, &module.name, shape)?;
        if read.is_some() != is_quantized(&module, &stored.skip_modules) {
            return Ok(Err(format!("{} is {} 4 bits", module.name, if read.is_some() { "in" } else { "not in" })));
        }
        let Some(read) = read else { continue };
        let dtype = load_dtype(LoadDtype::Auto, &original_config, &ours, true);
        let made = QuantizedWeight::from_checkpoint(&ours, &module.name, shape, dtype, scheme)?;
        if let Err(wrong) = equal(&made, &read) {
            return Ok(Err(format!("{}: {wrong}", module.name)));
        }
        count += 1;
    }
    Ok(Ok(format!("{count} modules equal")))
}

fn equal(made: &QuantizedWeight, read: &QuantizedWeight) -> Result<(), String> {
    equal_bytes("codes", &made.codes, &read.codes)?;
    if (made.kind, made.blocksize, made.dtype) != (read.kind, read.blocksize, read.dtype) {
        return Err("kind, block size or type differ".into());
    }
    match (&made.absmax, &read.absmax) {
        (Absmax::Plain(a), Absmax::Plain(b)) => equal_bits("absmax", a, b),
        (Absmax::Nested(a), Absmax::Nested(b)) => {
            // The last bits of the mean depend on the order of the sum, and the nested codes depend on the mean.
            if (a.offset - b.offset).abs() > 1e-6 * b.offset.abs() {
                return Err(format!("offset {:e}, recorded {:e}", a.offset, b.offset));
            }
            equal_bytes("nested codes", &a.codes, &b.codes)
        }
        _ => Err("one is double-quantized, the other is not".into()),
    }
}
