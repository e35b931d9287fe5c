"""Add up JUnit files and close with one line that can be counted: `N passed, N failed, N skipped`.

    python tools/count_tests.py FOLDER

Exit status 1 when a test failed or none ran.
"""

import sys
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path


def count(folder: Path) -> Counter[str]:
    total: Counter[str] = Counter()
    for path in sorted(folder.glob("*.xml")):
        for suite in ET.parse(path).getroot().iter("testsuite"):
            for key in ("tests", "failures", "errors", "skipped"):
                total[key] += int(suite.get(key, 0))
    return total


def main(folder: Path) -> int:
    total = count(folder)
    failed = total["failures"] + total["errors"]
    passed = total["tests"] - failed - total["skipped"]
    print(f"{passed} passed, {failed} failed, {total['skipped']} skipped")
    return int(failed > 0 or passed <= 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
