"""The parts of a wheel that are not compiled: metadata, the list of contents, the archive."""

import base64
import hashlib
import zipfile


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def bill_of_materials(version, libev, zig_version):
    """What is inside, as CycloneDX: the name and the place are what PEP 770 asks for."""
    libev_version = next(
        line.split()[0]
        for line in (libev / "Changes").read_text().splitlines()
        if line[:1].isdigit()
    )
    sources = b"".join(path.read_bytes() for path in sorted(libev.glob("ev*.[ch]")))
    package = {
        "type": "library",
        "bom-ref": "asyncloop-libev",
        "name": "asyncloop-libev",
        "version": version,
        "purl": f"pkg:pypi/asyncloop-libev@{version}",
        "licenses": [{"license": {"id": "MIT"}}],
    }
    compiled_in = {
        "type": "library",
        "bom-ref": "libev",
        "name": "libev",
        "version": libev_version,
        "purl": f"pkg:generic/libev@{libev_version}",
        "licenses": [{"license": {"id": "BSD-2-Clause"}}],
        "properties": [
            {"name": "sha256 of ev*.c and ev*.h, in order of name", "value": sha256(sources)}
        ],
    }
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": package,
            "tools": {
                "components": [{"type": "application", "name": "zig cc", "version": zig_version}]
            },
        },
        "components": [compiled_in],
        "dependencies": [
            {"ref": "asyncloop-libev", "dependsOn": ["libev"]},
            {"ref": "libev", "dependsOn": []},
        ],
    }


def add_libev(metadata):
    """METADATA of a wheel that holds libev."""
    lines = []
    for line in metadata.splitlines():
        if line.startswith("License-Expression:"):
            line += " AND BSD-2-Clause"
        lines.append(line)
        if line == "License-File: LICENSE":
            lines.append("License-File: libev/LICENSE")
    return "\n".join(lines) + "\n"


def pack(path, files, info):
    """The wheel at `path`: `files` by their names in it, and the list of them."""
    record = f"{info}/RECORD"
    rows = []
    for name, data in sorted(files.items()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={digest},{len(data)}\n")
    files = {**dict(sorted(files.items())), record: "".join([*rows, f"{record},,\n"]).encode()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            member = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            member.create_system = 3
            member.external_attr = (0o100755 if name.endswith(".so") else 0o100644) << 16
            archive.writestr(member, data, zipfile.ZIP_DEFLATED, 9)
