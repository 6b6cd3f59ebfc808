"""OpenSearch, from the jars that Maven brings."""

from __future__ import annotations

import shutil

from .model import PARTS, ROOT, Part, UnavailableError
from .steps import run

OPENSEARCH = ROOT / "tools" / "opensearch"
SCRIPT = """#!/bin/sh
folder=$(dirname "$0")/../opensearch
exec java -Xms512m -Xmx512m -cp "$folder/lib/*" "$folder/Launch.java" "$@"
"""
"""Goes by its own place, so that the folder of parts may be moved, and be shared by links to it."""


def build_opensearch(part: Part) -> None:
    """Fetch the jars, and write the script that starts them."""
    folder = PARTS / "opensearch"
    shutil.rmtree(folder, ignore_errors=True)
    run("opensearch", "jars by Maven (half a minute from nothing)", [
        maven(), "-B", "-q", "-ntp", "-f", str(OPENSEARCH / "pom.xml"),
        "dependency:copy-dependencies", f"-DoutputDirectory={folder / 'lib'}",
    ])  # fmt: skip
    shutil.copy(OPENSEARCH / "Launch.java", folder)
    script = part.programs[0].built
    script.write_text(SCRIPT)
    script.chmod(0o755)


def opensearch_recipe() -> str:
    """Its sources, and the script that starts it."""
    return SCRIPT + "".join((OPENSEARCH / file).read_text() for file in ("pom.xml", "Launch.java"))


def leave_out_opensearch() -> str | None:
    """Why `all` does not bring OpenSearch here; None where it does."""
    try:
        maven()
    except UnavailableError as reason:
        return str(reason)
    return None


def maven() -> str:
    """The command of Maven, checked to have a Java machine."""
    found = shutil.which("mvn")
    if found is None or shutil.which("java") is None:
        raise UnavailableError(
            "Java 11 or newer (a JDK) and Maven are needed for OpenSearch, and are not here"
        )
    return found
