"""Writes the classes a mock of TensorRT derives from: one for each of NVIDIA's own classes of virtual functions that
the shim reaches, with every function overridden to say that nobody expected it.

    python3 mock.py INCLUDE_DIR > mock_classes.h
    python3 mock.py INCLUDE_DIR --slots    where in their tables the functions are, a line each

The order of the functions is the headers', as is everything else: the mock proves that the shim and a library built
from the same headers understand each other. It proves nothing about what NVIDIA's library does.
"""

import pathlib
import re
import sys

CLASSES = ("VRuntime", "VCudaEngine", "VExecutionContext")


def body(text, name):
    """The lines of a class, comments left out."""
    found = re.search(r"class %s\b[^;{]*\{(.*?)\n\};" % name, text, re.S)
    if not found:
        sys.exit(f"NvInferImpl.h: expected class {name}, got none")
    return found.group(1)


def functions(lines):
    """Declarations of pure virtual functions, and the preprocessor's lines between them."""
    statement = ""
    for line in lines.splitlines():
        line = line.strip()
        if line.startswith("#"):
            yield line
        elif line not in ("", "public:", "protected:"):
            statement += " " + line
            if statement.endswith(";"):
                if "virtual" in statement and statement.replace(" ", "").endswith("=0;"):
                    yield re.sub(r"=\s*0\s*;$", "", statement).strip()
                statement = ""


def name_of(declaration):
    return re.search(r"(\w+)\s*\(", declaration).group(1)


def slots(text):
    for name in CLASSES:
        declared = [line for line in functions(body(text, name)) if not line.startswith("#")]
        for slot, line in enumerate(declared):
            print(name, name_of(line), slot)


def main():
    include = pathlib.Path(sys.argv[1])
    text = re.sub(r"//[^\n]*", "", (include / "NvInferImpl.h").read_text())
    if sys.argv[2:] == ["--slots"]:
        return slots(text)
    print("#pragma once\n#include \"NvInferRuntime.h\"\nvoid unexpected(char const* name) noexcept;")
    print("namespace nvinfer1 { namespace mock {\nusing namespace apiv;")
    for name in CLASSES:
        print(f"class {name}Default : public apiv::{name}\n{{\npublic:")
        for line in functions(body(text, name)):
            if line.startswith("#"):
                print(line)
                continue
            line = line.replace("TRT_NODISCARD", "").replace("virtual ", "", 1).strip()
            called = name_of(line)
            returned = line[: line.index(called)].strip()
            if returned == "void":
                answer = ""
            elif returned.endswith("&"):
                answer = " __builtin_trap();"
            else:
                answer = " return {};"
            print(f"    {line} override {{ unexpected(\"{called}\");{answer} }}")
        print("};")
    print("} }")


main()
