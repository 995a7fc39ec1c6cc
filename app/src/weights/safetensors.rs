//! Safetensors files, memory-mapped: one file, or shards with an index. Also writes such files, atomically.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::{Dtype, SafeTensors, View};

use crate::config::fields::JsonFields;
use crate::disk::mapped::MappedFile;
use crate::disk::write::write_bytes;
use crate::suggest::nearest;
use halfbyte_core::dtype::DType;
use halfbyte_core::error::{Error, Result};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The tensors of a model, an adapter or an optimizer state, by name.
pub struct TensorFiles {
    /// The folder or file that was opened, for messages.
    path: PathBuf,
    maps: Vec<MappedFile>,
    tensors: BTreeMap<String, TensorEntry>,
}

struct TensorEntry {
    map: usize,
    dtype: DType,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

/// One stored tensor: row-major, little-endian.
#[derive(Clone, Copy)]
pub struct Tensor<'a> {
    /// The name under which the file stores it.
    pub name: &'a str,
    /// Type of the stored elements.
    pub dtype: DType,
    /// Extents, outermost first.
    pub shape: &'a [usize],
    /// `shape.product() * dtype.bytes()` bytes.
    pub data: &'a [u8],
}

impl TensorFiles {
    /// Opens the weights of a model folder: `model.safetensors`, or the shards that `model.safetensors.index.json`
    /// lists.
    pub fn open(folder: &Path) -> Result<Self> {
        let mut checkpoint = Self { path: folder.to_path_buf(), maps: Vec::new(), tensors: BTreeMap::new() };
        let (single, index) = (folder.join(SINGLE), folder.join(INDEX));
        if single.is_file() {
            checkpoint.add(&single)?;
        } else if index.is_file() {
            checkpoint.add_shards(folder, &index)?;
        } else {
            return Err(Error::input(format!("{}: there is no {SINGLE} and no {INDEX}", folder.display())).hint(
                "halfbyte reads safetensors only; convert a .bin checkpoint with transformers' save_pretrained",
            ));
        }
        Ok(checkpoint)
    }

    /// Opens one safetensors file.
    pub fn open_file(file: &Path) -> Result<Self> {
        let mut checkpoint = Self { path: file.to_path_buf(), maps: Vec::new(), tensors: BTreeMap::new() };
        checkpoint.add(file)?;
        Ok(checkpoint)
    }

    fn add_shards(&mut self, folder: &Path, index: &Path) -> Result<()> {
        let fields = JsonFields::open(index)?;
        let weights = fields
            .object("weight_map")?
            .ok_or_else(|| fields.wrong("weight_map", "expected an object from tensor names to files"))?;
        let mut shards: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (tensor, file) in &weights.map {
            match file.as_str() {
                // A shard must be a plain file name, so that nothing outside the folder is ever opened.
                Some(name) if Path::new(name).file_name() == Some(name.as_ref()) => {
                    shards.entry(name).or_default().push(tensor);
                }
                _ => return Err(weights.wrong(tensor, "expected the name of a file beside the index")),
            }
        }
        for (shard, tensors) in shards {
            let file = folder.join(shard);
            if !file.is_file() {
                return Err(Error::input(format!(
                    "{}: the shard {shard}, which it lists, is missing",
                    index.display()
                ))
                .hint("download the model again: the folder is incomplete"));
            }
            self.add(&file)?;
            if let Some(tensor) = tensors.into_iter().find(|t| !self.tensors.contains_key(*t)) {
                return Err(Error::input(format!(
                    "{}: `{tensor}` is not in {shard}, where the index places it",
                    index.display()
                ))
                .hint("download the model again: index and shards do not belong together"));
            }
        }
        Ok(())
    }

    fn add(&mut self, file: &Path) -> Result<()> {
        // `SafeTensors::deserialize` checks every range against the length of the map.
        let map = MappedFile::open(file)?;
        let broken = |e: &dyn std::fmt::Display| {
            Error::input(format!("{}: not a valid safetensors file: {e}", file.display()))
                .hint(format!("the file is truncated or damaged ({} bytes); download it again", map.len()))
        };
        let parsed = SafeTensors::deserialize(&map).map_err(|e| broken(&e))?;
        let start = map.as_ptr() as usize;
        let mut found = Vec::new();
        for (name, view) in parsed.iter() {
            let dtype = known_type(view.dtype()).ok_or_else(|| {
                Error::input(format!("{}: `{name}` is stored as {:?}", file.display(), view.dtype()))
                    .hint("halfbyte reads F32, F16, BF16, U8 and integer tensors")
            })?;
            let at = view.data().as_ptr() as usize - start;
            let bytes = at..at + view.data().len();
            found.push((
                name.to_string(),
                TensorEntry { map: self.maps.len(), dtype, shape: view.shape().to_vec(), bytes },
            ));
        }
        for (name, entry) in found {
            if self.tensors.contains_key(&name) {
                return Err(Error::input(format!("{}: two files contain `{name}`", self.path.display())));
            }
            self.tensors.insert(name, entry);
        }
        self.maps.push(map);
        Ok(())
    }

