//! The embedded kernels: the files that `kernels/build.py` writes to `compiled/`. Each holds PTX, which the driver can compile for
//! any newer GPU, and machine code for some GPUs.

use super::gpu::Arch;
use crate::dtype::DType;
use crate::error::{Error, Result};
use zlib_rs::{InflateConfig, ReturnCode, decompress_slice};

/// Declares the families, each with the name of its `.cu` files and the code paths that have one.
macro_rules! families {
    ($($family:ident = $name:literal [$($arch:ident $folder:literal),*],)*) => {
        /// A family of kernels. A code path without kernels of its own for a family uses those of `sm_80`.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Family {
            $(#[doc = concat!("`", $name, ".cu`")] $family,)*
        }

        impl Family {
            /// All of them.
            pub const ALL: &[Family] = &[$(Family::$family,)*];

            /// The name of its `.cu` files.
            pub fn name(self) -> &'static str {
                match self {
                    $(Family::$family => $name,)*
                }
            }
        }

        /// The compiled files of a family for bf16 and f16, or `None` if the path has no kernels of its own for it.
        fn files(arch: Arch, family: Family) -> Option<[&'static [u8]; 2]> {
            match (arch, family) {
                $($((Arch::$arch, Family::$family) => Some([
                    include_bytes!(concat!("../../../compiled/", $folder, "/bf16/", $name, ".bin")),
                    include_bytes!(concat!("../../../compiled/", $folder, "/f16/", $name, ".bin")),
                ]),)*)*
                _ => None,
            }
        }
    };
}

families! {
    Adamw = "adamw" [Sm80 "sm_80"],
    Attention = "attention" [Sm80 "sm_80", Sm90a "sm_90a"],
    CrossEntropy = "cross_entropy" [Sm80 "sm_80"],
    Embed = "embed" [Sm80 "sm_80"],
    Gemm = "gemm" [Sm80 "sm_80", Sm90a "sm_90a"],
    Gemv = "gemv" [Sm80 "sm_80"],
    GradNorm = "grad_norm" [Sm80 "sm_80"],
    Nf4 = "nf4" [Sm80 "sm_80"],
    Permute = "permute" [Sm80 "sm_80"],
    Pointwise = "pointwise" [Sm80 "sm_80"],
    RmsNorm = "rms_norm" [Sm80 "sm_80"],
    Rope = "rope" [Sm80 "sm_80"],
    Route = "route" [Sm80 "sm_80"],
    Sample = "sample" [Sm80 "sm_80"],
    Swiglu = "swiglu" [Sm80 "sm_80"],
}

/// The name of the PTX image in a file. Machine code is named after its GPU.
pub const PTX: &str = "ptx";

/// One compiled file: the images of a family for one 16-bit type.
#[derive(Clone, Copy)]
pub struct Compiled(&'static [u8]);

impl Compiled {
    /// Finds a family on a code path. `None` if the path has no kernels of its own for it.
    pub fn find(arch: Arch, family: Family, elem: DType) -> Option<Self> {
        files(arch, family).map(|[bf16, f16]| Self(if elem == DType::F16 { f16 } else { bf16 }))
    }

    /// Decompresses the image of this name. `None` if the file does not have it.
    pub fn image(self, name: &str) -> Result<Option<Vec<u8>>> {
        let broken = |what: &str| Error::run(format!("the embedded kernels are damaged: {what}"));
        let end = self.0.windows(2).position(|w| w == b"\n\n").ok_or_else(|| broken("the header has no end"))?;
        let head = std::str::from_utf8(&self.0[..end]).map_err(|_| broken("the header is not text"))?;
        let mut at = end + 2;
        for line in head.lines().skip(1) {
            let mut words = line.split(' ');
            let entry = words.next();
            let mut size = || words.next().and_then(|word| word.parse::<usize>().ok()).ok_or_else(|| broken(line));
            let (here, unpacked) = (size()?, size()?);
            let packed = self.0.get(at..at + here).ok_or_else(|| broken(line))?;
            if entry == Some(name) {
                let mut image = vec![0; unpacked];
                let (written, status) = decompress_slice(&mut image, packed, InflateConfig::default());
                return if status == ReturnCode::Ok && written.len() == unpacked {
                    Ok(Some(image))
                } else {
                    Err(broken(line))
                };
            }
            at += here;
        }
        Ok(None)
    }
}

/// The machine code that a GPU of this capability runs, or `None` if it needs the PTX.
pub fn machine_code(arch: Arch, capability: (i32, i32)) -> Option<&'static str> {
    match (arch, capability) {
        (Arch::Sm80, (8, _)) => Some("sm_80"),
        (Arch::Sm80, (9, 0)) => Some("sm_90"),
        (Arch::Sm90a, (9, 0)) => Some("sm_90a"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_unpacks_for_every_gpu_that_has_machine_code() {
        for (arch, capability) in
            [(Arch::Sm80, (8, 0)), (Arch::Sm80, (8, 9)), (Arch::Sm80, (9, 0)), (Arch::Sm90a, (9, 0))]
        {
            let name = machine_code(arch, capability).expect("machine code");
            let mut found = 0;
            for family in Family::ALL {
                for elem in [DType::Bf16, DType::F16] {
                    let Some(compiled) = Compiled::find(arch, *family, elem) else { continue };
                    let image = |name| compiled.image(name).expect("sound").expect("there");
                    assert!(image(name).starts_with(b"\x7fELF"), "{family:?} {name}");
                    let ptx = String::from_utf8(image(PTX)).expect("text");
                    let target = format!(".target {arch}\n");
                    assert!(ptx.starts_with(".version") && ptx.contains(&target), "{family:?} {target}");
                    assert!(compiled.image("sm_70").expect("sound").is_none());
                    found += 1;
                }
            }
            assert_eq!(found, if arch == Arch::Sm80 { 2 * Family::ALL.len() } else { 4 });
        }
        assert_eq!(machine_code(Arch::Sm80, (10, 0)), None);
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        for file in [
            &b"halfbyte 0\nptx 9"[..],
            b"halfbyte 0\nptx\n\n",
            b"halfbyte 0\nptx 3\n\n123",
            b"halfbyte 0\nptx 9 9\n\n123",
            b"halfbyte 0\nptx 3 9\n\n123",
        ] {
            let error = Compiled(file).image(PTX).expect_err("damaged").to_string();
            assert!(error.contains("damaged"), "{error}");
        }
    }
}
