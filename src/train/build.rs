//! From a model folder and a LoRA configuration to the parts of a [`Spec`](crate::model::Spec).

use crate::config::model::ModelConfig;
use crate::dtype::Scheme;
use crate::error::Result;
use crate::model::AdapterSpec;
use crate::weights::names::{is_quantized, linears};
use crate::weights::quantize::Quantized;
use crate::weights::safetensors::Checkpoint;
use crate::weights::targets::AdapterModule;
use std::collections::HashMap;

/// bitsandbytes' block size when a checkpoint is quantised while it is loaded; transformers has no key for it.
pub const BLOCK: usize = 64;

/// How each linear that is held in 4 bits is quantised, by module name; what is not there stays in the compute type.
///
/// A checkpoint that bitsandbytes has already quantised decides for itself, module by module; `scheme` and `skip` are then
/// ignored, as in transformers. Without its weights (`plan` needs none) config.json's `quantization_config` must do, which
/// does not name the block size. Any other checkpoint is quantised by `scheme`, but for the modules that `skip` names;
/// without a scheme nothing is.
pub fn base_schemes(
    config: &ModelConfig,
    checkpoint: Option<&Checkpoint>,
    scheme: Option<Scheme>,
    skip: &[String],
) -> Result<HashMap<String, Scheme>> {
    let mut schemes = HashMap::new();
    for module in linears(config) {
        let scheme = match (&config.quantization, checkpoint) {
            (Some(_), Some(checkpoint)) => Quantized::stored_scheme(checkpoint, &module.name)?,
            (Some(stored), None) => Some(Scheme { kind: stored.kind, blocksize: BLOCK, double: stored.double_quant })
                .filter(|_| is_quantized(&module, &stored.skip_modules)),
            (None, _) => scheme.filter(|_| is_quantized(&module, skip)),
        };
        schemes.extend(scheme.map(|scheme| (module.name, scheme)));
    }
    Ok(schemes)
}

/// The adapters of the modules that a LoRA configuration resolves to.
pub fn adapter_specs(modules: &[AdapterModule]) -> HashMap<String, AdapterSpec> {
    modules.iter().map(|m| (m.module.name.clone(), AdapterSpec { r: m.r, scale: m.scale })).collect()
}
