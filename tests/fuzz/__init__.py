"""Fuzz targets for the Python code that parses untrusted memory.

``python -m tests.fuzz printk CORPUS -max_total_time=1200`` searches for inputs that break it,
guided by coverage (needs atheris). ``test_any_bytes`` mutates valid inputs in the normal suite.
"""
