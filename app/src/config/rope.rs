//! Reads `rope_theta` and `rope_scaling` of a config.json.

use super::fields::JsonFields;
use halfbyte_core::error::{Error, Result};
use halfbyte_core::model::{Rope, RopeScaling};

/// Reads `rope_theta` and `rope_scaling` (transformers 5: `rope_parameters`); `theta` is the family's default.
pub(super) fn read(fields: &JsonFields, theta: f64, max_positions: usize) -> Result<Rope> {
    // Transformers 5 moved both into one object, but still reads the old names.
    let new = fields.object("rope_parameters")?;
    let old = fields.object("rope_scaling")?;
    let inner = new.as_ref().map(|f| f.positive("rope_theta")).transpose()?.flatten();
    let theta = inner.or(fields.positive("rope_theta")?).unwrap_or(theta);
    let scaling = match old.as_ref().or(new.as_ref()) {
        Some(f) => scaling(f, max_positions)?,
        None => RopeScaling::None,
    };
    Ok(Rope { theta, scaling })
}

/// The fields of rope type "yarn".
const YARN: [&str; 8] = [
    "factor",
    "original_max_position_embeddings",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "truncate",
];

/// Reads rope type "yarn" with the defaults of transformers (`_compute_yarn_parameters`). Without an original length,
/// `max_position_embeddings` is that of the training before the stretch.
fn yarn(fields: &JsonFields, factor: f64, max_positions: usize) -> Result<RopeScaling> {
    let (beta_fast, beta_slow) =
        (fields.positive("beta_fast")?.unwrap_or(32.0), fields.positive("beta_slow")?.unwrap_or(1.0));
    if beta_fast < beta_slow {
        return Err(fields.wrong("beta_fast", "expected a number of at least `beta_slow`"));
    }
    let scale = |weight: f64| if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 };
    let attention_factor = match (fields.positive("mscale")?, fields.positive("mscale_all_dim")?) {
        (Some(one), Some(all)) => scale(one) / scale(all),
        _ => scale(1.0),
    };
    Ok(RopeScaling::Yarn {
        factor,
        original_max: fields.count("original_max_position_embeddings")?.unwrap_or(max_positions),
        beta_fast,
        beta_slow,
        truncate: fields.flag("truncate")?.unwrap_or(true),
        attention_factor: fields.positive("attention_factor")?.unwrap_or(attention_factor),
    })
}

fn scaling(fields: &JsonFields, max_positions: usize) -> Result<RopeScaling> {
    // `rope_type` has been the name since transformers 4.43; a config may have both.
    let kind = match fields.text("rope_type")? {
        Some(kind) => kind,
        None => fields.text("type")?.unwrap_or("default"),
    };
    let need = |key: &str| {
        fields
            .positive(key)?
            .ok_or_else(|| Error::input(format!("{}: rope type \"{kind}\" needs `{key}`", fields.file.display())))
    };
    let known: &[&str] = match kind {
        "default" => &[],
        "linear" => &["factor"],
        "dynamic" => &["factor"],
        "llama3" => &["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"],
        "yarn" => &YARN,
        other => {
            return Err(Error::input(format!("{}: unknown rope type \"{other}\"", fields.file.display()))
                .hint("halfbyte implements default, linear, dynamic, llama3 and yarn"));
        }
    };
    let shared = ["rope_type", "type", "rope_theta"];
    if let Some(key) = fields.map.keys().find(|k| {
        let k = k.as_str();
        fields.get(k).is_some() && !known.contains(&k) && !shared.contains(&k)
    }) {
        return Err(fields.wrong(key, &format!("rope type \"{kind}\" has no such field")));
    }
    let factor = || match need("factor")? {
        f if f < 1.0 => Err(fields.wrong("factor", "expected a number of at least 1")),
        f => Ok(f),
    };
    Ok(match kind {
        "linear" => RopeScaling::Linear { factor: factor()? },
        "dynamic" => RopeScaling::Dynamic { factor: factor()?, original_max: max_positions },
        "llama3" => {
            let (low, high) = (need("low_freq_factor")?, need("high_freq_factor")?);
            if high <= low {
                return Err(fields.wrong("high_freq_factor", "expected a number above `low_freq_factor`"));
            }
            let original_max = fields.required_count("original_max_position_embeddings")?;
            RopeScaling::Llama3 { factor: factor()?, low_freq_factor: low, high_freq_factor: high, original_max }
        }
        "yarn" => yarn(fields, factor()?, max_positions)?,
        _ => RopeScaling::None,
    })
}
