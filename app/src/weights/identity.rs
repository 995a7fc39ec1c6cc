//! Tells base weights and training data apart: 128 bits that depend on every byte.
//!
//! The hash is XXH3, which runs at the speed of memory. It detects another file or a damaged one; it does not resist
//! an attacker who constructs a collision.

use super::safetensors::{Tensor, TensorFiles};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use twox_hash::XxHash3_128;

/// The identity of a set of tensors, printed as 32 hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Identity(String);

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Collects the hashes of tensors, in any order.
#[derive(Default)]
pub struct IdentityHasher {
    tensors: BTreeMap<String, u128>,
}

/// Bytes that one thread hashes at a time.
const PIECE: usize = 1 << 20;

/// The hash of one tensor: name, type, shape and bytes. The pieces of the bytes are hashed on all cores.
pub fn hash(tensor: &Tensor) -> u128 {
    let pieces: Vec<[u8; 16]> =
        tensor.data.par_chunks(PIECE).map(|piece| XxHash3_128::oneshot(piece).to_le_bytes()).collect();
    let mut all = format!("{}\0{}\0{:?}\0", tensor.name, tensor.dtype.torch_name(), tensor.shape).into_bytes();
    all.extend(pieces.into_iter().flatten());
    XxHash3_128::oneshot(&all)
}

impl IdentityHasher {
    /// Hashes the tensors called `name` or `name.…`: a weight with its quantization.
    pub fn add(&mut self, files: &TensorFiles, name: &str) {
        self.tensors.extend(files.beginning_with(name).map(|tensor| (tensor.name.to_string(), hash(&tensor))));
    }

    /// The identity of all tensors of `files`, of which those that were not added are hashed now.
    pub fn finish(mut self, files: &TensorFiles) -> Identity {
        for tensor in files.names().filter_map(|name| files.get(name)) {
            if !self.tensors.contains_key(tensor.name) {
                self.tensors.insert(tensor.name.to_string(), hash(&tensor));
            }
        }
        let all: Vec<u8> = self.tensors.values().flat_map(|hash| hash.to_le_bytes()).collect();
        Identity(format!("{:032x}", XxHash3_128::oneshot(&all)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::safetensors::tests::Folder;
    use crate::weights::safetensors::{Output, write};
    use halfbyte_core::dtype::DType;

    fn identity(name: &str, tensors: &[(&str, &[usize], &[f32])], first: Option<&str>) -> Identity {
        let folder = Folder::new(name);
        let output = |(name, shape, values): &(&str, &[usize], &[f32])| {
            Output::floats(name.to_string(), DType::F32, shape.to_vec(), values)
        };
        let file = folder.0.join("model.safetensors");
        write(&file, &tensors.iter().map(output).collect::<Vec<_>>()).expect("written");
        let files = TensorFiles::open_file(&file).expect("valid");
        let mut hasher = IdentityHasher::default();
        first.iter().for_each(|name| hasher.add(&files, name));
        hasher.finish(&files)
    }

    #[test]
    fn it_depends_on_names_shapes_and_bytes_and_on_nothing_else() {
        let values = [1.0, 2.0, 3.0, 4.0];
        let one = identity("identity", &[("a", &[4], &values), ("b", &[2], &[5.0, 6.0])], None);
        let same = |tensors: &[(&str, &[usize], &[f32])]| identity("identity", tensors, Some("b")) == one;
        assert!(same(&[("b", &[2], &[5.0, 6.0]), ("a", &[4], &values)]), "the order of the file and of loading");
        assert!(!same(&[("a", &[2, 2], &values), ("b", &[2], &[5.0, 6.0])]), "a shape");
        assert!(!same(&[("c", &[4], &values), ("b", &[2], &[5.0, 6.0])]), "a name");
        assert!(!same(&[("a", &[4], &[1.0, 2.0, 3.0, -4.0]), ("b", &[2], &[5.0, 6.0])]), "one bit");
        assert!(!same(&[("a", &[4], &values)]), "a missing tensor");
        assert_eq!(one.to_string().len(), 32);
    }

    #[test]
    fn the_pieces_of_a_large_tensor_count_in_their_order() {
        let mut values = vec![0.0_f32; PIECE];
        let place = PIECE / 4;
        values[3] = 1.0;
        let one = identity("identity-large", &[("a", &[PIECE], &values)], None);
        values.swap(3, 3 + place);
        assert!(identity("identity-large", &[("a", &[PIECE], &values)], None) != one);
    }
}
