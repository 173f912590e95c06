"""The benchmarks pin threads to cores, which only Linux lets them do."""

import sys

if sys.platform != "linux":
    collect_ignore_glob = ["test_*.py"]
