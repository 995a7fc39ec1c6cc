#!/usr/bin/env python3
"""Compiles the kernels to compiled/<path>/<type>/<family>.bin. The result is checked in: users need a driver but no toolkit.

    kernels/build.py install     installs the pinned compiler from pip wheels into the private folder .cuda/ (no GPU needed)
    kernels/build.py             builds the families that changed, and checks them with ptxas for every GPU generation
    kernels/build.py --all       builds all families
    kernels/build.py --check     builds in memory and compares byte by byte with the checked-in files
    kernels/build.py NAME..      builds these families even if they did not change
    kernels/build.py --report    (with the above) also prints registers, shared memory and spills of each kernel
    kernels/build.py --unpack    extracts the checked-in PTX and cubins into .cuda/unpacked/

The compiler is NVRTC 12.1, the oldest version that has all instructions of sm_80 and sm_90a (wgmma, TMA). Its PTX (ISA 8.1)
loads on drivers from 530 on. ptxas is a newer version: it makes the machine code that we ship, and checks the PTX for more
GPUs. Register spills and serialized wgmma (warnings C7510, C7511 and the others of that group) fail the build.

A .bin file holds PTX, and machine code (cubins) for the GPUs that we ship it for. It starts with text lines, followed by the
images, each compressed with zlib:

    halfbyte <stamp>
    ptx <bytes here> <bytes of the image>
    sm_80 <bytes here> <bytes of the image>
    sm_90 <bytes here> <bytes of the image>
    <empty line>

The stamp is a hash of the sources (the family, its includes, toolchain.txt). tests/compiled_fresh.rs recomputes the hash, so
a forgotten build is noticed even on machines without the compiler.
"""

import ctypes
import os
import re
import subprocess
import sys
import tempfile
import zlib
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KERNELS = ROOT / "kernels"
TOOLCHAIN = ROOT / ".cuda"
RECIPE = (KERNELS / "toolchain.txt").read_text("utf-8")
LINES = [line for line in RECIPE.splitlines() if not line.startswith("#")]
OPTIONS = [line.removeprefix("option ") for line in LINES if line.startswith("option ")]
WHEELS = "\n".join(line for line in LINES if not line.startswith("option ")) + "\n"
TYPES = {"bf16": "__nv_bfloat16", "f16": "__half"}
# For each code path: the compiler's target, the folder of the sources, the GPUs for which ptxas must accept the PTX, and the
# GPUs whose machine code is shipped. Machine code for 8.0 also runs on 8.6 and 8.9.
ARCHES = {
    "sm_80": ("compute_80", KERNELS, ["sm_80", "sm_86", "sm_89", "sm_90"], ["sm_80", "sm_90"]),
    "sm_90a": ("compute_90a", KERNELS / "sm_90a", ["sm_90a"], ["sm_90a"]),
}


def install():
    """Unpacks the pinned wheels into .cuda/ after verifying their hashes. Nothing outside that folder changes."""
    TOOLCHAIN.mkdir(exist_ok=True)
    wanted = TOOLCHAIN / "requirements.txt"
    if wanted.exists() and wanted.read_text("utf-8") == WHEELS and (TOOLCHAIN / "nvidia").exists():
        return
    pins = TOOLCHAIN / "wanted.txt"
    pins.write_text(WHEELS, "utf-8")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--upgrade", "--only-binary=:all:"]
    # The compiler's wheels exist for x86-64 Linux only. They contain no Python code, so any Python version can unpack them.
    pip += ["--platform=manylinux2014_x86_64", "--platform=manylinux1_x86_64"]
    subprocess.run(pip + ["--require-hashes", f"--target={TOOLCHAIN}", "-r", str(pins)], check=True)
    pins.rename(wanted)


