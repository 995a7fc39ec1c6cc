//! Rotary position embeddings: the frequencies that a config asks for.

/// Base frequency and scaling rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// `rope_theta`.
    pub theta: f64,
    /// `rope_scaling`.
    pub scaling: RopeScaling,
}

/// How frequencies are stretched for contexts longer than the model was trained on
/// (transformers, `modeling_rope_utils.py`).
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Frequencies as trained.
    None,
    /// All frequencies divided by `factor`.
    Linear {
        /// Stretch of the context.
        factor: f64,
    },
    /// The base grows with the longest sequence once that exceeds `original_max` (NTK-aware).
    Dynamic {
        /// Stretch at `factor` times the original length.
        factor: f64,
        /// `max_position_embeddings`.
        original_max: usize,
    },
    /// Llama 3.1: long wavelengths divided by `factor`, short ones kept, a ramp between.
    Llama3 {
        /// Stretch of the longest wavelengths.
        factor: f64,
        /// Wavelengths above `original_max / low_freq_factor` are stretched in full.
        low_freq_factor: f64,
        /// Wavelengths below `original_max / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Context length of the original training.
        original_max: usize,
    },
    /// YaRN (Peng et al. 2023): frequencies that turn less than `beta_slow` times in the original context are divided by
    /// `factor`, those that turn more than `beta_fast` times are kept, with a ramp over the pairs between.
    Yarn {
        /// Stretch of the slow frequencies.
        factor: f64,
        /// Context length of the original training.
        original_max: usize,
        /// Turns above which a frequency is kept.
        beta_fast: f64,
        /// Turns below which a frequency is stretched in full.
        beta_slow: f64,
        /// Whether the ramp begins and ends at whole pairs.
        truncate: bool,
        /// Factor on q and on k.
        attention_factor: f64,
    },
}

impl Rope {
    /// Factor on q · k. HF multiplies cos and sin by its root; the product is the same up to rounding.
    pub fn score_factor(&self) -> f64 {
        match self.scaling {
            RopeScaling::Yarn { attention_factor, .. } => attention_factor * attention_factor,
            _ => 1.0,
        }
    }

    /// The longest context, in positions, of a model whose `max_position_embeddings` is `max_positions`. Configs differ in
    /// whether that number includes the stretch, so the larger reading counts.
    pub fn longest_context(&self, max_positions: usize) -> usize {
        let stretched = match self.scaling {
            RopeScaling::None => 0.0,
            RopeScaling::Linear { factor } => factor * max_positions as f64,
            RopeScaling::Dynamic { factor, original_max }
            | RopeScaling::Llama3 { factor, original_max, .. }
            | RopeScaling::Yarn { factor, original_max, .. } => factor * original_max as f64,
        };
        max_positions.max(stretched as usize)
    }

    /// Angle per position of each pair of a head: `[head_dim / 2]`, computed in f32 as transformers does.
    /// `longest` is the length of the longest sequence (only [`RopeScaling::Dynamic`] depends on it).
    pub fn inv_freq(&self, head_dim: usize, longest: usize) -> Vec<f32> {
        let mut theta = self.theta;
        if let RopeScaling::Dynamic { factor, original_max } = self.scaling
            && longest > original_max
        {
            // theta · ((factor · n / max) − (factor − 1)) ^ (d / (d − 2)), on a tensor, hence in f32
            let stretch = factor as f32 * longest as f32 / original_max as f32 - (factor - 1.0) as f32;
            let power = head_dim as f64 / (head_dim as f64 - 2.0);
            theta = f64::from(theta as f32 * power_f32(stretch.into(), power as f32));
        }
        let default = (0..head_dim / 2).map(|i| 1.0 / power_f32(theta, (2 * i) as f32 / head_dim as f32));
        match self.scaling {
            RopeScaling::None | RopeScaling::Dynamic { .. } => default.collect(),
            RopeScaling::Linear { factor } => default.map(|f| f / factor as f32).collect(),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max } => {
                let (factor, low, high, max) =
                    (factor as f32, low_freq_factor as f32, high_freq_factor as f32, original_max as f32);
                let stretch = |f: f32| {
                    let wavelength = (2.0 * std::f64::consts::PI) as f32 / f;
                    if wavelength > max / low {
                        f / factor
                    } else if wavelength < max / high {
                        f
                    } else {
                        let smooth = (max / wavelength - low) / (high - low);
                        (1.0 - smooth) * f / factor + smooth * f
                    }
                };
                default.map(stretch).collect()
            }
            RopeScaling::Yarn { factor, original_max, beta_fast, beta_slow, truncate, .. } => {
                // The pair that turns `turns` times in the original context.
                let pair = |turns: f64| {
                    let circle = 2.0 * std::f64::consts::PI;
                    head_dim as f64 * (original_max as f64 / (turns * circle)).ln() / (2.0 * theta.ln())
                };
                let (mut low, mut high) = (pair(beta_fast), pair(beta_slow));
                if truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                (low, high) = (low.max(0.0), high.min(head_dim as f64 - 1.0));
                if low == high {
                    high += 0.001;
                }
                let stretched = |(i, f): (usize, f32)| {
                    let kept = 1.0 - ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
                    1.0 / (factor as f32 * (1.0 / f)) * (1.0 - kept) + f * kept
                };
                default.enumerate().map(stretched).collect()
            }
        }
    }
}

