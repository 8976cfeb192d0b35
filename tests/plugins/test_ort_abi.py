"""plugins/ort/ort_abi.h against ONNX Runtime's real headers: places, signatures, constants."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest
from shared import REPOSITORY as ROOT

pytestmark = pytest.mark.slow

HEADER = ROOT / "plugins" / "ort" / "ort_abi.h"
PACKAGE = "com.github.asus4.onnxruntime@0.4.9"
REMEDY = "set DVMSR_ORT_INCLUDE to the include folder of an onnxruntime release"

PROOF = """
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <onnxruntime_c_api.h>
namespace ours {
#include "ort_abi.h"
}

// Whether a type of ours means what theirs does: equal up to `noexcept`, with named types matched
// by name.
template <class Ours, class Theirs> struct Same : std::is_same<Ours, Theirs> {};
template <class O, class T> struct Same<const O, const T> : Same<O, T> {};
template <class O, class T> struct Same<O *, T *> : Same<O, T> {};
template <class...> struct List {};
template <class O, class... OO, class T, class... TT>
struct Same<List<O, OO...>, List<T, TT...>>
    : std::bool_constant<Same<O, T>::value && Same<List<OO...>, List<TT...>>::value> {};
template <class O, class... OA, class T, class... TA>
struct Same<O(OA...), T(TA...)> : Same<List<O, OA...>, List<T, TA...>> {};
template <class O, class... OA, class T, class... TA>
struct Same<O(OA...), T(TA...) noexcept> : Same<O(OA...), T(TA...)> {};
#define NAMED(type) \\
  template <> struct Same<ours::type, ::type> : std::true_type {};
#define ENUMERATION(type) \\
  NAMED(type) static_assert(sizeof(ours::type) == sizeof(::type), #type);
#define CONSTANT(name) static_assert(int(ours::name) == int(::name), #name);
#define MEMBER(type, name) \\
  static_assert(offsetof(ours::type, name) == offsetof(::type, name), #name " is elsewhere"); \\
  static_assert(Same<decltype(ours::type::name), decltype(::type::name)>::value, #name " differs");
"""


def _fetch(target: Path) -> None:
    """Put the headers out of the npm package into the folder `target`."""
    npm = shutil.which("npm")
    if not npm:
        raise FileNotFoundError("npm is not installed")
    target.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        folder = Path(name)
        pack = [npm, "pack", "--silent", "--fetch-retries=0", PACKAGE]
        subprocess.run(pack, cwd=folder, check=True, timeout=60, capture_output=True)
        headers = folder / "headers"
        headers.mkdir()
        with tarfile.open(next(folder.glob("*.tgz"))) as archive:
            for member in archive:
                path = Path(member.name)
                if path.match("ios-arm64/onnxruntime.framework/Headers/*.h"):
                    source = archive.extractfile(member)
                    assert source is not None
                    (headers / path.name).write_bytes(source.read())
        headers.rename(target)


@pytest.fixture(scope="module")
def include() -> Path:
    """The folder with the real headers."""
    if given := os.environ.get("DVMSR_ORT_INCLUDE"):
        if not (Path(given) / "onnxruntime_c_api.h").is_file():
            pytest.fail(f"DVMSR_ORT_INCLUDE={given} has no onnxruntime_c_api.h")
        return Path(given)
    cache = ROOT / "build" / "onnxruntime-headers"
    if not cache.is_dir():
        try:
            _fetch(cache)
        except (subprocess.SubprocessError, OSError) as error:
            pytest.skip(f"no ONNX Runtime headers ({error}): {REMEDY}")
    return cache


def _proof(header: str) -> str:
    """A C++ file that compiles only if all that the header declares is as in the real one."""
    code = re.sub(r"//.*", "", header)
    lines = [PROOF]
    lines += [f"NAMED({name})" for name in re.findall(r"\nstruct (\w+);", code)]
    for name, constants in re.findall(r"\nenum (\w+) \{(.*?)\};", code, flags=re.S):
        lines.append(f"ENUMERATION({name})")
        lines += [f"CONSTANT({constant})" for constant in re.findall(r"(\w+) =", constants)]
    for name, body in re.findall(r"struct (\w+) \{(.*?)\n\}", code, flags=re.S):
        members = re.findall(r"\(DVMSR_ORT_CALL \*(\w+)\)", body)
        members += re.findall(r"uint32_t (\w+);", body)
        lines += [f"MEMBER({name}, {member})" for member in members]
    # The runtime reads the members known at the version we declare; the last came with 1.18.
    lines.append(
        "static_assert(sizeof(ours::OrtCustomOp) =="
        ' offsetof(::OrtCustomOp, ReleaseAliasMap) + sizeof(void *), "OrtCustomOp\'s length");'
    )
    return "\n".join(lines) + "\n"


def _compile(header: str, include: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if not compiler:
        pytest.skip("no C++ compiler")
    (folder / "ort_abi.h").write_text(header)
    source = folder / "proof.cpp"
    source.write_text(_proof(header))
    flags = ["-std=c++17", "-fsyntax-only", "-Wno-ignored-attributes"]
    folders = ["-I", folder, "-isystem", include]
    return subprocess.run(
        [compiler, *flags, *folders, source], capture_output=True, text=True, timeout=120
    )


def test_header_agrees_with_onnx_runtime(include: Path, tmp_path: Path) -> None:
    header = HEADER.read_text()
    result = _compile(header, include, tmp_path)
    assert result.returncode == 0, result.stderr
    proof = (tmp_path / "proof.cpp").read_text()
    assert proof.count("\nMEMBER(") == header.count("(DVMSR_ORT_CALL *") + 1  # and `version`


@pytest.mark.parametrize(
    ("right", "wrong", "complaint"),
    [
        ("skipped_29[22]", "skipped_29[23]", "GetTensorMutableData is elsewhere"),
        ("void *skipped_create_kernel;", "", "GetName is elsewhere"),
        ("size_t count, size_t batches, void *data", "size_t count, void *data",
         "KernelContext_ParallelFor differs"),
        ("const int64_t *shape, size_t rank", "int64_t *shape, size_t rank",
         "KernelContext_GetOutput differs"),
        ("ORT_FAIL = 1", "ORT_FAIL = 2", "ORT_FAIL"),
        ("skipped_versions_and_reuse[6]", "skipped_versions_and_reuse[5]", "OrtCustomOp's length"),
    ],
)  # fmt: skip
def test_proof_notices(
    right: str, wrong: str, complaint: str, include: Path, tmp_path: Path
) -> None:
    header = HEADER.read_text()
    assert header.count(right) == 1
    result = _compile(header.replace(right, wrong), include, tmp_path)
    assert result.returncode != 0
    assert complaint in result.stderr
