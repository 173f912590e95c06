"""Linux 4.19 on i386 with PAE."""
