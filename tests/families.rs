//! One family, one name: `find . -name 'rms_norm*'` lists everything about a family of ops. In each place where families
//! live, every file is named after one, or is one of the few that serve them all; where a place is complete, every
//! family has its file.

use std::collections::BTreeSet;
use std::path::Path;

/// The families of kernels.
const FAMILIES: [&str; 15] = [
    "adamw",
    "attention",
    "cross_entropy",
    "embed",
    "gemm",
    "gemv",
    "grad_norm",
    "nf4",
    "permute",
    "pointwise",
    "rms_norm",
    "rope",
    "route",
    "sample",
    "swiglu",
];

/// A folder in which families have files.
struct Place {
    folder: &'static str,
    extension: &'static str,
    /// Families without a file of their own here; `None`: not every family has one yet.
    without: Option<&'static [&'static str]>,
    /// Files that belong to no family.
    common: &'static [&'static str],
}

const PLACES: [Place; 7] = [
    Place { folder: "src/device/cpu", extension: "rs", without: Some(&[]), common: &["exec", "memory", "mod", "real"] },
    Place { folder: "kernels", extension: "cu", without: Some(&[]), common: &[] },
    Place {
        folder: "src/device/cuda",
        extension: "rs",
        without: Some(&[]),
        common: &[
            "compiled",
            "copy",
            "exec",
            "gpu",
            "graph",
            "launch",
            "memory",
            "mod",
            "modules",
            "nvml",
            "stream",
            "tensor_map",
        ],
    },
    // A family may have additional kernels for one code path.
    Place { folder: "kernels/sm_90a", extension: "cu", without: None, common: &[] },
    Place { folder: "src/device/cuda/sm_90a", extension: "rs", without: None, common: &["mod"] },
    Place { folder: "tests/kernels", extension: "rs", without: Some(&[]), common: &["harness", "main"] },
    Place { folder: "benches/kernels", extension: "rs", without: Some(&[]), common: &["harness", "main"] },
];

#[test]
fn a_family_has_one_name_everywhere() {
    let mut places = 0;
    for Place { folder, extension, without, common } in PLACES {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let Ok(entries) = std::fs::read_dir(&path) else { continue };
        places += 1;
        let paths = entries.map(|e| e.expect("an entry").path());
        let of_kind = paths.filter(|p| p.extension().is_some_and(|e| e == extension));
        let names: BTreeSet<String> =
            of_kind.map(|p| p.file_stem().expect("a name").to_string_lossy().into_owned()).collect();
        for name in &names {
            let known = FAMILIES.contains(&name.as_str()) || common.contains(&name.as_str());
            assert!(known, "{folder}/{name}.{extension} is named after no family");
        }
        for family in without.map_or(&[][..], |_| &FAMILIES) {
            let exempt = without.is_some_and(|w| w.contains(family));
            assert_eq!(names.contains(*family), !exempt, "{folder}/{family}.{extension}");
        }
    }
    assert!(places > 0, "no folder of families found");
}
