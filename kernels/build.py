#!/usr/bin/env python3
"""Compiles kernels/<family>.cu to ptx/<arch>/<type>/<family>.ptx. The PTX is checked in, so users need a driver but no toolkit.

    kernels/build.py install     installs the pinned compiler from pip wheels into the private folder .cuda/ (no GPU needed)
    kernels/build.py             builds the families that changed, and checks them with ptxas for every GPU generation
    kernels/build.py --all       builds all families
    kernels/build.py --check     builds in memory and compares byte by byte with the checked-in PTX
    kernels/build.py NAME..      builds these families even if they did not change
    kernels/build.py --report    (with the above) also prints registers, shared memory and spills of each kernel

The compiler is NVRTC 12.1, the oldest version that has all instructions of sm_80 and sm_90a (wgmma, TMA). Its PTX (ISA 8.1)
loads on drivers from 530 on. ptxas is a newer version and only checks: a user's driver brings its own. Register spills and
serialized wgmma (warnings C7510, C7511 and the others of that group) fail the build.

Each PTX file starts with a stamp: a hash of its sources (the family, its includes, toolchain.txt). tests/ptx_fresh.rs
recomputes the hash, so a forgotten build is noticed even on machines without the compiler.
"""

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KERNELS = ROOT / "kernels"
TOOLCHAIN = ROOT / ".cuda"
RECIPE = (KERNELS / "toolchain.txt").read_text("utf-8")
LINES = [line for line in RECIPE.splitlines() if not line.startswith("#")]
OPTIONS = [line.removeprefix("option ") for line in LINES if line.startswith("option ")]
WHEELS = "\n".join(line for line in LINES if not line.startswith("option ")) + "\n"
TYPES = {"bf16": "__nv_bfloat16", "f16": "__half"}
# For each folder of ptx/: the compiler's target, the folder of the sources, and the GPUs for which ptxas must accept the PTX.
ARCHES = {"sm_80": ("compute_80", KERNELS, ["sm_80", "sm_86", "sm_89", "sm_90"])}


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
        queue += [KERNELS / name for name in names]
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
        options += [f"--include-path={KERNELS}", f"--include-path={TOOLCHAIN}/nvidia/cuda_runtime/include"]
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


def judge(ptx, gpus, label, report):
    """Assembles the PTX with ptxas for every GPU; returns error messages."""
    complaints = []
    for gpu in gpus:
        ptxas = TOOLCHAIN / "nvidia/cuda_nvcc/bin/ptxas"
        os.chmod(ptxas, 0o755)
        command = [str(ptxas), "-v", f"-arch={gpu}", "-o", os.devnull, "/dev/stdin"]
        run = subprocess.run(command, input=ptx, capture_output=True, text=True)
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
                print(f"{label:32} {gpu} {entry:34} {line.split('Used ')[1]}")
    return complaints


def main(arguments):
    if arguments == ["install"]:
        return install()
    named = {a for a in arguments if not a.startswith("-")}
    unknown = set(arguments) - {"--all", "--check", "--report"} - {s.stem for s in KERNELS.glob("*.cu")}
    if unknown:
        sys.exit(f"unknown argument {unknown.pop()}\n{__doc__}")
    everything, check, report = ("--all" in arguments, "--check" in arguments, "--report" in arguments)
    nvrtc, complaints, built, expected = None, [], 0, set()
    for arch, (target, folder, gpus) in ARCHES.items():
        for source in sorted(folder.glob("*.cu")):
            for kind, element in TYPES.items():
                path = ROOT / "ptx" / arch / kind / f"{source.stem}.ptx"
                expected.add(path)
                head = f"// halfbyte {stamp(source)}\n"
                old = path.read_text("utf-8") if path.exists() else ""
                if old.startswith(head) and not everything and source.stem not in named:
                    continue
                nvrtc = nvrtc or Nvrtc()
                # The stamp replaces the compiler's banner, which names its build.
                ptx = re.sub(r"^//.*\n", "", nvrtc.compile(source, target, element), flags=re.M).lstrip("\n")
                label = f"{arch}/{kind}/{source.stem}"
                wrong = judge(ptx, gpus, label, report)
                complaints += wrong
                built += 1
                if check and old != head + ptx:
                    complaints.append(f"ptx/{label}.ptx differs from its sources\n  hint: kernels/build.py")
                elif not check and not wrong:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(head + ptx, "utf-8")
    for path in sorted((ROOT / "ptx").rglob("*.ptx")):
        if path not in expected:
            if check:
                complaints.append(f"{path.relative_to(ROOT)} has no source")
            else:
                path.unlink()
    if complaints:
        sys.exit("\n".join(complaints))
    print(f"{built} compiled, {len(expected) - built} up to date")


if __name__ == "__main__":
    main(sys.argv[1:])