    /// The tensors that are called `name` or `name.…`, sorted by name.
    pub fn beginning_with(&self, name: &str) -> impl Iterator<Item = Tensor<'_>> {
        let from = self.tensors.range(name.to_string()..).map(|(found, _)| found.as_str());
        let starting = from.take_while({
            let name = name.to_string();
            move |found| found.starts_with(&name)
        });
        let name = name.to_string();
        let belongs =
            move |found: &&str| name.is_empty() || matches!(found.as_bytes().get(name.len()), None | Some(b'.'));
        starting.filter(belongs).filter_map(|found| self.get(found))
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The folder or file that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tensor called `name`, or `None` if the files lack it.
    pub fn get(&self, name: &str) -> Option<Tensor<'_>> {
        let (name, entry) = self.tensors.get_key_value(name)?;
        let data = &self.maps[entry.map][entry.bytes.clone()];
        Some(Tensor { name, dtype: entry.dtype, shape: &entry.shape, data })
    }

    /// The tensor called `name`. If it is missing, the error names the folder and the most similar name.
    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>> {
        self.get(name).ok_or_else(|| {
            let error = Error::input(format!("{}: the tensor `{name}` is missing", self.path.display()));
            match nearest(name, self.names()) {
                Some(near) => error.hint(format!("there is `{near}`: does config.json belong to these weights?")),
                None => error.hint("does config.json belong to these weights?"),
            }
        })
    }

    /// As [`Self::tensor`], but another shape is an error, too.
    pub fn shaped(&self, name: &str, shape: &[usize]) -> Result<Tensor<'_>> {
        let tensor = self.tensor(name)?;
        if tensor.shape != shape {
            let what = format!("{}: `{name}` has shape {:?}, expected {shape:?}", self.path.display(), tensor.shape);
            return Err(Error::input(what).hint("do these weights belong to this configuration?"));
        }
        Ok(tensor)
    }
}

fn known_type(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::F64 => DType::F64,
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::Bf16,
        Dtype::I64 => DType::I64,
        Dtype::I32 => DType::I32,
        Dtype::U8 => DType::U8,
        _ => return None,
    })
}

impl Tensor<'_> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements widened to f32. An error unless they are stored as f32, f16 or bf16.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        let mut out = vec![0.0; self.len()];
        match self.dtype {
            DType::F32 => widen(self.data, &mut out, f32::from_le_bytes),
            DType::Bf16 => widen(self.data, &mut out, |b| bf16::from_le_bytes(b).to_f32()),
            DType::F16 => widen(self.data, &mut out, |b| f16::from_le_bytes(b).to_f32()),
            other => {
                let what = format!("`{}` is stored as {}, expected a float", self.name, other.torch_name());
                return Err(Error::input(what).hint("expected float32, float16 or bfloat16 weights"));
            }
        }
        Ok(out)
    }

    /// The elements of a U8 tensor. An error for any other type.
    pub fn bytes(&self) -> Result<&[u8]> {
        match self.dtype {
            DType::U8 => Ok(self.data),
            other => Err(Error::input(format!("`{}` is stored as {}, expected uint8", self.name, other.torch_name()))),
        }
    }
}

fn widen<const N: usize>(data: &[u8], out: &mut [f32], element: impl Fn([u8; N]) -> f32 + Sync) {
    const CHUNK: usize = 1 << 16;
    out.par_chunks_mut(CHUNK).zip(data.par_chunks(CHUNK * N)).for_each(|(out, data)| {
        for (out, bytes) in out.iter_mut().zip(data.as_chunks::<N>().0) {
            *out = element(*bytes);
        }
    });
}

/// A tensor for [`write()`].
pub struct Output<'a> {
    /// The name under which the file stores it.
    pub name: String,
    /// Type of the stored elements.
    pub dtype: DType,
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// The elements, row-major, little-endian: `shape.product() * dtype.bytes()` bytes.
    pub data: Cow<'a, [u8]>,
}

impl Output<'_> {
    /// `values` rounded to `dtype` (f32, f16 or bf16).
    pub fn floats(name: String, dtype: DType, shape: Vec<usize>, values: &[f32]) -> Self {
        let data = dtype.store(values);
        Self { name, dtype, shape, data: Cow::Owned(data) }
    }
}

impl View for &Output<'_> {
    fn dtype(&self) -> Dtype {
        match self.dtype {
            DType::F64 => Dtype::F64,
            DType::F32 => Dtype::F32,
            DType::F16 => Dtype::F16,
            DType::Bf16 => Dtype::BF16,
            DType::I64 => Dtype::I64,
            DType::I32 => Dtype::I32,
            DType::U8 => Dtype::U8,
        }
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.data)
    }
    fn data_len(&self) -> usize {
        self.data.len()
    }
}

/// Writes `tensors` to `file` atomically.
pub fn write(file: &Path, tensors: &[Output]) -> Result<()> {
    let metadata = std::collections::HashMap::from([("format".to_string(), "pt".to_string())]);
    let views = tensors.iter().map(|t| (t.name.as_str(), t));
    // `serialize_to_file` would create a file that only its owner can read.
    let bytes = safetensors::serialize(views, Some(metadata))
        .map_err(|e| Error::system(format!("cannot write {}: {e}", file.display())))?;
    write_bytes(file, &bytes)
}

#[cfg(test)]
#[path = "safetensors_tests.rs"]
pub(crate) mod tests;
