"""Linux 6.1 on x86_64."""
