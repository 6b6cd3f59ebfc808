"""Bring the real parts that the tests run against: Collectors, Prometheus with promtool, Pushgateway, OpenSearch, compose-go.

    python -m tools.parts [PART | all] [--where]      PART: collector, collector-elasticsearch, prometheus, ...

Builds with Go what is missing, into the ignored folder .parts/bin, and says what it is doing; a second call finds
everything in place. Prometheus, promtool and the Pushgateway are taken from PATH where they are installed (Debian has
them); HFT_OTELCOL names a Collector to use instead of building one. --where only looks, and prints a path per program.
`all` tries the Collector with Elasticsearch, which may be missing where the Go module proxy refuses a module of it,
OpenSearch where Java and Maven are, and the full Collector where HFT_FULL_COLLECTOR=1 asks for it or, in CI, the
machine is large enough. These may be missing without an error, since their tests are skipped with a line.

Exit status: 0 everything is there, 1 a build failed, 2 wrong arguments, 3 something is not available here (no Go).
Only the standard library is used, so this runs before anything is installed.
"""

from .catalog import ALL, PROGRAMS, bring, cure, locate
from .model import BuildError, UnavailableError

__all__ = ["ALL", "PROGRAMS", "BuildError", "UnavailableError", "bring", "cure", "locate"]
