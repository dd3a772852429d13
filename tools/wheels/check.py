"""What a wheel promises by its name, and the limits that it keeps, looked up in its bytes."""

import io
import zipfile

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection, GNUVerSymSection
from elftools.elf.sections import SymbolTableSection

LARGEST_WHEEL = 250 * 1024
LARGEST_CORE = 500 * 1024
NEWEST_GLIBC = (2, 17)
MACHINES = {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64"}
GLIBC = {"libc.so.6", "libpthread.so.0"}

HEAD = f"{'wheel':78} {'bytes':>7} {'core':>7} {'symbols':>11} {'seconds':>8}"


def unknown(elf):
    """Symbols that are neither inside nor Python's nor glibc's, which have versions all of them."""
    names = []
    for section in elf.iter_sections():
        if isinstance(section, GNUVerSymSection):
            symbols = elf.get_section(section["sh_link"]).iter_symbols()
            for symbol, version in zip(symbols, section.iter_symbols(), strict=True):
                missing = symbol["st_shndx"] == "SHN_UNDEF"
                strong = symbol["st_info"]["bind"] == "STB_GLOBAL"
                if missing and strong and str(version["ndx"]).startswith("VER_NDX"):
                    names.append(symbol.name)
    return sorted(name for name in names if not name.startswith(("Py", "_Py")))


def look(path, target):
    """(problems, row of the table)"""
    problems = []
    with zipfile.ZipFile(path) as wheel:
        (name,) = (one for one in wheel.namelist() if one.endswith(".so"))
        core = wheel.read(name)
        for wanted in ("/licenses/LICENSE", "/licenses/libev/LICENSE", "/sboms/asyncloop.cdx.json"):
            if not any(one.endswith(wanted) for one in wheel.namelist()):
                problems.append(f"there is no {wanted}")
    elf = ELFFile(io.BytesIO(core))
    if elf["e_machine"] != MACHINES[target.machine]:
        problems.append(f"for another machine: {elf['e_machine']}")
    if any(section.name.startswith((".debug", ".symtab")) for section in elf.iter_sections()):
        problems.append("not stripped")
    needed, versions, exported = set(), set(), set()
    for section in elf.iter_sections():
        if isinstance(section, DynamicSection):
            needed |= {tag.needed for tag in section.iter_tags("DT_NEEDED")}
        elif isinstance(section, GNUVerNeedSection):
            versions |= {one.name for _, all_of_it in section.iter_versions() for one in all_of_it}
        elif isinstance(section, SymbolTableSection):
            exported |= {
                one.name for one in section.iter_symbols() if one["st_shndx"] != "SHN_UNDEF"
            }
    problems += [f"nobody has {symbol}" for symbol in unknown(elf)]
    problems += [f"exports {symbol}" for symbol in sorted(exported - {"PyInit__core"})]
    allowed = {f"libc.musl-{target.machine}.so.1"} if target.musl else GLIBC
    problems += [f"needs {library}" for library in sorted(needed - allowed)]
    numbers = [tuple(map(int, one.removeprefix("GLIBC_").split("."))) for one in versions]
    if max(numbers, default=(0,)) > NEWEST_GLIBC:
        problems.append(f"needs glibc {'.'.join(map(str, max(numbers)))}")
    if path.stat().st_size > LARGEST_WHEEL:
        problems.append(f"larger than {LARGEST_WHEEL:,} bytes")
    if len(core) > LARGEST_CORE:
        problems.append(f"the extension is larger than {LARGEST_CORE:,} bytes")
    newest = "GLIBC_" + ".".join(map(str, max(numbers))) if numbers else "musl"
    return problems, f"{path.name:78} {path.stat().st_size:7} {len(core):7} {newest:>11}"
