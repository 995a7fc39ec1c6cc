//! Tests of [`super`] with valid, truncated and inconsistent files.

use super::*;

/// A temporary folder for one test, removed when dropped.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("halfbyte-{}-{count}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a writable temporary folder");
        Self(path)
    }
    pub fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, contents).expect("writable");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn two_tensors() -> Vec<Output<'static>> {
    vec![
        Output::floats("a.weight".into(), DType::Bf16, vec![2, 3], &[1.0, -2.0, 0.5, 3.0, 1e30, -0.0]),
        Output::floats("b.weight".into(), DType::F32, vec![2], &[1.25, 1e-30]),
    ]
}

/// The bytes of a safetensors file with this header and `data` zero bytes of data.
fn raw(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(vec![0; data]);
    bytes
}

fn failure(result: Result<TensorFiles>) -> String {
    result.err().expect("an error").to_string()
}

#[test]
fn what_is_written_is_read_back() {
    let folder = Folder::new("roundtrip");
    write(&folder.0.join(SINGLE), &two_tensors()).expect("written");
    let checkpoint = TensorFiles::open(&folder.0).expect("valid");
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a.weight", "b.weight"]);
    let a = checkpoint.shaped("a.weight", &[2, 3]).expect("shape");
    assert_eq!(a.to_f32().expect("floats")[..4], [1.0, -2.0, 0.5, 3.0]);
    assert_eq!(checkpoint.tensor("b.weight").expect("there").to_f32().expect("floats"), [1.25, 1e-30]);
    assert_eq!(std::fs::read_dir(&folder.0).expect("folder").count(), 1, "no temporary file stays");
}

#[test]
fn missing_and_misshaped_tensors_are_named() {
    let folder = Folder::new("names");
    write(&folder.0.join(SINGLE), &two_tensors()).expect("written");
    let checkpoint = TensorFiles::open(&folder.0).expect("valid");
    let missing = checkpoint.tensor("a.weigh").err().expect("missing").to_string();
    assert!(missing.contains("`a.weigh` is missing") && missing.contains("`a.weight`"), "{missing}");
    let shape = checkpoint.shaped("a.weight", &[3, 2]).err().expect("shape").to_string();
    assert!(shape.contains("[2, 3]") && shape.contains("[3, 2]"), "{shape}");
    assert!(checkpoint.tensor("a.weight").expect("there").bytes().is_err());
}

#[test]
fn truncated_and_lying_files_are_refused_by_name() {
    let folder = Folder::new("broken");
    write(&folder.0.join("whole"), &two_tensors()).expect("written");
    let whole = std::fs::read(folder.0.join("whole")).expect("readable");
    for cut in [0, 4, 8, 20, whole.len() - 1] {
        let message = failure(TensorFiles::open_file(&folder.file("cut.safetensors", &whole[..cut])));
        assert!(message.contains("cut.safetensors") && message.contains("download it again"), "{cut}: {message}");
    }
    let lies = [
        r#"{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}"#, // 16 bytes in the header, 8 in the file
        r#"{"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}"#,  // shape and offsets differ
        r#"{"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}"#,
        r#"{"a": {"dtype": "F32", "shape": [4611686018427387904, 4], "data_offsets": [0, 8]}}"#,
        r#"{"a": {"dtype": "F31", "shape": [2], "data_offsets": [0, 8]}}"#,
        r#"["a"]"#,
        "not json",
    ];
    for lie in lies {
        let message = failure(TensorFiles::open_file(&folder.file("lie.safetensors", raw(lie, 8))));
        assert!(message.contains("lie.safetensors"), "{lie}: {message}");
    }
    let mut huge = raw("{}", 0);
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(failure(TensorFiles::open_file(&folder.file("huge", huge))).contains("huge"));
    let exotic = r#"{"a": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}}"#;
    assert!(
        failure(TensorFiles::open_file(&folder.file("exotic", raw(exotic, 8)))).contains("`a` is stored as F8_E4M3")
    );
}

#[test]
fn shards_are_found_through_the_index() {
    let folder = Folder::new("shards");
    let mut tensors = two_tensors();
    write(&folder.0.join("two.safetensors"), &tensors.split_off(1)).expect("written");
    write(&folder.0.join("one.safetensors"), &tensors).expect("written");
    let index = |map: &str| folder.file(INDEX, format!(r#"{{"weight_map": {map}}}"#));
    index(r#"{"a.weight": "one.safetensors", "b.weight": "two.safetensors"}"#);
    assert_eq!(TensorFiles::open(&folder.0).expect("valid").names().count(), 2);
    index(r#"{"a.weight": "two.safetensors"}"#);
    assert!(failure(TensorFiles::open(&folder.0)).contains("`a.weight` is not in two.safetensors"));
    index(r#"{"a.weight": "three.safetensors"}"#);
    assert!(failure(TensorFiles::open(&folder.0)).contains("three.safetensors"));
    index(r#"{"a.weight": "../one.safetensors"}"#);
    assert!(failure(TensorFiles::open(&folder.0)).contains("beside the index"));
    index("3");
    assert!(failure(TensorFiles::open(&folder.0)).contains("weight_map"));
}

#[test]
fn a_folder_without_weights_says_what_it_needs() {
    let folder = Folder::new("empty");
    folder.file("pytorch_model.bin", "x");
    let message = failure(TensorFiles::open(&folder.0));
    assert!(message.contains("model.safetensors") && message.contains(".bin"), "{message}");
}

#[test]
fn no_damage_to_a_file_is_worse_than_an_error() {
    let folder = Folder::new("damage");
    write(&folder.0.join("whole"), &two_tensors()).expect("written");
    let whole = std::fs::read(folder.0.join("whole")).expect("readable");
    let mut opened = 0;
    for i in 0..500usize {
        let mut bytes = whole.clone();
        // One or two bytes changed, mostly in the header.
        for at in [i * 7919, i * 104729 / 3].into_iter().take(1 + i % 2) {
            let at = if i % 5 == 0 { at % bytes.len() } else { at % (bytes.len() - 32) };
            bytes[at] = bytes[at].wrapping_add((i % 255 + 1) as u8);
        }
        let file = folder.file("damaged", &bytes);
        if let Ok(checkpoint) = TensorFiles::open_file(&file) {
            opened += 1;
            for name in checkpoint.names() {
                let _ = checkpoint.tensor(name).expect("listed").to_f32();
            }
        }
    }
    assert!(opened > 0, "damage to values alone goes unnoticed");
}
