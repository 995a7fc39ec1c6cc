//! Checks that the checked-in kernels were compiled from the checked-in sources. Stamps are always compared. If the compiler is
//! installed (`kernels/build.py install`), a sample is also rebuilt and compared byte by byte.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use zlib_rs::{InflateConfig, ReturnCode, decompress_slice};

/// For each code path: the folder of its sources, and the GPUs whose machine code is shipped.
const PATHS: [(&str, &str, &[&str]); 2] =
    [("sm_80", "kernels", &["sm_80", "sm_90"]), ("sm_90a", "kernels/sm_90a", &["sm_90a"])];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The hash that `kernels/build.py` writes into the first line: FNV-1a of the family's file, of everything it includes
/// in the order of first mention, and of `kernels/toolchain.txt`.
fn stamp(source: &Path) -> String {
    let kernels = root().join("kernels");
    let find = |name: &str| {
        let beside = source.with_file_name(name);
        if beside.exists() { beside } else { kernels.join(name) }
    };
    let (mut files, mut queue) = (Vec::new(), VecDeque::from([source.to_path_buf()]));
    while let Some(file) = queue.pop_front() {
        if files.contains(&file) {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let included = |line: &str| line.strip_prefix("#include \"").and_then(|l| l.split('"').next()).map(find);
        queue.extend(text.lines().filter_map(included));
        files.push(file);
    }
    files.push(kernels.join("toolchain.txt"));
    let bytes = files.iter().flat_map(|f| fs::read(f).expect("read above"));
    let hash = bytes.fold(0xCBF2_9CE4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3));
    format!("{hash:016x}")
}

fn files(folder: &Path, extension: &str) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    entries.map(|e| e.expect("entry").path()).filter(|p| p.extension().is_some_and(|e| e == extension)).collect()
}

/// The first line of a .bin file, and its images by name.
fn unpacked(path: &Path) -> (String, BTreeMap<String, Vec<u8>>) {
    let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let end = bytes.windows(2).position(|w| w == b"\n\n").expect("an empty line");
    let head = String::from_utf8(bytes[..end].to_vec()).expect("text");
    let mut lines = head.lines();
    let first = lines.next().expect("a stamp").to_string();
    let mut at = end + 2;
    let images = lines.map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        let [name, here, size] = words[..] else { panic!("{line:?} is not a name and two sizes") };
        let (here, size): (usize, usize) = (here.parse().expect("a size"), size.parse().expect("a size"));
        let mut image = vec![0; size];
        let (written, status) = decompress_slice(&mut image, &bytes[at..at + here], InflateConfig::default());
        assert!(status == ReturnCode::Ok && written.len() == size, "{}: {name} is damaged", path.display());
        at += here;
        (name.to_string(), image)
    });
    (first, images.collect())
}

#[test]
fn every_family_is_compiled_from_its_present_source() {
    for (arch, folder, gpus) in PATHS {
        let sources = files(&root().join(folder), "cu");
        assert!(!sources.is_empty());
        for kind in ["bf16", "f16"] {
            let folder = root().join("compiled").join(arch).join(kind);
            let names = |set: &BTreeSet<PathBuf>| -> BTreeSet<_> {
                set.iter().map(|p| p.file_stem().expect("name").to_owned()).collect()
            };
            assert_eq!(names(&files(&folder, "bin")), names(&sources), "run kernels/build.py");
            for source in &sources {
                let path = folder.join(source.file_stem().expect("name")).with_extension("bin");
                let (first, images) = unpacked(&path);
                assert_eq!(first, format!("halfbyte {}", stamp(source)), "{}: run kernels/build.py", path.display());
                let names: BTreeSet<&str> = images.keys().map(String::as_str).collect();
                assert_eq!(names, gpus.iter().copied().chain(["ptx"]).collect(), "{}", path.display());
                // Images must be reproducible, so they must not contain anything of the machine that built them.
                let holds = |image: &[u8], text: &str| image.windows(text.len()).any(|w| w == text.as_bytes());
                for (name, image) in &images {
                    let alien = ["/kernels", "/tmp", ".cu\"", ".loc\t", ".loc "].iter().find(|text| holds(image, text));
                    assert_eq!(alien, None, "{}, {name}", path.display());
                }
            }
        }
    }
}

