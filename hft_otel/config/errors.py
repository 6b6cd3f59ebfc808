"""What a configuration that cannot be used says."""

from __future__ import annotations

__all__ = ["ConfigError"]


class ConfigError(ValueError):
    """A configuration that cannot be used; says the file, the path inside it, the cause and the cure."""

    def __init__(
        self,
        cause: str,
        *,
        file: str | None = None,
        path: str = "",
        cure: str = "",
        line: int | None = None,
        column: int | None = None,
    ) -> None:
        self.cause, self.file, self.path, self.cure, self.line, self.column = (
            cause,
            file,
            path,
            cure,
            line,
            column,
        )
        place = ":".join(str(part) for part in (file, line, column) if part)
        head = ": ".join(part for part in (place, path) if part)
        lines = [head, f"  cause: {cause}"] if head else [cause]
        super().__init__("\n".join([*lines, f"  cure: {cure}"] if cure else lines))
