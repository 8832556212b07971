"""The parts of an archive in CycloneDX (ECMA-424), 1.6 as JSON.

By cyclonedx-python-lib (Apache-2.0, of the OWASP CycloneDX project), which knows the schema and
holds what is written against it. It is installed where an archive is made, nowhere else.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from cyclonedx.factory.license import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from release.licenses import Part


def write(archive: Path, digest: str, version: str, parts: Sequence[Part], epoch: int) -> Path:
    """Write the list beside an archive, as NAME.cdx.json; return its path.

    Args:
        archive: the archive.
        digest: its SHA-256.
        version: of the program.
        parts: what of others is in it.
        epoch: seconds since 1970.

    Raises:
        ValueError: what was written is not valid.
    """
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, digest))
    bom.metadata.timestamp = datetime.fromtimestamp(epoch, UTC)
    program = Component(
        name="kubectl-ebpfnet",
        version=version,
        type=ComponentType.APPLICATION,
        bom_ref="kubectl-ebpfnet",
        purl=PackageURL("pypi", name="kubectl-ebpfnet", version=version),
        licenses=[LicenseFactory().make_from_string("Apache-2.0")],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
        description=archive.name,
    )
    components = [_component(part) for part in parts]
    bom.metadata.component = program
    bom.components.update(components)
    bom.register_dependency(program, components)
    text = JsonV1Dot6(bom).output_as_string(indent=2)
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise ValueError(f"{archive.name}: its SBOM is not valid: {error}")
    path = archive.with_name(f"{archive.name}.cdx.json")
    path.write_text(f"{text}\n", encoding="utf-8")
    return path


def _component(part: Part) -> Component:
    purl = PackageURL("pypi", name=part.name.lower(), version=part.version)
    return Component(
        name=part.name,
        version=part.version or None,
        type=ComponentType.LIBRARY,
        bom_ref=f"{part.name}@{part.version}",
        purl=purl if part.on_pypi else None,
        licenses=[LicenseFactory().make_from_string(part.license)],
    )