/// `base ^ exponent` for f32 operands with one rounding, so that it does not depend on the machine's f32 `pow`.
fn power_f32(base: f64, exponent: f32) -> f32 {
    f64::from(base as f32).powf(exponent.into()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_frequencies_fall_from_one() {
        let rope = Rope { theta: 10000.0, scaling: RopeScaling::None };
        let f = rope.inv_freq(8, 1);
        // 10000^(−2i/8): powers of ten, which f32 holds to half an ulp
        for (got, want) in f.iter().zip([1.0f32, 0.1, 0.01, 0.001]) {
            assert!((got / want - 1.0).abs() < 1e-6, "{got} {want}");
        }
        let linear = Rope { scaling: RopeScaling::Linear { factor: 4.0 }, ..rope };
        assert_eq!(linear.inv_freq(8, 1)[1], f[1] / 4.0);
    }

    #[test]
    fn dynamic_scaling_waits_for_long_sequences() {
        let plain = Rope { theta: 10000.0, scaling: RopeScaling::None };
        let rope = Rope { theta: 10000.0, scaling: RopeScaling::Dynamic { factor: 2.0, original_max: 100 } };
        assert_eq!(rope.inv_freq(64, 100), plain.inv_freq(64, 100));
        // n = 200: theta · (2·2 − 1)^(64/62)
        let grown = Rope { theta: 10000.0 * 3f64.powf(64.0 / 62.0), scaling: RopeScaling::None };
        for (a, b) in rope.inv_freq(64, 200).iter().zip(grown.inv_freq(64, 200)) {
            assert!((a / b - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn yarn_has_the_frequencies_of_transformers() {
        // transformers 4.57.6: `_compute_yarn_parameters` with theta 10000, heads of 16, 32 positions, factor 4, and 4 and
        // 1 turns as borders.
        let yarn = |truncate| {
            let scaling = RopeScaling::Yarn {
                factor: 4.0,
                original_max: 32,
                beta_fast: 4.0,
                beta_slow: 1.0,
                truncate,
                attention_factor: 1.0,
            };
            Rope { theta: 10000.0, scaling }.inv_freq(16, 1)
        };
        let mut want = [1.0, 0.197_642_36, 0.025, 0.007_905_695, 0.0025, 7.905_695e-4, 2.5e-4, 7.905_695e-5];
        for (truncate, second) in [(true, want[1]), (false, 0.160_589_16)] {
            want[1] = second;
            for (i, (got, want)) in yarn(truncate).iter().zip(want).enumerate() {
                assert!((got / want - 1.0).abs() < 1e-6, "pair {i}: {got} {want}");
            }
        }
    }

    #[test]
    fn the_longest_context_includes_the_stretch_once() {
        let longest = |scaling, max| Rope { theta: 10000.0, scaling }.longest_context(max);
        let llama3 = |factor, original_max| RopeScaling::Llama3 {
            factor,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max,
        };
        assert_eq!(longest(RopeScaling::None, 4096), 4096);
        assert_eq!(longest(RopeScaling::Linear { factor: 2.5 }, 4096), 10240);
        assert_eq!(longest(RopeScaling::Dynamic { factor: 2.0, original_max: 4096 }, 4096), 8192);
        // Llama 3.1: 131,072 positions, of which 8192 are original.
        assert_eq!(longest(llama3(8.0, 8192), 131_072), 131_072);
    }

    #[test]
    fn llama3_keeps_short_and_divides_long_wavelengths() {
        // Llama-3.1-8B: head 128, theta 500000; wavelength of pair i is 2π · 500000^(2i/128)
        let scaling =
            RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_max: 8192 };
        let plain = Rope { theta: 500000.0, scaling: RopeScaling::None }.inv_freq(128, 1);
        let scaled = Rope { theta: 500000.0, scaling }.inv_freq(128, 1);
        for (i, (p, s)) in plain.iter().zip(&scaled).enumerate() {
            let wavelength = std::f32::consts::TAU / p;
            if wavelength < 2048.0 {
                assert_eq!(p, s, "pair {i}");
            } else if wavelength > 8192.0 {
                assert_eq!(p / 8.0, *s, "pair {i}");
            } else {
                assert!(p / 8.0 < *s && s < p, "pair {i}");
            }
        }
        assert!(scaled[63] < plain[63]);
    }
}