#[test]
fn the_compiler_gives_what_is_checked_in() {
    if !root().join(".cuda/requirements.txt").exists() {
        println!("SKIPPED: the compiler is not installed (kernels/build.py install)");
        return;
    }
    // The whole takes a minute, which `.ci/run` spends: the families that compile in seconds stand for the compiler and its
    // options; a family whose stamp is stale is always compared.
    let run = Command::new("python3")
        .arg(root().join("kernels/build.py"))
        .args(["--check", "embed", "rms_norm", "pointwise"])
        .output()
        .expect("python3 runs");
    let said = [run.stdout, run.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat();
    assert!(run.status.success(), "{said}");
}

/// Kernels that the build must refuse, and one like them that it must not.
const JUDGED: &str = r#"
import sys
from pathlib import Path
sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
import build

def complaints(name, body, target, gpu):
    source = Path(sys.argv[2]) / f"{name}.cu"
    source.write_text('extern "C" __global__ void __launch_bounds__(1024, 2) ' + name + "(float* p, unsigned long long d) {" + body + "}")
    return build.assemble(build.Nvrtc().compile(source, target, "__half"), [gpu], name, False)[2]

def held(count):
    return (f"float a[{count}]; for (int i = 0; i < {count}; i++) a[i] = p[i * 1024]; __syncthreads();"
            f"for (int i = 0; i < {count}; i++) p[i * 1024 + 1] = a[{count - 1} - i] * a[i];")

def wgmma(between):
    product = ('asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0,%1,%2,%3}, %4, %4, 1, 1, 1, 0, 0;"'
               ': "+f"(a[0]), "+f"(a[1]), "+f"(a[2]), "+f"(a[3]) : "l"(d));')
    return ('float a[4] = {}; asm volatile("wgmma.fence.sync.aligned;");' + product + between + product +
            'asm volatile("wgmma.commit_group.sync.aligned;"); asm volatile("wgmma.wait_group.sync.aligned 0;");'
            "for (int i = 0; i < 4; i++) p[i] = a[i];")

assert not complaints("held", held(8), "compute_80", "sm_80")
assert "spills registers" in "".join(complaints("spilling", held(96), "compute_80", "sm_80"))
assert not complaints("wgmma", wgmma(""), "compute_90a", "sm_90a")
assert "serialized" in "".join(complaints("serial", wgmma("a[0] += p[4];"), "compute_90a", "sm_90a"))
"#;

#[test]
fn spills_and_serialized_products_fail_the_build() {
    if !root().join(".cuda/requirements.txt").exists() {
        println!("SKIPPED: the compiler is not installed (kernels/build.py install)");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let run = Command::new("python3")
        .args(["-c", JUDGED])
        .args([root().join("kernels"), folder.path().to_path_buf()])
        .output()
        .expect("python3 runs");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
}

/// The value tables of the kernels, read from their source.
fn table(text: &str, name: &str) -> Vec<u32> {
    let start = text.find(&format!("float {name}[")).unwrap_or_else(|| panic!("no table {name}"));
    let body = &text[start..];
    let body = &body[body.find('{').expect("opens") + 1..body.find('}').expect("closes")];
    body.split(',').map(str::trim).filter(|v| !v.is_empty()).map(|v| hex_float(v).to_bits()).collect()
}

/// A C hexadecimal float such as `-0x1.8p-3f`.
fn hex_float(text: &str) -> f32 {
    let text = text.trim_end_matches('f');
    let (sign, magnitude) = text.strip_prefix('-').map_or((1f32, text), |t| (-1.0, t));
    let Some((digits, exponent)) = magnitude.strip_prefix("0x").and_then(|t| t.split_once('p')) else {
        return sign * magnitude.parse::<f32>().expect("a decimal");
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let bits = u64::from_str_radix(&format!("{whole}{fraction}"), 16).expect("hexadecimal");
    let exponent: i32 = exponent.parse().expect("an exponent");
    (f64::from(sign) * bits as f64 * 2f64.powi(exponent - 4 * fraction.len() as i32)) as f32
}

#[test]
fn the_kernels_tables_are_the_cpus() {
    use halfbyte_core::quant::{blockwise8, codebook4};
    let read = |name: &str| fs::read_to_string(root().join("kernels").join(name)).expect(name);
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<u32>>();
    let (quant, four, quantize) = (read("quant8.cuh"), read("nf4.cuh"), read("nf4.cu"));
    assert_eq!(table(&quant, "SIGNED"), bits(&*blockwise8::SIGNED));
    assert_eq!(table(&quant, "UNSIGNED"), bits(&*blockwise8::UNSIGNED));
    assert_eq!(table(&four, "NF4_LEVELS"), bits(&codebook4::NF4_LEVELS));
    assert_eq!(table(&four, "FP4_LEVELS"), bits(&codebook4::FP4_LEVELS));
    assert_eq!(table(&quantize, "NF4_THRESHOLDS"), bits(&codebook4::NF4_THRESHOLDS));
    assert_eq!(table(&quantize, "FP4_THRESHOLDS"), bits(&codebook4::FP4_THRESHOLDS));
}
