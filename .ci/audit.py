"""Say which of the audited packages have known vulnerabilities, and fail if a fixed version of one exists.

    python .ci/audit.py REPORT

REPORT is the JSON that pip-audit has written. If it could not reach its data, as without a network, there is no report,
or one in which every package was skipped. Nothing was audited then, and the audit does not fail.
"""

import json
import sys
from pathlib import Path


def main(report: Path) -> int:
    """Print the result of an audit, and return the exit code."""
    try:
        packages = json.loads(report.read_text(encoding="utf-8"))["dependencies"]
    except (OSError, ValueError, KeyError):
        packages = []
    audited = [package for package in packages if "vulns" in package]
    if not audited:
        print("Vulnerabilities: not checked, because pip-audit cannot reach its data here.")
        return 0
    fixable = False
    for package in audited:
        for vulnerability in package["vulns"]:
            fixed = ", ".join(vulnerability["fix_versions"])
            fixable = fixable or bool(fixed)
            name = f"{package['name']} {package['version']}"
            print(f"{name}: {vulnerability['id']}, {f'fixed in {fixed}' if fixed else 'not fixed yet'}")
    print(f"Vulnerabilities: {len(audited)} of {len(packages)} packages checked.")
    return int(fixable)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
