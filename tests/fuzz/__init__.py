"""What is done with memory that anybody may have made, where Python reads it.

``python -m tests.fuzz printk CORPUS -max_total_time=1200`` looks for inputs that break it, guided
by coverage (needs atheris); ``test_any_bytes`` mutates sound inputs in the normal suite.
"""