def stamp(source):
    """FNV-1a over the family's file, its includes in the order in which they first occur, and toolchain.txt."""
    files, queue = [], [source]
    while queue:
        file = queue.pop(0)
        if file in files:
            continue
        files.append(file)
        names = re.findall(r'^#include "([^"]+)"', file.read_text("utf-8"), re.M)
        beside = [source.parent / name for name in names]
        queue += [path if path.exists() else KERNELS / path.name for path in beside]
    hash = 0xCBF29CE484222325
    for file in files + [KERNELS / "toolchain.txt"]:
        for byte in file.read_bytes():
            hash = (hash ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{hash:016x}"


class Nvrtc:
    """The run-time compiler, called through its C API."""

    def __init__(self):
        folder = TOOLCHAIN / "nvidia/cuda_nvrtc/lib"
        if not folder.exists():
            sys.exit("the compiler is not installed\n  hint: kernels/build.py install")
        # NVRTC loads its builtins library by name.
        ctypes.CDLL(str(next(folder.glob("libnvrtc-builtins.so*"))), mode=ctypes.RTLD_GLOBAL)
        self.lib = ctypes.CDLL(str(next(folder.glob("libnvrtc.so*"))))

    def compile(self, source, target, element):
        options = [f"--gpu-architecture={target}", f"-DELEM={element}"] + OPTIONS
        folders = [source.parent, KERNELS, TOOLCHAIN / "nvidia/cuda_runtime/include"]
        options += [f"--include-path={folder}" for folder in folders]
        options = [o.encode() for o in options]
        program = ctypes.c_void_p()
        # The name has no folder, so that no path of this machine gets into the PTX.
        self.lib.nvrtcCreateProgram(ctypes.byref(program), source.read_bytes(), source.name.encode(), 0, None, None)
        failed = self.lib.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        log = self.text(program, "nvrtcGetProgramLog").strip()
        if failed or log:
            sys.exit(f"{source.relative_to(ROOT)} ({element}, {target}):\n{log}")
        return self.text(program, "nvrtcGetPTX")

    def text(self, program, get):
        size = ctypes.c_size_t()
        getattr(self.lib, get + "Size")(program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        getattr(self.lib, get)(program, text)
        return text.value.decode()


def assemble(ptx, gpus, label, report):
    """Assembles the PTX with ptxas for every GPU; returns the machine code of each GPU, report lines and error messages."""
    images, lines, complaints = {}, [], []
    ptxas = TOOLCHAIN / "nvidia/cuda_nvcc/bin/ptxas"
    os.chmod(ptxas, 0o755)
    for gpu in gpus:
        with tempfile.NamedTemporaryFile() as out:
            command = [str(ptxas), "-v", f"-arch={gpu}", "-o", out.name, "/dev/stdin"]
            run = subprocess.run(command, input=ptx, capture_output=True, text=True)
            images[gpu] = Path(out.name).read_bytes()
        log = run.stdout + run.stderr
        if run.returncode != 0 or "Potential Performance Loss" in log:
            complaints.append(f"{label} on {gpu}:\n{log}")
        entry = ""
        for line in log.splitlines():
            if match := re.search(r"Compiling entry function '(\w+)'", line):
                entry = match.group(1)
            if (match := re.search(r"(\d+) bytes spill stores", line)) and int(match.group(1)) > 0:
                complaints.append(f"{label} on {gpu}: {entry} spills registers:\n  {line.strip()}")
            if report and "Used" in line:
                lines.append(f"{label:32} {gpu} {entry:34} {line.split('Used ')[1]}")
    return images, lines, complaints


def pack(stamp, images):
    """Returns the content of a .bin file."""
    packed = {name: zlib.compress(image, 9) for name, image in images.items()}
    lines = [f"halfbyte {stamp}"] + [f"{name} {len(packed[name])} {len(image)}" for name, image in images.items()]
    return "\n".join(lines + ["", ""]).encode() + b"".join(packed.values())


def unpack(content):
    """Returns the stamp and the images of a .bin file. Compare images, not files: zlib versions compress differently."""
    head, _, rest = content.partition(b"\n\n")
    (_, stamp), *entries = [line.split(" ") for line in head.decode().splitlines()] or [("", "")]
    images = {}
    for name, size, _ in entries:
        images[name], rest = zlib.decompress(rest[: int(size)]), rest[int(size) :]
    return stamp, images


def write_unpacked():
    """Extracts every image into a file."""
    for path in sorted((ROOT / "compiled").rglob("*.bin")):
        for name, image in unpack(path.read_bytes())[1].items():
            suffix = "ptx" if name == "ptx" else f"{name}.cubin"
            to = TOOLCHAIN / "unpacked" / path.relative_to(ROOT / "compiled").with_suffix(f".{suffix}")
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(image)


def compiled(arch, kind, source):
    """The checked-in file of a family."""
    return ROOT / "compiled" / arch / kind / f"{source.stem}.bin"


def build(arch, source, kind, check, report):
    """Compiles a family for one type. Writes its file, or with `check` compares it. Returns report lines and error messages."""
    target, _, gpus, kept = ARCHES[arch]
    path = compiled(arch, kind, source)
    label = str(path.relative_to(ROOT).with_suffix(""))
    # Removes the compiler's banner, which names its build.
    ptx = re.sub(r"^//.*\n", "", Nvrtc().compile(source, target, TYPES[kind]), flags=re.M).lstrip("\n")
    # ptxas accepted the checked-in PTX for the other GPUs when it was built; equal PTX needs no second trial.
    code, lines, wrong = assemble(ptx, kept if check else gpus, label, report)
    new = (stamp(source), {"ptx": ptx.encode()} | {gpu: code[gpu] for gpu in kept})
    old = unpack(path.read_bytes()) if path.exists() else ("", {})
    if check and old != new:
        wrong.append(f"{label}.bin differs from its sources\n  hint: kernels/build.py")
    elif not check and not wrong and old != new:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pack(*new))
    return lines, wrong


def main(arguments):
    if arguments == ["install"]:
        return install()
    if arguments == ["--unpack"]:
        return write_unpacked()
    sources = [(arch, s) for arch, (_, folder, _, _) in ARCHES.items() for s in sorted(folder.glob("*.cu"))]
    named = {a for a in arguments if not a.startswith("-")}
    unknown = set(arguments) - {"--all", "--check", "--report"} - {s.stem for _, s in sources}
    if unknown:
        sys.exit(f"unknown argument {unknown.pop()}\n{__doc__}")
    everything, check, report = ("--all" in arguments, "--check" in arguments, "--report" in arguments)
    jobs, expected = [], set()
    for arch, source in sources:
        for kind in TYPES:
            path = compiled(arch, kind, source)
            expected.add(path)
            old = unpack(path.read_bytes())[0] if path.exists() else ""
            if old != stamp(source) or everything or source.stem in named:
                jobs.append((arch, source, kind, check, report))
    complaints = []
    # A new process for each family and type: what NVRTC compiled before changes the order of some instructions.
    with ProcessPoolExecutor(max_tasks_per_child=1) as pool:
        for lines, wrong in pool.map(build, *zip(*jobs)) if jobs else []:
            complaints += wrong
            print("\n".join(lines), end="\n" if lines else "")
    for path in sorted((ROOT / "compiled").rglob("*.bin")):
        if path not in expected:
            if check:
                complaints.append(f"{path.relative_to(ROOT)} has no source")
            else:
                path.unlink()
    if complaints:
        sys.exit("\n".join(complaints))
    print(f"{len(jobs)} compiled, {len(expected) - len(jobs)} up to date")


if __name__ == "__main__":
    main(sys.argv[1:])
