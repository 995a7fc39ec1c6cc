//! Reads recorded tensors, and compares ours with them.

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use std::path::{Path, PathBuf};

/// A safetensors file in memory.
pub struct Tensors {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Tensors {
    pub fn open(path: impl AsRef<Path>) -> Result<Self, String> {
        let path = path.as_ref().to_path_buf();
        let bytes = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let file = Self { path, bytes };
        file.parsed()?;
        Ok(file)
    }

    fn parsed(&self) -> Result<SafeTensors<'_>, String> {
        SafeTensors::deserialize(&self.bytes).map_err(|e| format!("{}: {e}", self.path.display()))
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.parsed().map_or(Vec::new(), |t| t.names().into_iter().map(String::from).collect());
        names.sort();
        names
    }

    pub fn has(&self, name: &str) -> bool {
        self.parsed().is_ok_and(|t| t.tensor(name).is_ok())
    }

    pub fn dtype(&self, name: &str) -> Result<Dtype, String> {
        Ok(self.view(name)?.1)
    }

    fn view(&self, name: &str) -> Result<(Vec<usize>, Dtype, Vec<u8>), String> {
        let tensors = self.parsed()?;
        let t = tensors.tensor(name).map_err(|e| format!("{}: {name}: {e}", self.path.display()))?;
        Ok((t.shape().to_vec(), t.dtype(), t.data().to_vec()))
    }

    /// Reads a float tensor, widened to f32.
    pub fn f32(&self, name: &str) -> Result<Vec<f32>, String> {
        let (_, dtype, data) = self.view(name)?;
        match dtype {
            Dtype::F32 => Ok(data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()),
            Dtype::BF16 => Ok(data.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect()),
            Dtype::F16 => Ok(data.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()),
            other => Err(format!("{name} is {other:?}, not a float")),
        }
    }

    /// Reads a tensor of I64.
    pub fn i64(&self, name: &str) -> Result<Vec<i64>, String> {
        match self.view(name)? {
            (_, Dtype::I64, data) => Ok(data.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect()),
            (_, other, _) => Err(format!("{name} is {other:?}, not I64")),
        }
    }

    pub fn shape(&self, name: &str) -> Result<Vec<usize>, String> {
        Ok(self.view(name)?.0)
    }

    /// Reads a tensor of U8.
    pub fn u8(&self, name: &str) -> Result<Vec<u8>, String> {
        match self.view(name)? {
            (_, Dtype::U8, data) => Ok(data),
            (_, other, _) => Err(format!("{name} is {other:?}, not U8")),
        }
    }
}

/// Reads a JSON file.
pub fn json(path: &Path) -> Result<serde_json::Value, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))
}

/// The files called `*{suffix}` in `folder`, without the suffix, sorted; empty when the folder does not exist.
pub fn stems(folder: &Path, suffix: &str) -> Vec<String> {
    let mut stems: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(suffix).map(String::from))
        .collect();
    stems.sort();
    stems
}

/// Checks that the values are equal bit for bit, but treats all NaNs as equal and ignores the sign of zero: the kernels
/// give −0 for zero blocks and for FP4's code 8, while the recordings contain no −0.
pub fn equal_bits(what: &str, ours: &[f32], golden: &[f32]) -> Result<(), String> {
    if ours.len() != golden.len() {
        return Err(format!("{what}: {} values, recorded {}", ours.len(), golden.len()));
    }
    let differs = |(a, b): &(&f32, &f32)| a != b && !(a.is_nan() && b.is_nan());
    match ours.iter().zip(golden).position(|pair| differs(&pair)) {
        None => Ok(()),
        Some(i) => {
            let count = ours.iter().zip(golden).filter(differs).count();
            Err(format!(
                "{what}: {count} of {} differ, first [{i}] {:e}, recorded {:e}",
                ours.len(),
                ours[i],
                golden[i]
            ))
        }
    }
}

/// Checks that the bytes are equal. The error counts the differences and shows the first.
pub fn equal_bytes(what: &str, ours: &[u8], golden: &[u8]) -> Result<(), String> {
    if ours.len() != golden.len() {
        return Err(format!("{what}: {} bytes, recorded {}", ours.len(), golden.len()));
    }
    match ours.iter().zip(golden).position(|(a, b)| a != b) {
        None => Ok(()),
        Some(i) => {
            let count = ours.iter().zip(golden).filter(|(a, b)| a != b).count();
            Err(format!(
                "{what}: {count} of {} differ, first [{i}] {:#04x}, recorded {:#04x}",
                ours.len(),
                ours[i],
                golden[i]
            ))
        }
    }
}

/// The largest absolute difference. It is infinite if the lengths differ or a value is finite on one side only.
pub fn worst(ours: &[f32], golden: &[f32]) -> f32 {
    if ours.len() != golden.len() {
        return f32::INFINITY;
    }
    let difference = |a: f32, b: f32| match a == b || (a.is_nan() && b.is_nan()) {
        true => 0.0,
        false if a.is_nan() || b.is_nan() => f32::INFINITY,
        false => (a - b).abs(),
    };
    ours.iter().zip(golden).fold(0.0, |worst, (a, b)| difference(*a, *b).max(worst))
}
